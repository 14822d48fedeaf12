"""Pixels kept patch by patch against convolutions and maps. Axes: B, C, h, w, N."""

import torch
from torch import nn

from segwright.layers.patch_pixels import enlarge_patches, gather_patches, lay_out_patches


def test_two_enlargements_laid_out_are_two_transposed_convolutions():
    torch.manual_seed(0)
    first, second = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.ConvTranspose2d(4, 2, 2, stride=2)
    x = torch.randn(3, 6, 2, 5)
    with torch.no_grad():
        patches = x.flatten(2).mT  # (B, N, C)
        found = enlarge_patches(second, enlarge_patches(first, patches))  # (B, N, 4, 4, C)
        maps = lay_out_patches(found.flatten(1, 3).mT, 2, 5)
        torch.testing.assert_close(maps, second(first(x)))


def test_gathering_is_the_inverse_of_laying_out():
    x = torch.randn(2, 3, 8, 12)
    patches = gather_patches(x, 2)  # (B, 16 * C, 2, 3)
    assert patches.shape == (2, 48, 2, 3)
    pixels = patches.unflatten(1, (16, 3)).permute(0, 2, 3, 4, 1).flatten(2)  # (B, C, N * 16)
    torch.testing.assert_close(lay_out_patches(pixels, 2, 3), x)


def test_by_hand_the_channels_of_a_patch_are_those_of_its_pixels():
    assert gather_patches(torch.arange(16.0).view(1, 4, 4), 1)[:, 0, 1].tolist() == [2, 3, 6, 7]
    assert gather_patches(torch.arange(16.0).view(1, 4, 4), 2).flatten().tolist() == [
        *(0, 1, 4, 5), *(2, 3, 6, 7), *(8, 9, 12, 13), *(10, 11, 14, 15)
    ]  # fmt: skip

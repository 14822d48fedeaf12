"""The pixel decoder of Mask2Former by its laws; its parity is held in test_mask2former.py. Axes: B, E, S, H, W."""

import pytest
import torch

from segwright.models._deformable_pixel_decoder import DeformablePixelDecoder

CHANNELS = (4, 8, 16, 32)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return DeformablePixelDecoder(CHANNELS, 64, depth=2, num_heads=4, mlp_width=16).eval().requires_grad_(False)


def maps(batch=2, sides=(16, 24)):
    height, width = sides
    return [torch.randn(batch, count, height >> n, width >> n) for n, count in enumerate(CHANNELS)]


def test_levels_are_the_coarsest_first(decoder):
    pixels = decoder(maps())
    assert pixels.features.shape == (2, 64, 16, 24)
    assert pixels.sides == [(2, 3), (4, 6), (8, 12)]
    assert [level.shape for level in pixels.levels] == [(2, 6, 64), (2, 24, 64), (2, 96, 64)]
    assert [place.shape for place in pixels.positions] == [(6, 64), (24, 64), (96, 64)]


def test_images_do_not_mix(decoder):
    given = maps()
    both, second = decoder(given), decoder([level[1:] for level in given])
    torch.testing.assert_close(both.features[1:], second.features, rtol=1e-4, atol=1e-5)
    for together, alone in zip(both.levels, second.levels, strict=True):
        torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_pixels_of_a_level_see_the_others(decoder):
    """A change of the coarsest map reaches the finest level; one of the map at stride 4 reaches the features alone."""
    given = maps(batch=1)
    before = decoder(given)
    coarse = decoder([*given[:3], given[3] + torch.randn_like(given[3])])
    fine = decoder([given[0] + torch.randn_like(given[0]), *given[1:]])
    assert (coarse.levels[2] - before.levels[2]).abs().max() > 1e-3
    assert all(torch.equal(one, other) for one, other in zip(fine.levels, before.levels, strict=True))
    assert (fine.features - before.features).abs().max() > 1e-3


def test_sides_that_are_no_multiples_are_resized(decoder):
    pixels = decoder(
        [torch.randn(1, count, *side) for count, side in zip(CHANNELS, [(5, 7), (3, 4), (2, 2), (1, 1)], strict=True)]
    )
    assert pixels.features.shape == (1, 64, 5, 7)

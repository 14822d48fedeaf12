"""Maps finer than patches, kept patch by patch: the 16 pixels of a patch lie beside each other.

A transposed convolution of 2 x 2 is then a linear layer, and a finer map is some more channels of the map of patches. Of a
patch come its four quarters, row by row, and of each quarter its four pixels.

Axes: * any axes, C channels, h, w sides of the map of patches, N = h * w patches.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def enlarge_patches(conv: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Pixels (*, C) to four each, row by row (*, 4, C'): what a transposed convolution of 2 x 2 with stride 2 does."""
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (4 * C', C)
    return F.linear(x, weight).unflatten(-1, (4, -1)) + conv.get_parameter("bias")


def lay_out_patches(x: Tensor, h: int, w: int) -> Tensor:
    """Pixels of patches (*, 16 * N) as a map (*, 4 * h, 4 * w)."""
    n = x.ndim - 1
    pixels = x.unflatten(-1, (h, w, 2, 2, 2, 2))  # rows and columns of patches, of quarters, then of pixels
    pixels = pixels.permute(*range(n), n, n + 2, n + 4, n + 1, n + 3, n + 5)  # counted from the front, as exporters need it
    return pixels.reshape(*x.shape[:-1], 4 * h, 4 * w)


def gather_patches(x: Tensor, halvings: int) -> Tensor:
    """A map (*, C, h * 2 ** halvings, w * 2 ** halvings) as channels of patches (*, 4 ** halvings * C, h, w).

    The channels of a patch are those of its first pixel, of its second, and so on.
    """
    for _ in range(halvings):
        n = x.ndim - 3
        x = x.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).permute(*range(n), n + 2, n + 4, n, n + 1, n + 3)
        x = x.flatten(n, n + 2)  # row, column, C
    return x

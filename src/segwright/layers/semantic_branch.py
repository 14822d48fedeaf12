"""The semantic branch of Panoptic Feature Pyramid Networks (Kirillov et al. 2019, arXiv 1901.02446, figure 3).

Axes: B batch, C channels of the pyramid, E channels of the branch, H, W sides of the image.
"""

from math import log2

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import SettingError
from segwright.layers.norms import GROUPS, head_norm


def check_widths(branch_width: int, **others: int) -> None:
    """Refuse a width of the branch, or other counts by their names, that no network with one can have.

    Raises:
        SettingError: a count is below 1, or the branch's is no multiple of its groups.
    """
    for name, count in others.items():
        if count < 1:
            raise SettingError(f"{name} is {count}; it must be 1 or more")
    if branch_width < 1 or branch_width % GROUPS:
        raise SettingError(
            f"branch_width is {branch_width}; its channels are normalised in {GROUPS} groups, so give a multiple of {GROUPS}, "
            "such as 128"
        )


class SemanticBranch(nn.Module):
    """Maps of a pyramid (B, before, H / strides[i], W / strides[i]), the finest first, to one (B, width, sides of the finest).

    Each map is convolved and doubled until it has the size of the finest, and all are summed; `width` must be a multiple of 32.
    All levels double for the last time from the same size, and doubling commutes with the sum: so they are summed before it.
    The deepest map has `extra` channels more than the others, which SOLOv2 tells the places of its pixels in.
    """

    def __init__(self, strides: tuple[int, ...], before: int, width: int, *, align_corners: bool, extra: int = 0) -> None:
        super().__init__()
        self.align_corners = align_corners
        doublings = [round(log2(stride // strides[0])) for stride in strides]
        self.is_coarse = [count > 0 for count in doublings]
        widths = [before] * (len(strides) - 1) + [before + extra]
        self.levels = nn.ModuleList(
            nn.ModuleList(ConvGroupNormRelu(width if number else first, width) for number in range(max(count, 1)))
            for count, first in zip(doublings, widths, strict=True)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The sum (B, width, H / strides[0], W / strides[0])."""
        fine: list[Tensor] = []
        coarse: list[Tensor] = []
        for x, level, is_coarse in zip(maps, self.levels, self.is_coarse, strict=True):
            first, *others = level.children()
            x = first(x)
            for block in others:
                x = block(self._doubled(x))
            (coarse if is_coarse else fine).append(x)
        return _sum([*fine, self._doubled(_sum(coarse))] if coarse else fine)

    def _doubled(self, x: Tensor) -> Tensor:
        """A map at twice its sides."""
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.align_corners)


class ConvGroupNormRelu(nn.Sequential):
    """Map (B, before, h, w) to (B, after, h, w), `after` a multiple of 32; parts 0, 1 and 2."""

    def __init__(self, before: int, after: int, kernel: int = 3) -> None:
        convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, head_norm("group", after), nn.ReLU(inplace=True))
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # as detectron2


def _sum(maps: list[Tensor]) -> Tensor:
    """Maps of one size, added up."""
    first, *others = maps
    return sum(others, first)

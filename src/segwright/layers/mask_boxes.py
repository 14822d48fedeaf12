"""Boxes around masks that are probabilities on a coarse grid. Axes: N masks, h, w sides of the grid."""

import torch
from torch import Tensor

HALF = 0.5  # a pixel whose probability is at least this belongs to the object


def boxes_of_masks(masks: Tensor, stride: int) -> Tensor:
    """Boxes float32 (N, 4), (x1, y1, x2, y2) in pixels, around masks (N, h, w) of probabilities `stride` pixels apart.

    They hold every pixel whose probability, interpolated bilinearly at its centre, is at least 0.5, and reach no further than
    a row, column or edge of the grid's lines does; `stride` is even. A mask without such a pixel has any box.
    """
    height, width = (stride * side for side in masks.shape[1:])
    upright = masks.transpose(1, 2)
    left, right = _start(masks, stride), width - _start(masks.flip(2), stride)
    top, bottom = _start(upright, stride), height - _start(upright.flip(2), stride)
    return torch.stack([left, top, right, bottom], dim=1).float()


def _start(masks: Tensor, stride: int) -> Tensor:
    """The first column of pixels int64 (N,) where masks (N, h, w), interpolated along w alone, reach 0.5 in any row.

    Interpolation along h stays below the largest of a column, so that no pixel lies before it.
    """
    columns = torch.arange(masks.shape[2], device=masks.device)
    found = (masks >= HALF).any(dim=1)  # (N, w)
    first = torch.where(found, columns, masks.shape[2] - 1).amin(dim=1)  # (N,)
    here, before = (_column(masks, index) for index in (first, (first - 1).clamp(min=0)))
    share = (2 * torch.arange(stride, device=masks.device) + 1) / (2 * stride)  # of `here`, at the pixels between the two
    reaches = (torch.lerp(before, here, share.to(masks.dtype)) >= HALF).any(dim=1)  # (N, stride)
    missed = (reaches.long().cumsum(dim=1) == 0).sum(dim=1)
    return (first * stride - stride // 2 + missed).clamp(min=0)


def _column(masks: Tensor, index: Tensor) -> Tensor:
    """Columns (N, h, 1) of masks (N, h, w), one of each."""
    return masks.gather(2, index[:, None, None].expand(-1, masks.shape[1], 1))

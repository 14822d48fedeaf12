"""Greedy non-maximum suppression with results of a known length. Axes: n boxes, g groups."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, *, overlap: float, count: int) -> Tensor:
    """Indices of up to `count` boxes, the surest first, of which none overlaps a surer one of its group by more (IoU).

    Boxes (n, 4) are (x1, y1, x2, y2), scores (n,), groups int64 (n,). On the meta device, where nothing is known of the boxes,
    all are kept.
    """
    if boxes.is_meta:
        return torch.arange(min(count, len(boxes)), device=boxes.device)
    return batched_nms(boxes, scores, groups, overlap)[:count]


def where(is_true: Tensor) -> Tensor:
    """Indices of what is true in a bool tensor (n,); of everything on the meta device."""
    return torch.arange(len(is_true), device=is_true.device) if is_true.is_meta else is_true.nonzero().flatten()


def padded(values: Tensor, count: int) -> Tensor:
    """The first `count` of some values (n, *), with zeros behind them where there are fewer: always (count, *)."""
    rest = (0, 0) * (values.ndim - 1)
    return F.pad(values, (*rest, 0, count))[:count].reshape(count, *values.shape[1:])  # traced, it must know its length

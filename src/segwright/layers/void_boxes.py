"""Boxes that nobody knows: what lies in void, as the mirrored border of a crop, is neither an object nor none.

Axes: n boxes, P planes, H, W sides of the image.
"""

import torch
from torch import Tensor

from segwright.layers.box_matching import NONE, UNCLEAR

VOID = -1  # in the planes of a truth
MOST = 0.5  # of a box may be void: with more, whether an object lies there is a guess


def unclear_in_void(matches: Tensor, boxes: Tensor, planes: Tensor) -> Tensor:
    """The matches int64 (n,) of boxes (n, 4) with the objects of some planes int32 (P, H, W), as `match_boxes` gives them.

    Boxes without an object that are void by more than half become unclear, so that no loss asks what is there.
    """
    is_void = planes[0] == VOID
    if not is_void.any():
        return matches
    height, width = is_void.shape
    sums = torch.zeros(height + 1, width + 1, dtype=torch.float64, device=boxes.device)  # of what lies above and to the left
    sums[1:, 1:] = is_void.to(boxes.device, torch.float64).cumsum(0).cumsum(1)
    columns = boxes[:, 0::2].round().long().clamp(0, width)
    rows = boxes[:, 1::2].round().long().clamp(0, height)
    (left, right), (top, bottom) = columns.unbind(1), rows.unbind(1)
    void = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    area = (bottom - top) * (right - left)
    return torch.where((matches == NONE) & (void > MOST * area), UNCLEAR, matches)

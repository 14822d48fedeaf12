"""Which object a box is to find: Faster R-CNN (Ren et al. 2015, arXiv 1506.01497, section 3.1.2).

Axes: n boxes, N objects. Boxes are (x1, y1, x2, y2).
"""

import torch
from torch import Tensor
from torchvision.ops import box_iou

NONE, UNCLEAR = -1, -2  # instead of an object: there is none, or nobody should be asked
AT_ONCE = 16  # objects that are compared with all boxes: a table of all, 300 x 270 000 for a photograph, takes 320 MB


def match_boxes(boxes: Tensor, objects: Tensor, *, low: float, high: float, keeps_best: bool) -> Tensor:
    """The object of each box, int64 (n,): the one of the greatest overlap (IoU) if that is `high` or more.

    Below `low` it is NONE, between both UNCLEAR. With `keeps_best`, a box that no other surpasses in overlapping with some
    object keeps the object it overlaps with most, however little that is, so that each object is found by some box.
    """
    overlaps = boxes.new_full((len(boxes),), -1)
    owners = torch.full((len(boxes),), NONE, device=boxes.device)
    is_best = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for first in range(0, len(objects), AT_ONCE):
        table = box_iou(objects[first : first + AT_ONCE], boxes)  # (up to 16, n)
        if keeps_best:
            best = table.amax(1, keepdim=True)
            is_best |= ((table == best) & (best > 0)).any(0)
        greatest, index = table.max(0)
        owners = torch.where(greatest > overlaps, index + first, owners)
        overlaps = torch.maximum(overlaps, greatest)
    matches = owners.where(overlaps >= high, UNCLEAR).where(overlaps >= low, NONE)
    return torch.where(is_best, owners, matches)

"""What an image holds, as networks that find objects learn it. Axes: N objects, P planes, H, W sides of the image."""

from typing import NamedTuple

from torch import Tensor


class ObjectTruth(NamedTuple):
    """The N objects of one image; for networks that learn stuff as well, its N segments, one for each class of stuff.

    `boxes` float32 (N, 4) are the smallest around each, (x1, y1, x2, y2) in pixels, right and bottom edge exclusive;
    `class_ids` int64 (N,); `planes` int32 (P, H, W) hold the masks as a `Segmentation` does: i + 1 marks object i, 0 nothing
    and -1 what nobody knows. No array (N, H, W) exists: `mask_targets` cuts out what a loss needs.
    """

    boxes: Tensor
    class_ids: Tensor
    planes: Tensor

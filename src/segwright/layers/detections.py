"""What networks that find objects say. Axes: B batch, M places for objects, h, w sides of their masks."""

from typing import NamedTuple

from torch import Tensor


class Detections(NamedTuple):
    """Up to M objects for each image, the surest first; a place that is left over has the score 0.

    `boxes` float32 (B, M, 4), (x1, y1, x2, y2) in pixels of the image that went in; `scores` float32 (B, M), 0 to 1;
    `class_ids` int64 (B, M). `masks` float32 (B, M, h, w) are the probabilities that pixels belong to the object, spread evenly
    over `regions` (B, M, 4), which are boxes too: those of the objects, or of the whole image. Outside its box an object has no
    pixels; one without a mask, as Faster R-CNN's, has masks of no pixels (B, M, 0, 0), and fills its box.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    masks: Tensor
    regions: Tensor

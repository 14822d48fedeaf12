"""What networks of queries say of an image. Axes: B batch, Q queries, K classes, h, w sides of the masks."""

from typing import NamedTuple

from torch import Tensor


class QueryMasks(NamedTuple):
    """Each query is one segment, of a thing or of stuff, or none; semantic, instance and panoptic answers are read from both.

    `class_logits` (B, Q, K + 1): the last is that of no segment. `mask_logits` (B, Q, h, w) cover the image; a pixel belongs to
    a query as far as their sigmoid, brought bilinearly to the size of the image before, says.
    """

    class_logits: Tensor
    mask_logits: Tensor

"""What networks say that find objects and tell what stuff the pixels between them are.

Axes: B batch, M places for objects, S classes of stuff, m, n sides of masks, h, w sides of the logits.
"""

from typing import NamedTuple

from torch import Tensor


class ObjectsAndStuff(NamedTuple):
    """Objects as in `Detections`, whose fields come first, and what each pixel is where there is none.

    `class_ids` count all classes, of things and of stuff. `semantic_logits` (B, 1 + S, h, w) cover the image: the first are of
    things, whichever, the others of the classes of stuff in their order.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    masks: Tensor
    regions: Tensor
    semantic_logits: Tensor

"""The truth of all segments of an image, things and stuff, as networks learn it that treat the two apart.

Axes: N segments, P planes, H, W sides of the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segwright.layers.object_truth import ObjectTruth

VOID = -1  # in planes and class maps


def things_alone(truth: ObjectTruth, things: Sequence[int]) -> ObjectTruth:
    """The things among the segments of an image, with classes 0, 1, ... in the order of the class ids `things`.

    Where stuff lies its planes hold nothing; void stays void.
    """
    boxes, class_ids, planes = truth
    class_ids = class_ids.to(planes.device)
    own = class_ids[:, None] == torch.tensor(things, device=planes.device)  # (N, number of things)
    is_thing = own.any(1)
    number = torch.where(is_thing, is_thing.cumsum(0), 0)
    return ObjectTruth(boxes[is_thing.to(boxes.device)], own[is_thing].int().argmax(1), _looked_up(planes, VOID, 0, number))


def stuff_map(truth: ObjectTruth, things: Sequence[int], num_classes: int) -> Tensor:
    """The class map int64 (H, W) of an image in which all things are class 0, and stuff is 1, 2, ... in its order.

    What is void or belongs to no segment is VOID (-1); a later plane covers an earlier one.
    """
    class_of = stuff_numbers(things, num_classes).to(truth.planes.device)
    labels = _looked_up(truth.planes, VOID, VOID, class_of[truth.class_ids.to(class_of.device)])
    first, *others = labels.unbind(0)
    for label in others:
        first = torch.where(label == VOID, first, label)
    return first.long()


def stuff_numbers(things: Sequence[int], num_classes: int) -> Tensor:
    """For each class, 0 if it is one of `things`, else its number among those of stuff, from 1 on; int64 (num_classes,)."""
    is_stuff = torch.ones(num_classes, dtype=torch.bool)
    is_stuff[list(things)] = False
    return torch.where(is_stuff, is_stuff.cumsum(0), 0)


def _looked_up(planes: Tensor, of_void: int, of_nothing: int, of_segments: Tensor) -> Tensor:
    """Planes int32 (P, H, W) with other values for void, for nothing and for each of the N segments."""
    table = torch.cat([of_segments.new_tensor([of_void, of_nothing]), of_segments]).to(planes.dtype)
    return table[planes.long() + 1]

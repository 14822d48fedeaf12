"""Class maps as networks learn them that find segments. Axes: N classes that are there, H, W sides of the image."""

import torch
from torch import Tensor

from segwright.layers.object_truth import ObjectTruth


def class_segments(class_map: Tensor) -> ObjectTruth:
    """The segments of a class map int64 (H, W), VOID (-1) where nobody knows: one for each class, in the order of classes."""
    class_ids, index = class_map.unique(return_inverse=True)
    void = int((class_ids < 0).sum())  # one kind of void at most, and the least value
    class_ids, index = class_ids[void:], index - void
    rows, columns = (index >= 0).nonzero(as_tuple=True)
    segments, sides = index[rows, columns], class_map.shape

    def edge(places: Tensor, reduce: str, start: int) -> Tensor:
        return places.new_full((len(class_ids),), start).scatter_reduce(0, segments, places, reduce)

    low = [edge(places, "amin", side) for places, side in ((columns, sides[1]), (rows, sides[0]))]
    high = [edge(places, "amax", 0) + 1 for places in (columns, rows)]
    planes = torch.where(index < 0, -1, index + 1).to(torch.int32)[None]
    return ObjectTruth(torch.stack([*low, *high], dim=1).float(), class_ids, planes)

"""What a network says of the objects of one image, in numpy. Axes: B images, M places, N objects, h, w sides of masks."""

from typing import NamedTuple

import numpy as np

from segwright.core.errors import ShapeError
from segwright.decoding.run import Outputs
from segwright.layers.detections import Detections

AXES = [3, 2, 2, 4, 3]  # of `Detections`, with that of images


class ImageDetections(NamedTuple):
    """The fields of `Detections` for N objects, without places that are left over."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    masks: np.ndarray
    regions: np.ndarray

    @classmethod
    def of(cls, outputs: Outputs, index: int, num_classes: int) -> "ImageDetections":
        """The objects of one of the images that outputs are for.

        Raises:
            ShapeError: the outputs are no `Detections`, or hold a class beyond the number of classes.
        """
        if [output.ndim for output in outputs] != AXES:
            raise ShapeError(
                f"the network gives arrays of {[output.shape for output in outputs]}, but one that finds objects gives "
                f"{', '.join(Detections._fields)} of (B, M, 4), (B, M), (B, M), (B, M, h, w) and (B, M, 4): build such a "
                "network, or choose the task that this one is for"
            )
        found = cls(*(output[index] for output in outputs)).those(outputs[1][index] > 0)
        highest = int(found.class_ids.max(initial=0))
        if highest >= num_classes:
            raise ShapeError(
                f"the network finds class {highest}, but there are names for {num_classes} (0..{num_classes - 1}); "
                "build it with num_classes equal to the number of classes"
            )
        return found

    def those(self, is_meant: np.ndarray) -> "ImageDetections":
        """Some of the objects, where bool (N,), or those with some numbers, in their order."""
        return ImageDetections(*(part[is_meant] for part in self))

    def mirrored(self, axes: tuple[int, ...], shape: tuple[int, ...]) -> "ImageDetections":
        """The objects as they lie in the mirror image of their image (H, W) over axes counted from the end."""
        boxes, regions = self.boxes.copy(), self.regions.copy()
        for axis in axes:
            low, high = -1 - axis, 1 - axis  # columns of x1 and x2, or of y1 and y2
            for box in (boxes, regions):
                box[:, [low, high]] = shape[axis] - box[:, [high, low]]
        return self._replace(boxes=boxes, regions=regions, masks=np.flip(self.masks, axes))

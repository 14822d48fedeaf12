"""From the `Detections` of networks that find objects to a Segmentation on the original grid.

Axes: B images, N objects of an image, h, w sides of masks, H, W sides of an image.
"""

from dataclasses import dataclass

import numpy as np

from segwright.core import Segmentation
from segwright.decoding.paste import MaskRuns, on_whole_pixels, paste
from segwright.decoding.run import Outputs, Run
from segwright.layers.detections import Detections
from segwright.transforms.prepare import View


@dataclass(frozen=True, eq=False)
class Found:
    """N objects: their pixels, scores float32 (N,) and class ids int64 (N,)."""

    masks: MaskRuns
    scores: np.ndarray
    class_ids: np.ndarray


def decode_detections(run: Run, view: View, *, whole_pixels: bool = False) -> Segmentation:
    """The objects of a view on its original grid, the surest first; one without a pixel is not among them."""
    _, padded = run.sizes(view.covered)
    outputs = run(view.padded(padded).image[None])
    found = pasted(_detections_of(outputs, 0), view.ratio, padded, view.source.shape, whole_pixels=whole_pixels)
    keep = np.flatnonzero(found.masks.areas() > 0)
    masks = found.masks.taken(keep)
    return Segmentation(
        masks.planes(view.source.shape),
        found.class_ids[keep].astype(np.int32),
        np.arange(1, len(keep) + 1, dtype=np.int32),
        found.scores[keep].astype(np.float32),
        run.classes,
    )


def _detections_of(outputs: Outputs, index: int) -> Detections:
    """The objects of one of the images, without the places that are left over."""
    one = [output[index] for output in outputs]
    is_there = one[1] > 0
    return Detections(*(part[is_there] for part in one))


def pasted(found: Detections, ratio, seen, shape, *, whole_pixels: bool = False) -> Found:
    """The pixels of objects (H, W) on the original grid."""
    scale = np.tile(np.float32(ratio[::-1]), 2)
    boxes, regions = found.boxes * scale, found.regions * scale
    is_whole = (found.regions == np.float32([0, 0, *seen[::-1]])).all(axis=1)
    if whole_pixels:
        boxes, regions = on_whole_pixels(boxes, found.masks.shape[-1])
    return Found(paste(boxes, found.masks, regions, is_whole, shape), found.scores, found.class_ids)


def detections_agree(outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
    """Draft: the share of the sure objects of both that the other has too, with the same class and half of the pixels."""
    return 1.0

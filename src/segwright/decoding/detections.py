"""From the `Detections` of networks that find objects to a Segmentation on the original grid.

Axes: B images, M places for objects, N objects, V mirror images, h, w sides of masks, H, W sides of an image.
"""

from collections.abc import Iterator
from itertools import combinations, product

import cv2
import numpy as np

from segwright.core import Segmentation
from segwright.core.classes import MAX_CLASSES
from segwright.core.errors import ShapeError
from segwright.decoding.average_detections import average_detections
from segwright.decoding.image_detections import ImageDetections
from segwright.decoding.mask_runs import MaskRuns, mask_overlaps
from segwright.decoding.paste import paste_detections
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import Axis
from segwright.decoding.stitch import FoundObjects, TileGrid, stitched
from segwright.transforms.pad import pad
from segwright.transforms.prepare import View

SURE = 0.5  # score of an object that engines have to agree about, as people are shown those from there on
LEEWAY = 0.1  # by which scores may differ; bfloat16 moves them by some hundredths
SAME = 0.5  # of the pixels that either has: more are shared by no other of its image, but for objects that overlap
SMALL = 1 / 20  # of an object: what masks of one network differ by if its boxes lie a little otherwise


def decode_detections(run: Run, view: View, *, whole_pixels: bool = False) -> Segmentation:
    """The objects of a view on its original grid, the surest first, numbered 1, 2, ...; none is without pixels.

    A view that is larger than a tile is seen in tiles that overlap by a quarter, and their objects are put together (`stitch`).
    Where the run flips images, what the mirror images of a tile show is averaged (`average_detections`). Objects below its
    `min_score` are left out, after that and before tiles are compared. With `whole_pixels` masks are pasted as in torchvision.

    Raises:
        ShapeError: the network gives no `Detections`, or other classes than it should, or the image has other axes.
    """
    shape = view.source.shape
    if len(shape) != 2 or len(run.divisors) != 2 or any(axis < -2 for axis in run.flip_axes):
        raise ShapeError(
            f"the image has {len(shape)} spatial axes, the network sees {len(run.divisors)} and flip_axes is {run.flip_axes}; "
            "objects are found in images with rows and columns: give slices of a volume one by one"
        )
    tile, padded = run.sizes(view.covered)
    starts = [Axis.over(size, side).starts for size, side in zip(padded, tile, strict=True)]
    corners = [(int(y), int(x)) for y, x in product(*starts)]
    seen = []
    for corner, found in zip(corners, _asked(run, view, corners, tile), strict=True):
        wanted = found.those(found.scores >= run.min_score)
        drawn, pixels = paste_detections(wanted, tile, shape, corner=corner, ratio=view.ratio, whole_pixels=whole_pixels)
        seen.append(FoundObjects(pixels, drawn.scores, drawn.class_ids))
    objects = seen[0] if len(seen) == 1 else stitched(TileGrid.over(starts, tile, view.ratio, shape), seen)
    return Segmentation(
        objects.masks.planes(shape),
        objects.class_ids.astype(np.int32),
        np.arange(1, len(objects.scores) + 1, dtype=np.int32),
        objects.scores.astype(np.float32),
        run.classes,
    )


def _asked(run: Run, view: View, corners: list[tuple[int, int]], tile: tuple[int, ...]) -> Iterator[ImageDetections]:
    """What the network finds in each tile, in pixels of the tile: as many tiles and mirror images at once as the run allows."""
    subsets = [subset for count in range(len(run.flip_axes) + 1) for subset in combinations(run.flip_axes, count)]
    step = max(1, run.at_once // len(subsets))
    for group in (corners[n : n + step] for n in range(0, len(corners), step)):
        tiles = [pad(view.image[:, y : y + tile[0], x : x + tile[1]], tile) for y, x in group]
        images = [np.flip(part, subset) for part in tiles for subset in subsets]
        outputs = run(images[0][None] if len(images) == 1 else np.stack(images))
        views = [
            ImageDetections.of(outputs, number, len(run.classes)).mirrored(subset, tile)
            for number, subset in enumerate(subsets * len(group))
        ]
        for first in range(0, len(views), len(subsets)):
            yield average_detections(views[first : first + len(subsets)], tile)


def detections_agree(outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
    """How far the outputs of two engines for images (H, W) say the same of sure objects, from 0 to 1.

    An object that either finds with a score of a half or more needs a partner among those that the other finds, with the same
    class, a score that may be a little lower, and more than half of the pixels in common. The result is the share of the pixels
    of these objects that lie on their partners, or of the objects that have one, whichever is less, so that an object that is
    lost counts however small it is. Lower precision moves borders: a pixel may be one away from the partner, and what the masks
    of an object then differ by counts only from a twentieth on. Where nothing is sure, the highest scores are compared.
    """
    area = differing = count = lost = 0
    for index in range(len(reference[1])):
        pair = [ImageDetections.of(each, index, MAX_CLASSES) for each in (outputs, reference)]
        best = [float(found.scores.max(initial=0)) for found in pair]
        if max(best) < SURE and abs(best[0] - best[1]) > LEEWAY:
            return 1 - abs(best[0] - best[1])
        objects = []
        for found in pair:
            likely, pixels = paste_detections(found.those(found.scores >= SURE - LEEWAY), shape, shape)
            objects.append(FoundObjects(pixels, likely.scores, likely.class_ids))
        both = FoundObjects.joined(objects)
        partners, areas = _partners(both, len(objects[0].scores), shape), both.masks.areas()
        for number in np.flatnonzero(both.scores >= SURE).tolist():
            count, area = count + 1, area + areas[number]
            if number not in partners:
                lost, differing = lost + 1, differing + areas[number]
                continue
            beyond = _beyond(both.masks[number], both.masks[partners[number]])
            differing += beyond if beyond > SMALL * areas[number] else 0
    return float(min(1 - differing / max(area, 1), 1 - lost / max(count, 1)))


def _partners(both: FoundObjects, first: int, shape: tuple[int, ...]) -> dict[int, int]:
    """For each object that has one, its partner: those before number `first` have one behind it, and the other way round."""
    masks, alike, partners = both.masks, dict[int, float](), dict[int, int]()
    pairs = mask_overlaps(masks, masks.extents(), range(first), range(first, len(masks)), (0, 0, shape[0], shape[1]))
    for i, j, shared, one, other in pairs.tolist():
        share = shared / (one + other - shared)
        if share > SAME and both.class_ids[i] == both.class_ids[j]:
            for number, partner in ((i, j), (j, i)):
                if share > alike.get(number, 0):
                    alike[number], partners[number] = share, partner
    return partners


def _beyond(one: np.ndarray, other: np.ndarray) -> int:
    """How many pixels of one object, of runs (r, 3), neither lie on another nor touch it."""
    pair = MaskRuns.of([one, other])
    top, left = pair.runs[:, :2].min(axis=0) - 1
    height, width = pair.runs[:, 0].max() + 2 - top, pair.runs[:, 2].max() + 1 - left
    planes = MaskRuns(pair.runs - np.array([top, left, left], np.int32), pair.starts).planes((height, width))
    is_one, is_other = (planes == 1).any(axis=0), (planes == 2).any(axis=0)
    return int((is_one & (cv2.dilate(is_other.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)).sum())

"""From objects and semantic logits to one panoptic segmentation: each pixel belongs to one segment at most.

The heuristics of Panoptic Segmentation (Kirillov et al. 2018, arXiv 1801.00868, section 5) with the numbers of detectron2:

1. Objects that are sure enough take their pixels, the surest first. One of which others have taken more than half already is
   the same again, and is left out; one that stays gets what is left.
2. A pixel of no object has the likeliest class of the semantic logits, if that is stuff. Stuff of which little is visible is
   taken for an error. Pixels where things are likeliest and no object lies belong to nothing.

Axes: B images, V mirror images, N objects, S classes of stuff, H, W sides of an image, h, w of a tile.
"""

from dataclasses import dataclass, field, replace
from itertools import combinations, product

import numpy as np
from numba import njit

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.decoding.average_detections import average_detections
from segwright.decoding.detections import decode_detections, detections_agree
from segwright.decoding.image_detections import ImageDetections
from segwright.decoding.paste import paste_detections
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import Axis, strides_of, tiled_labels
from segwright.decoding.stitch import FoundObjects, TileGrid, stitched
from segwright.decoding.upsample_argmax import upsample_argmax
from segwright.layers.objects_and_stuff import ObjectsAndStuff
from segwright.transforms.prepare import View

LEAST_SCORE = 0.5  # of an object that is shown; detectron2's, which tells a thing from none by it
MOST_TAKEN = 0.5  # of an object's pixels may be others' already, in all published forms
LEAST_AREA = 4096  # pixels of stuff that are shown, in all published forms: 1.3 % of an image of COCO
# Small images have no room for so much: of these the share decides, which changes nothing from 164 000 pixels on, as most of
# COCO's have. Scenes of 256 x 256 then may show stuff of 1638 pixels, and not of 6 % of the image.
LEAST_SHARE = 1 / 40
AXES = [3, 2, 2, 4, 3, 4]  # of `ObjectsAndStuff`, with that of images


def decode_objects_and_stuff(run: Run, view: View) -> Segmentation:
    """The panoptic segmentation of a view on its original grid: things, the surest first, numbered 1, 2, ..., then stuff.

    Which classes are things, `run.classes` says. A view that is larger than a tile is seen in tiles that overlap by a quarter:
    their objects are put together (`stitch`), their logits blended. Where the run flips images, the same is averaged.

    Raises:
        ShapeError: the network gives no `ObjectsAndStuff`, or other classes than it should, or the image has other axes.
    """
    shape = view.source.shape
    if len(shape) != 2 or len(run.divisors) != 2 or any(axis < -2 for axis in run.flip_axes):
        raise ShapeError(
            f"the image has {len(shape)} spatial axes, the network sees {len(run.divisors)} and flip_axes is {run.flip_axes}; "
            "objects and stuff are found in images with rows and columns: give slices of a volume one by one"
        )
    tile, padded = run.sizes(view.covered)
    asked = _Asked(run, tile, max(run.min_score, LEAST_SCORE))
    labels = tiled_labels(view.padded(padded).image, asked, tile, shape, view.covered, run.at_once)
    starts = [
        Axis.over(side // stride, one // stride).starts * stride
        for side, one, stride in zip(padded, tile, strides_of(tile, asked.sides, padded), strict=True)
    ]
    seen = []
    for corner, found in zip(product(*starts), asked.found, strict=True):
        drawn, pixels = paste_detections(found, tile, shape, corner=corner, ratio=view.ratio)
        seen.append(FoundObjects(pixels, drawn.scores, drawn.class_ids))
    objects = seen[0] if len(seen) == 1 else stitched(TileGrid.over(starts, tile, view.ratio, shape), seen)
    return merged(objects, labels, run.classes, least_area=min(LEAST_AREA, LEAST_SHARE * labels.size))


def decode_objects_alone(run: Run, view: View) -> Segmentation:
    """The objects of a view as `decode_detections` gives them, with all scores and whether they overlap or not.

    Raises:
        ShapeError: as `decode_objects_and_stuff`.
    """

    def objects(images: np.ndarray) -> Outputs:
        return _checked(run(images), run.classes)[:-1]

    return decode_detections(replace(run, engine=objects), view)


def merged(objects: FoundObjects, labels: np.ndarray, classes: Classes, *, least_area: float) -> Segmentation:
    """One segmentation of objects, the surest first, and a map (H, W) of 0 for things and 1 ... S for the classes of stuff.

    Stuff of less than `least_area` pixels is left out. Its segments follow those of things, in the order of their classes.
    """
    numbers, is_kept = np.zeros(labels.shape, np.int32), np.zeros(len(objects.scores), np.bool_)
    _claim(objects.masks.runs, objects.masks.starts, numbers, is_kept)
    stuff = np.flatnonzero(~np.array(classes.is_thing))
    areas = np.zeros(1 + len(stuff), np.int64)
    _count_free(numbers, labels, areas)
    is_shown = (areas > 0) & (areas >= least_area)
    is_shown[0] = False  # things that no object explains
    count = int(is_kept.sum())
    _fill_free(numbers, labels, np.where(is_shown, count + is_shown.cumsum(), 0).astype(np.int32))
    shown = stuff[is_shown[1:]]
    return Segmentation.panoptic(
        numbers,
        np.concatenate([objects.class_ids[is_kept], shown]),
        np.concatenate([np.arange(1, count + 1), np.zeros(len(shown), np.int64)]),
        scores=np.concatenate([objects.scores[is_kept], np.ones(len(shown))]),
        classes=classes,
    )


def objects_and_stuff_agree(outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
    """How far the outputs of two engines for images (H, W) say the same, from 0 to 1.

    It is what `detections_agree` says of the objects, or the share of the pixels with the same likeliest class of the logits,
    whichever is less.
    """
    pairs = zip(outputs[-1], reference[-1], strict=True)
    alike = [np.mean(upsample_argmax(ours, shape) == upsample_argmax(theirs, shape)) for ours, theirs in pairs]
    return float(min(detections_agree(outputs[:-1], reference[:-1], shape), np.mean(alike)))


@dataclass(eq=False)
class _Asked:
    """A network that is asked for the semantic logits of tiles (B, C, h, w), and whose objects are kept, tile by tile.

    Objects and logits are the means over the V mirror images of a tile; objects below `least_score` are not kept. `sides` are
    those of the logits of a tile.
    """

    run: Run
    tile: tuple[int, ...]
    least_score: float
    found: list[ImageDetections] = field(default_factory=list)
    sides: tuple[int, ...] = ()

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        axes, count = self.run.flip_axes, len(tiles)
        subsets = [subset for size in range(len(axes) + 1) for subset in combinations(axes, size)]
        images = np.concatenate([np.flip(tiles, subset) for subset in subsets]) if axes else tiles
        outputs = _checked(self.run(images), self.run.classes)
        for index in range(count):
            views = [
                ImageDetections.of(outputs[:-1], number * count + index, len(self.run.classes)).mirrored(subset, self.tile)
                for number, subset in enumerate(subsets)
            ]
            mean = average_detections(views, self.tile)
            self.found.append(mean.those(mean.scores >= self.least_score))  # a copy, as the next call may overwrite it
        self.sides = outputs[-1].shape[2:]
        first, *others = np.split(outputs[-1], len(subsets))
        if not others:
            return first
        return (first + sum(np.flip(part, subset) for part, subset in zip(others, subsets[1:], strict=True))) / len(subsets)


def _checked(outputs: Outputs, classes: Classes) -> Outputs:
    """The outputs of a network, if they are `ObjectsAndStuff` for these classes.

    Raises:
        ShapeError: they are not.
    """
    if [output.ndim for output in outputs] != AXES:
        raise ShapeError(
            f"the network gives arrays of {[output.shape for output in outputs]}, but one that finds objects and stuff gives "
            f"{', '.join(ObjectsAndStuff._fields)} of (B, M, 4), (B, M), (B, M), (B, M, m, n), (B, M, 4) and (B, 1 + S, h, w): "
            "build such a network, or choose the task that this one is for"
        )
    wanted, given = 1 + classes.is_thing.count(False), outputs[-1].shape[1]
    if given != wanted:
        raise ShapeError(
            f"the network tells {given - 1} classes of stuff apart, but {wanted - 1} of the {len(classes)} classes are stuff; "
            "build it with num_classes equal to the number of classes, and with the ids of those with is_thing as things"
        )
    return outputs


@njit(cache=True, nogil=True)
def _claim(runs, starts, numbers, is_kept):
    """Write 1, 2, ... at the pixels of objects that are free in `numbers` int32 (H, W), and set `is_kept` (N,) for each.

    An object of which more than `MOST_TAKEN` is not free is left out.
    """
    count = 0
    for n in range(len(is_kept)):
        area = taken = 0
        for r in range(starts[n], starts[n + 1]):
            below = numbers[runs[r, 0], runs[r, 1] : runs[r, 2]]
            area += len(below)
            for i in range(len(below)):
                taken += below[i] > 0
        if area == 0 or taken > MOST_TAKEN * area:
            continue
        count += 1
        is_kept[n] = True
        for r in range(starts[n], starts[n + 1]):
            below = numbers[runs[r, 0], runs[r, 1] : runs[r, 2]]
            for i in range(len(below)):
                if below[i] == 0:
                    below[i] = count


@njit(cache=True, nogil=True)
def _count_free(numbers, labels, areas):
    """Add the pixels of each label that are 0 in `numbers` (H, W) to areas int64."""
    for y in range(len(numbers)):
        for x in range(numbers.shape[1]):
            if numbers[y, x] == 0:
                areas[labels[y, x]] += 1


@njit(cache=True, nogil=True)
def _fill_free(numbers, labels, number_of):
    """Write the number of its label at each pixel that is 0 in `numbers` int32 (H, W)."""
    for y in range(len(numbers)):
        for x in range(numbers.shape[1]):
            if numbers[y, x] == 0:
                numbers[y, x] = number_of[labels[y, x]]

"""From the `QueryMasks` of one network to what is where on the original grid: classes, objects, or both at once.

Mask logits are interpolated to the pixels of the original and compared there, so that all three answers speak of the same
masks. The rules are those of MaskFormer (Cheng et al. 2021, arXiv 2107.06278, sections 3.4 and 4) and of Mask2Former (Cheng et
al. 2022, arXiv 2112.01527); there masks go to the size of the network's image first and from there to the original's, which is
the same unless these differ, and then nearly.

Axes: B images, Q queries, K classes, N objects, h, w sides of masks, H, W sides of an image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.data.background import Background
from segwright.data.objects_alone import things_of
from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.paste import paste_masks
from segwright.decoding.query_pixels import Place, class_labels, mean_probabilities, to_probabilities, winners
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import Axis, tiled_labels, tiled_probs
from segwright.decoding.stitch import FoundObjects, TileGrid, stitched
from segwright.decoding.tta import mirrored
from segwright.transforms.pad import pad
from segwright.transforms.prepare import View

OBJECT_MASK_THRESHOLD = 0.8  # probability of its class that a segment of a panoptic answer needs, as published
OVERLAP_THRESHOLD = 0.8  # of the pixels of its mask that it has to win, as published; of less, others show what is there
MOST_OBJECTS = 100  # pairs of a query and a class that are taken for objects, as published
LEAST_SCORE = 0.01  # of an object: a hundred queries share each pixel of a network that knows nothing yet, a plane for each
IS_THERE = 0.5  # score of a class from which on a pixel belongs to it and not to the background, where only things are known
FULL = 1e-6  # by which a score of a class has to be below 1 to have odds
SURE = 0.5  # score of a query that engines have to agree about
LEEWAY = 0.1  # by which probabilities may differ; bfloat16 moves them by some hundredths


class _ImageQueries(NamedTuple):
    """The queries of one image: `class_probs` float32 (Q, K + 1), the last of no segment, and `mask_logits` (Q, h, w)."""

    class_probs: np.ndarray
    mask_logits: np.ndarray

    @classmethod
    def of(cls, outputs: Outputs, index: int) -> "_ImageQueries":
        """Those of one of the images that outputs are for."""
        logits = np.asarray(outputs[0][index], np.float32)
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        return cls(probs / probs.sum(axis=1, keepdims=True), np.ascontiguousarray(outputs[1][index], np.float32))

    def those(self, numbers: np.ndarray) -> "_ImageQueries":
        """The queries with these numbers."""
        return _ImageQueries(self.class_probs[numbers], self.mask_logits[numbers])


def decode_classes(run: Run, view: View) -> Segmentation:
    """The class of each pixel of the original: that with the highest sum over queries of class times mask probability.

    Where all classes are things, "background" comes before them, which has the pixels where no class reaches a half. Of larger
    views, and where the run flips images, these sums are blended and averaged at the size of the masks, as their logits.

    Raises:
        ShapeError: the network gives no `QueryMasks`, or other classes than it should, or the image has other axes.
    """
    shape, background = _plane(run, view), Background.of(run.classes)
    classes = background.classes if background is not None else run.classes
    tile, padded = run.sizes(view.covered)
    if tile == padded and not run.flip_axes:
        probs, masks = _with_rest(_ImageQueries.of(_asked(run, view.padded(padded).image[None]), 0), run.classes)
        place = Place.of((0, 0), padded, masks.shape[1:], view.ratio, shape)
        return Segmentation.semantic(class_labels(probs[:, :-1], masks, place), classes)

    def log_odds(images: np.ndarray) -> np.ndarray:
        scores = _scores(run, images)
        return np.log(np.maximum(scores, FULL)) - np.log(np.maximum(1 - scores, FULL))

    ask = mirrored(log_odds, run.flip_axes, run.at_once)
    image = view.padded(padded).image
    return Segmentation.semantic(tiled_labels(image, ask, tile, shape, view.covered, run.at_once), classes)


def query_probabilities(run: Run, view: View) -> np.ndarray:
    """The score of each class that `decode_classes` compares as shares of 1, float32 (K, H, W) on the original grid.

    They are made at the size of the masks and interpolated.

    Raises:
        ShapeError: as in `decode_classes`.
    """
    shape = _plane(run, view)
    tile, padded = run.sizes(view.covered)
    ask = mirrored(lambda images: np.log(np.maximum(_scores(run, images), FULL)), run.flip_axes, run.at_once)
    return tiled_probs(view.padded(padded).image, ask, tile, shape, view.covered, run.at_once)


def _scores(run: Run, images: np.ndarray) -> np.ndarray:
    """The scores of classes at the size of the masks, float32 (B, K, h, w); with that of the background where there is one."""
    outputs = _asked(run, images)
    found = (_ImageQueries.of(outputs, index) for index in range(len(images)))
    return np.stack([_coarse_scores(_with_rest(queries, run.classes)) for queries in found])


def _coarse_scores(queries: _ImageQueries) -> np.ndarray:
    """The sum over queries of class times mask probability at the size of the masks, float32 (K, h, w)."""
    probs, logits = queries
    pixels = to_probabilities(logits.copy()).reshape(len(logits), -1)
    return (np.ascontiguousarray(probs[:, :-1].T) @ pixels).reshape(-1, *logits.shape[1:])


def _with_rest(queries: _ImageQueries, classes: Classes) -> _ImageQueries:
    """The queries, with one more of a background in front where all classes are things; each of its pixels scores a half."""
    background = Background.of(classes)
    if background is None or not background.shift:
        return queries
    probs = np.pad(queries.class_probs, ((1, 0), (1, 0)))
    probs[0, 0] = 2 * IS_THERE  # the logits 0 of its mask are halves
    return _ImageQueries(probs, np.pad(queries.mask_logits, ((1, 0), (0, 0), (0, 0))))


def decode_objects(run: Run, view: View) -> Segmentation:
    """The objects of a view on its original grid, the surest first, numbered 1, 2, ...; its classes are the things alone.

    An object is a query with one of its classes; its score is the probability of the class times the mean probability of the
    pixels of its mask. A view that is larger than a tile is seen in tiles, and their objects are put together (`stitch`).
    Objects below the `min_score` of the run are left out before that.

    Raises:
        ShapeError: as in `decode_classes`.
        SettingError: the run flips images.
    """
    _check_flips(run, "objects")
    shape, things = _plane(run, view), np.flatnonzero(run.classes.is_thing)
    tiles = _Tiles.of(run, view)
    least = max(run.min_score, LEAST_SCORE)
    seen = [_objects(queries, tiles, corner, things, least) for corner, queries in tiles.asked(run)]
    objects = seen[0] if len(seen) == 1 else stitched(tiles.grid, seen)
    return Segmentation(
        objects.masks.planes(shape),
        objects.class_ids.astype(np.int32),
        np.arange(1, len(objects.scores) + 1, dtype=np.int32),
        objects.scores.astype(np.float32),
        things_of(run.classes),
    )


def _objects(
    queries: _ImageQueries, tiles: "_Tiles", corner: tuple[int, int], things: np.ndarray, least: float
) -> FoundObjects:
    """The objects of a tile with a score of `least` or more, the surest first; their classes are numbered among the things."""
    probs = queries.class_probs[:, things]
    order = np.argsort(-probs, axis=None, kind="stable")[:MOST_OBJECTS]
    order = order[probs.ravel()[order] >= least]
    used, of_pair = np.unique(order // len(things), return_inverse=True)
    logits = queries.mask_logits[used]
    box = tiles.box(corner)
    regions = np.tile(box, (len(used), 1))
    # What is compared with a half in `paste_masks` may be any values that are bilinear: here logits, and 0.
    masks = paste_masks(regions, logits + np.float32(0.5), regions, np.ones(len(used), bool), tiles.shape)
    means = mean_probabilities(logits, masks, tiles.place(corner, logits.shape[1:]))
    scores = probs.ravel()[order] * means[of_pair]
    ranks = np.argsort(-scores, kind="stable")
    ranks = ranks[scores[ranks] >= least]
    return FoundObjects(masks.taken(of_pair[ranks]), scores[ranks], (order % len(things))[ranks])


class _Segments(NamedTuple):
    """Segments of a tile: a map int32 (H, W) in which i + 1 marks segment i, `class_ids` int64 (N,), `scores` float32 (N,)."""

    segment_map: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray


def decode_panoptic(run: Run, view: View) -> Segmentation:
    """The segment of each pixel on the original grid: things numbered 1, 2, ..., and one segment for each class of stuff.

    A query of which the likeliest class is none, or not likely enough, counts for nothing. At a pixel that query wins of which
    the probability of the class times that of the mask is the highest. It is a segment where it wins most of its mask, and
    there has the pixels that it wins with a probability of a half at least; the others belong to nothing.

    A view that is larger than a tile is seen in tiles: their things are put together (`stitch`) and lie over the stuff, which
    is that of the tile in which a pixel is farthest from the border.

    Raises:
        ShapeError: as in `decode_classes`.
        SettingError: the run flips images.
    """
    _check_flips(run, "segments")
    _plane(run, view)
    tiles, is_thing = _Tiles.of(run, view), np.array(run.classes.is_thing)
    threshold = max(run.min_score, OBJECT_MASK_THRESHOLD)
    if len(tiles.corners) == 1:
        ((corner, queries),) = tiles.asked(run)
        segments = _segments(queries, tiles.place(corner, queries.mask_logits.shape[1:]), is_thing, threshold)
    else:
        segments = _joined(run, tiles, is_thing, threshold)
    things = is_thing[segments.class_ids]
    return Segmentation.panoptic(
        segments.segment_map,
        segments.class_ids,
        np.where(things, np.cumsum(things), 0),
        scores=segments.scores,
        classes=run.classes,
    )


def _segments(queries: _ImageQueries, place: Place, is_thing: np.ndarray, threshold: float) -> _Segments:
    """The segments of one tile; `is_thing` bool (K,)."""
    labels, scores = queries.class_probs.argmax(axis=1), queries.class_probs.max(axis=1)
    kept = np.flatnonzero((labels < len(is_thing)) & (scores > threshold))
    labels, scores = labels[kept], scores[kept]
    found, won, half = winners(scores, queries.mask_logits[kept], place)
    visible = np.bincount(found.ravel(), minlength=len(kept) + 1)[1:]
    number, first_of = np.zeros(len(kept) + 1, np.int32), dict[int, int]()
    chosen: list[int] = []
    for query in np.flatnonzero((visible > 0) & (won >= OVERLAP_THRESHOLD * half)).tolist():
        label = int(labels[query])
        if label not in first_of or is_thing[label]:
            chosen.append(query)
            first_of[label] = len(chosen)
        number[query + 1] = first_of[label]
        chosen[first_of[label] - 1] = max(chosen[first_of[label] - 1], query, key=lambda one: scores[one])
    return _Segments(number[found], labels[chosen], scores[chosen])


def _joined(run: Run, tiles: "_Tiles", is_thing: np.ndarray, threshold: float) -> _Segments:
    """The segments of all tiles as those of one image."""
    stuff, seen = np.zeros(tiles.shape, np.int32), []  # the class of stuff at each pixel, counted from 1
    stuff_scores = np.zeros(len(is_thing), np.float32)
    for (corner, queries), own in zip(tiles.asked(run), tiles.own(), strict=True):
        place = tiles.place(corner, queries.mask_logits.shape[1:])
        found, class_ids, scores = _segments(queries, place, is_thing, threshold)
        things = np.flatnonzero(is_thing[class_ids])
        masks = MaskRuns.of_map(found, len(class_ids), place.first).taken(things)
        seen.append(FoundObjects(masks, scores[things], class_ids[things]))
        class_of = np.concatenate([[0], np.where(is_thing[class_ids], 0, class_ids + 1)]).astype(np.int32)
        inside = tuple(slice(part.start - at, part.stop - at) for part, at in zip(own, place.first, strict=True))
        stuff[own] = class_of[found[inside]]
        np.maximum.at(stuff_scores, class_ids, scores)
    objects = stitched(tiles.grid, seen)
    present = np.flatnonzero(np.bincount(stuff.ravel(), minlength=len(is_thing) + 1)[1:])
    order = np.arange(len(objects.scores))[::-1]  # the surest last, over all others
    things_map = objects.masks.taken(order).painted(tiles.shape)
    number = np.zeros(len(is_thing) + 1, np.int32)
    number[present + 1] = len(order) + 1 + np.arange(len(present))
    return _Segments(
        np.where(things_map > 0, things_map, number[stuff]),
        np.concatenate([objects.class_ids[order], present]),
        np.concatenate([objects.scores[order], stuff_scores[present]]).astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class _Tiles:
    """The tiles in which a view is seen: their `corners` in it, and the side of one; `shape` is that of the original."""

    view: View
    corners: list[tuple[int, int]]
    starts: list[np.ndarray]
    tile: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, run: Run, view: View) -> "_Tiles":
        """As few as possible."""
        tile, padded = run.sizes(view.covered)
        starts = [Axis.over(size, side).starts for size, side in zip(padded, tile, strict=True)]
        return cls(view, [(int(y), int(x)) for y, x in product(*starts)], starts, tile, view.source.shape)

    @property
    def grid(self) -> TileGrid:
        """The tiles as `stitched` needs them."""
        return TileGrid.over(self.starts, self.tile, self.view.ratio, self.shape)

    def place(self, corner: tuple[int, int], masks: tuple[int, ...]) -> Place:
        """The pixels of the original that a tile sees, in masks (h, w)."""
        return Place.of(corner, self.tile, masks, self.view.ratio, self.shape)

    def box(self, corner: tuple[int, int]) -> np.ndarray:
        """(x1, y1, x2, y2) of a tile in pixels of the original, float64 (4,)."""
        low, ratio = np.array(corner, np.float64), np.array(self.view.ratio)
        return np.concatenate([(low * ratio)[::-1], ((low + self.tile) * ratio)[::-1]])

    def own(self) -> list[tuple[slice, slice]]:
        """The pixels of the original that are nearer to the middle of a tile than to that of another, for each of them."""
        parts = []
        for starts, side, factor, size in zip(self.starts, self.tile, self.view.ratio, self.shape, strict=True):
            cuts = [0.0, *((starts[1:] + starts[:-1] + side) / 2), float(starts[-1] + side)]
            ends = [int(np.clip(np.ceil(at * factor - 0.5), 0, size)) for at in cuts]
            parts.append([slice(first, stop) for first, stop in zip(ends[:-1], ends[1:], strict=True)])
        return [(rows, columns) for rows, columns in product(*parts)]

    def asked(self, run: Run) -> Iterator[tuple[tuple[int, int], _ImageQueries]]:
        """Each corner with the queries of its tile; as many tiles at once as the run allows."""
        for group in (self.corners[n : n + run.at_once] for n in range(0, len(self.corners), run.at_once)):
            images = [pad(self.view.image[:, y : y + self.tile[0], x : x + self.tile[1]], self.tile) for y, x in group]
            outputs = _asked(run, images[0][None] if len(images) == 1 else np.stack(images))
            yield from ((corner, _ImageQueries.of(outputs, index)) for index, corner in enumerate(group))


def _asked(run: Run, images: np.ndarray) -> Outputs:
    """What the network says to images.

    Raises:
        ShapeError: the network gives no `QueryMasks`, or other classes than it should.
    """
    outputs = run(images)
    if [output.ndim for output in outputs] != [3, 4] or outputs[0].shape[1] != outputs[1].shape[1]:
        raise ShapeError(
            f"the network gives arrays of {[output.shape for output in outputs]}, but one of queries gives class_logits and "
            "mask_logits of (B, Q, K + 1) and (B, Q, h, w): build such a network, or choose the task that this one is for"
        )
    if outputs[0].shape[2] != len(run.classes) + 1:
        raise ShapeError(
            f"the network gives {outputs[0].shape[2]} classes with that of no segment, but there are names for "
            f"{len(run.classes)}; build it with num_classes equal to the number of classes"
        )
    return outputs


def _plane(run: Run, view: View) -> tuple[int, ...]:
    """The shape (H, W) of the original.

    Raises:
        ShapeError: image, network or flips have other axes than rows and columns.
    """
    shape = view.source.shape
    if len(shape) != 2 or len(run.divisors) != 2 or any(axis < -2 for axis in run.flip_axes):
        raise ShapeError(
            f"the image has {len(shape)} spatial axes, the network sees {len(run.divisors)} and flip_axes is {run.flip_axes}; "
            "queries speak of images with rows and columns: give slices of a volume one by one"
        )
    return shape


def _check_flips(run: Run, what: str) -> None:
    """Refuse mirror images where nothing says which queries of two of them belong together.

    Raises:
        SettingError: the run flips images.
    """
    if run.flip_axes:
        raise SettingError(
            f"flip_axes is {run.flip_axes}, but {what} of queries in an image and in its mirror image have no common number to "
            "average them by; predict without flips, or the class of each pixel with --task semantic, whose scores are averaged"
        )


def queries_agree(outputs: Outputs, reference: Outputs) -> float:
    """How far the outputs of two engines say the same, from 0 to 1: that of the image for which it is least.

    It is the share of the pixels that get the same class, or of the pixels of sure queries of which the probability is the same
    up to a tenth, or of these queries that have the same class with about the same score, whichever is less. Where no query is
    sure, the highest scores are compared.
    """
    return min(
        _agreement(*(_ImageQueries.of(each, index) for each in (outputs, reference))) for index in range(len(reference[0]))
    )


def _agreement(ours: _ImageQueries, theirs: _ImageQueries) -> float:
    """That of two engines for one image; queries have the same numbers in both."""
    maps = [_coarse_scores(each).argmax(axis=0) for each in (ours, theirs)]
    same = float((maps[0] == maps[1]).mean())
    scores, labels = (
        np.stack([kind(each.class_probs[:, :-1]) for each in (ours, theirs)])
        for kind in (lambda probs: probs.max(axis=1), lambda probs: probs.argmax(axis=1))
    )
    sure = np.flatnonzero(scores.max(axis=0) >= SURE)
    if not len(sure):
        return min(same, 1 - abs(float(scores[0].max() - scores[1].max())))
    is_kept = (labels[0] == labels[1]) & (abs(scores[0] - scores[1]) <= LEEWAY)
    one, other = (to_probabilities(each.mask_logits[sure].copy()) for each in (ours, theirs))
    area = int((np.maximum(one, other) >= SURE).sum())
    differing = int((abs(one - other) > LEEWAY).sum())
    return min(same, float(is_kept[sure].mean()), max(1 - differing / max(area, 1), 0.0))

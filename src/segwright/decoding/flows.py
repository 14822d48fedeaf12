"""Flow fields to objects: pixels that follow their flows and meet are one object.

Each pixel of an object goes along the flow below it, step by step, until it gets no further. Where pixels end up lie the
middles of objects, and ends that lie close together are the middle of one. Flows are found for the image as a whole, blended
where tiles overlap, so that an object across a seam needs nothing more; what is kept of a pixel are bytes.

Source: Stringer et al. 2021, doi 10.1038/s41592-020-01018-x. Deviations: a pixel stops where it gets no further and not after
200 steps; ends that touch or nearly do are joined, in place of peaks of a histogram; objects below 15 pixels are dropped there,
and here become part of the larger one that they touch, or stay where they touch none.

Axes: F = 3 or 3 + K maps, K classes, N objects, H, W sides of the image.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from segwright.core import Segmentation, segment_kernels
from segwright.core.errors import ShapeError
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import tiled_maps
from segwright.decoding.tta import mirrored
from segwright.decoding.upsample_argmax import in_threads
from segwright.models.cellpose import FLOW_LENGTH
from segwright.transforms.prepare import View

FINE = 100  # steps of the whole numbers that flows are kept in, per pixel: as fine as networks in bfloat16 say them
LEAST = 128  # of the 255 that probabilities are kept in: half and more, rounded
NEAR = 2  # pixels between ends that are one middle: small objects, 5 pixels wide, have middles that far apart and more
FRAGMENT = 15  # pixels: what is smaller and touches what is not, is a part of it that stopped early; the authors drop such
STEPS = 400  # along a flow at most, enough for objects of 800 pixels; most pixels stop much earlier
STILL = 0.1  # pixels in two steps: who gets no further than that, to and fro around a middle too, is there
DIFFERENT = 0.1  # pixels in a step: flows of two engines that differ by more do not agree


@dataclass(frozen=True, eq=False)
class _Field:
    """What a network says of each pixel: flows int8 (2, H, W), `FINE` for a step of a pixel, probabilities uint8 (H, W) of an
    object, 255 for 1, and the likeliest class (H, W), or (0, 0) where there is one class."""

    flows: np.ndarray
    probs: np.ndarray
    classes: np.ndarray


def decode_flows(run: Run, view: View) -> Segmentation:
    """The objects on the original grid, in the order of their first pixels, but for those with scores below `run.min_score`.

    An object's class is that of most of its pixels. Its score is the root of the mean probability that they are of an object
    times the mean length of their flows, times the share of them that have the class. Where the network does not know the way,
    flows are short: of nuclei after 60 steps, probabilities alone ranked to an AP of 0.32, with the lengths 0.39. The root
    brings objects that are likelier there than not to 0.5. Objects of one pixel have no flows, and the score 0.

    Raises:
        ShapeError: the network gives other maps than flows for the classes, or the image other axes.
    """
    field = _field_of(run, view)
    objects, count = _followed(field)
    class_ids, scores = _described(field, objects, count, len(run.classes))
    is_kept = scores >= run.min_score
    if not is_kept.all():
        number = np.concatenate([[0, 0], np.where(is_kept, np.cumsum(is_kept), 0)]).astype(
            np.int32
        )  # of void, nothing, objects
        segment_kernels.look_up(objects.reshape(-1), number, objects.reshape(-1))
    numbers = np.arange(1, is_kept.sum() + 1, dtype=np.int32)
    return Segmentation(objects[None], class_ids[is_kept], numbers, scores[is_kept], run.classes)


def flows_agree(outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
    """The part of the pixels which both say are of no object, or of one of the same class to whose middle one way leads."""
    ours, theirs = outputs[0], reference[0]
    is_object = ours[:, 2] >= 0
    same_way = (np.abs(ours[:, :2] - theirs[:, :2]) <= DIFFERENT * FLOW_LENGTH).all(axis=1)
    same_class = ours[:, 3:].argmax(axis=1) == theirs[:, 3:].argmax(axis=1) if ours.shape[1] > 3 else True
    return float(np.mean((is_object == (theirs[:, 2] >= 0)) & (~is_object | (same_way & same_class))))


def _field_of(run: Run, view: View) -> _Field:
    """What the network says of each pixel of the original.

    Raises:
        ShapeError: as `decode_flows`.
    """
    shape = view.source.shape
    if len(shape) != 2 or len(run.divisors) != 2:
        raise ShapeError(
            f"the image has {len(shape)} spatial axes and the network sees {len(run.divisors)}; flows lead through planes: "
            "give images (C, H, W) and a network for them"
        )
    count = len(run.classes)
    number = 3 + (count if count > 1 else 0)

    def ask(images: np.ndarray) -> np.ndarray:
        maps = run(images)[0]
        if maps.shape[1] != number:
            raise ShapeError(
                f"the network gives {maps.shape[1]} maps, but flows and {count} class{'es' * (count > 1)} need {number}; "
                "build it with num_classes equal to the number of classes"
            )
        return maps

    tile, padded = run.sizes(view.covered)
    mean = mirrored(ask, run.flip_axes, run.at_once, turned={-2: 0, -1: 1})
    field = _Field(
        np.empty((2, *shape), np.int8), np.empty(shape, np.uint8), np.empty(shape if count > 1 else (0, 0), np.uint16)
    )
    for first, maps in tiled_maps(view.padded(padded).image, mean, tile, shape, view.covered, run.at_once):
        rows = slice(first, first + maps.shape[1])
        keep_bytes(maps, field.flows[:, rows], field.probs[rows])
        if count > 1:
            field.classes[rows] = maps[3:].argmax(axis=0)
    return field


@njit(cache=True, nogil=True)
def keep_bytes(maps, flows, probs):
    """Write maps (F, h, W) as bytes into `flows` (2, h, W) and `probs` (h, W)."""
    _, h, W = maps.shape
    for axis in range(2):
        for y in range(h):
            for x in range(W):
                flows[axis, y, x] = round(min(max(maps[axis, y, x] * np.float32(FINE / FLOW_LENGTH), -127), 127))
    for y in range(h):
        for x in range(W):
            probs[y, x] = round(np.float32(255) / (np.float32(1) + np.exp(-maps[2, y, x])))
            if (probs[y, x] >= LEAST) != (maps[2, y, x] >= 0):
                probs[y, x] = LEAST if maps[2, y, x] >= 0 else LEAST - 1


def _followed(field: _Field) -> tuple[np.ndarray, int]:
    """The map int32 (H, W) where i + 1 marks object i and 0 nothing, and how many objects there are."""
    H, W = field.probs.shape
    ends = np.empty((H, W), np.int32 if H * W < 2**31 else np.int64)
    in_threads(lambda first, stop: _follow(field.flows, field.probs, first, stop, ends), H, H * W)
    middles = np.zeros((H, W), np.int32)
    count = _join(ends, middles)
    objects, areas = ends.astype(np.int32, copy=False), np.zeros(count, np.int64)
    segment_kernels.areas(objects.reshape(1, -1), areas)
    absorb_fragments(objects, areas)
    return objects, _renumber(objects, np.zeros(count + 1, np.int32))


@njit(cache=True, nogil=True)
def _follow(flows, probs, first, stop, ends):
    """Write where each pixel of an object in some rows ends, as its place in the image row by row, -1 for others."""
    H, W = probs.shape
    for y in range(first, stop):
        for x in range(W):
            ends[y, x] = -1
            if probs[y, x] >= LEAST:
                row, column = end_of_flow(flows, np.float32(y), np.float32(x))
                ends[y, x] = np.int64(round(row)) * W + np.int64(round(column))


@njit(cache=True, nogil=True)
def end_of_flow(flows, row, column):
    """The place to which the flows (2, H, W) lead from a place, pixel centres being whole numbers."""
    _, H, W = flows.shape
    before_row, before_column = row, column  # one step before
    for _ in range(STEPS):
        top, left = min(int(row), H - 2) if H > 1 else 0, min(int(column), W - 2) if W > 1 else 0
        below, right = min(top + 1, H - 1), min(left + 1, W - 1)
        v, u = row - np.float32(top), column - np.float32(left)
        a, b = (np.float32(1) - v) * (np.float32(1) - u), (np.float32(1) - v) * u
        c, d = v * (np.float32(1) - u), v * u
        down = a * flows[0, top, left] + b * flows[0, top, right] + c * flows[0, below, left] + d * flows[0, below, right]
        along = a * flows[1, top, left] + b * flows[1, top, right] + c * flows[1, below, left] + d * flows[1, below, right]
        next_row = min(max(row + down * np.float32(1 / FINE), np.float32(0)), np.float32(H - 1))
        next_column = min(max(column + along * np.float32(1 / FINE), np.float32(0)), np.float32(W - 1))
        if abs(next_row - before_row) <= STILL and abs(next_column - before_column) <= STILL:
            return (row + next_row) / 2, (column + next_column) / 2
        before_row, before_column, row, column = row, column, next_row, next_column
    return row, column


@njit(cache=True, nogil=True)
def _join(ends, middles):
    """Turn ends (H, W) into the numbers of objects, i + 1 or 0, and return how many these are; `middles` int32 (H, W) is 0."""
    H, W = ends.shape
    for y in range(H):
        for x in range(W):
            if ends[y, x] >= 0:
                middles[ends[y, x] // W, ends[y, x] % W] = -1  # the end of some pixel
    queue = np.empty(64, np.int64)
    count = 0
    for y in range(H):
        for x in range(W):
            if ends[y, x] < 0:
                ends[y, x] = 0
                continue
            place = ends[y, x]
            if middles[place // W, place % W] < 0:
                count += 1
                queue = _mark(middles, place, count, queue)
            ends[y, x] = middles[place // W, place % W]
    return count


@njit(cache=True, nogil=True)
def _mark(middles, place, number, queue):
    """Give the ends (-1) around a place, and those near to them, a number; the `queue`, which may have become longer."""
    H, W = middles.shape
    middles[place // W, place % W] = number
    queue[0] = place
    waiting = 1
    while waiting:
        waiting -= 1
        row, column = queue[waiting] // W, queue[waiting] % W
        for i in range(max(row - NEAR, 0), min(row + NEAR + 1, H)):
            for j in range(max(column - NEAR, 0), min(column + NEAR + 1, W)):
                if middles[i, j] < 0:
                    middles[i, j] = number
                    if waiting == len(queue):
                        queue = np.concatenate((queue, np.empty_like(queue)))
                    queue[waiting] = i * W + j
                    waiting += 1
    return queue


@njit(cache=True, nogil=True)
def absorb_fragments(objects, areas):
    """Give the pixels of fragments in a map (H, W) the numbers of larger objects that these touch, from the border inwards.

    The object i + 1 has areas[i] pixels.
    """
    H, W = objects.shape
    queue = np.empty(areas[areas < FRAGMENT].sum(), np.int64)
    numbers = np.empty(len(queue), np.int32)
    count, done = 0, 0
    for y in range(H):
        for x in range(W):
            if objects[y, x] and areas[objects[y, x] - 1] < FRAGMENT:
                for i, j in _beside(y, x, H, W):
                    if objects[i, j] and areas[objects[i, j] - 1] >= FRAGMENT:
                        queue[count], numbers[count] = y * W + x, objects[i, j]
                        count += 1
                        break
    for n in range(count):
        objects[queue[n] // W, queue[n] % W] = numbers[n]
    while done < count:
        y, x = queue[done] // W, queue[done] % W
        done += 1
        for i, j in _beside(y, x, H, W):
            if objects[i, j] and areas[objects[i, j] - 1] < FRAGMENT:
                objects[i, j] = objects[y, x]
                queue[count] = i * W + j
                count += 1


@njit(cache=True, nogil=True)
def _beside(y, x, H, W):
    """The pixels above, left, right and below of one in an image; at the border that one itself stands for what is beyond."""
    return ((max(y - 1, 0), x), (y, max(x - 1, 0)), (y, min(x + 1, W - 1)), (min(y + 1, H - 1), x))


@njit(cache=True, nogil=True)
def _renumber(objects, new):
    """Number the objects of a map (H, W) by their first pixels, and return how many these are; `new` int32 (N + 1,) is 0."""
    count = 0
    for y in range(objects.shape[0]):
        for x in range(objects.shape[1]):
            number = objects[y, x]
            if number:
                if new[number] == 0:
                    count += 1
                    new[number] = count
                objects[y, x] = new[number]
    return count


def _described(field: _Field, objects: np.ndarray, count: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes int32 (N,) and scores float32 (N,) of the objects of a map (H, W)."""
    areas, chances, lengths = np.zeros(count), np.zeros(count), np.zeros(count)
    votes = np.zeros((count, num_classes if num_classes > 1 else 0), np.int64)
    _measure(objects, field.flows, field.probs, field.classes, areas, chances, lengths, votes)
    scores = np.sqrt(chances / (255 * areas) * (lengths / areas))
    if num_classes == 1:
        return np.zeros(count, np.int32), scores.astype(np.float32)
    return votes.argmax(axis=1).astype(np.int32), (scores * votes.max(axis=1, initial=0) / areas).astype(np.float32)


@njit(cache=True, nogil=True)
def _measure(objects, flows, probs, classes, areas, chances, lengths, votes):
    """Add up the pixels of each object, their probabilities, the lengths of their flows (at most 1), and their classes."""
    H, W = objects.shape
    has_classes = votes.shape[1] > 0
    for y in range(H):
        for x in range(W):
            n = objects[y, x] - 1
            if n >= 0:
                areas[n] += 1
                chances[n] += probs[y, x]
                length = np.hypot(np.float64(flows[0, y, x]), np.float64(flows[1, y, x])) / FINE
                lengths[n] += min(length, 1.0)
                if has_classes:
                    votes[n, classes[y, x]] += 1

"""Regions of images as runs of pixels, and how much the regions of two lists overlap, without painting any.

Axes: N regions, R runs, M pairs, (H, W) rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit

from segwright.codecs import rle
from segwright.core.errors import FormatError, ShapeError
from segwright.metrics.matching import Objects, image_class_ids

BLOCK = 32  # words of 8 pixels that are compared at once: a few instructions, and most of a mask is background
ONES = np.uint64(0x0101010101010101)  # eight pixels inside
NONE, ONE, FIVE, SIX, LOW_BITS, BELOW_64 = (np.uint64(n) for n in (0, 1, 5, 6, 31, 63))  # with signed ones they become floats
FIRST = np.uint64(rle.FIRST_CHARACTER)


@dataclass(frozen=True, eq=False)
class Runs:
    """N regions of an image; region n has the runs offsets[n] to offsets[n + 1], which begin at pixel `starts` and end before
    `ends`, uint32 (R,) each. `areas` int64 (N,) are the pixels of each.

    Pixels are numbered along columns or along rows; two lists must agree, and `size` is the number of pixels of the image, None
    where the regions are of several.
    """

    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    areas: np.ndarray
    size: int | None

    def __len__(self) -> int:
        return len(self.areas)

    @classmethod
    def of_texts(cls, texts: Sequence[str] | Sequence[bytes], shape: tuple[int, ...]) -> Self:
        """The runs of regions of an image (H, W) from the compressed run lengths of COCO's files, along columns.

        Raises:
            FormatError: a text is no run lengths, or they do not add up to H * W; it names the place in the list.
        """
        return cls._read(texts, np.array([0, len(texts)]), [shape], shape[0] * shape[1])

    @classmethod
    def of_images(cls, texts: Sequence[str] | Sequence[bytes], starts: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> Self:
        """The same for regions of N images with these shapes, where the regions of each image begin at `starts` (N + 1,).

        Raises:
            FormatError: as of one image.
        """
        return cls._read(texts, starts, shapes, None)

    @classmethod
    def _read(
        cls, texts: Sequence[str] | Sequence[bytes], starts: np.ndarray, shapes: Sequence[tuple[int, ...]], size: int | None
    ) -> Self:
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([*map(len, texts)], out=offsets[1:])
        images = np.repeat(np.arange(len(shapes)), np.diff(starts))
        sizes = np.array(shapes, np.int64).prod(axis=1)[images]
        starts, ends, places, areas, wrong = _read_texts(np.frombuffer(_joined(texts), np.uint8), offsets, sizes)
        if wrong >= 0:
            text = texts[wrong]
            text = text.decode("ascii", "replace") if isinstance(text, bytes) else text
            rle.check(rle.from_text(text), shapes[images[wrong]], f"region {wrong}")
            raise FormatError(f"region {wrong}: the run lengths are damaged; export them again")
        return cls(starts, ends, places, areas, size)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The regions of several images, one after another."""
        none = np.zeros(0, np.uint32)
        starts, ends = (np.concatenate([none, *(getattr(part, name) for part in parts)]) for name in ("starts", "ends"))
        areas = np.concatenate([np.zeros(0, np.int64), *(part.areas for part in parts)])
        offsets = np.zeros(len(areas) + 1, np.int64)
        np.cumsum(np.concatenate([np.zeros(0, np.int64), *(np.diff(part.offsets) for part in parts)]), out=offsets[1:])
        return cls(starts, ends, offsets, areas, None)

    @classmethod
    def of_counts(cls, counts: Sequence[np.ndarray], shape: tuple[int, ...]) -> Self:
        """The runs of regions of an image (H, W) from their run lengths uint32 (R,) each (see codecs/rle.py), along columns.

        Raises:
            FormatError: they do not add up to H * W; it names the place in the list.
        """
        for n, lengths in enumerate(counts):
            rle.check(lengths, shape, f"region {n}")
        bounds = [np.cumsum(lengths, dtype=np.uint32) for lengths in counts]
        starts = [ends[: len(ends) // 2 * 2 : 2] for ends in bounds]  # the first run is background
        ends = [ends[1::2] for ends in bounds]
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum([len(each) for each in starts], out=offsets[1:])
        areas = np.array([rle.area(lengths) for lengths in counts], np.int64)
        none = [np.zeros(0, np.uint32)]
        return cls(np.concatenate(none + starts), np.concatenate(none + ends), offsets, areas, shape[0] * shape[1])

    @classmethod
    def of_masks(cls, masks: np.ndarray) -> Self:
        """The runs of masks bool (N, *S), along rows; each pixel is read once, eight at a time.

        Raises:
            ShapeError: the masks are not bool.
        """
        if masks.dtype != bool:
            raise ShapeError(f"masks are {masks.dtype}, bool is needed; compare them with a threshold, such as masks > 0")
        size = int(np.prod(masks.shape[1:]))
        pixels = np.ascontiguousarray(masks).view(np.uint8).ravel()
        words = pixels[: len(pixels) // 8 * 8].view(np.uint64)
        starts, ends, offsets, areas = _read_masks(pixels, words, len(masks), size)
        return cls(starts, ends, offsets, areas, size)

    def boxes_xywh(self, height: int) -> np.ndarray:
        """Left, top, width and height of the smallest boxes around regions whose pixels are numbered along columns of so many
        pixels, float64 (N, 4); zeros around nothing."""
        return _boxes(self.starts, self.ends, self.offsets, height)


def overlapping(
    runs: Runs, detections: Objects, true_runs: Runs, truth: Objects, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection, object and overlap (M,) of the regions of one image and class that overlap by at least `least`, rising.

    The overlap is IoU, for a crowd the share of the detection that lies in it.

    Raises:
        ShapeError: the regions are of images of different sizes.
    """
    if runs.size is not None and true_runs.size is not None and runs.size != true_runs.size:
        raise ShapeError(
            f"the detections are of an image of {runs.size:,} pixels and the truth of {true_runs.size:,}; "
            "predict at the size of the original image"
        )
    is_crowd = np.zeros(len(true_runs), bool) if truth.is_crowd is None else truth.is_crowd
    groups, true_groups = image_class_ids(detections, truth)
    order = np.argsort(true_groups, kind="stable")
    places = [np.searchsorted(true_groups[order], groups, side) for side in ("left", "right")]
    return _overlapping(
        (runs.starts, runs.ends, runs.offsets, runs.areas),
        (true_runs.starts, true_runs.ends, true_runs.offsets, true_runs.areas),
        (order, *places),
        is_crowd,
        least,
    )


@njit(cache=True, nogil=True)
def _overlapping(detections, truth, group, is_crowd, least):
    """The pairs; objects order[firsts[d]] to order[lasts[d] - 1] are those of the image and class of detection d."""
    starts, ends, offsets, areas = detections
    true_starts, true_ends, true_offsets, true_areas = truth
    order, firsts, lasts = group
    rows, columns, overlaps = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.float64)
    found = 0
    for d in range(len(areas)):
        first, end = offsets[d], offsets[d + 1]
        if first == end:
            continue
        for place in range(firsts[d], lasts[d]):
            g = order[place]
            other, other_end = true_offsets[g], true_offsets[g + 1]
            if other == other_end or starts[first] >= true_ends[other_end - 1] or true_starts[other] >= ends[end - 1]:
                continue
            if not is_crowd[g] and min(areas[d], true_areas[g]) / max(areas[d], true_areas[g]) < least:
                continue  # however they lie, IoU is no larger than the ratio of their areas
            shared = _shared(starts[first:end], ends[first:end], true_starts[other:other_end], true_ends[other:other_end])
            whole = areas[d] if is_crowd[g] else areas[d] + true_areas[g] - shared
            if shared == 0 or shared / whole < least:
                continue
            if found == len(rows):
                rows, columns, overlaps = _longer(rows), _longer(columns), _longer(overlaps)
            rows[found], columns[found], overlaps[found] = d, g, shared / whole
            found += 1
    return rows[:found], columns[:found], overlaps[:found]


@njit(cache=True, nogil=True)
def _shared(starts, ends, other_starts, other_ends):
    """Pixels that two regions share, run beside run."""
    shared, i, j = np.int64(0), 0, 0
    while i < len(starts) and j < len(other_starts):
        start, end = np.int64(max(starts[i], other_starts[j])), np.int64(min(ends[i], other_ends[j]))
        if end > start:
            shared += end - start
        if ends[i] < other_ends[j]:
            i += 1
        else:
            j += 1
    return shared


@njit(cache=True, nogil=True)
def _boxes(starts, ends, offsets, height):
    boxes = np.zeros((len(offsets) - 1, 4))
    for n in range(len(boxes)):
        first, end = offsets[n], offsets[n + 1]
        if first == end:
            continue
        left, right = starts[first] // height, (ends[end - 1] - 1) // height + 1
        top, bottom = height, 0
        for run in range(first, end):
            start, last = np.int64(starts[run]), np.int64(ends[run]) - 1
            if start // height < last // height:  # it goes on at the top of the next column
                top, bottom = 0, height
                break
            top, bottom = min(top, start % height), max(bottom, last % height + 1)
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = left, top, right - left, bottom - top
    return boxes


@njit(cache=True, nogil=True)
def _longer(array):
    longer = np.empty(2 * len(array), array.dtype)
    longer[: len(array)] = array
    return longer


def _joined(texts: Sequence[str] | Sequence[bytes]) -> bytes:
    """All texts in one, a byte for each character."""
    try:
        return "".join(texts).encode("ascii", "replace")  # type: ignore[arg-type]  # text in most files
    except TypeError:
        return b"".join(text.encode("ascii", "replace") if isinstance(text, str) else text for text in texts)


@njit(cache=True, nogil=True)
def _read_texts(blob, offsets, sizes):
    """Starts, ends, offsets and areas of the runs that texts stand for, and the first text that is wrong, or -1."""
    count = len(offsets) - 1
    room = (len(blob) + count) // 2 + 1  # a count has one character or more, and a run is every other count
    starts, ends = np.empty(room, np.uint32), np.empty(room, np.uint32)
    places, areas = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    counts, found = np.empty(np.diff(offsets).max() + 2 if count else 2, np.int64), 0
    for n in range(count):
        known = _read_counts(blob, offsets[n], offsets[n + 1], counts)
        if known < 0:
            return starts, ends, places, areas, n
        counts[known] = 0  # pixels inside, where the last are outside
        outside, inside, position = np.int64(0), np.int64(0), np.int64(0)
        for index in range(0, known, 2):  # from the fourth on, a count is what it is more than the one two before
            outside = counts[index] + (outside if index > 2 else 0)
            inside = counts[index + 1] + (inside if 0 < index < known - 1 else 0)
            if outside < 0 or inside < 0 or position + outside + inside > sizes[n]:
                return starts, ends, places, areas, n
            position += outside
            if inside:
                starts[found], ends[found] = position, position + inside
                found += 1
            position += inside
            areas[n] += inside
        if position != sizes[n]:
            return starts, ends, places, areas, n
        places[n + 1] = found
    return starts[:found], ends[:found], places, areas, -1


@njit(cache=True, nogil=True)
def _read_counts(blob, first, end, counts):
    """How many numbers a text holds, which are written into `counts`; -1 where it is damaged.

    Nothing branches: how many groups a number has, no processor foresees.
    """
    found, value, bits, wrong = NONE, NONE, NONE, NONE
    for place in range(first, end):
        group = np.uint64(blob[place]) - FIRST
        value |= (group & LOW_BITS) << bits
        bits += FIVE
        wrong |= group >> SIX | bits >> SIX
        bits &= BELOW_64
        counts[found] = np.int64(value - (value >> (bits - ONE) << bits))  # the highest bit is the sign
        goes_on = NONE - (group >> FIVE & ONE)  # all bits, or none
        found += ONE + goes_on
        value &= goes_on
        bits &= goes_on
    return np.int64(-1) if wrong or bits else np.int64(found)


@njit(cache=True, nogil=True)
def _read_masks(pixels, words, count, size):
    """Starts, ends, offsets and areas of the runs of masks, all pixels one after another, uint8 and in words of eight."""
    starts, ends = np.empty(256, np.uint32), np.empty(256, np.uint32)
    offsets, areas = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    found = 0
    for n in range(count):
        first, end = n * size, (n + 1) * size
        position = _end_of_run(pixels, words, first, end, 0)
        while position < end:
            start = position
            position = _end_of_run(pixels, words, start, end, 1)
            if found == len(starts):
                starts, ends = _longer(starts), _longer(ends)
            starts[found], ends[found] = start - first, position - first
            found += 1
            areas[n] += position - start
            position = _end_of_run(pixels, words, position, end, 0)
        offsets[n + 1] = found
    return starts[:found], ends[:found], offsets, areas


@njit(cache=True, nogil=True)
def _end_of_run(pixels, words, position, end, value):
    """The first pixel from a position on that is not this value, or the end."""
    while position < end and position % 8:
        if pixels[position] != value:
            return position
        position += 1
    word, last, pattern = position // 8, end // 8, ONES * np.uint64(value)
    while word + BLOCK <= last:
        differs = np.uint64(0)
        for k in range(BLOCK):  # without an exit, so that it is a few instructions
            differs |= words[word + k] ^ pattern
        if differs:
            break
        word += BLOCK
    while word < last and words[word] == pattern:
        word += 1
    position = max(position, word * 8)
    while position < end and pixels[position] == value:
        position += 1
    return position

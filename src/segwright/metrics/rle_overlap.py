"""Regions of one image as runs of pixels, and how much the regions of two lists overlap, without painting any.

Axes: N regions, R runs, M pairs, (H, W) rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numba import njit

from segwright.codecs import rle
from segwright.core.errors import FormatError, ShapeError
from segwright.metrics.matching import Objects

BLOCK = 32  # words of 8 pixels that are compared at once: a few instructions, and most of a mask is background
ONES = np.uint64(0x0101010101010101)  # eight pixels inside
MORE, FIRST_CHARACTER, MAX_BITS = rle.MORE, rle.FIRST_CHARACTER, 5 * rle.MAX_GROUPS


@dataclass(frozen=True, eq=False)
class Runs:
    """N regions of an image; region n has the runs offsets[n] to offsets[n + 1], which begin at pixel `starts` and end before
    `ends`, uint32 (R,) each. `areas` int64 (N,) are the pixels of each.

    Pixels are numbered along columns or along rows; two lists must agree, and `size` is the number of pixels of the image.
    """

    starts: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    areas: np.ndarray
    size: int

    def __len__(self) -> int:
        return len(self.areas)

    @classmethod
    def of_texts(cls, texts: Sequence[str] | Sequence[bytes], shape: tuple[int, ...]) -> Self:
        """The runs of regions of an image (H, W) from the compressed run lengths of COCO's files, along columns.

        Raises:
            FormatError: a text is no run lengths, or they do not add up to H * W; it names the place in the list.
        """
        size = shape[0] * shape[1]
        blob = b"".join(text.encode("ascii", "replace") if isinstance(text, str) else text for text in texts)
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        starts, ends, places, areas, wrong = _read_texts(np.frombuffer(blob, np.uint8), offsets, size)
        if wrong >= 0:
            text = texts[wrong]
            text = text.decode("ascii", "replace") if isinstance(text, bytes) else text
            rle.check(rle.from_text(text), shape, f"region {wrong}")
            raise FormatError(f"region {wrong}: the run lengths are damaged; export them again")
        return cls(starts, ends, places, areas, size)

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
    """Detection, object and overlap (M,) of the regions of one class that overlap by at least `least`, in rising order.

    The overlap is IoU, for a crowd the share of the detection that lies in it.

    Raises:
        ShapeError: the regions are of images of different sizes.
    """
    if runs.size != true_runs.size:
        raise ShapeError(
            f"the detections are of an image of {runs.size:,} pixels and the truth of {true_runs.size:,}; "
            "predict at the size of the original image"
        )
    is_crowd = np.zeros(len(true_runs), bool) if truth.is_crowd is None else truth.is_crowd
    return _overlapping(
        (runs.starts, runs.ends, runs.offsets, runs.areas, np.asarray(detections.class_ids, np.int32)),
        (true_runs.starts, true_runs.ends, true_runs.offsets, true_runs.areas, np.asarray(truth.class_ids, np.int32)),
        is_crowd,
        least,
    )


@njit(cache=True, nogil=True)
def _overlapping(detections, truth, is_crowd, least):
    starts, ends, offsets, areas, class_ids = detections
    true_starts, true_ends, true_offsets, true_areas, true_class_ids = truth
    rows, columns, overlaps = np.empty(64, np.int64), np.empty(64, np.int64), np.empty(64, np.float64)
    found = 0
    for d in range(len(areas)):
        first, end = offsets[d], offsets[d + 1]
        if first == end:
            continue
        for g in range(len(true_areas)):
            if class_ids[d] != true_class_ids[g]:
                continue
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


@njit(cache=True, nogil=True)
def _read_texts(blob, offsets, size):
    """Starts, ends, offsets and areas of the runs that texts stand for, and the first text that is wrong, or -1."""
    count = len(offsets) - 1
    room = (len(blob) + count) // 2 + 1  # a count has one character or more, and a run is every other count
    starts, ends = np.empty(room, np.uint32), np.empty(room, np.uint32)
    places, areas = np.zeros(count + 1, np.int64), np.zeros(count, np.int64)
    found = 0
    for n in range(count):
        place, end, position, index = offsets[n], offsets[n + 1], np.int64(0), 0
        before, last = np.int64(0), np.int64(0)  # the counts two and one before
        while place < end:
            value, bits, has_more = np.int64(0), 0, True
            while has_more:
                if place == end or bits == MAX_BITS:
                    return starts, ends, places, areas, n
                group = np.int64(blob[place]) - FIRST_CHARACTER
                if group < 0 or group > 63:
                    return starts, ends, places, areas, n
                has_more = group & MORE != 0
                value |= (group & 31) << bits
                bits += 5
                place += 1
            if value >> (bits - 1):  # the highest bit is the sign
                value -= np.int64(1) << bits
            if index > 2:
                value += before
            if value < 0 or position + value > size:
                return starts, ends, places, areas, n
            if index % 2 and value:
                starts[found], ends[found] = position, position + value
                found += 1
                areas[n] += value
            position += value
            before, last = last, value
            index += 1
        if position != size:
            return starts, ends, places, areas, n
        places[n + 1] = found
    return starts[:found], ends[:found], places, areas, -1


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

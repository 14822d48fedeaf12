"""COCO's run lengths: masks as the lengths of their runs, and the text that a JSON holds of them.

`counts` are uint32 (R,): the pixels of an image are read column by column, each from top to bottom; `counts[0]` pixels are
background (it may be 0), the next `counts[1]` are foreground, and so on in turn. They add up to H * W.

The text writes each count in groups of five bits, the lowest first: a group g becomes the character 48 + g, and 48 + 32 + g
where more follow; the highest bit of the last group is the sign. From the fourth count on, what is written is the difference
to the count two before, which is small where the columns of an object resemble each other.

Axes: P planes, (H, W) rows and columns, R runs.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

from segwright.core import VOID
from segwright.core.errors import FormatError

MAX_BYTES = 2**30  # of the planes of one image: a small file can claim thousands of regions that cover each other
FIRST_CHARACTER = 48  # "0"
MORE = 32  # the bit that says that another group follows
MAX_GROUPS = 7  # five bits each: a difference of two 32-bit counts has 33 bits
BLOCK = 32  # pixels that are compared at once
NO_COUNTS = np.zeros(0, np.uint32)


def encode(mask: np.ndarray) -> np.ndarray:
    """The run lengths uint32 (R,) of a mask bool (H, W)."""
    height, width = mask.shape
    return _runs_of_mask(_columns(mask.view(np.uint8))) if height and width else np.zeros(1, np.uint32)


def decode(counts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask bool (H, W) of run lengths, which must add up to H * W (see `check`)."""
    height, width = shape
    mask = np.zeros((width, height), np.uint8)
    _set(mask.ravel(), counts)
    return cv2.transpose(mask).view(bool)


def area(counts: np.ndarray) -> int:
    """The number of foreground pixels."""
    return int(counts[1::2].sum(dtype=np.int64))


def box_xyxy(counts: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The smallest box (left, top, right, bottom) around the foreground, right and bottom exclusive; zeros if it is empty."""
    left, top, right, bottom = _box(counts, shape[0])
    return int(left), int(top), int(right), int(bottom)


def crop(counts: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int]]:
    """The mask bool (h, w) inside of the box around the foreground, and that box's left upper corner (x, y)."""
    left, top, right, bottom = box_xyxy(counts, shape)
    mask = np.zeros((bottom - top, right - left), dtype=bool)
    _set_crop(mask, counts, shape[0], left, top)
    return mask, (left, top)


def union(regions: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The run lengths of what any of several regions covers, without empty runs but perhaps the first."""
    size = shape[0] * shape[1]
    return _union(*_flat(regions), size)


def to_text(counts: np.ndarray) -> str:
    """The text of run lengths, as COCO's JSON files hold it."""
    text = np.empty(MAX_GROUPS * len(counts), np.uint8)
    return text[: _write_text(counts, text)].tobytes().decode("ascii")


def from_text(text: str) -> np.ndarray:
    """The run lengths that a text stands for. Whether they fit an image is for `check` to say.

    Raises:
        FormatError: it is not the text of run lengths, or cut short.
    """
    try:
        characters = np.frombuffer(text.encode("ascii"), np.uint8)
    except UnicodeEncodeError as error:
        raise FormatError(f"{text[error.start]!r} is no character of compressed run lengths; export them again") from error
    counts = np.empty(len(characters), np.uint32)
    found = _read_text(characters, counts)
    if found < 0:
        place = -1 - int(found)
        raise FormatError(
            f"the compressed run lengths are damaged at character {place + 1} of {len(text)} ({text[place : place + 1]!r}); "
            "export them again"
        )
    return counts[:found]


def check(counts: np.ndarray, shape: tuple[int, ...], place: str) -> None:
    """Refuse run lengths that do not fit an image (H, W); `place` says where they stand.

    Raises:
        FormatError: they do not add up to H * W.
    """
    total, size = int(_total(counts)), shape[0] * shape[1]
    if total != size:
        raise FormatError(
            f"{place}: the run lengths add up to {total:,} pixels, the image has {shape[0]} x {shape[1]} = {size:,} "
            "(rows x columns); export them again at the size of the image"
        )


def paint_regions(regions: Sequence[np.ndarray], shape: tuple[int, ...], void: np.ndarray | None = None) -> np.ndarray:
    """Planes int32 (P, H, W): region i is i + 1 in the first plane in which all its pixels are free.

    Those of `void` that no region covers are -1 in the first plane. All run lengths must add up to H * W (see `check`).

    Raises:
        FormatError: the regions overlap so deeply that the planes would fill the memory.
    """
    height, width = shape
    counts, starts = _flat(regions)
    planes = np.zeros((1, height, width), dtype=np.int32)
    painted = _paint(planes, counts, starts, 0)
    while painted < len(regions):
        depth = len(planes) + 1
        if 4 * depth * height * width > MAX_BYTES:  # 4 bytes each
            raise FormatError(
                f"{depth} regions of an image of {height} x {width} pixels cover each other, which needs more than "
                f"{MAX_BYTES >> 30} GiB; cut the image into tiles, or remove repeated regions"
            )
        planes.resize((depth, height, width), refcheck=False)  # no second copy: what is added is 0
        painted = _paint(planes, counts, starts, painted)
    if void is not None:
        planes[0][decode(void, shape) & ~(planes != 0).any(axis=0)] = VOID
    return planes


def of_segments(planes: np.ndarray, count: int) -> list[np.ndarray]:
    """The run lengths of the segments 1..count in planes int32 (P, H, W), read once."""
    _, height, width = planes.shape
    size = height * width
    found: list[list[np.ndarray]] = [[] for _ in range(count)]
    for plane in planes:
        values, starts, ends = _runs(_columns(plane))
        counts, offsets = _by_segment(values, starts, ends, count, size)
        for segment in np.flatnonzero(np.diff(offsets)):
            found[segment].append(counts[offsets[segment] : offsets[segment + 1]])
    nothing = np.array([size], np.uint32)
    return [(parts[0] if len(parts) == 1 else union(parts, (height, width))) if parts else nothing.copy() for parts in found]


def of_void(planes: np.ndarray) -> np.ndarray:
    """The run lengths of what is void in planes int32 (P, H, W)."""
    return encode((planes == VOID).any(axis=0))


def _flat(regions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All run lengths in one array, and where those of each region start, int64 (N + 1,)."""
    starts = np.zeros(len(regions) + 1, np.int64)
    np.cumsum([len(counts) for counts in regions], out=starts[1:])
    return np.concatenate([NO_COUNTS, *regions]).astype(np.uint32, copy=False), starts


@njit(cache=True, nogil=True)
def _total(counts: np.ndarray) -> int:
    total = 0
    for n in range(len(counts)):
        total += counts[n]
    return total


def _columns(image: np.ndarray) -> np.ndarray:
    """The pixels of an image uint8 or int32 (H, W), column by column, (W * H,)."""
    return cv2.transpose(np.ascontiguousarray(image)).ravel()  # in blocks: ten times as fast as walking down the columns


@njit(cache=True, nogil=True)
def _runs_of_mask(pixels: np.ndarray) -> np.ndarray:
    counts = np.empty(64, np.uint32)  # 64: enough for a small object; doubled when full
    found, last, start, n = 0, np.uint8(0), 0, 0
    words = pixels[: len(pixels) // BLOCK * BLOCK].view(np.uint64)
    while n < len(pixels):
        n = _skip(words, n, 8, np.uint64(last) * np.uint64(0x0101010101010101))
        for position in range(n, min(n + BLOCK, len(pixels))):
            if pixels[position] != last:
                if found + 2 > len(counts):
                    counts = _longer(counts)
                counts[found] = position - start
                found, last, start = found + 1, pixels[position], position
        n += BLOCK
    counts[found] = len(pixels) - start
    return counts[: found + 1].copy()


@njit(cache=True, nogil=True)
def _skip(words: np.ndarray, start: int, pixels_per_word: int, word: np.uint64) -> int:
    """The first pixel from `start` on, in steps of BLOCK, after which the words of a block are not all like this one."""
    step = BLOCK // pixels_per_word
    place = start // pixels_per_word
    while place + step <= len(words):
        differs = np.uint64(0)
        for k in range(step):  # without an exit, so that it is a few instructions
            differs |= words[place + k] ^ word
        if differs:
            break
        place += step
    return place * pixels_per_word


@njit(cache=True, nogil=True)
def _set(pixels: np.ndarray, counts: np.ndarray) -> None:
    position = 0
    for n in range(len(counts)):
        length = int(counts[n])
        if n % 2:
            pixels[position : position + length] = 1
        position += length


@njit(cache=True, nogil=True)
def _set_crop(mask: np.ndarray, counts: np.ndarray, height: int, left: int, top: int) -> None:
    position = 0
    for n in range(len(counts)):
        length = int(counts[n])
        if n % 2 and length:
            column = position // height
            row = position - column * height
            for _ in range(length):
                mask[row - top, column - left] = True
                row += 1
                if row == height:
                    row, column = 0, column + 1
        position += length


@njit(cache=True, nogil=True)
def _box(counts: np.ndarray, height: int) -> tuple[int, int, int, int]:
    left, top, right, bottom, position = -1, height, 0, 0, 0
    for n in range(len(counts)):
        length = int(counts[n])
        if n % 2 and length:
            first, last = position // height, (position + length - 1) // height
            if left < 0:
                left = first
            right = last + 1
            if first < last:  # it goes on at the top of the next column
                top, bottom = 0, height
            else:
                top = min(top, position - first * height)
                bottom = max(bottom, position + length - last * height)
        position += length
    return (left, top, right, bottom) if left >= 0 else (0, 0, 0, 0)


@njit(cache=True, nogil=True)
def _union(counts: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
    """Foreground runs of all regions in the order of their starts; those that touch or overlap become one."""
    starts, ends = np.empty(len(counts), np.int64), np.empty(len(counts), np.int64)
    found = 0
    for region in range(len(offsets) - 1):
        position = 0
        for n in range(offsets[region], offsets[region + 1]):
            length = int(counts[n])
            if (n - offsets[region]) % 2 and length:
                starts[found], ends[found] = position, position + length
                found += 1
            position += length
    order = np.argsort(starts[:found])
    result = np.empty(2 * found + 1, np.uint32)
    written, covered, first = 0, 0, -1
    for n in order:
        if first < 0 or starts[n] > covered:
            if first >= 0:
                result[written] = covered - first
                written += 1
            first = starts[n]
            result[written] = first - covered
            written += 1
        covered = max(covered, ends[n])
    if first >= 0:
        result[written] = covered - first
        written += 1
    if covered < size or not written:
        result[written] = size - covered
        written += 1
    return result[:written].copy()


@njit(cache=True, nogil=True)
def _write_text(counts: np.ndarray, text: np.ndarray) -> int:
    written = 0
    for n in range(len(counts)):
        value = np.int64(counts[n])
        if n > 2:
            value -= np.int64(counts[n - 2])
        while True:
            group = value & 31
            value >>= 5  # keeps the sign
            is_last = value == 0 and group < 16 or value == -1 and group >= 16
            text[written] = FIRST_CHARACTER + group + (0 if is_last else MORE)
            written += 1
            if is_last:
                break
    return written


@njit(cache=True, nogil=True)
def _read_text(text: np.ndarray, counts: np.ndarray) -> int:
    """The number of counts read, or -1 - n where character n is wrong."""
    found, place = 0, 0
    while place < len(text):
        value, bits, has_more = np.int64(0), 0, True
        while has_more:
            if place == len(text) or bits == 5 * MAX_GROUPS:
                return -1 - min(place, len(text) - 1)
            group = np.int64(text[place]) - FIRST_CHARACTER
            if group < 0 or group > 63:
                return -1 - place
            has_more = group & MORE != 0
            value |= (group & 31) << bits
            bits += 5
            place += 1
        if value >> (bits - 1):  # the highest bit is the sign
            value -= np.int64(1) << bits
        if found > 2:
            value += np.int64(counts[found - 2])
        if value < 0 or value > 0xFFFFFFFF:
            return -place
        counts[found] = value
        found += 1
    return found


@njit(cache=True, nogil=True)
def _paint(planes: np.ndarray, counts: np.ndarray, starts: np.ndarray, first: int) -> int:
    """Paint the regions from `first` on; the index of the first one that no plane has room for, or their number."""
    for region in range(first, len(starts) - 1):
        has_room = False
        for n in range(len(planes)):
            end = _paint_region(planes[n], counts, starts[region], starts[region + 1], region + 1)
            if end < 0:
                has_room = True
                break
            _erase(planes[n], counts, starts[region], starts[region + 1], end)
        if not has_room:
            return region
    return len(starts) - 1


@njit(cache=True, nogil=True)
def _paint_region(plane: np.ndarray, counts: np.ndarray, first: int, end: int, value: int) -> int:
    """Paint a region until a pixel is taken; the position of that pixel, or -1 if all were free."""
    height, width = plane.shape
    pixels = plane.ravel()
    position = 0
    for n in range(first, end):
        length = int(counts[n])
        if (n - first) % 2:
            column = position // height
            row = position - column * height
            left = length
            while left > 0:
                stop = min(height, row + left)
                place = row * width + column
                for r in range(row, stop):
                    if pixels[place]:
                        return column * height + r
                    pixels[place] = value
                    place += width
                left -= stop - row
                row, column = 0, column + 1
        position += length
    return -1


@njit(cache=True, nogil=True)
def _erase(plane: np.ndarray, counts: np.ndarray, first: int, end: int, stop: int) -> None:
    """Set the pixels of a region before position `stop` back to 0."""
    height = plane.shape[0]
    position = 0
    for n in range(first, end):
        length = int(counts[n])
        if (n - first) % 2:
            for p in range(position, min(stop, position + length)):
                plane[p % height, p // height] = 0
        position += length
        if position >= stop:
            return


@njit(cache=True, nogil=True)
def _runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, start and end of each run of one positive value."""
    values, starts, ends = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    found, last, n = 0, np.int32(0), 0
    words = pixels[: len(pixels) // BLOCK * BLOCK].view(np.uint64)
    while n < len(pixels):
        n = _skip(words, n, 2, np.uint64(np.uint32(last)) * np.uint64(0x0000000100000001))
        for position in range(n, min(n + BLOCK, len(pixels))):
            value = pixels[position]
            if value == last:
                continue
            if last > 0:
                ends[found] = position
                found += 1
            if value > 0:
                if found == len(starts):
                    values, starts, ends = _longer(values), _longer(starts), _longer(ends)
                values[found], starts[found] = value, position
            last = value
        n += BLOCK
    if last > 0:
        ends[found] = len(pixels)
        found += 1
    return values[:found], starts[:found], ends[:found]


@njit(cache=True, nogil=True)
def _longer(array: np.ndarray) -> np.ndarray:
    longer = np.empty(2 * len(array), array.dtype)
    longer[: len(array)] = array
    return longer


@njit(cache=True, nogil=True)
def _by_segment(
    values: np.ndarray, starts: np.ndarray, ends: np.ndarray, count: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The counts of the segments 1..count one after another, and where those of each start; those not there have none."""
    offsets = np.zeros(count + 1, np.int64)
    for n in range(len(values)):
        if values[n] <= count:
            offsets[values[n]] += 2
    for segment in range(count):
        if offsets[segment + 1]:
            offsets[segment + 1] += 1  # for the background after the last run
        offsets[segment + 1] += offsets[segment]
    counts = np.empty(offsets[count], np.uint32)
    written, covered = offsets[:-1].copy(), np.zeros(count, np.int64)
    for n in range(len(values)):
        segment = values[n] - 1
        if segment < count:
            counts[written[segment]] = starts[n] - covered[segment]
            counts[written[segment] + 1] = ends[n] - starts[n]
            written[segment] += 2
            covered[segment] = ends[n]
    # A segment that reaches the last pixel has no background after it: its place is closed up
    moved = 0
    for segment in range(count):
        first, end = offsets[segment], written[segment]
        offsets[segment] = moved
        for n in range(first, end):
            counts[moved] = counts[n]
            moved += 1
        if end > first and covered[segment] < size:
            counts[moved] = size - covered[segment]
            moved += 1
    offsets[count] = moved
    return counts[:moved], offsets

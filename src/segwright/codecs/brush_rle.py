"""Label Studio's run lengths of a brush stroke: the bits of an RGBA picture, packed. Axes: N bytes, (H, W) pixels.

The bits, highest first: 32 for the number of values, H * W * 4; 5 for the bits of a value, minus one; four times 4 for the bits
of a block's length, minus one. Then blocks: 1 bit, whether it is a run; 2 bits, which of the four widths its length has; the
length minus one; and one value for a run, else as many values as the length says. A pixel belongs where its alpha is not 0.
"""

import numpy as np
from numba import njit

from segwright.core.errors import FormatError

VALUE_BITS = 8
LENGTH_BITS = (3, 4, 8, 16)  # the widths that Label Studio writes
HEADER_BITS = 32 + 5 + 4 * 4
RUN_HEAD, LONGEST = 1 + 2, 1 << 16  # bits before the length of a run; values that the widest length holds
CHANNELS, ALPHA = 4, 3
TOO_SHORT, TOO_LONG = -1, -2


def encode_brush(mask: np.ndarray) -> np.ndarray:
    """The bytes of a mask, uint8 (N,), from bool (H, W): all four channels are 255 where it is true."""
    flat = np.ascontiguousarray(mask).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges, [flat.size]]).astype(np.int64)
    data = np.zeros(_bytes_needed(np.diff(starts) * CHANNELS), np.uint8)
    _pack(data, starts * CHANNELS, bool(flat[0]) if flat.size else False)
    return data


def decode_brush(data: np.ndarray, shape: tuple[int, int], place: str) -> np.ndarray:
    """The mask, bool (H, W), in bytes, uint8 (N,); `place` is for the message.

    Raises:
        FormatError: the bytes are of a picture of another size, or damaged.
    """
    height, width = shape
    needed = height * width * CHANNELS
    head = int.from_bytes(data[:4].tobytes(), "big") if len(data) * 8 > HEADER_BITS else -1
    if head != needed:
        holds = "are cut short" if head < 0 else f"hold {head} values"
        raise FormatError(
            f"{place}: the run lengths {holds}, a picture of {height} x {width} has {needed}; export the annotations again"
        )
    mask = np.zeros(height * width, dtype=np.bool_)
    end = _unpack(np.ascontiguousarray(data), mask)
    if end < 0:
        what = "end before the picture does" if end == TOO_SHORT else "reach beyond the picture"
        raise FormatError(f"{place}: the run lengths {what}; export the annotations again")
    return mask.reshape(shape)


def _bytes_needed(runs: np.ndarray) -> int:
    full, rest = np.divmod(runs - 1, LONGEST)
    width = np.array(LENGTH_BITS)[np.searchsorted(1 << np.array(LENGTH_BITS), rest + 1)]
    bits = HEADER_BITS + int((full * (RUN_HEAD + 16 + VALUE_BITS) + RUN_HEAD + width + VALUE_BITS)[runs > 0].sum())
    return bits // 8 + 1  # Label Studio adds a byte of zeros where the bits end with a byte


@njit(cache=True, nogil=True)
def _put(data: np.ndarray, at: int, value: int, width: int) -> int:
    """Write a number of so many bits at a bit position, and return the next position."""
    for bit in range(width - 1, -1, -1):
        if (value >> bit) & 1:
            data[at >> 3] |= np.uint8(128 >> (at & 7))
        at += 1
    return at


@njit(cache=True, nogil=True)
def _pack(data: np.ndarray, starts: np.ndarray, first: bool) -> None:
    """Write header and runs; run i reaches from starts[i] to starts[i + 1], the first holds 255 or 0, and so on in turn."""
    at = _put(data, 0, starts[-1], 32)
    at = _put(data, at, VALUE_BITS - 1, 5)
    for width in LENGTH_BITS:
        at = _put(data, at, width - 1, 4)
    is_on = first
    for index in range(len(starts) - 1):
        left = starts[index + 1] - starts[index]
        while left > 0:
            length = min(left, LONGEST)
            which = 0
            while length > (1 << LENGTH_BITS[which]):
                which += 1
            at = _put(data, at, 4 + which, RUN_HEAD)  # 4: the bit that says run
            at = _put(data, at, length - 1, LENGTH_BITS[which])
            at = _put(data, at, 255 if is_on else 0, VALUE_BITS)
            left -= length
        is_on = not is_on


@njit(cache=True, nogil=True)
def _get(data: np.ndarray, at: int, width: int) -> int:
    """The number of so many bits at a bit position, -1 where the data end before."""
    if at + width > len(data) * 8:
        return -1
    value = 0
    for position in range(at, at + width):
        value = (value << 1) | ((data[position >> 3] >> (7 - (position & 7))) & 1)
    return value


@njit(cache=True, nogil=True)
def _unpack(data: np.ndarray, mask: np.ndarray) -> int:
    """Fill a mask (H*W,); return 0, TOO_SHORT or TOO_LONG."""
    value_bits = _get(data, 32, 5) + 1
    widths = np.zeros(4, np.int64)
    for which in range(4):
        widths[which] = _get(data, 37 + 4 * which, 4) + 1  # 37: after the number of values and the bits of a value
    at, done, total = HEADER_BITS, 0, len(mask) * CHANNELS
    while done < total:
        head = _get(data, at, RUN_HEAD)
        if head < 0:
            return TOO_SHORT
        width = widths[head & 3]
        length = _get(data, at + RUN_HEAD, width) + 1
        if length == 0:
            return TOO_SHORT
        at += RUN_HEAD + width
        end = done + length
        if end > total:
            return TOO_LONG
        if head & 4:  # a run
            value = _get(data, at, value_bits)
            at += value_bits
            if value < 0:
                return TOO_SHORT
            if value > 0:
                for pixel in range((done + CHANNELS - 1 - ALPHA) // CHANNELS, (end + CHANNELS - 1 - ALPHA) // CHANNELS):
                    mask[pixel] = True
        else:
            for position in range(done, end):
                value = _get(data, at, value_bits)
                at += value_bits
                if value < 0:
                    return TOO_SHORT
                if position % CHANNELS == ALPHA and value > 0:
                    mask[position // CHANNELS] = True
        done = end
    return 0

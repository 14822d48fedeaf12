"""Values that smoothing put between those of the classes, told from classes by where they lie. Axes: (H, W), V values.

Who resizes or blurs a mask, or saves it as JPEG, leaves the values of the classes inside their regions and adds others along
the borders. Those cover no area anywhere, and most of their pixels lie beside a lower value and a higher one. Classes differ
from them: most cover an area, and one that is drawn thin lies inside one region, or is higher or lower than both sides of it.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

COVERS = 0.25  # of the pixels of a class lie inside an area of it; of what smoothing made, hardly any
STRAY = 0.05  # of the pixels that are no class: noise makes small areas, thin classes and small objects more than that
BETWEEN = (
    0.4  # of the pixels that are no class; at least 0.5 where smoothing made them, at most 0.2 where they are thin classes
)
APART = 8  # of 255: classes that were painted as grey levels are farther apart, class numbers are not
THROWN = 64  # of 255: as far as JPEG throws values beyond the lowest and the highest class
BAND = 32  # of 255: numbers that are all farther apart are grey levels that somebody chose to be seen
LIKE = 32  # levels of a channel that count as one in such files: JPEG throws values by less inside regions
MAX_TABLE = 65_535
MANY, FEW = 16, 4  # values between classes that are not black and white: fewer may be thin classes; FEW, where ...
ONLY = 0.8  # ... this share of their pixels is between, and the classes lie BAND apart


@dataclass(frozen=True, eq=False)
class ValueTally:
    """Over masks, for each value int64 (V,), sorted: its pixels, those inside an area of it, those between lower and higher.

    Pixels inside an area have eight neighbours of the same value, pixels between have a lower and a higher one.
    """

    values: np.ndarray
    counts: np.ndarray
    inside: np.ndarray
    between: np.ndarray

    def __add__(self, other: "ValueTally") -> "ValueTally":
        values, place = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        sums = np.zeros((3, len(values)), np.int64)
        for row, (mine, others) in zip(sums, zip(self._rows, other._rows, strict=True), strict=True):
            np.add.at(row, place, np.concatenate([mine, others]))
        return ValueTally(values, *sums)

    def without(self, value: int) -> "ValueTally":
        """The same of all other values."""
        kept = self.values != value
        return ValueTally(self.values[kept], *(row[kept] for row in self._rows))

    @property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.counts, self.inside, self.between

    @property
    def covers(self) -> np.ndarray:
        """Whether each value covers an area, bool (V,)."""
        return self.inside > COVERS * self.counts


NO_VALUES = ValueTally(*np.zeros((4, 0), np.int64))


def count_values(mask: np.ndarray) -> ValueTally:
    """What is known of each value in an integer mask (H, W), or in the slices of one (D, H, W)."""
    if 0 <= mask.min(initial=0) <= mask.max(initial=0) <= MAX_TABLE:  # far faster than sorting all pixels
        values = np.flatnonzero(np.bincount(mask.ravel()))
        index_of = np.zeros(MAX_TABLE + 1, np.int32)
        index_of[values] = np.arange(len(values))
        place = index_of[mask]
    else:
        values, place = np.unique(mask, return_inverse=True)
    sums = np.zeros((3, len(values)), np.int64)
    _count(place.reshape(-1, *mask.shape[-2:]), sums)
    return ValueTally(values.astype(np.int64), *sums)


def without_noise(picture: np.ndarray) -> np.ndarray:
    """Each pixel of a file that keeps no exact values, uint8 (C, H, W), as the most frequent one of its like, packed (H, W).

    The channels are packed into one number, the first highest, so that the greys of a single channel stay.
    """
    packed = _packed(picture)
    like = _packed((picture.astype(np.int64) + LIKE // 2) // LIKE)
    values, place, counts = np.unique(packed, return_inverse=True, return_counts=True)
    of_value = np.zeros(len(values), np.int64)
    of_value[place.reshape(-1)] = like.reshape(-1)
    _, kind = np.unique(of_value, return_inverse=True)
    usual = np.zeros(len(values), np.int64)
    ascending = np.argsort(counts, kind="stable")
    usual[kind[ascending]] = values[ascending]  # the last one written is the most frequent
    return usual[kind][place].reshape(packed.shape)


def _packed(picture: np.ndarray) -> np.ndarray:
    packed = np.zeros(picture.shape[1:], np.int64)
    for channel in picture:
        packed = packed * 256 + channel
    return packed


def classes_among(found: ValueTally, *, are_lossy: bool = False) -> list[int] | None:
    """The values of the classes where all others are what smoothing put between; None where values are numbers of classes.

    `are_lossy`: they come from files that keep no exact values, so that all but areas is noise.
    """
    step = 257 if found.values[-1:].sum() > 255 else 1  # 16 bits
    classes = found.values[found.covers]
    if are_lossy:
        classes = _strongest(found, APART * step)
    if len(classes) < 2 or np.diff(classes).min() < APART * step:
        return None
    nearness = APART * step if are_lossy else 1
    rest = np.abs(found.values[:, None] - classes).min(axis=1) >= nearness
    if not rest.any():
        return classes.tolist() if are_lossy else None
    low, high = classes[0] - THROWN * step, classes[-1] + THROWN * step
    pixels, between = found.counts[rest].sum(), found.between[rest].sum()
    is_made = (
        2 * pixels <= found.counts.sum()
        and found.inside[rest].sum() <= STRAY * pixels
        and low <= found.values[rest].min() <= found.values[rest].max() <= high
    )
    are_black_and_white = classes.tolist() == [0, 255 * step]
    are_far = np.diff(classes).min() >= BAND * step and between >= ONLY * pixels
    is_evident = between >= BETWEEN * pixels and (are_black_and_white or rest.sum() >= (FEW if are_far else MANY))
    return classes.tolist() if is_made and (are_lossy or is_evident) else None


def _strongest(found: ValueTally, apart: int) -> np.ndarray:
    """The values that cover areas, sorted, but those that lie nearer than `apart` to one of more pixels: noise around it."""
    kept: list[int] = []
    for place in np.argsort(-found.counts, kind="stable"):
        value = int(found.values[place])
        if found.covers[place] and all(abs(value - other) >= apart for other in kept):
            kept.append(value)
    return np.array(sorted(kept), np.int64)


@njit(cache=True, nogil=True)
def _count(planes: np.ndarray, sums: np.ndarray) -> None:
    """Add the pixels of planes of places (P, H, W) to counts, insides and betweens (3, V)."""
    count, height, width = planes.shape
    for p in range(count):
        plane = planes[p]
        for row in range(height):
            for column in range(width):
                own = plane[row, column]
                lower = higher = False
                for y in range(max(row - 1, 0), min(row + 2, height)):
                    for x in range(max(column - 1, 0), min(column + 2, width)):
                        lower |= plane[y, x] < own
                        higher |= plane[y, x] > own
                sums[0, own] += 1
                sums[1, own] += not lower and not higher
                sums[2, own] += lower and higher

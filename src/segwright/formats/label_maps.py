"""Class and object number of each pixel, to a Segmentation and back: what all formats of label images have in common.

Where classes are regions (see `Classes`), the maps that are read hold the numbers of the files in place of classes.

Axes: P planes, N segments, K classes, *S spatial axes.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from segwright.codecs.image_writer import MAX_8_BIT_CLASSES
from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.classes import MAX_CLASSES
from segwright.core.errors import FormatError, OutputError
from segwright.formats.resume_journal import truth_of

NOTHING = VOID - 1  # in the class maps here: a pixel of no segment, where void is one that nobody knows
MAX_SETS = 1 << 16  # of regions that a pixel may lie in, for each of which the number is looked up; of more, the last decides
TABLE = 1 << 24  # pairs of class and number that are counted in a table of 16 MB; more are sorted, which is slower


def to_segmentation(class_map: np.ndarray, numbers: np.ndarray | None, classes: Classes) -> Segmentation:
    """One segment for each class and number that occur together in a class map and a map of object numbers, both (*S).

    The class map holds VOID and NOTHING besides classes. The number is the instance id; 0, and no map at all, stand for stuff
    and for regions of objects that nobody told apart. Segments are in the order of class, then number.

    Raises:
        FormatError: there are numbers of objects, and the classes are regions.
    """
    if classes.regions:
        return _to_regions(class_map, numbers, classes)
    given, index = (np.zeros(1, np.int64), 0) if numbers is None else _compact(numbers)
    size = (len(classes) - NOTHING) * len(given)
    pair = np.subtract(class_map, NOTHING, dtype=np.int32 if size <= TABLE else np.int64)  # 0 nothing, 1 void, 2 class 0, ...
    if len(given) > 1:
        pair *= len(given)
        pair += index
    if size <= TABLE:
        is_there = np.zeros(size, dtype=bool)
        is_there[pair] = True
        pairs = np.flatnonzero(is_there)
        segment_of = np.zeros(size, dtype=np.int32)
        segment_of[pairs] = _segments(pairs, len(given))
        planes = segment_of[pair]
    else:
        pairs, inverse = np.unique(pair, return_inverse=True)
        planes = _segments(pairs, len(given))[inverse.reshape(pair.shape)]
    pairs = pairs[pairs // len(given) >= -NOTHING]
    return Segmentation.panoptic(planes, pairs // len(given) + NOTHING, given[pairs % len(given)], classes=classes)


def to_maps(truth: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """Class, VOID or NOTHING of each pixel and its object number or 0, both int32 (*S); a later plane covers an earlier."""
    class_of = np.concatenate([[VOID, NOTHING], truth.class_ids]).astype(np.int32)  # indices: void, nothing, segments
    number_of = np.concatenate([[0, 0], truth.instance_ids]).astype(np.int32)
    return look_up_pixels(truth, class_of), look_up_pixels(truth, number_of)


def look_up_pixels(truth: Segmentation, value_of: np.ndarray) -> np.ndarray:
    """What stands in a table at the place of each pixel's segment, (*S) in the dtype of the table; a later plane covers.

    The table (N + 2,) holds the values of void, of nothing, and of the segments.
    """
    result = np.empty(truth.shape, value_of.dtype)
    _look_up(truth.planes.reshape(len(truth.planes), -1), value_of, result.reshape(-1))
    return result


def region_numbers(truth: Segmentation, regions: Sequence[Sequence[int]], void: int) -> np.ndarray:
    """The number of each pixel in label files, int32 (*S), by the numbers that lie in each class, and `void`; 0 is none.

    It is that which lies in the same classes as the pixel, if there is one, else the first of the last class there: what
    nnU-Net writes, whose regions_class_order these firsts are. A class without numbers writes none.
    """
    value_of = np.array([numbers[0] if numbers else 0 for numbers in regions], np.int32)
    if len(truth.planes) == 1 or 1 << len(regions) > MAX_SETS:
        found = look_up_pixels(truth, np.concatenate([[0, 0], value_of[truth.class_ids]]).astype(np.int32))
    else:
        found = _numbers_of_sets(regions, value_of)[_class_sets(truth)]
    return np.where((truth.planes == VOID).any(axis=0) & (truth.planes <= 0).all(axis=0), np.int32(void), found)


def _class_sets(truth: Segmentation) -> np.ndarray:
    """The classes of each pixel, int64 (*S): bit k is set where it is of class k."""
    bit_of = np.concatenate([[0, 0], np.int64(1) << truth.class_ids.astype(np.int64)])  # of void, nothing, the segments
    return np.bitwise_or.reduce(bit_of[truth.planes + 1], axis=0)


def _numbers_of_sets(regions: Sequence[Sequence[int]], value_of: np.ndarray) -> np.ndarray:
    """The number for each set of classes, int32 (2 ** K,), as `region_numbers` says."""
    found = np.zeros(1 << len(regions), np.int32)
    for k, value in enumerate(value_of):
        found[1 << k : 2 << k] = value if value else found[: 1 << k]
    set_of: dict[int, int] = {}
    for k, numbers in enumerate(regions):
        for number in numbers:
            set_of[number] = set_of.get(number, 0) | 1 << k
    for number, classes in sorted(set_of.items(), reverse=True):
        if set_of.get(int(found[classes])) != classes:  # where several lie in the same classes, the first of the last one stays
            found[classes] = number
    return found


def _to_regions(numbers: np.ndarray, objects: np.ndarray | None, classes: Classes) -> Segmentation:
    """The regions of a map of the numbers that files hold, of NOTHING and VOID."""
    if objects is not None:
        raise FormatError(
            f"the classes {', '.join(classes.names[:10])} are regions, and there are numbers of objects besides, which regions "
            'have not; remove the object maps, or leave out "masks": "regions"'
        )
    is_inside = np.zeros((len(classes), MAX_CLASSES - NOTHING), bool)  # VOID and NOTHING count from the end, and lie in none
    for k, inside in enumerate(classes.regions):
        is_inside[k, list(inside)] = True
    return Segmentation.regions(is_inside[:, numbers], classes).with_void(numbers == VOID)


def fits_mask(truth: Segmentation) -> bool:
    """Whether a map of numbers holds all segments: there is no object, and nothing that overlaps but declared regions."""
    return (len(truth.planes) == 1 or bool(truth.classes.regions)) and not truth.instance_ids.any()


def mask_values(sample: Sample) -> np.ndarray:
    """The class of each pixel of a sample's truth as masks without classes.json hold it; void and nothing are the highest.

    uint8 (*S), or uint16 where there are more than 255 classes. Of regions it is the numbers of the files they were learned
    from, where nothing is 0.

    Raises:
        OutputError: there are objects or segments that may overlap, which such a mask would lose.
    """
    truth = truth_of(sample)
    if not fits_mask(truth):
        what = f"{int((truth.instance_ids > 0).sum())} objects" if truth.instance_ids.any() else "segments that may overlap"
        raise OutputError(f"sample {sample.key!r} has {what}, which one map of classes cannot hold; write it as coco or volume")
    dtype = np.uint8 if numbers_in_use(truth.classes) <= MAX_8_BIT_CLASSES else np.uint16
    if truth.classes.regions:
        return region_numbers(truth, truth.classes.regions, VOID).astype(dtype)  # VOID wraps
    value_of = np.concatenate([[VOID, VOID], truth.class_ids])
    return look_up_pixels(truth, value_of.astype(dtype))


def numbers_in_use(classes: Classes) -> int:
    """How many numbers, from 0 on, maps of these classes may hold beside those of void and nothing."""
    return 1 + max(map(max, classes.regions)) if classes.regions else len(classes)


@njit(cache=True, nogil=True)
def _look_up(planes: np.ndarray, value_of: np.ndarray, result: np.ndarray) -> None:
    """See looked_up; planes (P, pixels), result (pixels,)."""
    for pixel in range(planes.shape[1]):
        segment = planes[0, pixel]
        for plane in range(1, planes.shape[0]):
            if planes[plane, pixel] > 0:
                segment = planes[plane, pixel]
        result[pixel] = value_of[segment + 1]


def _compact(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers that occur, sorted, int64 (M,), and the index of each pixel's number among them."""
    if numbers.max(initial=0) >= TABLE:
        given, index = np.unique(numbers, return_inverse=True)
        return given.astype(np.int64), index.reshape(numbers.shape).astype(np.int32)
    is_there = np.zeros(int(numbers.max(initial=0)) + 1, dtype=bool)
    is_there[numbers] = True
    given = np.flatnonzero(is_there)
    index_of = np.zeros(len(is_there), dtype=np.int32)
    index_of[given] = np.arange(len(given))
    return given, index_of[numbers]


def _segments(pairs: np.ndarray, count: int) -> np.ndarray:
    """What stands in the planes for each sorted pair, int32: 0, VOID, or the number of the segment, from 1."""
    raised = pairs // count
    others = int((raised < -NOTHING).sum())
    result = np.arange(1 - others, len(pairs) - others + 1, dtype=np.int32)
    result[:others] = np.where(raised[:others] == 0, 0, VOID)
    return result

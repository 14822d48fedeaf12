"""Class and object number of each pixel, to a Segmentation and back: what all formats of label images have in common.

Axes: P planes, N segments, K classes, *S spatial axes.
"""

import numpy as np
from numba import njit

from segwright.codecs.image_writer import MAX_8_BIT_CLASSES
from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.formats.resume_journal import truth_of

NOTHING = VOID - 1  # in the class maps here: a pixel of no segment, where void is one that nobody knows
TABLE = 1 << 24  # pairs of class and number that are counted in a table of 16 MB; more are sorted, which is slower


def to_segmentation(class_map: np.ndarray, numbers: np.ndarray | None, classes: Classes) -> Segmentation:
    """One segment for each class and number that occur together in a class map and a map of object numbers, both (*S).

    The class map holds VOID and NOTHING besides classes. The number is the instance id; 0, and no map at all, stand for stuff
    and for regions of objects that nobody told apart. Segments are in the order of class, then number.
    """
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


def fits_mask(truth: Segmentation) -> bool:
    """Whether a map of classes holds all segments: there is no object, and nothing that may overlap."""
    return len(truth.planes) == 1 and not truth.instance_ids.any()


def mask_values(sample: Sample) -> np.ndarray:
    """The class of each pixel of a sample's truth as masks without classes.json hold it; void and nothing are the highest.

    uint8 (*S), or uint16 where there are more than 255 classes.

    Raises:
        OutputError: there are objects or segments that may overlap, which such a mask would lose.
    """
    truth = truth_of(sample)
    if not fits_mask(truth):
        what = f"{int((truth.instance_ids > 0).sum())} objects" if truth.instance_ids.any() else "segments that may overlap"
        raise OutputError(f"sample {sample.key!r} has {what}, which one map of classes cannot hold; write it as coco or volume")
    value_of = np.concatenate([[VOID, VOID], truth.class_ids])
    return look_up_pixels(
        truth, value_of.astype(np.uint8 if len(truth.classes) <= MAX_8_BIT_CLASSES else np.uint16)
    )  # VOID wraps


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

"""How well whole segments are found: PQ = SQ x RQ. Axes: K classes, N predicted, G true segments, M pairs, *S spatial axes.

Source: Kirillov et al. 2019, "Panoptic Segmentation", doi 10.1109/CVPR.2019.00963; counts are equal to those of the authors'
panopticapi, except that all crowds of a class in an image count where it looks at the last of them only.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from segwright.core import VOID, Classes, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import UsageError
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.overlaps import Overlaps, check_pair, overlaps

MATCH_IOU = 0.5  # above it, a segment of disjoint ones has one match at most, so that nothing needs to be assigned
NUMBER_BITS = 32  # of an identity: the class lies above, the instance id (31 bits) below
UNNUMBERED = 2**31  # added to the index of a predicted object without an instance id: no other segment has that number
GROUPS = ("", " things", " stuff")


@dataclass(frozen=True)
class PanopticQuality:
    """Panoptic quality from the summed IoU of matches, the matches, and what was found or missed in vain, `Sums` (K, 4)."""

    classes: Classes
    SCORES: ClassVar[tuple[str, ...]] = tuple(f"{title}{group}" for group in GROUPS for title in ("PQ", "SQ", "RQ"))
    convention: ClassVar[str] = (
        "Segments of the same class match where their IoU is above 0.5; pixels void in the truth are taken out of the union, "
        "and a predicted segment with more than half of its pixels in void or in crowds of its class is no false positive. "
        "Crowds need not be found. The stuff of one class in an image is one segment. Matches are added up over images, scores "
        "are means over the classes that occur (as panopticapi does; the SQ of a class without a match is 0), but one called "
        "background."
    )

    def count(self, prediction: Segmentation, truth: Segmentation) -> Sums:
        """Summed IoU of matches, matches, false positives and misses of each class of one image, (K, 4).

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: segments of one of them overlap, or it holds a class that this metric does not know.
        """
        check_pair(prediction, truth, self.classes)
        check_disjoint(prediction, truth)
        found = found_segments(prediction, truth, self.classes)
        return Sums(quality_sums(found, len(self.classes)))

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name: means over all classes, things and stuff, then `PQ`, `SQ` and `RQ` of each class."""
        per_class = qualities(state.values)
        is_thing, is_counted = np.array(self.classes.is_thing), np.ones(len(self.classes), bool)
        if (background := background_of(self.classes)) is not None:
            is_counted[background] = False
        scores: dict[str, np.ndarray] = {}
        for group, members in zip(GROUPS, (is_counted, is_thing & is_counted, ~is_thing & is_counted), strict=True):
            scores |= {f"{title}{group}": mean(values[..., members]) for title, values in per_class.items()}
        for title, values in per_class.items():
            scores |= {f"{title}/{name}": values[..., k] for k, name in enumerate(self.classes.names)}
        return scores


def qualities(sums: np.ndarray) -> dict[str, np.ndarray]:
    """PQ, SQ and RQ (...) from sums (..., 4) of IoU, matches, false positives and misses; NaN where nothing was there."""
    iou, matched, false, missed = np.moveaxis(sums, -1, 0)
    size = matched + 0.5 * false + 0.5 * missed
    is_void = size == 0
    return {
        "PQ": ratio(iou, size),
        "SQ": np.where(is_void, np.nan, np.nan_to_num(ratio(iou, matched))),
        "RQ": ratio(matched, size),
    }


@dataclass(frozen=True, eq=False)
class FoundSegments:
    """What segments share, and what they are: `shared` of N predicted and G true segments, each with at least one pixel.

    `predicted_ids` int64 (N,) and `true_ids` int64 (G,) are identities, `is_crowd` bool (G,) marks crowds.
    """

    shared: Overlaps
    predicted_ids: np.ndarray
    true_ids: np.ndarray
    is_crowd: np.ndarray

    @property
    def predicted_classes(self) -> np.ndarray:
        """Class of each predicted segment, int64 (N,)."""
        return self.predicted_ids >> NUMBER_BITS

    @property
    def true_classes(self) -> np.ndarray:
        """Class of each true segment, int64 (G,)."""
        return self.true_ids >> NUMBER_BITS

    def same_class(self) -> np.ndarray:
        """Whether the segments of a pair are of one class, bool (M,)."""
        return self.predicted_classes[self.shared.predicted] == self.true_classes[self.shared.true]

    def iou(self) -> np.ndarray:
        """Intersection over union of each pair, pixels void in the truth left out of the union, float64 (M,)."""
        predicted, true, pixels = self.shared.predicted, self.shared.true, self.shared.pixels
        known = self.shared.predicted_areas - self.shared.predicted_void
        return pixels / (known[predicted] + self.shared.true_areas[true] - pixels)

    def is_excused(self) -> np.ndarray:
        """Whether more than half of a predicted segment lies in void or in crowds of its class, bool (N,)."""
        shared = self.shared
        in_crowd = self.same_class() & self.is_crowd[shared.true]
        crowd = np.bincount(shared.predicted[in_crowd], shared.pixels[in_crowd], len(self.predicted_ids))
        return 2 * (shared.predicted_void + crowd) > shared.predicted_areas


def quality_sums(found: FoundSegments, num_classes: int) -> np.ndarray:
    """Summed IoU of matches, matches, false positives and misses of each class, float64 (K, 4)."""
    shared, iou = found.shared, found.iou()
    is_match = (iou > MATCH_IOU) & found.same_class() & ~found.is_crowd[shared.true]
    is_found, is_missed = np.zeros(len(found.predicted_ids), bool), ~found.is_crowd
    is_found[shared.predicted[is_match]] = True
    is_missed[shared.true[is_match]] = False
    match_classes = found.true_classes[shared.true[is_match]]
    false_classes = found.predicted_classes[~is_found & ~found.is_excused()]
    columns = (
        np.bincount(match_classes, iou[is_match], num_classes),
        np.bincount(match_classes, minlength=num_classes),
        np.bincount(false_classes, minlength=num_classes),
        np.bincount(found.true_classes[is_missed], minlength=num_classes),
    )
    return np.stack(columns, axis=-1).astype(np.float64)


def found_segments(prediction: Segmentation, truth: Segmentation, classes: Classes) -> FoundSegments:
    """What the segments of two segmentations share, those of one identity taken together.

    Raises:
        ShapeError: they differ in size.
    """
    predicted_ids, true_ids = identities(prediction), identities(truth)
    loose = np.array(classes.is_thing)[prediction.class_ids] & (prediction.instance_ids == 0)
    predicted_ids = predicted_ids + np.where(loose, UNNUMBERED + np.arange(len(prediction)), 0)
    return by_identity(overlaps(prediction, truth), predicted_ids, true_ids, classes)


def identities(segmentation: Segmentation) -> np.ndarray:
    """A number for each segment, int64 (N,), the same for the same object and for the same stuff: class and instance id."""
    return (segmentation.class_ids.astype(np.int64) << NUMBER_BITS) + segmentation.instance_ids


def by_identity(shared: Overlaps, predicted_ids: np.ndarray, true_ids: np.ndarray, classes: Classes) -> FoundSegments:
    """What segments share, those of one identity added up and those without a pixel left out.

    `predicted_ids` and `true_ids` are the identities of the segments of `shared`.
    """
    predicted_ids, predicted_place = _places(predicted_ids, shared.predicted_areas)
    true_ids, true_place = _places(true_ids, shared.true_areas)
    pair = predicted_place[shared.predicted] * max(len(true_ids), 1) + true_place[shared.true]
    pairs, pixels = _added(pair, shared.pixels)
    grouped = replace(
        shared,
        predicted=pairs // max(len(true_ids), 1),
        true=pairs % max(len(true_ids), 1),
        pixels=pixels,
        predicted_areas=_totals(predicted_place, shared.predicted_areas, len(predicted_ids)),
        true_areas=_totals(true_place, shared.true_areas, len(true_ids)),
        predicted_void=_totals(predicted_place, shared.predicted_void, len(predicted_ids)),
    )
    is_crowd = np.array(classes.is_thing)[true_ids >> NUMBER_BITS] & (true_ids % 2**NUMBER_BITS == 0)
    return FoundSegments(grouped, predicted_ids, true_ids, is_crowd)


def _places(ids: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted identities that have a pixel, and the place of each segment among them; of one without pixels, any."""
    known = np.unique(ids[areas > 0])
    return known, np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))


def _totals(place: np.ndarray, numbers: np.ndarray, count: int) -> np.ndarray:
    """Whole numbers (N,) added up at their places, int64 (count,)."""
    return np.bincount(place, numbers, count)[:count].astype(np.int64)


def _added(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different keys in rising order, and the sum of the whole numbers of each."""
    known, place = np.unique(keys, return_inverse=True)
    return known, _totals(place, numbers, len(known))


def disjoint(segmentation: Segmentation) -> Segmentation:
    """The same segments in one plane: a pixel of several belongs to the best scored, among equals to the last plane.

    Void stays void. Segments that are covered wholly keep no pixel.
    """
    score_of = np.concatenate([[-np.inf], segmentation.scores])
    result = segmentation.planes[0].copy()
    best = score_of[np.maximum(result, 0)]
    for plane in segmentation.planes[1:]:
        score = score_of[np.maximum(plane, 0)]
        is_better = (plane > 0) & (score >= best) & (result >= 0)
        result[is_better], best[is_better] = plane[is_better], score[is_better]
    return replace(segmentation, planes=result[None])


class OverlapError(UsageError):
    """Segments overlap where each pixel must have one."""


def check_disjoint(prediction: Segmentation, truth: Segmentation) -> None:
    """Refuse segments that overlap each other, or void.

    Raises:
        OverlapError: they do.
    """
    for name, given in (("prediction", prediction), ("truth", truth)):
        if len(given.planes) > 1:
            claims = (given.planes > 0).sum(axis=0) + (given.planes[0] == VOID)
            count = int(np.count_nonzero(claims > 1))
            if count:
                raise OverlapError(
                    f"segments of the {name} overlap at {count} pixels, panoptic scores need one segment at each pixel; ask "
                    "for other scores, such as AP, or give each pixel to its best scored segment: in Python with "
                    "segwright.metrics.panoptic_quality.disjoint"
                )

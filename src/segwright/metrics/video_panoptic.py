"""How well all segments are found and followed through videos: STQ and VPQ. Axes: K classes, W windows, M pairs of segments.

Source: Weber et al. 2021, "STEP: Segmenting and Tracking Every Pixel", arXiv 2102.11859 (STQ); Kim et al. 2020, "Video Panoptic
Segmentation", doi 10.1109/CVPR42600.2020.00988 (VPQ).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from segwright.core import Classes, Segmentation
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.overlaps import Overlaps, check_pair, overlaps
from segwright.metrics.panoptic_quality import (
    GROUPS,
    NUMBER_BITS,
    FoundSegments,
    by_identity,
    check_disjoint,
    identities,
    qualities,
    quality_sums,
)

WINDOWS = (1, 2, 3, 4)  # annotated frames; the paper's k of 0, 5, 10 and 15, as every fifth frame is annotated there
KEPT = 64  # frames whose tables are kept apart before they are added up: enough that adding costs nothing
TRACKED, TUBES, CORRECT, ACTUAL, PREDICTED, QUALITY = range(6)  # columns of a state


@dataclass(frozen=True)
class VideoPanoptic:
    """STQ and VPQ from `Sums` (K, 5 + 4 W).

    The sums hold the association of true tubes and their number, correct, true and predicted pixels, and for each window what
    panoptic quality counts. With `void_counts`, predicted pixels where the truth is void make a tube longer, as they do in
    deeplab2.
    """

    classes: Classes
    void_counts: bool = field(default=False, kw_only=True)
    COUNTS_VIDEOS: ClassVar[bool] = True
    SCORES: ClassVar[tuple[str, ...]] = (
        *("STQ", "AQ", "SQ of STQ"),
        *(f"VPQ{group}" for group in GROUPS),
        *(f"VPQ@{window}" for window in WINDOWS),
    )

    @property
    def convention(self) -> str:
        """What is counted of STQ and VPQ, and what is left out."""
        void = "make a tube longer (as in deeplab2)" if self.void_counts else "are left out (deeplab2 counts them in AQ)"
        return (
            "STQ is the root of AQ and SQ. AQ: how well the pixels of each true object in a video keep one predicted number "
            "and class, whatever class, mean over the objects of all videos; SQ: mean IoU of classes, pixels of all videos "
            f"added up, a pixel given no class being wrong. Predicted pixels where the truth is void {void}; crowds count in "
            "SQ only. VPQ: panoptic quality of each run of 1, 2, 3 and 4 frames (each starting one frame later, a run taken "
            "as one image), added up over videos, mean over classes, then over the four lengths. A class or length that does "
            "not occur is left out of means."
        )

    def count(self, frames: Iterable[tuple[Segmentation, Segmentation]]) -> Sums:
        """What is added up of one video, (K, 5 + 4 W), from prediction and truth of each frame in order.

        Raises:
            ShapeError: prediction and truth of a frame differ in size.
            UsageError: segments of one of them overlap, or it holds a class that this metric does not know.
        """
        latest: deque[FoundSegments] = deque(maxlen=max(WINDOWS))
        kept: list[FoundSegments] = []
        table = np.zeros((len(self.classes), QUALITY + 4 * len(WINDOWS)))
        of_windows = table[:, QUALITY:].reshape(len(self.classes), len(WINDOWS), 4)
        for prediction, truth in frames:
            check_pair(prediction, truth, self.classes)
            check_disjoint(prediction, truth)
            shared = overlaps(prediction, truth)
            found = by_identity(shared, identities(prediction), identities(truth), self.classes)
            latest.append(found)
            kept.append(found)
            if len(kept) == KEPT:
                kept = [_joined(kept, self.classes)]
            for place, window in enumerate(WINDOWS):
                if len(latest) >= window:
                    run = _joined(list(latest)[-window:], self.classes)
                    of_windows[:, place] += quality_sums(run, len(self.classes))
        if kept:
            whole = _joined(kept, self.classes)
            table[:, TRACKED], table[:, TUBES] = self.association(whole)
            table[:, CORRECT], table[:, ACTUAL], table[:, PREDICTED] = _class_pixels(whole, len(self.classes))
        return Sums(table)

    def association(self, video: FoundSegments) -> tuple[np.ndarray, np.ndarray]:
        """The association of the true objects of a video, summed by class (K,), and their number (K,).

        That of an object is the mean over its pixels of the IoU of the two tubes there, 0 where nothing was predicted.
        """
        shared, is_thing = video.shared, np.array(self.classes.is_thing)
        is_object = video.true_ids % 2**NUMBER_BITS != 0
        is_tube = is_thing[video.predicted_classes] | (video.predicted_ids % 2**NUMBER_BITS != 0)
        in_crowd = video.is_crowd[shared.true]
        left_out = np.bincount(shared.predicted[in_crowd], shared.pixels[in_crowd], len(is_tube))
        lengths = shared.predicted_areas - left_out - (0 if self.void_counts else shared.predicted_void)
        is_pair = is_object[shared.true] & is_tube[shared.predicted]
        predicted, true, pixels = shared.predicted[is_pair], shared.true[is_pair], shared.pixels[is_pair]
        iou = pixels / (lengths[predicted] + shared.true_areas[true] - pixels)
        num_classes = len(self.classes)
        summed = np.bincount(video.true_classes[true], pixels * iou / shared.true_areas[true], num_classes)
        return summed, np.bincount(video.true_classes[is_object], minlength=num_classes)

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name, then `AQ`, `SQ of STQ` and `VPQ` of each class."""
        values = state.values
        correct, actual, predicted = np.moveaxis(values[..., CORRECT : PREDICTED + 1], -1, 0)
        iou = ratio(correct, actual + predicted - correct)
        of_windows = values[..., QUALITY:].reshape(*values.shape[:-1], len(WINDOWS), 4)
        quality = np.moveaxis(qualities(of_windows)["PQ"], -1, 0)  # (W, ..., K)
        tracked, tubes = values[..., TRACKED].sum(axis=-1), values[..., TUBES].sum(axis=-1)
        scores = {"AQ": ratio(tracked, tubes), "SQ of STQ": mean(iou)}
        scores = {"STQ": np.sqrt(scores["AQ"] * scores["SQ of STQ"]), **scores}
        is_thing = np.array(self.classes.is_thing)
        for group, members in zip(GROUPS, (np.ones_like(is_thing), is_thing, ~is_thing), strict=True):
            scores[f"VPQ{group}"] = mean(np.moveaxis(mean(quality[..., members]), 0, -1))
        scores |= {f"VPQ@{window}": mean(each) for window, each in zip(WINDOWS, quality, strict=True)}
        of_classes = {
            "AQ": ratio(values[..., TRACKED], values[..., TUBES]),
            "SQ of STQ": iou,
            "VPQ": mean(np.moveaxis(quality, 0, -1)),
        }
        for title, each in of_classes.items():
            scores |= {f"{title}/{name}": each[..., k] for k, name in enumerate(self.classes.names)}
        return scores


def _joined(parts: Sequence[FoundSegments], classes: Classes) -> FoundSegments:
    """What the segments of several frames share, those of one identity taken together as a tube."""
    if len(parts) == 1:
        return parts[0]
    predicted_starts = np.cumsum([0, *(len(part.predicted_ids) for part in parts[:-1])])
    true_starts = np.cumsum([0, *(len(part.true_ids) for part in parts[:-1])])
    shared = Overlaps(
        np.concatenate([part.shared.predicted + start for part, start in zip(parts, predicted_starts, strict=True)]),
        np.concatenate([part.shared.true + start for part, start in zip(parts, true_starts, strict=True)]),
        np.concatenate([part.shared.pixels for part in parts]),
        np.concatenate([part.shared.predicted_areas for part in parts]),
        np.concatenate([part.shared.true_areas for part in parts]),
        np.concatenate([part.shared.predicted_void for part in parts]),
    )
    predicted_ids, true_ids = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("predicted_ids", "true_ids")
    )
    return by_identity(shared, predicted_ids, true_ids, classes)


def _class_pixels(found: FoundSegments, num_classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correct, true and predicted pixels of each class (K,) where the truth has a segment."""
    shared, same = found.shared, found.same_class()
    return (
        np.bincount(found.true_classes[shared.true[same]], shared.pixels[same], num_classes),
        np.bincount(found.true_classes, shared.true_areas, num_classes),
        np.bincount(found.predicted_classes[shared.predicted], shared.pixels, num_classes),
    )

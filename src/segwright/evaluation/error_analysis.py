"""Where a model errs, gathered image by image: near borders or inside, by cause, by class, and perhaps in the labels.

Axes: K classes, C channels, *S spatial axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from segwright.core import Classes, Segmentation
from segwright.evaluation.borders import border_distance, border_errors, labels_of_both
from segwright.evaluation.label_errors import LabelError, label_errors, shortlist, strongest
from segwright.evaluation.tide_errors import MATCHED, ObjectOutcomes, match_outcomes
from segwright.metrics.accumulators import Sums
from segwright.metrics.overlaps import overlaps
from segwright.metrics.panoptic_quality import PanopticQuality, disjoint

UNSURE = 0.25  # share of the right predictions: one with a lower score than those contradicts no label


@dataclass(frozen=True, eq=False)
class Atlas:
    """The errors of some images. Two are added, in any order; a table of scores and a few cut-outs are all that it keeps.

    `borders` are the sums of borders.py for K labels and nothing, `quality` those of panoptic quality, `objects` the fates of
    objects, `suspects` the labels to look at. `segments` counts all predicted segments, `images` the images.
    """

    classes: Classes
    images: int
    segments: int
    borders: Sums
    quality: Sums
    objects: ObjectOutcomes
    suspects: tuple[LabelError, ...]

    @classmethod
    def of(cls, key: str, prediction: Segmentation, truth: Segmentation, image: np.ndarray | None = None) -> Self:
        """The errors of one image. With the image itself (C, *S), the suspects get pictures; void is left out.

        Raises:
            ShapeError: prediction and truth differ in size.
        """
        guess, actual = labels_of_both(prediction, truth)
        distance = border_distance(actual)
        pairs = overlaps(prediction, truth)
        became = match_outcomes(prediction, truth, pairs)
        return cls(
            classes=truth.classes,
            images=1,
            segments=len(prediction),
            borders=border_errors(guess, actual, distance, len(truth.classes) + 1),
            quality=PanopticQuality(truth.classes).count(_flat(prediction), _flat(truth)),
            objects=ObjectOutcomes.of(became, prediction, truth),
            suspects=label_errors(key, prediction, truth, became, (guess, actual, distance), image),
        )

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """The errors of all parts, one or more, at once; adding them one by one gives the same in more time."""
        return cls(
            classes=parts[0].classes,
            images=sum(part.images for part in parts),
            segments=sum(part.segments for part in parts),
            borders=Sums(np.sum([part.borders.values for part in parts], axis=0)),
            quality=Sums(np.sum([part.quality.values for part in parts], axis=0)),
            objects=ObjectOutcomes.total([part.objects for part in parts]),
            suspects=strongest(one for part in parts for one in part.suspects),
        )

    def __add__(self, other: Self) -> Self:
        return type(self).total([self, other])

    @property
    def has_objects(self) -> bool:
        """Whether objects can be spoken of: the truth has some, and the predictions have some, or no segments at all."""
        return bool(self.objects.true.any()) and bool(len(self.objects.causes) or not self.segments)

    def doubtful(self) -> list[LabelError]:
        """The labels to look at, kinds in turn; predictions against them are no less sure than most of the right ones."""
        sure = self.objects.scores[self.objects.causes == MATCHED]
        return shortlist(self.suspects, float(np.quantile(sure, UNSURE)) if len(sure) else 0.0)


def _flat(segmentation: Segmentation) -> Segmentation:
    """The segmentation in one plane; where segments overlap, the best scored keeps the pixels."""
    return segmentation if len(segmentation.planes) == 1 else disjoint(segmentation)

"""Average precision where not all classes are drawn in all images, as in LVIS. Axes: K classes, R sums."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from segwright.core import Classes
from segwright.metrics.accumulators import mean
from segwright.metrics.average_precision import IOU_THRESHOLDS, AveragePrecision, scored
from segwright.metrics.matching import Matches

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}  # in at most 10, at most 100, and more images for training
LIMIT = 300  # detections of all classes in one image: that of LVIS


@dataclass(frozen=True)
class FederatedAveragePrecision:
    """LVIS's scores, from matches under its rules (see evaluation/coco_results.py), and by how frequent a class is.

    `frequencies` are "r", "c" or "f" for each class.
    """

    classes: Classes
    frequencies: tuple[str, ...] = field(kw_only=True)
    SCORES: ClassVar[tuple[str, ...]] = (
        *AveragePrecision.SCORES[:6],
        *("AP rare", "AP common", "AP frequent", f"AR@{LIMIT}", "AR small", "AR medium", "AR large"),
    )
    convention: ClassVar[str] = (
        f"LVIS's rules: as COCO's, but the {LIMIT} best detections of an image count, of all classes together; those of a "
        "class neither drawn nor said to be absent there are left out, those of a class not drawn wholly are not wrong."
    )

    def score(self, state: Matches) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name, then "AP/name" of each class; NaN where there is no object."""
        scores = scored(state, self.classes, IOU_THRESHOLDS, (LIMIT,))
        per_class = np.stack([scores[f"AP/{name}"] for name in self.classes.names], axis=-1)  # (R, K)
        for letter, name in FREQUENCIES.items():
            scores[f"AP {name}"] = mean(per_class[..., np.array(self.frequencies) == letter])
        return {name: scores[name] for name in self.SCORES} | {name: value for name, value in scores.items() if "/" in name}

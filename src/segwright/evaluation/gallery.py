"""The images that a model finds hardest and easiest, kept while all are measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from segwright.core import Sample, Segmentation

Example = tuple[Sample, Segmentation, Mapping[str, float]]


@dataclass
class Gallery:
    """Keeps the `worst` and the `best` examples by mIoU; call it as `on_image` of `evaluate`. No other is held in memory."""

    worst: int = 4
    best: int = 2
    low: list[Example] = field(default_factory=list)
    high: list[Example] = field(default_factory=list)

    def __call__(self, sample: Sample, prediction: Segmentation, scores: dict[str, float]) -> None:
        """Look at one image; those without a score, as all their pixels are void, are passed over."""
        if isfinite(scores["mIoU"]):
            example = (sample, prediction, scores)
            self.low = sorted([*self.low, example], key=mean_iou)[: self.worst]
            self.high = sorted([*self.high, example], key=mean_iou, reverse=True)[: self.best]

    def examples(self) -> list[Example]:
        """The examples kept, hardest first, each once."""
        low = {example[0].key for example in self.low}
        return self.low + [example for example in reversed(self.high) if example[0].key not in low]


def mean_iou(example: Example) -> float:
    """What examples are ranked by."""
    return example[2]["mIoU"]

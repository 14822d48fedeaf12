"""What a report shows of images, kept while all are measured: those that a model finds hardest and easiest, and the errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, nan

from segwright.core import Sample, Segmentation
from segwright.evaluation.error_analysis import Atlas
from segwright.evaluation.evaluate import Tally
from segwright.evaluation.scores import Scores, is_distance

Example = tuple[Sample, Segmentation, Mapping[str, float]]


@dataclass
class Gallery:
    """Keeps the `worst` and the `best` examples by the first of their scores; call it as `on_image` of `evaluate`.

    No other is held in memory. `atlas` gathers where the errors of all images are.
    """

    worst: int = 4
    best: int = 2
    low: list[Example] = field(default_factory=list)
    high: list[Example] = field(default_factory=list)
    atlas: Atlas | None = None

    def __call__(self, sample: Sample, prediction: Segmentation, scores: Mapping[str, float]) -> None:
        """Look at one image; no example is one without a score, as all its pixels are void."""
        if sample.truth is not None:
            own = Atlas.of(sample.key, prediction, sample.truth, sample.image)
            self.atlas = own if self.atlas is None else self.atlas + own
        if isfinite(goodness(scores)):
            example = (sample, prediction, scores)
            self.low = sorted([*self.low, example], key=rank)[: self.worst]
            self.high = sorted([*self.high, example], key=rank, reverse=True)[: self.best]

    def examples(self) -> list[Example]:
        """The examples kept, hardest first, each once."""
        low = {example[0].key for example in self.low}
        return self.low + [example for example in reversed(self.high) if example[0].key not in low]


def rank(example: Example) -> float:
    """What examples are ranked by."""
    return goodness(example[2])


def goodness(scores: Mapping[str, float]) -> float:
    """The first of the scores of an image, which is the main one, such that more is better; NaN without any."""
    name = next(iter(scores), None)
    if name is None:
        return nan
    return -scores[name] if is_distance(name) else scores[name]


def shown_keys(per_image: Mapping[str, Mapping[str, float]], *, worst: int = 4, best: int = 2) -> list[str]:
    """The keys of the examples that a `Gallery` would keep, from the scores of each image, to be read a second time."""
    known = sorted((goodness(scores), key) for key, scores in per_image.items() if isfinite(goodness(scores)))
    keys = [key for _, key in known]
    return keys[:worst] + keys[max(worst, len(keys) - best) :]


def examples_of(tally: Tally, scores: Scores) -> list[Example]:
    """The examples that a `Gallery` would have kept, read a second time; images without a prediction only if all lack one."""
    pairs = tally.pairs
    if pairs is None:
        return []
    predicted = {key: own for key, own in scores.per_image.items() if key not in pairs.missing}
    again = ((key, pairs.load(key)) for key in shown_keys(predicted or scores.per_image))
    return [(both.sample, both.prediction, scores.per_image[key]) for key, both in again]

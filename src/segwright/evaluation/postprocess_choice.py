"""Which rules about pieces of classes help on validation images, by a test that allows for how many were tried.

Each rule alone is compared with none, on the same images, in the score that matters most. It is kept where the score is higher
and p, which allows for all rules (Holm), is below 0.05: of twenty models without anything to mend, one at most gets a rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segwright.core import Classes, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.decoding.postprocess import Postprocess
from segwright.evaluation.accumulate import Counter, chosen
from segwright.evaluation.pairs import Pair
from segwright.evaluation.significance import differences, holm

MIN_PIXELS = (10, 100, 1000)  # of pieces, that are tried
MOST_CLASSES = 8  # beside the background; with more, each rule would need more images than there are to prove itself
CLAIM = 0.05
RESAMPLES = 2000  # p can then be as small as 1/2001, a fiftieth of what the most rules need
SEED = 0


@dataclass(eq=False)
class PostprocessTrial:
    """Looks at predictions beside their truth, `count` of them, and says which rules raise a score; see the top of the file.

    Call it with each as `on_image` of `evaluate`. Where too few images are to come, it does nothing.
    """

    score: str
    count: int
    rules: Sequence[Postprocess] | None = None
    counter: Counter | None = None
    plain: list[Any] = field(default_factory=list)
    changed: list[list[Any]] = field(default_factory=list)

    def __call__(self, sample: Sample, prediction: Segmentation, scores: Mapping[str, float]) -> None:
        """Count the score of a prediction as it is, and after each rule."""
        if sample.truth is None:
            return
        if self.rules is None:
            self.rules = self._tried(prediction)
            self.changed = [[] for _ in self.rules]
            self.counter = Counter.of(chosen([self.score]), sample.truth.classes) if self.rules else None
        if not self.rules:
            return
        plain = self._state(sample, prediction)
        self.plain.append(plain)
        before = prediction.class_map()
        for rule, states in zip(self.rules, self.changed, strict=True):
            after = rule(prediction)
            is_same = np.array_equal(after.class_map(), before)
            states.append(plain if is_same else self._state(sample, after))

    def choice(self, labels: Sequence[int]) -> tuple[Postprocess, tuple[str, ...]]:
        """The rules that help, as one, and what is to be known of them; `labels` are the same for images of one group."""
        if not self.rules or self.counter is None or len(labels) != len(self.plain):
            return Postprocess(), ()
        (metric,) = self.counter.metrics.values()
        rows = [
            differences(
                metric,
                self.plain,
                states,
                RESAMPLES,
                np.random.default_rng(SEED),
                scores=[self.score],
                groups=labels,
            )[0]
            for states in self.changed
        ]
        adjusted = holm([row.p for row in rows])
        good = [n for n, row in enumerate(rows) if adjusted[n] < CLAIM and row.difference > 0]
        good.sort(key=lambda n: rows[n].difference)  # of several sizes of one class, the best comes last and stays
        whole = Postprocess()
        for n in good:
            whole = _joined(whole, self.rules[n])
        told = tuple(
            f"{_named(self.rules[n], self.counter.classes)} raises {self.score} on these images from {rows[n].first:.4f} to "
            f"{rows[n].second:.4f} (p = {adjusted[n]:.2g}, allowing for the {len(rows)} rules that were tried), and is done in "
            "prediction from now on; the scores here are without it."
            for n in good
        )
        return whole, told

    def _tried(self, prediction: Segmentation) -> list[Postprocess]:
        """The rules to try, none where they could not prove themselves."""
        classes = prediction.classes
        background = background_of(classes)
        if background is None or len(prediction.planes) > 1 or prediction.instance_ids.any():
            return []
        others = [k for k in range(len(classes)) if k != background]
        if len(others) > MOST_CLASSES:
            return []
        rules = [Postprocess(largest=(k,)) for k in others]
        rules += [Postprocess(together=True)] if len(others) > 1 else []
        rules += [Postprocess(filled=(k,)) for k in others]
        rules += [Postprocess(min_pixels=_sizes(len(classes), k, size)) for k in others for size in MIN_PIXELS]
        return rules if 2 * len(rules) < CLAIM * 2.0**self.count else []  # 2 of all swaps of the images do as well as none

    def _state(self, sample: Sample, prediction: Segmentation) -> Any:
        """What the metric counts on one image."""
        if self.counter is None:
            return None
        (state,) = self.counter.image(Pair(sample, prediction)).states.values()
        return state


def _sizes(count: int, k: int, size: int) -> tuple[int, ...]:
    """The least pixels of each of so many classes where one of them has a limit."""
    return tuple(size if number == k else 0 for number in range(count))


def _joined(first: Postprocess, second: Postprocess) -> Postprocess:
    """Both rules at once; of sizes of one class, that of the second."""
    pairs = zip(first.min_pixels or (0,) * len(second.min_pixels), second.min_pixels, strict=False)
    return replace(
        first,
        together=first.together or second.together,
        largest=tuple(sorted({*first.largest, *second.largest})),
        filled=tuple(sorted({*first.filled, *second.filled})),
        min_pixels=tuple(new or old for old, new in pairs) if second.min_pixels else first.min_pixels,
    )


def _named(rule: Postprocess, classes: Classes) -> str:
    """A rule that was tried in words, to begin a sentence."""
    if rule.together:
        return "Keeping the largest piece of all classes together"
    if rule.largest:
        return f"Keeping the largest piece of {classes.names[rule.largest[0]]}"
    if rule.filled:
        return f"Filling the holes of {classes.names[rule.filled[0]]}"
    k = int(np.argmax(rule.min_pixels))
    return f"Removing pieces of {classes.names[k]} below {rule.min_pixels[k]} pixels"

"""How good a promptable network is for somebody who clicks until an object is right; the person is simulated.

Each object of an image is asked for by itself: a click, the answer, a click where that is most wrong, and so on, each with the
answer before as an earlier mask. The clicks on all objects of an image are made at once, so that a network answers them
together. Axes: N objects, H, W.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Protocol

import numpy as np

from segwright.core import Classes, Dataset, Prompt, Sample, Segmentation
from segwright.core.errors import UnknownNameError, UsageError, naming
from segwright.core.lookup import did_you_mean
from segwright.data.clickable_objects import clickable_objects
from segwright.data.simulated_clicks import Click, next_click
from segwright.evaluation.accumulate import Counted, Counter
from segwright.evaluation.ahead import ahead
from segwright.metrics.number_of_clicks import MAX_CLICKS, NumberOfClicks

METRIC = "number_of_clicks"
MOST_OBJECTS = 8  # of an image are clicked, evenly spread from the largest to the smallest: more of one image tell little else
SEED = 0  # of clicks beside the centre: the same objects get the same


class Asked(Protocol):
    """One image, encoded, that answers prompts."""

    def segment(self, *prompts: Prompt) -> Segmentation:
        """The objects that prompts point at, in their order."""


@dataclass(frozen=True, eq=False)
class SimulatedUser:
    """Somebody who opens images with `open` and clicks on objects `clicks` times each: on centres of errors, or about them.

    `opened` and `clicked` gather the seconds that images and clicks took.
    """

    open: Callable[[Sample], Asked]
    clicks: int = MAX_CLICKS
    is_centred: bool = True
    opened: list[float] = field(default_factory=list)
    clicked: list[float] = field(default_factory=list)

    def __call__(self, sample: Sample, truth: Segmentation) -> tuple[list[list[float]], Segmentation]:
        """The IoU after each click on each object of a truth, and the objects as they were after the first.

        A curve ends before the last click where its object has no error left.
        """
        started = time.perf_counter()
        session = self.open(sample)
        self.opened.append(time.perf_counter() - started)
        is_known = np.asarray((truth.planes >= 0).all(axis=0))
        people = [_Person.of(truth, index, is_known, is_centred=self.is_centred) for index in range(len(truth))]
        first, waiting = np.zeros((len(truth), *truth.shape), bool), people
        for number in range(self.clicks):
            asked = [(person, prompt) for person in waiting if (prompt := person.prompt()) is not None]
            if not asked:
                break
            started = time.perf_counter()
            answer = session.segment(*(prompt for _, prompt in asked))
            waiting = [person for person, _ in asked]
            for place, person in enumerate(waiting):
                person.see(answer.mask(place))
            self.clicked.extend([(time.perf_counter() - started) / len(asked)] * len(asked))
            if number == 0:
                first = np.array([person.mask for person in people])
        return [person.curve for person in people], Segmentation.instances(first, truth.class_ids, classes=truth.classes)

    @property
    def note(self) -> str:
        """What the clicks were and took, in a sentence."""
        where = "the centre of the deepest error" if self.is_centred else "a random place about the deepest error"
        if not self.clicked:
            return ""
        return (
            f"Clicks are simulated, at {where}, on {MOST_OBJECTS} objects of an image at most, evenly spread by size and "
            f"answered together; at the median an image took {median(self.opened):.3f} s to open, and a click "
            f"{median(self.clicked):.3f} s."
        )


@dataclass(eq=False)
class _Person:
    """Who wants an object, bool (H, W), sees a `mask` of it, and clicks; errors count where `is_known`."""

    wanted: np.ndarray
    is_known: np.ndarray
    object_id: int
    generator: np.random.Generator | None  # of places about centres; None for the centres
    mask: np.ndarray
    clicks: list[Click] = field(default_factory=list)
    curve: list[float] = field(default_factory=list)  # the IoU after each click

    @classmethod
    def of(cls, truth: Segmentation, index: int, is_known: np.ndarray, *, is_centred: bool) -> "_Person":
        """Who wants an object of a truth, and has seen nothing of it."""
        wanted = truth.mask(index)
        generator = None if is_centred else np.random.default_rng([SEED, index])
        return cls(wanted, is_known | wanted, 1 + index, generator, np.zeros_like(wanted))

    def prompt(self) -> Prompt | None:
        """One click more, with those before and the mask that is seen; None where nothing is wrong."""
        click = next_click(self.mask, self.wanted, self.is_known, self.generator)
        if click is None:
            return None
        self.clicks.append(click)
        points, labels = zip(*self.clicks, strict=True)
        mask = self.mask if self.curve else None
        return Prompt(
            points_xy=np.array(points, np.float32), is_foreground=np.array(labels), mask=mask, object_id=self.object_id
        )

    def see(self, mask: np.ndarray) -> None:
        """Look at the answer."""
        self.mask = mask
        self.curve.append(_iou(mask, self.wanted, self.is_known))


def counter_of_clicks(metrics: Sequence[str], classes: Classes) -> Counter:
    """What counts clicks, for scores by name; for all of them without any, or with the name of the metric.

    Raises:
        UnknownNameError: a name is no score of clicks.
    """
    known = {score.lower(): score for score in NumberOfClicks.SCORES}
    for name in metrics:
        if name != METRIC and name.lower() not in known:
            raise UnknownNameError(
                f"there is no score '{name}' of clicks{did_you_mean(name, [*known.values()])}; known are "
                f"{', '.join(known.values())}, and {METRIC} for all of them"
            )
    wanted = NumberOfClicks.SCORES if METRIC in metrics or not metrics else tuple(known[name.lower()] for name in metrics)
    metrics_by_file: Any = {METRIC: NumberOfClicks()}  # which counts clicks, where others count pairs of segmentations
    return Counter(metrics_by_file, {METRIC: wanted}, classes)


def clicks_for(counter: Counter) -> int:
    """How many clicks the wanted scores need: k for IoU@k, all for the others."""
    wanted = counter.wanted[METRIC]
    return max(int(name.partition("@")[2]) if name.startswith("IoU@") else MAX_CLICKS for name in wanted)


def counted_clicks(user: SimulatedUser, dataset: Dataset, counter: Counter) -> Iterator[tuple[Counted, Sample, Segmentation]]:
    """For each image what was counted, the sample with the objects that were clicked, and what the first click gave.

    Raises:
        UsageError: an image has no truth.
    """
    data, metric = clickable_objects(dataset), NumberOfClicks()
    for sample in ahead(data.load, data.keys):
        if sample.truth is None:
            raise UsageError(f"{dataset.source}: sample {sample.key!r} has no truth to click on; add its mask or leave it out")
        truth = _some_objects(sample.truth)
        with naming(f"sample {sample.key!r}"):
            curves, first = user(replace(sample, truth=None), truth)
        counts = [metric.count(curve) for curve in curves]
        states = {METRIC: sum(counts[1:], counts[0])} if counts else {}
        yield Counted(sample.key, states, counter.summaries(states)), replace(sample, truth=truth), first


def _some_objects(truth: Segmentation) -> Segmentation:
    """The objects of a truth that are clicked on; what belongs to others is nothing."""
    if len(truth) <= MOST_OBJECTS:
        return truth
    order = np.argsort(-truth.areas(), kind="stable")
    chosen = np.sort(order[np.linspace(0, len(truth) - 1, MOST_OBJECTS).round().astype(int)])
    number = np.zeros(len(truth) + 2, np.int32)  # of void, nothing, the objects
    number[0] = -1
    number[chosen + 2] = np.arange(1, 1 + len(chosen))
    class_ids, instance_ids, scores = (part[chosen] for part in (truth.class_ids, truth.instance_ids, truth.scores))
    return Segmentation(number[truth.planes + 1], class_ids, instance_ids, scores, truth.classes)


def _iou(mask: np.ndarray, truth: np.ndarray, is_known: np.ndarray) -> float:
    """The overlap of two masks bool (H, W) where it is known."""
    mask, truth = mask & is_known, truth & is_known
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))

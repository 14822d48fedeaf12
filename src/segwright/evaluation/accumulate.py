"""What several metrics count on images and videos, in this process or in several, one image in memory for each core."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from segwright.core import Classes, Segmentation
from segwright.core.errors import SegwrightError, UnknownNameError, naming
from segwright.core.lookup import class_name, did_you_mean, find, names
from segwright.data.background import Background
from segwright.evaluation.ahead import ahead
from segwright.evaluation.error_analysis import Atlas
from segwright.evaluation.pairs import UNRANKED, UNTOLD, Pair, Pairs
from segwright.formats.drawn_shapes import ABOUT_IMAGE
from segwright.metrics import Metric
from segwright.metrics.confusion import Confusion
from segwright.metrics.conventions import SEGWRIGHT, Convention

DENSE = ("confusion",)  # metrics that need a class at each pixel: around objects, the background
OF_RANKED = ("average_precision", "box_average_precision")
OF_OBJECTS = (*OF_RANKED, "panoptic_quality", "instance_accuracy")
CONCERNS = {UNTOLD: OF_OBJECTS, UNRANKED: OF_RANKED}  # remarks that matter to some metrics alone
NO_SPACING = "Where no pixel size is known, distances are in pixels"
OTHER_INPUT = ("NEEDS_PROBABILITIES", "COUNTS_CLICKS")  # marks of metrics that compare something else with a truth
MOST_CLASSES = 200  # of a confusion matrix; of more, nobody could read it
WORTH = 4.0  # seconds of work left that are worth starting processes, which takes about one
CHUNK = 8  # images that a process counts at a time: enough to make the way between processes short


@dataclass(frozen=True, eq=False)
class Counted:
    """The state of each metric on one image or video, and of an image the summary scores, the confusion matrix, the errors.

    `key` is that of the image; of a video, what the keys of its frames begin with. `remarks` are of (image, what to know).
    """

    key: str
    states: dict[str, Any]
    scores: dict[str, float]
    matrix: np.ndarray | None = None
    atlas: Atlas | None = None
    remarks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Counter:
    """Counts pairs with several metrics, by name, of which some scores are `wanted`.

    Metrics that need a class at each pixel get the background filled in; `classes` are those with it, where there are such.
    `with_atlas` also gathers where the errors are.
    """

    metrics: Mapping[str, Metric]
    wanted: Mapping[str, tuple[str, ...]]
    classes: Classes
    background: Background | None = None
    with_atlas: bool = False

    @classmethod
    def of(
        cls,
        wanted: Mapping[str, tuple[str, ...]],
        classes: Classes,
        *,
        rules: Convention = SEGWRIGHT,
        with_atlas: bool = False,
    ) -> "Counter":
        """The metrics of these files of metrics/, of which these scores are wanted, for data with these classes.

        `rules` are those of the metrics of pixels by class.
        """
        background = Background.of(classes)
        dense = background.classes if background else classes
        metrics: dict[str, Metric] = {
            name: Confusion(dense, rules=rules) if name in DENSE else metric_class(name)(classes) for name in wanted
        }
        return cls(metrics, wanted, classes if metrics.keys().isdisjoint(DENSE) else dense, background, with_atlas)

    def is_wanted(self, name: str, score: str) -> bool:
        """Whether a score of a metric is wanted: by its name, or as that of a class, as "IoU/road" is by "mIoU"."""
        wanted, (title, is_of_class, _) = self.wanted[name], score.partition("/")
        if set(wanted) == set(self.metrics[name].SCORES):
            return True
        return score in wanted or (bool(is_of_class) and (title in wanted or f"m{title}" in wanted))

    def summaries(self, states: Mapping[str, Any]) -> dict[str, float]:
        """The summary scores that are wanted, of the states of one image."""
        scores: dict[str, float] = {}
        for name, state in states.items():
            own = self.metrics[name].score(state)
            scores |= {score: float(own[score]) for score in self.wanted[name]}
        return scores

    def dense(self, pair: Pair) -> tuple[Segmentation, Segmentation]:
        """Prediction and truth with the background filled in, where data have one."""
        if self.background is None:
            return pair.prediction, pair.truth
        return self.background.fill(pair.prediction), self.background.fill(pair.truth)

    def image(self, pair: Pair) -> Counted:
        """What the metrics of images count on one of them."""
        states: dict[str, Any] = {}
        matrix = None
        for name, metric in self.metrics.items():
            if counts_videos(metric):
                continue
            prediction, truth = self.dense(pair) if name in DENSE else (pair.prediction, pair.truth)
            if isinstance(metric, Confusion) and len(metric.classes) <= MOST_CLASSES:
                matrix = metric.matrix(prediction, truth)
            spacing = (pair.sample.grid.spacing_mm,) if getattr(metric, "NEEDS_SPACING", False) else ()
            states[name] = metric.count(prediction, truth, *spacing)
        sample = pair.sample
        atlas = Atlas.of(sample.key, pair.prediction, pair.truth, sample.image) if self.with_atlas else None
        remarks = tuple((sample.key, remark) for remark in self.remarks(pair))
        return Counted(sample.key, states, self.summaries(states), matrix, atlas, remarks)

    def remarks(self, pair: Pair) -> list[str]:
        """What one must know of a pair to understand these metrics."""
        names = self.metrics.keys()
        found = [remark for remark in pair.remarks if not names.isdisjoint(CONCERNS.get(remark, names))]
        left_out = [reason for reason in pair.sample.left_out if reason != ABOUT_IMAGE]
        found += [f"Annotations of the truth are left out, as they are {reason}" for reason in left_out]
        needs_spacing = any(getattr(metric, "NEEDS_SPACING", False) for metric in self.metrics.values())
        return found + [NO_SPACING] * (needs_spacing and pair.sample.grid.spacing_mm is None)

    def video(self, key: str, pairs: Callable[[], Iterable[Pair]]) -> Counted:
        """What the metrics of videos count on one of them, whose frames are read once for each."""
        remarks: dict[tuple[str, str], None] = {}

        def frames() -> Iterator[tuple[Segmentation, Segmentation]]:
            for frame in pairs():
                remarks.update({(frame.sample.key, remark): None for remark in self.remarks(frame)})
                yield frame.prediction, frame.truth

        states = {
            name: metric.count(frames())  # type: ignore[call-arg, arg-type]
            for name, metric in self.metrics.items()
            if counts_videos(metric)
        }
        return Counted(key, states, {}, remarks=tuple(remarks))


def metric_class(name: str) -> Any:
    """The class of the metric in a file of metrics/; None where the file holds none."""
    return getattr(find("segwright.metrics", name), class_name(name), None)


def counts_videos(metric: Any) -> bool:
    """Whether a metric counts whole videos instead of single images."""
    return getattr(metric, "COUNTS_VIDEOS", False)


def offered() -> dict[str, tuple[str, ...]]:
    """The files of metrics/ that compare a prediction with a truth, each with the names of its summary scores."""
    found = {}
    for name in names("segwright.metrics"):
        known = metric_class(name)
        if hasattr(known, "SCORES") and not any(hasattr(known, other) for other in OTHER_INPUT):
            found[name] = tuple(known.SCORES)
    return found


def chosen(wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The metrics behind names such as "mIoU", "PQ" or "boundary" (a whole file), each with the scores that are meant.

    One text may hold several names, separated by commas.

    Raises:
        UnknownNameError: a name is neither a score nor a file; the message offers the nearest.
    """
    if isinstance(wanted, str):
        wanted = [word.strip() for word in wanted.split(",") if word.strip()]
    table = offered()
    homes = {score.lower(): (name, score) for name, scores in table.items() for score in scores}
    found: dict[str, tuple[str, ...]] = {}
    for word in wanted:
        if word in table:
            found[word] = table[word]
        elif word.lower() in homes:
            name, score = homes[word.lower()]
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), score)))
        else:
            lines = "".join(f"\n  {name}: {', '.join(scores)}" for name, scores in table.items())
            known = [*table, *(score for scores in table.values() for score in scores)]
            raise UnknownNameError(f"there is no metric '{word}'{did_you_mean(word, known)}; known are{lines}")
    return found


def videos_of(keys: Sequence[str]) -> dict[str, list[str]]:
    """The keys of the frames of each video: all that is before the last "__" of a key names the video."""
    videos: dict[str, list[str]] = {}
    for key in keys:
        videos.setdefault(key.rpartition("__")[0], []).append(key)
    return videos


@dataclass(frozen=True, eq=False)
class Work:
    """Counts images and videos of a set of pairs, by their keys; it travels to other processes."""

    pairs: Pairs
    counter: Counter

    def __call__(self, unit: str | tuple[str, tuple[str, ...]]) -> Counted:
        if isinstance(unit, str):
            pair = self.pairs.load(unit)
            with naming(f"sample {unit!r}"):
                return self.counter.image(pair)
        key, frames = unit
        with naming(f"video {key!r}"):
            return self.counter.video(key, lambda: map(self.pairs.load, frames))

    def units(self) -> list[Any]:
        """The images, then the videos, as far as there is a metric for them."""
        kinds = {counts_videos(metric) for metric in self.counter.metrics.values()}
        videos = [(key, tuple(frames)) for key, frames in videos_of(self.pairs.keys).items()]
        return (list(self.pairs.keys) if False in kinds else []) + (videos if True in kinds else [])


def count(work: Work, *, processes: int = 1) -> Iterator[Counted]:
    """What is counted on each unit of the work, in its order, however many processes share it.

    The first units are counted by as many threads, as decoders and kernels work outside Python's lock; other processes are
    started only where enough is left to do after them.

    Raises:
        SegwrightError: a process was ended from outside, as for want of memory.
    """
    units = work.units()
    if processes < 2:
        yield from map(work, units)
        return
    counted = ahead(work, units, count=processes, threads=processes)
    started = time.monotonic()
    for done, found in enumerate(counted, start=1):
        yield found
        left = (time.monotonic() - started) * (len(units) - done) / max(done - 1, 1)
        if done > processes and left > WORTH:
            counted.close()
            yield from _shared(work, units[done:], processes)
            return
        if done == 1:  # which also compiled
            started = time.monotonic()


def _shared(work: Work, units: list[Any], processes: int) -> Iterator[Counted]:
    context = get_context("spawn")  # a fork may take the locks of other threads along, as that of a progress bar
    try:
        with ProcessPoolExecutor(processes, context, initializer=_start, initargs=(work,)) as pool:
            yield from pool.map(_continue, units, chunksize=min(CHUNK, -(-len(units) // processes)))
    except BrokenProcessPool as error:
        raise SegwrightError(
            f"one of {processes} processes that count was ended from outside ({error}), mostly for want of memory; "
            "try again with --processes 1"
        ) from error


_work: Work


def _start(work: Work) -> None:
    global _work
    _work = work


def _continue(unit: Any) -> Counted:
    return _work(unit)

"""From predictions beside their truths to scores: of a predictor on a data set, of two data sets, of COCO's result files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.json_stream import top_keys
from segwright.core import Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UnknownNameError, UsageError, naming
from segwright.data.background import with_background
from segwright.data.missing import void_where_missing
from segwright.evaluation.accumulate import DENSE, Counted, Counter, Work, chosen, count, counts_videos
from segwright.evaluation.ahead import ahead
from segwright.evaluation.bootstrap import bootstrap, group_labels
from segwright.evaluation.coco_entries import content_of
from segwright.evaluation.coco_results import CocoResults, coco_results, lvis_results
from segwright.evaluation.error_analysis import Atlas
from segwright.evaluation.interactive import SimulatedUser, clicks_for, counted_clicks, counter_of_clicks
from segwright.evaluation.load_pairs import are_results, open_pairs
from segwright.evaluation.pairs import Pair, Pairs, a_few, pair
from segwright.evaluation.scores import Scores
from segwright.evaluation.significance import Difference, differences, holm
from segwright.formats import open_dataset
from segwright.formats.image_index import SHOWN
from segwright.inference.prompting import answers_prompts, opener_of
from segwright.metrics.average_precision import AveragePrecision
from segwright.metrics.conventions import SEGWRIGHT, Convention
from segwright.metrics.panoptic_quality import OverlapError

SEED = 0  # of the resampling: the same images give the same interval
FEW = 20  # images; with fewer, 1 to 4 of 100 intervals less hold the truth than should (benchmarks/intervals.py)
NO_END = " Where one end alone is given, so few images tell no more on the other side than what the score can be at all."
ATLASES = 64  # of single images, are made one at a time: the labels to look at, with pictures, stay few
OnImage = Callable[[Sample, Segmentation, dict[str, float]], None]
OnProgress = Callable[[int, int], None]


@dataclass(eq=False)
class Tally:
    """Gathers what was counted on each image or video, and makes scores of it. Pictures and matrices are not kept.

    `pairs` are what is counted, where that is pairs of samples: their notes go with the scores, and an interval takes images
    of one group as one.
    """

    counter: Counter
    pairs: Pairs | None = None
    counted: list[Counted] = field(default_factory=list)
    matrix: np.ndarray | None = None
    atlases: list[Atlas] = field(default_factory=list)

    def add(self, counted: Counted) -> None:
        """Take in one image or video."""
        if counted.matrix is not None:
            self.matrix = counted.matrix if self.matrix is None else self.matrix + counted.matrix
        if counted.atlas is not None:
            self.atlases.append(counted.atlas)
            if len(self.atlases) >= ATLASES:
                self.atlases = [Atlas.total(self.atlases)]
        self.counted.append(replace(counted, matrix=None, atlas=None))

    @classmethod
    def merged(cls, shares: Sequence["Tally"], keys: Sequence[str]) -> "Tally":
        """One tally of those that counted shares of these keys, in their order: the same to the last bit, however many shares.

        Raises:
            UsageError: nobody counted a key, or several did, or another key was counted.
        """
        counted = [one for share in shares for one in share.counted]
        found = {one.key: one for one in counted}
        wrong = [key for key in keys if key not in found] or [key for key in found if key not in set(keys)]
        if wrong or len(counted) != len(keys):
            raise UsageError(
                f"{len(keys)} images are to be counted once each, and {len(shares)} shares counted {len(counted)} times"
                f"{f', such as {wrong[0]!r} never or in vain' if wrong else ''}; give keys[n::shares] to the share n"
            )
        matrices = [share.matrix for share in shares if share.matrix is not None]
        return cls(
            shares[0].counter,
            shares[0].pairs,
            [found[key] for key in keys],
            sum(matrices[1:], matrices[0]) if matrices else None,
            [atlas for share in shares for atlas in share.atlases],
        )

    @property
    def atlas(self) -> Atlas | None:
        """Where the errors of all images are, if that was gathered."""
        return Atlas.total(self.atlases) if self.atlases else None

    def states(self, name: str) -> list[Any]:
        """The states of one metric, in the order of the images or videos that it counted."""
        return [counted.states[name] for counted in self.counted if name in counted.states]

    def labels(self, name: str) -> list[int]:
        """A label for each state of a metric, the same for images of one group."""
        groups = self.pairs.groups if self.pairs else ()
        return group_labels([counted.key for counted in self.counted if name in counted.states], groups)

    def notes(self) -> tuple[str, ...]:
        """What one must know of the pairs, in sentences: what was left out, what the images are that something is odd about."""
        keys: dict[str, dict[str, None]] = {}
        for counted in self.counted:
            for key, remark in counted.remarks:
                keys.setdefault(remark, {})[key] = None
        remarks = (
            f"{remark} ({len(found)} image{'s' * (len(found) > 1)}: {a_few(list(found))})." for remark, found in keys.items()
        )
        return (*(self.pairs.notes if self.pairs else ()), *remarks)

    def interval_convention(self, resamples: int, *, lacks_ends: bool) -> str:
        """Some sentences that say where the intervals come from, or why there are none, or why some ends are missing."""
        counts = {}
        for name, metric in self.counter.metrics.items():
            is_grouped = len(set(labels := self.labels(name))) < len(labels)
            kind = "video" if counts_videos(metric) else "group" if is_grouped else "image"
            counts[kind] = len(set(labels))
        fewest = min(counts.values())
        if fewest < 2:
            return f"One {min(counts, key=counts.__getitem__)} gives no interval: how scores vary cannot be seen from one."
        if not resamples:
            return "No intervals were asked for."
        what = " or ".join(f"{count} {kind}s" for kind, count in counts.items())
        few = " With so few, 91 to 95 of 100 such intervals hold the truth." if fewest < FEW else ""
        alone = "" if "group" in counts else "; for neighbouring frames or slices they are too narrow"
        ends = NO_END if lacks_ends else ""
        return f"95 % intervals, from {resamples} random halves of the {what}, taken as independent{alone}.{few}{ends}"

    def scores(self, resamples: int = 1000) -> Scores:
        """Scores of everything taken in, with intervals from that many resamples (0: none).

        Raises:
            SettingError: there are fewer than no resamples.
        """
        if resamples < 0:
            raise SettingError(f"{resamples} resamples were asked for; give some, such as 1000, or 0 for no intervals")
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        for name, metric in self.counter.metrics.items():
            states = self.states(name)
            if not states:
                raise UsageError(f"none of {len(self.counted)} images holds anything that {name} counts; give some that do")
            total = metric.score(type(states[0]).weighted(states, np.ones((1, len(states)), np.int64)))
            values |= {score: float(value[0]) for score, value in total.items() if self.counter.is_wanted(name, score)}
            intervals |= bootstrap(metric, states, resamples, np.random.default_rng(SEED), groups=self.labels(name))
        intervals = {score: interval for score, interval in intervals.items() if score in values}
        lacks_ends = any(isnan(low) != isnan(high) for low, high in intervals.values())
        images = [counted for counted in self.counted if counted.scores]
        conventions = {name: metric.convention for name, metric in self.counter.metrics.items()}
        return Scores(
            count=len(images) or len(self.counted),
            classes=self.counter.classes,
            values=values,
            intervals=intervals,
            per_image={counted.key: counted.scores for counted in images},
            matrix=tuple(map(tuple, self.matrix.tolist())) if self.matrix is not None else (),
            conventions=conventions | {"intervals": self.interval_convention(resamples, lacks_ends=lacks_ends)},
            notes=self.notes(),
        )


def evaluate(
    predict: Callable[[Sample], Segmentation],
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    resamples: int = 1000,
    on_image: OnImage | None = None,
) -> Scores:
    """The scores of a predictor on a data set; one image is predicted while the next are read, two at most.

    `metrics` are files of metrics/, or names of their scores; without any, those of the predictor's task, or confusion where it
    has none. `resamples` is the number of draws behind the intervals; 0 leaves them out. `on_image(sample, prediction, its
    scores)` is called after each image, to show progress or to keep examples.

    Raises:
        UsageError: the data set is empty, an image has no truth, a metric is of videos, or the predictor has other classes.
    """
    if answers_prompts(predict):
        names = metrics or predict.task.metrics
        return evaluate_clicks(opener_of(predict), dataset, metrics=names, resamples=resamples, on_image=on_image)
    return count_predictions(predict, dataset, metrics=metrics, on_image=on_image).scores(resamples)


def evaluate_clicks(
    opened: Callable[[Sample], Any],
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    is_centred: bool = True,
    resamples: int = 1000,
    on_image: OnImage | None = None,
) -> Scores:
    """The scores of what answers clicks, such as the `open` of a `Prompter`, by somebody simulated who clicks on all objects.

    `metrics` are scores of `NumberOfClicks`, all without any. Clicks lie at the centre of the deepest error or, unless
    `is_centred`, at a random place about it. The rest is as in `evaluate`.

    Raises:
        UsageError: the data set is empty, an image has no truth, or no image has an object.
        UnknownNameError: a name is no score of clicks.
    """
    _check_filled(dataset)
    counter = counter_of_clicks(metrics, dataset.classes)
    user = SimulatedUser(opened, clicks_for(counter), is_centred=is_centred)
    scores = tally_of_clicks(user, void_where_missing(dataset), counter, on_image).scores(resamples)
    return replace(scores, notes=(*scores.notes, user.note))


def tally_of_clicks(user: SimulatedUser, dataset: Dataset, counter: Counter, on_image: OnImage | None = None) -> Tally:
    """What the clicks of a simulated person come to on all images."""
    tally = Tally(counter)
    for counted, sample, first in counted_clicks(user, dataset, counter):
        tally.add(counted)
        if on_image:
            on_image(sample, first, counted.scores)
    return tally


def count_predictions(
    predict: Callable[[Sample], Segmentation],
    dataset: Dataset,
    *,
    metrics: Sequence[str] = (),
    keys: Sequence[str] | None = None,
    on_image: OnImage | None = None,
) -> Tally:
    """What the metrics count on the predictions for these keys of a data set, or for all; the rest is as in `evaluate`.

    Processes that share the work each count some keys, as `data.keys[rank::ranks]`, and `Tally.merged` puts together what they
    send. A share may be empty.

    Raises:
        UsageError: as `evaluate`; or a key is not in the data set.
    """
    _check_filled(dataset)
    dataset = void_where_missing(dataset)
    if answers_prompts(predict):
        clicks = counter_of_clicks(metrics or predict.task.metrics, dataset.classes)
        user = SimulatedUser(opener_of(predict), clicks_for(clicks))
        return tally_of_clicks(user, dataset if keys is None else dataset.subset(keys), clicks, on_image)
    task = getattr(predict, "task", None)
    wanted = chosen(metrics or (task.metrics if task is not None else ["confusion"]))
    if task is not None:
        dataset = task.dataset(dataset)
    elif not wanted.keys().isdisjoint(DENSE):  # scores of objects need no class for what is none, which moves all others up
        dataset = with_background(dataset)
    tally = Tally(Counter.of(wanted, dataset.classes))
    of_videos = [name for name, metric in tally.counter.metrics.items() if counts_videos(metric)]
    if of_videos:
        raise UsageError(
            f"{', '.join(of_videos)} is of objects followed through a video, and a model is measured image by image; write its "
            "predictions with the same number for the same object, and use segwright metrics"
        )
    share = dataset if keys is None else dataset.subset(keys)
    for sample in ahead(share.load, share.keys):
        if sample.truth is None:
            raise UsageError(
                f"{dataset.source}: sample {sample.key!r} has no truth to compare with; add its mask or leave it out"
            )
        with naming(f"sample {sample.key!r}"):
            prediction = predict(sample)
        _check_classes(prediction, dataset)
        counted = tally.counter.image(Pair(sample, prediction))
        tally.add(counted)
        if on_image:
            on_image(sample, prediction, counted.scores)
    return tally


def measure(
    prediction: str | Path | Dataset, truth: str | Path | Dataset, *, metrics: Sequence[str] = (), resamples: int = 1000
) -> Scores:
    """The scores of predictions, by whatever tool, against their truth: two data sets of any formats, or COCO's result files.

    `metrics` are names of scores, such as "mIoU", "PQ" or "AP50", or of files of metrics/, such as "boundary"; without any,
    those that fit the truth. `resamples` is the number of draws behind the intervals; 0 leaves them out. Images without a
    prediction count as missed.

    Raises:
        UsageError: nothing matches, sizes differ, a class is unknown, or a name is no metric.
    """
    if isinstance(prediction, Dataset) or isinstance(truth, Dataset):
        first, second = (side if isinstance(side, Dataset) else open_dataset(side) for side in (prediction, truth))
        return tally_pairs(pair(first, second), metrics).scores(resamples)
    if are_results(prediction):
        return tally_results(prediction, truth, metrics).scores(resamples)
    return tally_pairs(open_pairs(prediction, truth), metrics).scores(resamples)


def tally_pairs(
    pairs: Pairs,
    metrics: Sequence[str],
    *,
    rules: Convention = SEGWRIGHT,
    processes: int = 1,
    with_atlas: bool = False,
    watch: OnProgress | None = None,
) -> Tally:
    """What the metrics, or those that fit, count on all pairs; memory holds one image per process or thread.

    `rules` are those of the metrics of pixels by class. `watch(done, all)` is called after each image or video.

    Raises:
        UsageError: sizes differ, a class is unknown, or a name is no metric.
    """
    _check_filled(pairs.truth)
    names = metrics or fitting_metrics(pairs)
    try:
        return _counted_by(pairs, names, rules, processes, with_atlas=with_atlas, watch=watch)
    except OverlapError:
        if metrics:
            raise
    note = "PQ is left out, as segments overlap, and it needs one segment at each pixel."
    pairs, names = replace(pairs, notes=(*pairs.notes, note)), [name for name in names if name != "panoptic_quality"]
    return _counted_by(pairs, names, rules, processes, with_atlas=with_atlas, watch=watch)


def _counted_by(
    pairs: Pairs, names: Sequence[str], rules: Convention, processes: int, *, with_atlas: bool, watch: OnProgress | None
) -> Tally:
    """What these metrics count on all pairs; raises as `tally_pairs`."""
    counter = Counter.of(chosen(names), pairs.classes, rules=rules, with_atlas=with_atlas)
    work = Work(pairs if with_atlas else pairs.without_images(), counter)
    tally = Tally(counter, pairs)
    total = len(work.units())
    for done, counted in enumerate(count(work, processes=processes)):
        tally.add(counted)
        if watch:
            watch(done + 1, total)
    return tally


def tally_results(results: str | Path, truth: str | Path, metrics: Sequence[str] = ()) -> Tally:
    """What average precision counts on COCO's results, as pycocotools does, or lvis-api where the truth is LVIS's.

    Masks are compared where the first result has one, else boxes; "box AP" among the metrics asks for boxes.

    Raises:
        UsageError: a file cannot be used, or another metric is asked for, which needs results in a format that holds images.
    """
    if Path(truth).is_dir():
        known = (path for path in sorted(Path(truth).rglob("*.json")) if {"images", "annotations"} <= top_keys(path))
        files = ", ".join(str(path) for path in islice(known, SHOWN))
        raise UsageError(
            f"{truth} is a folder, and {results} is a list of detections; give the file of annotations that it belongs to"
            + (f": perhaps {files}" if files else "")
        )
    there, here = content_of(truth, "truth"), content_of(results, "results")
    table, found = there.value, here.value
    given = found or (table.get("annotations") if isinstance(table, dict) else None) or []
    has_masks = bool(given) and isinstance(given[0], dict) and "segmentation" in given[0]
    wanted = chosen(metrics or ["average_precision" if has_masks else "box_average_precision"])
    others = set(wanted) - {"average_precision", "box_average_precision"}
    if others:
        raise UsageError(
            f"{results} is a list of detections, for which average precision is measured, not {min(others)}; convert it to "
            "a data set with images, such as coco, for other metrics"
        )
    is_lvis = isinstance(table, dict) and any("neg_category_ids" in image for image in (table.get("images") or [])[:1])
    read: Callable[..., CocoResults] = lvis_results if is_lvis else coco_results
    by_name = {name: read(there, here, is_box=name == "box_average_precision") for name in wanted}
    first = next(iter(by_name.values()))
    if is_lvis:
        wanted = {name: _of_lvis(wanted[name], one.metric.SCORES, is_whole=not metrics) for name, one in by_name.items()}
    tally = Tally(Counter({name: one.metric for name, one in by_name.items()}, wanted, first.classes))
    for index, key in enumerate(first.keys):
        states = {name: one.states[index] for name, one in by_name.items()}
        tally.add(Counted(key, states, tally.counter.summaries(states)))
    return tally


def _of_lvis(wanted: Sequence[str], known: Sequence[str], *, is_whole: bool) -> tuple[str, ...]:
    """The scores that are wanted of those of LVIS; all of them where a whole file of metrics/ or nothing was named.

    Raises:
        UnknownNameError: LVIS has none of them.
    """
    if is_whole or len(wanted) == len(AveragePrecision.SCORES):
        return tuple(known)
    found = tuple(name for name in known if name in {each.removeprefix("box ") for each in wanted})
    if not found:
        raise UnknownNameError(f"LVIS has no score {', '.join(wanted)}; it has {', '.join(known)}")
    return found


def fitting_metrics(pairs: Pairs) -> list[str]:
    """The metrics that fit a truth, by its classes and its first image: of regions, of objects, of both, of volumes."""
    first = pairs.truth.without_images()[0].truth
    if first is None:
        return ["confusion"]
    kinds = set(np.array(pairs.classes.is_thing)[first.class_ids].tolist()) or set(pairs.classes.is_thing)
    if kinds == {True}:
        return ["average_precision", "panoptic_quality", "instance_accuracy"]
    if kinds == {True, False}:
        return ["panoptic_quality", "average_precision", "confusion"]
    return ["confusion", "surface_distance" if len(first.shape) == 3 else "boundary"]


def tally_differences(first: Tally, second: Tally, resamples: int = 1000) -> list[Difference]:
    """How the wanted scores of two predictions for the same images differ, each with its interval and p-values.

    Raises:
        UsageError: they are for other images; or there is one image (or group) only.
    """
    keys = [[counted.key for counted in tally.counted] for tally in (first, second)]
    if keys[0] != keys[1]:
        raise UsageError(
            f"the predictions are for {len(keys[0])} and {len(keys[1])} images, which are not the same; give both for the same "
            "part of the truth"
        )
    rows = []
    for name, metric in first.counter.metrics.items():
        states, names = (first.states(name), second.states(name)), first.counter.wanted[name]
        generator = np.random.default_rng(SEED)
        rows += differences(metric, *states, resamples, generator, scores=names, groups=first.labels(name))
    adjusted = holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def _check_filled(dataset: Dataset) -> None:
    """Refuse a data set without samples.

    Raises:
        UsageError: it is empty.
    """
    if not len(dataset):
        raise UsageError(f"{dataset.source} holds no samples, there is nothing to measure; check the path and its file names")


def _check_classes(prediction: Segmentation, dataset: Dataset) -> None:
    """Refuse a predictor whose classes are not those of the data set.

    Raises:
        UsageError: a name differs.
    """
    given, needed = prediction.classes.names, dataset.classes.names
    if given != needed:
        first = next(
            (k for k, pair in enumerate(zip(given, needed, strict=False)) if pair[0] != pair[1]), min(len(given), len(needed))
        )
        names = [repr(each[first]) if first < len(each) else "no class" for each in (given, needed)]
        raise UsageError(
            f"the model has {len(given)} classes and {dataset.source} has {len(needed)}; class {first} is {names[0]} there and "
            f"{names[1]} here: evaluate on data with the classes of the training, in the same order"
        )

import os
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from typing import ClassVar

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SegwrightError, ShapeError, UnknownNameError
from segwright.evaluation import accumulate
from segwright.evaluation.accumulate import Counter, Work, chosen, count, offered, videos_of
from segwright.evaluation.evaluate import fitting_metrics, tally_pairs
from segwright.evaluation.pairs import Pair, pair
from segwright.metrics.accumulators import Sums

CLASSES = Classes.of(["sky", "road"])
NUCLEI = Classes.of(["nucleus"], is_thing=[True])


def sample(seed, key):
    """An image of random classes, another one for each key."""
    class_map = np.random.default_rng([seed, int(key[1:])]).integers(0, 2, (6, 8))
    return Sample.of(key, np.zeros((0, 6, 8), np.uint8), Segmentation.semantic(class_map, CLASSES))


def datasets(images):
    keys = tuple(f"s{n}" for n in range(images))
    return pair(Dataset("guesses", CLASSES, keys, partial(sample, 0)), Dataset("truths", CLASSES, keys, partial(sample, 1)))


def test_names_of_scores_lead_to_their_files():
    assert chosen(["mIoU", "dice"]) == {"confusion": ("mIoU", "Dice")}
    assert chosen(["confusion"]) == {"confusion": offered()["confusion"]}
    with pytest.raises(UnknownNameError, match=r"there is no metric 'mIoUs', did you mean 'mIoU'\?; known are\n"):
        chosen(["mIoUs"])


def test_names_are_unique():
    every = [name.lower() for scores in offered().values() for name in scores]
    assert len(every) == len(set(every))


def test_only_what_is_wanted_is_scored():
    scores = tally_pairs(datasets(3), ["mIoU"]).scores(50)
    assert set(scores.values) == set(scores.intervals) == {"mIoU", "IoU/sky", "IoU/road"}
    assert set(scores.per_image["s1"]) == {"mIoU"}


def test_objects_are_scored_with_the_background_around_them():
    """What is found where nothing is counts as wrong."""
    truth = Segmentation.panoptic(np.array([[1, 1, 0, 0]]), [0], [1], classes=NUCLEI)
    guess = Segmentation.panoptic(np.array([[1, 1, 1, 0]]), [0], [1], classes=NUCLEI)
    counted = Counter.of(chosen(["mIoU"]), NUCLEI).image(Pair(Sample.of("a", np.zeros((0, 1, 4)), truth), guess))
    assert counted.scores["mIoU"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_an_image_that_fails_is_named():
    pairs = datasets(2)
    small = Sample.of("s1", np.zeros((0, 3, 3), np.uint8), Segmentation.semantic(np.zeros((3, 3), int), CLASSES))
    wrong = pair(Dataset("guesses", CLASSES, pairs.keys, lambda key: small), pairs.truth)
    with pytest.raises(ShapeError, match="sample 's0': the prediction is .* and the truth .*; predict at the size of"):
        tally_pairs(wrong, ["mIoU"])


def test_several_processes_count_what_one_does(monkeypatch):
    monkeypatch.setattr(accumulate, "WORTH", -1.0)
    one, two = (tally_pairs(datasets(20), ["confusion"], processes=processes).scores(50) for processes in (1, 2))
    assert one.to_json() == two.to_json() and list(one.per_image) == [f"s{n}" for n in range(20)]


def test_a_process_that_dies_is_told_of(monkeypatch):
    monkeypatch.setattr(accumulate, "WORTH", -1.0)
    pairs = datasets(6)
    deadly = pair(Dataset("guesses", CLASSES, pairs.keys, dies), pairs.truth)
    with pytest.raises(SegwrightError, match="one of 2 processes that count was ended .*; try again with --processes 1"):
        list(count(Work(deadly, Counter.of(chosen(["mIoU"]), CLASSES)), processes=2))


def dies(key):
    """Ends the process that reads the fourth image, unless it is the first one, as the system does when memory runs out."""
    if key == "s3" and parent_process() is not None:
        os._exit(9)
    return sample(0, key)


@dataclass(frozen=True)
class Frames:
    """Counts the frames of videos and the agreement of their first pixels."""

    classes: Classes
    SCORES: ClassVar[tuple[str, ...]] = ("frames",)
    COUNTS_VIDEOS: ClassVar[bool] = True
    convention: ClassVar[str] = "All frames are counted."

    def count(self, frames):
        return Sums(np.array([float(sum(1 for _ in frames)), 1.0]))

    def score(self, state):
        return {"frames": state.values[..., 0] / state.values[..., 1]}


def test_videos_are_counted_as_wholes():
    keys = ("val__a__0", "val__a__1", "val__b__0")
    assert videos_of(keys) == {"val__a": ["val__a__0", "val__a__1"], "val__b": ["val__b__0"]}
    truth = Segmentation.semantic(np.zeros((2, 2), int), CLASSES)
    data = Dataset("here", CLASSES, keys, lambda key: Sample.of(key, np.zeros((0, 2, 2), np.uint8), truth))
    counter = Counter({"frames": Frames(CLASSES)}, {"frames": ("frames",)}, CLASSES, None)
    counted = list(count(Work(pair(data, data), counter)))
    assert [(one.key, one.states["frames"].values[0]) for one in counted] == [("val__a", 2), ("val__b", 1)]


def test_metrics_fit_what_the_truth_holds():
    assert fitting_metrics(datasets(1))[0] == "confusion"
    objects = Segmentation.panoptic(np.array([[1, 0]]), [0], [1], classes=NUCLEI)
    data = Dataset("here", NUCLEI, ("a",), lambda key: Sample.of(key, np.zeros((0, 1, 2), np.uint8), objects))
    assert "average_precision" in fitting_metrics(pair(data, data)) and "confusion" not in fitting_metrics(pair(data, data))


def test_objects_without_scores_of_their_own_are_told_where_they_are_ranked():
    truth = Segmentation.panoptic(np.array([[1, 2, 0]]), [0, 0], [1, 2], classes=NUCLEI)
    ranked = Segmentation.panoptic(np.array([[1, 2, 0]]), [0, 0], [1, 2], scores=[0.9, 0.8], classes=NUCLEI)
    plain, scored = (
        Dataset("here", NUCLEI, ("a",), partial(Sample.of, image=np.zeros((0, 1, 3), np.uint8), truth=own))
        for own in (truth, ranked)
    )
    said = [tally_pairs(pair(guess, plain), [name]).notes() for guess, name in ((plain, "AP"), (plain, "PQ"), (scored, "AP"))]
    assert said[0][0].startswith("Objects whose scores are all equal are ranked in the order") and said[1:] == [(), ()]

"""What clicks take is timed on one image, with as many of them as are asked for when a run is scored."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from segwright.core.errors import ShapeError
from segwright.data.splits import open_splits
from segwright.models import preset
from segwright.planning import scoring_time
from segwright.planning.scoring_time import ScoringTime, clicking_time, seconds_before
from segwright.planning.starting_model import StartingModel
from segwright.tasks.promptable import Promptable


@pytest.fixture
def clicks(tiny_plan):
    """A plan for clicks on the cells of `tiny_plan`."""
    return replace(tiny_plan, task=Promptable(), model=replace(preset("sam_nano"), in_channels=1))


def test_a_network_that_is_not_clicked_on_takes_none(tiny_plan):
    assert clicking_time(tiny_plan, open_splits(tiny_plan.data.train).train) is None


def test_an_image_is_timed_for_each_set_of_scores_once_all_is_compiled(clicks, monkeypatch):
    clock, asked = [0.0], []

    def count(predictor, data, *, metrics, keys):
        assert not predictor.network.training
        asked.append((tuple(metrics), tuple(keys)))
        clock[0] += max(int(name.removeprefix("IoU@")) for name in metrics)  # a second a click

    monkeypatch.setattr(scoring_time, "count_predictions", count)
    monkeypatch.setattr(scoring_time, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    data = open_splits(clicks.data.train).train
    assert clicking_time(clicks, data) == ScoringTime(on_the_way=3.0, at_the_end=5.0)
    assert asked[0][0] == ("IoU@1",) and {keys for _, keys in asked} == {(data.keys[3],)}


def test_real_clicks_take_some_time(clicks):
    found = clicking_time(clicks, clicks.task.dataset(open_splits(clicks.data.train).train))
    assert 0 < found.on_the_way < 60 and 0 < found.at_the_end < 60


def test_the_model_before_takes_as_long_as_the_run_or_an_image_is_timed(clicks, monkeypatch):
    clock, asked = [0.0], []

    def ask(data, *, metrics, keys):
        asked.append((metrics, keys))
        clock[0] += 7.0

    monkeypatch.setattr(scoring_time, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    data = open_splits(clicks.data.train).train
    assert seconds_before(None, clicks, 2.0) == seconds_before(StartingModel("a", data, why_not="so"), clicks, 2.0) == 0
    assert seconds_before(StartingModel("a", data, ask, is_alike=True), clicks, 2.0) == 2 and not asked
    assert seconds_before(StartingModel("a", data, ask), clicks, 2.0) == 7
    assert asked == [(clicks.task.metrics, [data.keys[3]])]

    def refuse(data, *, metrics, keys):
        raise ShapeError("it is a volume; give an image")

    assert seconds_before(StartingModel("a", data, refuse), clicks, 2.0) == 0

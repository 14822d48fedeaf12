"""The time that scoring takes where no step of training tells it: where somebody clicks on objects, or of another network."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from segwright.core import Dataset
from segwright.core.errors import SegwrightError
from segwright.evaluation.evaluate import count_predictions
from segwright.inference.load import training_predictor
from segwright.inference.prompting import TASK
from segwright.models import tasks_of
from segwright.planning.starting_model import StartingModel
from segwright.plans.plan import Plan


class ScoringTime(NamedTuple):
    """Seconds for each image: `on_the_way`, when the best checkpoint is chosen, and `at_the_end`, for all that is reported."""

    on_the_way: float
    at_the_end: float


def clicking_time(plan: Plan, data: Dataset) -> ScoringTime | None:
    """What an image takes to be clicked on by a simulated user, timed on one of a data set; None for networks not asked so.

    The network has learnt nothing, but its answers take as long as those of one that has.
    """
    if TASK not in tasks_of(plan.model):
        return None
    network = plan.model.build().to(plan.training.device).eval()
    predictor = training_predictor(network, plan, data.classes)
    usual = data.keys[len(data) // 2]

    def seconds(metrics: Sequence[str]) -> float:
        started = time.perf_counter()
        count_predictions(predictor, data, metrics=metrics, keys=[usual])
        return time.perf_counter() - started

    seconds(plan.task.metrics[:1])  # compiles what is not compiled yet
    return ScoringTime(seconds([plan.task.score]), seconds(plan.task.metrics))


def seconds_before(model: StartingModel | None, plan: Plan, own: float) -> float:
    """What an image takes the model that a run of a plan is tuned from, when it is scored beside it; 0 without one.

    As long as the run's `own`, where it looks at images in the same way; else one is timed.
    """
    if model is None or model.ask is None or model.is_alike:
        return 0.0 if model is None or model.ask is None else own
    started = time.perf_counter()
    try:
        model.count(plan.task.metrics, [model.data.keys[len(model.data) // 2]])
    except SegwrightError:  # which is told once it is scored, and is then no reason to end a run
        return 0.0
    return time.perf_counter() - started

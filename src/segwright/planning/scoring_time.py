"""The time that scoring takes where no step of training tells it: where somebody clicks on one object after the other."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from segwright.core import Dataset
from segwright.evaluation.evaluate import count_predictions
from segwright.inference.load import training_predictor
from segwright.inference.prompting import TASK
from segwright.models import tasks_of
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

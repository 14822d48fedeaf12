"""What intervals cost: 1000 resamples against counting the images once. Axes: N images."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from metric_cases import average_precision, confusion, panoptic
from metric_cases.case import Case, Side
from metric_cases.scenes import many_classes

RESAMPLES = 1000
COCO_LIKE = "100 images of 480 x 640, 133 classes"


def cases() -> Iterator[Case]:
    """Intervals of AP, PQ and mIoU; the other side is the evaluation that they must not outlast."""
    for name, make, count, evaluate in (
        ("AP, 80 classes, 500 images", partial(average_precision.lists, many_classes, 500), count_objects, evaluate_objects),
        (f"PQ, {COCO_LIKE}", panoptic_set, count_segments, panoptic.ours),
        ("mIoU, 8 maps of 1024 x 2048, 19 classes", maps, count_pixels, confusion.our_metric),
    ):
        yield Case(
            group="bootstrap",
            name=f"{RESAMPLES} resamples of {name}",
            make=make,
            targets={"the evaluation itself": 1},
            sides={
                "segwright, resampling": Side(run=intervals, prepare=count),
                "the evaluation itself": Side(run=evaluate, note="compared with its own score only"),
            },
        )


def intervals(counted: tuple[Any, list]) -> dict[str, float]:
    """The intervals of all scores."""
    from segwright.evaluation.bootstrap import bootstrap

    metric, states = counted
    found = bootstrap(metric, states, RESAMPLES, np.random.default_rng(0))
    return {f"low {name}": low for name, (low, _) in found.items()}


def panoptic_set(is_small: bool) -> Any:
    """Segmentations, so that both sides begin with the same."""
    setting = panoptic.SETS[COCO_LIKE]
    return panoptic.as_segmentations(panoptic.make(COCO_LIKE, setting, 4 if is_small else setting[0]))


def maps(is_small: bool) -> list:
    """Segmentations of class maps."""
    pairs = confusion.kept("maps", lambda: confusion.maps(confusion.MAPS))
    return confusion.as_segmentations(pairs[: 2 if is_small else confusion.MAPS])


def count_objects(data: dict) -> tuple[Any, list]:
    """The matches of each image."""
    from segwright.evaluation.coco_results import coco_results

    found = coco_results(data["truth"], data["results"])
    return found.metric, list(found.states)


def evaluate_objects(data: dict) -> dict[str, float]:
    """Matches and scores."""
    return average_precision.ours(average_precision.COCO, data)


def count_segments(data: dict) -> tuple[Any, list]:
    """The sums of each image."""
    from segwright.metrics.panoptic_quality import PanopticQuality

    metric = PanopticQuality(data["classes"])
    return metric, [metric.count(*pair) for pair in data["pairs"]]


def count_pixels(pairs: list) -> tuple[Any, list]:
    """The sums of each image."""
    from segwright.metrics.confusion import Confusion

    metric = Confusion(pairs[0][1].classes)
    return metric, [metric.count(*pair) for pair in pairs]

"""A class that is never found is told of while there is time to change something."""

import shlex
from pathlib import Path

import pytest

from segwright.data.class_weights import class_weights
from segwright.data.samplers.class_balanced_images import ClassBalancedImages
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.plans.plan import Plan
from segwright.training.collapse import collapse, of_classes, remedies
from segwright.training.run_dir import start_folder

NAN = float("nan")


def validation(progress: float, **recall: float) -> dict:
    return {"step": round(100 * progress), "score": 0.5, "metric": "mIoU", "progress": progress, "recall": recall}


@pytest.fixture
def told(tiny_plan):
    return lambda *records: collapse(records, tiny_plan, Path("runs/a"), (0.9, 0.1))


# By hand


def test_a_class_that_stays_at_nothing_is_named_once(told):
    early, first, second = (validation(progress, sky=0.9, pole=0.0, car=0.2) for progress in (0.2, 0.4, 0.6))
    assert told(early) is None and told(early, first) is None
    warning = told(early, first, second)
    assert warning["collapsed"] == ["pole"] and warning["step"] == 60
    assert "nothing of 'pole' was found at 2 validations in a row, and the truth holds it: training has" in warning["event"]
    assert told(early, first, second, warning, validation(0.8, sky=0.9, pole=0.0, car=0.2)) is None


def test_another_class_is_told_later(told):
    warning = {"step": 60, "event": "", "collapsed": ["pole"]}
    records = [validation(progress, pole=0.0, car=0.0) for progress in (0.4, 0.6)]
    assert told(*records, warning, validation(0.8, pole=0.0, car=0.0))["collapsed"] == ["car"]


def test_a_class_that_was_found_before_is_not_told(told):
    assert told(validation(0.4, pole=0.1), validation(0.6, pole=0.0)) is None
    assert told(validation(0.4, pole=0.0), validation(0.6, pole=0.1)) is None


def test_one_validation_is_enough_at_the_end(told):
    assert told(validation(0.9, pole=0.0)) is None
    assert told(validation(1.0, pole=0.0))["collapsed"] == ["pole"]


def test_records_of_other_tasks_and_versions_are_left_alone(told):
    old = {"step": 50, "score": 0.5, "metric": "mIoU"}
    assert told(old) is None and told(old, validation(0.5, pole=0.0)) is None
    assert told() is None


def test_classes_that_no_truth_holds_have_no_recall():
    values = {"mIoU": 0.5, "recall": 0.5, "recall/pole": 0.0, "recall/a/b": 1.0, "IoU/pole": 0.1, "recall/gone": NAN}
    assert of_classes(values, "recall") == {"pole": 0.0, "a/b": 1.0}


# By its remedy


def test_the_remedy_can_be_followed(tiny_plan, tmp_path):
    start_folder(tmp_path / "run", tiny_plan)
    warning = collapse([validation(1.0, pole=0.0)], tiny_plan, tmp_path / "run", (0.96, 0.04))
    words = shlex.split(warning["event"].partition("start anew: ")[2])
    assert words[:2] == ["segwright", "train"] and words[-2:] == ["--out", "FOLDER"]
    settings = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    changed = Plan.read(Path(words[2])).with_settings(settings)
    assert changed.sampler == ForegroundPatches()
    first, second = changed.task.criterion.terms
    assert first == CrossEntropy(class_weights=class_weights((0.96, 0.04), (1, 1), "root")) and second == Dice()


def test_each_further_remedy_is_another_plan(tiny_plan):
    plan, seen = tiny_plan, []
    for _ in range(3):
        plan = plan.with_settings(remedies(plan, (0.96, 0.04)))
        seen.append(plan.sampler)
    assert seen == [ForegroundPatches(), ForegroundPatches(share=0.67), ClassBalancedImages()]
    assert plan.task.against_collapse((0.96, 0.04)) == ()

"""A run that was tuned from a model is compared with it on the same images, and who made it worse is told what to do."""

import re
import shlex
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import ShapeError
from segwright.data.clickable_objects import OBJECT
from segwright.encoders import resnet
from segwright.evaluation.evaluate import count_predictions
from segwright.evaluation.scores import Scores
from segwright.evaluation.significance import Difference
from segwright.models import encoder_unet, sam_nano
from segwright.planning.budget import Budget
from segwright.planning.starting_model import StartingModel
from segwright.plans.plan import Inference, Init, Plan
from segwright.tasks.promptable import Promptable
from segwright.training.loop import train
from segwright.workflow import before_after, fit
from segwright.workflow.before_after import is_worse, with_differences, worse_warning
from segwright.workflow.score_run import finish

WITH_ENCODER = encoder_unet.Config(
    in_channels=1, num_classes=2, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)), decoder_widths=(16, 8, 8, 8, 8)
)


def trained(plan: Plan, run, **settings):
    train(replace(plan, training=replace(plan.training, steps=2, validations=1), **settings), run)
    return run


@pytest.fixture
def earlier(tiny_plan, tmp_path):
    """A run that others may start from."""
    return trained(tiny_plan, tmp_path / "earlier")


def tuned_from(run) -> dict:
    return {"init": Init(weights=str(run))}


def test_the_score_before_is_that_of_the_earlier_run_on_the_same_images(tiny_plan, earlier, tmp_path):
    before = finish(earlier)
    assert before.differences == () and "before and after" not in before.conventions
    after = finish(run := trained(tiny_plan, tmp_path / "run", **tuned_from(earlier)))
    main = after.differences[0]
    assert main.score == "mIoU" and {row.score for row in after.differences} < set(after.values)
    assert main.first == pytest.approx(before.values["mIoU"]) and main.second == pytest.approx(after.values["mIoU"])
    assert main.difference == pytest.approx(main.second - main.first)
    told = [note for note in after.notes if note.startswith(f"Training started from {earlier}: mIoU was ")]
    assert len(told) == 1 and told[0].endswith("2 images are too few to claim any difference: validate on more.")
    assert Scores.from_json((run / "scores.json").read_text()).differences == after.differences
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Before" in report and "After" in report and "too few to claim" in report


def test_a_run_that_starts_anew_has_no_before(tiny_plan, truths, guess, tmp_path):
    after = count_predictions(guess, truths)
    scores = after.scores(0)
    assert with_differences(scores, tmp_path, tiny_plan, [truths], after, range(6)) is scores


def test_other_classes_and_a_start_that_is_gone_have_a_line_each(tiny_plan, earlier, tmp_path):
    model = ModelFile.read(earlier / "model.safetensors")
    replace(model, classes=Classes.of(["glass", "bacterium"])).write(earlier / "model.safetensors")
    run = trained(tiny_plan, tmp_path / "run", **tuned_from(earlier))
    scores = finish(run)
    wanted = f"There is no score before training, of {earlier}: its classes are 'glass', 'bacterium', and those of the data '"
    assert scores.differences == () and len([note for note in scores.notes if note.startswith(wanted)]) == 1
    (earlier / "model.safetensors").unlink()
    assert any(re.search("no score before .*: it cannot be opened", note) for note in finish(run).notes)


def compared(truths, before, after, plan, monkeypatch, learnt=()):
    """The scores of predictions `after`, tuned from a model that predicts `before`."""
    ask = partial(count_predictions, before)
    monkeypatch.setattr(before_after, "starting_model", lambda plan, data, own_modules: StartingModel("runs/a", data, ask))
    monkeypatch.setattr(before_after, "trained_with", lambda run, data: [*learnt])
    tally = count_predictions(after, truths)
    return with_differences(tally.scores(0), "runs/b", plan, [truths], tally, range(len(truths)))


def right(sample):
    return sample.truth


def test_worse_after_tuning_is_one_line_with_a_remedy(tiny_plan, truths, guess, monkeypatch, caplog):
    scores = compared(truths, right, guess, tiny_plan, monkeypatch)
    assert scores.differences[0].first == 1 and is_worse(scores.differences[0])
    lines = [record.getMessage() for record in caplog.records if "is worse than" in record.getMessage()]
    assert len(lines) == 1 and "\n" not in lines[0] and "keep runs/a" not in lines[0]  # the plan names where it began
    caplog.clear()
    plan = replace(tiny_plan, init=Init(weights="runs/a"))
    compared(truths, right, guess, plan, monkeypatch)
    text = caplog.records[-1].getMessage()
    assert text.startswith("runs/b is worse than runs/a, from which it was tuned: mIoU 1.0000 -> ") and "keep runs/a" in text


def test_better_the_same_and_what_was_learnt_by_heart_are_no_warning(tiny_plan, truths, guess, monkeypatch, caplog):
    better = compared(truths, guess, right, tiny_plan, monkeypatch)
    assert better.differences[0].p <= 0.05 and not is_worse(better.differences[0])
    same = compared(truths, guess, guess, tiny_plan, monkeypatch)
    assert same.differences[0].difference == 0 and same.notes[-1].endswith("That may be chance.")
    learnt = compared(truths, right, guess, tiny_plan, monkeypatch, learnt=["s0", "s1"])
    assert learnt.notes[-1].endswith("It had been trained with 2 of them, such as 's0': before is too good.")
    assert not caplog.records


def test_images_of_a_group_are_swapped_together(tiny_plan, truths, guess, monkeypatch):
    ask = partial(count_predictions, right)
    monkeypatch.setattr(before_after, "starting_model", lambda plan, data, own_modules: StartingModel("runs/a", data, ask))
    tally = count_predictions(guess, truths)
    scores = with_differences(tally.scores(0), "runs/b", tiny_plan, [truths], tally, [0, 0, 0, 1, 1, 1])
    assert scores.differences[0].p > 0.4 and "2 images are too few" in scores.notes[-1]


def test_an_image_that_the_model_before_cannot_take_is_told(tiny_plan, truths, guess, monkeypatch):
    def refuse(sample):
        raise ShapeError("it has three channels; give one")

    scores = compared(truths, refuse, guess, tiny_plan, monkeypatch)
    assert scores.differences == () and "sample 's0': it has three channels; give one" in scores.notes[-1]


def test_images_without_an_object_cannot_be_compared_and_say_so(tiny_plan, truths, guess, monkeypatch):
    def count(*args, **more):
        found = count_predictions(*args, **more)
        return replace(found, counted=[replace(one, states={}) for one in found.counted])

    known = StartingModel("runs/a", truths, partial(count, guess))
    monkeypatch.setattr(before_after, "starting_model", lambda plan, data, own_modules: known)
    tally = count(guess, truths)
    scores = with_differences(count_predictions(guess, truths).scores(0), "runs/b", tiny_plan, [truths], tally, range(6))
    assert scores.differences == () and scores.notes[-1].endswith(
        "of runs/a: no validation image holds what is scored; hold out images that do, such as with --val."
    )


WORSE = Difference(score="mIoU", first=0.7, second=0.6, difference=-0.1, interval=(-0.2, -0.01), p=0.01, p_holm=0.02)


def settings_of(text: str) -> list[str]:
    words = shlex.split(text)
    return [words[place + 1] for place, word in enumerate(words) if word == "--set"]


def test_the_remedies_can_be_followed(tiny_plan, tmp_path):
    plan = replace(tiny_plan, init=Init(weights="runs/a"))
    rate = tiny_plan.optimiser.learning_rate
    no_encoder = replace(plan, model=SimpleNamespace(build=torch.nn.Identity))
    assert settings_of(worse_warning(tmp_path, no_encoder, WORSE)) == [f"optimiser.learning_rate={rate / 4:g}"]
    plan = replace(plan, model=WITH_ENCODER, training=replace(plan.training, crop=(64, 64), steps=1, validations=1))
    slower, frozen = settings_of(worse_warning(tmp_path, plan, WORSE))
    assert plan.with_settings([slower]).optimiser.learning_rate == pytest.approx(rate / 4)
    again = replace(plan.with_settings([frozen]), init=Init())
    torch.manual_seed(again.training.seed)
    encoder = again.model.build().encoder.state_dict()
    found = ModelFile.read(train(again, tmp_path / "again")).weights
    assert all(torch.equal(value, found[f"encoder.{name}"]) for name, value in encoder.items())
    assert settings_of(worse_warning(tmp_path, again, WORSE)) == [slower]  # the encoder is frozen already


def test_fit_from_a_run_tells_both_and_with_the_remedy_learns_more_slowly(tiny_plan, earlier, tmp_path):
    plan = replace(tiny_plan, init=Init(weights=str(earlier)))
    slower = settings_of(worse_warning(tmp_path, plan, WORSE))[0]
    run, quick = tmp_path / "run", ["training.steps=1", "training.validations=1"]
    scores = fit(tiny_plan.data.train, out=run, init=str(earlier), budget=Budget(minutes=0.1), settings=[slower, *quick])
    assert scores.differences[0].score == "mIoU" and np.isfinite(scores.differences[0].first)
    made = Plan.read(run)
    assert made.optimiser.learning_rate == pytest.approx(tiny_plan.optimiser.learning_rate / 4)


def test_a_click_network_is_tuned_on_kept_answers_and_compared_by_clicks(tiny_plan, tmp_path):
    network = sam_nano.Config(in_channels=1, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16))
    plan = replace(tiny_plan, task=Promptable(), model=network, inference=Inference(tile=(96, 96)))
    earlier, run = tmp_path / "earlier", tmp_path / "run"
    earlier.mkdir()
    ModelFile(network.build().state_dict(), plan, OBJECT).write(earlier / "model.safetensors")
    settings = ["training.steps=1", "training.validations=1"]
    budget = Budget(minutes=9, device="cpu")  # of which one step takes little
    scores = fit(tiny_plan.data.train, out=run, task="promptable", init=str(earlier), budget=budget, settings=settings)
    assert [row.score for row in scores.differences] == ["IoU@3", "IoU@1", "IoU@5"]
    made = Plan.read(run)
    assert made.training.frozen == ("encoder",) and 6 <= made.training.num_crops <= 96  # of six images, as time allows

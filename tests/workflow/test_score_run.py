"""What is written of a run once it is trained; see also test_folds.py."""

from dataclasses import replace

import numpy as np
import pytest

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.decoding.postprocess import Postprocess
from segwright.decoding.score_calibration import ScoreCalibration
from segwright.evaluation.accumulate import Counter
from segwright.evaluation.evaluate import Tally
from segwright.evaluation.scores import Scores
from segwright.evaluation.temperature import PixelSample
from segwright.inference.load import load
from segwright.plans.plan import Inference, Plan
from segwright.training.loop import open_data, train
from segwright.training.run_dir import read_log, start_folder
from segwright.workflow import score_run
from segwright.workflow.score_run import chosen_inference, counted, environment, finish, note_inference, write_steps


def test_a_trained_run_gets_its_scores_its_report_and_its_steps(tiny_plan, tmp_path):
    train(replace(tiny_plan, training=replace(tiny_plan.training, steps=3, validations=1)), tmp_path / "run")
    scores = finish(tmp_path / "run")
    assert Scores.from_json((tmp_path / "run" / "scores.json").read_text()).values.keys() == scores.values.keys()
    assert "has no interval: 2 validation images" in " ".join(scores.notes)
    inference = Plan.read(tmp_path / "run").inference
    assert inference == ModelFile.read(tmp_path / "run" / "model.safetensors").plan.inference
    assert inference.temperature != 1 and load(tmp_path / "run").temperature == inference.temperature
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Learning" in report and "Plan" in report and environment()["torch"] in report
    seen, splits = [], open_data(tiny_plan)
    tally, pixels = counted(tmp_path / "run", splits.val, lambda sample, prediction, own: seen.append((sample.key, own)))
    assert tally.scores().values == scores.values and [one.key for one in tally.counted] == [key for key, _ in seen]
    assert pixels is None  # the temperature is known
    another = replace(tiny_plan, training=replace(tiny_plan.training, steps=999))
    before = (tmp_path / "run" / "plan.toml").read_text()
    write_steps(tmp_path / "run", another, None)  # it did not go by the clock
    assert (tmp_path / "run" / "plan.toml").read_text() == before
    write_steps(tmp_path / "run", another, 0.1)
    plan = Plan.read(tmp_path / "run")
    assert plan.training.steps == 3 == read_log(tmp_path / "run")[-1]["step"]
    assert "as many as the minutes had room for" in (tmp_path / "run" / "plan.toml").read_text()
    assert ModelFile.read(tmp_path / "run" / "model.safetensors").plan == plan


def test_a_map_for_scores_that_helps_is_kept_and_told_and_one_that_is_there_stays(tiny_plan, tmp_path, monkeypatch):
    train(replace(tiny_plan, training=replace(tiny_plan.training, steps=1, validations=1)), tmp_path / "run")
    assert not load(tmp_path / "run").calibration.is_needed
    softer, seen = ScoreCalibration(slope=0.5, shift=-1.0), []

    def choice(tally, labels):
        seen.append((len(tally.counted), len(labels)))
        return softer, ("It helps.",)

    monkeypatch.setattr(score_run, "chosen_calibration", choice)
    scores = finish(tmp_path / "run")
    assert seen == [(2, 2)] and "It helps." in scores.notes
    assert "It helps." in Scores.from_json((tmp_path / "run" / "scores.json").read_text()).notes
    assert load(tmp_path / "run").calibration == softer == Plan.read(tmp_path / "run").inference.calibration
    finish(tmp_path / "run")
    assert len(seen) == 1 and load(tmp_path / "run").calibration == softer


class Trial:
    """Says that a rule has helped."""

    def choice(self, labels):
        return Postprocess(largest=(1,)), ("It helps.",)


def test_rules_and_temperature_are_noted_with_the_comments_kept_and_what_a_person_set_stays(tiny_plan, tmp_path):
    tally = Tally(Counter.of({"confusion": ("mIoU",)}, Classes.of(["background", "cell"])))
    sure = PixelSample(np.log([[0.99, 0.01]] * 4), np.array([0, 0, 0, 1]))
    inference, told = chosen_inference(tiny_plan, Trial(), tally, [None, sure, sure])
    assert inference.postprocess == Postprocess(largest=(1,)) and told == ("It helps.",)
    assert inference.temperature == pytest.approx(np.log(99) / np.log(3), rel=0.01)  # 0.75 is said, and three of four are right
    start_folder(tmp_path, replace(tiny_plan, reasons={"training.steps": "a reason"}))
    note_inference(tmp_path, inference)
    assert Plan.read(tmp_path).inference == inference and "a reason" in (tmp_path / "plan.toml").read_text()
    by_hand = replace(tiny_plan, inference=Inference(postprocess=Postprocess(filled=(1,))))
    assert chosen_inference(by_hand, Trial(), tally, []) == (by_hand.inference, ())

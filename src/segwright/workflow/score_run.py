"""What is written once a run is trained: scores.json and report.html, of its best model on its validation samples."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tomlkit
import torch

import segwright
from segwright.checkpoints.model_file import ModelFile
from segwright.core import Dataset, Sample, Segmentation
from segwright.core.atomic_files import replace_file
from segwright.core.run_files import MODEL_FILE, PLAN_FILE, REPORT_FILE, SCORES_FILE
from segwright.data.splits import Splits
from segwright.decoding.expected_dice import QualityCalibration
from segwright.decoding.postprocess import Postprocess
from segwright.evaluation.bootstrap import group_labels
from segwright.evaluation.calibration_choice import chosen_calibration
from segwright.evaluation.evaluate import Tally, count_predictions
from segwright.evaluation.postprocess_choice import PostprocessTrial
from segwright.evaluation.scores import Scores, write_scores
from segwright.evaluation.temperature import PixelSample, fitted_temperature, pixel_sample
from segwright.formats import dataset_file
from segwright.plans.kinds import table_of
from segwright.plans.plan import Inference, Plan
from segwright.reports.gallery import Gallery
from segwright.reports.report import write_report
from segwright.training.loop import open_data
from segwright.training.run_dir import read_log
from segwright.workflow.before_after import with_differences
from segwright.workflow.quality_intervals import asked_fairly, with_quality

Watcher = Callable[[Sample, Segmentation, Mapping[str, float]], None]


def finish(run: Path, splits: Splits | None = None) -> Scores:
    """Score the best model of a run that was just trained on its validation samples; write scores.json and report.html.

    The temperature of its probabilities, or the map that makes probabilities of its objects' scores, is fitted on them, and
    rules about pieces of classes that help there are kept, and how far off the Dice to expect is there, all in its plan and its
    model file. The plan was the trainer's own, so that modules of their own are imported.
    """
    plan = Plan.read(run, own_modules=True)
    splits = splits or open_data(plan)
    trial = PostprocessTrial(plan.task.score, len(splits.val))
    gallery = Gallery()
    tally, pixels = counted(run, splits.val, gallery, trial)
    inference, told = chosen_inference(plan, trial, tally, [pixels])
    if not inference.calibration.is_needed:
        calibration, more = chosen_calibration(tally, image_groups(plan, tally))
        inference, told = replace(inference, calibration=calibration), (*told, *more)
    inference, of_quality = with_quality(inference, plan, [(run, splits.val)])
    scores = tally.scores()
    scores = replace(scores, notes=(*scores.notes, *told, *of_quality))
    scores = with_differences(scores, run, plan, [splits.val], tally, image_groups(plan, tally))
    note_inference(run, inference)
    model = ModelFile.read(run / MODEL_FILE, own_modules=True)
    replace(model, plan=replace(model.plan, inference=inference)).write(run / MODEL_FILE)
    write_results(run, plan.data.train, scores, gallery, read_log(run))
    return scores


def counted(run: Path, val: Dataset, *watchers: Watcher) -> tuple[Tally, PixelSample | None]:
    """What was counted of the best model of a run on samples, and pixels to fit a temperature on, where the model gives them.

    `watchers` are called with each image, its prediction and its scores.
    """
    predictor = asked_fairly(run, Plan.read(run, own_modules=True), val)

    def watch(sample: Sample, prediction: Segmentation, scores: dict[str, float]) -> None:
        for each in watchers:
            each(sample, prediction, scores)

    tally = count_predictions(predictor, val, on_image=watch)
    has_logits = hasattr(predictor.task, "probabilities") and not getattr(predictor.network, "OUTPUT", "")
    if not has_logits or predictor.temperature != 1:
        return tally, None
    of_regions = not hasattr(predictor.task, "label_rows")  # a pixel may be in several
    return tally, pixel_sample(predictor.probabilities, predictor.task.dataset(val), of_regions=of_regions)


def chosen_inference(
    plan: Plan, trial: PostprocessTrial, tally: Tally, pixels: Sequence[PixelSample | None]
) -> tuple[Inference, tuple[str, ...]]:
    """How a trained network is to be asked from now on, and what is to be known of that, in sentences.

    What a person has set in the plan stays.
    """
    inference, told = plan.inference, tuple[str, ...]()
    if inference.postprocess == Postprocess():
        rules, told = trial.choice(image_groups(plan, tally))
        inference = replace(inference, postprocess=rules)
    given = [each for each in pixels if each is not None and len(each.truth)]
    if given:
        both = PixelSample(np.concatenate([each.logs for each in given]), np.concatenate([each.truth for each in given]))
        inference = replace(inference, temperature=fitted_temperature(both))
    return inference, told


def image_groups(plan: Plan, tally: Tally) -> list[int]:
    """A label for each image that was counted, the same for those of one group of the data set."""
    known = dataset_file.read(plan.data.val or plan.data.train)
    return group_labels([one.key for one in tally.counted], known.groups if known else ())


def note_inference(run: Path, inference: Inference) -> None:
    """Write how a network is to be asked into the plan in a folder, whose comments stay.

    Raises:
        OutputError: the folder cannot be written.
    """
    document = tomlkit.parse((run / PLAN_FILE).read_text(encoding="utf-8"))
    table = document.get("inference")
    if table is None:
        document["inference"] = table = tomlkit.table()
    table["temperature"] = inference.temperature
    if inference.postprocess != Postprocess():
        table["postprocess"] = table_of(inference.postprocess, "", {})
    if inference.calibration.is_needed:
        table["calibration"] = table_of(inference.calibration, "", {})
    if inference.quality != QualityCalibration():
        table["quality"] = table_of(inference.quality, "", {})
    replace_file(run / PLAN_FILE, tomlkit.dumps(document).encode())


def write_results(run: Path, data: str, scores: Scores, gallery: Gallery, log: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write scores.json and report.html into a folder that holds a plan for the data set `data`.

    Raises:
        OutputError: they cannot be written.
    """
    write_scores(run / SCORES_FILE, scores)
    write_report(
        run / REPORT_FILE,
        title=f"{Path(data).absolute().name}: {run.absolute().name}",
        scores=scores,
        log=log,
        examples=gallery.examples(),
        atlas=gallery.atlas,
        plan_text=(run / PLAN_FILE).read_text(encoding="utf-8"),
        footer=environment(),
    )


def environment() -> dict[str, str]:
    """What the run was made with."""
    return {
        "segwright": segwright.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }


def write_steps(run: Path, plan: Plan, minutes: float | None) -> None:
    """Write how many steps a run of so many minutes took into its plan, in the folder and in the model file.

    Without minutes it took those of its plan.
    """
    if minutes is None:
        return
    reasons = plan.reasons | {"training.steps": "as many as the minutes had room for"}
    done = replace(plan, training=replace(plan.training, steps=read_log(run)[-1]["step"]), reasons=reasons)
    replace_file(run / PLAN_FILE, done.to_toml().encode())
    replace(ModelFile.read(run / MODEL_FILE, own_modules=True), plan=done).write(run / MODEL_FILE)

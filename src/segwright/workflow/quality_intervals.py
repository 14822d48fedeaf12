"""How far off the Dice to expect is, measured with the runs that were just trained, each on samples that it held out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segwright.core import Dataset
from segwright.decoding.expected_dice import QualityCalibration
from segwright.evaluation.bootstrap import group_labels
from segwright.evaluation.conformal import DiceCases, always_held, dice_cases, fitted_quality, looked_at, told_of_quality
from segwright.formats import dataset_file
from segwright.inference.load import load
from segwright.inference.predictor import Predictor
from segwright.plans.plan import Inference, Plan
from segwright.tasks import TellsUncertainty
from segwright.training.first_stage import first_stage


def with_quality(
    inference: Inference, plan: Plan, held_out: Sequence[tuple[Path, Dataset]]
) -> tuple[Inference, tuple[str, ...]]:
    """How trained networks are to be asked, with what makes an interval of the Dice to expect; and what is to be known of it.

    `held_out` are the folders of runs, each with samples that it was not trained with, which are predicted once more, as
    `inference` says: at its temperature, and with its rules about pieces. What a person has set in the plan stays, and of tasks
    that do not know how sure a network is there is nothing to tell.
    """
    if not isinstance(plan.task, TellsUncertainty) or inference.quality != QualityCalibration():
        return inference, ()
    keys = [key for _, val in held_out for key in val.keys]
    wanted = {keys[index] for index in looked_at(len(keys))}
    parts = [(run, val.subset([key for key in val.keys if key in wanted])) for run, val in held_out]
    parts = [(run, data) for run, data in parts if len(data)]
    always = always_held([plan.task.dataset(data) for _, data in parts])
    cases, names = [], tuple[str, ...]()
    for run, data in parts:
        predictor = replace(
            asked_fairly(run, plan, data),
            temperature=inference.temperature,
            postprocess=inference.postprocess,
            quality=QualityCalibration(always=always),
        )
        seen = plan.task.dataset(data)
        cases.append(dice_cases(predictor.with_uncertainty, seen))
        names = seen.classes.names
    known = dataset_file.read(plan.data.val or plan.data.train)
    labels = group_labels(keys, known.groups if known else ())
    whole, label_of = DiceCases.joined(cases), dict(zip(keys, labels, strict=True))
    found = fitted_quality(whole, [label_of[key] for key in whole.keys], always)
    units = len({label_of[key] for key in whole.keys or keys})
    return replace(inference, quality=found), (told_of_quality(found, names, units),)


def asked_fairly(run: Path, plan: Plan, held_out: Dataset) -> Predictor:
    """The predictor of a run for samples that it held out; that of a cascade asks, of its first runs, who has not learnt them.

    `plan` is that of the run, or of the folds that it is one of.

    Raises:
        UsageError, FormatError: as `load` and `first_stage`.
    """
    predictor = load(run, own_modules=True)
    first = first_stage(plan, [held_out], run, own_modules=True)
    return predictor if first is None else replace(predictor, first=first)

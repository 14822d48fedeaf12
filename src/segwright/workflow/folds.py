"""Cross-validation: one plan, a run for each fold, and the scores of all samples, each predicted by the run that held it out.

Folds whose runs are trained are kept, so that a cross-validation that was stopped goes on where it was.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.checkpoints.model_file import ModelFile
from segwright.core.atomic_files import remove
from segwright.core.errors import FormatError
from segwright.core.run_files import MODEL_FILE, STATE_FILE
from segwright.data.splits import Splits, open_folds
from segwright.data.value_range import ValueRange
from segwright.evaluation.evaluate import Tally
from segwright.evaluation.postprocess_choice import PostprocessTrial
from segwright.evaluation.scores import Scores
from segwright.evaluation.temperature import PixelSample
from segwright.reports.gallery import Gallery
from segwright.training.loggers import logger
from segwright.training.loop import train
from segwright.training.run_dir import OnRecord, note_places, read_log
from segwright.workflow.before_after import with_differences
from segwright.workflow.quality_intervals import with_quality
from segwright.workflow.score_run import chosen_inference, counted, image_groups, note_inference, write_results, write_steps

log = logging.getLogger(__name__)


def resume_folds(
    folder: Path,
    data: str,
    *,
    loggers: Sequence[str] = (),
    watch: OnRecord | None = None,
    own_modules: bool = False,
    online: bool = False,
) -> Scores:
    """Go on with a cross-validation that was stopped or killed, and return the scores of all samples.

    `data` says where its samples lie now. The rest is as in `fit`.

    Raises:
        FormatError: the folder holds none, or its data cannot be read.
        UsageError: the data have changed.
    """
    folds = FoldsFolder.read(folder, own_modules=own_modules)
    folds = replace(folds, plan=replace(folds.plan, data=replace(folds.plan.data, train=data)))
    values = None
    with suppress(FormatError):  # of a first run that was not saved yet: it measures them
        values = ModelFile.read(folds.runs[0] / MODEL_FILE, own_modules=own_modules).values
    pieces = open_folds(data, folds.count, skip=folds.plan.data.skip)
    note_places(folder, folds.plan.data)
    return cross_validate(folds, pieces, values, loggers=loggers, watch=watch, own_modules=own_modules, online=online)


def cross_validate(
    folds: FoldsFolder,
    pieces: Sequence[Splits],
    values: ValueRange | None,
    *,
    loggers: Sequence[str] = (),
    watch: OnRecord | None = None,
    own_modules: bool = False,
    online: bool = False,
) -> Scores:
    """Train the runs of all folds, of which `pieces` are the samples, and return the scores of all of these.

    Each sample is predicted by the run that did not train with it. The folder then holds a report on all of them, and that of
    each run one on its own. `values` are those of the training images; the rest is as in `fit`.
    """
    each = f"{folds.plan.training.steps} steps" if folds.minutes is None else f"{folds.minutes:.3g} minutes"
    log.info("%s: %d folds of %s of training each", folds.folder, folds.count, each)
    for number, (run, splits) in enumerate(zip(folds.runs, pieces, strict=True)):
        is_begun = (run / STATE_FILE).exists()
        if not is_begun:
            remove(run)
        train(
            folds.plan_of(number),
            run,
            splits=splits,
            resume=is_begun,
            minutes=folds.minutes,
            watchers=[*(logger(name, run) for name in loggers), *_watchers(watch, number, folds.count)],
            own_modules=own_modules,
            online=online,
            values=values,
        )
        write_steps(run, folds.plan_of(number), folds.minutes)
    return _scored_together(folds, pieces)


def _watchers(watch: OnRecord | None, number: int, count: int) -> list[OnRecord]:
    """What passes the records of one run on as those of a part of all runs; none where nobody watches."""
    if watch is None:
        return []

    def pass_on(record: dict[str, Any]) -> None:
        share = {"progress": (number + min(record["progress"], 1.0)) / count} if "progress" in record else {}
        watch(record | share)

    return [pass_on]


def _scored_together(folds: FoldsFolder, pieces: Sequence[Splits]) -> Scores:
    """The scores of all samples, which are written with a report, as those of each run are.

    The temperature, the rules about pieces of classes, and intervals of the Dice to expect, which are for all runs together,
    come from all samples.
    """
    gallery, tallies, samples, main = Gallery(), list[Tally](), list[PixelSample | None](), list[float]()
    score, keys = folds.plan.task.score, [key for splits in pieces for key in splits.val.keys]
    trial = PostprocessTrial(score, len(keys))
    for run, splits in zip(folds.runs, pieces, strict=True):
        own = Gallery()
        tally, pixels = counted(run, splits.val, own, gallery, trial)
        scores = tally.scores()
        write_results(run, folds.plan.data.train, scores, own, read_log(run))
        tallies.append(tally)
        samples.append(pixels)
        main.append(scores.values[score])
    whole = Tally.merged(tallies, keys)
    inference, told = chosen_inference(folds.plan, trial, whole, samples)
    held_out = [(run, splits.val) for run, splits in zip(folds.runs, pieces, strict=True)]
    inference, of_quality = with_quality(inference, folds.plan, held_out)
    note_inference(folds.folder, inference)
    together = whole.scores()
    together = replace(together, notes=(*together.notes, *of_quality, _told(score, main), *told))
    parts = [splits.val for splits in pieces]
    together = with_differences(together, folds.folder, folds.plan, parts, whole, image_groups(folds.plan, whole))
    write_results(folds.folder, folds.plan.data.train, together, gallery)
    return together


def _told(score: str, values: Sequence[float]) -> str:
    """What must be known of scores of all folds, in sentences."""
    each, mean, deviation = ", ".join(f"{value:.4f}" for value in values), np.mean(values), np.std(values, ddof=1)
    return (
        f"Each image was predicted by the one of {len(values)} runs that had not seen it. {score} by fold: {each}; mean "
        f"{mean:.4f}, standard deviation {deviation:.4f}. All runs together, which answer as one model, have seen every image "
        "here, so that they cannot be measured on them."
    )

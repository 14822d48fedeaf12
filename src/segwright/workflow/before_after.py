"""How a model that was tuned differs from the one that it started from, on the same validation samples: a paired test.

Tuning can make a model worse, and its own score alone does not show it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from shlex import quote

import numpy as np
import torch

from segwright.core import Dataset
from segwright.core.errors import SegwrightError, UsageError
from segwright.evaluation.evaluate import Tally
from segwright.evaluation.ranking import p_text
from segwright.evaluation.scores import Scores, interval_text
from segwright.evaluation.significance import CONVENTION, Difference, differences
from segwright.planning.starting_model import StartingModel, starting_model
from segwright.plans.plan import Plan
from segwright.training.frozen import ENCODER
from segwright.training.resume import trained_with

RESAMPLES = 1000
SEED = 0  # of the swaps: the same predictions give the same p
CLAIM = 0.05  # the p up to which a difference is claimed
SLOWER = 4  # times the learning rate is to be lowered, as after a loss was lost

log = logging.getLogger(__name__)


def with_differences(
    scores: Scores, run: Path, plan: Plan, parts: Sequence[Dataset], after: Tally, labels: Sequence[int]
) -> Scores:
    """The scores of a run with how they differ from those of the model that it started from, or why that is not known.

    `parts` are the data sets that `after` was counted on, one after the other, and `labels` (N,) are equal for images of a
    group. A warning says if the main score is worse, by the paired test of that score alone. Scores of a run that started from
    no model stay as they are.
    """
    models = [starting_model(plan, part, own_modules=True) for part in parts]
    known = [model for model in models if model is not None]
    metric = next((name for name, wanted in after.counter.wanted.items() if plan.task.score in wanted), None)
    if not known or metric is None:
        return scores
    name, rows = known[0].name, list[Difference]()
    try:
        why = next((model.why_not for model in known if model.ask is None), "")
        rows = [] if why else _paired(known, plan.task.score, metric, after, labels)
    except SegwrightError as error:
        why = str(error)
    if not rows:
        return replace(scores, notes=(*scores.notes, f"There is no score before training, of {name}: {why.removesuffix('.')}."))
    learnt = [key for part in parts for key in trained_with(_folder(name), part)]
    told = _told(name, rows[0], len(set(labels)), learnt)
    if is_worse(rows[0]) and not learnt:
        log.warning(worse_warning(run, plan, rows[0]))
    conventions = scores.conventions | {"before and after": CONVENTION}
    return replace(scores, differences=tuple(rows), notes=(*scores.notes, told), conventions=conventions)


def _paired(models: Sequence[StartingModel], score: str, metric: str, after: Tally, labels: Sequence[int]) -> list[Difference]:
    """How the scores of a metric differ, first the main `score`, between models, each asked for its part, and what came after.

    Raises:
        SegwrightError: an image cannot be predicted, or there are too few to compare.
    """
    scores = sorted(after.counter.wanted[metric], key=lambda name: name != score)
    counted = [tally for model in models if (tally := model.count(scores)) is not None]
    before = Tally.merged(counted, [one.key for one in after.counted])
    pairs = [
        (one.states[metric], other.states[metric], label)
        for one, other, label in zip(before.counted, after.counted, labels, strict=True)
        if metric in one.states and metric in other.states  # an image without an object is in neither
    ]
    if not pairs:
        raise UsageError("no validation image holds what is scored; hold out images that do, such as with --val")
    first, second, groups = zip(*pairs, strict=True)
    generator = np.random.default_rng(SEED)
    return differences(after.counter.metrics[metric], first, second, RESAMPLES, generator, scores=scores, groups=groups)


def is_worse(row: Difference) -> bool:
    """Whether a score, of which more is better, is lower by more than chance explains."""
    return row.difference < 0 and row.p <= CLAIM


def _told(name: str, row: Difference, units: int, learnt: Sequence[str]) -> str:
    """The difference of the main score in some sentences."""
    if isnan(row.difference):
        return f"Training started from {name}, and no {row.score} of both can be compared on these images."
    between = interval_text(row.interval, "{:+.4f}".format) or "unknown"
    sentence = (
        f"Training started from {name}: {row.score} was {row.first:.4f} before and is {row.second:.4f} after, on the same "
        f"images ({row.difference:+.4f}, 95 % interval {between}, p {p_text(row.p)})."
    )
    if learnt:
        return f"{sentence} It had been trained with {len(learnt)} of them, such as {learnt[0]!r}: before is too good."
    if CLAIM * 2**units < 2:
        return f"{sentence} {units} images are too few to claim any difference: validate on more."
    return sentence if row.p <= CLAIM else f"{sentence} That may be chance."


def worse_warning(run: Path, plan: Plan, row: Difference) -> str:
    """What a person should know and do where tuning made a model worse."""
    settings = [f"optimiser.learning_rate={plan.optimiser.learning_rate / SLOWER:g}"]
    with torch.device("meta"):
        has_encoder = hasattr(plan.model.build(), ENCODER)
    if has_encoder and ENCODER not in plan.training.frozen:
        settings.append(f'training.frozen=["{ENCODER}"]')
    ways = " or ".join(f"--set {quote(setting)}" for setting in settings)
    return (
        f"{run} is worse than {plan.init.weights}, from which it was tuned: {row.score} {row.first:.4f} -> {row.second:.4f} on "
        f"the same images, p {p_text(row.p)}; keep {plan.init.weights}, or tune it again with {ways}"
    )


def _folder(name: str) -> Path:
    """The folder of a run that is named by it, or by its model file."""
    return Path(name) if Path(name).is_dir() else Path(name).parent

"""A warning while a class is never found although the truth holds it, and what to change then."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segwright.plans.plan import Plan
from segwright.tasks import WeighsClasses
from segwright.training.run_dir import start_anew

LEARNING = 1 / 3  # of a run, in which a class that is not found yet is no news
IN_A_ROW = 2  # validations, or the one at the end: one may have come just before the class was found
LARGER_SHARE = 0.67  # of the crops on a foreground class: twice what samplers do by themselves


def of_classes(values: Mapping[str, float], title: str) -> dict[str, float]:
    """The scores called TITLE/NAME by the names of the classes; without those of classes that no truth holds (NaN)."""
    named = ((score.partition("/"), value) for score, value in values.items())
    return {name: value for (own, _, name), value in named if own == title and name and value == value}


def collapse(records: Sequence[Mapping[str, Any]], plan: Plan, run: Path, fractions: Sequence[float]) -> dict[str, Any] | None:
    """The record that warns of classes of which no validation found anything since a third of the run; None without any.

    `records` are those of the run's log, the last of them a validation. Of each class it is told once. `fractions` (K,) are the
    shares of the pixels that classes have.
    """
    validations = [record for record in records if "recall" in record and record["progress"] >= LEARNING]
    if not validations or (len(validations) < IN_A_ROW and validations[-1]["progress"] < 1):
        return None
    told = {name for record in records for name in record.get("collapsed", ())}
    lost = [name for name in validations[-1]["recall"] if all(record["recall"].get(name) == 0 for record in validations)]
    names = [name for name in lost if name not in told]
    if not names:
        return None
    event = (
        f"nothing of {', '.join(map(repr, names))} was found at {len(validations)} validations in a row, and the truth holds "
        f"it: training has collapsed to the other classes; {start_anew(run, *remedies(plan, fractions))}"
    )
    return {"step": validations[-1]["step"], "event": event, "collapsed": names}


def remedies(plan: Plan, fractions: Sequence[float]) -> list[str]:
    """The settings that make a plan find rare classes sooner: crops on them, and a loss that counts them."""
    share = getattr(plan.sampler, "share", 0.0)
    if not share:
        first = "sampler.kind=foreground_patches"
    else:
        first = f"sampler.share={LARGER_SHARE}" if share < LARGER_SHARE else "sampler.kind=class_balanced_images"
    return [first, *(plan.task.against_collapse(fractions) if isinstance(plan.task, WeighsClasses) else ())]

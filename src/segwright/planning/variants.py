"""Variants of one plan, to be compared: what `--vary` says, multiplied into a grid, and the plan of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import NamedTuple

from segwright.core.errors import SettingError, UsageError
from segwright.core.lookup import did_you_mean, find
from segwright.data.splits import Fold, Splits
from segwright.models import preset
from segwright.planning.budget import Budget
from segwright.planning.planner import Planned, planned, varied
from segwright.planning.start import Wish, named_start
from segwright.plans.plan import Plan

UNCHANGED = "planned"  # the value that leaves what the planner chose, so that it can be compared with others
WORDS = ("loss", "sampler", "model", "init")  # short words for what people vary; all else goes by its path in the plan
EXAMPLES = "optimiser.learning_rate or sampler.share"
OWN_OPTIONS = {  # settings that all runs share, and what to use instead
    "seed": "each variant is trained with the same seeds: say how many with --seeds",
    "training.seed": "each variant is trained with the same seeds: say how many with --seeds",
    "training.steps": "each run takes the same minutes, or the same steps: say how many with --minutes or --steps",
    "task.kind": "all variants are scored alike: choose the task with --task",
    "training.device": "each run has the same machine: choose it with --device",
    "data.train": "all variants learn from the same samples: compare one data set at a time",
    "data.val": "all variants are scored on the same samples: choose them with --val",
    "data.fold": "all variants are scored on the same samples: choose them with --fold",
    "data.skip": "all variants learn from the same samples: take those to leave out out of the data set",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train: settings as `--set` takes them, a network by its name, and weights to start from as `--init` says."""

    name: str
    settings: tuple[str, ...] = ()
    model: str | None = None
    init: str | None = None


class _Choice(NamedTuple):
    """One value of something that is varied: how it is called in a table, and what it changes."""

    label: str
    settings: tuple[str, ...] = ()
    model: str | None = None
    init: str | None = None


def grid(vary: Sequence[str]) -> list[Variant]:
    """All combinations of what is varied: of ["loss=dice,focal", "sampler.share=0.3,0.6"] four, the last varied fastest.

    A text is NAME=VALUE,VALUE,...; NAME is loss, sampler, model, init, or the path of a setting of the plan. A loss "a+b" is
    the sum of both, each with weight 1. The value "planned" leaves what the planner chooses.

    Raises:
        UsageError: a name is misspelt or not to be varied, or there is nothing to compare.
    """
    axes = [_choices(text, vary) for text in vary]
    variants = [_joined(choices) for choices in product(*axes)]
    if len(variants) < 2:
        raise UsageError(
            f"--vary {' --vary '.join(vary) or 'is missing'}, which gives {len(variants) if vary else 'no'} variant; two are "
            "needed to compare: name several values, such as --vary loss=cross_entropy,dice"
        )
    return variants


def named(variants: Mapping[str, Sequence[str]]) -> list[Variant]:
    """The variants that a mapping of their names to their settings describes.

    Raises:
        UsageError: there are fewer than two, or a setting is not to be varied.
    """
    if len(variants) < 2:
        raise UsageError(f"{len(variants)} variants were given; two are needed to compare")
    for settings in variants.values():
        for setting in settings:
            check_common(setting.partition("=")[0].strip())
    return [Variant(name=name, settings=tuple(settings)) for name, settings in variants.items()]


def _joined(choices: Sequence[_Choice]) -> Variant:
    """The variant that takes all of these choices."""
    settings = tuple(setting for choice in choices for setting in choice.settings)
    model = next((choice.model for choice in choices if choice.model is not None), None)
    init = next((choice.init for choice in choices if choice.init is not None), None)
    return Variant(name=", ".join(choice.label for choice in choices), settings=settings, model=model, init=init)


def _choices(text: str, vary: Sequence[str]) -> list[_Choice]:
    """The values that one text names.

    Raises:
        UsageError: it is no assignment, a name is unknown or not to be varied, or a value stands there twice.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    values = _split(rest)
    if not equals or not name or not all(values):
        raise SettingError(f"--vary {text} names nothing to vary; write NAME=VALUE,VALUE, such as loss=cross_entropy,dice")
    twice = [value for value, count in Counter(values).items() if count > 1]
    twice += [each for each, count in Counter(other.partition("=")[0].strip() for other in vary).items() if count > 1]
    if twice:
        raise SettingError(f"--vary {text}: {twice[0]} is given twice; name each once, all values of one thing in one --vary")
    check_common(name)
    if name not in WORDS:
        _check_path(name)
    return [_choice(name, value) for value in values]


def check_common(name: str) -> None:
    """See that a setting is not one that all runs share by an option of its own.

    Raises:
        SettingError: it is.
    """
    if name in OWN_OPTIONS:
        raise SettingError(f"{name} is no setting of a comparison: {OWN_OPTIONS[name]}")


def _check_path(name: str) -> None:
    """See that a name can be the path of a setting.

    Raises:
        SettingError: it cannot.
    """
    parts = [part.name for part in fields(Plan) if part.name not in ("version", "reasons")]
    first, dot, _ = name.partition(".")
    if first not in parts or not dot:
        close = did_you_mean(name if not dot else first, [*WORDS, *parts])
        raise SettingError(
            f"there is no '{name}' to vary{close}; known are {', '.join(WORDS)}, and settings by their path in the plan, such "
            f"as {EXAMPLES}"
        )


def _choice(name: str, value: str) -> _Choice:
    """What one value of a name changes.

    Raises:
        UnknownNameError: there is no such loss, sampler or network.
    """
    if value == UNCHANGED:
        return _Choice(f"{UNCHANGED} {name.rpartition('.')[2]}")
    if name == "loss":
        return _Choice(value, loss_settings(value))
    if name == "sampler":
        find("segwright.data.samplers", value)
        return _Choice(value, (f"sampler.kind={value}",))
    if name == "model":
        preset(value)
        return _Choice(value, model=value)
    if name == "init":
        return _Choice(value, init=value)
    return _Choice(f"{name.rpartition('.')[2]}={value}", (f"{name}={value}",))


def loss_settings(value: str) -> tuple[str, ...]:
    """The settings of a loss by its name, or of the sum of several, "a+b", each with weight 1.

    Raises:
        UnknownNameError: there is no such loss.
    """
    names = [name.strip() for name in value.split("+")]
    for name in names:
        find("segwright.losses", name)
    if len(names) == 1:
        return (f"task.criterion.kind={value}",)
    terms, weights = ", ".join(f'{{kind = "{name}"}}' for name in names), ", ".join(["1.0"] * len(names))
    return (
        "task.criterion.kind=weighted_sum",
        f"task.criterion.terms=[{terms}]",
        f"task.criterion.weights=[{weights}]",
    )


def _split(text: str) -> list[str]:
    """The parts of a text between commas that stand in no brackets, braces or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        depth += (letter in "[{(") - (letter in "]})") if not quote else 0
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def variant_plans(
    data: str,
    variants: Sequence[Variant],
    *,
    val: str | None,
    fold: Fold | None,
    budget: Budget,
    task: str | None,
    model: str | None,
    wish: Wish,
    settings: Sequence[str],
) -> tuple[dict[str, Plan], Planned]:
    """The plan of each variant by its name, and the first that was made for the data alone.

    The data are looked at once, and planned for once; a variant replaces settings in that plan. For each network that a variant
    names there is a plan of its own, with the crop and the scale that go with it. All take as many validations.

    Raises:
        UsageError: the data cannot be used, a setting does not exist, or weights do not fit.
    """
    made: dict[tuple[str | None, str | None], Planned] = {}
    plans: dict[str, Plan] = {}
    splits: Splits | None = None
    for variant in variants:
        own = wish if variant.init is None else replace(wish, weights=variant.init)
        name = variant.model or model
        others = variant.init if name is None and _names_a_network(own) and variant.init is not None else None
        if (name, others) not in made:
            made[name, others] = planned(
                data,
                val=val,
                fold=fold,
                budget=budget,
                task=task,
                model=name,
                wish=wish if others is None else own,
                settings=settings,
                splits=splits,
                on_top=True,
            )
            splits = made[name, others].splits
        plans[variant.name] = varied(made[name, others], variant.settings, own, budget)
    if not any(each.startswith("training.validations") for variant in variants for each in variant.settings):
        fewest = min(plan.training.validations for plan in plans.values())
        plans = {name: replace(plan, training=replace(plan.training, validations=fewest)) for name, plan in plans.items()}
    return plans, next(iter(made.values()))


def _names_a_network(wish: Wish) -> bool:
    """Whether weights say which network they are of."""
    named = named_start(wish)
    return named is not None and named.network is not None

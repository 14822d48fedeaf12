"""Which loss, network, sampler or setting is better on somebody's data in their time: runs, side by side, and what they prove.

One plan is made for the data; each variant replaces settings in it; each variant is trained with the same seeds on the same
splits for the same minutes, and scored on the same images. What was finished is kept, so that a comparison that was stopped, or
is to have more seeds, goes on in its folder.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from segwright.checkpoints.model_file import ModelFile, read_tensors, write_tensors
from segwright.core.atomic_files import remove, replace_file
from segwright.core.errors import FormatError, OutputError, SettingError, UsageError
from segwright.core.run_files import MODEL_FILE, PLAN_FILE, SCORES_FILE, STATE_FILE
from segwright.core.strict_json import json_text
from segwright.data.splits import Fold, Splits, remembered
from segwright.evaluation.accumulate import Counter, chosen
from segwright.evaluation.bootstrap import group_labels
from segwright.evaluation.evaluate import Tally, count_predictions
from segwright.evaluation.ranking import CLAIM, Ranking, ranked
from segwright.evaluation.scores import write_scores
from segwright.formats import dataset_file
from segwright.inference.load import training_predictor
from segwright.metrics.accumulators import Sums
from segwright.planning.budget import Budget
from segwright.planning.start import Wish
from segwright.planning.variants import Variant, check_common, grid, named, variant_plans
from segwright.plans.plan import Plan
from segwright.reports.comparison_page import write_comparison
from segwright.training.first_stage import first_stage
from segwright.training.jobs import done, set_threads, threads_of
from segwright.training.loop import open_data, train
from segwright.training.run_dir import check_free, read_log
from segwright.workflow import environment, free_folder

FILE, STATES_FILE = "comparison.json", "states.safetensors"
MINUTES, SEEDS = 3.0, 3
SCORING = 0.99  # the share of a run that is done while it is scored
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+=,-")  # in names of folders, everywhere

log = logging.getLogger(__name__)

OnRun = Callable[[str, float, int, str | None], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What the runs of one variant did, by seed: steps, images seen, seconds of training; `failures` are by seed, in words."""

    name: str
    steps: tuple[int, ...]
    images_seen: tuple[int, ...]
    seconds: tuple[float, ...]
    failures: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was compared, in the order that was asked for, and the ranking of those variants whose runs all ended well.

    Each run took `minutes` of training, or `steps` where these were given. `images` are those that were scored.
    """

    folder: Path
    data: str
    minutes: float | None
    steps: int | None
    seeds: int
    images: int
    variants: tuple[Trained, ...]
    ranking: Ranking
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the numbers support, and what must be known to read them."""
        return (*self.ranking.sentences(), *self.notes)

    @property
    def convention(self) -> str:
        """How all numbers come about."""
        return self.ranking.convention(self.images, self.seeds)

    @property
    def has_failures(self) -> bool:
        """Whether a run failed."""
        return any(variant.failures for variant in self.variants)

    def to_json(self) -> str:
        """All of it as JSON text; NaN becomes null."""
        return json_text(self._table(), indent=1) + "\n"

    def _table(self) -> dict[str, Any]:
        table = asdict(self) | {"folder": str(self.folder), "sentences": self.sentences, "convention": self.convention}
        return table | {"variants": [asdict(each) for each in self.variants]}


def compare(
    data: str | Path,
    *,
    vary: Sequence[str] = (),
    variants: Mapping[str, Sequence[str]] | None = None,
    seeds: int = SEEDS,
    budget: Budget | None = None,
    steps: int | None = None,
    jobs: int = 1,
    val: str | Path | None = None,
    fold: Fold | None = None,
    task: str | None = None,
    model: str | None = None,
    init: str | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    watch: OnRun | None = None,
    online: bool = False,
    own_modules: bool = False,
) -> Comparison:
    """Train variants of one plan with the same seeds for the same time, and say which is better and how sure that is.

    `vary` is as in `["loss=dice,focal", "optimiser.learning_rate=0.001,0.003"]`, which makes four variants; `variants` names
    each with its settings instead. Each is trained with the seeds 0, 1, ... for `budget.minutes` of training (3 without one),
    or for so many `steps`, which repeats to the bit. `jobs` processes share the work, and the cores or the GPUs; a script that
    asks for several lies under `if __name__ == "__main__"`. What else is given is as in `fit`.

    The folder `out` (runs/compare-NAME-1, -2, ... without it) then holds a run for each variant and seed, comparison.json and
    report.html. Called again with it, what was finished is kept, and `seeds` may be more. `watch(run, share done, all runs,
    what went wrong or None)` is called while runs are under way, with 1 as the share once they are over.

    Raises:
        UsageError: the data, a name or a setting cannot be used, or the folder holds another comparison; nothing was trained.
    """
    budget = budget or Budget(minutes=MINUTES)
    named_variants = _checked(vary, variants, settings, seeds=seeds, steps=steps, jobs=jobs)
    places = {"data": str(data), "val": None if val is None else str(val), "fold": None if fold is None else list(fold)}
    shared = {"task": task, "model": model, "init": init, "settings": list(settings)}
    asked = _asked(places | shared, named_variants, budget, steps, jobs)
    folder = Path(out) if out is not None else free_folder(str(data), "compare-")
    log.info("%s: %s", folder, _told(len(named_variants), seeds, jobs, asked))
    wish = Wish(weights=init, online=online, own_modules=own_modules)
    plans, splits = _plans(folder, named_variants, asked, budget, jobs, wish)
    runs = _runs(folder, plans, seeds, asked["minutes"], wish)
    failures = _carried_out(runs, jobs, splits, watch)
    result = _gathered(folder, asked, plans, runs, splits, failures)
    _write(folder, asked, plans, result)
    _write_page(result, runs)
    return result


def _asked(
    given: Mapping[str, Any], variants: Sequence[Variant], budget: Budget, steps: int | None, jobs: int
) -> dict[str, Any]:
    """What a comparison is begun with, and goes on with only; JSON gives it back equal."""
    return {
        **given,
        "minutes": budget.minutes if steps is None else None,
        "steps": steps,
        "device": budget.chosen_device,
        "threads": threads_of(jobs) if steps is None else None,  # equal minutes are equal computing
        "variants": {each.name: [list(each.settings), each.model, each.init] for each in variants},
    }


def _plans(
    folder: Path, variants: Sequence[Variant], asked: Mapping[str, Any], budget: Budget, jobs: int, wish: Wish
) -> tuple[dict[str, Plan], Splits]:
    """The plan of each variant, as it is in the folder or made and written there, and the open data."""
    stored = _stored(folder, asked)
    if stored is not None:
        return stored, remembered(open_data(next(iter(stored.values()))))
    check_free(folder)
    plans, splits = _planned(variants, asked, budget, jobs, wish)
    _write(folder, asked, plans)
    return plans, splits


def _runs(folder: Path, plans: Mapping[str, Plan], seeds: int, minutes: float | None, wish: Wish) -> "list[_Run]":
    """A run for each variant and seed."""
    return [
        _Run(
            variant=name,
            seed=seed,
            plan=replace(plan, training=replace(plan.training, seed=seed)),
            folder=folder / folder_name(name) / f"seed-{seed}",
            minutes=minutes,
            online=wish.online,
            own_modules=wish.own_modules,
        )
        for name, plan in plans.items()
        for seed in range(seeds)
    ]


def _checked(
    vary: Sequence[str],
    variants: Mapping[str, Sequence[str]] | None,
    settings: Sequence[str],
    *,
    seeds: int,
    steps: int | None,
    jobs: int,
) -> list[Variant]:
    """The variants that are asked for.

    Raises:
        UsageError: there are none, or a number makes no sense.
    """
    for name, number in (("seeds", seeds), ("steps", steps), ("jobs", jobs)):
        if number is not None and number < 1:
            raise SettingError(f"{name} is {number}; give at least 1")
    for setting in settings:
        check_common(setting.partition("=")[0].strip())
    if variants is not None and vary:
        raise UsageError("vary and variants are given; variants name all that is compared: leave one of them out")
    return grid(vary) if variants is None else named(variants)


def _told(variants: int, seeds: int, jobs: int, asked: Mapping[str, Any]) -> str:
    """How much work there is, in a sentence."""
    runs, rounds = variants * seeds, -(-variants * seeds // jobs)
    each = f"{asked['minutes']:g} minutes" if asked["steps"] is None else f"{asked['steps']} steps"
    total = "" if asked["steps"] is not None else f", which makes {rounds * asked['minutes']:g} minutes"
    at_once = f", {jobs} at a time" if jobs > 1 else ""
    grid_of = f"{variants} variants x {_count(seeds, 'seed')}"
    return f"{grid_of} = {runs} runs of {each}{at_once}{total}; planning and scoring come on top"


def _count(number: int, thing: str) -> str:
    """A number of things in words."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _stored(folder: Path, asked: Mapping[str, Any]) -> dict[str, Plan] | None:
    """The plans of a comparison that was begun in a folder; None where there is none.

    Raises:
        OutputError: it is another one.
        FormatError: its file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(f"{folder} holds other files and no {FILE}; choose another folder with --out")
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        before = table["asked"]
        plans = {name: _plan_in(own, str(path)) for name, own in table["plans"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged ({error!r}); choose another folder with --out") from error
    others = [
        f"{name} {before.get(name)!r} there and {asked[name]!r} here" for name in asked if before.get(name) != asked[name]
    ]
    if others:
        raise OutputError(
            f"{folder} holds another comparison: {'; '.join(others)}. To go on with it, give what it began with, and seeds as "
            "many as you like; for another, choose another folder with --out"
        )
    return plans


def _planned(
    variants: Sequence[Variant], asked: Mapping[str, Any], budget: Budget, jobs: int, wish: Wish
) -> tuple[dict[str, Plan], Splits]:
    """The plan of each variant, made with the threads and the memory that a job has, and the open data."""
    threads = torch.get_num_threads()
    if jobs > 1 and (asked["device"] == "cpu" or torch.cuda.device_count() < jobs):
        budget = replace(budget, memory_gb=budget.memory_bytes / 2**30 / jobs)
    steps = [] if asked["steps"] is None else [f"training.steps={asked['steps']}"]
    try:
        if jobs > 1:
            set_threads(threads_of(jobs))
        plans, made = variant_plans(
            asked["data"],
            variants,
            val=asked["val"],
            fold=None if asked["fold"] is None else (asked["fold"][0], asked["fold"][1]),
            budget=budget,
            task=asked["task"],
            model=asked["model"],
            wish=wish,
            settings=[*asked["settings"], *steps],
        )
    finally:
        if jobs > 1:
            set_threads(threads)
    if steps:
        plans = {name: replace(each, training=replace(each.training, steps=asked["steps"])) for name, each in plans.items()}
    return plans, made.splits


def _write(folder: Path, asked: Mapping[str, Any], plans: Mapping[str, Plan], result: Comparison | None = None) -> None:
    """Write what is compared, and what came of it, as a whole.

    Raises:
        OutputError: the folder cannot be written.
    """
    table = {} if result is None else json.loads(result.to_json())
    texts = {name: {"toml": plan.to_toml(), "reasons": plan.reasons} for name, plan in plans.items()}
    table |= {"asked": asked, "plans": texts}
    replace_file(folder / FILE, (json_text(table, indent=1) + "\n").encode())


def _plan_in(table: Mapping[str, Any], source: str) -> Plan:
    """The plan that `_write` has written, with its reasons, which as comments would be lost."""
    return replace(Plan.from_toml(table["toml"], source=source, own_modules=True), reasons=dict(table["reasons"]))


def folder_name(variant: str) -> str:
    """A name of a folder for a variant, which is its own where all its letters are safe in one."""
    name = variant.replace(", ", ",")
    if set(name) <= SAFE and not name.startswith("."):
        return name
    return "".join(letter if letter in SAFE else "-" for letter in name).lstrip(".") + f"-{crc32(variant.encode()):08x}"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One variant and seed, and where its run lies."""

    variant: str
    seed: int
    plan: Plan
    folder: Path
    minutes: float | None
    online: bool
    own_modules: bool

    @property
    def name(self) -> str:
        """What it is called while it is under way."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether it was trained and scored; the scores are written last."""
        return (self.folder / SCORES_FILE).exists()

    def check(self) -> None:
        """See that what lies in its folder is of this plan.

        Raises:
            OutputError: it is not.
        """
        if (self.folder / PLAN_FILE).exists() and Plan.read(self.folder, own_modules=True) != self.plan:
            raise OutputError(
                f"{self.folder} holds a run by another plan than {FILE} above it; remove it, or choose another folder with "
                "--out"
            )


@dataclass(eq=False)
class _Trainer:
    """Trains and scores runs, whose data are opened once for all of them, here or in another process."""

    splits: Splits | None = None

    def __call__(self, run: _Run, tell: Callable[[float], None]) -> None:
        """Finish a run; one that was begun goes on from its last save."""
        splits = self.splits = self.splits or remembered(open_data(run.plan))
        is_begun = (run.folder / STATE_FILE).exists()
        if not is_begun:
            remove(run.folder)

        def watch(record: dict[str, Any]) -> None:
            if "progress" in record:
                tell(min(record["progress"], SCORING))

        train(
            run.plan,
            run.folder,
            splits=splits,
            resume=is_begun,
            minutes=run.minutes,
            watchers=[watch],
            own_modules=run.own_modules,
            online=run.online,
        )
        tally = _counted(run, splits)
        _write_states(run.folder / STATES_FILE, tally, run.plan.task.score)
        write_scores(run.folder / SCORES_FILE, tally.scores())


def _counted(run: _Run, splits: Splits) -> Tally:
    """What the metrics of the task count on the predictions of the best model of a run, asked as in training."""
    model = ModelFile.read(run.folder / MODEL_FILE, own_modules=True)
    network = model.plan.model.build()
    network.load_state_dict(model.weights)
    first = first_stage(run.plan, [splits.val], run.folder, own_modules=True)
    predictor = training_predictor(network, run.plan, model.classes, trained_on=model.values, first=first)
    return count_predictions(predictor, splits.val, metrics=[*run.plan.task.metrics, run.plan.task.score])


def _write_states(path: Path, tally: Tally, score: str) -> None:
    """Keep the numbers that were counted on each image for a score, where they are plain numbers."""
    (name,) = chosen([score])
    states = tally.states(name)
    if all(type(state) is Sums for state in states):
        keys = json_text([one.key for one in tally.counted])
        write_tensors(path, {"states": torch.from_numpy(np.stack([state.values for state in states]))}, {"keys": keys})


def _states(run: _Run, splits: Splits) -> list[Any]:
    """The states of each image for the score of the task, as they were kept, or counted again."""
    (name,) = chosen([run.plan.task.score])
    with suppress(FormatError, KeyError, ValueError):
        tensors, facts = read_tensors(run.folder / STATES_FILE)
        if json.loads(facts["keys"]) == list(splits.val.keys):
            return [Sums(values) for values in tensors["states"].numpy()]
    return _counted(run, splits).states(name)


def _carried_out(runs: Sequence[_Run], jobs: int, splits: Splits, watch: OnRun | None) -> dict[str, str]:
    """What went wrong, by the name of the run, once all runs are over that were not finished before."""
    for run in runs:
        run.check()
    open_runs = [run for run in runs if not run.is_finished]
    if len(open_runs) < len(runs):
        log.info("%d of %d runs are finished already", len(runs) - len(open_runs), len(runs))

    def tell(run: _Run, share: float, failure: str | None = None) -> None:
        if watch is not None:
            watch(run.name, share, len(runs), failure)

    for run in runs:
        if run.is_finished:
            tell(run, 1.0)
    failures = {}
    trainer = _Trainer(splits if jobs == 1 else None)
    device = runs[0].plan.training.device
    for run, failure in done(trainer, open_runs, jobs, device=device, told=tell):
        tell(run, 1.0, failure)
        if failure is not None:
            failures[run.name] = failure
            log.warning("%s: %s", run.name, failure)
    return failures


def _gathered(
    folder: Path,
    asked: Mapping[str, Any],
    plans: Mapping[str, Plan],
    runs: Sequence[_Run],
    splits: Splits,
    failures: Mapping[str, str],
) -> Comparison:
    """What all runs come to."""
    task = next(iter(plans.values())).task
    val = task.dataset(splits.val)
    counter = Counter.of(chosen([task.score]), val.classes)
    (metric,) = counter.metrics.values()
    by_variant = {name: [run for run in runs if run.variant == name] for name in plans}
    whole = {name: own for name, own in by_variant.items() if not any(run.name in failures for run in own)}
    states = {name: [_states(run, splits) for run in own] for name, own in whole.items()}
    known = dataset_file.read(asked["val"] or asked["data"])
    groups = group_labels(val.keys, known.groups if known else ())
    ranking = (
        ranked(metric, states, task.score, groups=groups) if states else Ranking(score=task.score, standings=(), pairings=())
    )
    return Comparison(
        folder=folder,
        data=asked["data"],
        minutes=asked["minutes"],
        steps=asked["steps"],
        seeds=len(runs) // len(plans),
        images=len(val),
        variants=tuple(_trained(name, own, failures) for name, own in by_variant.items()),
        ranking=ranking,
        notes=tuple(_notes(by_variant, failures, ranking, len(set(groups)))),
    )


def _trained(name: str, runs: Sequence[_Run], failures: Mapping[str, str]) -> Trained:
    """What the runs of a variant did, from their logs."""
    logs = [read_log(run.folder) for run in runs]
    steps = tuple(max((record["step"] for record in log), default=0) for log in logs)
    return Trained(
        name=name,
        steps=steps,
        images_seen=tuple(count * run.plan.training.batch_size for count, run in zip(steps, runs, strict=True)),
        seconds=tuple(max((record.get("seconds", 0.0) for record in log), default=0.0) for log in logs),
        failures={run.seed: failures[run.name] for run in runs if run.name in failures},
    )


def _notes(runs: Mapping[str, Sequence[_Run]], failures: Mapping[str, str], ranking: Ranking, units: int) -> Iterator[str]:
    """What must be known to read the numbers: of `units` images, or groups of them, how little can be claimed, and so on."""
    failed = [name for name, own in runs.items() if any(run.name in failures for run in own)]
    for name in failed:
        first = next(run for run in runs[name] if run.name in failures)
        yield f"{name} is left out of the ranking, as a run failed ({first.name}: {failures[first.name]})."
    if len(ranking.standings) < 2:
        yield "Fewer than two variants are left, so that nothing can be compared."
        return
    if len(next(iter(runs.values()))) == 1:
        yield (
            "Seeds were not varied: how far scores differ from seed to seed is unknown, so that what is claimed holds for "
            "these trained networks, and may not for their settings. Give --seeds 3 or more to claim it for settings."
        )
    if 2 * len(ranking.pairings) > CLAIM * 2**units:
        yield (
            f"{units} images are too few to claim a difference between {len(ranking.standings)} variants, however large it is: "
            "validate on more, for example with --fold 0/2, or compare fewer variants."
        )


def _write_page(result: Comparison, runs: Sequence[_Run]) -> None:
    """Write report.html.

    Raises:
        OutputError: it cannot be written.
    """
    logs = {each.name: [read_log(run.folder) for run in runs if run.variant == each.name] for each in result.variants}
    write_comparison(
        result.folder / "report.html",
        title=f"{Path(result.data).name}: {result.folder.name}",
        ranking=result.ranking,
        lead=f"{len(result.variants)} variants, {_count(result.seeds, 'seed')} each, on {_count(result.images, 'image')}.",
        notes=result.notes,
        convention=result.convention,
        efforts={each.name: (float(np.mean(each.steps)), float(np.mean(each.images_seen))) for each in result.variants},
        logs=logs,
        footer=environment(),
    )

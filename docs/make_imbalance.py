"""Makes docs/imbalance.md: what each remedy against rare classes is worth on three data sets, by `segwright.compare`.

python docs/make_imbalance.py                                         the page, from what was measured before
python docs/make_imbalance.py --run camvid membrane --minutes 3 --seeds 3      compares first, and keeps the results
python docs/make_imbalance.py --run all --only cross_entropy dice --jobs 2     some remedies alone; cross_entropy is always one

Results lie in docs/imbalance.jsonl, a row for each comparison, of which the last of equal data set, minutes, seeds, remedies
and machine counts. The runs lie in runs/imbalance-..., so that a comparison that was stopped goes on. A remedy whose loss or
sampler this version does not have is left out with a line.
"""

import argparse
import json
import logging
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args
from zlib import crc32

import torch

from segwright.comparison import Comparison, compare
from segwright.core.lookup import names
from segwright.data.class_weights import Rule
from segwright.data.splits import Fold
from segwright.evaluation.bootstrap import LEVEL
from segwright.evaluation.ranking import Pairing, p_text
from segwright.evaluation.scores import interval_text, without_nan
from segwright.evaluation.significance import holm
from segwright.planning.budget import Budget
from segwright.planning.variants import loss_settings
from segwright.plans.plan import Plan

HERE = Path(__file__).parent
OUT, RESULTS = HERE / "imbalance.md", HERE / "imbalance.jsonl"
DATA = HERE.parent.parent / "shared" / "data"
BASELINE = "cross_entropy"
LOSSES = (
    "cross_entropy",
    "dice",
    "cross_entropy+dice",
    "generalised_dice",
    "focal",
    "tversky",
    "focal_tversky",
    "ohem",
    "top_k",
)
SHARES = (1 / 3, 2 / 3)  # of the crops on a class, where a sampler has such a setting
UNIFORM = "sampler.kind=uniform"
WITH_SHARE = ("class_balanced", "foreground_patches")
PLANNED = "what the planner chooses"
USUAL = (  # that are compared where --only names none: of like ones the one that is known best
    *(BASELINE, "dice", "cross_entropy+dice", "focal", "tversky", "ohem", "cross_entropy, root weights"),
    *("cross_entropy, class_balanced 0.33", "cross_entropy, foreground_patches 0.33", PLANNED),
)
ALL = "all"


@dataclass(frozen=True)
class Case:
    """A data set of ../shared: its folder, where it is validated, and the classes that people compare remedies for."""

    train: str
    rare: tuple[str, ...]
    what: str
    val: str | None = None
    fold: Fold | None = None


CASES = {
    "camvid": Case(
        "camvid/train",
        ("Pole", "SignSymbol", "Bicyclist"),
        "frames of roads in 11 classes, scored on another clip; neighbouring frames are alike, so intervals are too narrow",
        val="camvid/val",
    ),
    "hippocampus": Case("hippocampus", ("Anterior", "Posterior"), "MR volumes of 2 small structures and background"),
    "membrane": Case(
        "membrane",
        ("background",),
        "electron micrographs of cells, whose background are their membranes; the first half of the stack is held out, as of "
        "fewer slices no difference could be claimed",
        fold=(0, 2),
    ),
}

OPENING = """# What remedies against rare classes are worth

*Made by `python docs/make_imbalance.py`, whose numbers these are.*

A class that fills few pixels is few of the terms of a loss that is averaged over pixels. What is done about that: losses that
count classes and not pixels, weights, losses that look at what is hard, and crops that are centred on rare classes. Which of
them helps depends on the data, on the score, and on the time; this page says what each is worth beside plain cross-entropy with
crops from anywhere, on three data sets, where all else is what the planner chooses.

Each remedy was trained with the same seeds for the same minutes, on the same samples, by `segwright.compare`. A difference is
that of the means over seeds; its 95 % interval is over images and over seeds, and p allows (Holm) for all remedies of a table,
for single classes for all remedies and the classes shown. Bold is what may be claimed (p up to 0.05).
"""


def main() -> None:
    """Compare what is asked for, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", nargs="+", default=[], metavar="DATA", help=f"{', '.join(CASES)}, or {ALL}: compared first")
    parser.add_argument("--only", nargs="+", metavar="REMEDY", help="some by their names; else the usual ones")
    parser.add_argument("--minutes", type=float, default=3.0, help="of training for each run")
    parser.add_argument("--steps", type=int, help="steps of each run, instead of minutes: for a look at whether all works")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="+", default=[], metavar="PATH=VALUE", help="settings of all plans")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where the runs lie")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # it tells the precision of each run
    for name in CASES if ALL in arguments.run else arguments.run:
        if not (DATA / CASES[name].train).exists():
            sys.stderr.write(f"{name} is left out, as {DATA / CASES[name].train} is not there\n")
            continue
        result = measured(name, arguments)
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(without_nan(result)) + "\n")
    arguments.out.write_text("\n".join(page(results(arguments.results))) + "\n", encoding="utf-8")


def measured(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One comparison, as a row of results."""
    case = CASES[name]
    places = {"val": str(DATA / case.val) if case.val else None, "fold": case.fold}
    known = remedies(arguments.only)
    text = json.dumps([known, arguments.minutes, arguments.steps, arguments.set])
    found = compare(
        DATA / case.train,
        variants=known,
        seeds=arguments.seeds,
        budget=Budget(minutes=arguments.minutes, device=arguments.device),
        steps=arguments.steps,
        jobs=arguments.jobs,
        out=arguments.folder / f"imbalance-{name}-{crc32(text.encode()):08x}",  # other remedies are another comparison
        settings=arguments.set,
        watch=lambda run, share, count, failure: share == 1 and sys.stderr.write(f"{name}: {run} {failure or 'is done'}\n"),
        **places,
    )
    return row_of(name, found) | {"machine": machine(), "versions": f"torch {torch.__version__}"}


def remedies(only: Sequence[str] | None) -> dict[str, list[str]]:
    """The settings of each remedy by its name, of those that this version has; each is one change of plain cross-entropy."""
    losses, samplers = names("segwright.losses"), names("segwright.data.samplers")
    table: dict[str, Callable[[], list[str]]] = {}
    for loss in LOSSES:
        if set(loss.split("+")) <= set(losses):
            table[loss] = lambda loss=loss: [*loss_settings(loss), UNIFORM]
        elif loss in USUAL:
            sys.stderr.write(f"{loss} is left out, as this version has no such loss\n")
    for rule in get_args(Rule):
        one, both = loss_settings("cross_entropy"), loss_settings("cross_entropy+dice")
        name = f"{rule.replace('_', ' ')} weights"
        table[f"cross_entropy, {name}"] = lambda rule=rule, one=one: [*one, f"task.criterion.class_weights={rule}", UNIFORM]
        terms = f'task.criterion.terms=[{{kind="cross_entropy", class_weights="{rule}"}}, {{kind="dice"}}]'
        table[f"cross_entropy+dice, {name}"] = lambda terms=terms, both=both: [both[0], terms, *both[2:], UNIFORM]
    for sampler in samplers:
        for share in SHARES if sampler in WITH_SHARE else (None,):
            if sampler != "uniform":
                own = [f"sampler.kind={sampler}", *([f"sampler.share={share}"] if share is not None else [])]
                text = f"cross_entropy, {sampler}{'' if share is None else f' {share:.2f}'}"
                table[text] = lambda own=own: [*loss_settings("cross_entropy"), *own]
    table[PLANNED] = list
    wrong = [name for name in only or [] if name not in table]
    if wrong:
        raise SystemExit(f"there is no remedy {wrong[0]!r} here; known are {', '.join(table)}")
    return {name: make() for name, make in table.items() if name in (USUAL if only is None else (BASELINE, *only))}


def row_of(name: str, found: Comparison) -> dict[str, Any]:
    """What is kept of a comparison: each remedy, and how it differs from the baseline."""
    score = found.ranking.score
    rare = [each for each in found.ranking.class_scores if each.partition("/")[2] in CASES[name].rare]
    standings = {each.name: each for each in found.ranking.standings}
    against = {each.name: against_baseline(found, each.name) for each in found.ranking.standings if each.name != BASELINE}
    return {
        "data": name,
        "minutes": found.minutes,
        "steps": found.steps,
        "seeds": found.seeds,
        "images": found.images,
        "score": score,
        "classes": rare,
        "notes": list(found.notes),
        "plan": plan_facts(found),
        "remedies": {
            each.name: {
                "steps": each.steps,
                "images_seen": each.images_seen,
                "values": {n: standings[each.name].values[n] for n in (score, *rare)} if each.name in standings else {},
                "by_seed": standings[each.name].by_seed[score] if each.name in standings else [],
                "differences": {
                    row.score: {key: value for key, value in asdict(row).items() if key in ("difference", "interval", "p")}
                    for row in (against[each.name].differences if against.get(each.name) else ())
                    if row.score in (score, *rare)
                },
            }
            for each in found.variants
        },
    }


def against_baseline(found: Comparison, name: str) -> Pairing | None:
    """How a remedy differs from the baseline; None where one of them has no score."""
    for pairing in found.ranking.pairings:
        if {pairing.first, pairing.second} == {name, BASELINE}:
            return pairing if pairing.second == name else pairing.turned()
    return None


def plan_facts(found: Comparison) -> str:
    """What all remedies have in common, in words."""
    plan = Plan.read(next(found.folder.rglob("seed-0/plan.toml")).parent)
    crop = " x ".join(map(str, plan.training.crop))
    network = type(plan.model).__module__.rsplit(".", maxsplit=1)[-1]
    start = "random weights" if plan.init.weights is None else str(plan.init.weights)
    return f"{network} from {start}, batches of {plan.training.batch_size} crops of {crop}"


def machine() -> str:
    """The processor, as Linux names it, and how much of it is used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} core{'s' * (cores != 1)}, {models[0] if models else platform.processor() or platform.machine()}"


def results(path: Path) -> list[dict[str, Any]]:
    """What was measured before, the last of equal rows."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    newest = {tuple(map(str, (row["data"], row["minutes"], row["steps"], row["seeds"], *row["remedies"]))): row for row in rows}
    return sorted(newest.values(), key=lambda row: list(CASES).index(row["data"]))


def page(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of the whole page."""
    yield OPENING
    for row in rows:
        case = CASES[row["data"]]
        minutes = f"{row['minutes']:g} minute{'' if row['minutes'] == 1 else 's'}"
        effort = minutes if row["steps"] is None else f"{row['steps']} steps"
        yield f"\n## {row['data']}\n"
        seeds = f"{row['seeds']} seed{'s' * (row['seeds'] != 1)}"
        yield f"{case.what[0].upper()}{case.what[1:]}. {effort} of training on {row['machine']}, {seeds},"
        yield f"scored on {row['images']} images; {row['plan']}.\n"
        yield from table(row)
        yield ""
        yield from sentences(row)
        yield from (f"* {note}" for note in row["notes"])


def adjusted(row: Mapping[str, Any], scores: Sequence[str]) -> dict[tuple[str, str], float]:
    """The p-values of all remedies in these scores, by remedy and score, which allow for all of them."""
    places = [(name, score) for name, own in row["remedies"].items() for score in scores if score in own["differences"]]
    p_values = [row["remedies"][name]["differences"][score]["p"] for name, score in places]
    return dict(zip(places, holm([math.nan if p is None else p for p in p_values]), strict=True))


def table(row: Mapping[str, Any]) -> Iterator[str]:
    """A line per remedy: its score, and how it and the rare classes differ from the baseline."""
    score, rare = row["score"], row["classes"]
    p_holm = adjusted(row, [score]) | adjusted(row, rare)
    heads = [f"{each.partition('/')[2]} ({each.partition('/')[0]})" for each in rare]
    yield f"| remedy | {score} | beside {BASELINE} | p | {' | '.join(heads)} | images seen |"
    yield f"|---|--:|---|--:|{'---|' * len(heads)}--:|"
    order = sorted(row["remedies"].items(), key=lambda item: -(item[1]["values"].get(score) or -1))
    for name, own in order:
        cells = [name, f"{own['values'][score]:.3f}" if own["values"].get(score) is not None else "failed"]
        cells += [change(own, score, p_holm.get((name, score)))]
        cells += [p_text(p_holm[name, score]) if (name, score) in p_holm else ""]
        for each in rare:
            value = own["values"].get(each)
            shown = "-" if value is None else f"{value:.3f}"
            cells += [
                f"{shown} {f'({change(own, each, p_holm.get((name, each)))})' if each in own['differences'] else ''}".strip()
            ]
        cells += [f"{sum(own['images_seen']) / len(own['images_seen']):.0f}"]
        yield f"| {' | '.join(cells)} |"


def change(own: Mapping[str, Any], score: str, p: float | None) -> str:
    """A difference with its interval, bold where it may be claimed; empty for the baseline."""
    known = own["differences"].get(score)
    if known is None:
        return ""
    if known["difference"] is None:
        return "-"
    ends = (math.nan if end is None else end for end in known["interval"])
    low, high = ends
    text = f"{known['difference']:+.3f}"
    between = interval_text((low, high), lambda end: f"{end:+.3f}")
    return f"{f'**{text}**' if p is not None and p <= 1 - LEVEL else text}{f', {between}' if between else ''}"


def sentences(row: Mapping[str, Any]) -> Iterator[str]:
    """What the numbers support, as a list."""
    score = row["score"]
    own = adjusted(row, [score])
    rows = {name: row["remedies"][name]["differences"][score] for name, _ in own}
    claimed = {name: rows[name]["difference"] for (name, _), p in own.items() if p <= 1 - LEVEL}
    better = [f"{name} (by {gain:.3f})" for name, gain in sorted(claimed.items(), key=lambda item: -item[1]) if gain > 0]
    worse = [f"{name} (by {-gain:.3f})" for name, gain in sorted(claimed.items(), key=lambda item: item[1]) if gain < 0]
    rest = [name for name in rows if name not in claimed]
    if better:
        yield f"* In {score}, better than plain cross-entropy: {'; '.join(better)}."
    if worse:
        yield f"* In {score}, worse than plain cross-entropy: {'; '.join(worse)}."
    if rest:
        yield f"* In {score}, no difference from plain cross-entropy can be claimed for: {'; '.join(rest)}."
    of_classes = adjusted(row, row["classes"])
    for each in row["classes"]:
        found = {name: row["remedies"][name]["differences"][each]["difference"] for name, s in of_classes if s == each}
        sure = {name: gain for name, gain in found.items() if of_classes[name, each] <= 1 - LEVEL and gain is not None}
        helped = [f"{name} ({gain:+.3f})" for name, gain in sorted(sure.items(), key=lambda item: -item[1])]
        yield f"* {each.partition('/')[2]}: {'; '.join(helped) if helped else 'no difference can be claimed'}."


if __name__ == "__main__":
    main()

"""`segwright compare`: which loss, network, sampler or setting is better on these data in this time, and how sure that is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # loading it takes longer than `segwright --help` may
    from segwright.comparison import Comparison

VARY = (
    "What to vary: loss, sampler, model, init, or the path of a setting, with its values; several are multiplied. a+b is the "
    "sum of two losses, planned what the planner chooses."
)
FAILURE = 1  # the exit code where a run failed


def run(
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    vary: Annotated[list[str] | None, typer.Option(metavar="NAME=A,B", help=VARY)] = None,
    minutes: Annotated[float, typer.Option(help="Time that each run trains; with --steps what the plan is made for.")] = 3.0,
    steps: Annotated[int | None, typer.Option(help="Steps that each run takes instead, which repeats to the bit.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each variant.")] = 3,
    jobs: Annotated[int, typer.Option(help="Runs at a time, which share the cores, or the GPUs.")] = 1,
    val: Annotated[str | None, typer.Option(help="Validation data; without it a part of DATA is held out.")] = None,
    fold: Annotated[str | None, typer.Option(help="0/5 holds out the first of five pieces of DATA, to validate on.")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory that training may take, all runs at a time together.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    task: Annotated[
        str | None, typer.Option(help="What to learn: semantic, instance, panoptic, promptable, or a module, package.module.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A network by name, for all variants; see: segwright models.")] = None,
    init: Annotated[str | None, typer.Option(help="Weights to start from, for all variants: a file, a run, a name.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to begin or to go on in; else runs/compare-NAME-1, -2, ...")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="path=value, replaces a setting of all plans.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    own_modules: Annotated[
        bool, typer.Option("--own-modules", help="Let a model to start from name modules outside segwright.")
    ] = False,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights to start from that are not on this machine.")] = False,
) -> None:
    """Train variants of one plan with the same seeds for the same minutes, and say which is better as far as numbers allow.

    Called again with --out FOLDER, what was finished is kept.
    """
    from segwright.cli.terminal import parsed_fold
    from segwright.comparison import compare
    from segwright.planning.budget import Budget

    with _runs(f"compare {data}") as watch:
        result = compare(
            data,
            vary=vary or [],
            seeds=seeds,
            budget=Budget(minutes=minutes, memory_gb=memory_gb, device=device),
            steps=steps,
            jobs=jobs,
            val=val,
            fold=parsed_fold(fold),
            task=task,
            model=model,
            init=init,
            out=out,
            settings=settings or [],
            watch=watch,
            online=online,
            own_modules=own_modules,
        )
    if json:
        typer.echo(result.to_json(), nl=False)
    else:
        _print(result)
    if result.has_failures:
        sys.exit(FAILURE)


@contextmanager
def _runs(title: str) -> Iterator[Callable[[str, float, int, str | None], None]]:
    """A bar over all runs, with the names of those under way; it is fed with a run, its share done, all runs, a failure."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(title, total=1.0, facts="planning")
        shares: dict[str, float] = {}

        def watch(name: str, share: float, count: int, failure: str | None) -> None:
            shares[name] = share
            under_way = [each for each, own in shares.items() if own < 1]
            progress.update(bar, completed=sum(shares.values()) / count, facts="; ".join(under_way))

        yield watch


def _print(result: "Comparison") -> None:
    """A row per variant, best first, a row per class, and what can be said."""
    from math import nan

    from rich.console import Console
    from rich.text import Text

    from segwright.cli.terminal import MOST_COLUMNS, print_table
    from segwright.evaluation.ranking import p_text
    from segwright.evaluation.scores import interval_text

    ranking, score = result.ranking, result.ranking.score
    standings, others = {each.name: each for each in ranking.standings}, ranking.against_best
    trained = {each.name: each for each in result.variants}
    rows, efforts = [], []
    for name in [*standings, *(name for name in trained if name not in standings)]:
        cells = ["failed", "-", "-", "-", "-"]
        if name in standings:
            each = standings[name]
            seeds = each.by_seed[score]
            between = interval_text(each.intervals.get(score, (nan, nan)), _short) or "-"
            cells = [_short(each.values[score]), between, f"{_short(min(seeds))} to {_short(max(seeds))}", "best", "-"]
        if name in others:
            row = others[name].differences[0]
            cells[3:] = [f"{-row.difference:+.3f}", p_text(row.p_holm)]
        rows.append([name, *cells])
        runs = trained[name]
        means = (sum(own) / len(own) for own in (runs.seconds, runs.steps, runs.images_seen))
        efforts.append([name, *(f"{mean:.0f}" for mean in means)])
    print_table(["variant", score, "95 % interval", "seeds", "to best", "p (Holm)"], rows)
    print_table(["a run of", "seconds", "steps", "images seen"], efforts)
    classes = [name for name in ranking.class_scores if any(own.values[name] == own.values[name] for own in standings.values())]
    for first in range(0, len(standings) if classes else 0, MOST_COLUMNS):
        shown = list(standings.values())[first : first + MOST_COLUMNS]
        table = [[name.partition("/")[2], *(_short(own.values[name]) for own in shown)] for name in classes]
        print_table([classes[0].partition("/")[0], *(own.name for own in shown)], table)
    for sentence in result.sentences:
        typer.echo(sentence)
    Console().print(Text(f"\n{result.convention}", style="dim"))
    typer.echo(f"report   {result.folder / 'report.html'}")


def _short(value: float) -> str:
    """A score with three digits, so that a table fits a terminal; a dash where nothing could be measured."""
    return f"{value:.3f}" if value == value else "-"

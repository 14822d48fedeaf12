"""What the commands show on a terminal: results on stdout, progress on stderr."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from segwright.core.errors import OutputError, SettingError

if TYPE_CHECKING:  # loading the scores takes longer than `segwright --help` may
    from segwright.evaluation.scores import Scores
    from segwright.evaluation.significance import Difference
    from segwright.plans.plan import Plan

MOST_COLUMNS = 6  # of scores per class in one table: it fits a terminal of 80 letters


def is_first_process() -> bool:
    """Whether this is the process that shows, scores and reports, where torchrun has started several."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _telling_how_to_go_on(run: Path) -> Iterator[None]:
    """A context that, when somebody stops it, says how its run goes on, if it can."""
    try:
        yield
    except KeyboardInterrupt:
        from segwright.plans.commands import command
        from segwright.training.run_dir import is_saved

        way = f"go on with {run} by: {command('train', '--resume', run, plan=run)}"
        typer.echo(way if is_saved(run) else f"nothing was saved in {run} yet, so that it cannot go on: begin anew", err=True)
        raise


@contextmanager
def training_progress(title: str, run: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with time left, loss and score; it is fed with the records of the log of a run."""
    columns = (
        TextColumn("{task.description}", markup=False),  # names of files and classes may look like markup, [red] or [/]
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    bars = Progress(*columns, console=Console(stderr=True), disable=not is_first_process())
    with _telling_how_to_go_on(run), bars as progress:
        bar = progress.add_task(title, total=1.0, facts="")
        latest: dict[str, float] = {}

        def watch(record: dict[str, Any]) -> None:
            latest.update({"loss": record["loss"]} if "loss" in record else {})
            latest.update({record["metric"]: record["score"]} if "score" in record else {})
            if "event" in record:
                progress.console.print(record["event"], markup=False)
            facts = "  ".join(f"{name} {value:.3f}" for name, value in latest.items())
            progress.update(bar, completed=min(1.0, record.get("progress", progress.tasks[0].completed)), facts=facts)

        yield watch
        progress.update(bar, completed=1.0)


@contextmanager
def working(title: str) -> Iterator[None]:
    """A spinner while something of unknown length is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(title)
        yield


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per step; it is fed with the name of the step, the number of samples done and of all."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not is_first_process()) as progress:
        bars: dict[str, TaskID] = {}

        def watch(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(step, total=total)
            progress.update(bars[step], completed=done + 1)

        yield watch


def parsed_fold(text: str | None) -> tuple[int, int] | None:
    """The numbers of an option --fold such as 0/5.

    Raises:
        SettingError: it is written otherwise.
    """
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise SettingError(f"--fold is '{text}'; write which fold of how many, from 0 on, such as --fold 0/5")
    return int(number), int(count)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: words to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, name in enumerate(header):
        is_number = any(row[index].lstrip("+-")[:1].isdigit() for row in rows)
        whole = max((len(row[0]) for row in rows), default=0) if index == 0 else None  # a name that is cut says nothing
        table.add_column(Text(name), justify="right" if is_number else "left", min_width=whole)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table, "")


def metric_names(metrics: str) -> list[str]:
    """The names of an option --metrics.

    Raises:
        UnknownNameError: one is misspelt; it is told before a long work begins.
    """
    from segwright.evaluation.accumulate import chosen

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    chosen(names)
    return names


def show(scores: "Scores", out: Path | None, *, as_json: bool) -> None:
    """Print scores, as tables or as JSON, and write them into a file if there is one to write.

    Raises:
        OutputError: it cannot be written.
    """
    from segwright.evaluation.scores import write_scores

    if out is not None:
        write_scores(out, scores)
    if as_json:
        typer.echo(scores.to_json(), nl=False)
    else:
        print_scores(scores)


def show_run(run: Path, scores: "Scores") -> None:
    """Print the scores of a run that was just trained here, where its report lies, and how to go on with it."""
    print_scores(scores)
    typer.echo(f"report   {run / 'report.html'}")
    typer.echo(_next(run))


def _next(run: Path) -> str:
    """What to do with a model just trained: ask it about images or, if it answers prompts, point at what is meant.

    Folds whose answers have no mean cannot be asked together: the first of them is.
    """
    from segwright.checkpoints.folds_folder import fold_runs, is_folds_folder
    from segwright.models import tasks_of
    from segwright.plans.commands import command
    from segwright.plans.plan import Plan

    plan = Plan.read(run, own_modules=True)
    model = fold_runs(run)[0] if is_folds_folder(run) and not _has_mean(plan) else run
    if "promptable" in tasks_of(plan.model):
        return f"segment  {command('segment', 'IMAGE', '--model', model, '--point', 'x,y', plan=run)}"
    return f"predict  {command('predict', model, 'IMAGES', plan=run)}"


def _has_mean(plan: "Plan") -> bool:
    """Whether the answers of several networks of a plan, such as those of folds, have a mean."""
    import torch

    from segwright.tasks import Averages

    if not isinstance(plan.task, Averages):
        return False
    with torch.device("meta"):
        network = plan.model.build()
    try:
        plan.task.averaged([network])
    except SettingError:
        return False
    return True


def print_scores(scores: "Scores") -> None:
    """Scores with their 95 % intervals, a row per class that occurs, what training has changed, and the conventions."""
    means = [name for name in scores.values if "/" not in name]
    print_table(
        ["score", "value", "95 % interval"], [[name, _number(scores.values[name]), _interval(scores, name)] for name in means]
    )
    titles = list(dict.fromkeys(name.partition("/")[0] for name in scores.values if "/" in name))
    for first in range(0, len(titles), MOST_COLUMNS):
        shown = titles[first : first + MOST_COLUMNS]
        rows = [
            [name, *(_number(scores.values.get(f"{title}/{name}", float("nan"))) for title in shown)]
            for name in scores.classes.names
            if any(isfinite(scores.values.get(f"{title}/{name}", float("nan"))) for title in shown)
        ]
        if rows:
            print_table(["class", *shown], rows)
    if scores.differences:
        print_differences(scores.differences, "before", "after")
    lines = [f"{scores.size}.", *scores.notes]
    if any(not isfinite(scores.values[name]) for name in means):
        lines.append("A dash stands where nothing can be measured, as no such object or pixel occurs.")
    lines += [f"{name}: {sentence}" for name, sentence in scores.conventions.items()]
    Console().print(Text("\n".join(lines), style="dim"))


def print_differences(rows: "Sequence[Difference]", first: str, second: str) -> None:
    """A table of how each score differs between two predictions of these names, with intervals and p-values."""
    from segwright.evaluation.scores import interval_text

    table = [
        [
            row.score,
            *(_number(value) for value in (row.first, row.second, row.difference)),
            interval_text(row.interval, _number) or "-",
            *(_number(value) for value in (row.p, row.p_holm)),
        ]
        for row in rows
    ]
    print_table(["score", first, second, "difference", "95 % interval", "p", "p (Holm)"], table)


def _number(value: float) -> str:
    """A score with four digits; a dash where nothing could be measured."""
    return f"{value:.4f}" if value == value else "-"


def _interval(scores: "Scores", name: str) -> str:
    """The 95 % interval of a score; a dash where there is none."""
    from segwright.evaluation.scores import interval_text

    return interval_text(scores.intervals.get(name, (float("nan"), float("nan"))), _number) or "-"


def check_places(*places: Path | None) -> None:
    """Refuse places for results before a long work that could not be written there.

    Raises:
        OutputError: a place is a folder or cannot be written, or two are the same.
    """
    given = [place for place in places if place is not None]
    for place in given:
        if place.is_dir():
            raise OutputError(f"{place} is a folder; give the name of a file in it, or of another")
        above = next(folder for folder in place.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise OutputError(f"{place} cannot be written, as {above} is no folder to write into; choose another place")
    if len({place.resolve() for place in given}) < len(given):
        raise OutputError(f"{given[0]} is given for several results; give each a file of its own")


def check_spared(places: Sequence[Path | None], inputs: Sequence[str]) -> None:
    """Refuse places for results where they would replace what is read: a file that was given, or one of a data set.

    Raises:
        OutputError: a place is one; scores that an earlier run wrote there may be replaced.
    """
    from segwright.codecs.json_stream import top_keys

    for place in (place for place in places if place is not None and place.is_file()):
        for given in (Path(path) for path in inputs):
            is_own = place.suffix in (".csv", ".html") or "conventions" in top_keys(place)
            if place.resolve() == given.resolve() or (not is_own and given.resolve() in place.resolve().parents):
                raise OutputError(f"{place} is part of what is read, {given}; choose another place")


def write_text(path: Path, text: str) -> None:
    """Write a text file.

    Raises:
        OutputError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error}); choose another place with --out") from error

"""`segwright metrics`: how good predictions are, of whatever tool, beside their truth, of whatever format."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segwright.core.errors import UsageError

if TYPE_CHECKING:  # loading the scores takes longer than `segwright --help` may
    from segwright.evaluation.evaluate import Tally
    from segwright.evaluation.pairs import Pairs
    from segwright.evaluation.scores import Scores
    from segwright.evaluation.significance import Difference


STANDARD = "segwright"  # the convention of scores unless another is asked for


def run(
    prediction: Annotated[str, typer.Argument(help="Predictions: a data set, a mask or a folder of masks, or COCO results.")],
    truth: Annotated[str, typer.Argument(help="Their truth: the same, or the annotations of COCO results.")],
    metrics: Annotated[
        str, typer.Option(help="Scores by name, separated by commas, such as mIoU,PQ,AP50; by default what fits the truth.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the scores, per image too, into this JSON file.")] = None,
    per_image: Annotated[Path | None, typer.Option(help="Also write the scores of each image into this CSV file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page that shows where the errors are.")] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Say instead which of PREDICTION and OTHER is better, and how sure."),
    ] = None,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Say instead why two conventions, such as nnunet and monai, give two numbers here."),
    ] = None,
    convention: Annotated[str, typer.Option(help="Whose rules scores of pixels by class follow.")] = STANDARD,
    prediction_format: Annotated[str | None, typer.Option(help="Format of PREDICTION, where it is not recognised.")] = None,
    truth_format: Annotated[str | None, typer.Option(help="Format of TRUTH, where it is not recognised.")] = None,
    processes: Annotated[int, typer.Option(min=0, help="Processes that count, at most one per core; 0 for all cores.")] = 0,
) -> None:
    """Print each score with its 95 % interval and its convention. Images without a prediction count as missed."""
    from segwright.cli.terminal import check_places, check_spared, metric_names, show
    from segwright.evaluation.accumulate import chosen
    from segwright.evaluation.evaluate import tally_differences
    from segwright.evaluation.load_pairs import open_pairs
    from segwright.reports.gallery import examples_of
    from segwright.reports.report import write_report

    check_places(out, per_image, html)
    check_spared((out, per_image, html), [prediction, truth, *filter(None, [against])])
    names, formats = metric_names(metrics), (prediction_format, truth_format)
    if explain is not None:
        _refuse("--explain", {"--against": against, "--json": json, "--out, --per-image and --html": out or per_image or html})
        _print_explanation(open_pairs(prediction, truth, *formats), *explain)
        return
    if names:
        _check_convention(convention, list(chosen(names)))
    if against is not None:
        _refuse("--against", {"--out, --per-image and --html": out or per_image or html})
    tally = _tally_of(prediction, truth, names, convention, formats, processes, with_atlas=html is not None)
    _check_convention(convention, list(tally.counter.metrics))
    if against is not None:
        other = _tally_of(against, truth, names or list(tally.counter.metrics), convention, formats, processes)
        _print_differences(tally_differences(tally, other), prediction, against, as_json=json)
        notes = [f"{side}: {note}\n" for side, own in ((prediction, tally), (against, other)) for note in own.notes()]
        typer.echo("".join(notes), nl=False, err=json)
        return
    scores = tally.scores()
    if per_image is not None and not scores.per_image:
        raise UsageError("--per-image has nothing to hold: none of these scores is of single images; leave it out")
    if html is not None:
        write_report(html, title=prediction, scores=scores, examples=examples_of(tally, scores), atlas=tally.atlas)
    if per_image is not None:
        _write_table(per_image, scores)
    show(scores, out, as_json=json)


def _tally_of(
    side: str,
    truth: str,
    names: Sequence[str],
    convention: str,
    formats: tuple[str | None, str | None],
    processes: int,
    *,
    with_atlas: bool = False,
) -> "Tally":
    """What metrics count on the predictions of one side, with a bar that shows how far that is.

    `formats` are those of the prediction and of the truth, None where they are to be recognised.
    """
    from segwright.cli.terminal import counting
    from segwright.evaluation.evaluate import tally_pairs, tally_results
    from segwright.evaluation.load_pairs import are_results, open_pairs
    from segwright.metrics.conventions import convention_named

    rules = convention_named(convention)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux knows which
    if are_results(side):
        return tally_results(side, truth, names)
    pairs = open_pairs(side, truth, *formats)
    with counting() as bars:
        return tally_pairs(
            pairs,
            names,
            rules=rules,
            processes=min(processes, cores) or cores,
            with_atlas=with_atlas,
            watch=lambda done, total: bars(side, done - 1, total),
        )


def _check_convention(convention: str, metrics: Sequence[str]) -> None:
    """Refuse rules that none of these files of metrics/ follows.

    Raises:
        UsageError: none of them counts pixels by class.
    """
    if convention != STANDARD and "confusion" not in metrics:
        raise UsageError(f"--convention {convention} is for scores of pixels by class; add --metrics mIoU or leave it out")


def _refuse(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that another one makes void, rather than not to obey them.

    Raises:
        UsageError: one of them is given.
    """
    given = [name for name, value in others.items() if value]
    if given:
        raise UsageError(f"{option} prints a table of its own and leaves out {', '.join(given)}; give the one or the other")


def _print_differences(rows: "list[Difference]", first: str, second: str, *, as_json: bool) -> None:
    """Print how two predictions differ in each score, as a table with what its columns mean or as JSON."""
    from segwright.cli.terminal import print_differences
    from segwright.core.strict_json import json_text
    from segwright.evaluation.significance import CONVENTION

    if as_json:
        typer.echo(json_text([asdict(row) for row in rows]))
        return
    print_differences(rows, first, second)
    typer.echo(CONVENTION)


def _print_explanation(pairs: "Pairs", a: str, b: str) -> None:
    """Print the scores by two conventions, and what makes them differ on these data."""
    from segwright.cli.terminal import print_table, working
    from segwright.evaluation.accumulate import Counter
    from segwright.evaluation.convention_diff import explain

    counter = Counter.of({"confusion": ()}, pairs.classes)
    with working(f"explain {a} and {b}"):
        found = explain(((key, *counter.dense(pairs.load(key))) for key in pairs.keys), counter.classes, a, b)
    header, *rows = found.rows()
    print_table(header, rows)
    for sentence in found.sentences():
        typer.echo(sentence)


def _write_table(path: Path, scores: "Scores") -> None:
    """Write a row of scores per image as CSV, whole or not at all; cells are empty where nothing could be measured.

    Raises:
        OutputError: the path cannot be written.
    """
    from segwright.core.atomic_files import replacing

    columns = list(dict.fromkeys(name for own in scores.per_image.values() for name in own))
    with replacing(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text)
        table.writerow(["key", *columns])
        for key, own in scores.per_image.items():
            table.writerow([key, *("" if own[name] != own[name] else f"{own[name]:.6g}" for name in columns)])
        text.detach()

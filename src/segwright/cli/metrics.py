"""`segwright metrics`: how good predictions are, of whatever tool, beside their truth, of whatever format."""

import csv
import json as json_module
import os
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # loading the scores takes longer than `segwright --help` may
    from segwright.evaluation.paired import Difference
    from segwright.evaluation.pairs import Pairs
    from segwright.evaluation.scores import Scores


def run(
    prediction: Annotated[str, typer.Argument(help="Predictions: a data set of any format, or COCO results.")],
    truth: Annotated[str, typer.Argument(help="Their truth: a data set, or the annotations of COCO results.")],
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
    convention: Annotated[str, typer.Option(help="Whose rules scores of pixels by class follow.")] = "segwright",
    prediction_format: Annotated[str | None, typer.Option(help="Format of PREDICTION, where it is not recognised.")] = None,
    truth_format: Annotated[str | None, typer.Option(help="Format of TRUTH, where it is not recognised.")] = None,
    processes: Annotated[int, typer.Option(help="Processes that count; 0 for as many as there are cores.")] = 0,
) -> None:
    """Print each score with its 95 % interval and its convention. Images without a prediction count as missed."""
    from segwright.cli.terminal import counting, listed, show
    from segwright.evaluation.measuring import Tally, differences, tally_pairs, tally_results
    from segwright.evaluation.pairs import are_results, open_pairs
    from segwright.metrics.conventions import convention_named
    from segwright.reports.gallery import examples_of
    from segwright.reports.report import write_report

    if explain is not None:
        print_explanation(open_pairs(prediction, truth, prediction_format, truth_format), *explain)
        return
    names, rules = listed(metrics), convention_named(convention)

    def tally_of(side: str) -> "Tally":
        if are_results(side):
            return tally_results(side, truth, names)
        pairs = open_pairs(side, truth, prediction_format, truth_format)
        with counting() as bars:
            return tally_pairs(
                pairs,
                names,
                rules=rules,
                processes=processes or len(os.sched_getaffinity(0)),
                with_atlas=html is not None,
                watch=lambda done, total: bars(side, done - 1, total),
            )

    tally = tally_of(prediction)
    if against is not None:
        print_differences(differences(tally, tally_of(against)), prediction, against, as_json=json)
        return
    scores = tally.scores()
    if html is not None:
        write_report(html, title=prediction, scores=scores, examples=examples_of(tally, scores), atlas=tally.atlas)
    if per_image is not None:
        write_table(per_image, scores)
    show(scores, out, as_json=json)


def print_differences(rows: "list[Difference]", first: str, second: str, *, as_json: bool) -> None:
    """Print how two predictions differ in each score, as a table with what its columns mean or as JSON."""
    from segwright.cli.terminal import number, print_table
    from segwright.evaluation.paired import CONVENTION
    from segwright.evaluation.scores import without_nan

    if as_json:
        typer.echo(json_module.dumps(without_nan([asdict(row) for row in rows])))
        return
    table = [
        [
            row.score,
            *(number(value) for value in (row.first, row.second, row.difference)),
            f"{number(row.interval[0])} to {number(row.interval[1])}" if row.interval[0] == row.interval[0] else "-",
            *(number(value) for value in (row.p, row.p_holm)),
        ]
        for row in rows
    ]
    print_table(["score", first, second, "difference", "95 % interval", "p", "p (Holm)"], table)
    typer.echo(CONVENTION)


def print_explanation(pairs: "Pairs", a: str, b: str) -> None:
    """Print the scores by two conventions, and what makes them differ on these data."""
    from segwright.cli.terminal import print_table, working
    from segwright.evaluation.counting import Counter
    from segwright.evaluation.explain import explain

    counter = Counter.of({"confusion": ()}, pairs.classes)
    with working(f"explain {a} and {b}"):
        found = explain(((key, *counter.dense(pairs.load(key))) for key in pairs.keys), counter.classes, a, b)
    header, *rows = found.rows()
    print_table(header, rows)
    for sentence in found.sentences():
        typer.echo(sentence)


def write_table(path: Path, scores: "Scores") -> None:
    """Write a row of scores per image as CSV, whole or not at all; cells are empty where nothing could be measured.

    Raises:
        OutputError: the path cannot be written.
    """
    from segwright.core.files import replacing

    columns = list(dict.fromkeys(name for own in scores.per_image.values() for name in own))
    with replacing(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text)
        table.writerow(["key", *columns])
        for key, own in scores.per_image.items():
            table.writerow([key, *("" if own[name] != own[name] else f"{own[name]:.6g}" for name in columns)])
        text.detach()

"""`segwright convert`: a data set from one format to another, and what was lost on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, TextIO

import typer

SHOWN = 10  # of the samples that lost something; --report has all


def run(
    source: Annotated[str, typer.Argument(help="Data set: a folder, or the file that describes it.")],
    target: Annotated[Path, typer.Argument(help="New folder for the converted data set.")],
    to: Annotated[
        str, typer.Option(help="Format to write, such as coco, voc or mask_folder; a wrong name is answered with all.")
    ],
    format: Annotated[str | None, typer.Option(help="Format of SOURCE, where it is not to be recognised.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a data set at TARGET.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write what became of each sample into this CSV file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
) -> None:
    """Write a data set in another format, read it back, and report the IoU of what came back with what was there."""
    import csv
    from contextlib import ExitStack
    from dataclasses import asdict

    from segwright.cli.terminal import check_places, check_spared, counting, print_table
    from segwright.conversion import Change, convert
    from segwright.core.errors import OutputError
    from segwright.core.strict_json import json_text
    from segwright.formats.drawn_shapes import told

    if report is not None and report.resolve().is_relative_to(target.resolve()):
        raise OutputError(f"the report {report} would lie in the data set {target}; give a place outside of it")
    check_places(report)
    check_spared([report], [source])
    lossy: list[Change] = []
    with ExitStack() as stack:
        table = csv.writer(stack.enter_context(_text(report))) if report is not None else None
        if table:
            table.writerow(["key", "iou", "reasons", "notes", "left_out"])

        def note(change: Change) -> None:
            if table:
                texts = "; ".join(change.reasons), "; ".join(change.notes), told(change.left_out)
                table.writerow([change.key, f"{change.iou:.6f}", *texts])
            if change.reasons and len(lossy) < SHOWN:
                lossy.append(change)

        watch = stack.enter_context(counting())
        result = convert(source, target, to, format=format, force=force, watch=watch, on_change=note)
    if json:
        typer.echo(json_text(asdict(result)))
        return
    if lossy:
        texts = ["; ".join(filter(None, (*change.reasons, told(change.left_out)))) for change in lossy]
        rows = [[change.key, f"{change.iou:.6f}", text] for change, text in zip(lossy, texts, strict=True)]
        print_table(["sample", "IoU", "what differs"], rows)
    more = {**result.reasons, **result.notes}
    if more:
        print_table(["what differs", "samples"], [[text, str(count)] for text, count in more.items()])
    count = f"{result.count} {'sample' if result.count == 1 else 'samples'}"
    typer.echo(f"{count} in {target}, {result.lossless} without loss; mean IoU {result.iou:.6f}")
    if result.loses:
        typer.echo(f"{to}: {result.loses}")
    if result.left_out:
        typer.echo(f"annotations of {source} that became no segment: {told(result.left_out)}")


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """A text file that takes its place when the context ends well."""
    from segwright.core.atomic_files import replacing

    with replacing(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.detach()

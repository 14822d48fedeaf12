"""`segwright inspect`: what a data set holds, what is wrong with it, and what to do about it."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer


def run(
    data: Annotated[str, typer.Argument(help="Folder with images and masks, or a file of annotations.")],
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a data card with sample pictures into this file.")] = None,
    write_config: Annotated[
        bool, typer.Option("--write-config", help="Write the remedies into dataset.toml beside the data.")
    ] = False,
    format: Annotated[str | None, typer.Option(help="The format, where it is not recognised.")] = None,
) -> None:
    """Count, measure and show a data set, and name what is wrong with it, with the evidence and the remedy."""
    from segwright.cli.terminal import print_table, working
    from segwright.inspection.data_card import fact_rows, write_data_card
    from segwright.inspection.fixes import write_config as write
    from segwright.inspection.inspect import inspect

    with working(f"inspect {data}"):
        report = inspect(data, format)
        if html is not None:
            write_data_card(html, report)
        written = write(report) if write_config else None
    if json:
        content = report.to_json()
        if written is not None:
            content["written"] = {"path": str(written.path), "changes": written.changes, "refused": written.refused}
        typer.echo(json_module.dumps(content))
        return
    print_table(["fact", "value"], fact_rows(report))
    typer.echo()
    if report.findings:
        rows = [(finding.level, finding.name, f"{finding.evidence}\n{finding.remedy}\n") for finding in report.findings]
        print_table(["", "finding", "evidence and remedy"], rows)
    else:
        typer.echo("No finding: nothing that is looked for is wrong with this data set.")
    if html is not None:
        typer.echo(f"card     {html}")
    if written is not None:
        for change in written.changes:
            typer.echo(f"changed  {change}")
        for reason in written.refused:
            typer.echo(f"refused  {reason}")
        none = "Nothing was written." if written.refused else "No finding has a remedy that dataset.toml could hold."
        typer.echo(f"config   {written.path}" if written.changes else none)

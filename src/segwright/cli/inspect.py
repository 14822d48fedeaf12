"""`segwright inspect`: what a data set holds, what is wrong with it, and what to do about it."""

from pathlib import Path
from typing import Annotated

import typer

from segwright.core.errors import OutputError, SettingError


def run(
    data: Annotated[str, typer.Argument(help="Folder with images and masks, or a file of annotations.")],
    sheet: Annotated[Path | None, typer.Argument(help="The file of --augmented; without it, augmented.png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a data card with sample pictures into this file.")] = None,
    write_config: Annotated[
        bool, typer.Option("--write-config", help="Write the remedies into dataset.toml beside the data.")
    ] = False,
    augmented: Annotated[
        bool, typer.Option("--augmented", help="Also write a picture of what a network will see into SHEET.")
    ] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="path=value, a setting of the plan for SHEET.")] = None,
    format: Annotated[str | None, typer.Option(help="The format, where it is not recognised.")] = None,
) -> None:
    """Count, measure and show a data set, and name what is wrong with it, with the evidence and the remedy."""
    from segwright.cli.terminal import check_places, print_table, working
    from segwright.core.strict_json import json_text
    from segwright.inspection.data_card import fact_rows, write_data_card
    from segwright.inspection.fixes import write_config as write
    from segwright.inspection.inspect import inspect

    check_places(html)
    place = _place_of(sheet, is_asked=augmented)
    if settings and place is None:
        raise SettingError(f"--set {settings[0]} is for a sheet of crops; add --augmented, or leave it out")
    with working(f"inspect {data}"):
        report = inspect(data, format)
        if html is not None:
            write_data_card(html, report)
        written = write(report) if write_config else None
        if place is not None:
            from segwright.inspection.augmented_sheet import write_augmented_sheet

            write_augmented_sheet(place, data, format, settings or ())
    if json:
        content = report.to_json()
        if written is not None:
            content["written"] = {"path": str(written.path), "changes": written.changes, "refused": written.refused}
        typer.echo(json_text(content))
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
    if place is not None:
        typer.echo(f"sheet    {place}")
    if written is not None:
        for change in written.changes:
            typer.echo(f"changed  {change}")
        for reason in written.refused:
            typer.echo(f"refused  {reason}")
        none = "Nothing was written." if written.refused else "No finding has a remedy that dataset.toml could hold."
        typer.echo(f"config   {written.path}" if written.changes else none)


def _place_of(sheet: Path | None, *, is_asked: bool) -> Path | None:
    """Where the sheet of --augmented goes, None where none is asked for; refused before the long work.

    Raises:
        OutputError: it cannot go there, or is named and not asked for.
    """
    from segwright.cli.terminal import check_places

    if not is_asked:
        if sheet is not None:
            raise OutputError(f"{sheet} is given, and nothing goes there; add --augmented, or put paths with blanks in quotes")
        return None
    place = sheet or Path("augmented.png")
    check_places(place)
    if place.exists():
        raise OutputError(
            f"{place} exists already; remove it, or name another file: segwright inspect DATA --augmented NAME.png"
        )
    if place.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"{place} is no name of a picture; let it end in .png, such as {place.with_suffix('.png')}")
    return place

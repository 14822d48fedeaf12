"""`segwright inspect`: what a data set holds."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer


def run(
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a data card with sample pictures into this file.")] = None,
) -> None:
    """Count, measure and show a data set: sizes, channels, class frequencies, object sizes, sample overlays."""
    from dataclasses import asdict

    from segwright.cli.terminal import print_table, working
    from segwright.formats import open_dataset
    from segwright.planning.data_card import facts, write_data_card
    from segwright.planning.fingerprint import fingerprint

    with working(f"inspect {data}"):
        dataset = open_dataset(data)
        found = fingerprint(dataset)
        if html is not None:
            write_data_card(html, dataset, found)
    if json:
        typer.echo(json_module.dumps(asdict(found)))
    else:
        print_table(["fact", "value"], facts(dataset, found))
    if html is not None:
        typer.echo(f"card  {html}")

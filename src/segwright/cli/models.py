"""`segwright models`: which networks there are."""

import json as json_module
from typing import Annotated

import typer


def run(json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False) -> None:
    """List the networks by the names that --model takes."""
    from dataclasses import asdict

    from segwright.cli.terminal import print_table
    from segwright.models import list_models

    rows = [asdict(row) for row in list_models()]
    if json:
        typer.echo(json_module.dumps(rows))
    else:
        print_table(
            ["name", "million parameters", "source"], [[r["name"], f"{r['parameters_m']:.1f}", r["paper"]] for r in rows]
        )

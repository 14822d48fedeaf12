"""`segwright segment`: the objects of an image that somebody points at, or all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # loading it takes longer than `segwright --help` may
    from segwright.inference.segment_files import SegmentedObject

DEFAULT = "sam_nano"  # whose weights come with Segwright

_IMAGES = typer.Argument(help="An image; with --text, --everything or --ahead several, or folders of them.")
_POINT = typer.Option(help="x,y in pixels on the object, or x,y,- beside it; repeatable.")
_TEXT = typer.Option(help="What to find, in words, such as cat; several are a class each. Repeatable.")
_TEXT_WEIGHTS = typer.Option(help="With --text: folder of OWLv2, Grounding DINO, CLIPSeg or SAM 3, or hf:OWNER/NAME.")
_VALUES = typer.Option(
    help="Values in the image that stand for the darkest and brightest of training, where types do not tell."
)
_MIN_SCORE = typer.Option(help="With --text: leave out what is less sure; else 0.1, 0.25, 0.5 or 0.3 for these four.")


def run(
    images: Annotated[list[Path], _IMAGES],
    point: Annotated[list[str] | None, _POINT] = None,
    box: Annotated[list[str] | None, typer.Option(help="left,top,right,bottom in pixels; several are an object each.")] = None,
    mask: Annotated[Path | None, typer.Option(help="A mask to refine: an image of its size, 0 beside the object.")] = None,
    text: Annotated[list[str] | None, _TEXT] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Find all objects, without being told where.")] = False,
    ahead: Annotated[
        bool, typer.Option("--ahead", help="Only encode images now, so that prompts are answered at once.")
    ] = False,
    model: Annotated[str, typer.Option(help="A run's folder, or a network that answers prompts (segwright models).")] = DEFAULT,
    weights: Annotated[str | None, typer.Option(help="Its weights: a file, or their name (segwright models).")] = None,
    text_weights: Annotated[str | None, _TEXT_WEIGHTS] = None,
    min_score: Annotated[float | None, _MIN_SCORE] = None,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights that are not on this machine.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .png or .tif of numbers, or a .json with all masks; for several images a folder."),
    ] = None,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write a picture with the objects over the image.")] = False,
    values: Annotated[tuple[float, float] | None, _VALUES] = None,
    min_area: Annotated[int, typer.Option(help="With --everything: mend holes and islands of fewer pixels.")] = 0,
    crop_layers: Annotated[int, typer.Option(help="With --everything: look at 2 x 2 crops too (1), and at 4 x 4 (2).")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the objects for a program to read.")] = False,
    own_modules: Annotated[bool, typer.Option("--own-modules", help="Let a run import modules outside segwright.")] = False,
) -> None:
    """Write the objects that points, boxes, a mask or texts tell of, as numbers 1, 2, ... on the image's grid; 0 is the rest.

    An image is encoded once, and what the network made of it is kept: the next prompt for it is answered at once.
    """
    from segwright.cli.terminal import working
    from segwright.core.errors import UsageError
    from segwright.inference.segment_files import parsed_prompts, segment_files
    from segwright.inference.text_folder import TEXT_MODEL

    if not everything and (min_area or crop_layers):
        raise UsageError("--min-area and --crop-layers are for all objects of an image; add --everything, or leave them out")
    if ahead and (out or overlay):
        raise UsageError("--ahead writes nothing; leave --out and --overlay out, and give them with the prompts that follow")
    if not text and (text_weights, min_score) != (None, None):
        raise UsageError("--text-weights and --min-score are for what words name; add --text, or leave them out")
    prompts = parsed_prompts(point or [], box or [], mask)
    with working(f"segment with {model}"):
        found = segment_files(
            model,
            images,
            prompts,
            out,
            everything={"min_area": min_area, "crop_layers": crop_layers} if everything else None,
            text={"detector": text_weights or TEXT_MODEL, "texts": text, "min_score": min_score} if text else None,
            ahead=ahead,
            overlay=overlay,
            spared=[] if mask is None else [mask],
            weights=weights,
            online=online,
            own_modules=own_modules,
            values=values,
        )
    if json or not ahead:
        _show(found, as_json=json)


def _show(found: Sequence["SegmentedObject"], *, as_json: bool) -> None:
    """Print objects, as a table or as JSON."""
    from dataclasses import asdict

    from segwright.cli.terminal import print_table
    from segwright.core.strict_json import json_text

    if as_json:
        typer.echo(json_text([asdict(each) for each in found]))
        return
    rows = [
        [
            *(str(each.number), each.name, f"{each.score:.3f}", str(each.pixels)),
            ",".join(map(str, each.box_xyxy)),
            Path(each.image).name,
        ]
        for each in found
    ]
    print_table(["object", "name", "score", "pixels", "left,top,right,bottom", "image"], rows)

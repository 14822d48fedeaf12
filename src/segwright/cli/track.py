"""`segwright track`: objects of a video, from a click or a box in one frame, in every frame."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from segwright.core import Prompt

GRAMMAR = re.compile(r"(?P<frame>\d+):(?P<what>.+?)(?:@(?P<number>\d+))?")
FORMS = {
    "--point": "FRAME:x,y for a point on the object, or FRAME:x,y,- for one beside it, such as 0:120,80",
    "--box": "FRAME:x1,y1,x2,y2, such as 0:100,60,180,140",
    "--mask": "FRAME:FILE, such as 0:first.png",
}


def run(
    video: Annotated[Path, typer.Argument(help="A video file, or a folder of images.")],
    point: Annotated[
        list[str] | None, typer.Option(help="FRAME:x,y on the object, FRAME:x,y,- beside it; @2 behind it: object 2.")
    ] = None,
    box: Annotated[list[str] | None, typer.Option(help="FRAME:x1,y1,x2,y2 around the object; @2 behind it: object 2.")] = None,
    mask: Annotated[
        list[str] | None, typer.Option(help="FRAME:FILE, an image that is 0 but on the object; @2 behind it: object 2.")
    ] = None,
    model: Annotated[str, typer.Option(help="A network that remembers frames.")] = "sam2.1_hiera_tiny",
    weights: Annotated[str | None, typer.Option(help="Its weights: a file, or their name (segwright models).")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks, 00000.png and so on.")] = Path("tracks"),
    film: Annotated[
        Path | None, typer.Option(help="Also a video, such as seen.mp4, with the objects drawn; implies forward.")
    ] = None,
    direction: Annotated[
        Literal["forward", "backward", "both"] | None, typer.Option(help="From the first frame pointed at; both unless --film.")
    ] = None,
    side: Annotated[int, typer.Option(help="Pixels of the sides that the network sees; fewer are faster and coarser.")] = 1024,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights that are not on this machine.")] = False,
) -> None:
    """Write a mask for each frame of a video, whose values are the numbers of the objects that were pointed at."""
    prompts = said_prompts(point or [], box or [], mask or [])
    _check_masks_spared(mask or [], out)
    from segwright.cli.terminal import counting, working
    from segwright.inference.track_files import track_video
    from segwright.inference.video import open_tracker

    with working(f"open {model}"):
        tracker = open_tracker(model, weights=weights, online=online, side=side)
    way = direction or ("both" if film is None else "forward")
    with counting() as watch:
        count = track_video(tracker, video, prompts, out, direction=way, film=film, watch=watch)
    typer.echo(f"{count} frames in {out}")


def said_prompts(points: list[str], boxes: list[str], masks: list[str]) -> list["Prompt"]:
    """One prompt for each object in each frame that something was said of.

    Raises:
        UsageError: nothing was said, or a text is no prompt.
    """
    import numpy as np

    from segwright.codecs.image_file import read_mask
    from segwright.core import Prompt
    from segwright.core.errors import UsageError

    said: dict[tuple[int, int], dict[str, list]] = {}
    for option, texts in (("--point", points), ("--box", boxes), ("--mask", masks)):
        for text in texts:
            found = GRAMMAR.fullmatch(text)
            if found is None:
                raise UsageError(f"{option} {text} is no prompt; give {FORMS[option]}")
            key = int(found["number"] or 1), int(found["frame"])
            said.setdefault(key, {"--point": [], "--box": [], "--mask": []})[option].append(found["what"])
    if not said:
        raise UsageError(f"nothing is pointed at; give --point {FORMS['--point']}, or --box {FORMS['--box']}")
    prompts = []
    for (number, frame), parts in said.items():
        if len(parts["--box"]) > 1 or len(parts["--mask"]) > 1:
            raise UsageError(f"object {number} has several boxes or masks in frame {frame}; give one, or number others by @2")
        clicks = [_numbers(text.removesuffix(",-"), 2, "--point") for text in parts["--point"]]
        corners = [_numbers(text, 4, "--box") for text in parts["--box"]]
        prompts.append(
            Prompt(
                points_xy=np.array(clicks, np.float32) if clicks else None,
                is_foreground=np.array([not text.endswith(",-") for text in parts["--point"]]) if clicks else None,
                box_xyxy=np.array(corners[0], np.float32) if corners else None,
                mask=read_mask(parts["--mask"][0]) > 0 if parts["--mask"] else None,
                object_id=number,
                frame=frame,
            )
        )
    return prompts


def _check_masks_spared(masks: list[str], out: Path) -> None:
    """See that no mask that was given lies where those of frames are written.

    Raises:
        OutputError: one does.
    """
    from segwright.core.errors import OutputError

    for text in masks:
        found = GRAMMAR.fullmatch(text)
        if found is not None and Path(found["what"]).resolve().parent == out.resolve():
            raise OutputError(f"--mask {text} lies in {out}, where masks are written; choose another folder with --out")


def _numbers(text: str, count: int, option: str) -> list[float]:
    """So many numbers with commas between them.

    Raises:
        UsageError: the text is something else.
    """
    from segwright.core.errors import UsageError

    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise UsageError(f"{option} has {text!r} behind its frame; give {FORMS[option]}")
    return numbers

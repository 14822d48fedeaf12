"""From a video file and prompts to masks on disk: a PNG for each frame, written as soon as it is known.

Axes: H, W sides of a frame.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.image_writer import write_values
from segwright.codecs.rle import encode, to_text
from segwright.codecs.video_file import ImageFrames, VideoFile, check_film, open_video, writing_video
from segwright.core import Prompt, Segmentation
from segwright.core.atomic_files import make_folder
from segwright.core.errors import OutputError, SettingError, UsageError
from segwright.core.segment_overlay import overlay_segments
from segwright.core.strict_json import json_text
from segwright.formats.davis import HIGHEST, PALETTE
from segwright.inference.video import Direction, Tracker

RATE = 25.0  # frames per second of the film of a folder of images, which does not say
DIGITS = 5  # of the names of masks, as DAVIS has them: 00000.png


def track_video(
    tracker: Tracker,
    video: Path | str,
    prompts: Sequence[Prompt],
    out: Path | str,
    *,
    direction: Direction = "both",
    film: Path | None = None,
    watch: Callable[[str, int, int], None] | None = None,
) -> int:
    """Follow prompts through a video file or a folder of images, and return how many frames were written.

    In `out` each frame gets 00000.png and so on, whose values are the numbers of objects, with DAVIS's colours; of objects that
    overlap the higher number covers. tracks.jsonl has a line for each object of each frame: its score and its whole mask, as
    COCO's run-length code. `film` is a video with the objects drawn over the frames, which are then tracked forward only.

    `watch` is told of the step, the frames done, and all.

    Nothing is written before the first frame is tracked. Where a later one cannot be, the masks before it stay, and the message
    says so; there is then no film.

    Raises:
        OutputError: a number of an object is above 254, or a place cannot be written, or holds the video, or masks of other
            frames than are written.
        SettingError: a film is wanted of frames that are not tracked in order.
        FormatError: the video, or a frame, cannot be read.
    """
    out = Path(out)
    _check_wish(Path(video), prompts, out, direction, film)
    with ExitStack() as stack:
        frames = open_video(video)
        stack.enter_context(frames)
        tracked = iter(tracker.track(frames, prompts, direction=direction))
        first = next(tracked, None)  # which shows what is wrong with prompts before anything is written
        _check_stale(out, prompts, direction, len(frames))
        make_folder(out)
        show = None if film is None else stack.enter_context(_film(film, frames))
        lines = stack.enter_context((out / "tracks.jsonl").open("w", encoding="utf-8"))
        count = 0
        try:
            for frame, found in chain([] if first is None else [first], tracked):
                write_values(out / f"{frame:0{DIGITS}d}.png", _numbers(found), np.array(PALETTE, np.uint8))
                lines.writelines(json_text(line) + "\n" for line in _lines(frame, found))
                if show is not None:
                    show(overlay_segments(frames[frame], found))
                count += 1
                if watch is not None:
                    watch("track", count - 1, len(frames))
        except UsageError as error:
            raise type(error)(f"{error}; the masks of {count} frames before it are in {out}") from error
    return count


def _check_wish(video: Path, prompts: Sequence[Prompt], out: Path, direction: Direction, film: Path | None) -> None:
    """See that what is asked for can be written, and replaces nothing that is read.

    Raises:
        OutputError, SettingError: as `track_video`.
    """
    if beyond := [prompt.object_id for prompt in prompts if prompt.object_id > HIGHEST]:
        raise OutputError(f"an object has the number {beyond[0]}, and masks hold 1 to {HIGHEST}; number objects from 1")
    if film is not None and direction != "forward":
        raise SettingError(f'a film needs its frames in order, and direction is "{direction}"; give "forward", or leave it out')
    if out.resolve() == video.resolve():
        raise OutputError(f"masks in {out} would replace the frames there; choose another folder with out")
    if film is not None:
        if film.resolve() == video.resolve():
            raise OutputError(f"the film {film} would replace the video itself; choose another name for it")
        check_film(film)


def _check_stale(out: Path, prompts: Sequence[Prompt], direction: Direction, count: int) -> None:
    """See that a folder holds no masks of frames that are not written now, which nobody could tell from those that are.

    Raises:
        OutputError: it does.
    """
    first = min((prompt.frame for prompt in prompts), default=0)
    written = {"forward": range(first, count), "backward": range(first + 1), "both": range(count)}[direction]
    names = sorted(path.name for path in out.glob(f"{'[0-9]' * DIGITS}.png")) if out.is_dir() else []
    if stale := [name for name in names if int(name[:DIGITS]) not in written]:
        raise OutputError(
            f"{out} holds {len(stale)} masks of frames that are not tracked now, such as {stale[0]}; choose another folder "
            "with out, or remove them"
        )


def _film(path: Path, frames: VideoFile | ImageFrames) -> AbstractContextManager[Any]:
    """The video that pictures of frames are written to."""
    height, width = frames[0].shape[1:]
    return writing_video(path, (height, width), frames.frames_per_second or RATE)


def _numbers(found: Segmentation) -> np.ndarray:
    """The number of the object at each pixel, uint8 (H, W), 0 where there is none."""
    numbers = np.zeros(found.shape, np.uint8)
    for index in range(len(found)):
        numbers[found.mask(index)] = found.instance_ids[index]
    return numbers


def _lines(frame: int, found: Segmentation) -> list[dict]:
    """What is written of the objects of a frame."""
    return [
        {
            "frame": frame,
            "object": int(found.instance_ids[index]),
            "score": round(float(found.scores[index]), 4),
            "segmentation": {"size": list(found.shape), "counts": to_text(encode(found.mask(index)))},
        }
        for index in range(len(found))
    ]

"""Frames of a video, read when they are asked for: a video file, or a folder of images in natural order.

Video files are read by OpenCV. Frames that follow each other are decoded one after the other; for one further away the file is
wound to it. Axes: C = 3 channels red, green, blue; H, W.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np

from segwright.codecs.image_file import SUFFIXES, read_image
from segwright.core.errors import FormatError, OutputError, ShapeError
from segwright.core.visualise import as_rgb

AHEAD = 32  # frames that are decoded and left out rather than wound over, which begins anew at a key frame
DIGITS = 20  # more than any number in a name has
CODEC = "mp4v"  # which OpenCV writes wherever it is installed
FILM_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv")  # of files that hold it
FEWEST, MOST = 2, 8191  # pixels of a side that MPEG-4 takes

# FFmpeg writes hundreds of lines about a damaged file past every stream of Python's; what is wrong, our message says.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened


class VideoFile:
    """Frames uint8 (3, H, W) of a video file by their number; `with` closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".gif":  # OpenCV takes a number in it for a sequence
            raise FormatError(f"{path} is one image; give the folder of all frames, or a video file such as clip.mp4")
        self._reader = cv2.VideoCapture(str(path))
        self._next = 0
        self._count = int(self._reader.get(cv2.CAP_PROP_FRAME_COUNT)) if self._reader.isOpened() else 0
        if self._count < 1:
            raise FormatError(
                f"{path} cannot be read as a video; check that it is whole, or write its frames into a folder and give "
                "that: ffmpeg -i VIDEO FOLDER/%05d.png"
            )
        self.frames_per_second = float(self._reader.get(cv2.CAP_PROP_FPS))

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.release()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, frame: int) -> np.ndarray:
        if not 0 <= frame < self._count:
            raise IndexError(f"frame {frame} of {self._count}")
        if not 0 <= frame - self._next <= AHEAD:
            self._reader.set(cv2.CAP_PROP_POS_FRAMES, frame)
            self._next = frame
        while self._next < frame and self._reader.grab():
            self._next += 1
        is_read, pixels = self._reader.read() if self._next == frame else (False, None)
        if not is_read or pixels is None:
            raise FormatError(
                f"{self.path}: frame {frame} of {self._count} cannot be decoded; the file is damaged or shorter than it says: "
                f"write it anew with ffmpeg -i {self.path.name} whole.mp4"
            )
        self._next = frame + 1
        return np.moveaxis(pixels[:, :, ::-1], -1, 0)


class ImageFrames:
    """Frames uint8 (3, H, W) of a folder of images by their number, in natural order: 2.png before 10.png.

    An image of more than 8 bits is stretched by itself, between its 1st and 99th percentile.
    """

    frames_per_second = 0.0  # which a folder does not say

    def __init__(self, folder: Path) -> None:
        found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
        self.paths = sorted(found, key=lambda path: _natural(path.name))
        if not self.paths:
            raise FormatError(f"{folder} holds no images; give a folder of frames such as 00000.jpg, or a video file")

    def __enter__(self) -> "ImageFrames":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, frame: int) -> np.ndarray:
        image = read_image(self.paths[frame])
        if image.ndim != 3:  # (C, H, W)
            raise ShapeError(f"{self.paths[frame]} is a volume {image.shape[1:]}; save its slices as images, each a frame")
        return np.moveaxis(as_rgb(image), -1, 0)


def _natural(name: str) -> list[str]:
    """A key under which names are sorted by the numbers in them."""
    return [part.zfill(DIGITS) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)]


def open_video(path: Path | str) -> VideoFile | ImageFrames:
    """The frames of a video file or of a folder of images.

    Raises:
        FormatError: there is none that can be read.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path} does not exist; give a video file, such as clip.mp4, or a folder of images")
    return ImageFrames(path) if path.is_dir() else VideoFile(path)


@contextmanager
def writing_video(path: Path, sides: tuple[int, int], frames_per_second: float) -> Iterator[Any]:
    """A video file of `sides` (H, W) that takes one picture uint8 (H, W, 3) after the other by calling what this yields.

    It takes its place at the end of the context, and never if that ends with an error; what was there stays till then. The
    codec takes even sides: the last row or column of odd ones is cut.

    Raises:
        OutputError: it cannot be written.
    """
    check_film(path, sides)
    height, width = sides
    unfinished = path.parent / f".{path.name[:50]}.{uuid4().hex}"  # a folder, since OpenCV goes by the suffix of the name
    try:
        unfinished.mkdir(parents=True)
        writer = cv2.VideoWriter(
            str(unfinished / f"film{path.suffix}"), cv2.VideoWriter.fourcc(*CODEC), frames_per_second, (width, height)
        )
        if not writer.isOpened():
            raise OutputError(f"{path} cannot be written as a video of {width} x {height}; give a name that ends in .mp4")
        try:
            yield lambda picture: writer.write(np.ascontiguousarray(picture[:, :, ::-1]))
        finally:
            writer.release()
        os.replace(unfinished / f"film{path.suffix}", path)  # noqa: PTH105  (one step on every system)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose a writable place with free space") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_film(path: Path, sides: tuple[int, int] | None = None) -> None:
    """Refuse a place for a video, or its `sides` (H, W), before a long work that could not be written there.

    Raises:
        OutputError: the name ends otherwise, the place is a folder, or a side is none of those that the codec takes.
    """
    if path.suffix.lower() not in FILM_SUFFIXES or path.is_dir():
        raise OutputError(f"{path} cannot be written as a video; give a file whose name ends in {', '.join(FILM_SUFFIXES)}")
    if sides is not None and not FEWEST <= min(sides) <= max(sides) <= MOST:
        raise OutputError(
            f"{path} cannot be written: frames are {sides[1]} x {sides[0]}, and MPEG-4 takes {FEWEST} to {MOST} pixels a side; "
            "leave the film out, or resize the frames"
        )

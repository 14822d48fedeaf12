"""The files of nnU-Net's cases: CASE_0000 and CASE_0001 are channels of one image. Axes: C channels, *S spatial axes."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import read_image
from segwright.codecs.tiff_axes import Axes
from segwright.codecs.volume_file import read_volume, suffix_of
from segwright.core import Grid, Sample
from segwright.core.errors import FormatError
from segwright.core.spelling import composed
from segwright.formats.volume_masks import check_same_grid

log = logging.getLogger(__name__)

CASE = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class CasePart:
    """The images of the cases in a `folder` by channel, of files that end in `ending`."""

    folder: Path
    ending: str
    images: dict[str, dict[int, Path]]

    @classmethod
    def of(cls, folder: Path, ending: str, labels: Mapping[str, Path]) -> "CasePart":
        """Those of a folder; one that is not there holds none.

        A file that is called like a label holds all channels, and so do all files where none ends in _0000.
        """
        images: dict[str, dict[int, Path]] = {}
        files = files_ending(folder, ending)
        are_numbered = any(stem.endswith("_0000") for stem in files)
        for stem, file in files.items():
            match = CASE.fullmatch(stem) if are_numbered and stem not in labels else None
            images.setdefault(match[1] if match else stem, {})[int(match[2]) if match else 0] = file
        return cls(folder, ending, images)

    def files(self, case: str, channels: int) -> list[Path]:
        """The images of a case, one per channel or one in all.

        Raises:
            FormatError: one is missing, or there are more than channels.
        """
        images = self.images[case]
        missing = [channel for channel in range(channels) if channel not in images]
        if sorted(images) != [*range(len(images))] or len(images) not in (1, channels):
            files = ", ".join(f"{case}_{channel:04}{self.ending}" for channel in missing)
            raise FormatError(
                f"{self.folder}: case {case} has the channels {sorted(images)}, and {channels} are needed; "
                + (f"add the missing files: {files}" if missing else "remove the others, or name them in dataset.json")
            )
        return [images[channel] for channel in range(len(images))]


@dataclass(frozen=True, eq=False)
class CaseReader:
    """Reads one case without truth by its key; `shape` is what is known of the sides of an image."""

    files: Mapping[str, Sequence[Path]]
    channels: int
    shape: tuple[int | None, ...] | None = None

    def __call__(self, key: str) -> Sample:
        return Sample(key, *read_channels(key, self.files[key], self.channels, self.shape))


def read_channels(
    key: str, paths: Sequence[Path], channels: int, shape: tuple[int | None, ...] | None
) -> tuple[np.ndarray, Grid]:
    """The image (C, *S) of a case whose channels lie in these files, and its grid; `shape` is what is known of its sides.

    Raises:
        FormatError: a file is damaged, they lie on different grids, or hold other than so many channels.
    """
    first, grid = _image(paths[0], shape)
    images = [first]
    for path in paths[1:]:
        image, other = _image(path, shape)
        check_same_grid(grid, other, paths[0], path)
        images.append(image)
    kinds = {image.dtype for image in images}
    image = np.concatenate(images)
    if len(kinds) > 1:
        log.info("%s: the channels are stored as %s and become %s", key, ", ".join(map(str, kinds)), image.dtype)
    if len(image) != channels:
        match = CASE.match(paths[0].name)
        missing = ""
        if match is not None and len(paths) == len(image) < channels:
            following = f"{match[1]}_{len(image):04}{paths[0].name[match.end() :]}"
            missing = f"; add {paths[0].with_name(following)}"
        raise FormatError(f"{paths[0]} and its like have {len(image)} channels, dataset.json names {channels}{missing}")
    return image, grid


def files_ending(folder: Path, ending: str) -> dict[str, Path]:
    """The files of a folder that end so, but hidden ones, by their composed names without that; none without the folder."""
    files: Iterator[Path] = folder.iterdir() if folder.is_dir() else iter(())
    named = [file for file in files if file.name.endswith(ending) and not file.name.startswith(".")]
    return {composed(file.name.removesuffix(ending)): file for file in named}


def _image(path: Path, shape: tuple[int | None, ...] | None) -> tuple[np.ndarray, Grid]:
    """The image (C, *S) of a file and its grid."""
    if suffix_of(path):
        return read_volume(path)
    image = read_image(path, Axes(shape))
    return image, Grid(image.shape[1:])

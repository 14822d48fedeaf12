"""Which axis of a TIFF is which. Axes: C channels, *S spatial axes, (H, W), or (D, H, W) for a stack of slices.

Y and X are rows and columns, Z is depth (a volume), C and S are channels, axes of length 1 are dropped. The names come from the
file (ImageJ, OME, tifffile's own, samples per pixel), or from a person, by axes = "ZYX" in the nearest dataset.toml above it,
which counts more. Plain stacks, as `tifffile.imwrite(path, array)` makes them, have no names for their first axes: there, what
belongs to them tells, such as the mask of an image.
"""

import logging
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from segwright.core.errors import FormatError
from segwright.core.warn_once import warn_once

log = logging.getLogger(__name__)

LETTERS = "TZCSYX"  # what tifffile calls axes that a file names; others it has made up
COLORS = (3, 4)  # channels of a picture of colours
MOST_CHANNELS = 4  # in a stack without names of which nothing else is known; more may be slices
DATASET_FILE = "dataset.toml"
WRITING = "or name the axes when writing, as in tifffile.imwrite(path, stack, metadata={'axes': 'ZYX'})"


@dataclass(frozen=True)
class Axes:
    """What is known of the axes of an image besides the names in its file.

    `shape` is that of a mask on its pixels, None for sides that are not known: flat, where nothing else is said, as most
    annotations are. It is None altogether where nobody knows even the number of spatial axes. In a file that `is_mask`, a third
    axis is depth unless the file calls it channels, and even then if they are too many for colours.
    """

    shape: tuple[int | None, ...] | None = (None, None)
    is_mask: bool = False


FLAT, MASK = Axes(), Axes(is_mask=True)


def channels_first(array: np.ndarray, letters: str, path: Path, known: Axes = FLAT) -> np.ndarray:
    """An array (C, *S) from one whose axes the file calls by these letters.

    Raises:
        FormatError: they are not those of one image, or it cannot be told which is which.
    """
    names = "" if array.ndim == 2 else named_by_a_person(path).replace("C", "" if known.is_mask else "C")
    if len(names) == array.ndim:
        return _transposed(array, names)
    keep = [axis for axis, letter in enumerate(letters) if letter in "YX" or array.shape[axis] > 1]
    array, letters = array.reshape([array.shape[axis] for axis in keep]), "".join(letters[axis] for axis in keep)
    if len(names) == array.ndim:
        return _transposed(array, names)
    letters = told_letters(array.shape, letters, path, known)
    channel, spatial = [letter for letter in letters if letter in "CS"], [letter for letter in "ZYX" if letter in letters]
    if len(channel) > 1 or len(channel) + len(spatial) < len(letters) or spatial[-2:] != ["Y", "X"]:
        raise FormatError(
            f"{path} holds axes {letters} of shape {array.shape}; one image is needed, with axes YX, CYX, YXC, ZYX or CZYX: "
            'save one file per time point or page; if its axes are others than it says, write them as axes = "ZYX" into '
            f"dataset.toml beside the data, {WRITING}"
        )
    return _transposed(array, letters)


def named_by_a_person(path: Path) -> str:
    """What the nearest dataset.toml above a file calls the axes of images, "" where none does.

    Raises:
        FormatError: it is no TOML, or calls them by letters that are no axes.
    """
    for folder in path.absolute().parents:
        file = folder / DATASET_FILE
        if not file.is_file():
            continue
        try:
            names = tomllib.loads(file.read_text(encoding="utf-8-sig")).get("axes", "")
        except (OSError, ValueError, RecursionError) as error:
            raise FormatError(f"{file} cannot be read as TOML ({error}); correct it or remove it") from error
        if names:
            return check_names(names, file)
    return ""


def check_names(names: object, file: Path) -> str:
    """The names of axes that a dataset.toml has.

    Raises:
        FormatError: they are none.
    """
    if not isinstance(names, str) or not re.fullmatch(r"(?!.*(.).*\1)[ZCYX]{2,4}", names) or "YX" not in names:
        raise FormatError(f'{file}: axes is {names!r:.80}; Y and X and perhaps Z and C are needed, once each, such as "ZYX"')
    return names


def _transposed(array: np.ndarray, letters: str) -> np.ndarray:
    order = [letters.index(letter) for letter in "CSZYX" if letter in letters]
    array = array.transpose(order)
    return array if {*letters} & {*"CS"} else array[None]


def told_letters(shape: Sequence[int], letters: str, path: Path, known: Axes) -> str:
    """The letters, of which those that no file names are Z or C as what is known of the image tells.

    Raises:
        FormatError: that tells nothing, and there may be slices or channels.
    """
    free = [axis for axis, letter in enumerate(letters) if letter not in LETTERS or known.is_mask and letter == "T"]
    if letters == "CYX" and (known.is_mask and shape[0] not in COLORS or known.shape == tuple(shape)):
        if not known.is_mask:
            _say(path.parent, "ZYX")
        return "ZYX"  # programs that ask for no names call slices so, and the mask or its image tells that they are
    if not free:
        return letters
    depth = "Z" not in letters and "".join(letter if axis not in free else "Z" for axis, letter in enumerate(letters))
    if known.is_mask and depth and len(free) == 1:
        return depth
    channels_first_or_last = "YXC" if len(shape) == 3 and shape[-1] < shape[0] else "CYX"
    if known.shape is None and letters[1:] == "YX":
        if min(shape[0], shape[-1]) <= MOST_CHANNELS:
            return channels_first_or_last
        raise _not_told(shape, path, '"ZYX" (slices of a volume) or axes = "CYX" (channels)')
    if known.shape is None or len(free) > 2:
        return letters
    fitting = [one for one in _possible(letters, free) if _fits(shape, one, known.shape)]
    if len(fitting) > 1 and len(known.shape) == 2:
        return channels_first_or_last
    if len(fitting) > 1:
        raise _not_told(shape, path, f'"{fitting[0]}" or axes = "{fitting[1]}"')
    if not fitting and len(shape) == 3 and letters[1:] == "YX":
        return channels_first_or_last
    if fitting and "Z" in fitting[0]:
        _say(path.parent, fitting[0])
    return fitting[0] if fitting else letters


def _say(folder: Path, names: str) -> None:
    text = "%s: stacks without names of their axes are read as %s, as masks or the model have them"
    warn_once(log, text, folder, names)


def _possible(letters: str, free: Sequence[int]) -> list[str]:
    """The names that axes may have of which some have none: one for depth, one for channels, which may also be the last."""
    found = []
    for chosen in permutations("ZC", len(free)):
        names = [*letters]
        for axis, letter in zip(free, chosen, strict=True):
            names[axis] = letter
        found.append("".join(names))
    if [*free] == [*range(len(free))] and letters[len(free) :] == "YX":
        found.append("ZYXC"[2 - len(free) :])
    return [names for names in found if len({*names} - {"S"}) == len(names.replace("S", "")) and not {*"CS"} <= {*names}]


def _fits(shape: Sequence[int], names: str, wanted: Sequence[int | None]) -> bool:
    sides = [shape[names.index(letter)] for letter in "ZYX" if letter in names]
    return len(sides) == len(wanted) and all(want in (None, side) for side, want in zip(sides, wanted, strict=True))


def _not_told(shape: Sequence[int], path: Path, ways: str) -> FormatError:
    return FormatError(
        f"{path} is a stack of {' x '.join(map(str, shape))} whose axes have no names, so that slices and channels cannot be "
        f"told apart; write axes = {ways} into dataset.toml beside the data, {WRITING}"
    )

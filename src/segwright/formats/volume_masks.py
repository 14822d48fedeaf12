"""The masks of volumes, and label images in Zarrs: whole numbers on a grid, what they mean where nobody wrote it down, and the
segments that they name.

volume.py says how they are read. Axes: P layers, *S spatial axes.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from segwright.codecs.volume_file import read_numbers_of_volume
from segwright.codecs.zarr_image import read_numbers_of_zarr
from segwright.core import Classes, Grid, Segmentation
from segwright.core.classes import plain, spellings
from segwright.core.errors import FormatError
from segwright.formats.guessed_meaning import is_spread, may_be_class, of_smoothed, void_or_class
from segwright.formats.label_encoding import MAX_VALUE, VOID_8_BIT, VOID_16_BIT, Meaning, lookup, meaning_of, present
from segwright.formats.mask_file import MAX_NUMBER
from segwright.formats.slicer_segments import Segment, classes_of_segments, segments_of, truth_of_segments
from segwright.formats.smoothed_values import MANY, NO_VALUES, classes_among, count_values

log = logging.getLogger(__name__)

UNWRITTEN = "the rule for masks without classes.json"
APART = 1e-3  # of a voxel, between two grids that are taken for one: NIfTI's float32 leaves less


@dataclass(frozen=True, eq=False)
class MaskVolume:
    """What a mask file holds: layers of whole numbers (P, *S), the segments that it names, if any, and its grid."""

    path: Path
    layers: np.ndarray
    segments: tuple[Segment, ...]
    grid: Grid

    def truth(self, meaning: Meaning) -> tuple[Segmentation, dict[str, int]]:
        """The segmentation, by the names of segments where there are any, and a count of what became no segment.

        Raises:
            FormatError: a name or a number is no class, there are several layers without names or several negative numbers.
        """
        if self.segments:
            return truth_of_segments(self.layers, self.segments, meaning.classes, self.path)
        numbers, is_void = self.known(meaning)
        truth = meaning.truth(numbers, self.path)
        return truth.with_void(is_void) if is_void.any() else truth, {}

    def known(self, meaning: Meaning) -> tuple[np.ndarray, np.ndarray]:
        """The numbers, 0 where the one that is negative says that nobody knows, and where that is, bool (*S).

        Raises:
            FormatError: as `numbers`; or nobody says what the negative number means.
        """
        numbers = self.numbers(MAX_NUMBER if meaning.is_instances else MAX_VALUE)
        is_void = numbers < 0
        low = int(numbers.min()) if is_void.any() else meaning.negative
        if low != meaning.negative:
            raise FormatError(
                f"{self.path} holds the number {low} at {is_void.sum()} of {numbers.size} voxels, of which {meaning.source} "
                f'does not say what it means; write "ignore_index": {low} there if nobody knows what these voxels are'
            )
        return np.maximum(numbers, 0), is_void

    def numbers(self, highest: int) -> np.ndarray:
        """The only layer, of which the numbers 0..highest are classes or objects, and one negative number is void."""
        if len(self.layers) > 1 and not (self.layers[1:] == self.layers[:1]).all():
            raise FormatError(
                f"{self.path} holds {len(self.layers)} masks that differ, as channels or along a fourth axis; one number per "
                "voxel is needed: if that axis is time, save each time point as a file of its own beside its image, as with "
                "nibabel.four_to_three; if it holds a channel for each class, save the argmax along it"
            )
        numbers = self.layers[0]
        low, high = int(numbers.min()), int(numbers.max())
        if high > highest:
            objects = ', or write "masks": "instances" into classes.json if each is one object' if highest == MAX_VALUE else ""
            raise FormatError(f"{self.path} holds the numbers {low}..{high}; renumber them 0..{highest}{objects}")
        below = np.unique(numbers[numbers < 0]) if low < 0 else np.zeros(0)
        if len(below) > 1:
            raise FormatError(
                f"{self.path} holds {len(below)} negative numbers, {low}..{below[-1]}; one may be there, for void: "
                "if this is a mask, renumber its classes from 0; if it is an image, it lies in the wrong folder"
            )
        return numbers

    def within(self, grid: Grid) -> "MaskVolume":
        """This on the grid of the image where it is a box of voxels cut out of that, as 3D Slicer saves it; else as it is."""
        if self.grid.shape == grid.shape or grid.affine is None or self.grid.affine is None:
            return self
        corners = np.array([[0] * len(grid.shape), [side - 1 for side in self.grid.shape]])
        places = np.linalg.solve(grid.affine, self.grid.affine @ np.concatenate([corners, [[1], [1]]], axis=1).T)[:-1].T
        start, end = np.rint(places).astype(int)
        is_box = np.abs(places - np.rint(places)).max() <= APART and (end - start + 1 == self.grid.shape).all()
        if not is_box or (start < 0).any() or (end >= grid.shape).any():
            return self
        layers = np.zeros((len(self.layers), *grid.shape), self.layers.dtype)
        layers[(slice(None), *map(slice, start, end + 1))] = self.layers
        return replace(self, layers=layers, grid=grid)


def read_mask_volume(path: Path, *, is_named: bool = True) -> MaskVolume:
    """What a mask file holds, with the segments that it names unless only numbers count.

    Raises:
        FormatError: as `read_volume`, or `ZarrImage.opened`; or there are fractions.
    """
    if path.is_dir():  # a Zarr, or a label image in one, which may have any name
        numbers, grid = read_numbers_of_zarr(path)
        return MaskVolume(path, numbers[None], (), grid)
    layers, grid = read_numbers_of_volume(path)
    return MaskVolume(path, layers, segments_of(path) if is_named else (), grid)


def read_number_volume(path: Path, highest: int = MAX_VALUE) -> tuple[np.ndarray, Grid]:
    """The numbers 0..highest of a mask file, integer (*S), and its grid.

    Raises:
        FormatError: as `read_volume`; or there are several masks that differ, fractions or other numbers.
    """
    mask = read_mask_volume(path, is_named=False)
    numbers = mask.numbers(highest)
    if numbers.min() < 0:
        raise FormatError(f"{path} holds the numbers {numbers.min()}..{numbers.max()}; renumber them 0..{highest}")
    return numbers, mask.grid


def check_same_grid(first: Grid, second: Grid, path: Path, other: Path) -> None:
    """Check that two files have one shape and, where both say where they lie, that their voxels lie at the same places.

    Raises:
        FormatError: they do not.
    """
    if first.shape != second.shape:
        raise FormatError(
            f"{path} is {' x '.join(map(str, first.shape))}, {other} is {' x '.join(map(str, second.shape))} "
            f"({len(first.shape)} and {len(second.shape)} axes, slowest first); export the mask again on the grid of the image"
        )
    if first.affine is None or second.affine is None:
        return
    corners = np.array([*np.ndindex((2,) * len(first.shape))]) * (np.array(first.shape) - 1)
    corners = np.concatenate([corners, np.ones((len(corners), 1))], axis=1).T  # (n + 1, 2 ** n)
    apart = float(np.abs(np.linalg.solve(first.affine, second.affine @ corners) - corners).max())
    if not apart <= APART:
        raise FormatError(
            f"{path} and {other} have one shape but lie {apart:.3g} voxels apart in the world (spacing {first.spacing_mm} and "
            f"{second.spacing_mm} mm); resample the mask onto the image, or copy the header of the image if only that is wrong"
        )


def meaning_of_masks(masks: Sequence[Path], written: Meaning | None) -> tuple[Meaning, bool]:
    """What the numbers of mask files mean, and whether the names of their segments decide and not their numbers.

    `written` is what classes.json and dataset.toml say. Without a word there, all masks are read.

    Raises:
        FormatError: some masks name segments and others do not, numbers mean something else from file to file, or a mask is not
            as this module says.
    """
    named = {mask: segments for mask in masks if (segments := segments_of(mask))}
    if written is not None:
        return written, bool(named) and _has_all_names(named, written)
    return (_of_names(masks, named), True) if named else (guessed_of_masks(masks), False)


def guessed(masks: Iterable[np.ndarray], example: Path) -> Meaning:
    """What the numbers of these masks mean where nobody says it; volume.py has the rule. `example` is the file of one.

    Raises:
        FormatError: 255 may be a class or void.
    """
    values, found = np.zeros(0, np.int64), NO_VALUES
    for mask in masks:
        if mask.max(initial=0) > MAX_VALUE:
            return meaning_of({"classes": ["background", "object"], "masks": "instances"}, UNWRITTEN)
        held = present(mask)
        values = np.union1d(values, held)
        found = found + count_values(mask) if len(held) > MANY else found
    classes = classes_among(found) if len(found.values) else None
    if classes is not None:
        return of_smoothed(classes, example)
    nonzero = values[values > 0]
    if is_spread(values.tolist()):
        return Meaning(Classes.of([f"class_{value}" for value in values.tolist()]), lookup(values.tolist()))
    if len(nonzero) > 1 and nonzero[-1] == VOID_8_BIT and may_be_class(values.tolist(), are_doubtful=False):
        raise void_or_class(example, values.tolist())
    if len(nonzero) <= 1:
        content = {"classes": ["background", "foreground"], "values": [0, int(nonzero[0]) if len(nonzero) else 1]}
    else:
        highest = int(nonzero[nonzero != VOID_8_BIT].max())
        names = [f"class_{k}" for k in range(highest + 1)]
        content = {"classes": names, "ignore_index": VOID_8_BIT if highest < VOID_8_BIT else VOID_16_BIT}
    return meaning_of(content, UNWRITTEN)


def guessed_of_masks(masks: Sequence[Path]) -> Meaning:
    """What the numbers of mask files mean where nobody says it, which a warning tells if some are negative.

    Raises:
        FormatError: a mask holds fractions or several negative numbers, or 255 may be a class or void.
    """
    lowest: dict[int, Path] = {}

    def numbers() -> Iterator[np.ndarray]:
        for path in masks:
            mask = read_mask_volume(path, is_named=False).numbers(MAX_NUMBER)
            lowest.setdefault(int(mask.min()), path)
            yield np.maximum(mask, 0)

    meaning = guessed(numbers(), next(iter(masks), Path()))
    low = min(lowest, default=0)
    if low < 0:
        log.warning("the number %d in masks is taken for void (%s)", low, lowest[low])
    return replace(meaning, negative=low if low < 0 else None)


def _of_names(masks: Sequence[Path], named: Mapping[Path, tuple[Segment, ...]]) -> Meaning:
    """The classes that masks name by their segments; a number stands for none but 0, for the background."""
    without = next((mask for mask in masks if mask not in named and read_number_volume(mask)[0].any()), None)
    if without is not None:
        raise FormatError(
            f"{without} does not say what its numbers mean, {min(named)} does, by the names of segments; write the classes and "
            'their numbers in such files into classes.json: {"classes": ["background", "liver"], "values": [0, 1]}'
        )
    content = {
        "classes": list((classes := classes_of_segments(chain(*named.values()))).names),
        "palette": classes.palette.tolist(),
    }
    several = [names for names in spellings(segment.name for segment in chain(*named.values())).values() if len(names) > 1]
    if several:
        log.warning("names of segments are taken for one: %s", "; ".join(", ".join(map(repr, names)) for names in several))
    return meaning_of(content, f"the segments that the masks in {masks[0].parent} name")


def _has_all_names(named: Mapping[Path, tuple[Segment, ...]], written: Meaning) -> bool:
    """Whether classes.json has all names of segments, so that these decide; else it decides by number, as a warning tells.

    Raises:
        FormatError: the numbers mean something else from file to file.
    """
    known = {plain(name) for name in written.classes.names}
    strange = next(
        ((path, segment) for path, all_ in named.items() for segment in all_ if plain(segment.name) not in known), None
    )
    if strange is None:
        return True
    first: dict[tuple[int, int], tuple[Path, Segment]] = {}
    for path, segment in ((path, segment) for path, all_ in named.items() for segment in all_):
        other_path, other = first.setdefault((segment.layer, segment.number), (path, segment))
        if segment.layer or plain(other.name) != plain(segment.name):
            raise FormatError(
                f"{path} names number {segment.number} of layer {segment.layer} {segment.name!r}, {other_path} names it "
                f"{other.name!r}, so that numbers are no classes as {written.source} has them; give its classes the names of "
                "the segments, or remove it"
            )
    log.warning(
        "%s names its segment %r, which is no class of %s: all masks are read by the numbers there, not by names",
        *(strange[0], strange[1].name, written.source),
    )
    return False

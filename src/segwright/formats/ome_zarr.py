"""OME-Zarr: NAME.zarr, or a folder of them, with truth in their labels/ or, as images/ and masks/, in .zarr of the same names.

    ROOT/NAME.zarr                    one image each; alone, it may be given itself
    ROOT/NAME.zarr/labels/LABEL       its truth: the only label image, or the one called "masks"
    ROOT/images/NAME.zarr             or the images here, in folders named as for mask_folder, subfolders allowed
    ROOT/masks/NAME.zarr              and label images of the same names here; also NAME_mask, NAME_seg, ...
    ROOT/classes.json                 optional; label_encoding.py says what it holds

codecs/zarr_image.py says what is read: versions 2 and 3, level 0, one time point. The key of a sample is the path of its image
without suffix, a/b written as a__b. Without classes.json the names are those that the label images give to their numbers
("image-label", "properties", "name"); 0 without a name is nothing, and another number without a name and of no opacity void.
Without names, numbers are guessed as in `volume`. Numbers beyond 65535 are objects; fewer are too where classes.json says
"masks": "instances".

Masks are written as label images with names and colours of the classes. Reading and writing need `segwright[zarr]`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.tiff_axes import Axes
from segwright.codecs.zarr_image import (
    LABELS,
    ZarrImage,
    is_zarr,
    labels_of_zarr,
    named_labels_of_zarr,
    read_numbers_of_zarr,
    zarr_stem,
)
from segwright.codecs.zarr_writer import notes_of_labels, writing_zarr
from segwright.core import Classes, Dataset, Grid, Sample
from segwright.core.errors import FormatError
from segwright.core.spelling import composed
from segwright.formats import dataset_file
from segwright.formats.image_index import MASK_FOLDERS, found, natural, safe_key
from segwright.formats.label_encoding import Meaning, meaning_of, written_meaning
from segwright.formats.label_maps import mask_values
from segwright.formats.pairing import IMAGE_FOLDERS, Files, partners_of, subfolders
from segwright.formats.resume_journal import truth_of
from segwright.formats.volume_masks import check_same_grid, guessed

OURS = "masks"  # the label image that is taken where there are several


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key; without a meaning of the masks, the image alone; `shape` is what is known of its sides."""

    files: Mapping[str, Files]
    meaning: Meaning | None
    shape: tuple[int | None, ...] | None = None

    def __call__(self, key: str) -> Sample:
        return self._sample(key, is_whole=True)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels."""
        return self._sample(key, is_whole=False)

    def _sample(self, key: str, *, is_whole: bool) -> Sample:
        files = self.files[key]
        if files.image is None:
            raise FormatError(f"sample {key!r} has no files; copy them again")
        numbers, shape = None, self.shape
        if files.mask is not None and self.meaning is not None:
            numbers, mask_grid = read_numbers_of_zarr(files.mask)
            shape = mask_grid.shape
        image = ZarrImage.opened(files.image, Axes(shape))
        values = image.read() if is_whole else np.zeros((0, *image.grid.shape), image.dtype)
        if numbers is None or self.meaning is None or files.mask is None:
            return Sample(key, values, image.grid)
        check_same_grid(image.grid, mask_grid, files.image, files.mask)
        is_void = numbers < 0
        truth = self.meaning.truth(np.maximum(numbers, 0), files.mask)
        return Sample(key, values, image.grid, truth.with_void(is_void) if is_void.any() else truth)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder NAME.zarr, holds some, or holds a folder of masks with some."""
    path = Path(path)
    if not path.is_dir():
        return False
    if is_zarr(path) or any(map(is_zarr, path.iterdir())):
        return True
    return any(zarrs_below(folder) for folder in subfolders(path, MASK_FOLDERS))


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order, or the one of NAME.zarr; each is read when it is asked for.

    Raises:
        FormatError: images or masks have no partner, or label images are not as this module says. Damaged files and sizes that
            differ are found when their sample is read, or here where all masks must be read.
        MissingExtraError: zarr is not installed.
    """
    root = Path(path)
    if not root.is_dir():
        raise FormatError(f"{root} does not exist; give a folder NAME.zarr, or one that holds some")
    files = {zarr_stem(root.name): _with_labels(root)} if is_zarr(root) else _paired(root)
    dropped = dataset_file.dropped(root)
    files = {safe_key(stem): entry for stem, entry in files.items() if safe_key(stem) not in dropped}
    masks = [entry.mask for entry in files.values() if entry.mask is not None]
    images = {key: entry.image for key, entry in files.items() if entry.image is not None}
    if not masks:
        return Dataset(str(root), Classes.of(["nothing"]), tuple(files), Reader(files, None), images)
    alone = [entry.image for entry in files.values() if entry.mask is None]
    if alone:
        raise FormatError(f"{alone[0]} has no label image, {len(alone)} of {len(files)} have none; add them, or move these")
    meaning = written_meaning(root.parent if is_zarr(root) else root, is_above=True) or _named(masks)
    if meaning is None:
        meaning = guessed((np.maximum(read_numbers_of_zarr(mask)[0], 0) for mask in masks), masks[0])
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning), images)


def mask_path(folder: Path, key: str, source: Dataset) -> Path:
    """The folder that `write_mask` writes."""
    return folder / f"{key}.zarr"


def write_mask(folder: Path, sample: Sample, source: Dataset, *, palette: bool = False) -> Path:
    """Write the truth of a sample as a label image of class numbers, void the highest, which has colours in any case.

    Raises:
        OutputError: the place is not writable, or a map of classes cannot hold the truth.
        MissingExtraError: zarr is not installed.
    """
    values = mask_values(sample)
    return write_label_rows(folder, iter([(0, values)]), sample.grid, truth_of(sample).classes, sample.key, source)


def write_label_rows(
    folder: Path, rows: Iterator[tuple[int, np.ndarray]], grid: Grid, classes: Classes, key: str, source: Dataset
) -> Path:
    """The same of class numbers (n, ...) of rows, and the first of them, as they come; void is the highest of their type.

    Raises:
        OutputError: the place is not writable.
        MissingExtraError: zarr is not installed.
    """
    path = mask_path(folder, key, source)
    first, values = next(rows)
    notes = notes_of_labels(classes, int(np.iinfo(values.dtype).max))
    with writing_zarr(path, grid, values.dtype, notes=notes) as array:
        array[first : first + len(values)] = values
        for first, values in rows:
            array[first : first + len(values)] = values
    return path


def zarrs_below(folder: Path) -> dict[str, Path]:
    """The folders NAME.zarr below a folder in name order by their path without suffix, composed, but hidden ones.

    Raises:
        FormatError: two have one name.
    """
    paths = []
    for place, folders, _ in os.walk(folder):
        here = [name for name in folders if not name.startswith(".")]
        paths += [Path(place, name) for name in here if is_zarr(Path(place, name))]
        folders[:] = [name for name in here if not is_zarr(Path(place, name))]  # os.walk enters what is left here
    named: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: natural(path.relative_to(folder).as_posix())):
        stem = composed(zarr_stem(path.relative_to(folder).as_posix()))
        other = named.setdefault(stem, path)
        if other is not path:
            raise FormatError(f"{other} and {path} have one name, so that their partner is not clear; rename or remove one")
    return named


def _paired(root: Path) -> dict[str, Files]:
    """The files of each sample of a folder by the path of its image."""
    mask_folders = [folder for folder in subfolders(root, MASK_FOLDERS) if zarrs_below(folder)]
    if not mask_folders:
        return {stem: _with_labels(image) for stem, image in zarrs_below(root).items()}
    image_folders = [folder for folder in subfolders(root, IMAGE_FOLDERS) if zarrs_below(folder)]
    if len(image_folders) != 1 or len(mask_folders) != 1:
        raise FormatError(
            f"{root} holds {found(root)}, with .zarr in {len(image_folders)} folders of images and {len(mask_folders)} of "
            "masks; put them into images/ and masks/"
        )
    images, masks = zarrs_below(image_folders[0]), zarrs_below(mask_folders[0])
    partners = partners_of(images, masks)
    alone = [image for stem, image in images.items() if stem not in partners]
    left = [mask for stem, mask in masks.items() if stem not in {*partners.values()}]
    if alone or left:
        which = f"{alone[0]} has no mask" if alone else f"{left[0]} has no image"
        raise FormatError(f"{which} of its name ({len(alone)} images and {len(left)} masks have none); add it, or move it")
    return {stem: Files(images[stem], masks[partner]) for stem, partner in partners.items()}


def _with_labels(image: Path) -> Files:
    """An image with the label image in its own folder, if it has one."""
    names = labels_of_zarr(image)
    if len(names) > 1 and OURS not in names:
        raise FormatError(
            f"{image} has the label images {', '.join(names)}, and one is needed; call that {OURS!r}, in the list in "
            f"{image / LABELS} too"
        )
    chosen = OURS if OURS in names else next(iter(names), None)
    return Files(image, None if chosen is None else image / LABELS / chosen)


def _named(masks: Sequence[Path]) -> Meaning | None:
    """What label images call their numbers; None where the first names none.

    Raises:
        FormatError: another calls them differently.
    """
    first = named_labels_of_zarr(masks[0])
    for mask in masks[1:]:
        if named_labels_of_zarr(mask) != first:
            raise FormatError(f"{mask} and {masks[0]} give other names to their numbers; write classes.json beside the images")
    names, colors, void = first
    if not names:
        return None
    numbers = sorted(names)
    content = {
        "classes": [names[number] for number in numbers],
        "values": numbers,
        **({"palette": [colors[number] for number in numbers]} if {*numbers} <= colors.keys() else {}),
        **({} if void is None else {"ignore_index": void}),
        **({} if 0 in names else {"nothing_index": 0}),
    }
    return meaning_of(content, f"the label images such as {masks[0]}")

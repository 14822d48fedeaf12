"""OME-Zarr: NAME.zarr, or a folder of them, with truth in their labels/ or, as images/ and masks/, in .zarr of the same names.

    ROOT/NAME.zarr                    one image each; alone, it may be given itself
    ROOT/NAME.zarr/labels/LABEL       its truth: the only label image, or the one called "masks", with what zarr_labels.py says
    ROOT/images/NAME.zarr             or the images here, in folders named as for mask_folder, subfolders allowed; where none is
                                      a Zarr, they may be volumes or image files
    ROOT/masks/NAME.zarr              and label images of the same names here; also NAME_mask, NAME_seg, ...
    ROOT/instances/NAME.zarr          optional: the number of the object at each pixel, 0 for none
    ROOT/classes.json                 optional; label_encoding.py says what it holds

codecs/zarr_image.py says what is read: versions 2 and 3, level 0, one time point. The key of a sample is the path of its image
without suffix, a/b written as a__b. Without classes.json the names are those that the label images give to their numbers
("image-label", "properties", "name"); 0 without a name is nothing, and another number without a name and of no opacity void.
Without names, numbers are guessed as in `volume`. NaN and -1 are void, as is another negative number that classes.json says so
of. Numbers beyond 65535 are objects; fewer are too where classes.json says "masks": "instances". A folder of nothing but label
images holds masks without images. What `segwright predict` writes beside masks, NAME_probabilities.zarr, is passed over.

What is written: NAME.ome.zarr, OME-Zarr 0.5 (Zarr version 3) with coarser levels, the label images in its labels/, and
classes.json. `segwright predict` writes a label image of class numbers for a Zarr, NAME.zarr, with names and colours of the
classes. Reading and writing need `segwright[zarr]`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import read_image
from segwright.codecs.image_header import unread_image
from segwright.codecs.tiff_axes import Axes
from segwright.codecs.volume_file import read_volume, suffix_of
from segwright.codecs.zarr_image import (
    LABELS,
    ZarrImage,
    is_image_of_zarr,
    is_zarr,
    labels_of_zarr,
    told_labels_of_zarr,
    zarr_stem,
)
from segwright.codecs.zarr_writer import CHUNK, notes_of_labels, write_empty_group, writing_zarr
from segwright.core import Classes, Dataset, Grid, Sample
from segwright.core.errors import FormatError, OutputError
from segwright.core.spelling import composed
from segwright.formats import dataset_file
from segwright.formats.image_index import MASK_FOLDERS, found, natural, safe_key
from segwright.formats.label_encoding import Meaning, meaning_of, written_meaning
from segwright.formats.label_maps import mask_values
from segwright.formats.pairing import IMAGE_FOLDERS, NUMBER_FOLDER, Files, by_stem, partners_of, subfolders
from segwright.formats.resume_journal import Journal, truth_of
from segwright.formats.volume import volumes_below
from segwright.formats.volume_masks import check_same_grid, guessed_of_masks
from segwright.formats.zarr_labels import MASKS, read_truth, write_labels, write_numbers_of_classes

LOSES = "objects without a pixel are not kept"
PROBABILITIES = "_probabilities"  # at the end of the names of what predict writes beside masks


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
        truth, mask_grid = None, None
        if files.mask is not None and self.meaning is not None:
            truth, mask_grid = read_truth(files, self.meaning)
        if files.image is None:
            if mask_grid is None:
                raise FormatError(f"sample {key!r} has no files; copy them again")
            return Sample(key, np.zeros((0, *mask_grid.shape), np.uint8), mask_grid, truth)
        values, grid = _read_image(files.image, self.shape if mask_grid is None else mask_grid.shape, is_whole=is_whole)
        if mask_grid is not None and files.mask is not None:
            check_same_grid(grid, mask_grid, files.image, files.mask)
        return Sample(key, values, grid, truth)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder NAME.zarr, holds some, or holds a folder of masks with some."""
    path = Path(path)
    if not path.is_dir():
        return False
    if is_zarr(path) or any(is_zarr(entry) and not _is_beside_masks(entry) for entry in path.iterdir()):
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
    meaning = written_meaning(root.parent if is_zarr(root) else root, is_above=True) or named_meaning(masks)
    if meaning is None:
        meaning = guessed_of_masks(masks)
    if meaning.is_instances:
        files = {key: Files(entry.image, entry.mask) for key, entry in files.items()}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning), images)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as NAME.ome.zarr with their label images, and classes.json; the docstring of the module says how.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth, an unsafe key,
            other classes than the first, or values that are no numbers; or there are too many classes.
        MissingExtraError: zarr is not installed.
    """
    root = Path(path)
    with Journal(root, "ome_zarr", samples) as journal:
        for sample in journal.samples():
            truth_of(sample)
            place = root / f"{sample.key}.ome.zarr"
            _write_image(place, sample)
            write_labels(place, sample)
            journal.add(sample)
        write_numbers_of_classes(root / "classes.json", journal.classes)


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
    """The folders NAME.zarr below a folder in name order by their path without suffix, composed.

    Hidden ones are passed over, and so are the probabilities that predict writes beside masks.

    Raises:
        FormatError: two have one name.
    """
    paths = []
    for place, folders, _ in os.walk(folder):
        here = [name for name in folders if not name.startswith(".")]
        paths += [path for name in here if is_zarr(path := Path(place, name)) and not _is_beside_masks(path)]
        folders[:] = [name for name in here if not is_zarr(Path(place, name))]  # os.walk enters what is left here
    named: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: natural(path.relative_to(folder).as_posix())):
        stem = composed(zarr_stem(path.relative_to(folder).as_posix()))
        other = named.setdefault(stem, path)
        if other is not path:
            raise FormatError(f"{other} and {path} have one name, so that their partner is not clear; rename or remove one")
    return named


def zarrs_alone(path: Path) -> list[Path]:
    """A Zarr, or those of a folder that is no data set of images and masks, if none has label images in it; else none.

    Raises:
        FormatError: two have one name.
    """
    if is_zarr(path):
        zarrs = [path]
    else:
        zarrs = [*zarrs_below(path).values()] if path.is_dir() and not subfolders(path, IMAGE_FOLDERS) else []
    return [] if any((each / LABELS).is_dir() for each in zarrs) else zarrs


def named_meaning(masks: Sequence[Path]) -> Meaning | None:
    """What label images call their numbers; None where the first names none.

    Raises:
        FormatError: another calls them differently.
    """
    first = told_labels_of_zarr(masks[0])
    for mask in masks[1:]:
        if told_labels_of_zarr(mask).meaning != first.meaning:
            raise FormatError(f"{mask} and {masks[0]} give other names to their numbers; write classes.json beside the images")
    if not first.names:
        return None
    numbers = sorted(first.names)
    nothing = first.nothing if first.nothing is not None or 0 in first.names else 0
    content = {
        "classes": [first.names[number] for number in numbers],
        "values": numbers,
        **({"palette": [first.colors[number] for number in numbers]} if {*numbers} <= first.colors.keys() else {}),
        **({} if first.void is None else {"ignore_index": first.void}),
        **({} if nothing is None else {"nothing_index": nothing}),
    }
    return meaning_of(content, f"the label images such as {masks[0]}")


def _is_beside_masks(path: Path) -> bool:
    """Whether a Zarr folder holds the probabilities of a prediction, which are no image, and no mask."""
    return zarr_stem(path.name).endswith(PROBABILITIES)


def _write_image(place: Path, sample: Sample) -> None:
    """Write the image of a sample, or, where it has none, a group to hold label images alone."""
    image = sample.image
    if not len(image):
        write_empty_group(place)
        return
    if image.dtype.kind not in "uifb":
        raise OutputError(f"sample {sample.key!r}: OME-Zarr holds no {image.dtype}; convert it to uint8 or float32")
    high = CHUNK[image.ndim - 1][0]
    with writing_zarr(place, sample.grid, image.dtype, channels=len(image)) as array:
        for first in range(0, image.shape[1], high):
            array[:, first : first + high] = image[:, first : first + high]


def _read_image(path: Path, shape: tuple[int | None, ...] | None, *, is_whole: bool) -> tuple[np.ndarray, Grid]:
    """The image (C, *S) in a Zarr folder, a volume or an image file, or one of no channels, and its grid."""
    if is_zarr(path):
        image = ZarrImage.opened(path, Axes(shape))
        return image.read() if is_whole else np.zeros((0, *image.grid.shape), image.dtype), image.grid
    if suffix_of(path):
        values, grid = read_volume(path)
        return values if is_whole else values[:0], grid
    values = read_image(path, Axes(shape)) if is_whole else unread_image(path, Axes(shape))
    return values, Grid(values.shape[1:])


def _paired(root: Path) -> dict[str, Files]:
    """The files of each sample of a folder by the path of its image."""
    mask_folders = [folder for folder in subfolders(root, MASK_FOLDERS) if zarrs_below(folder)]
    if not mask_folders:
        return _alone(root)
    image_folders = {folder: files for folder in subfolders(root, IMAGE_FOLDERS) if (files := _images_below(folder))}
    if len(image_folders) != 1 or len(mask_folders) != 1:
        raise FormatError(
            f"{root} holds {found(root)}, with images in {len(image_folders)} folders of images and .zarr in "
            f"{len(mask_folders)} of masks; put them into images/ and masks/"
        )
    [images], masks = image_folders.values(), zarrs_below(mask_folders[0])
    partners = partners_of(images, masks)
    alone = [image for stem, image in images.items() if stem not in partners]
    left = [mask for stem, mask in masks.items() if stem not in {*partners.values()}]
    if alone or left:
        which = f"{alone[0]} has no mask" if alone else f"{left[0]} has no image"
        raise FormatError(f"{which} of its name ({len(alone)} images and {len(left)} masks have none); add it, or move it")
    numbers = zarrs_below(root / NUMBER_FOLDER)
    return {stem: Files(images[stem], masks[mask], numbers.get(stem)) for stem, mask in partners.items()}


def _images_below(folder: Path) -> dict[str, Path]:
    """The images below a folder of images: Zarrs if there are any, else volumes, else image files."""
    return zarrs_below(folder) or volumes_below(folder) or by_stem(folder)


def _alone(root: Path) -> dict[str, Files]:
    """The Zarrs below a folder with the label images in them; masks without images where all are label images.

    Raises:
        FormatError: some are and others not.
    """
    zarrs = zarrs_below(root)
    masks = {stem: path for stem, path in zarrs.items() if told_labels_of_zarr(path).is_label}
    if masks and len(masks) < len(zarrs):
        image = next(path for stem, path in zarrs.items() if stem not in masks)
        raise FormatError(
            f"{next(iter(masks.values()))} is a label image and {image} is none ({len(masks)} of {len(zarrs)} are); put them "
            "into images/ and masks/, under the same names"
        )
    return {stem: Files(None, path) if masks else _with_labels(path) for stem, path in zarrs.items()}


def _with_labels(image: Path) -> Files:
    """An image with the label image in its own folder, if it has one; or a label image itself."""
    if told_labels_of_zarr(image).is_label:
        return Files(None, image)
    names = labels_of_zarr(image)
    if len(names) > 1 and MASKS not in names:
        raise FormatError(
            f"{image} has the label images {', '.join(names)}, and one is needed; call that {MASKS!r}, in the list in "
            f"{image / LABELS} too"
        )
    chosen = MASKS if MASKS in names else next(iter(names), None)
    return Files(image if is_image_of_zarr(image) else None, None if chosen is None else image / LABELS / chosen)

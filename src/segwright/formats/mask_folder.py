"""A folder with images/ and masks/ (or folders named alike) whose files have the same names.

    ROOT/images/NAME.jpg     also image, img, imgs, JPEGImages, ...; subfolders allowed
    ROOT/masks/NAME.png      also mask, labels, annotations, SegmentationClass, gt, ...; also NAME_mask, NAME_label, ...
    ROOT/instances/NAME.png  optional: the number of the object at each pixel, 0 for none
    ROOT/classes.json        optional, here or in the folder above; label_encoding.py says what it holds, guessed_meaning.py
                             what masks mean without it

The key of a sample is the path of its image below images/ without the suffix, a/b written as a__b. Samples are in name order
(numbers in names count as numbers). Pixels of one class and one object number are one object; a thing without number is a
crowd. Without any image, masks/ and classes.json alone are read too, with images of no channel.

What is written: images without loss; masks in 8 bits, or 16 where there are many classes; void is the highest number, and
pixels of no segment are the number after the last class, which classes.json then names ("nothing_index"). Objects and their
numbers are in instances/, of those samples that have any. Where there is one class, a thing, or one of stuff and then a
thing, the masks themselves are 16-bit maps of objects: 65535 void, 65534 crowd, 65533 nothing, where they occur; but not where
the first sample has more objects than that. Numbers above 65535 are in 32-bit TIFF. Of regions, masks hold the numbers that lie
in them, and 0 for nothing.

Lost: of overlapping segments the later covers the earlier; scores and the size of the pixels are not kept.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import SUFFIXES, are_colors, read_image
from segwright.codecs.image_header import unread_image
from segwright.codecs.image_writer import colormap_of, write_values
from segwright.codecs.tiff_axes import Axes
from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import dataset_file
from segwright.formats.guessed_meaning import guess_meaning
from segwright.formats.image_index import MASK_FOLDERS, found, images_below, safe_key
from segwright.formats.label_encoding import (
    MAX_VALUE,
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    write_classes,
    written_meaning,
)
from segwright.formats.label_maps import NOTHING, mask_values, to_maps, to_segmentation
from segwright.formats.mask_file import read_object_numbers
from segwright.formats.pairing import (
    IMAGE_FOLDERS,
    NUMBER_FOLDER,
    Files,
    fit_to_image,
    masks_alone,
    only_subfolder,
    pairs,
    subfolders,
    without_truth,
)
from segwright.formats.resume_journal import Journal, truth_of

log = logging.getLogger(__name__)

LOSES = "of overlapping segments the later covers the earlier"
CROWD_16_BIT, NOTHING_16_BIT = 65_534, 65_533  # in maps of objects, below 65535 for void
IS_INSTANCES, HAS_NOTHING, HAS_CROWD = "is_instances", "has_nothing", "has_crowd"  # what the journal notes of a sample


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key; without a meaning of the masks, the image alone, `shape` being what is known of its sides.

    With `has_images` none may be missing.
    """

    files: dict[str, Files]
    meaning: Meaning | None
    has_images: bool = True
    shape: tuple[int | None, ...] | None = None

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_image)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_image)

    def _sample(self, key: str, picture: Callable[[Path, Axes], np.ndarray]) -> Sample:
        files = self.files[key]
        if self.meaning is None or files.mask is None:
            empty = np.zeros((0, 1, 1), np.uint8)
            return Sample.of(key, empty if files.image is None else picture(files.image, Axes(self.shape)))
        if files.image is None and self.has_images:
            raise FormatError(f"{files.mask} has no image; add it under the same name, or remove the mask")
        class_map, numbers = self.meaning.maps(files.mask)
        if files.numbers is not None:
            layers = read_object_numbers(files.numbers)
            if are_colors(layers):
                raise FormatError(f"{files.numbers} is a picture of colours; save one object number per pixel")
            numbers = layers[0]
        shape = class_map.shape
        image = np.zeros((0, *shape), np.uint8) if files.image is None else picture(files.image, Axes(shape))
        class_map = fit_to_image(class_map, files.mask, image, files.image)
        if numbers is not None:
            numbers = fit_to_image(numbers, files.numbers or files.mask, image, files.image)
        return Sample.of(key, image, to_segmentation(class_map, numbers, self.meaning.classes))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with a subfolder named like images and one named like masks, or masks/ and classes.json."""
    path = Path(path)
    if not path.is_dir() or not subfolders(path, MASK_FOLDERS):
        return False
    return bool(subfolders(path, IMAGE_FOLDERS)) or (path / "masks").is_dir() and (path / "classes.json").is_file()


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order (numbers in names count as numbers); each is read when it is asked for.

    Raises:
        FormatError: the folder or classes.json is not as this module and label_encoding.py say. Damaged files, sizes that
            differ and numbers that are no class are found when their sample is read, or here where all masks must be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise FormatError(f"{root} is not a folder; give the folder that holds images/ and masks/")
    dropped = dataset_file.dropped(root)
    if not subfolders(root, IMAGE_FOLDERS) and matches(root):
        log.warning("%s holds masks and no images; the samples have none", root)
        files = {key: Files(None, mask) for key, mask in masks_alone(root / "masks", dropped).items()}
    else:
        image_folder = only_subfolder(root, "images", IMAGE_FOLDERS)
        mask_folder = only_subfolder(root, "masks", MASK_FOLDERS)
        files = {key: Files(*pair) for key, pair in pairs(image_folder, mask_folder, dropped).items()}
    masks = [entry.mask for entry in files.values() if entry.mask is not None]
    meaning = written_meaning(root, is_above=True)
    meaning = guess_meaning(masks) if meaning is None else meaning.looking_at(masks)
    if not meaning.is_instances:
        files = _with_numbers(files, root / NUMBER_FOLDER)
    images = {key: entry.image for key, entry in files.items() if entry.image is not None}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning, bool(images)), images)


def read_images(path: Path | str) -> Dataset:
    """Samples without truth, for prediction: of one image file, or of all images below a folder.

    Where a folder holds images/ and masks/, only the images are taken. The data set has one class, 'nothing'.

    Raises:
        FormatError: there is no image.
    """
    files: dict[str, Files] = {key: Files(file) for key, file in image_files(path).items()}
    return Dataset(str(path), Classes.of(["nothing"]), tuple(files), Reader(files, None))


def image_files(path: Path | str) -> dict[str, Path]:
    """The image file behind each key that `read_images` gives to a file or a folder, in name order.

    Raises:
        FormatError: there is no image, or two would have one key.
    """
    path = Path(path)
    if path.is_file():
        return {safe_key(path.stem): path}
    if not path.is_dir():
        raise FormatError(f"{path} does not exist; give an image file or a folder of images")
    folder = only_subfolder(path, "images", IMAGE_FOLDERS) if matches(path) else path
    files = without_truth(folder, images_below(folder))
    if not files:
        raise FormatError(f"{path} holds no image ({found(path)}); images end in {', '.join(SUFFIXES)}")
    stems = Counter(stem for stem, _ in files)
    keyed: dict[str, Path] = {}
    for stem, file in files:
        key = safe_key(stem)
        key = key if stems[stem] == 1 else f"{key}_{file.suffix[1:].lower()}"  # a.jpg beside a.png
        if keyed.setdefault(key, file) is not file:
            raise FormatError(f"{file} and {keyed[key]} would both be called {key}; rename one")
    return keyed


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as images/, masks/, instances/ and classes.json, so that `read` gives them back; the layout is above.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth, an unsafe
            key or other classes than the first; or object numbers or classes are too many for the files.
    """
    root = Path(path)
    with Journal(root, "mask_folder", samples) as journal:
        is_instances: bool | None = next((record[IS_INSTANCES] for record in journal.records()), None)
        for sample in journal.samples():
            truth = truth_of(sample)
            is_instances = _are_objects(truth) if is_instances is None else is_instances
            class_map, numbers = to_maps(truth)
            suffix = ".png" if len(truth.shape) == 2 else ".tif"
            if truth.classes.regions:
                stored = mask_values(sample)
            else:
                stored = (_object_map if is_instances else _class_map)(class_map, numbers, truth.classes, sample.key)
            write_values(root / "masks" / f"{sample.key}{suffix}", stored)
            if not is_instances:
                write_numbers(root / NUMBER_FOLDER / sample.key, numbers)
            journal.write_image(sample, root / "images" / sample.key)
            has_nothing = bool((class_map == NOTHING).any()) and not truth.classes.regions
            has_crowd = bool(is_instances and (stored == CROWD_16_BIT).any())
            journal.add(sample, {IS_INSTANCES: is_instances, HAS_NOTHING: has_nothing, HAS_CROWD: has_crowd})
        count = len(journal.classes)
        is_seen = {name: any(record[name] for record in journal.records()) for name in (HAS_NOTHING, HAS_CROWD)}
        is_zero_nothing = is_instances and count == 1
        if journal.classes.regions:
            write_classes(root / "classes.json", journal.classes, values=journal.classes.regions)
            return
        write_classes(
            root / "classes.json",
            journal.classes,
            is_instances=bool(is_instances),
            ignore_index=VOID_8_BIT if count < VOID_8_BIT and not is_instances else VOID_16_BIT,
            nothing_index=(NOTHING_16_BIT if is_instances else count) if is_seen[HAS_NOTHING] and not is_zero_nothing else None,
            crowd_index=CROWD_16_BIT if is_seen[HAS_CROWD] else None,
        )


def mask_path(folder: Path, key: str, source: Dataset) -> Path:
    """The file that `write_mask` writes."""
    return folder / f"{key}.png"


def write_mask(folder: Path, sample: Sample, source: Dataset, *, palette: bool = False) -> Path:
    """Write the truth of a sample of `source` as a PNG of class numbers, void the highest; `palette` adds the colours.

    Raises:
        OutputError: the place is not writable, or a PNG of classes cannot hold the truth.
    """
    path = mask_path(folder, sample.key, source)
    values = mask_values(sample)
    write_values(path, values, colormap_of(truth_of(sample).classes) if palette else None)
    return path


def write_numbers(target: Path, numbers: np.ndarray) -> None:
    """Write object numbers (*S), if there are any, at a path without suffix: 16-bit PNG, or TIFF for volumes and 32 bits."""
    if not numbers.any():
        return
    is_wide = int(numbers.max()) > MAX_VALUE
    suffix = ".tif" if is_wide or numbers.ndim > 2 else ".png"
    write_values(target.with_name(target.name + suffix), numbers.astype(np.uint32 if is_wide else np.uint16))


def _with_numbers(files: dict[str, Files], folder: Path) -> dict[str, Files]:
    """The files, with those of object numbers in a folder that may be there."""
    if not folder.is_dir():
        return files
    numbers = {safe_key(stem): path for stem, path in images_below(folder)}
    if numbers and not numbers.keys() & files.keys():
        log.warning("%s: no file is called like an image, so that it is not read; give both the same names", folder)
    return {key: Files(entry.image, entry.mask, numbers.get(key)) for key, entry in files.items()}


def _are_objects(truth: Segmentation) -> bool:
    """Whether the masks are to be 16-bit maps of objects: of one class that is a thing, or stuff and a thing; not all crowd."""
    things = truth.classes.is_thing
    if things not in ((True,), (False, True)) or truth.classes.regions or truth.instance_ids.max(initial=0) >= NOTHING_16_BIT:
        return False
    return bool(truth.instance_ids.any()) or things == (True,) and not len(truth)


def _object_map(class_map: np.ndarray, numbers: np.ndarray, classes: Classes, key: str) -> np.ndarray:
    """Number of the object at each pixel, uint16 (*S); 0 for the stuff class, or, where there is none, for nothing."""
    is_thing = class_map == len(classes) - 1
    highest = int(numbers.max(initial=0))
    if highest >= NOTHING_16_BIT or numbers[~is_thing].any():
        raise OutputError(
            f"sample {key!r}: its objects must be numbered 1..{NOTHING_16_BIT - 1} like those of the first sample (highest "
            f"{highest}), and {classes.names[0]!r}, if it is stuff, must not; number the objects again"
        )
    stored = np.where(is_thing & (numbers == 0), CROWD_16_BIT, numbers)
    stored[class_map == VOID] = VOID_16_BIT
    if len(classes) > 1:
        stored[class_map == NOTHING] = NOTHING_16_BIT
    return stored.astype(np.uint16)


def _class_map(class_map: np.ndarray, numbers: np.ndarray, classes: Classes, key: str) -> np.ndarray:
    """Class of each pixel, uint8 or uint16 (*S); nothing is the number after the last class, void the highest."""
    is_narrow = len(classes) < VOID_8_BIT
    if len(classes) == VOID_16_BIT and (class_map == NOTHING).any():
        raise OutputError(
            f"sample {key!r}: {len(classes)} classes leave no number for pixels of no segment; merge some classes"
        )
    stored = class_map.astype(np.uint8 if is_narrow else np.uint16)  # VOID, -1, wraps to the highest number
    stored[class_map == NOTHING] = len(classes)
    return stored

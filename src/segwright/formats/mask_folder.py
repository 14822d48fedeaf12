"""A folder with images/ and masks/ (or folders named alike) whose files have the same names.

    ROOT/images/NAME.jpg     also image, img, imgs, JPEGImages, ...; subfolders allowed
    ROOT/masks/NAME.png      also mask, labels, annotations, SegmentationClass, gt, ...; also NAME_mask, NAME_label, ...
    ROOT/classes.json        optional, here or in the folder above; mask_meaning.py says what it holds

The key of a sample is the path of its image below images/ without the suffix, a/b written as a__b.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import (
    SUFFIXES,
    fit_mask,
    read_image,
    write_class_map,
    write_values,
)
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats.image_tree import MASK_FOLDERS, SHOWN, found, images_below, safe_key
from segwright.formats.journal import Journal, truth_of
from segwright.formats.mask_meaning import VOID_16_BIT, Meaning, guess_meaning, read_classes, read_numbers, write_classes

log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages", "jpgimages", "photos", "frames", "pictures")
IMAGE_ENDING = re.compile(r"[_\-. ](image|img|im|rgb)$", re.IGNORECASE)
MASK_ENDING = re.compile(
    r"[_\-. ](masks?|labels?|gt|seg|segmentation|annotation|ground_?truth|instances?|manual|l)$", re.IGNORECASE
)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample of a folder by its key; without a meaning of the masks, the image alone."""

    files: dict[str, tuple[Path, Path | None]]
    meaning: Meaning | None

    def __call__(self, key: str) -> Sample:
        image_path, mask_path = self.files[key]
        image = read_image(image_path)
        if self.meaning is None or mask_path is None:
            return Sample.of(key, image)
        mask = read_numbers(mask_path)
        fitting = fit_mask(mask, image.shape[1:], image_path)
        if fitting is None:
            raise FormatError(
                f"{mask_path} is {_size(mask.shape)}, its image {image_path} is {_size(image.shape[1:])} (rows x columns); "
                "export the mask again at the size of the image"
            )
        return Sample.of(key, image, self.meaning.truth(fitting, mask_path))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with a subfolder named like images and one named like masks."""
    path = Path(path)
    return path.is_dir() and bool(_subfolders(path, IMAGE_FOLDERS)) and bool(_subfolders(path, MASK_FOLDERS))


def is_mask_folder(path: Path | str) -> bool:
    """Whether a path is the folder of masks of a data set: called like one, with one of images beside it."""
    path = Path(path).resolve()
    return path.name.lower() in MASK_FOLDERS and matches(path.parent)


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order (numbers in names count as numbers); each is read when it is asked for.

    Raises:
        FormatError: the folder or classes.json is not as this module and mask_meaning.py say. Damaged files, sizes that
            differ and numbers that are no class are found when their sample is read, or here where all masks must be read.
    """
    root = Path(path)
    if not root.is_dir():
        raise FormatError(f"{root} is not a folder; give the folder that holds images/ and masks/")
    files = _pair(_only_subfolder(root, "images", IMAGE_FOLDERS), _only_subfolder(root, "masks", MASK_FOLDERS))
    named = next((file for file in (root / "classes.json", root.absolute().parent / "classes.json") if file.is_file()), None)
    meaning = read_classes(named) if named else guess_meaning([mask for _, mask in files.values()])
    images = {key: image for key, (image, _) in files.items()}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(dict(files), meaning), images)


def read_images(path: Path | str) -> Dataset:
    """Samples without truth, for prediction: of one image file, or of all images below a folder.

    Where a folder holds images/ and masks/, only the images are taken. The data set has one class, 'nothing'.

    Raises:
        FormatError: there is no image.
    """
    files: dict[str, tuple[Path, Path | None]] = {key: (file, None) for key, file in image_files(path).items()}
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
    folder = _only_subfolder(path, "images", IMAGE_FOLDERS) if matches(path) else path
    files = images_below(folder)
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
    """Write samples as images/, masks/ and classes.json, so that `read` gives them back. Images are written without loss.

    Where there is one stuff class followed by one thing class, and the objects are numbered, the masks are 16-bit instance
    maps: they keep the objects and their numbers (up to 65534), but of overlapping objects the last covers the others, and
    pixels without any segment become the stuff class. In all other cases the masks are class maps: object numbers and
    overlaps are lost (the log says so), and pixels without a segment become void. Scores and pixel sizes are not kept.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth, an unsafe
            key or other classes than the first.
    """
    root = Path(path)
    with Journal(root, "mask_folder", samples) as journal:
        is_instances: bool | None = next((record["is_instances"] for record in journal.records()), None)
        for sample in journal.samples():
            truth = truth_of(sample)
            if is_instances is None:
                is_instances = truth.classes.is_thing == (False, True) and _has_numbers(truth)
                if not is_instances and truth.instance_ids.any():
                    log.info("%s: the masks hold classes only, so that single objects are not kept", root)
            mask_path = root / "masks" / f"{sample.key}{'.png' if len(truth.shape) == 2 else '.tif'}"
            if is_instances:
                write_values(mask_path, _instance_map(truth, sample.key))
            else:
                write_class_map(mask_path, truth.class_map(), truth.classes, palette=False)
            journal.write_image(sample, root / "images" / sample.key)
            journal.add(sample, {"is_instances": is_instances})
        write_classes(root / "classes.json", journal.classes, is_instances=bool(is_instances))


def _subfolders(root: Path, names: Sequence[str]) -> list[Path]:
    return [entry for entry in sorted(root.iterdir()) if entry.name.lower() in names and entry.is_dir()]


def _only_subfolder(root: Path, what: str, names: Sequence[str]) -> Path:
    folders = _subfolders(root, names)
    if not folders:
        raise FormatError(f"{root} has no folder of {what} ({found(root)}); call it {what}/")
    filled = [folder for folder in folders if _has_images(folder)]
    if len(filled) > 1:
        two = " and ".join(folder.name for folder in filled[:2])
        raise FormatError(f"{root} has several folders of {what}, {two}; move or rename all but one")
    if not filled:
        raise FormatError(f"{folders[0]} holds no image ({found(folders[0])}); images end in {', '.join(SUFFIXES)}")
    return filled[0]


def _has_images(folder: Path) -> bool:
    return any(name.lower().endswith(SUFFIXES) for _, _, names in os.walk(folder) for name in names)


def _by_stem(folder: Path) -> dict[str, Path]:
    entries = images_below(folder)
    empty = [file for _, file in entries if not file.exists() or file.stat().st_size == 0]  # links may lead nowhere
    if empty:
        raise FormatError(f"{_some(empty)} of {len(entries)} files in {folder} hold 0 bytes; copy them again or remove them")
    files: dict[str, Path] = {}
    for stem, file in entries:
        other = files.setdefault(stem, file)
        if other is not file:
            raise FormatError(
                f"{other} and {file.name} have one name, so that their partner is not clear; rename or remove one"
            )
    return files


def _pair(image_folder: Path, mask_folder: Path) -> dict[str, tuple[Path, Path]]:
    """Image and mask of each key.

    Raises:
        FormatError: one of them is missing, or two files have one name.
    """
    images, masks = _by_stem(image_folder), _by_stem(mask_folder)
    bare = {MASK_ENDING.sub("", stem): stem for stem in masks}
    partners: dict[str, str] = {}
    for stem in images:
        base = IMAGE_ENDING.sub("", stem)
        partner = next((name for name in (stem, bare.get(stem), base, bare.get(base)) if name in masks), None)
        if partner is not None:
            partners[stem] = partner
    alone = [image for stem, image in images.items() if stem not in partners]
    left = [mask for stem, mask in masks.items() if stem not in set(partners.values())]
    if not partners:
        raise FormatError(
            f"no mask in {mask_folder} belongs to an image in {image_folder}: images are called like {alone[0].name}, "
            f"masks like {left[0].name}; give both the same name"
        )
    if alone or left:
        problems = [f"{_some(alone)} of {len(images)} images in {image_folder} have no mask"] if alone else []
        problems += [f"{_some(left)} of {len(masks)} masks in {mask_folder} have no image"] if left else []
        raise FormatError(f"{'; '.join(problems)}; add the missing files under the same names, or move these elsewhere")
    pairs: dict[str, tuple[Path, Path]] = {}
    for stem, partner in partners.items():
        pair = pairs.setdefault(safe_key(stem), (images[stem], masks[partner]))
        if pair[0] is not images[stem]:
            raise FormatError(f"{images[stem]} and {pair[0]} would both be called {safe_key(stem)}; rename one")
    return pairs


def _some(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:SHOWN])
    return f"{len(files)} ({names}{', ...' if len(files) > SHOWN else ''})"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _has_numbers(truth: Segmentation) -> bool:
    is_thing = truth.class_ids == 1
    return bool((truth.instance_ids[is_thing] > 0).all() and (truth.instance_ids[~is_thing] == 0).all())


def _instance_map(truth: Segmentation, key: str) -> np.ndarray:
    """Number of the object at each pixel, uint16 (*S): 0 for stuff and nothing, 65535 for void."""
    highest = int(truth.instance_ids.max(initial=0))
    if highest >= VOID_16_BIT or not _has_numbers(truth):
        raise OutputError(
            f"sample {key!r}: its objects must be numbered 1..{VOID_16_BIT - 1} like those of the first sample (highest "
            f"{highest}); number all of them, or set all instance ids to 0 to write classes only"
        )
    value_of = np.concatenate([[VOID_16_BIT, 0], truth.instance_ids]).astype(np.uint16)  # void, nothing, segments
    result = value_of[truth.planes[0] + 1]
    for plane in truth.planes[1:]:
        result = np.where(plane > 0, value_of[plane + 1], result)
    return result

"""Which mask belongs to which image, where both lie in folders of their own and are called alike."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import SUFFIXES, fit_mask
from segwright.core.errors import FormatError
from segwright.formats import dataset_file
from segwright.formats.image_index import (
    MASK_FOLDERS,
    SHOWN,
    TRAIN_NAMES,
    VAL_NAMES,
    found,
    images_below,
    natural,
    safe_key,
)

log = logging.getLogger(__name__)

PART_NAMES = TRAIN_NAMES + VAL_NAMES
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "jpegimages", "jpgimages", "photos", "frames", "pictures")
# What lies beside folders of images and is none itself; other names of masks are MASK_FOLDERS.
TRUTH_FOLDERS = {"gtfine": "leftimg8bit", "gtcoarse": "leftimg8bit", "labelstr": "imagestr", "labelsts": "imagests"}
NUMBER_FOLDER = "instances"
IMAGE_ENDING = re.compile(r"[_\-. ](image|img|im|rgb)$", re.IGNORECASE)
MASK_ENDING = re.compile(
    r"[_\-. ](masks?|labels?|gt|seg|segmentation|annotation|ground_?truth|instances?|manual|l)$", re.IGNORECASE
)


@dataclass(frozen=True)
class Files:
    """The files of one sample, None where there is none."""

    image: Path | None
    mask: Path | None = None
    numbers: Path | None = None


def subfolders(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders in a folder that are called by one of these names, in whatever case."""
    return [entry for entry in sorted(root.iterdir()) if entry.name.lower() in names and entry.is_dir()]


def is_truth_folder(folder: Path) -> bool:
    """Whether a folder is called like one of masks, or of other truth, and has one of images beside it."""
    folder = folder.absolute()
    name = folder.name.lower()
    if not folder.is_dir():
        return False
    if name in TRUTH_FOLDERS:
        return bool(subfolders(folder.parent, [TRUTH_FOLDERS[name]]))
    return name in (*MASK_FOLDERS, NUMBER_FOLDER) and bool(subfolders(folder.parent, IMAGE_FOLDERS))


def without_truth(root: Path, files: Iterable[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Stem and path of files below a folder but those in folders of truth, with the stems that a data set gives them.

    Those have no folder of images: images/train/a and train/images/a are both train/a.
    """
    is_truth = cache(is_truth_folder)
    found = []
    for stem, file in files:
        folders = list(takewhile(lambda folder: folder != root, file.parents))
        if not any(map(is_truth, folders)):
            first, _, rest = stem.partition("/")
            second, _, last = rest.partition("/")
            if first.lower() in IMAGE_FOLDERS and second.lower() in PART_NAMES and last:
                stem = rest
            elif first.lower() in PART_NAMES and second.lower() in IMAGE_FOLDERS and last:
                stem = f"{first}/{last}"
            found.append((stem, file))
    return found


def only_subfolder(root: Path, what: str, names: Sequence[str]) -> Path:
    """The one folder of these names that holds images; `what` they are is for the message.

    Raises:
        FormatError: there is none, or more than one.
    """
    folders = subfolders(root, names)
    if not folders:
        raise FormatError(f"{root} has no folder of {what} ({found(root)}); call it {what}/")
    filled = [folder for folder in folders if _has_images(folder)]
    if len(filled) > 1:
        two = " and ".join(folder.name for folder in filled[:2])
        raise FormatError(f"{root} has several folders of {what}, {two}; move or rename all but one")
    if not filled:
        hint = "; of other annotations, name the format with --format, to learn what is wrong" if what == "masks" else ""
        raise FormatError(f"{folders[0]} holds no image ({found(folders[0])}); images end in {', '.join(SUFFIXES)}{hint}")
    return filled[0]


def fit_to_image(mask: np.ndarray, path: Path, image: np.ndarray, image_path: Path | None) -> np.ndarray:
    """A mask (*S) turned to the shape of its image (C, *S).

    Raises:
        FormatError: no turn that the image's EXIF asks for makes it fit.
    """
    if mask.shape == image.shape[1:]:
        return mask
    turned = None if image_path is None else fit_mask(mask, image.shape[1:], image_path)
    if turned is None:
        raise FormatError(
            f"{path} is {_size(mask.shape)}, its image {image_path or 'by the mask'} is {_size(image.shape[1:])} "
            "(rows x columns); export the mask again at the size of the image"
        )
    return turned


def _has_images(folder: Path) -> bool:
    return any(
        name.lower().endswith(SUFFIXES) and not name.startswith(".") for _, _, names in os.walk(folder) for name in names
    )


def by_stem(folder: Path, dropped: Collection[str] = ()) -> dict[str, Path]:
    """The images below a folder by their path without suffix, but those that are dropped, in name order.

    Raises:
        FormatError: a file is empty, or two have one name.
    """
    entries = [(stem, file) for stem, file in images_below(folder) if safe_key(stem) not in dropped]
    empty = [file for _, file in entries if not file.exists() or file.stat().st_size == 0]  # links may lead nowhere
    if empty:
        many = f"{_some(empty)} of {len(entries)} files in {folder}"
        raise FormatError(f"{many} hold 0 bytes, or are links to nothing; copy them again or remove them")
    files: dict[str, Path] = {}
    for stem, file in entries:
        other = files.setdefault(stem, file)
        if other is not file:
            raise FormatError(
                f"{other} and {file.name} have one name, so that their partner is not clear; rename or remove one"
            )
    return files


def pairs(image_folder: Path, mask_folder: Path, dropped: Collection[str] = ()) -> dict[str, tuple[Path, Path]]:
    """Image and mask of each key but those that are dropped, in name order.

    Raises:
        FormatError: one of them is missing, or two files have one name.
    """
    if dropped:
        all_partners = partners_of(*([stem for stem, _ in images_below(folder)] for folder in (image_folder, mask_folder)))
        dropped = {*dropped, *(safe_key(mask) for image, mask in all_partners.items() if safe_key(image) in dropped)}
    images, masks = by_stem(image_folder, dropped), by_stem(mask_folder, dropped)
    if dropped and not images and not masks:
        raise FormatError(f"dataset.toml drops all samples of {image_folder.parent}; shorten its list")
    partners = partners_of(images, masks)
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
    result: dict[str, tuple[Path, Path]] = {}
    for stem, partner in partners.items():
        pair = result.setdefault(safe_key(stem), (images[stem], masks[partner]))
        if pair[0] is not images[stem]:
            raise FormatError(f"{images[stem]} and {pair[0]} would both be called {safe_key(stem)}; rename one")
    return result


def partners_of(images: Iterable[str], masks: Collection[str]) -> dict[str, str]:
    """The name of the mask that belongs to each image, both without suffix; images without one are left out."""
    there = {*masks}
    bare = {MASK_ENDING.sub("", name): name for name in masks}
    partners = {}
    for image in images:
        base = IMAGE_ENDING.sub("", image)
        partner = next((name for name in (image, bare.get(image), base, bare.get(base)) if name in there), None)
        if partner is not None:
            partners[image] = partner
    return partners


def keys_of_parts(
    root: Path, images: Mapping[str, Path], truths: Mapping[str, Path], key_of: Callable[[str], str]
) -> dict[str, str]:
    """The name behind each key, in name order; images and truths are given by names whose first folder is the part.

    A part that has images and no truth, or truth and no images while others have, is left out, with a warning. What
    dataset.toml drops is left out. A truth may be without image.

    Raises:
        FormatError: an image has no truth while others of its part do, nothing is left, or two would have one key.
    """
    names, dropped = truths.keys() | images.keys(), dataset_file.dropped(root)
    whole = {*map(_part, truths)} & {*map(_part, images or truths)}
    left_out = Counter(_part(name) for name in names if _part(name) not in whole)
    if left_out:
        shown = ", ".join(f"{part}/ ({count} files)" for part, count in left_out.items())
        log.warning("%s: left out %s, which has images without masks, or masks without images", root, shown)
    result: dict[str, str] = {}
    for name in sorted((name for name in names if _part(name) in whole), key=natural):
        key = key_of(name)
        if key in dropped:
            continue
        if name not in truths:
            raise FormatError(f"{images[name]} has no mask, others in {_part(name)}/ have; add it, or remove the image")
        if key in result:
            raise FormatError(f"{truths[name]} and {truths[result[key]]} would both be called {key}; rename one")
        result[key] = name
    if not result:
        raise FormatError(f"{root} holds no pair of image and mask ({found(root)}); give both the same names")
    if not images:
        log.warning("%s holds masks and no images; the samples have none", root)
    return result


def _part(name: str) -> str:
    return name.rpartition("/")[0].partition("/")[0]


def masks_alone(folder: Path, dropped: Collection[str] = ()) -> dict[str, Path]:
    """The mask of each key where there is no image, in name order.

    Raises:
        FormatError: there is none, or two files have one name.
    """
    if not _has_images(folder):
        raise FormatError(f"{folder} holds no image ({found(folder)}); images end in {', '.join(SUFFIXES)}")
    return {safe_key(stem): file for stem, file in by_stem(folder, dropped).items()}


def _some(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:SHOWN])
    return f"{len(files)} ({names}{', ...' if len(files) > SHOWN else ''})"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

"""A folder of masks alone, as `segwright predict` and nnU-Net write them, and as many keep their truth.

    FOLDER/NAME.png      or NAME.nii.gz and other volumes, or NAME.zarr; also FOLDER/masks/NAME.png, FOLDER/CITY/NAME.png, or
                         one such file

The classes of predictions are those of the truth: a number k is class k, where classes that are all things have the background
before them, and 255 is void; where classes are regions, numbers are those that lie in them. Of two classes, masks of 0 and one
other number are the first and the second; and where the second is a thing, the numbers of a 16-bit mask are its objects. Masks
that name their segments (.seg.nrrd) are read by these names where the truth has any of them; label images of OME-Zarr that
name their numbers are read by these names.

The classes of a truth are those of a classes.json beside the masks or above them, or of nnU-Net's dataset.json; else they are
guessed as in any data set, from the numbers of both sides if the prediction is a folder of masks alone, too.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import JPEG_SUFFIXES, SUFFIXES
from segwright.codecs.volume_file import suffix_of
from segwright.codecs.zarr_image import is_zarr, zarr_stem
from segwright.core import Classes, Dataset, Sample
from segwright.core.classes import plain
from segwright.data.background import Background
from segwright.decoding.uncertainty import DISAGREEMENT, UNCERTAINTY
from segwright.formats.guessed_meaning import guess_meaning
from segwright.formats.image_index import MASK_FOLDERS, images_below, safe_key
from segwright.formats.label_encoding import VOID_8_BIT, VOID_16_BIT, Meaning, meaning_of, written_meaning
from segwright.formats.label_maps import numbers_in_use
from segwright.formats.mask_folder import Reader
from segwright.formats.nnunet import NnunetMeaning, labels_meaning, read_labels
from segwright.formats.ome_zarr import named_meaning, zarrs_below
from segwright.formats.pairing import IMAGE_FOLDERS, Files, subfolders
from segwright.formats.slicer_segments import segments_of
from segwright.formats.volume import volumes_below
from segwright.formats.volume_masks import guessed, meaning_of_masks, read_mask_volume, read_number_volume

log = logging.getLogger(__name__)

SOURCE = "the truth, as no classes.json lies beside the masks,"  # for messages
BESIDE = ("_overlay", f"_{UNCERTAINTY}", f"_{DISAGREEMENT}")  # what `segwright predict` adds to the name of a mask for others


def bare_masks(path: Path | str, truth: Classes, *, key: str | None = None) -> Dataset | None:
    """The masks of a folder, of its subfolder masks/, or of one file, with the classes of the truth; None where there is none.

    `key` is that of a single file, else its name.

    Raises:
        FormatError: a mask cannot be read; numbers that are no class are found when their sample is read.
    """
    masks = _Masks.of(path, key=key)
    if masks is None:
        return None
    named = masks.named()
    if named is not None:
        return masks.dataset(named)
    background = Background.of(truth)
    return masks.dataset(_named(masks.guess(only_first=True), background.classes if background else truth))


def bare_truth(path: Path | str, prediction: Path | str) -> Dataset | None:
    """The masks of a folder or a file as a truth, beside a prediction of any kind; None where there is none.

    Raises:
        FormatError: a mask, or what is said of its numbers, cannot be read.
    """
    masks = _Masks.of(path, is_truth=True)
    if masks is None:
        return None
    meaning = labels_meaning(masks.folder) or written_meaning(masks.folder, is_above=True) or masks.named()
    if meaning is None:
        meaning, predicted = masks.guess(), _Masks.of(prediction)
        is_black_and_white = len(meaning.classes) == 2 and meaning.class_of[VOID_8_BIT] == 1
        are_named = masks.are_volumes and any(map(segments_of, masks.files.values()))
        if predicted and predicted.are_volumes == masks.are_volumes and not is_black_and_white and not are_named:
            both = masks.guess(beside=predicted)
            meaning = both if len(both.classes) > len(meaning.classes) else meaning
    return masks.dataset(meaning)


@dataclass(frozen=True, eq=False)
class _Masks:
    """The masks that lie in a folder, or one of them, by key, all of them volumes, or Zarrs, or none.

    `source` is what was given.
    """

    source: str
    folder: Path
    files: dict[str, Path]
    are_volumes: bool

    @classmethod
    def of(cls, path: Path | str, *, key: str | None = None, is_truth: bool = False) -> "_Masks | None":
        """Those of a folder, its subfolder of masks or one file; None where there is none. JPEGs are masks of a truth only."""
        root = Path(path)
        suffix = suffix_of(root)
        if is_zarr(root):
            return cls(str(path), root.parent, {key or safe_key(zarr_stem(root.name)): root}, are_volumes=True)
        if root.is_file() and (suffix or _is_mask(root, is_truth)):
            name = root.name[: -len(suffix)] if suffix else root.stem
            return cls(str(path), root.parent, {key or safe_key(name): root}, bool(suffix))
        if not root.is_dir() or root.name.lower() in IMAGE_FOLDERS:
            return None
        for folder in (*subfolders(root, MASK_FOLDERS), root):
            volumes = {safe_key(stem): file for stem, file in volumes_below(folder).items() if not stem.endswith(BESIDE)}
            images = {safe_key(stem): file for stem, file in images_below(folder) if _is_mask(file, is_truth)}
            zarrs = {safe_key(stem): file for stem, file in zarrs_below(folder).items()}
            for found in (zarrs, volumes, images):
                here = {name: file for name, file in found.items() if file.parent == folder}
                if here or (found and not subfolders(root, IMAGE_FOLDERS)):
                    return cls(str(path), folder, here or found, found is not images)
        return None

    def named(self) -> Meaning | None:
        """What Zarrs call their numbers; None where the first names none, and for other files."""
        zarrs = [*filter(is_zarr, self.files.values())]
        return named_meaning(zarrs) if zarrs else None

    def guess(self, *, only_first: bool = False, beside: "_Masks | None" = None) -> Meaning:
        """What the numbers mean by the masks: here and in another folder, or of volumes, which take long, in the first."""
        files = [*self.files.values(), *(beside.files.values() if beside else ())]
        if not self.are_volumes:
            return guess_meaning(files)
        if only_first:
            return guessed([] if segments_of(files[0]) else [read_number_volume(files[0])[0]], files[0])
        return meaning_of_masks(files, None)[0]

    def dataset(self, meaning: Meaning | NnunetMeaning) -> Dataset:
        """The masks as a data set without images."""
        if self.are_volumes or isinstance(meaning, NnunetMeaning):
            return Dataset(self.source, meaning.classes, tuple(self.files), _Numbers(self.files, meaning))
        files = {key: Files(None, file) for key, file in self.files.items()}
        return Dataset(self.source, meaning.classes, tuple(files), Reader(files, meaning, has_images=False))


def _is_mask(file: Path, is_truth: bool) -> bool:
    """Whether a file is an image that can hold a mask, a predicted one without loss, and no picture or map of one."""
    suffixes = {*SUFFIXES} - (set() if is_truth else {*JPEG_SUFFIXES})
    return file.suffix.lower() in suffixes and not file.name.startswith(".") and not file.stem.endswith(BESIDE)


def _named(guess: Meaning, classes: Classes) -> Meaning:
    """What the numbers mean: where there are two classes, or as many as grey levels, as guessed; else the places of classes."""
    content = {"classes": list(classes.names), "palette": classes.palette.tolist(), "is_thing": list(classes.is_thing)}
    if classes.regions:
        is_narrow = numbers_in_use(classes) <= VOID_8_BIT
        content |= {"masks": "regions", "values": classes.regions, "ignore_index": VOID_8_BIT if is_narrow else VOID_16_BIT}
        return meaning_of(content, SOURCE)
    if guess.is_nearest and len(classes) == len(guess.classes):
        return replace(guess, classes=classes, source=SOURCE)
    if len(classes) == len(guess.classes) == 2 and (classes.is_thing[1] or not guess.is_instances):
        return replace(guess, classes=classes, source=SOURCE)
    void = {"ignore_index": VOID_8_BIT} if len(classes) <= VOID_8_BIT else {}
    return meaning_of(content | void, SOURCE)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Loads a mask by its key, of which the numbers tell all."""

    files: dict[str, Path]
    meaning: Meaning | NnunetMeaning

    def __call__(self, key: str) -> Sample:
        if isinstance(self.meaning, NnunetMeaning):
            numbers, grid = read_labels(self.files[key])
            return Sample(key, np.zeros((0, *grid.shape), np.uint8), grid, self.meaning.truth(numbers, self.files[key]))
        known = {plain(name) for name in self.meaning.classes.names}
        named = [segment.name for segment in segments_of(self.files[key])]
        is_strange = bool(named) and not any(plain(name) in known for name in named)
        if is_strange:
            log.warning("%s names %s, no class of the truth: its numbers count", self.files[key], ", ".join(map(repr, named)))
        mask = read_mask_volume(self.files[key], is_named=not is_strange)
        truth, left_out = mask.truth(self.meaning)
        return Sample(key, np.zeros((0, *mask.grid.shape), np.uint8), mask.grid, truth, left_out)

"""A folder of predicted masks alone, as `segwright predict` and nnU-Net write them: their classes are those of the truth.

    PREDICTIONS/NAME.png      or NAME.nii.gz and other volumes; also PREDICTIONS/masks/NAME.png; no classes.json

A number k is class k of the truth, where classes that are all things have the background before them, and 255 is void. Of two
classes, masks of 0 and one other number are the first and the second; and where the second is a thing, the numbers of a 16-bit
mask are its objects. Masks that name their segments (.seg.nrrd) are read by these names.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import JPEG_SUFFIXES, SUFFIXES
from segwright.core import Classes, Dataset, Sample
from segwright.data.background import Background
from segwright.formats.guessed_meaning import guess_meaning
from segwright.formats.image_index import natural, safe_key
from segwright.formats.label_encoding import VOID_8_BIT, Meaning, meaning_of
from segwright.formats.mask_folder import Reader
from segwright.formats.pairing import IMAGE_FOLDERS, Files
from segwright.formats.slicer_segments import segments_of
from segwright.formats.volume import volumes_below
from segwright.formats.volume_masks import guessed, read_mask_volume, read_number_volume

FOLDER = "masks"
SOURCE = "the truth, as no classes.json lies beside the masks,"  # for messages
PICTURE = "_overlay"  # what `segwright predict --overlay` adds to the name of a mask


def bare_masks(path: Path | str, truth: Classes) -> Dataset | None:
    """The masks that lie in a folder, or in its subfolder masks/, with the classes of the truth; None where there is none.

    Raises:
        FormatError: a mask cannot be read; numbers that are no class are found when their sample is read.
    """
    root = Path(path)
    folder = root / FOLDER if (root / FOLDER).is_dir() else root
    if not folder.is_dir() or folder.name.lower() in IMAGE_FOLDERS:
        return None
    background = Background.of(truth)
    classes = background.classes if background else truth
    volumes = {key: file for key, file in volumes_below(folder).items() if file.parent == folder}
    if volumes:
        first = next(iter(volumes.values()))
        meaning = _named(guessed([] if segments_of(first) else [read_number_volume(first)[0]]), classes)
        return Dataset(str(path), classes, tuple(volumes), _Volumes(volumes, meaning))
    found = sorted((file for file in folder.iterdir() if _is_mask(file)), key=lambda file: natural(file.name))
    if not found:
        return None
    files = {safe_key(file.stem): Files(None, file) for file in found}
    return Dataset(str(path), classes, tuple(files), Reader(files, _named(guess_meaning(found), classes), has_images=False))


def _is_mask(file: Path) -> bool:
    """Whether a file is an image that can hold a mask without loss, and no picture that shows one."""
    return (
        file.suffix.lower() in {*SUFFIXES} - {*JPEG_SUFFIXES}
        and not file.name.startswith(".")
        and not file.stem.endswith(PICTURE)
    )


def _named(guess: Meaning, classes: Classes) -> Meaning:
    """What the numbers mean: where there are two classes, or as many as grey levels, as guessed; else the places of classes."""
    if guess.is_nearest and len(classes) == len(guess.classes):
        return replace(guess, classes=classes, source=SOURCE)
    if len(classes) == len(guess.classes) == 2 and (classes.is_thing[1] or not guess.is_instances):
        return replace(guess, classes=classes, source=SOURCE)
    content = {"classes": list(classes.names), "palette": classes.palette.tolist(), "is_thing": list(classes.is_thing)}
    return meaning_of(content | ({"ignore_index": VOID_8_BIT} if len(classes) <= VOID_8_BIT else {}), SOURCE)


@dataclass(frozen=True, eq=False)
class _Volumes:
    """Loads the mask of a volume by its key."""

    files: dict[str, Path]
    meaning: Meaning

    def __call__(self, key: str) -> Sample:
        mask = read_mask_volume(self.files[key])
        truth, left_out = mask.truth(self.meaning)
        return Sample(key, np.zeros((0, *mask.grid.shape), np.uint8), mask.grid, truth, left_out)

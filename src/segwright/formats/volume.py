"""Volumes as NIfTI, NRRD or MetaImage: a single file, or a folder with images/ and masks/ whose files have the same names.

    ROOT/images/NAME.nii.gz     also .nii, .nrrd, .nhdr, .mha, .mhd; folders named as for mask_folder; subfolders allowed
    ROOT/masks/NAME.nii.gz      any of these kinds; also NAME_mask, NAME_seg, ...
    ROOT/instances/NAME.nii.gz  optional: the number of the object at each voxel, 0 for none
    ROOT/classes.json           optional; label_encoding.py says what it holds

The key of a sample is the path of its image below images/ without the suffix, a/b written as a__b. Image and mask must lie on
one grid: the same shape, and no voxel further apart than a thousandth of its size. Without classes.json the numbers {0, v}
are background and foreground, others are classes, and 255 is void; where numbers go beyond 65535, each is an object. What
smoothing puts between numbers, and 255 among grey levels, is read as guessed_meaning.py says. Numbers
that a slope has rounded are whole again; NaN is void, and so is a negative number, of which there may be one (-1, say). Where
masks name their segments (.seg.nrrd, slicer_segments.py), their names decide and not their numbers: names that classes.json
has get its colours; where it has others, it decides by number, which must then mean the same in all files. A mask of four axes
that says the same at each place of the fourth is taken as one. A single file is an image without truth.

What is written: .nii.gz with spacing, direction and origin of the image's grid, to float32; masks and object numbers on the
same grid, numbered as in mask_folder. To a path that ends in a suffix of volumes the image of the only sample is written.

Lost: of overlapping segments the later covers the earlier; scores are not kept. A grid without spacing or affine comes back
with 1 mm and the axes of the world. NIfTI holds no bool, float16 or complex numbers.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from segwright.codecs.volume_file import SUFFIXES, read_volume, suffix_of, write_volume
from segwright.core import Classes, Dataset, Grid, Sample
from segwright.core.errors import FormatError, OutputError
from segwright.core.spelling import composed
from segwright.formats import dataset_file
from segwright.formats.image_index import MASK_FOLDERS, SHOWN, found, natural, safe_key
from segwright.formats.label_encoding import (
    MAX_VALUE,
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    write_classes,
    written_meaning,
)
from segwright.formats.label_maps import NOTHING, mask_values, to_maps, to_segmentation
from segwright.formats.mask_file import MAX_NUMBER
from segwright.formats.pairing import IMAGE_FOLDERS, MASK_ENDING, NUMBER_FOLDER, Files, subfolders
from segwright.formats.resume_journal import Journal, truth_of
from segwright.formats.slicer_segments import notes_of_segments
from segwright.formats.volume_masks import (
    UNWRITTEN,
    check_same_grid,
    meaning_of_masks,
    read_mask_volume,
    read_number_volume,
)

log = logging.getLogger(__name__)

LOSES = "of overlapping segments the later covers the earlier"
NAMES = re.compile(r".*\.(tsv|ctbl|label)|.*label.*\.(txt|json|csv)|dataset\.json", re.IGNORECASE)  # of files that name classes
DETACHED = {".mhd": ".mha", ".nhdr": ".nrrd"}  # headers in files of their own; masks are one file


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key; without a meaning of the masks, the image alone."""

    files: Mapping[str, Files]
    meaning: Meaning | None
    is_named: bool = False

    def __call__(self, key: str) -> Sample:
        files = self.files[key]
        image, grid = (None, None) if files.image is None else read_volume(files.image)
        if files.mask is None or self.meaning is None:
            return Sample(key, image, grid)  # type: ignore[arg-type]
        mask = read_mask_volume(files.mask, is_named=self.is_named)
        if image is None or grid is None or files.image is None:
            image, grid = np.zeros((0, *mask.grid.shape), np.uint8), mask.grid
        elif mask.segments:
            mask = mask.within(grid)
        check_same_grid(grid, mask.grid, files.image or files.mask, files.mask)
        truth, left_out = mask.truth(self.meaning)
        if files.numbers is not None:
            numbers, number_grid = read_number_volume(files.numbers, MAX_NUMBER)
            check_same_grid(mask.grid, number_grid, files.mask, files.numbers)
            truth = to_segmentation(to_maps(truth)[0], numbers, truth.classes)
        return Sample(key, image, grid, truth, left_out)


def matches(path: Path | str) -> bool:
    """Whether a path is a volume file, or a folder with one of images and one of masks that hold volume files."""
    path = Path(path)
    if path.is_file():
        return bool(suffix_of(path))
    return path.is_dir() and any(_has_volumes(folder) for folder in subfolders(path, MASK_FOLDERS))


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order (numbers in names count as numbers), or the one of a file; read when asked for.

    Raises:
        FormatError: the folder or classes.json is not as this module and label_encoding.py say. Damaged files, grids that
            differ and numbers that are no class are found when their sample is read, or here where all masks must be read.
    """
    root = Path(path)
    if root.is_file() and suffix_of(root):
        key = safe_key(root.name[: -len(suffix_of(root))])
        return Dataset(str(root), Classes.of(["nothing"]), (key,), Reader({key: Files(root)}, None))
    if not root.is_dir():
        raise FormatError(f"{root} is neither a volume file ({', '.join(SUFFIXES)}) nor a folder with images/ and masks/")
    dropped = dataset_file.dropped(root)
    masks = _only_folder(root, MASK_FOLDERS, "masks", dropped)
    if subfolders(root, IMAGE_FOLDERS):
        files = _paired(_only_folder(root, IMAGE_FOLDERS, "images", dropped), masks)
    else:
        log.warning("%s holds masks and no images; the samples have none", root)
        files = {safe_key(stem): Files(None, mask) for stem, mask in masks.items()}
    drawn = [entry.mask for entry in files.values() if entry.mask]
    meaning, is_named = meaning_of_masks(drawn, written_meaning(root, is_above=True))
    if not is_named and meaning.source == UNWRITTEN:
        for file in {file for folder in (root, *{mask.parent for mask in drawn}) for file in folder.iterdir()}:
            if NAMES.fullmatch(file.name):
                log.warning("%s may name the classes, and is not read; write them into classes.json", file)
    if not meaning.is_instances and (root / NUMBER_FOLDER).is_dir():
        numbers = {safe_key(stem): file for stem, file in volumes_below(root / NUMBER_FOLDER).items()}
        files = {key: Files(entry.image, entry.mask, numbers.get(key)) for key, entry in files.items()}
    images = {key: entry.image for key, entry in files.items() if entry.image is not None}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning, is_named), images)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as a folder, or the image of the only sample as one file; the docstring of the module says how.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, one has no truth, an unsafe key,
            other classes than the first or values that NIfTI cannot hold. For one file: there is more than one sample, or it
            has a truth.
    """
    root = Path(path)
    if suffix_of(root):
        _write_one(root, iter(samples))
        return
    with Journal(root, "volume", samples) as journal:
        for sample in journal.samples():
            class_map, numbers = to_maps(truth_of(sample))
            is_narrow, has_nothing = len(journal.classes) < VOID_8_BIT, bool((class_map == NOTHING).any())
            if len(journal.classes) + has_nothing > VOID_16_BIT:
                raise OutputError(f"sample {sample.key!r}: {len(journal.classes)} classes leave no number; merge some")
            stored = class_map.astype(np.uint8 if is_narrow else np.uint16)  # VOID, -1, wraps to the highest number
            stored[class_map == NOTHING] = len(journal.classes)
            stored = mask_values(sample) if journal.classes.regions else stored
            name = f"{sample.key}.nii.gz"
            if len(sample.image):
                write_volume(root / "images" / name, sample.image, sample.grid)
            write_volume(root / "masks" / name, stored[None], sample.grid)
            if numbers.any():
                write_volume(root / NUMBER_FOLDER / name, _narrow(numbers)[None], sample.grid)
            journal.add(sample, {"has_nothing": has_nothing})
        if journal.classes.regions:
            write_classes(root / "classes.json", journal.classes, values=journal.classes.regions)
            return
        count = len(journal.classes)
        write_classes(
            root / "classes.json",
            journal.classes,
            ignore_index=VOID_8_BIT if count < VOID_8_BIT else VOID_16_BIT,
            nothing_index=count if any(record["has_nothing"] for record in journal.records()) else None,
        )


def mask_path(folder: Path, key: str, source: Dataset) -> Path:
    """The file that `write_mask` writes: of the kind of the image."""
    suffix = suffix_of(source.image_files[key])
    return folder / f"{key}{DETACHED.get(suffix, suffix)}"


def write_mask(folder: Path, sample: Sample, source: Dataset, *, palette: bool = False) -> Path:
    """Write the truth of a sample of `source` as a volume of class numbers, void the highest, on the grid of the image.

    A NRRD names the classes and their colours as 3D Slicer does; others have no colours, whatever `palette` says.

    Raises:
        OutputError: the place is not writable, or a map of classes cannot hold the truth.
        MissingExtraError: SimpleITK is not installed.
    """
    return write_mask_values(folder, mask_values(sample), sample.grid, truth_of(sample).classes, sample.key, source)


def write_mask_values(folder: Path, values: np.ndarray, grid: Grid, classes: Classes, key: str, source: Dataset) -> Path:
    """The same of class numbers (*S) themselves, void the highest of their type.

    Raises:
        OutputError: the place is not writable.
        MissingExtraError: SimpleITK is not installed.
    """
    path = mask_path(folder, key, source)
    write_volume(path, values[None], grid, notes_of_segments(classes, values, np.iinfo(values.dtype).max))
    return path


def volumes_below(folder: Path) -> dict[str, Path]:
    """The volume files below a folder in name order by their path without suffix, composed, but hidden ones.

    Raises:
        FormatError: two files have one name.
    """
    files: dict[str, Path] = {}
    paths = [path for path in folder.rglob("*") if suffix_of(path) and not path.name.startswith(".")]
    for path in sorted(paths, key=lambda path: natural(path.relative_to(folder).as_posix())):
        stem = composed(path.relative_to(folder).as_posix()[: -len(suffix_of(path))])
        other = files.setdefault(stem, path)
        if other is not path:
            raise FormatError(f"{other} and {path} have one name, so that their partner is not clear; rename or remove one")
    return files


def _has_volumes(folder: Path) -> bool:
    return any((suffix_of(path) or _is_half(path)) and not path.name.startswith(".") for path in folder.rglob("*"))


def _is_half(path: Path) -> bool:
    """Whether a file is the header of a NIfTI or Analyze whose pixels lie in a file beside it."""
    if path.suffix.lower() != ".hdr" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"\x5c\x01\0\0", b"\0\0\x01\x5c")  # its length, 348


def _only_folder(root: Path, names: Sequence[str], what: str, dropped: frozenset[str]) -> dict[str, Path]:
    """The volumes of the one folder of these names that holds any."""
    filled = [folder for folder in subfolders(root, names) if _has_volumes(folder)]
    if len(filled) != 1:
        problem = f"has several folders of {what}" if filled else f"has no folder of {what} that holds volumes ({found(root)})"
        raise FormatError(f"{root} {problem}; put them into {what}/, as .nii.gz, .nrrd or .mha")
    half = next(filter(_is_half, filled[0].rglob("*")), None)
    if half is not None:
        raise FormatError(
            f"{half} is half of a pair of .hdr and .img, which is not read; save both as one file, for example with "
            "nibabel.Nifti1Image.from_image(nibabel.load(pair)).to_filename('name.nii.gz'), and remove the pair"
        )
    return {stem: path for stem, path in volumes_below(filled[0]).items() if safe_key(stem) not in dropped}


def _paired(images: dict[str, Path], masks: dict[str, Path]) -> dict[str, Files]:
    bare = {MASK_ENDING.sub("", stem): mask for stem, mask in masks.items()}
    files: dict[str, Files] = {}
    for stem, image in images.items():
        mask = masks.get(stem) or bare.get(stem)
        if mask is None:
            missing = [stem for stem in images if stem not in masks and stem not in bare]
            names = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
            raise FormatError(f"{image} has no mask of its name, {len(missing)} of {len(images)} have none ({names}); add them")
        other = files.setdefault(safe_key(stem), Files(image, mask))
        if other.image != image:
            raise FormatError(f"{image} and {other.image} would both be called {safe_key(stem)}; rename one")
    left = set(masks.values()) - {entry.mask for entry in files.values()}
    if left:
        raise FormatError(f"{min(left)} has no image of its name ({len(left)} of {len(masks)} masks); add it or move the mask")
    return files


def _narrow(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.uint16 if numbers.max() <= MAX_VALUE else np.uint32)


def _write_one(path: Path, samples: Iterable[Sample]) -> None:
    found = list(islice(samples, 2))
    if len(found) != 1:
        raise OutputError(f"{path} is one file, for one sample, not for {'several' if found else 'none'}; give a folder")
    first = found[0]
    if first.truth is not None:
        raise OutputError(f"{path} is one file and holds the image only; give a folder, so that the truth is not lost")
    if path.exists():
        raise OutputError(f"{path} exists; give a new name, or convert with --force")
    write_volume(path, first.image, first.grid)

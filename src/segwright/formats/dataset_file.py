"""What is known of a data set beyond its files: `dataset.toml` beside the data, read by every command.

    format = "coco"                        where several formats recognise the folder
    axes = "ZYX"                           of images that are TIFF stacks which do not name them, or not rightly (Z depth,
                                           C channels); masks have the same but C
    drop = ["train__a"]                    keys of samples to leave out
    groups = [["b", "c"], ["d", "e"]]      keys that belong together: tiles of one field, scans of one person
    nodata = [-9999]                       values of images that are missing, where the files do not say so

    [masks]                                what the numbers in the masks mean, instead of classes.json
    classes = ["road", "car"]              the keys are those of classes.json; label_encoding.py says what they hold
    values = [1, 2]
    ignore_index = 0

It lies in the folder of the data, or in the one above a folder such as train/ or val/; keys then begin with "train__" or
"val__". `segwright inspect --write-config` writes it, with the reason of each line as a comment; the data stay as they are.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.stored_values import with_nan
from segwright.codecs.tiff_axes import DATASET_FILE, check_names
from segwright.core import Dataset, Sample
from segwright.core.atomic_files import replace_file
from segwright.core.errors import FormatError
from segwright.core.lookup import did_you_mean
from segwright.core.spelling import composed
from segwright.core.strict_json import json_text
from segwright.formats.image_index import SHOWN, TRAIN_NAMES, VAL_NAMES

NAME = DATASET_FILE
KEYS = ("format", "axes", "drop", "groups", "nodata", "masks")
MASK_KEYS = (
    *("classes", "palette", "ignore_index", "is_thing", "values", "nearest", "nothing_index", "masks", "crowd_index"),
    *("ignore_name", "ignore_color"),  # what some classes.json say of void; nothing reads them
)


@dataclass(frozen=True)
class DatasetFile:
    """The content of a dataset.toml: keys to leave out, the meaning of the masks as in classes.json, keys that belong together.

    `path` is the file that says it. `nodata` are the numbers of missing values.
    """

    path: Path
    drop: tuple[str, ...] = ()
    masks: dict[str, Any] | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    format: str | None = None
    nodata: tuple[float, ...] = ()


def read(root: Path | str) -> DatasetFile | None:
    """What the dataset.toml beside the data at a path says of it, in the keys that the data have when opened there.

    Where the folder above one such as train/ has such a file too, both count; of two [masks] the nearer.

    Raises:
        FormatError: a file is no TOML, or says something that is not in the docstring of this module.
    """
    folder = folder_of(root)
    near = _read(folder / NAME)
    name = folder.name or folder.absolute().name
    above = _read(folder.absolute().parent / NAME) if name.lower() in TRAIN_NAMES + VAL_NAMES else None
    if above is None:
        return near
    above = replace(
        above,
        drop=tuple(_below(above.drop, name)),
        groups=tuple(group for keys in above.groups if len(group := tuple(_below(keys, name))) > 1),
    )
    if near is None:
        return above
    return replace(
        near,
        drop=near.drop + above.drop,
        masks=near.masks or above.masks,
        groups=near.groups + above.groups,
        nodata=near.nodata + above.nodata,
    )


def folder_of(root: Path | str) -> Path:
    """The folder in which the dataset.toml of the data at a path lies: the path itself, or that of a file."""
    path = Path(root)
    return path.parent if path.is_file() else path


def masks_table(root: Path | str) -> dict[str, Any] | None:
    """The table [masks] of a data set, as the content of a classes.json; None where there is none.

    Raises:
        FormatError: as `read`.
    """
    known = read(root)
    return known.masks if known else None


def dropped(root: Path | str) -> frozenset[str]:
    """The keys that are to be left out of a data set: nothing is expected of their files, not even that they are there.

    Raises:
        FormatError: as `read`.
    """
    known = read(root)
    return frozenset(known.drop) if known else frozenset()


def apply(dataset: Dataset, root: Path | str) -> Dataset:
    """The data set without the samples that its dataset.toml drops, NaN in its images where that says that they lack values.

    Raises:
        FormatError: as `read`; or none is left.
    """
    drop = dropped(root)
    keys = [key for key in dataset.keys if key not in drop]
    if not keys and dataset.keys:
        raise FormatError(f"{folder_of(root) / NAME} drops all {len(dataset)} samples; shorten the list")
    return with_nodata(dataset if len(keys) == len(dataset) else dataset.subset(keys), root)


def with_nodata(dataset: Dataset, root: Path | str) -> Dataset:
    """The data set with NaN where the dataset.toml at a path says that images lack values.

    Raises:
        FormatError: as `read`.
    """
    known = read(root)
    return replace(dataset, load=_WithNodata(dataset, known.nodata)) if known and known.nodata else dataset


def nan_for(image: np.ndarray, numbers: Sequence[float]) -> np.ndarray:
    """An image (C, *S) with NaN where it holds one of these numbers; as it is where it holds none.

    In colours, three channels without sign, that is where all three hold it: one alone may be of a bright or a dark colour.
    """
    with np.errstate(over="ignore"):  # a number that the type cannot hold
        missing = np.logical_or.reduce([image == number for number in numbers])
    if len(image) == 3 and image.dtype.kind == "u":
        missing = missing.all(axis=0, keepdims=True)
    return with_nan(image, missing) if missing.any() else image


@dataclass(frozen=True, eq=False)
class _WithNodata:
    """Loads samples with NaN in their images in place of these numbers."""

    data: Dataset
    nodata: tuple[float, ...]

    def __call__(self, key: str) -> Sample:
        sample = self.data.load(key)
        return replace(sample, image=nan_for(sample.image, self.nodata))


def write_groups(root: Path, groups: Sequence[Sequence[str]]) -> None:
    """Write a dataset.toml that says which keys of a new data set belong together.

    Raises:
        OutputError: the place is not writable.
    """
    lines = "".join(f"    {json_text(list(group))},\n" for group in groups)  # such lists are the same in JSON and TOML
    replace_file(root / NAME, f"groups = [\n{lines}]\n".encode())


def keep_together(
    train: Sequence[str], val: Sequence[str], groups: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both lists of keys, after each group that lies in both went to where most of its keys are, in doubt to `train`.

    Neither list becomes empty: the last group that would empty `val` goes there, and one that would empty `train` is left.
    """
    order = {key: place for place, key in enumerate((*train, *val))}
    in_val = set(val)
    for group in groups:
        here = [key for key in group if key in order]
        count = sum(key in in_val for key in here)
        if not 0 < count < len(here):
            continue
        to_val = 2 * count > len(here) or not in_val - set(here)
        changed = in_val | set(here) if to_val else in_val - set(here)
        if 0 < len(changed) < len(order):
            in_val = changed
    return tuple(key for key in order if key not in in_val), tuple(key for key in order if key in in_val)


def _below(keys: Sequence[str], name: str) -> list[str]:
    prefix = f"{name}__"
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def _read(path: Path) -> DatasetFile | None:
    if not path.is_file():
        return None
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read as TOML ({error}); correct it or remove it") from error
    _check_names(path, content, KEYS, "")
    if "axes" in content:
        check_names(content["axes"], path)
    drop, table, groups = content.get("drop", []), content.get("masks"), content.get("groups", [])
    if not _is_names(drop):
        raise FormatError(f'{path}: drop is {drop!r:.80}; a list of keys is needed, such as ["a", "b"]')
    if not isinstance(groups, list) or not all(map(_is_names, groups)):
        raise FormatError(f'{path}: groups is {groups!r:.80}; a list of lists of keys is needed, such as [["a", "b"]]')
    if table is not None:
        if not isinstance(table, dict):
            raise FormatError(f"{path}: masks is {table!r:.80}; a table is needed: [masks] and its keys below it")
        _check_names(path, table, MASK_KEYS, "[masks] ")
    format = content.get("format")
    if format is not None and not isinstance(format, str):
        raise FormatError(f'{path}: format is {format!r:.80}; the name of a format is needed, such as "coco"')
    nodata = content.get("nodata", [])
    if not isinstance(nodata, list):
        nodata = [nodata]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in nodata):
        raise FormatError(
            f"{path}: nodata is {nodata!r:.80}; numbers that stand for missing values are needed, such as [-9999]"
        )
    together = tuple(tuple(map(composed, keys)) for keys in groups)
    return DatasetFile(path, tuple(map(composed, drop)), table, together, format, tuple(nodata))


def _check_names(path: Path, content: dict[str, Any], known: Sequence[str], place: str) -> None:
    wrong = [name for name in content if name not in known]
    if wrong:
        shown = ", ".join(map(repr, wrong[:SHOWN]))
        raise FormatError(
            f"{path}: {place}there is no key {shown}{did_you_mean(wrong[0], list(known))}; known are {', '.join(known)}"
        )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)

"""Data on disk: one module per format, each with `matches(path)` and `read(path)`, most with `write(path, samples)`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import FormatError, UnknownNameError
from segwright.core.find import find, names, nearest
from segwright.formats.image_tree import TRAIN_NAMES, VAL_NAMES, found, split_of
from segwright.formats.mask_folder import image_files, read_images

__all__ = ["image_files", "open_dataset", "open_splits", "read_images", "readers"]

HELD_OUT = 6  # the last sixth: enough to see a trend in 24 images, without losing much of them


def open_dataset(path: Path | str, format: str | None = None) -> Dataset:
    """The samples at a path such as a folder or "synthetic:streets", read when asked for; the format is recognised.

    `format` names a module of this folder, or a user's own as `package.module`, where recognising is not wanted.

    Raises:
        FormatError: no format or more than one recognises the path, or the files are not as their format demands.
        UnknownNameError: there is no format of that name; the message offers the nearest.
    """
    if format is not None:
        return _reader(format).read(path)
    known = readers()
    matching = [name for name, module in known.items() if module.matches(path)]
    if len(matching) > 1:
        raise FormatError(f"{path} can be read as {' and as '.join(matching)}; choose with format={matching[0]!r}")
    if not matching:
        raise FormatError(_unrecognised(Path(path), known))
    return known[matching[0]].read(path)


def open_splits(path: Path | str, val: Path | str | None = None, *, format: str | None = None) -> tuple[Dataset, Dataset]:
    """Two data sets of the same classes, to train with and to validate with.

    From `val` where it is given; else from subfolders such as train/ and val/, above or below images/ and masks/; else the
    last sixth of the samples in name order is held out, in one piece: neighbours in a stack or a video are alike, so that
    a random choice would validate on what was trained.

    Raises:
        FormatError: as `open_dataset`; or there is one sample only, or the classes of both differ.
    """
    path = Path(path) if Path(path).is_dir() else path
    if val is not None:
        return _alike(open_dataset(path, format), open_dataset(val, format))
    train_folder, val_folder = _subfolder(path, TRAIN_NAMES), _subfolder(path, VAL_NAMES)
    if train_folder and val_folder:
        return _alike(open_dataset(train_folder, format), open_dataset(val_folder, format))
    data = open_dataset(train_folder or path, format)
    train_keys, val_keys = _keys_below(data, TRAIN_NAMES), _keys_below(data, VAL_NAMES)
    if train_keys and val_keys:
        return data.subset(train_keys), data.subset(val_keys)
    if len(data) < 2:
        raise FormatError(f"{data.source} holds {len(data)} sample, two are needed to train and to validate; add more")
    held_out = max(1, len(data) // HELD_OUT)
    return data.subset(data.keys[:-held_out]), data.subset(data.keys[-held_out:])


def readers() -> dict[str, ModuleType]:
    """The modules of this folder that read a format, by name."""
    modules = {name: find(__name__, name) for name in names(__name__)}
    return {name: module for name, module in modules.items() if hasattr(module, "matches")}


def _reader(name: str) -> ModuleType:
    if "." in name:
        return find(__name__, name)
    known = readers()
    if name not in known:
        raise UnknownNameError(f"there is no format '{name}'{nearest(name, list(known))}; known are {', '.join(known)}")
    return known[name]


def _unrecognised(path: Path, known: dict[str, ModuleType]) -> str:
    layouts = "; ".join(f"{name}: {(module.__doc__ or '').splitlines()[0]}" for name, module in known.items())
    if not path.exists():
        return f"{path} does not exist; check the spelling. Segwright reads {layouts}"
    if not path.is_dir():
        return f"{path} is a file; give the folder that it belongs to. Segwright reads {layouts}"
    if _subfolder(path, TRAIN_NAMES) or _subfolder(path, VAL_NAMES):
        return f"{path} holds the parts of a data set ({found(path)}); give one of them, or all to open_splits"
    return f"{path} is not laid out as a data set ({found(path)}). Segwright reads {layouts}"


def _subfolder(path: Path | str, options: Sequence[str]) -> Path | None:
    if not isinstance(path, Path):
        return None
    folders = {entry.name.lower(): entry for entry in path.iterdir() if entry.is_dir()}
    return next((folders[name] for name in options if name in folders), None)


def _keys_below(data: Dataset, options: Sequence[str]) -> list[str]:
    return [key for key in data.keys if split_of(key)[0].lower() in options]


def _alike(train: Dataset, val: Dataset) -> tuple[Dataset, Dataset]:
    """Both with the same classes; where they were guessed, the part that holds fewer class numbers gets those of the other."""
    if train.classes == val.classes:
        return train, val
    fewer, more = sorted((train, val), key=lambda data: len(data.classes))
    is_guessed = more.classes.names == tuple(f"class_{k}" for k in range(len(more.classes)))
    if fewer.classes.names != (more.classes.names[: len(fewer.classes)] if is_guessed else more.classes.names):
        raise FormatError(
            f"{train.source} has the classes {', '.join(train.classes.names[:4])} ... ({len(train.classes)}), {val.source} "
            f"{', '.join(val.classes.names[:4])} ... ({len(val.classes)}); put one classes.json into the folder above both"
        )
    fewer = replace(fewer, classes=more.classes, load=_Renamed(fewer, more.classes))
    return (fewer, more) if more is val else (more, fewer)


class _Renamed:
    """Loads the samples of a data set with more classes than it knew of."""

    def __init__(self, data: Dataset, classes: Classes) -> None:
        self.data, self.classes = data, classes

    def __call__(self, key: str) -> Sample:
        sample = self.data.load(key)
        return sample if sample.truth is None else replace(sample, truth=replace(sample.truth, classes=self.classes))

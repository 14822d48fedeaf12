"""Data on disk: one module per format, each with `matches(path)` and `read(path)`, most with `write(path, samples)`."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import FormatError, SegwrightError, UnknownNameError, UnrecognisedError
from segwright.core.lookup import did_you_mean, find, names
from segwright.formats import dataset_file, mask_folder
from segwright.formats.image_index import TRAIN_NAMES, VAL_NAMES, found, split_of
from segwright.formats.mask_folder import image_files, read_images
from segwright.formats.resume_journal import UNFINISHED

log = logging.getLogger(__name__)

__all__ = ["alike", "image_files", "open_dataset", "read_images", "readers"]

LOOKED_ABOVE = 3  # folders, for the data set that a path belongs to: images/train/a.png lies three deep
GENERAL = ("mask_folder",)  # also matches what a more special format is: then that one reads it


def open_dataset(path: Path | str, format: str | None = None) -> Dataset:
    """The samples at a path such as a folder or "synthetic:streets", read when asked for; the format is recognised.

    A folder with data sets in train/, val/ and the like is one data set, whose keys begin with the name of the part, as in
    "train__0001". `format` names a module of this folder, or a user's own as `package.module`, where recognising is not wanted.

    Raises:
        FormatError: no format or more than one recognises the path, the files are not as their format demands, or a conversion
            into the folder was stopped.
        UnknownNameError: there is no format of that name; the message offers the nearest.
    """
    for folder in (Path(path), Path(path).parent):
        if (folder / UNFINISHED).is_file():
            raise FormatError(f"{folder} is unfinished: writing it was stopped; call that command again, or remove the folder")
    if format is None and Path(path).is_dir() and (known := dataset_file.read(path)) and known.format:
        if known.format not in readers():  # a file may not name a module to import
            raise UnknownNameError(
                f"{known.path}: there is no format {known.format!r}{did_you_mean(known.format, [*readers()])}"
            )
        format = known.format
    modules = {format: _reader(format)} if format is not None else readers()
    matching = _matching(modules, path)
    parts = {} if matching else {name: part for name, part in _parts(path).items() if _matching(modules, part)}
    if parts:
        return _joined(str(path), {name: open_dataset(part, format) for name, part in parts.items()})
    matching = [name for name in matching if name not in GENERAL] or matching or [*filter(None, [format])]
    if len(matching) > 1:
        raise FormatError(
            f"{path} can be read as {' and as '.join(matching)}; name one: "
            f'--format {matching[0]}, or format = "{matching[0]}" in {dataset_file.folder_of(path) / dataset_file.NAME}'
        )
    if not matching:
        raise UnrecognisedError(_unrecognised(Path(path), modules))
    with _named(str(path)):
        data = modules[matching[0]].read(path)
    return dataset_file.apply(_with_images(replace(data, load=_Named(data))), path)


def readers() -> dict[str, ModuleType]:
    """The modules of this folder that read a format, by name."""
    modules = {name: find(__name__, name) for name in names(__name__)}
    return {name: module for name, module in modules.items() if hasattr(module, "matches")}


@contextmanager
def _named(what: str) -> Iterator[None]:
    """A context in which whatever a reader fails with becomes a FormatError: damaged files lead to any mistake."""
    try:
        yield
    except (SegwrightError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"{what} cannot be read ({reason}); it may be damaged: copy or export it again") from error


@dataclass(frozen=True, eq=False)
class _Named:
    """Loads the samples of a data set; whatever goes wrong names the data set and the sample."""

    data: Dataset

    def __call__(self, key: str) -> Sample:
        with _named(f"{self.data.source}: sample {key!r}"):
            return self.data.load(key)

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return _Named(self.data.without_images())(key)


def _with_images(data: Dataset) -> Dataset:
    """The data set without parts, such as val, of which no image is there while those of others are; a warning names them."""
    keys: dict[str, list[str]] = {}
    for key in data.keys:
        keys.setdefault(split_of(key)[0], []).append(key)
    there = data.image_files.keys()
    for part in [part for part, own in keys.items() if part and there and there.isdisjoint(own)]:
        try:
            data.load(keys[part][0])  # some formats hold images inside their own files
        except FormatError:
            count = len(keys.pop(part))
            log.warning("%s: left out %s, as none of its %d images is there; add them, or drop it", data.source, part, count)
    return data.subset([key for key in data.keys if split_of(key)[0] in keys])


def _reader(name: str) -> ModuleType:
    if "." in name:
        return find(__name__, name)
    known = readers()
    if name not in known:
        raise UnknownNameError(f"there is no format '{name}'{did_you_mean(name, list(known))}; known are {', '.join(known)}")
    return known[name]


def _unrecognised(path: Path, known: dict[str, ModuleType]) -> str:
    if not path.exists():
        return f"{path} does not exist; check the spelling"
    above = next((folder for folder in path.parents[:LOOKED_ABOVE] if mask_folder.matches(folder)), None)
    if above is not None:
        what = "a folder" if path.is_dir() else "a file"
        return f"{path} is {what} of the data set {above}; give that one"
    layouts = "".join(f"\n  {name}: {(module.__doc__ or '').splitlines()[0]}" for name, module in known.items())
    if not path.is_dir():
        return f"{path} is a file; give the folder that it belongs to. Segwright reads{layouts}"
    return f"{path} is not laid out as a data set ({found(path)}). Segwright reads{layouts}"


def _matching(modules: dict[str, ModuleType], path: Path | str) -> list[str]:
    return [name for name, module in modules.items() if not hasattr(module, "matches") or module.matches(path)]


def _parts(path: Path | str) -> dict[str, Path]:
    """The subfolders that are called like parts of a data set, those to train with first."""
    if not Path(path).is_dir():
        return {}
    folders = {entry.name.lower(): entry for entry in Path(path).iterdir() if entry.is_dir()}
    return {folders[name].name: folders[name] for name in TRAIN_NAMES + VAL_NAMES if name in folders}


def _joined(source: str, parts: dict[str, Dataset]) -> Dataset:
    """One data set of several, whose keys begin with the names of the parts."""
    largest = max(parts.values(), key=lambda part: len(part.classes))
    parts = {name: alike(largest, part)[1] for name, part in parts.items()}
    return Dataset(
        source,
        largest.classes,
        tuple(f"{name}__{key}" for name, part in parts.items() for key in part.keys),
        _OfParts(parts),
        {f"{name}__{key}": file for name, part in parts.items() for key, file in part.image_files.items()},
        sum((Counter(part.left_out) for part in parts.values()), Counter()),
    )


@dataclass(frozen=True, eq=False)
class _OfParts:
    """Loads the samples of a data set whose keys begin with the name of a part."""

    parts: dict[str, Dataset]

    def __call__(self, key: str) -> Sample:
        name, _, rest = key.partition("__")
        return replace(self.parts[name].load(rest), key=key)

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        name, _, rest = key.partition("__")
        return replace(self.parts[name].without_images().load(rest), key=key)


def alike(train: Dataset, val: Dataset) -> tuple[Dataset, Dataset]:
    """Both with the same classes; where they were guessed, the part that holds fewer class numbers gets those of the other.

    Raises:
        FormatError: they name other classes.
    """
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
        return self._renamed(self.data.load(key))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return self._renamed(self.data.without_images().load(key))

    def _renamed(self, sample: Sample) -> Sample:
        return sample if sample.truth is None else replace(sample, truth=replace(sample.truth, classes=self.classes))

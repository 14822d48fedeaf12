"""What has been written of a data set so far, so that a writer that was stopped can go on.

While a data set is written, its folder holds `.segwright-unfinished`: a line of JSON on what is written, then one per
finished sample, with what the files of the whole set must say of it. At the end the lines are read once more, for those
files, and the journal goes. Memory does not grow with the number of samples.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from segwright.codecs.image_file import SUFFIXES, holds
from segwright.codecs.image_writer import write_image
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.atomic_files import lock, remove_unfinished
from segwright.core.errors import OutputError, SegwrightError
from segwright.core.strict_json import json_text
from segwright.formats.image_index import safe_key

UNFINISHED = ".segwright-unfinished"


class LeftOutError(SegwrightError):
    """What the `load` of a data set raises for a sample that a writer is to leave out; who wants to know why knows it."""


class Journal:
    """A context in which the samples of a data set are written into a folder, `root`, that is new, empty or unfinished.

    `samples` is a Dataset, whose finished samples are then not even read again, or any iterable of samples.

    Raises:
        OutputError: the folder holds something else, or is not writable.
    """

    def __init__(self, root: Path, format: str, samples: Dataset | Iterable[Sample]) -> None:
        self.root, self.path, self._samples = root, root / UNFINISHED, samples
        self._classes: Classes | None = samples.classes if isinstance(samples, Dataset) else None
        self._header: dict[str, Any] = {"format": format, "source": "", "classes": []}
        if isinstance(samples, Dataset):
            source = os.path.abspath(samples.source) if Path(samples.source).exists() else samples.source  # noqa: PTH100
            self._header |= {"source": source, "classes": list(samples.classes.names)}

    def __enter__(self) -> "Journal":
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not self.path.exists() and any(self.root.iterdir()):
                raise OutputError(
                    f"{self.root} is not empty and would be mixed with new files; give a new folder, or convert with --force"
                )
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.root} cannot be written ({error.strerror}); choose a writable place") from error
        try:
            self._go_on()
        except BaseException:
            self._file.close()
            raise
        return self

    def _go_on(self) -> None:
        """Take over what is there of the data set: the finished samples, and the header if there is one."""
        try:
            lock(self._file)
        except BlockingIOError as error:
            raise OutputError(
                f"{self.root} is being written by another process; wait until that is done, or give another folder"
            ) from error
        lines = self._lines()
        header = next(lines, None)
        if header is None:
            header = self._header
            self._note(header)
        remedy = "finish that, or remove the folder, or give a new one"
        if header != self._header:
            was = f"{header.get('source') or 'samples'} as {header.get('format')}"
            other = " with other classes" if {**header, "classes": 0} == {**self._header, "classes": 0} else ""
            raise OutputError(f"{self.root} is unfinished: it was to hold {was}{other}; {remedy}")
        self._finished = {line["key"] for line in lines}
        gone = self._finished - {*self._samples.keys} if isinstance(self._samples, Dataset) else None
        if gone:
            raise OutputError(
                f"{self.root} is unfinished: it has the sample {min(gone)!r}, which the source has no more; {remedy}"
            )
        remove_unfinished(self.root)

    @property
    def classes(self) -> Classes:
        """The classes of all samples; known once `samples` has given one."""
        return self._classes or Classes.of(["nothing"])

    def samples(self) -> Iterator[Sample]:
        """The samples that are not finished, each checked: a safe key, and classes that all have in common.

        Those for which `load` raises LeftOutError are passed over.

        Raises:
            OutputError: a sample cannot be written; or there is none at all.
        """
        keys: Iterable[Any] = self._samples.keys if isinstance(self._samples, Dataset) else self._samples
        for item in keys:
            key = item.key if isinstance(item, Sample) else item
            if key in self._finished:
                continue
            try:
                sample = item if isinstance(item, Sample) else self._samples.load(key)  # type: ignore[union-attr]
            except LeftOutError:
                continue
            if safe_key(key) != key:
                raise OutputError(f"sample key {key!r} cannot be a file name; use {safe_key(key)!r}")
            if 0 in sample.grid.shape:
                raise OutputError(f"sample {key!r} has no pixel (its shape is {sample.grid.shape}); leave it out")
            classes = sample.truth.classes if sample.truth is not None else self._classes
            if self._classes is not None and classes != self._classes:
                raise OutputError(f"sample {key!r} has other classes than those before it; write it to another folder")
            self._classes = classes
            yield sample
        if not self._finished:
            raise OutputError(f"no sample was given, so nothing was written to {self.root}; give at least one")

    def write_image(self, sample: Sample, target: Path) -> Path | None:
        """Write the image of a sample without loss at a path without suffix, and return the path with it; None without image.

        Where the file that the sample was read from is known and holds exactly this image, it is copied as it is. One that is
        to be turned as its EXIF says is written upright: masks are, and many programs pass EXIF over.
        """
        if not len(sample.image):
            return None
        source = self._samples.image_files.get(sample.key) if isinstance(self._samples, Dataset) else None
        if source is None or not source.name.lower().endswith(SUFFIXES) or not holds(source, sample.image):
            return write_image(target, sample.image)
        copy = target.with_name(target.name + source.suffix.lower())
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        except OSError as error:
            raise OutputError(f"{copy} cannot be written ({error.strerror}); choose a place with free space") from error
        return copy

    def add(self, sample: Sample, record: dict[str, Any] | None = None) -> None:
        """Note that the files of a sample are written. `record` is JSON that the files of the whole set need of it."""
        self._note({"key": sample.key, **(record or {})})
        self._finished.add(sample.key)

    def records(self) -> Iterator[dict[str, Any]]:
        """What was noted of each sample, in the order of writing, with its `key`; read from disk one by one."""
        lines = self._lines()
        next(lines)
        yield from lines

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is None or not self._finished:
            self.path.unlink(missing_ok=True)
        if kind is not None and self.root.is_dir() and not any(self.root.iterdir()):
            self.root.rmdir()

    def _note(self, line: dict[str, Any]) -> None:
        self._file.write(json_text(line) + "\n")
        self._file.flush()

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The whole lines; what the end of the process has cut short is removed."""
        end = 0
        for place, entry in _entries(self.path):
            yield entry
            end = place
        if end < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(end)


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each whole line of a journal, and the place of its end.

    Raises:
        OutputError: a line is damaged.
    """
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):  # cut short by the end of the process
                return
            end += len(line)
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or not (entry.keys() >= {"key"} or "format" in entry):
                raise OutputError(f"{path} is damaged; remove {path.parent} and begin anew")
            yield end, entry


def stopped(root: Path) -> tuple[str, frozenset[str]] | None:
    """The format of a data set that is unfinished, and the keys of its finished samples; None where nothing is unfinished.

    Raises:
        OutputError: its journal is damaged.
    """
    if not (root / UNFINISHED).is_file():
        return None
    format, keys = None, []
    for number, (_, entry) in enumerate(_entries(root / UNFINISHED)):
        if number:
            keys.append(str(entry.get("key")))
        else:
            format = entry.get("format")
    return None if format is None else (str(format), frozenset(keys))


def truth_of(sample: Sample) -> Segmentation:
    """The truth of a sample that is to be written.

    Raises:
        OutputError: it has none.
    """
    if sample.truth is None:
        raise OutputError(
            f"sample {sample.key!r} has no truth, and only samples with one can be written; add its mask, or leave it out: "
            f'drop = ["{sample.key}"] in dataset.toml beside the data'
        )
    return sample.truth

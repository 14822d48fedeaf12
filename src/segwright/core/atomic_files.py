"""Files that are whole or not there: what is written appears under its name only when it is complete."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO
from uuid import uuid4

from segwright.core.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows, which opens no file twice for writing that is to be removed
    fcntl = None  # type: ignore[assignment]

TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}")  # what files and folders are called before they are whole


def replace_file(path: Path, data: bytes) -> None:
    """Put these bytes at a path, whole or not at all; folders on the way are made.

    Raises:
        OutputError: the place is not writable; nothing is left behind.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece; it takes its place at the end of the context, and never if that ends with an error.

    Raises:
        OutputError: the place is not writable; nothing is left behind.
    """
    unfinished = path.parent / f".{path.name[:50]}.{uuid4().hex}"  # 50: names longer than 255 bytes are refused
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)  # noqa: PTH105  (one step on every system)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose a writable place with free space") from error
    finally:
        if unfinished.parent.is_dir():
            unfinished.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder with those above it, unless it is there, and see that files can be written into it.

    Raises:
        OutputError: that fails.
    """
    probe = folder / f".{uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}); choose another folder with out") from error


def check_utf8(path: Path | str) -> None:
    """Refuse a name that no text file can hold, as of a folder that came from a computer with another encoding.

    Raises:
        OutputError: it is not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise OutputError(f"{str(path)!r} is no name in UTF-8, so that nothing can be written of it; rename it")


def remove_unfinished(root: Path) -> None:
    """Remove what processes that were killed while they wrote below a folder have left behind."""
    for path in sorted(root.rglob(".*"), reverse=True):
        if TEMPORARY.fullmatch(path.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, a folder with all that is in it, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def lock(file: IO[str]) -> None:
    """Keep an open file for this process until it is closed, where the system can do so.

    Raises:
        BlockingIOError: another process keeps it.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # some network drives have no locks
            return

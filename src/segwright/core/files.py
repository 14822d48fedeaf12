"""Files that are whole or not there: what is written appears under its name only when it is complete."""

import os
import re
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

UNFINISHED = re.compile(r"\..*\.[0-9a-f]{32}")  # what `replacing` calls a file before it is whole


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


def is_unfinished(path: Path) -> bool:
    """Whether a file is one that `replacing` left behind when its process was killed."""
    return UNFINISHED.fullmatch(path.name) is not None and path.is_file()


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

"""Every error that Segwright raises on purpose. A message says what was given, what is needed and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class SegwrightError(Exception):
    """Base of all errors below; the command line prints its text without a traceback."""


@contextmanager
def naming(what: str) -> Iterator[None]:
    """A context in which errors say what was worked on: a sample, a file, unless they begin with it anyway."""
    try:
        yield
    except SegwrightError as error:
        if str(error).startswith(what):
            raise
        raise type(error)(f"{what}: {error}") from error


class UsageError(SegwrightError):
    """What the caller gave cannot be used; nothing was written. The command line exits with 2."""


class FormatError(UsageError):
    """A file or a folder is not what its format demands; the message names the file."""


class UnrecognisedError(FormatError):
    """A path is laid out as no format that is known."""


class ShapeError(UsageError):
    """An array does not have the shape that is needed."""


class SettingError(UsageError):
    """A setting is misspelt, missing or out of range."""


class UnknownNameError(UsageError):
    """No module of that name exists; the message offers the nearest."""


class OutputError(UsageError):
    """A result cannot be written where it was asked for."""


class MissingExtraError(UsageError):
    """An optional dependency is not installed; the message holds the install command."""


class TrainingError(SegwrightError):
    """Training could not go on; the message names the step, the samples and the last good checkpoint."""

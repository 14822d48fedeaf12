"""Arrays, numbers and texts from a pickle file, and nothing else: no word in the file is ever looked up or called.

A pickle file may name any function of any package and have it called. Here the few names that arrays are stored with stand for
the functions below, and every other name ends the reading. numpy's own functions are not among them: they would take from the
file what an array's bytes mean, pointers included.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import IO, Any

import numpy as np

KINDS = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")  # of numbers, and of nothing that points


class ForbiddenNameError(pickle.UnpicklingError):
    """A pickle file names something that is no part of an array; `name` says what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class StoredType:
    """The type of the numbers of an array, which are little-endian unless the file says otherwise."""

    def __init__(self, text: str, *_: object) -> None:
        text = text.decode("latin1") if isinstance(text, bytes) else text
        if text not in KINDS:
            raise ForbiddenNameError(f"an array of type {text!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")

    def numbers(self, raw: bytes | bytearray | str) -> np.ndarray:
        """The numbers (N,) that bytes stand for; Python 2 stored these as text."""
        return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, self.dtype)


class StoredArray:
    """What becomes an array when its shape, its type and its bytes are read."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, raw = state
        self.array = _shaped(raw, kind, shape, is_fortran=bool(is_fortran))


def _shaped(raw: bytes | bytearray | str, kind: StoredType, shape: tuple[int, ...], *, is_fortran: bool) -> np.ndarray:
    """An array of a shape, from its bytes in the order of rows, or of columns."""
    if not isinstance(kind, StoredType) or not isinstance(raw, (bytes, bytearray, str)):
        raise ForbiddenNameError("an array of objects")
    numbers = kind.numbers(raw)
    if len(numbers) != prod(shape):
        raise pickle.UnpicklingError(f"an array {list(shape)} has {len(numbers)} numbers")
    return numbers.reshape(shape, order="F" if is_fortran else "C")


def _from_buffer(raw: bytes | bytearray, kind: StoredType, shape: tuple[int, ...], order: str, *_: object) -> StoredArray:
    """An array as pickle's protocol 5 stores it."""
    found = StoredArray()
    found.array = _shaped(raw, kind, shape, is_fortran=order == "F")
    return found


def _number(kind: StoredType, raw: bytes | str) -> float:
    """A number that numpy stored, as Python's own."""
    return _shaped(raw, kind, (), is_fortran=False).item()


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes that were stored as text; any other encoding than Latin-1 could be one that unpacks."""
    if encoding != "latin1":
        raise ForbiddenNameError(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _unfilled(*_: object) -> StoredArray:
    """An array whose content follows."""
    return StoredArray()


def stand_ins() -> dict[str, Callable[..., Any]]:
    """What a name in a file stands for here. Each call gives functions of its own, so that no file can change another's."""
    named: dict[str, Callable[..., Any]] = {
        "_codecs.encode": lambda *arguments: _encoded(*arguments),
        "__builtin__.bytes": lambda: b"",  # what protocol 2 stores for no bytes at all
        "numpy.dtype": lambda *arguments: StoredType(*arguments),
        "numpy.ndarray": lambda *_: _unfilled(),
    }
    for core in ("numpy.core", "numpy._core"):  # as numpy 1 calls it, and numpy 2
        named[f"{core}.multiarray._reconstruct"] = lambda *_: _unfilled()
        named[f"{core}.multiarray.scalar"] = lambda *arguments: _number(*arguments)
        named[f"{core}.numeric._frombuffer"] = lambda *arguments: _from_buffer(*arguments)
    return named


class _Reader(pickle.Unpickler):
    """Reads a pickle file with no names but the stand-ins."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # what Python 2 stored bytes as
        self.known = stand_ins() | {"collections.OrderedDict": OrderedDict}

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.known:
            raise ForbiddenNameError(f"{module}.{name}")
        return self.known[f"{module}.{name}"]

    def persistent_load(self, pid: object) -> Any:
        raise ForbiddenNameError(f"a part outside the file ({pid!r})")


def read_arrays(file: IO[bytes]) -> Any:
    """What a pickle file holds: dicts, lists, tuples, texts, numbers, and arrays as `StoredArray`.

    Raises:
        ForbiddenNameError: it names something else; nothing of it was run.
        pickle.UnpicklingError: the file is damaged.
    """
    try:
        return _Reader(file).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged file may end the reading in any way
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error

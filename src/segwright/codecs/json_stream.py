"""JSON files that are too large to hold as objects: their lists are parsed entry by entry, when asked for.

Opening reads the file once, in chunks, and keeps where the entries of the lists begin and end: 8 bytes per entry, where
parsed objects would take thousands. A mistake in an entry is told with its place.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numba import njit
from pydantic import TypeAdapter, ValidationError

from segwright.core.atomic_files import replacing
from segwright.core.errors import FormatError
from segwright.core.strict_json import json_text

Spans = dict[str, tuple[tuple[int, int], np.ndarray | None]]
T = TypeVar("T")
CHUNK = 1 << 20  # bytes scanned at a time
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CURLY, SQUARE, COLON = map(ord, "{[:")
NO_INTEGER = -(2**63)  # where an entry has no integer under a key
TYPE_NAME = re.compile(r"_|(str|int|float|bool)$|[\w-]+\[")  # in the place of a mistake, where several types are possible
SHOWN = 60  # characters of a wrong value in a message


class JsonFile:
    """A JSON file: a list (`is_list`), or an object with these `keys`. Entries and values are read when asked for.

    Raises:
        FormatError: the file is missing, empty, cut short or no JSON. What lies inside entries is checked when they are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                marks = _scan(file, path)
                self.is_list, self._spans = _outline(file, marks, path)
        except FileNotFoundError as error:
            raise FormatError(f"{path} does not exist; check the spelling") from error
        except OSError as error:
            raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the object, none for a list."""
        return () if self.is_list else tuple(self._spans)

    def count(self, name: str = "") -> int:
        """The number of entries of the list under a key; the empty name is the list that the file is.

        Raises:
            FormatError: there is no such list.
        """
        return len(self._list(name)) - 1

    def value(self, name: str, adapter: TypeAdapter[T]) -> T:
        """The whole value under a key.

        Raises:
            FormatError: there is no such key, or its value is not what the adapter describes.
        """
        whole, _ = self._span(name)
        with self.path.open("rb") as file:
            return parse(adapter, _read(file, *whole), f"{self.path}: {name}")

    def entry(self, name: str, index: int, adapter: TypeAdapter[T]) -> T:
        """One entry of a list. Raises as `entries`."""
        return next(self.entries(name, adapter, [index]))

    def entries(self, name: str, adapter: TypeAdapter[T], indices: Iterable[int] | None = None) -> Iterator[T]:
        """The entries of the list under a key, all or those with the given indices.

        Raises:
            FormatError: there is no such list, or an entry is not what the adapter describes.
        """
        bounds = self._list(name)
        with self.path.open("rb", buffering=0) as file:  # entries of one image lie far apart: nothing more is read
            for index in range(len(bounds) - 1) if indices is None else indices:
                data = _read(file, int(bounds[index]) + 1, int(bounds[index + 1]))
                yield parse(adapter, data, f"{self.path}: {name}[{index}]")

    def integers(self, name: str, key: str) -> np.ndarray:
        """The integer under a key of each entry of a list of objects, int64 (N,); NO_INTEGER where there is none.

        Nothing else of the entries is parsed, so that a million of them take a second.
        """
        return self._look(name, key)[0]

    def is_filled(self, name: str, key: str) -> np.ndarray:
        """Whether each entry of a list of objects has something but null, [] or {} under a key, bool (N,)."""
        return self._look(name, key)[1].astype(bool)

    def _look(self, name: str, key: str) -> np.ndarray:
        """The integer under a key of each entry, and whether anything is there, int64 (2, N)."""
        bounds = self._list(name)
        found = np.zeros((2, len(bounds) - 1), np.int64)
        wanted = np.frombuffer(key.encode(), np.uint8)
        first = 0
        with self.path.open("rb") as file:
            while first < len(bounds) - 1:
                end = max(int(np.searchsorted(bounds, bounds[first] + CHUNK)), first + 2)
                part = bounds[first:end]
                data = np.frombuffer(_read(file, int(part[0]), int(part[-1])), np.uint8)
                _find_key(data, part - part[0], wanted, found[:, first : end - 1])
                first = end - 1
        return found

    def _span(self, name: str) -> tuple[tuple[int, int], np.ndarray | None]:
        if name not in self._spans:
            there = "a list" if self.is_list else f"an object with {', '.join(self.keys) or 'no key'}"
            raise FormatError(f"{self.path} has no {name or 'list'!r}: it is {there}; is it a file of another kind?")
        return self._spans[name]

    def _list(self, name: str) -> np.ndarray:
        _, bounds = self._span(name)
        if bounds is None:
            raise FormatError(f"{self.path}: {name} is no list, one is needed; export the file again")
        return bounds


def parse(adapter: TypeAdapter[T], data: bytes, place: str) -> T:
    """What JSON text holds, checked; `place` is for the message.

    Raises:
        FormatError: the text is no JSON, or not what the adapter describes; the message tells where.
    """
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        first = max(errors, key=lambda found: len(found["loc"]))  # of several types, the one that fitted furthest was meant
        parts = [part for part in first["loc"] if isinstance(part, int) or not TYPE_NAME.match(part)]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        given = "" if first["type"] in ("missing", "json_invalid") else f" (it is {_short(first['input'])})"
        raise FormatError(f"{place}{where}: {first['msg']}{given}; correct it or export the file again") from error


def open_json(path: Path) -> JsonFile:
    """A JSON file, whose outline is remembered until the file changes: those who look at it and those who read it share it.

    Raises:
        FormatError: as JsonFile.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return JsonFile(path)  # which says what is wrong
    return _open(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)  # the parts of a data set
def _open(path: Path, size: int, changed_ns: int) -> JsonFile:
    return JsonFile(path)


def top_keys(path: Path) -> frozenset[str]:
    """The keys of the object in a JSON file, {"[]"} for a list, none where it is no JSON; remembered until it changes."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return frozenset()
    return _top_keys(path, status.st_size, status.st_mtime_ns)


def forget() -> None:
    """Forget what is remembered of all files, as if each were new."""
    _open.cache_clear()
    _top_keys.cache_clear()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all; values that are iterators are written as lists, entry by entry.

    Raises:
        OutputError: the place is not writable.
    """
    with replacing(path) as file:
        for index, (name, value) in enumerate(content.items()):
            file.write(b"%s%s: " % (b",\n" if index else b"{", json_text(name).encode()))
            if isinstance(value, Iterator):
                file.write(b"[")
                for number, entry in enumerate(value):
                    file.write((b",\n" if number else b"\n") + json_text(entry).encode())
                file.write(b"]")
            else:
                file.write(json_text(value).encode())
        file.write(b"}\n" if content else b"{}\n")


@lru_cache(maxsize=1000)  # several formats ask for each file of a folder
def _top_keys(path: Path, size: int, changed_ns: int) -> frozenset[str]:
    try:
        file = _open(path, size, changed_ns)
    except FormatError:
        return frozenset()
    return frozenset({"[]"} if file.is_list else file.keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _scan(file: BinaryIO, path: Path) -> np.ndarray:
    """Position, byte and depth of the marks {}[],: of the outermost two levels, int64 (M, 3)."""
    state = np.zeros(4, np.int64)
    offset = len(BYTE_ORDER_MARK) if file.read(3) == BYTE_ORDER_MARK else 0
    file.seek(offset)
    found = []
    while chunk := file.read(CHUNK):
        table = np.empty((len(chunk), 3), np.int64)
        count = _find_marks(np.frombuffer(chunk, np.uint8), offset, state, table)
        if count < 0:
            raise FormatError(f"{path}: byte {-1 - count} ends the JSON or stands outside of it; export the file again")
        found.append(table[:count].copy())
        offset += len(chunk)
    marks = np.concatenate(found) if found else np.zeros((0, 3), np.int64)
    if not len(marks) or state[0]:
        what = "is empty or no JSON" if not len(marks) else f"is cut short after {offset} bytes"
        raise FormatError(f"{path} {what}; copy or export it again")
    return marks


@njit(cache=True, nogil=True)
def _find_marks(chunk: np.ndarray, offset: int, state: np.ndarray, table: np.ndarray) -> int:
    """Fill a table with marks, and return their number, or -1 - position of a byte that cannot stand there.

    `state` is the depth, whether inside a string, whether the next byte is escaped, and whether the JSON has begun.
    """
    depth, in_string, escaped = state[0], state[1], state[2]
    count = 0
    for index in range(len(chunk)):
        byte = chunk[index]
        if in_string:
            if escaped:
                escaped = 0
            elif byte == 92:  # backslash
                escaped = 1
            elif byte == 34:  # quotation mark
                in_string = 0
            continue
        is_open, is_close = byte == 123 or byte == 91, byte == 125 or byte == 93  # { [ and } ]
        if depth == 0:
            if byte == 32 or 9 <= byte <= 13:  # white space
                continue
            if not is_open or state[3]:
                return -1 - (offset + index)
            state[3] = 1
        if byte == 34:
            in_string = 1
        elif is_open:
            depth += 1
            if depth <= 2:
                table[count, 0], table[count, 1], table[count, 2] = offset + index, byte, depth
                count += 1
        elif is_close:
            if depth <= 2:
                table[count, 0], table[count, 1], table[count, 2] = offset + index, byte, depth
                count += 1
            depth -= 1
        elif (byte == 44 or byte == 58) and depth <= 2:  # , and :
            table[count, 0], table[count, 1], table[count, 2] = offset + index, byte, depth
            count += 1
    state[0], state[1], state[2] = depth, in_string, escaped
    return count


@njit(cache=True, nogil=True)
def _find_key(data: np.ndarray, bounds: np.ndarray, key: np.ndarray, found: np.ndarray) -> None:
    """Fill `found` (2, N) with the integer under a key of the object between each two bounds, and whether a value is there."""
    for entry in range(len(bounds) - 1):
        found[0, entry], found[1, entry] = NO_INTEGER, 0
        first, end = bounds[entry] + 1, min(bounds[entry + 1], len(data))
        depth, start, in_string, escaped, is_key = 0, 0, False, False, False
        for n in range(first, end):
            byte = data[n]
            if in_string:
                if escaped:
                    escaped = False
                elif byte == 92:  # backslash
                    escaped = True
                elif byte == 34:  # quotation mark
                    in_string = False
                    if is_key and depth == 1 and n - start == len(key) and np.all(data[start:n] == key):
                        found[0, entry], found[1, entry] = _look_at_value(data, n + 1, end)
                        break
                    is_key = False
            elif byte == 34:
                in_string, start = True, n + 1
            elif byte == 123 or byte == 91:  # { [
                depth += 1
                is_key = byte == 123
            elif byte == 125 or byte == 93:  # } ]
                depth -= 1
            elif byte == 44:  # ,
                is_key = True


@njit(cache=True, nogil=True)
def _look_at_value(data: np.ndarray, n: int, end: int) -> tuple[int, int]:
    """The integer behind a key, or NO_INTEGER, and whether there is anything but null, [] and {}."""
    while n < end and (data[n] <= 32 or data[n] == 58):  # white space and the colon
        n += 1
    if n >= end or data[n] == 110:  # null
        return NO_INTEGER, 0
    if data[n] == 91 or data[n] == 123:  # [ {
        n += 1
        while n < end and data[n] <= 32:
            n += 1
        return NO_INTEGER, int(n < end and data[n] != 93 and data[n] != 125)
    is_negative = data[n] == 45
    n += is_negative
    value, digits = 0, 0
    while n < end and 48 <= data[n] <= 57:
        value, digits = 10 * value + (data[n] - 48), digits + 1
        n += 1
    is_integer = 0 < digits < 19 and n < end and (data[n] <= 32 or data[n] == 44 or data[n] == 125)  # 19: more than 64 bits
    return (-value if is_negative else value) if is_integer else NO_INTEGER, 1


def _outline(file: BinaryIO, marks: np.ndarray, path: Path) -> tuple[bool, Spans]:
    """Whether the JSON is a list, and by key where each value begins and ends and, for a list, the marks around its entries.

    The bounds of a list are int64 (N + 1,): entry i lies between the marks i and i + 1. The list that a file is has the key "".
    """
    outer = marks[marks[:, 2] == 1]
    first, last = int(outer[0, 0]), int(outer[-1, 0])
    if outer[0, 1] != CURLY:
        return True, {"": ((first, last + 1), _bounds(file, outer))}
    colons = np.flatnonzero(outer[:, 1] == COLON)
    spans: Spans = {}
    for colon in colons:
        before, start, end = (int(outer[index, 0]) for index in (colon - 1, colon, min(colon + 1, len(outer) - 1)))
        name = parse(TypeAdapter(str), _read(file, before + 1, start), f"{path}: byte {before + 1}")
        between = marks[np.searchsorted(marks[:, 0], start) + 1 : np.searchsorted(marks[:, 0], end)]
        is_list = bool(len(between)) and between[0, 1] == SQUARE
        spans[name] = (start + 1, end), _bounds(file, between[between[:, 2] == 2]) if is_list else None
    return False, spans


def _bounds(file: BinaryIO, marks: np.ndarray) -> np.ndarray:
    """Positions of the marks around the entries of a list, int64 (N + 1,); one mark where it is empty."""
    bounds = marks[marks[:, 1] != COLON, 0]
    if len(bounds) == 2 and not _read(file, int(bounds[0]) + 1, int(bounds[1])).strip():
        return bounds[:1]
    return bounds

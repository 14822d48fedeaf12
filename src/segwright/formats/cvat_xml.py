"""CVAT's XML in two steps: where the images of a file begin, and then the shapes of one of them.

The file is read once, and stays on disk: memory holds a line about each image, whatever its shapes. XML with a DOCTYPE is
refused, since entities can blow up to any size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

from segwright.core.errors import FormatError
from segwright.formats.drawn_shapes import is_blank, is_polygon
from segwright.formats.named_objects import check_size

FILE = "annotations.xml"
SHAPES = ("polygon", "mask", "ellipse", "box")
ENCODINGS = ("utf-8", "us-ascii", "ascii", "iso-8859-1")  # in which parsing can start anywhere
MAX_DEPTH = 64  # of elements in each other; CVAT's own files have 6
CHUNK = 1 << 16  # bytes parsed at a time


@dataclass(frozen=True, slots=True)
class Entry:
    """An <image>: its name, subset and size (H, W), and the byte and the line where it begins."""

    name: str
    subset: str
    shape: tuple[int, int]
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A <polygon>, <mask> or other element of an image: its attributes, and where it stands, for messages."""

    tag: str
    attributes: dict[str, str]
    place: str

    def text(self, name: str) -> str:
        """An attribute.

        Raises:
            FormatError: it is not there.
        """
        if name not in self.attributes:
            raise FormatError(f"{self.place} has no {name!r}; correct it or export the file again")
        return self.attributes[name]

    def number(self, name: str, missing: int | None = None) -> int:
        """An attribute that is a whole number; `missing` where it may be absent.

        Raises:
            FormatError: it is absent, or something else.
        """
        text = str(missing) if missing is not None and name not in self.attributes else self.text(name)
        return _whole(text, f"{self.place}: {name}")


class _EndOfImage(Exception):
    """The element that was asked for is complete."""


class Index:
    """What one pass over a file finds.

    `entries` are its images, `labels` what <meta> says of each label (name, color, type, parent), `used` the labels of shapes
    in their order, and `encoding` is how the file is written.

    Raises:
        FormatError: the file is no XML or not CVAT's for images, or has a DOCTYPE.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.encoding = "utf-8"
        self.entries: list[Entry] = []
        self.labels: list[dict[str, str]] = []
        self.used: dict[str, None] = {}
        self._open: list[str] = []
        self._text = ""
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        try:
            with path.open("rb") as file:
                if b"\0" in file.read(4):
                    raise FormatError(f"{path} is no UTF-8; save it as UTF-8")
                file.seek(0)
                _parse(parser, file, path, 1)
        except FileNotFoundError as error:
            raise FormatError(f"{path} does not exist; give the folder that holds {FILE} and images/") from error
        except OSError as error:
            raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error
        del self._parser

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        self.encoding = (encoding or "utf-8").lower()
        if self.encoding not in ENCODINGS:
            raise FormatError(f"{self.path} is written in {encoding!r:.40}; save it as UTF-8")

    def _refuse_doctype(self, *_: object) -> None:
        raise FormatError(
            f"{self.path}, line {self._parser.CurrentLineNumber} has a DOCTYPE, which is refused: its entities can blow up to "
            "any size; CVAT writes none: remove it, or export the file again"
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        above = self._open
        if not above and tag != "annotations":
            raise FormatError(f"{self.path} begins with <{tag:.40}>, not with <annotations>; is it a file of another kind?")
        if len(above) == MAX_DEPTH:
            raise FormatError(f"{self.path}, line {line}: elements stand in each other {MAX_DEPTH} deep; export the file again")
        if len(above) == 1 and tag == "track":
            raise FormatError(
                f"{self.path}, line {line} holds tracks: this is 'CVAT for video'; export it as 'CVAT for images 1.1'"
            )
        if len(above) == 1 and tag == "image":
            place = f"{self.path}, line {line}: the image"
            self.entries.append(_entry(Shape(tag, attributes, place), self._parser.CurrentByteIndex, line))
        elif above[1:] == ["image"] and (tag in SHAPES or is_polygon(tag, attributes.get("points", "").count(";") + 1)):
            label = Shape(tag, attributes, f"{self.path}, line {line}: the {tag}").text("label")
            if not is_blank(label):
                self.used[label] = None
        elif above[1:2] == ["meta"] and tag == "label":
            self.labels.append({})
        elif above[1:2] == ["meta"] and above[-1] == "label" and tag in ("name", "color", "type", "parent"):
            self._text = ""
            self._parser.CharacterDataHandler = self._collect
        above.append(tag)

    def _collect(self, text: str) -> None:
        self._text += text

    def _end(self, tag: str) -> None:
        self._open.pop()
        if self._parser.CharacterDataHandler is not None:
            self._parser.CharacterDataHandler = None
            self.labels[-1].setdefault(tag, self._text)


def shapes_of(path: Path, encoding: str, entry: Entry) -> list[Shape]:
    """The elements in an <image>: polygons, boxes, points, tags and so on.

    Raises:
        FormatError: the file has changed, or what stands there is no XML.
    """
    shapes: list[Shape] = []
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if depth == 0 and (tag != "image" or attributes.get("name") != entry.name):
            raise FormatError(f"{path} has changed since it was opened; open it again")
        if depth == 1:
            line = entry.line + parser.CurrentLineNumber - 1
            shapes.append(Shape(tag, attributes, f"{path}, line {line}: the {tag} in image {entry.name!r}"))
        depth += 1

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            raise _EndOfImage

    parser = expat.ParserCreate(encoding)
    parser.StartElementHandler, parser.EndElementHandler = start, end
    try:
        with path.open("rb") as file:
            file.seek(entry.offset)
            _parse(parser, file, path, entry.line)
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error
    except _EndOfImage:
        pass
    return shapes


def _parse(parser: expat.XMLParserType, file: BinaryIO, path: Path, line: int) -> None:
    """Parse a file to its end; `line` is the one on which it begins."""
    try:
        while data := file.read(CHUNK):
            parser.Parse(data, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        place = f"line {line + error.lineno - 1}, column {error.offset + 1}"
        reason = expat.ErrorString(error.code)
        raise FormatError(f"{path}, {place}: {reason}; the XML is damaged or cut short: export it again") from error


def _entry(image: Shape, offset: int, line: int) -> Entry:
    shape = check_size(image.number("height"), image.number("width"), image.place)
    return Entry(image.text("name"), image.attributes.get("subset", ""), shape, offset, line)


def _whole(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise FormatError(f"{place} is {text!r:.40}, a whole number is needed; correct it or export the file again") from error

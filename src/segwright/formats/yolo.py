"""YOLO segmentation: data.yaml with the class names, images/PART/, and labels/PART/ with one line of corners per object.

    ROOT/data.yaml                 or another .yaml with `names` and `train`:
        train: images/train        a folder, a .txt with one image per line, or a list of these; also val and test
        val: images/val
        names: {0: person, 1: car} or [person, car]
        is_thing: [true, true]     ours, with `colors`, optional
    ROOT/images/train/NAME.jpg
    ROOT/labels/train/NAME.txt     "class x1 y1 x2 y2 x3 y3 ...", x in widths and y in heights of the image

The labels of an image lie where the last "images" of its path is "labels". An image without labels has no object, but where a
part has no labels at all (often `test`), nobody drew any. Labels without an image are counted. Keys are paths below images/,
with the part before them, as in "train__NAME"; without it where the whole set is one folder. What `path`, `train` or a list
name must lie in the folder of the yaml; "../" in front of it, which some tools write, is passed over where the rest does, and
so is how a path of another machine begins. A part that is not there is left out, but not train. Objects are numbered in the
order of the lines, and may overlap. All classes are things unless `is_thing` says otherwise.

Lines of five numbers are boxes, of six boxes with a score, and where the yaml has `kpt_shape`, boxes with points: all hold no
mask, and are left out and counted (drawn_shapes.py).

An object of several parts, or with holes, is written as one ring, in which cuts of no width join the parts: this reader gives
back exactly its pixels. Tools that fill with OpenCV also paint the corners and edges themselves: borders grow by half a pixel,
and each cut becomes a line one pixel wide. Void becomes nothing; crowds become objects; object numbers, scores and segments
without any pixel are lost. The order of the keys is kept: where folders in name order would not show it, lists are written, and
`all`, ours, which tells of the order and the keys of all images.

Axes: V corners of a ring, (H, W) pixels.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from segwright.codecs import polygons, rle
from segwright.codecs.image_file import SUFFIXES
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.atomic_files import replace_file, replacing
from segwright.core.classes import distinct_colors
from segwright.core.errors import FormatError, OutputError, SettingError
from segwright.core.spelling import composed
from segwright.core.strict_json import json_text
from segwright.formats.drawn_shapes import BOX_ALONE, NO_IMAGE, Drawing
from segwright.formats.image_index import SHOWN, TRAIN_NAMES, VAL_NAMES, as_spelt, images_below, natural
from segwright.formats.named_objects import (
    Region,
    place_of,
    read_picture,
    regions_of,
    segmentation,
    unique_keys,
    unread_picture,
)
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "void pixels become nothing, crowds become single objects; object numbers and scores are not kept"
FILE = "data.yaml"
PARTS = ("train", "val", "test", "valid", "validation")  # keys of the yaml
TEST_NAMES = ("test", "testing")
ORDER = "all"
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # only texts, lists and mappings: "no" is a name, and nothing is run
MAX_YAML = 1 << 20  # bytes: 40 000 classes with names of 16 letters; parsing a worse file takes seconds
MAX_DEPTH = 16  # of lists and mappings in each other; four are needed
SHOWN_TEXT = 80  # characters of a text in a message
MAX_SHARE = 2.0  # of the side of an image; corners a little outside are drawn, those far outside are pixels
DECIMALS = 7  # enough for 2 million pixels: corners are rounded to a fifth of a pixel
MAX_RUNS = 2**25  # of all objects of an image, 128 MB; lines of a few corners could claim any number
BOX = (4, 5)  # numbers after the class in a line that is a box: x, y, width, height, and perhaps a score
OBJECT = re.compile(rb"^[ \t]*\d+(?:\.0)?[ \t]+[-+.\d]", re.MULTILINE)  # how a line of labels begins
IS_DATA = (
    re.compile(rb"^[\"']?names[\"']?\s*:", re.MULTILINE),
    re.compile(rb"^[\"']?(train|val|test)[\"']?\s*:", re.MULTILINE),
)


@dataclass(frozen=True, slots=True)
class YoloEntry:
    """An image file and its labels; no labels mean no objects, or, where not `is_labelled`, that nobody drew any."""

    image: Path
    labels: Path | None
    is_labelled: bool


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads the image and the labels of a key; lines of `pose` numbers after the class are boxes with points."""

    entries: dict[str, YoloEntry]
    classes: Classes
    pose: int | None = None

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        entry = self.entries[key]
        image = picture(entry.image, None, str(entry.labels or entry.image), name=entry.image.name, is_needed=True)
        if not entry.is_labelled:
            return Sample.of(key, image)
        drawing = Drawing((image.shape[1], image.shape[2]))
        return drawing.sample(key, image, _truth(entry.labels, drawing, self.classes, self.pose))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with a .yaml that names classes and images, or such a file."""
    try:
        return bool(_yaml_files(Path(path)))
    except (OSError, ValueError):
        return False


def read(path: Path | str) -> Dataset:
    """The samples of a YOLO data set, part by part in name order; each is read when it is asked for.

    Raises:
        FormatError: the yaml, the lists or the folders are not as the module's docstring says; what is wrong with labels is
            found with their sample.
    """
    path = Path(path)
    files = _yaml_files(path) if path.exists() else []
    if len(files) != 1:
        several = (
            f"several ({', '.join(file.name for file in files[:SHOWN])}): give one of them, as the path" if files else "none"
        )
        raise FormatError(f"{path}: one .yaml that names classes and images is needed, such as {FILE}; there is {several}")
    file = files[0]
    content = _load(file)
    classes = _classes(content, file)
    found = _images(file, content)
    keys = unique_keys((image.name for image in found), file)
    wanted = [_labels(file.parent, image.path) for image in found]
    labels = [label if os.path.isfile(label) else None for label in wanted]  # noqa: PTH113  (no error, whatever the name)
    labelled = {image.source for image, label in zip(found, labels, strict=True) if label}
    if not labelled:
        raise FormatError(f"{file}: no image has labels; those of {found[0].path} would be {wanted[0]}: add them")
    entries = {
        key: YoloEntry(found[position].path, labels[position], found[position].source in labelled)
        for key, position in keys.items()
    }
    reader = Reader(entries, classes, _pose(content, file))
    images = {key: entry.image for key, entry in entries.items()}
    return Dataset(str(path), classes, tuple(entries), reader, images, _without_image(file.parent, found))


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as data.yaml, images/ and labels/; the module's docstring says how, and what is lost.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, or one is a volume or has no
            image, no truth or an unsafe key.
    """
    root = Path(path)
    with Journal(root, "yolo", samples) as journal:
        for sample in journal.samples():
            lines = _lines(sample)
            place = place_of(sample.key)
            image = journal.write_image(sample, root / "images" / place)
            if image is None:
                raise OutputError(f"sample {sample.key!r} has no image, to whose size corners are relative; write it as coco")
            replace_file(root / "labels" / f"{place}.txt", "".join(lines).encode())
            journal.add(sample, {"image": image.relative_to(root).as_posix()})
        splits = _write_lists(root, journal)
        replace_file(root / FILE, _yaml(journal.classes, splits).encode())


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a data set: its name for the key, its file, and the folder or list in which it was found."""

    name: str
    path: Path
    source: Path


def _yaml_files(path: Path) -> list[Path]:
    candidates = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    found = []
    for file in candidates:
        if file.suffix.lower() in (".yaml", ".yml") and file.is_file():
            with file.open("rb") as stream:
                head = stream.read(MAX_YAML)
            found += [file] if all(pattern.search(head) for pattern in IS_DATA) else []
    return found


def _load(file: Path) -> dict[str, Any]:
    """The content of a yaml, every value as text."""
    try:
        size = file.stat().st_size
        if size > MAX_YAML:
            raise FormatError(f"{file} has {size:,} bytes, {MAX_YAML:,} are the limit; it should only name classes and folders")
        text = file.read_text(encoding="utf-8-sig")
        _check_outline(text)
        content = yaml.load(text, Loader=LOADER)
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error.strerror}); check that it is a readable file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FormatError(f"{file} cannot be read as YAML ({' '.join(str(error).split())}); correct it") from error
    if not isinstance(content, dict):
        raise FormatError(f"{file} holds no keys; `train` and `names` are needed")
    return content


def _check_outline(text: str) -> None:
    """Refuse YAML that is nested deeply, or has aliases, which let a short file stand for gigabytes."""
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line} has an alias (*), write out what it stands for")
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"line {line} is nested more than {MAX_DEPTH} deep")


def _classes(content: dict[str, Any], file: Path) -> Classes:
    names = content.get("names")
    if isinstance(names, dict):
        numbers = [str(number) for number in range(len(names))]
        if set(names) != set(numbers):
            raise FormatError(
                f"{file}: names has the numbers {', '.join(map(str, [*names][:SHOWN]))}, ...; number them 0, 1, 2, ..."
            )
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{file}: names is {names!r:.60}; a list of class names is needed, or {{0: NAME, 1: NAME, ...}}")
    count = content.get("nc", str(len(names)))
    if count != str(len(names)):
        raise FormatError(f"{file}: nc is {count!r:.20}, but names has {len(names)}; correct one of them")
    things, colors = content.get("is_thing"), content.get("colors")
    try:
        "".join(names).encode()  # half a character could not be saved or shown
        flags = [("false", "true").index(flag.lower()) == 1 for flag in things] if things else [True] * len(names)
        palette = [[int(value) for value in color] for color in colors] if colors else None
        return Classes.of(names, colors=palette, is_thing=flags)
    except SettingError as error:
        raise FormatError(f"{file}: {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{file}: {error}; give one true or false of is_thing and one [r, g, b] of colors per class"
        ) from error


def _pose(content: dict[str, Any], file: Path) -> int | None:
    """Numbers after the class in lines of boxes with points, None where the yaml tells of no points."""
    given = content.get("kpt_shape")
    if given is None:
        return None
    try:
        points, each = map(int, given)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{file}: kpt_shape is {given!r:.60}; [points, 2 or 3 numbers of each] is needed") from error
    return 4 + points * each


def _images(file: Path, content: dict[str, Any]) -> list[_Image]:
    """All images, part by part, or in the order of the list under `all` where that is complete."""
    root = file.parent
    base = _base(root, content.get("path"))
    sources: dict[Path, str] = {}
    for part in (key for key in content if key in PARTS):
        values = content[part] if isinstance(content[part], list) else [content[part]]
        for value in values:
            if not isinstance(value, str):
                raise FormatError(f"{file}: {part} is {value!r:.60}; a folder, a .txt or a list of these is needed")
            if value in ("", "null", "~"):
                continue
            if part != "train" and _found(root, base, value) is None:
                log.warning("%s: %s is left out: %r is not there; add it, or remove the line", file, part, value[:SHOWN_TEXT])
                continue
            sources.setdefault(_inside(root, base, value, f"{file}: {part}"), part)
    found: dict[Path, _Image] = {}
    for source, part in sources.items():
        for image, name in _listed(root, base, source) if source.is_file() else _below(root, source):
            is_named = name.partition("/")[0].lower() in TRAIN_NAMES + VAL_NAMES and "/" in name
            found.setdefault(image, _Image(name if is_named or len(sources) == 1 else f"{part}/{name}", image, source))
    if not found:
        raise FormatError(f"{file}: there is no image in {', '.join(map(str, sources)) or 'train, val or test'}; add them")
    if not isinstance(content.get(ORDER), str):
        return [*found.values()]
    order = [*_listed(root, base, _inside(root, base, content[ORDER], f"{file}: {ORDER}"))]
    if {image for image, _ in order} != set(found):
        log.warning("%s: %s does not name the images that are there, and is passed over", file, ORDER)
        return [*found.values()]
    return [_Image(name, image, found[image].source) for image, name in order]


def _base(root: Path, value: Any) -> Path:
    """Where the paths of a yaml begin: the folder that it names, if that lies in its own folder, else its own."""
    below = _normal(value) if isinstance(value, str) else None
    return root / below if below and (root / below).is_dir() else root


def _normal(text: str) -> str | None:
    """A relative path without "." and "..", or None if it leads out."""
    text = text.strip().replace("\\", "/")
    normal = os.path.normpath(text or ".")
    is_outside = normal.startswith(("..", "/")) or ":" in normal.partition("/")[0] or "\0" in normal
    return None if is_outside else normal


def _found(root: Path, base: Path, text: str) -> Path | None:
    """The folder or file below the root that a text means; None where it is not there.

    It is looked for from `base` and from the root, then after the "../" in front of it, and where it is a path of another
    machine by its end: of that the last name alone must be one of a part, such as train or train.txt.
    """
    within = text.strip().replace("\\", "/")
    while within.startswith(("../", "./")):
        within = within.partition("/")[2]
    names = [name for name in within.split("/") if name]
    is_elsewhere = within.startswith("/") or ":" in within.partition("/")[0]
    last = len(names) - (PurePosixPath(within).stem.lower() not in TRAIN_NAMES + VAL_NAMES)
    ends = ["/".join(names[first:]) for first in range(last)] if is_elsewhere else []
    for start, name in ((base, text), (root, text), (root, within), *((root, end) for end in ends)):
        below = _normal(name)
        path = as_spelt(start / below) if below else None
        if path is not None and os.path.exists(path):  # noqa: PTH110  (no error, whatever the name)
            return path
    return None


def _inside(root: Path, base: Path, text: str, place: str) -> Path:
    """The folder or file below the root that a text means.

    Raises:
        FormatError: it is not there.
    """
    path = _found(root, base, text)
    if path is None and _normal(text) is None:
        raise FormatError(f"{place}: {text!r:.80} leads out of {root}; move the files there, and name them from there")
    if path is None:
        raise FormatError(f"{place}: {text!r:.80} is not in {root}; correct the name or add the files")
    return path


def _below(root: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """The images below a folder, and their names: from the folder named like a part, else from this folder."""
    for stem, file in images_below(folder):
        name = _name(root, file)
        is_named = name.partition("/")[0].lower() in TRAIN_NAMES + VAL_NAMES
        yield file, name if is_named else stem.removeprefix("images/")


def _listed(root: Path, base: Path, file: Path) -> Iterator[tuple[Path, str]]:
    """The images that the lines of a file name, and the names of these without "images"."""
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                place = f"{file}, line {number}"
                image = _inside(root, file.parent if line.startswith("./") else base, line.rstrip("\r\n"), place)
                if not image.name.lower().endswith(SUFFIXES):
                    raise FormatError(f"{place}: {line.strip()!r:.80} is no image; images end in {', '.join(SUFFIXES)}")
                yield image, _name(root, image)
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error.strerror}); check that it is a readable list of images") from error


def _name(root: Path, image: Path) -> str:
    """The path of an image below the root without its suffix and its first "images"."""
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        parts.remove("images")
    return PurePosixPath(*parts).as_posix().rpartition(".")[0]


def _labels(root: Path, image: Path) -> Path:
    parts = list(image.relative_to(root).parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return as_spelt(root.joinpath(*parts[:-1], f"{image.name.rpartition('.')[0]}.txt"))


def _without_image(root: Path, images: Iterable[_Image]) -> dict[str, int]:
    """How many objects are in labels beside those of the images whose own image is not there; a warning names the files."""
    count = 0
    alone: list[str] = []
    for folder in dict.fromkeys(image.path.parent for image in images):
        labels = _labels(root, folder / "any.png").parent
        there = {composed(name.rpartition(".")[0]) for name in os.listdir(folder) if name.lower().endswith(SUFFIXES)}  # noqa: PTH208
        for file in sorted(labels.glob("*.txt")):
            if not file.name.startswith(".") and composed(file.stem) not in there:
                objects = len(OBJECT.findall(file.read_bytes()))
                count += objects
                alone += [file.name] if objects else []
    if alone:
        log.warning("%s: no image belongs to %d files of labels (%s)", root, len(alone), ", ".join(alone[:SHOWN]))
    return {NO_IMAGE: count} if count else {}


def _truth(file: Path | None, drawing: Drawing, classes: Classes, pose: int | None) -> Segmentation:
    regions: list[Region] = []
    runs, text = 0, ""
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"{file} cannot be read ({error}); check that it is a file of numbers") from error
    for number, line in enumerate(text.split("\n"), start=1):
        region = _region(line, drawing, classes, pose, f"{file}, line {number}") if line.strip() else None
        if region is not None:
            regions.append(region)
            runs += len(region.counts)
            if runs > MAX_RUNS:
                raise FormatError(f"{file}, line {number}: the objects have {runs:,} runs of pixels; cut the image into tiles")
    return segmentation(regions, drawing.shape, classes, str(file))


def _region(line: str, drawing: Drawing, classes: Classes, pose: int | None, place: str) -> Region | None:
    """The object of a line, None where it is left out."""
    try:
        class_text, *texts = line.split()
        class_id, values = int(class_text.removesuffix(".0")), np.array([float(text) for text in texts])
    except ValueError as error:
        raise FormatError(
            f"{place} is {line.strip()!r:.40}; a class number and the corners x y x y x y ... are needed"
        ) from error
    if not 0 <= class_id < len(classes):
        raise FormatError(f"{place} has the class {class_id}; names has the classes 0..{len(classes) - 1}: correct one of them")
    if len(values) in BOX or len(values) == pose:
        drawing.leave_out(BOX_ALONE)
        return None
    if len(values) % 2:
        raise FormatError(
            f"{place} has {len(values)} numbers after the class; x and y of three or more corners are needed: remove a score "
            "at its end, or write the kpt_shape of boxes with points into the yaml"
        )
    if not (np.abs(values) <= MAX_SHARE).all():  # NaN is not
        raise FormatError(
            f"{place} has corners that are no shares of the image (0..1); divide x by its width and y by its height"
        )
    counts = drawing.polygon(values.reshape(-1, 2) * drawing.shape[::-1], place)
    return None if counts is None else Region(classes.names[class_id], counts)


def _lines(sample: Sample) -> list[str]:
    """One line per segment that has pixels."""
    lines = []
    for region in regions_of(sample, "yolo"):
        if rle.area(region.counts):
            height, width = sample.grid.shape
            ring = polygons.one_ring(polygons.trace_counts(region.counts, (height, width)))
            class_id = sample.truth.classes.names.index(region.name) if sample.truth is not None else 0
            shares = (ring / (width, height)).ravel().tolist()
            decimals = max(DECIMALS, len(str(max(height, width))) + 1)
            lines.append(" ".join([str(class_id), *(_share(value, decimals) for value in shares)]) + "\n")
    return lines


def _share(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")


def _write_lists(root: Path, journal: Journal) -> dict[str, Any]:
    """What the yaml says of the parts: folders where their name order is that of the keys, else lists, which are written."""
    parts: dict[str, str] = {}  # the folder of each part, and its key in the yaml
    last, last_name, is_plain = "", "", True
    for record in journal.records():
        part, _, name = place_of(record["key"]).rpartition("/")
        if part in parts:
            is_plain &= part == last and natural(last_name) < natural(name)
        parts.setdefault(part, _yaml_key(part))
        last, last_name = part, name
    keys = [*parts.values()]
    is_plain &= "" not in parts or len(parts) == 1
    is_plain &= len(set(keys)) == 1 + sum(key != before for before, key in zip(keys, keys[1:], strict=False))
    if is_plain:
        folders = {key: [f"images/{part}".rstrip("/") for part in parts if parts[part] == key] for key in keys}
        splits = {key: names[0] if len(names) == 1 else names for key, names in folders.items()}
    else:
        splits = {key: f"{key}.txt" for key in keys}
        with ExitStack() as stack:
            files = {key: stack.enter_context(replacing(root / f"{key}.txt")) for key in dict.fromkeys((*keys, ORDER))}
            for record in journal.records():
                line = f"./{record['image']}\n".encode("utf-8", "surrogateescape")
                files[parts[place_of(record["key"]).rpartition("/")[0]]].write(line)
                files[ORDER].write(line)
        splits[ORDER] = f"{ORDER}.txt"
    first = splits[keys[0]]
    return splits | {key: first for key in ("train", "val") if key not in splits}  # other tools need both


def _yaml_key(part: str) -> str:
    if part.lower() in TEST_NAMES:
        return "test"
    return "val" if part.lower() in VAL_NAMES else "train"


def _yaml(classes: Classes, splits: dict[str, Any]) -> str:
    text = yaml.safe_dump(splits | {"names": dict(enumerate(classes.names))}, sort_keys=False, allow_unicode=True)
    if not all(classes.is_thing):
        text += f"is_thing: {json_text(classes.is_thing)}\n"  # JSON is YAML, on one line
    if classes.colors != tuple(distinct_colors(len(classes))):
        text += f"colors: {json_text(classes.colors)}\n"
    return text

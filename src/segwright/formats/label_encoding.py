"""What the numbers in mask files mean: from classes.json and dataset.toml, or guessed from the numbers themselves.

`classes.json` is a list of names, or {name: [r, g, b]}, or the whole:

    {"classes": ["road", "car"],           names, in the order of the class numbers
     "palette": [[128, 64, 128], ...],     colours, optional
     "ignore_index": 255,                  the number that means void, optional; it may be the number of a class, or negative
     "is_thing": [false, true],            optional
     "values": [0, 255],                   the number in the masks for each class, optional, 0, 1, 2, ... by default
     "nothing_index": 2,                   the number of pixels that belong to no segment, optional
     "masks": "instances",                 each number is one object of the last class; optional. Of two classes, 0 is the
                                           first one, of one class 0 is nothing
     "crowd_index": 65534}                 there, the number of objects that nobody told apart, optional

The table [masks] of a dataset.toml beside it has the same keys. It counts instead of classes.json, or, where it names no
classes, key by key before it.

A mask whose channels differ is a picture of colours, and its colours are looked up in "palette"; black, where no class has it,
is void. With "masks": "colors" all masks are such pictures; without it, the first mask that is not grey tells.

Without a word on classes every mask is read once. Numbers {0, v} mean background and foreground; other 8-bit numbers are
classes, 255 being void; 16-bit numbers are objects (an instance map; 65535 is void). A mask in a JPEG is foreground from 128
on: JPEG blurs numbers, so that it can hold nothing finer.

Axes: C channels, *S spatial axes, (H, W), or (D, H, W) for TIFF volumes.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.image_file import JPEG_SUFFIXES, are_colors, read_image, read_mask_channels
from segwright.codecs.image_writer import MAX_8_BIT_CLASSES
from segwright.core import VOID, Classes, Segmentation
from segwright.core.atomic_files import replace_file
from segwright.core.classes import MAX_CLASSES
from segwright.core.errors import FormatError, SettingError
from segwright.formats import dataset_file
from segwright.formats.color_labels import ColorCode
from segwright.formats.label_maps import NOTHING, to_segmentation

log = logging.getLogger(__name__)

CLASSES_FILE = "classes.json"
KEYS = {"classes", "palette", "ignore_index", "is_thing", "values", "nothing_index", "masks", "crowd_index"}
UNKNOWN = NOTHING - 1  # class of a number that no class has
MAX_VALUE = 65_535  # of a 16-bit mask
VOID_8_BIT, VOID_16_BIT = 255, 65_535
JPEG_BLACK, JPEG_WHITE = 32, 224  # what a blurred 0 reaches, what a blurred 255 keeps
JPEG_MAX_BETWEEN = 0.1  # share of pixels between them: borders are less, photographs and class numbers more
MAX_GREY = 16  # masks of three equal channels looked at before they are taken for numbers: none of them shows a colour


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the numbers of masks stand for: `class_of` int32 (65536,) is the class of each, VOID, NOTHING or UNKNOWN.

    With `is_instances` each number of the last class is one object, but `crowd`. `negative` is a number below 0 that is void.
    `colors` say what the colours stand for, where somebody wrote it down; with `is_colors` all masks are pictures of them.
    `source` says where this is written down.
    """

    classes: Classes
    class_of: np.ndarray
    is_instances: bool = False
    crowd: int | None = None
    negative: int | None = None
    colors: ColorCode | None = None
    is_colors: bool = False
    source: str = "the rule for masks without classes.json"

    def maps(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        """The class (or VOID or NOTHING) of each pixel of a mask file, int32 (*S), and the number of its object, if it has any.

        Raises:
            FormatError: the file cannot be read, or a number or a colour is no class.
        """
        if self.is_colors:
            picture = read_image(path)
            return self._class_map_of(picture if len(picture) > 2 else np.repeat(picture[:1], 3, axis=0), path), None
        values = read_mask_channels(path)
        if are_colors(values):
            return self._class_map_of(values, path), None
        mask = _numbers(values[0], path)
        return self.class_map(mask, path), self._number_of[mask] if self.is_instances else None

    def class_map(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """The class (or VOID or NOTHING) that each number of an integer mask (*S) stands for, int32; raises as `maps`."""
        class_map = self.class_of[mask if mask.dtype.itemsize < 4 else np.where(mask > MAX_VALUE, 1, mask)]  # objects alone
        if class_map.min(initial=0) == UNKNOWN:
            self._refuse(mask, class_map == UNKNOWN, path)
        return class_map

    def truth(self, mask: np.ndarray, path: Path) -> Segmentation:
        """The segmentation that an integer mask (*S) stands for; `path` is for the messages.

        Raises:
            FormatError: a number is no class.
        """
        class_map = self.class_map(mask, path)
        if not self.is_instances:
            return to_segmentation(class_map, None, self.classes)
        if mask.dtype.itemsize < 4:
            return to_segmentation(class_map, self._number_of[mask], self.classes)
        numbers = np.where(mask > MAX_VALUE, mask, self._number_of[np.minimum(mask, MAX_VALUE)])
        return to_segmentation(class_map, numbers, self.classes)

    def looking_at(self, masks: Iterable[Path]) -> "Meaning":
        """This, or the same for pictures of colours where the first of these masks that is not grey is one."""
        if self.colors is None or self.is_instances or self.is_colors:
            return self
        for path in islice(masks, MAX_GREY):
            try:
                values = read_mask_channels(path)
            except FormatError:  # told when its sample is read
                continue
            if len(values) == 1 or are_colors(values):
                return replace(self, is_colors=len(values) > 1)
        return self

    @cached_property
    def _number_of(self) -> np.ndarray:
        """Object number of each number in an instance map, int32 (65536,)."""
        numbers = np.where(self.class_of == len(self.classes) - 1, np.arange(MAX_VALUE + 1, dtype=np.int32), 0)
        if self.crowd is not None:
            numbers[self.crowd] = 0
        return numbers

    def _class_map_of(self, picture: np.ndarray, path: Path) -> np.ndarray:
        if self.colors is None:
            raise _colors_without_meaning(path, self.source)
        return self.colors.class_map(picture, path, self.source)

    def _refuse(self, mask: np.ndarray, unknown: np.ndarray, path: Path) -> None:
        value, count = Counter(mask[unknown].tolist()).most_common(1)[0]
        names = self.classes.names
        hint = ""
        if len(names) == 2 and value == VOID_8_BIT:
            hint = ', or "values": [0, 255] if they are the second class'
        elif mask.dtype.itemsize > 1:
            hint = ', or "masks": "instances" if each number is one object'
        raise FormatError(
            f"{path} holds the number {value} at {count} of {mask.size} pixels, but {self.source} has "
            f"{len(names)} classes ({names[0]} to {names[-1]}) without it; add the missing classes there, "
            f'or "ignore_index": {value} if nobody knows what these pixels are{hint}'
        )


def read_numbers(path: Path) -> np.ndarray:
    """The numbers 0..65535 of a mask file, integer (*S); those of a JPEG are 0 and 1.

    Raises:
        FormatError: as `read_mask_channels`; or there are other numbers or colours, or a JPEG is not black and white.
    """
    values = read_mask_channels(path)
    if are_colors(values):
        raise _colors_without_meaning(path, Meaning.source)
    return _numbers(values[0], path)


def present(mask: np.ndarray) -> np.ndarray:
    """The numbers that occur in an integer mask (*S) of values 0..65535, sorted, int64 (N,)."""
    is_present = np.zeros(MAX_VALUE + 1, dtype=bool)
    is_present[mask] = True
    return np.flatnonzero(is_present)


def guess_meaning(masks: Sequence[Path]) -> Meaning:
    """What the numbers mean where no classes.json says it; the rule is in the module's docstring. Reads the masks once.

    Raises:
        FormatError: as `read_numbers`.
    """
    values, is_wide = _scan(masks)
    nonzero = values[values > 0]
    if is_wide and (len(nonzero) != 1 or nonzero[0] not in (VOID_8_BIT, VOID_16_BIT)):
        return _of_instances(Classes.of(["background", "object"]), {}, Meaning.source)
    if len(nonzero) <= 1:
        return Meaning(Classes.of(["background", "foreground"]), _lookup([0, *nonzero]))
    highest = int(nonzero[nonzero != VOID_8_BIT].max())
    if len(values) < highest // 2:
        log.warning(
            "the masks in %s hold only %d different numbers, up to %d, and are read as %d classes; "
            'name the classes in classes.json, with "values" for their numbers',
            *(masks[0].parent, len(values), highest, highest + 1),
        )
    return Meaning(Classes.of([f"class_{k}" for k in range(highest + 1)]), _lookup(range(highest + 1), VOID_8_BIT))


def read_classes(path: Path) -> Meaning:
    """The meaning that a classes.json gives to the masks.

    Raises:
        FormatError: the file is no JSON, or not as the module's docstring says.
    """
    return meaning_of(read_table(path), str(path))


def read_table(path: Path) -> dict[str, Any]:
    """What a classes.json says, in the last of its three forms, whatever it says of each key.

    Raises:
        FormatError: the file is no JSON, or of none of the three forms.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(content, ensure_ascii=False).encode()  # half a character, such as "\\ud800", could not be saved or shown
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read as JSON ({error}); correct it or remove it") from error
    return _whole(content, str(path))


def written_meaning(root: Path, *, is_above: bool = False) -> Meaning | None:
    """What dataset.toml and classes.json in a folder say of its masks, None where neither says a word.

    With `is_above` a classes.json in the folder above counts too.

    Raises:
        FormatError: one of them is not as the module's docstring says.
    """
    table = dataset_file.masks_table(root)
    folders = (root, root.absolute().parent) if is_above else (root,)
    path = next((folder / CLASSES_FILE for folder in folders if (folder / CLASSES_FILE).is_file()), None)
    if table is None:
        return None if path is None else read_classes(path)
    source = str(dataset_file.folder_of(root) / dataset_file.NAME)
    if "classes" not in table and path is not None:
        table, source = read_table(path) | table, f"{path} with {source}"
    return meaning_of(table, source)


def meaning_of(content: Any, source: str) -> Meaning:
    """The meaning that the content of a classes.json, or of the table [masks], gives to the masks.

    Raises:
        FormatError: it is not as the module's docstring says.
    """
    given = _whole(content, source)
    names, ignore_index = given.get("classes"), given.get("ignore_index")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f'{source}: a list of class names is needed, such as ["road", "car"], or {{"classes": [...]}}')
    if len(names) > MAX_CLASSES:
        raise FormatError(f"{source} names {len(names)} classes; 16-bit masks hold up to {MAX_CLASSES}: merge some")
    colors, values = given.get("palette"), given.get("values") or range(len(names))
    things, masks = given.get("is_thing"), given.get("masks", "classes")
    try:
        if colors and any(not isinstance(value, int | float) or not 0 <= value <= 255 for color in colors for value in color):
            raise ValueError("colours are numbers 0..255")
        if things and any(flag not in (True, False) for flag in things):
            raise ValueError(f"is_thing is {things!r}")
        if masks not in ("classes", "instances", "colors"):
            raise SettingError(
                f'"masks" is {masks!r}; write "instances" if each number is one object, "colors" if the masks are pictures in '
                "the colours of the palette, else leave it out"
            )
        if len(values) != len(names):
            raise ValueError(f"there are {len(names)} classes, but {len(values)} values")
        classes = Classes.of(names, colors=colors[: len(names)] if colors else None, is_thing=things)
        negative = ignore_index if isinstance(ignore_index, int) and ignore_index < 0 else None
        if masks == "instances":
            return replace(_of_instances(classes, given, source), negative=negative)
        class_of = _lookup(values, ignore_index if negative is None else None, given.get("nothing_index"))
        code = _color_code(classes, class_of, [*values], colors) if colors else None
        if masks == "colors" and code is None:
            raise SettingError('"masks" is "colors"; write the colours of the classes as "palette", one [r, g, b] each')
        return Meaning(classes, class_of, negative=negative, colors=code, is_colors=masks == "colors", source=source)
    except SettingError as error:
        raise FormatError(f"{source}: {error}") from error
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise FormatError(
            f"{source}: {error}; give one [r, g, b] of palette, one true or false of is_thing and one number of values per "
            f"class, and one number up to {MAX_VALUE} as ignore_index"
        ) from error


def write_classes(
    path: Path,
    classes: Classes,
    *,
    is_instances: bool = False,
    values: Sequence[int] | None = None,
    ignore_index: int | None = None,
    nothing_index: int | None = None,
    crowd_index: int | None = None,
) -> None:
    """Write a classes.json; what is None is left out, but the number for void.

    That is 65535 for instance maps and for more classes than 8 bits hold, else 255.
    """
    void = VOID_16_BIT if is_instances or len(classes) > MAX_8_BIT_CLASSES else VOID_8_BIT
    content: dict[str, Any] = {
        "classes": list(classes.names),
        "palette": [list(color) for color in classes.colors],
        "ignore_index": void if ignore_index is None else ignore_index,
    }
    if any(classes.is_thing):
        content["is_thing"] = list(classes.is_thing)
    if values is not None:
        content["values"] = list(values)
    if is_instances:
        content["masks"] = "instances"
    if nothing_index is not None:
        content["nothing_index"] = nothing_index
    if crowd_index is not None:
        content["crowd_index"] = crowd_index
    replace_file(path, json.dumps(content).encode())


def _whole(content: Any, source: str) -> dict[str, Any]:
    """What a classes.json says, in the last of its three forms."""
    if isinstance(content, list):
        return {"classes": content}
    if not isinstance(content, dict):
        raise FormatError(f'{source}: a list of class names is needed, such as ["road", "car"], or {{"classes": [...]}}')
    if "classes" in content or content.keys() <= KEYS:
        return content
    if all(isinstance(value, str | int) for value in content.values()):  # names of numbers, or numbers of names
        raise FormatError(
            f"{source} is {json.dumps(content, ensure_ascii=False):.60} ...; names and their numbers are written as "
            '{"classes": ["road", "car"], "values": [1, 2]}'
        )
    return {"classes": list(content), "palette": list(content.values())}


def _numbers(mask: np.ndarray, path: Path) -> np.ndarray:
    """The numbers of a mask file as `read_numbers` gives them."""
    low, high = mask.min(initial=0), mask.max(initial=0)
    if low < 0 or high > MAX_VALUE:
        raise FormatError(f"{path} holds the numbers {low}..{high}; renumber them 0..{MAX_VALUE}, with {MAX_VALUE} for void")
    if path.suffix.lower() not in JPEG_SUFFIXES:
        return mask
    between = float(((mask > JPEG_BLACK) & (mask < JPEG_WHITE)).mean())
    if between > JPEG_MAX_BETWEEN or 0 < high < JPEG_WHITE:
        raise FormatError(
            f"{path} is a JPEG whose values are not black and white ({between:.0%} lie between, the highest is {high}); "
            "JPEG blurs class numbers: export the masks as PNG"
        )
    return (mask >= 128).astype(np.uint8)  # 128: the middle of 0 and 255


def _colors_without_meaning(path: Path, source: str) -> FormatError:
    return FormatError(
        f"{path} is a picture of colours (its channels differ), but {source} does not say what they stand for; write the "
        'classes and their colours into classes.json, {"classes": ["road"], "palette": [[128, 64, 128]]}, as '
        "segwright inspect --write-config proposes it"
    )


def _scan(masks: Sequence[Path]) -> tuple[np.ndarray, bool]:
    """All numbers in the masks, and whether a mask has 16 bits; three numbers of a 16-bit mask are enough to stop."""

    def look(path: Path) -> tuple[np.ndarray, bool]:
        mask = read_numbers(path)
        return present(mask), mask.dtype.itemsize > 1

    values, is_wide = np.zeros(0, dtype=np.int64), False
    with ThreadPoolExecutor() as pool:  # the decoders run outside Python's lock
        for new, wide in pool.map(look, masks):
            values, is_wide = np.union1d(values, new), is_wide or wide
            if is_wide and len(values) > 2:
                pool.shutdown(wait=False, cancel_futures=True)
                break
    return values, is_wide


def _of_instances(classes: Classes, given: dict[str, Any], source: str) -> Meaning:
    if len(classes) > 2:
        raise ValueError(
            f"masks of instances need one class, or two classes, the background and the object, not {len(classes)}"
        )
    crowd, ignore_index = given.get("crowd_index"), given.get("ignore_index")
    class_of = np.minimum(_lookup(range(MAX_VALUE + 1)), 1)
    if len(classes) == 1:
        class_of = np.where(class_of == 0, np.int32(NOTHING), np.int32(0))
    for number, meaning in ((crowd, len(classes) - 1), (given.get("nothing_index"), NOTHING)):
        if number is not None:
            class_of[_number(number)] = meaning
    class_of[VOID_16_BIT if ignore_index is None or ignore_index < 0 else _number(ignore_index)] = VOID
    classes = Classes.of(classes.names, colors=classes.colors, is_thing=[False, True][-len(classes) :])
    return Meaning(classes, class_of, is_instances=True, crowd=crowd, source=source)


def _lookup(values: Iterable[int], ignore_index: int | None = None, nothing_index: int | None = None) -> np.ndarray:
    """Class of each number, int32 (65536,), from the number of each class."""
    numbers = [_number(value) for value in values]
    if len(set(numbers)) < len(numbers):
        value, count = Counter(numbers).most_common(1)[0]
        raise ValueError(f"the number {value} stands for {count} classes")
    class_of = np.full(MAX_VALUE + 1, UNKNOWN, dtype=np.int32)
    class_of[numbers] = np.arange(len(numbers))
    if nothing_index is not None:
        class_of[_number(nothing_index)] = NOTHING
    if ignore_index is not None:
        class_of[_number(ignore_index)] = VOID
    return class_of


def _number(value: Any) -> int:
    if not isinstance(value, int | np.integer) or not 0 <= value <= MAX_VALUE:
        raise ValueError(f"numbers of masks are 0..{MAX_VALUE}, not {value!r}")
    return int(value)


def _color_code(classes: Classes, class_of: np.ndarray, values: list[int], colors: Sequence[Sequence[int]]) -> ColorCode:
    """What the colours stand for: those of the classes, and any that follow in the palette at a number of its own."""
    more = [k for k in range(len(classes), len(colors)) if k <= MAX_VALUE and class_of[k] in (VOID, NOTHING)]
    palette = [*classes.colors, *(tuple(map(int, colors[k])) for k in more)]
    names = (*classes.names, *("nothing" if class_of[k] == NOTHING else "void" for k in more))
    return ColorCode(np.array(palette, dtype=np.uint8), class_of[[*values, *more]], names)

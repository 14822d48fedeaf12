"""What the numbers in mask files mean: from classes.json, or guessed from the numbers themselves.

`classes.json` is a list of names, or {name: [r, g, b]}, or the whole:

    {"classes": ["road", "car"],           names, in the order of the class numbers
     "palette": [[128, 64, 128], ...],     colours, optional
     "ignore_index": 255,                  the number that means void, optional; it may be the number of a class
     "is_thing": [false, true],            optional
     "values": [0, 255],                   the number in the masks for each class, optional, 0, 1, 2, ... by default
     "masks": "instances"}                 each number is one object of the second class, 0 is the first class; optional

Without it every mask is read once. Numbers {0, v} mean background and foreground; other 8-bit numbers are classes, 255 being
void; 16-bit numbers are objects (an instance map; 65535 is void). A mask in a JPEG is foreground from 128 on: JPEG blurs
numbers, so that it can hold nothing finer.

Axes: *S spatial axes, (H, W), or (D, H, W) for TIFF volumes.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.image_file import JPEG_SUFFIXES, MAX_8_BIT_CLASSES, read_mask
from segwright.core import VOID, Classes, Segmentation
from segwright.core.classes import MAX_CLASSES
from segwright.core.errors import FormatError, SettingError
from segwright.core.files import replace_file

log = logging.getLogger(__name__)

UNKNOWN = VOID - 1  # class of a number that no class has
MAX_VALUE = 65_535  # of a 16-bit mask
VOID_8_BIT, VOID_16_BIT = 255, 65_535
JPEG_BLACK, JPEG_WHITE = 32, 224  # what a blurred 0 reaches, what a blurred 255 keeps
JPEG_MAX_BETWEEN = 0.1  # share of pixels between them: borders are less, photographs and class numbers more


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the numbers of masks stand for: `class_of` int32 (65536,) is the class of each number, VOID or UNKNOWN.

    With `is_instances`, each number of the second class is one object. `source` says where this is written down.
    """

    classes: Classes
    class_of: np.ndarray
    is_instances: bool = False
    source: str = "the rule for masks without classes.json"

    def truth(self, mask: np.ndarray, path: Path) -> Segmentation:
        """The segmentation that an integer mask (*S) stands for; `path` is for the messages.

        Raises:
            FormatError: a number is no class.
        """
        if self.is_instances:
            return self._objects(mask)
        class_map = self.class_of[mask]
        if class_map.min(initial=0) == UNKNOWN:
            self._refuse(mask, class_map == UNKNOWN, path)
        return Segmentation.semantic(class_map, self.classes)

    def _objects(self, mask: np.ndarray) -> Segmentation:
        values = present(mask)
        values = values[self.class_of[values] >= 0]
        segment_of = np.full(MAX_VALUE + 1, VOID, dtype=np.int32)
        segment_of[values] = np.arange(1, len(values) + 1)
        class_ids = self.class_of[values]
        return Segmentation.panoptic(segment_of[mask], class_ids, np.where(class_ids == 1, values, 0), classes=self.classes)

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
        FormatError: as `read_mask`; or there are other numbers, or a JPEG is not black and white.
    """
    mask = read_mask(path)
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
        return _of_instances(Classes.of(["background", "object"]), VOID_16_BIT)
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
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(content, ensure_ascii=False).encode()  # half a character, such as "\\ud800", could not be saved or shown
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read as JSON ({error}); correct it or remove it") from error
    if isinstance(content, dict) and "classes" not in content:
        content = {"classes": list(content), "palette": list(content.values())}
    given: dict[str, Any] = content if isinstance(content, dict) else {"classes": content}
    names, ignore_index = given["classes"], given.get("ignore_index")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f'{path}: a list of class names is needed, such as ["road", "car"], or {{"classes": [...]}}')
    if len(names) > MAX_CLASSES:
        raise FormatError(f"{path} names {len(names)} classes; 16-bit masks hold up to {MAX_CLASSES}: merge some")
    colors, values = given.get("palette"), given.get("values") or range(len(names))
    things, masks = given.get("is_thing"), given.get("masks", "classes")
    try:
        if colors and any(not isinstance(value, int | float) or not 0 <= value <= 255 for color in colors for value in color):
            raise ValueError("colours are numbers 0..255")
        if things and any(flag not in (True, False) for flag in things):
            raise ValueError(f"is_thing is {things!r}")
        if masks not in ("classes", "instances"):
            raise SettingError(f'"masks" is {masks!r}; write "instances" if each number is one object, else leave it out')
        if len(values) != len(names):
            raise ValueError(f"{len(names)} classes, but {len(values)} values")
        classes = Classes.of(names, colors=colors[: len(names)] if colors else None, is_thing=things)
        if masks == "instances":
            return _of_instances(classes, VOID_16_BIT if ignore_index is None else ignore_index, str(path))
        return Meaning(classes, _lookup(values, ignore_index), source=str(path))
    except SettingError as error:
        raise FormatError(f"{path}: {error}") from error
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise FormatError(
            f"{path}: {error}; give one [r, g, b] of palette, one true or false of is_thing and one number of values per "
            f"class, and one number 0..{MAX_VALUE} as ignore_index"
        ) from error


def write_classes(path: Path, classes: Classes, *, is_instances: bool) -> None:
    """Write the classes.json for masks made by `write_class_map`, or for instance maps with 65535 for void."""
    content: dict[str, Any] = {
        "classes": list(classes.names),
        "palette": [list(color) for color in classes.colors],
        "ignore_index": VOID_16_BIT if is_instances or len(classes) > MAX_8_BIT_CLASSES else VOID_8_BIT,
    }
    if any(classes.is_thing):
        content["is_thing"] = list(classes.is_thing)
    if is_instances:
        content["masks"] = "instances"
    replace_file(path, json.dumps(content).encode())


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


def _of_instances(classes: Classes, ignore_index: int, source: str = "the rule for instance maps") -> Meaning:
    if len(classes) != 2:
        raise ValueError(f"masks of instances need two classes, the background and the object, not {len(classes)}")
    class_of = _lookup(range(MAX_VALUE + 1), ignore_index)
    classes = Classes.of(classes.names, colors=classes.colors, is_thing=[False, True])
    return Meaning(classes, np.minimum(class_of, 1), is_instances=True, source=source)


def _lookup(values: Iterable[int], ignore_index: int | None = None) -> np.ndarray:
    """Class of each number, int32 (65536,), from the number of each class."""
    numbers = [*values]
    for value in (*numbers, ignore_index or 0):
        if not isinstance(value, int | np.integer) or not 0 <= value <= MAX_VALUE:
            raise ValueError(f"numbers of masks are 0..{MAX_VALUE}, not {value!r}")
    if len(set(numbers)) < len(numbers):
        value, count = Counter(numbers).most_common(1)[0]
        raise ValueError(f"the number {value} stands for {count} classes")
    class_of = np.full(MAX_VALUE + 1, UNKNOWN, dtype=np.int32)
    class_of[numbers] = np.arange(len(numbers))
    if ignore_index is not None:
        class_of[ignore_index] = VOID
    return class_of

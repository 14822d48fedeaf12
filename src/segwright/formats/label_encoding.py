"""What the numbers and colours in mask files mean, where classes.json and dataset.toml say it; guessed_meaning.py has the rest.

`classes.json` is a list of names, or {name: [r, g, b]}, or the whole:

    {"classes": ["road", "car"],           names, in the order of the class numbers
     "palette": [[128, 64, 128], ...],     colours, optional
     "ignore_index": 255,                  the number that means void, optional; it may be the number of a class, or negative
     "is_thing": [false, true],            optional
     "values": [0, [1, 255]],              the number, or the numbers, in the masks for each class, optional; else 0, 1, 2, ...
     "nearest": true,                      other numbers and colours count as the nearest of these: smoothing or JPEG made them
     "nothing_index": 2,                   the number of pixels that belong to no segment, optional
     "masks": "instances",                 each number is one object of the last class; optional. Of two classes, 0 is the
                                           first one, of one class 0 is nothing. Or "regions": a number of "values" may lie in
                                           several classes; a later one covers an earlier, whose first number is then not seen
     "crowd_index": 65534}                 there, the number of objects that nobody told apart, optional

The table [masks] of a dataset.toml beside it has the same keys. It counts instead of classes.json, or, where it names no
classes, key by key before it.

A mask whose channels differ is a picture of colours, and its colours are looked up in "palette"; black, where no class has it,
is void. With "masks": "colors" all masks are such pictures; without it, the first mask that is not grey tells. Files that keep
no exact values, as JPEG, are read by the nearest number or colour; where masks are black and white alone, white is the second
class.

Indices of a palette are numbers of classes where the palette has the colours of the classes; else the colours tell, where they
are all known, or the greys, where all are grey, as every viewer shows them. Other palettes must agree in all masks.

Axes: C channels, N entries of a palette, *S spatial axes, (H, W), or (D, H, W) for TIFF volumes.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.image_file import say_turned
from segwright.codecs.image_writer import MAX_8_BIT_CLASSES
from segwright.core import VOID, Classes, Segmentation
from segwright.core.atomic_files import replace_file
from segwright.core.classes import MAX_CLASSES
from segwright.core.errors import FormatError, SettingError
from segwright.core.strict_json import json_text
from segwright.formats import dataset_file
from segwright.formats.color_labels import ColorCode
from segwright.formats.label_maps import NOTHING, numbers_in_use, to_segmentation
from segwright.formats.mask_file import WHITE, MaskFile, read_mask_file
from segwright.formats.smoothed_values import APART

CLASSES_FILE = "classes.json"
KEYS = {"classes", "palette", "ignore_index", "is_thing", "values", "nearest", "nothing_index", "masks", "crowd_index"}
UNKNOWN = NOTHING - 1  # class of a number that no class has
MAX_VALUE = 65_535  # of a class
BEYOND = MAX_VALUE + 1  # stands for all numbers above, which only objects have
VOID_8_BIT, VOID_16_BIT = 255, 65_535
MAX_GREY = 16  # masks of three equal channels looked at before they are taken for numbers: none of them shows a colour


@dataclass(frozen=True, eq=False)
class Meaning:
    """What the numbers of masks stand for: `class_of` int32 (65537,) is the class of each, VOID, NOTHING or UNKNOWN.

    Where classes are regions, it is the number itself (see label_maps.py). Its last entry counts for all numbers beyond. With
    `is_instances` each number of the last class is one object, but `crowd`; 65535 is void there, `unless_wide`: in masks of
    more bits. `negative` is a number below 0 that is void. `colors` say what
    the colours stand for, where somebody wrote it down; with `is_colors` all masks are pictures of them. With `is_indexed` the
    format defines its palettes, so that indices count; else those that are not grey must agree with that of `palette_of`.
    `source` says where this is written down.
    """

    classes: Classes
    class_of: np.ndarray
    is_instances: bool = False
    crowd: int | None = None
    unless_wide: bool = False
    negative: int | None = None
    colors: ColorCode | None = None
    is_colors: bool = False
    is_nearest: bool = False
    is_indexed: bool = False
    palette_of: MaskFile | None = None
    source: str = "the rule for masks without classes.json"

    def maps(self, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
        """The class (or VOID or NOTHING) of each pixel of a mask file, int32 (*S), and the number of its object, if it has any.

        Raises:
            FormatError: the file cannot be read, or a number or a colour is no class.
        """
        file = read_mask_file(path)
        if file.is_turned and not self._is_falling:
            say_turned(path)
        if self.is_colors or file.is_picture and not self._has_own_palette(file) or self._has_known_colors(file):
            if self.colors is None:
                raise colors_without_meaning(file, self.source)
            is_nearest = self.is_nearest or file.is_lossy
            if file.missing is None:
                return self.colors.class_map(file.picture, path, self.source, is_nearest=is_nearest), None
            known = np.where(file.missing, self.classes.palette[0][:, None, None], file.picture)
            class_map = self.colors.class_map(known, path, self.source, is_nearest=is_nearest)
            return np.where(file.missing, np.int32(VOID), class_map), None
        numbers, class_of = self._numbers(file)
        class_map = self._class_map(numbers, class_of, path, file.missing)
        if file.missing is not None and file.palette is not None:
            class_map[file.missing] = VOID
        return class_map, self._objects(numbers, class_map) if self.is_instances else None

    def class_map(self, mask: np.ndarray, path: Path) -> np.ndarray:
        """The class (or VOID or NOTHING) that each number of an integer mask (*S) stands for, int32; raises as `maps`."""
        return self._class_map(mask, self.class_of, path)

    def truth(self, mask: np.ndarray, path: Path) -> Segmentation:
        """The segmentation that an integer mask (*S) stands for; `path` is for the messages.

        Raises:
            FormatError: a number is no class.
        """
        class_map = self.class_map(mask, path)
        return to_segmentation(class_map, self._objects(mask, class_map) if self.is_instances else None, self.classes)

    def looking_at(self, masks: Iterable[Path]) -> "Meaning":
        """This, or the same for pictures of colours where the first of these masks that is not grey is one; and its palette."""
        if self.is_instances or self.is_colors:
            return self
        is_told, palette_of = self.colors is None, None
        for path in islice(masks, MAX_GREY):
            try:
                file = read_mask_file(path)
            except FormatError:  # told when its sample is read
                continue
            if not is_told and file.is_picture:
                return replace(self, is_colors=True)
            is_told |= len(file.values) == 1
            if file.palette is not None and file.greys is None:
                palette_of = replace(file, values=file.values[:, :1, :1])  # the palette is wanted
                break
        return replace(self, palette_of=palette_of)

    @property
    def white(self) -> int:
        """The number of white in masks of black and white alone."""
        return WHITE if self.is_nearest or self.class_of[VOID_8_BIT] >= 0 > self.class_of[1] else 1

    def _class_map(self, mask: np.ndarray, class_of: np.ndarray, path: Path, missing: np.ndarray | None = None) -> np.ndarray:
        if mask.dtype.itemsize > 2:
            mask_in_table = np.minimum(mask, BEYOND)
            if self.unless_wide:
                mask_in_table = np.where(mask == VOID_16_BIT, BEYOND, mask_in_table)
        else:
            mask_in_table = mask
        class_map = class_of[mask_in_table]
        if missing is not None:  # a class that somebody named counts more
            class_map[missing & ((class_map == UNKNOWN) | self.is_instances)] = VOID
        if class_map.min(initial=0) == UNKNOWN:
            self._refuse(mask, class_map == UNKNOWN, path)
        return class_map

    @cached_property
    def _is_falling(self) -> bool:
        """Whether the last class has a lower number than the first, as they write who turn numbers back."""
        known = self.class_of[self.class_of >= 0]
        return len(known) > 0 and int(known[0]) > int(known[-1])

    def _objects(self, mask: np.ndarray, class_map: np.ndarray) -> np.ndarray:
        """The number of the object at each pixel, int32 (*S), 0 for none."""
        is_object = class_map == len(self.classes) - 1
        return np.where(is_object if self.crowd is None else is_object & (mask != self.crowd), mask, 0).astype(np.int32)

    def _numbers(self, file: MaskFile) -> tuple[np.ndarray, np.ndarray]:
        """The numbers (*S) of a file of one channel, or of equal ones, and the class of each number."""
        if file.palette is not None:
            return file.values[0] if self._has_own_palette(file) else self._numbers_of_palette(file), self.class_of
        if self.is_nearest:
            is_white = None if file.is_lossy else file.is_white
            return file.values[0] if is_white is None else is_white * np.uint8(WHITE), self.class_of
        if file.is_lossy and _is_sparse(self.class_of) and not self.is_instances:
            return file.values[0], nearest(self.class_of)
        if file.is_white is not None:
            return file.is_white * np.uint8(self.white), self.class_of
        if file.is_lossy:
            raise file.blurred()
        return file.values[0], self.class_of

    def _has_own_palette(self, file: MaskFile) -> bool:
        """Whether the indices of a palette count: by definition, or as it shows each class in the colour of the class."""
        if self.is_indexed or file.palette is None:
            return self.is_indexed
        if self.colors is None:
            return False
        own = self.class_of[file.used]
        is_class = own >= 0
        return bool((self.classes.palette[own[is_class]] == file.palette[file.used[is_class]]).all() and (own != UNKNOWN).all())

    def _has_known_colors(self, file: MaskFile) -> bool:
        """Whether a palette is read by its colours."""
        if file.palette is None or self.colors is None or self.is_instances or self._has_own_palette(file):
            return False
        return self.colors.knows(file.palette[file.used])

    def _numbers_of_palette(self, file: MaskFile) -> np.ndarray:
        indices = file.values[0]
        if file.greys is not None:
            if file.is_white is not None:
                return file.is_white * np.uint8(self.white)
            numbers = _numbers_of_greys(file.greys, file.used, self.class_of[file.used] != UNKNOWN, self.class_of != UNKNOWN)
            if numbers is None:
                raise FormatError(
                    f"{file.path} has a palette of greys, {_shown_colors(file)}, which neither are the numbers of classes in "
                    f'{self.source} nor have their order; write them there as "values"'
                )
            return numbers[indices]
        if self.palette_of is not None:
            check_same_palette(self.palette_of, file)
        return indices

    def _refuse(self, mask: np.ndarray, unknown: np.ndarray, path: Path) -> None:
        value, count = Counter(mask[unknown].tolist()).most_common(1)[0]
        names = self.classes.names
        hint = ""
        if len(names) == 2 and int(mask.max()) == VOID_8_BIT and not _is_sparse(self.class_of):
            hint = ', or "values": [0, 255] if they are the second class'
            if value != VOID_8_BIT or len(present(mask[unknown])) > 1:
                hint = ', or "values": [0, 255] with "nearest": true if smoothing put them between both classes'
            if self.class_of[VOID_8_BIT] == VOID:
                hint += ', then without "ignore_index"'
        elif _is_sparse(self.class_of):
            hint = ', or "nearest": true if smoothing put them between those of the classes'
        elif mask.dtype.itemsize > 1:
            hint = ', or "masks": "instances" if each number is one object'
        raise FormatError(
            f"{path} holds the number {value} at {count} of {mask.size} pixels, but {self.source} has "
            f"{len(names)} classes ({names[0]} to {names[-1]}) without it; add the missing classes there, "
            f'or "ignore_index": {value} if nobody knows what these pixels are{hint}'
        )


def read_numbers(path: Path) -> np.ndarray:
    """The numbers 0..65535 of a mask file, integer (*S), indices where it has a palette; those of a JPEG are 0 and 1.

    Raises:
        FormatError: as `read_mask_file`; or there are other numbers or colours, or a JPEG is not black and white.
    """
    file = read_mask_file(path)
    if file.is_picture:
        raise colors_without_meaning(file, Meaning.source)
    if file.is_lossy:
        if file.is_white is None:
            raise file.blurred()
        return file.is_white.astype(np.uint8)
    mask = file.values[0]
    if mask.max(initial=0) > MAX_VALUE:
        raise FormatError(f"{path} holds the numbers 0..{mask.max()}; renumber them 0..{MAX_VALUE}, with {MAX_VALUE} for void")
    return mask


def present(mask: np.ndarray) -> np.ndarray:
    """The numbers that occur in an integer mask (*S) of values from 0 on, sorted, int64 (N,)."""
    if mask.max(initial=0) > MAX_VALUE:
        return np.unique(mask).astype(np.int64)
    is_present = np.zeros(MAX_VALUE + 1, dtype=bool)
    is_present[mask] = True
    return np.flatnonzero(is_present)


def _numbers_of_greys(
    greys: np.ndarray, used: np.ndarray, is_known_index: np.ndarray, is_known: np.ndarray
) -> np.ndarray | None:
    """The number behind each index of a palette of `greys` int64 (N,), of which the indices `used` occur: the greys where
    they are numbers of classes (`is_known` of each number), else the indices where these are, in the order of the greys.
    """
    if is_known[greys[used]].all():
        return greys
    return np.arange(len(greys)) if is_known_index.all() and (np.diff(greys[used]) > 0).all() else None


def check_same_palette(first: MaskFile, second: MaskFile) -> None:
    """Check that two palettes show the indices that occur in the second alike.

    Raises:
        FormatError: they do not, so that an index is no class.
    """
    if first.palette is None or second.palette is None:
        return
    used = second.used[second.used < len(first.palette)]
    differs = (first.palette[used] != second.palette[used]).any(axis=1)
    if differs.any():
        index = int(used[differs][0])
        raise FormatError(
            f"{first.path} and {second.path} show the index {index} of their palettes in different colours, "
            f"{_shown(first.palette[index])} and {_shown(second.palette[index])}, so that it is no class; write the classes "
            'and their colours into classes.json, {"classes": ["road"], "palette": [[128, 64, 128]], "masks": "colors"}, as '
            "segwright inspect --write-config proposes it"
        )


def colors_without_meaning(file: MaskFile, source: str) -> FormatError:
    """The error to raise where colours are shown and no palette of classes is written down."""
    if file.palette is None and (len(file.values) != 3 or file.values.max(initial=0) > WHITE):
        return FormatError(
            f"{file.path} has {len(file.values)} channels that differ, of values up to {file.values.max()}: neither numbers "
            "nor an RGB picture of 8 bits; save one number per pixel, or, if its pages are the slices of a volume, write "
            'axes = "ZYX" into dataset.toml beside the data'
        )
    what = "its channels differ" if file.palette is None else f"its palette begins {_shown_colors(file)}"
    return FormatError(
        f"{file.path} is a picture of colours ({what}), but {source} does not say what they stand for; write the "
        'classes and their colours into classes.json, {"classes": ["road"], "palette": [[128, 64, 128]]}, as '
        "segwright inspect --write-config proposes it"
    )


def _shown_colors(file: MaskFile) -> str:
    """The first colours of a palette, for a message."""
    return "" if file.palette is None else ", ".join(_shown(color) for color in file.palette[: min(3, int(file.used[-1]) + 1)])


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
        json_text(content, ensure_ascii=False).encode()  # half a character, such as "\\ud800", could not be saved or shown
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
    things, masks, is_nearest = given.get("is_thing"), given.get("masks", "classes"), given.get("nearest", False)
    try:
        if colors and any(not isinstance(value, int | float) or not 0 <= value <= 255 for color in colors for value in color):
            raise ValueError("colours are numbers 0..255")
        if things and any(flag not in (True, False) for flag in things):
            raise ValueError(f"is_thing is {things!r}")
        if masks not in ("classes", "instances", "colors", "regions"):
            raise SettingError(
                f'"masks" is {masks!r}; write "instances" if each number is one object, "colors" if the masks are pictures in '
                'the colours of the palette, "regions" if a number may lie in several classes, else leave it out'
            )
        if len(values) != len(names):
            raise ValueError(f"there are {len(names)} classes, but {len(values)} values")
        classes = Classes.of(names, colors=colors[: len(names)] if colors else None, is_thing=things)
        if is_nearest not in (True, False):
            raise ValueError(f'"nearest" is {is_nearest!r}, not true or false')
        if masks == "regions":
            regions = [list(map(_number, numbers_of_class(value))) for value in values]
            classes = replace(classes, regions=tuple(map(tuple, regions)))
        negative = ignore_index if isinstance(ignore_index, int) and ignore_index < 0 else None
        if masks == "instances":
            if is_nearest:
                raise SettingError('"masks" is "instances", and numbers of objects have no nearest; take "nearest" away')
            return replace(of_instances(classes, given, source), negative=negative)
        unsaid = [ignore_index if negative is None else None, given.get("nothing_index")]
        class_of = _lookup_of_regions(classes, *unsaid) if classes.regions else lookup(values, *unsaid)
        code = _color_code(classes, class_of, [*values], colors) if colors and not classes.regions else None
        if masks == "colors" and code is None:
            raise SettingError('"masks" is "colors"; write the colours of the classes as "palette", one [r, g, b] each')
        return Meaning(
            classes,
            nearest(class_of) if is_nearest else class_of,
            negative=negative,
            colors=code,
            is_colors=masks == "colors",
            is_nearest=is_nearest,
            source=source,
        )
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
    values: Sequence[int | Sequence[int]] | None = None,
    ignore_index: int | None = None,
    nothing_index: int | None = None,
    crowd_index: int | None = None,
) -> None:
    """Write a classes.json; what is None is left out, but the number for void.

    That is 65535 for instance maps and for more classes than 8 bits hold, else 255. `values` of regions may overlap.
    """
    void = VOID_16_BIT if is_instances or numbers_in_use(classes) > MAX_8_BIT_CLASSES else VOID_8_BIT
    content: dict[str, Any] = {
        "classes": list(classes.names),
        "palette": [list(color) for color in classes.colors],
        "ignore_index": void if ignore_index is None else ignore_index,
    }
    if any(classes.is_thing):
        content["is_thing"] = list(classes.is_thing)
    if values is not None:
        content["values"] = list(values)
    if values is not None and classes.regions:
        content["masks"] = "regions"
    if is_instances:
        content["masks"] = "instances"
    if nothing_index is not None:
        content["nothing_index"] = nothing_index
    if crowd_index is not None:
        content["crowd_index"] = crowd_index
    replace_file(path, json_text(content).encode())


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
            f"{source} is {json_text(content, ensure_ascii=False):.60} ...; names and their numbers are written as "
            '{"classes": ["road", "car"], "values": [1, 2]}'
        )
    return {"classes": list(content), "palette": list(content.values())}


def of_instances(classes: Classes, given: dict[str, Any], source: str) -> Meaning:
    """The meaning of maps of objects of the last of one or two classes; the numbers in `given` are those of a classes.json.

    Raises:
        ValueError: there are more classes, or a number is none of a mask.
    """
    if len(classes) > 2:
        raise ValueError(
            f"masks of instances need one class, or two classes, the background and the object, not {len(classes)}"
        )
    crowd, ignore_index = given.get("crowd_index"), given.get("ignore_index")
    class_of = np.minimum(np.arange(BEYOND + 1, dtype=np.int32), 1)
    if len(classes) == 1:
        class_of = np.where(class_of == 0, np.int32(NOTHING), np.int32(0))
    for number, meaning in ((crowd, len(classes) - 1), (given.get("nothing_index"), NOTHING)):
        if number is not None:
            class_of[_number(number)] = meaning
    is_unsaid = ignore_index is None or ignore_index < 0
    class_of[VOID_16_BIT if is_unsaid else _number(ignore_index)] = VOID
    classes = Classes.of(classes.names, colors=classes.colors, is_thing=[False, True][-len(classes) :])
    return Meaning(classes, class_of, is_instances=True, crowd=crowd, unless_wide=is_unsaid, source=source)


def lookup(values: Iterable[Any], ignore_index: int | None = None, nothing_index: int | None = None) -> np.ndarray:
    """Class of each number, int32 (65537,), from the number, or the numbers, of each class.

    Raises:
        ValueError: one is none of a mask, or stands for several classes.
    """
    numbers = [(_number(number), index) for index, value in enumerate(values) for number in numbers_of_class(value)]
    value, count = Counter(number for number, _ in numbers).most_common(1)[0]
    if count > 1:
        raise ValueError(f'the number {value} stands for {count} classes (write "masks": "regions" if it lies in all of them)')
    class_of = np.full(BEYOND + 1, UNKNOWN, dtype=np.int32)
    class_of[[number for number, _ in numbers]] = [index for _, index in numbers]
    if nothing_index is not None:
        class_of[_number(nothing_index)] = NOTHING
    if ignore_index is not None:
        class_of[_number(ignore_index)] = VOID
    return class_of


def _lookup_of_regions(classes: Classes, ignore_index: int | None, nothing_index: int | None) -> np.ndarray:
    """Each number itself, int32 (65537,), where it lies in a region; 0, unless it is void, and `nothing_index` are NOTHING.

    Raises:
        ValueError: one is none of a mask.
    """
    class_of = np.full(BEYOND + 1, UNKNOWN, dtype=np.int32)
    known = [number for numbers in classes.regions for number in numbers]
    class_of[known] = known
    for number, meaning in ((0, NOTHING), (nothing_index, NOTHING), (ignore_index, VOID)):
        if number is not None:
            class_of[_number(number)] = meaning
    return class_of


def numbers_of_class(value: Any) -> list[Any]:
    """The numbers of one class, of which "values" gives one or a list."""
    return [*value] if isinstance(value, list | tuple) and value else [value]


def nearest(class_of: np.ndarray) -> np.ndarray:
    """Class of each number, int32 (65537,), where other numbers than those in `class_of` count as the nearest of them."""
    known = np.flatnonzero(class_of[:BEYOND] != UNKNOWN)
    middles = (known[1:] + known[:-1]) // 2
    return class_of[known[np.searchsorted(middles, np.arange(len(class_of)))]]


def _is_sparse(class_of: np.ndarray) -> bool:
    """Whether the numbers of classes lie so far apart that the nearest can be told in a file without exact values."""
    known = np.flatnonzero(class_of[:BEYOND] != UNKNOWN)
    return len(known) > 1 and int(np.diff(known).min()) >= APART


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= MAX_VALUE:
        raise ValueError(f"numbers of masks are 0..{MAX_VALUE}, not {value!r}")
    return int(value)


def _color_code(classes: Classes, class_of: np.ndarray, values: list[Any], colors: Sequence[Sequence[int]]) -> ColorCode:
    """What the colours stand for: those of the classes, and any that follow in the palette at a number of its own."""
    more = [k for k in range(len(classes), len(colors)) if k <= MAX_VALUE and class_of[k] in (VOID, NOTHING)]
    palette = [*classes.colors, *(tuple(map(int, colors[k])) for k in more)]
    names = (*classes.names, *("nothing" if class_of[k] == NOTHING else "void" for k in more))
    first = [numbers_of_class(value)[0] for value in values]
    return ColorCode(np.array(palette, dtype=np.uint8), class_of[[*first, *more]], names)


def _shown(color: np.ndarray) -> str:
    return f"({', '.join(map(str, color.tolist()))})"

"""What the numbers in mask files mean where nobody says it: all masks are read once, and told by what they hold.

Numbers {0, v} mean background and foreground; other 8-bit numbers are classes, 255 being void; 16-bit numbers are objects
(an instance map; 65535 is void), and so are any beyond 65535. Where the numbers are a few that cover areas and others between
them along borders, smoothing made the others (smoothed_values.py): each counts as the nearest of the few. In files without
exact values, as JPEG, that is always so. Grey levels that are spread evenly, 255 among them, are classes, each; where they lie
far apart otherwise, nobody can tell whether 255 is a class or void, which is an error. A palette whose colours are all grey
counts by these; indices of any other are numbers, where all palettes show them alike.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import say_turned
from segwright.core import Classes
from segwright.core.errors import FormatError
from segwright.core.strict_json import json_text
from segwright.core.warn_once import warn_once
from segwright.formats.label_encoding import (
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    check_same_palette,
    colors_without_meaning,
    lookup,
    nearest,
    of_instances,
    present,
)
from segwright.formats.mask_file import WHITE, MaskFile, read_mask_file
from segwright.formats.smoothed_values import BAND, MANY, NO_VALUES, ValueTally, classes_among, count_values, without_noise

log = logging.getLogger(__name__)

TALLIED = 100  # masks of which areas are looked for, those of the most numbers
TALLIED_WIDE = 8  # the same of masks of 16 bits: one map of objects shows that they are such maps
NO_MORE: Mapping[str, bool] = {}
EVEN = 2  # of 255: grey levels are spread evenly up to rounding


@dataclass(frozen=True, eq=False)
class _Held:
    """What one mask holds: numbers, sorted, without those of a file of black and white; its content without pixels.

    `void` is the number that stands for those which the file says are missing; `values` has it not.
    """

    path: Path
    values: np.ndarray
    has_white: bool
    itemsize: int
    is_lossy: bool
    palette: MaskFile | None
    void: int | None = None


def guess_meaning(masks: Sequence[Path]) -> Meaning:
    """What the numbers mean where no classes.json says it; the rule is in the module's docstring. Reads the masks up to twice.

    Raises:
        FormatError: a mask cannot be read; colours that nobody explained; or the numbers can mean more than one thing.
    """
    held, is_wide = _held_by(masks)
    _check_palettes([mask for mask in held if mask.palette is not None])
    plain = _union(mask.values for mask in held)
    white = WHITE if not plain.any() or WHITE in plain and 1 not in plain else 1
    values = np.union1d(plain, [white]) if any(mask.has_white for mask in held) else plain
    nonzero = values[values > 0]
    unknown = next((mask for mask in held if mask.void is not None), None)
    if len(nonzero) <= 1 and not is_wide and unknown is not None:
        if VOID_8_BIT in nonzero:
            raise void_or_class(unknown.path, values.tolist())
        if not len(nonzero):
            log.warning(
                "%s and its like hold nothing but 0 and what their GDAL_NODATA (tag 42113) calls missing, which is void; if "
                'that is the foreground, write classes = ["background", "foreground"] and values = [0, %d] below [masks] in '
                "dataset.toml",
                *(unknown.path, VOID_8_BIT),
            )
    if len(nonzero) <= 1 and not is_wide:
        return Meaning(Classes.of(["background", "foreground"]), lookup([0, *nonzero.tolist()]))
    blurred = [mask.path for mask in held if mask.is_lossy]
    found = NO_VALUES
    if blurred or is_wide or _may_be_smoothed(nonzero):
        most = sorted(held, key=lambda mask: -len(mask.values))[: TALLIED_WIDE if is_wide else TALLIED]
        found = _counted([mask.path for mask in most])
        classes = classes_among(found, are_lossy=bool(blurred))
        if classes is not None:
            return of_smoothed(classes, masks[0])
        if blurred:
            raise read_mask_file(blurred[0]).blurred()
    if is_wide:
        return of_instances(Classes.of(["background", "object"]), {}, Meaning.source)
    return _of_numbers(values, held, are_doubtful=2 * found.covers.sum() < len(found.values))


def is_spread(values: Sequence[int]) -> bool:
    """Whether numbers, sorted, are grey levels that are spread evenly over 0..255."""
    even = np.linspace(0, 255, len(values))
    return 2 < len(values) <= MANY and bool((np.abs(np.asarray(values) - even) <= EVEN).all())


def may_be_class(values: Sequence[int], *, are_doubtful: bool) -> bool:
    """Whether 255 among other numbers may be a class: of grey levels far apart, after 254, or where numbers `are_doubtful`."""
    return are_doubtful or VOID_8_BIT - 1 in values or int(np.diff(values).min()) >= BAND


def _are_scattered(nonzero: np.ndarray) -> bool:
    """Whether most of the numbers up to the highest, 255 apart, are missing in the numbers of classes above 0."""
    highest = int(nonzero[nonzero != VOID_8_BIT].max(initial=0))
    return len(nonzero[nonzero != VOID_8_BIT]) + 1 < highest // 2


def shown_values(file: MaskFile) -> np.ndarray:
    """The numbers of a mask file (*S) before anybody says what they mean: of a grey palette the greys.

    Black and white alone are 0 and 255. Of a file that keeps no exact values they are the most frequent ones of their like.

    Raises:
        FormatError: the mask is a picture of colours.
    """
    if file.is_picture:
        raise colors_without_meaning(file, Meaning.source)
    if file.is_white is not None and not file.is_lossy:
        return file.is_white * np.uint8(WHITE)
    if file.is_lossy:
        return without_noise(file.values)
    return file.values[0] if file.greys is None else file.greys.astype(np.uint8)[file.values[0]]


def _held_by(masks: Sequence[Path]) -> tuple[list[_Held], bool]:
    """What the masks hold, and whether they are of 16 bits with too many numbers for two classes, at which this stops."""

    def look(path: Path) -> _Held:
        file = read_mask_file(path)
        if file.is_turned:
            say_turned(path)
        if file.negative is not None:
            warn_once(log, "%s: masks hold %d, which can be no class and is taken for void", path.parent, file.negative)
        numbers = shown_values(file)
        if file.is_white is not None:
            return _Held(path, np.zeros(1, np.int64), bool(file.is_white.any()), 1, False, None)
        palette = None
        if file.palette is not None and file.greys is None:
            palette = MaskFile(path, file.used.astype(file.values.dtype)[None], file.palette)
        values = present(file.values[0] if file.is_lossy else numbers)
        return _Held(path, values[values != file.void], False, file.values.dtype.itemsize, file.is_lossy, palette, file.void)

    held: list[_Held] = []
    wide = np.zeros(0, np.int64)
    with ThreadPoolExecutor() as pool:  # the decoders run outside Python's lock
        for mask in pool.map(look, masks):
            held.append(mask)
            if mask.itemsize == 1:
                continue
            wide = np.union1d(wide, mask.values)
            if len(wide) > 2:
                pool.shutdown(wait=False, cancel_futures=True)
                return held, True
    return held, len(wide) > 0 and wide[wide > 0].tolist() not in ([VOID_8_BIT], [VOID_16_BIT])


def _union(values: Iterable[np.ndarray]) -> np.ndarray:
    result = np.zeros(0, np.int64)
    for some in values:
        result = np.union1d(result, some)
    return result


def _check_palettes(held: Sequence[_Held]) -> None:
    """Check that all palettes show their indices alike, and none shows black as the foreground of another colour."""
    seen: dict[int, tuple[tuple[int, ...], MaskFile]] = {}
    for mask in held:
        file = mask.palette
        if file is None or file.palette is None:
            continue
        for index in mask.values.tolist():
            color = tuple(file.palette[index].tolist())
            other, first = seen.setdefault(index, (color, file))
            if other != color:
                check_same_palette(first, file)
    if [*seen] in ([0, 1], [1, 0]) and seen[1][0] == (0, 0, 0):
        raise colors_without_meaning(seen[1][1], Meaning.source)


def _may_be_smoothed(nonzero: np.ndarray) -> bool:
    return len(nonzero) > MANY or _are_scattered(nonzero)


def _counted(masks: Sequence[Path]) -> ValueTally:
    """How often the values of masks occur, and where."""
    found = NO_VALUES
    with ThreadPoolExecutor() as pool:
        for one in pool.map(lambda path: _known_values(read_mask_file(path)), masks):
            found = found + one
    return found


def _known_values(file: MaskFile) -> ValueTally:
    found = count_values(shown_values(file))
    return found if file.void is None else found.without(file.void)


def of_smoothed(values: list[int], example: Path) -> Meaning:
    """The meaning of masks of these classes, whose other values smoothing put between; a warning says so.

    Raises:
        FormatError: 255 may be a class or void.
    """
    if len(values) > 2 and values[-1] == VOID_8_BIT and not is_spread(values):
        raise void_or_class(example, values, {"nearest": True})
    names = ["background", "foreground"] if len(values) == 2 else [f"class_{value}" for value in values]
    log.warning(
        "%s and its like hold values that smoothing put between %s; each counts as the nearest of these: name the classes in "
        'classes.json, with "values" and "nearest": true, as segwright inspect --write-config does',
        *(example, ", ".join(map(str, values))),
    )
    return Meaning(Classes.of(names), nearest(lookup(values)), is_nearest=True)


def _of_numbers(values: np.ndarray, held: Sequence[_Held], *, are_doubtful: bool) -> Meaning:
    """The meaning of 8-bit numbers that are exact; `are_doubtful`: most of them cover no area."""
    nonzero = values[values > 0]
    numbers, example = values.tolist(), held[0].path
    highest = int(nonzero[nonzero != VOID_8_BIT].max())
    if is_spread(numbers):
        return Meaning(Classes.of([f"class_{value}" for value in numbers]), lookup(numbers))
    if VOID_8_BIT in numbers and may_be_class(numbers, are_doubtful=are_doubtful and _are_scattered(nonzero)):
        raise void_or_class(next(mask.path for mask in held if VOID_8_BIT in mask.values), numbers)
    if numbers == [0, 1, VOID_8_BIT]:
        ones = [mask for mask in held if 1 in mask.values]
        whites = [mask for mask in held if VOID_8_BIT in mask.values]
        if not {mask.path for mask in ones} & {mask.path for mask in whites}:
            raise FormatError(
                f"{ones[0].path} holds the numbers 0 and 1, {whites[0].path} 0 and 255, and no mask holds both; write into "
                'classes.json {"classes": ["background", "foreground"], "values": [0, [1, 255]]} if both are the foreground, '
                'or {"classes": ["background", "foreground"], "ignore_index": 255} if nobody knows what 255 is'
            )
    if _are_scattered(nonzero):
        log.warning(
            "the masks in %s hold only %d different numbers, up to %d, and are read as %d classes%s; "
            'name the classes in classes.json, with "values" for their numbers',
            *(example.parent, len(values), highest, highest + 1, ", 255 as void" if VOID_8_BIT in numbers else ""),
        )
    return Meaning(Classes.of([f"class_{k}" for k in range(highest + 1)]), lookup(range(highest + 1), VOID_8_BIT))


def void_or_class(example: Path, values: Sequence[int], more: Mapping[str, bool] = NO_MORE) -> FormatError:
    """The error to raise where 255 may be a class or void."""
    names = [f"class_{value}" for value in values]
    as_class = json_text({"classes": names, "values": [*values], **more})
    as_void = json_text({"classes": names[:-1], "values": [*values[:-1]], "ignore_index": VOID_8_BIT, **more})
    both = f"classes.json {as_class} if it is a class, or {as_void} if it is void"
    return FormatError(
        f"{example} and the masks beside it hold {len(values)} numbers up to 255, which may be a class or void; write into "
        f"{both if len(values) <= MANY else 'dataset.toml what they mean'}, as segwright inspect --write-config proposes it"
    )

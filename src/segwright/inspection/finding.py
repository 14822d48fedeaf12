"""What was found: a disease by its name, the evidence, and the remedy in words and, where one can be written down, as a fix."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SHOWN = 3  # examples in a sentence; `keys` holds them all
MAX_NAMES = 6  # names in one sentence
MAX_KEY = 32  # characters of a key in a sentence; some names are hashes of 64

Level = Literal["error", "warning", "note"]
MEANING = {  # the names are stable: programs may look for them
    "cannot-open": "the data set cannot be read as a whole",
    "unreadable": "a sample cannot be read",
    "missing-partner": "an image without a mask, or a mask without an image",
    "no-images": "samples have a truth and no image",
    "size-mismatch": "image and mask differ in size",
    "affine-mismatch": "a volume and its mask lie in different places of the world",
    "other-units": "volumes are measured in another unit than millimetres",
    "one-slice": "volumes of a single slice",
    "stack-without-axes": "a TIFF stack does not say which of its axes are slices and which are channels",
    "repeated-masks": "masks with a fourth axis along which nothing changes",
    "missing-chunks": "a Zarr lacks chunks, which may be empty or lost",
    "exif-not-applied": "an image is turned by its EXIF orientation, its mask is not",
    "masks-0-255": "the masks hold 0 and 255",
    "rgb-masks": "the masks hold colours, not numbers",
    "smoothed-masks": "the masks hold values that resizing, blurring or JPEG put between those of the classes",
    "mixed-palettes": "palettes show one index in different colours",
    "palette-order": "palettes number greys in another order than they are seen",
    "mixed-foregrounds": "some masks hold 0 and 1, others 0 and 255",
    "void-or-class": "255 may be a class or void",
    "rounded-numbers": "the masks hold numbers that a slope has rounded",
    "negative-numbers": "the masks hold a number below 0",
    "numbers-by-file": "a number means another class from file to file, as segment names say",
    "spellings": "one name in several spellings",
    "zero-is-void": "0 stands for pixels that nobody labelled, the classes begin with 1",
    "transparent-masks": "alpha hides what is read in masks",
    "white-is-zero": "files of masks say that white is 0, by which their numbers are turned",
    "foreground-is-nodata": "files of masks say that all their numbers but 0 are no data",
    "zero-is-nodata": "files of masks say that 0 is no data, though it may be a class",
    "ignore-inside": "the number to be ignored is the number of a class",
    "off-by-one": "the classes are numbered from 1, and nothing is 0",
    "number-without-class": "the masks hold a number that no class has",
    "scattered-numbers": "the numbers of the classes are not 0, 1, 2, ...",
    "class-never-seen": "a class without a pixel",
    "class-absent-from-split": "a class that one part of the data has and another lacks",
    "objects-outside": "objects were drawn outside of their image",
    "left-out": "annotations that became no segment",
    "empty-masks": "a mask without anything to learn",
    "tiny-foreground": "nearly all is background",
    "dominant-class": "one class has nearly all pixels",
    "mixed-bit-depths": "images are stored in different types",
    "mixed-channels": "images differ in the number of channels",
    "missing-values": "images lack values, and say so",
    "undeclared-nodata": "a number fills areas that looks like missing values, and no file says so",
    "mixed-color-models": "the numbers of images are stored in several ways, such as inks beside RGB",
    "transparent": "images have an alpha channel that hides something, and is left out",
    "intensity-scales": "the values of images differ by orders of magnitude",
    "duplicates": "the same image twice in one part",
    "duplicates-across-splits": "the same image in two parts",
    "near-duplicates": "nearly the same image twice in one part",
    "near-duplicates-across-splits": "nearly the same image in two parts",
    "touching-tiles": "tiles of one larger picture in one part",
    "touching-tiles-across-splits": "tiles of one larger picture in two parts",
    "same-subject": "several images of one person or thing in one part",
    "same-subject-across-splits": "images of one person or thing in two parts",
    "same-clip-across-splits": "frames of one video in two parts",
    "few-samples": "so few samples that scores will be uncertain",
    "brightness-shift": "images differ in brightness more than inside one",
    "squashed-pixels": "pixels are much longer along one axis than along another",
    "rare-classes": "a class with very few pixels",
    "seldom-classes": "a class in very few images",
    "much-void": "a large part of the pixels is void",
    "ragged-masks": "masks of specks",
}


@dataclass(frozen=True)
class Fix:
    """What a dataset.toml has to say against a disease: keys to drop, the table [masks], keys that belong together, numbers of
    missing values, and the axes of stacks."""

    drop: tuple[str, ...] = ()
    masks: dict[str, Any] | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    nodata: tuple[float, ...] = ()
    axes: str | None = None


@dataclass(frozen=True)
class Finding:
    """One disease: its `name` in MEANING, `evidence` and `remedy` in words, `numbers` of the evidence, all `keys` concerned.

    An "error" stops or spoils every command, a "warning" spoils scores or what is learned, a "note" is good to know.
    """

    name: str
    level: Level
    evidence: str
    remedy: str
    numbers: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    fix: Fix | None = None


def listed(names: Sequence[str], shown: int = MAX_NAMES) -> str:
    """Names in a sentence, with a count of those that do not fit."""
    first = [*names[:shown], f"{len(names) - shown} more"] if len(names) > shown else list(names)
    return " and ".join(filter(None, [", ".join(first[:-1]), *first[-1:]]))


def some(keys: Sequence[str], shown: int = SHOWN) -> str:
    """A few keys in a sentence, long ones cut, with a count of the rest."""
    return listed([key if len(key) <= MAX_KEY else f"{key[: MAX_KEY - 1]}…" for key in keys], shown)


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def size_text(size: Sequence[int]) -> str:
    """A spatial shape as people write it, height first as everywhere in arrays."""
    return " × ".join(map(str, size))

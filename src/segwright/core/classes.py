"""What the numbers in a mask mean."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segwright.core.errors import SettingError
from segwright.core.spelling import composed

BACKGROUND = "background"  # as it is compared
MAX_CLASSES = 65_535  # a class map must fit a 16-bit PNG, with one value left for void
GOLDEN_ANGLE = 0.381966  # of a full turn: neighbouring indices get hues far apart, however many there are


@dataclass(frozen=True)
class Classes:
    """Names, RGB colours (0..255) and thing-ness of the classes 0, 1, ...; a void pixel has no class and no entry here.

    Names are composed (NFC), in whatever spelling they are given.

    `regions` are () where classes exclude each other. Where they nest, as the parts of a tumour do, they hold for each class
    the numbers that label files have inside it, such as ((1, 2, 3), (2, 3), (3,)), in the order in which later classes cover
    earlier ones; the first number of each is written where it is not covered. 0 lies in none.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    is_thing: tuple[bool, ...]
    regions: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(map(composed, self.names)))
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise SettingError(f"{len(self.names)} classes were given; between 1 and {MAX_CLASSES} are possible: merge some")
        if not len(self.names) == len(self.colors) == len(self.is_thing):
            raise SettingError(
                f"{len(self.names)} names, {len(self.colors)} colours and {len(self.is_thing)} thing flags were given; "
                "give one of each per class"
            )
        name, count = Counter(self.names).most_common(1)[0]
        if count > 1:
            raise SettingError(f"class name {name!r} appears {count} times; name each class once")
        wrong = [color for color in self.colors if len(color) != 3 or min(color) < 0 or max(color) > 255]
        if wrong:
            raise SettingError(f"colour {wrong[0]} was given; red, green and blue from 0 to 255 are needed")
        self._check_regions()

    def _check_regions(self) -> None:
        """Refuse regions whose numbers files could not tell apart.

        Raises:
            SettingError: they are.
        """
        if not self.regions:
            return
        first = Counter(numbers[0] for numbers in self.regions if numbers)
        flat = [number for numbers in self.regions for number in numbers]
        is_known = len(self.regions) == len(self.names) and all(self.regions) and 0 < min(flat) <= max(flat) < MAX_CLASSES
        if not is_known or background_of(self) is not None:
            raise SettingError(
                f"regions of {', '.join(self.names[:10])} are {str(self.regions)[:200]}; give for each the numbers from 1 to "
                f"{MAX_CLASSES - 1} that lie in it, and leave out the background: 0 is what lies in none"
            )
        number, count = first.most_common(1)[0]
        if count > 1:
            raise SettingError(
                f"{count} regions have {number} as their first number, which stands for one of them where no later region "
                "covers it; begin the numbers of each region with another one"
            )

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        *,
        colors: Sequence[Sequence[int]] | None = None,
        is_thing: Sequence[bool] | None = None,
        regions: Sequence[Sequence[int]] = (),
    ) -> "Classes":
        """Classes with the given names; colours far apart in hue, no things and no regions where nothing else is said."""
        names = tuple(names)
        return cls(
            names=names,
            colors=tuple((int(r), int(g), int(b)) for r, g, b in (distinct_colors(len(names)) if colors is None else colors)),
            is_thing=tuple(is_thing) if is_thing is not None else (False,) * len(names),
            regions=tuple(map(tuple, regions)),
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> np.ndarray:
        """RGB colour of each class, uint8 (K, 3)."""
        return np.array(self.colors, dtype=np.uint8).reshape(-1, 3)


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """`count` RGB colours, far apart in hue and alternating in brightness; an index always gets the same.

    The first 600 all differ.
    """
    hue = (0.61 + GOLDEN_ANGLE * np.arange(count)) % 1.0  # 0.61: the first colour is a blue that shows on most photographs
    value = np.where(np.arange(count) % 2 == 0, 0.95, 0.70)
    saturation = 0.75
    sector = hue[:, None] * 6.0 + np.array([5.0, 3.0, 1.0])  # HSV to RGB, one column per channel
    ramp = np.clip(np.minimum(sector % 6.0, 4.0 - sector % 6.0), 0.0, 1.0)
    rgb = value[:, None] * (1.0 - saturation * ramp)
    return [(int(r), int(g), int(b)) for r, g, b in np.rint(rgb * 255)]


def plain(name: str) -> str:
    """A class name as it is compared: labelme says _background_, others Background."""
    return name.strip("_ ").lower()


def spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """All spellings of each name, by the name as it is compared: capitals and blanks around it make no other class."""
    found: dict[str, list[str]] = {}
    for name in names:
        known = found.setdefault(plain(name), [])
        if name not in known:
            known.append(name)
    return found


def background_of(classes: Classes) -> int | None:
    """The number of the class called background, however it is written, or None."""
    return next((k for k, name in enumerate(classes.names) if plain(name) == BACKGROUND), None)

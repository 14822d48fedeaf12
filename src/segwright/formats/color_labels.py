"""Pictures whose colours stand for classes, as some tools save masks. Axes: K colours, *S spatial axes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from segwright.core import VOID
from segwright.core.errors import FormatError
from segwright.core.visualise import VOID_COLOR

AT_ONCE = 4096  # colours compared with all of a palette: 10 MB for 100 classes
NO_COLOR = np.iinfo(np.int32).min  # no class map holds it


@dataclass(frozen=True, eq=False)
class ColorCode:
    """Class int32 (K,) of each colour of a palette uint8 (K, 3); black, where no class has it, is void."""

    palette: np.ndarray
    class_of: np.ndarray
    names: tuple[str, ...]

    def knows(self, colors: np.ndarray) -> bool:
        """Whether each of some colours uint8 (N, 3) is in the palette or black, and one of them not by being black."""
        is_known = np.isin(self._packed(colors), self._packed(self.palette))
        return bool(is_known.any() and (is_known | (colors == VOID_COLOR).all(axis=1)).all())

    def class_map(self, picture: np.ndarray, path: Path, source: str, *, is_nearest: bool = False) -> np.ndarray:
        """The classes int32 (*S) of a picture (3, *S); `path` and `source`, where the colours are from, are for messages.

        With `is_nearest` other colours count as the nearest, as smoothing makes them.

        Raises:
            FormatError: a colour has no class, or several.
        """
        if len(picture) != 3 or picture.dtype != np.uint8 and not 0 <= picture.min(initial=0) <= picture.max(initial=0) <= 255:
            raise FormatError(
                f"{path} has {len(picture)} channels of values {picture.min(initial=0)}..{picture.max(initial=0)}; a mask "
                "of colours has three of 0..255: export it as an RGB PNG, or as class numbers"
            )
        codes, first = np.unique(self._packed(self.palette), return_index=True)
        if len(codes) < len(self.palette):
            twin = next(k for k in range(len(self.palette)) if k not in first)
            other = next(k for k in range(twin) if (self.palette[k] == self.palette[twin]).all())
            raise FormatError(
                f"{path} is a picture of colours, but {source} gives {_shown(self.palette[twin])} to {self.names[other]!r} and "
                f"to {self.names[twin]!r}; make the colours differ there, or export the masks as class numbers"
            )
        class_of = self.class_of[first].astype(np.int32)
        black = self._packed(np.array([VOID_COLOR]))[0]
        if black not in codes:
            place = np.searchsorted(codes, black)
            codes, class_of = np.insert(codes, place, black), np.insert(class_of, place, VOID)
        pixels = np.ascontiguousarray(picture, dtype=np.uint8).reshape(3, -1)
        result = np.empty(pixels.shape[1], dtype=np.int32)
        if not _look_up(pixels[0], pixels[1], pixels[2], codes, class_of, result):
            is_unknown = result == NO_COLOR
            if not is_nearest:
                self._refuse(pixels[:, is_unknown].T, len(result), path, source)
            result[is_unknown] = class_of[self._nearest(pixels[:, is_unknown].T, codes)]
        return result.reshape(picture.shape[1:])

    def _refuse(self, unknown: np.ndarray, size: int, path: Path, source: str) -> None:
        codes, counts = np.unique(self._packed(unknown), return_counts=True)
        code, count = int(codes[counts.argmax()]), int(counts.max())
        color = np.array([code >> 16, code >> 8 & 255, code & 255])
        nearest = int(np.abs(self.palette.astype(np.int64) - color).sum(axis=1).argmin())
        raise FormatError(
            f"{path} holds the colour {_shown(color)} at {count} of {size} pixels, which no class in {source} has; the nearest "
            f"is {_shown(self.palette[nearest])} of {self.names[nearest]!r}; add the colour "
            'there, or correct the mask, or write "nearest": true there if smoothing made the colour'
        )

    def _nearest(self, colors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Index among the sorted codes (K,) of the one whose colour is nearest to each of some colours (N, 3)."""
        known = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1)
        unique, place = np.unique(self._packed(colors), return_inverse=True)
        own = np.stack([unique >> 16, unique >> 8 & 255, unique & 255], axis=1)
        nearest = np.empty(len(unique), np.int64)
        for start in range(0, len(unique), AT_ONCE):
            apart = own[start : start + AT_ONCE, None] - known[None]
            nearest[start : start + AT_ONCE] = (apart**2).sum(axis=2).argmin(axis=1)
        return nearest[place.reshape(-1)]

    @staticmethod
    def _packed(colors: np.ndarray) -> np.ndarray:
        return colors.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])


def _shown(color: np.ndarray) -> str:
    return f"({', '.join(map(str, color.tolist()))})"


@njit(cache=True, nogil=True)
def _look_up(
    red: np.ndarray, green: np.ndarray, blue: np.ndarray, codes: np.ndarray, class_of: np.ndarray, result: np.ndarray
) -> bool:
    """Fill `result` (P,) with the class of each pixel's colour, NO_COLOR where that is not in the sorted codes; then False."""
    last, last_class, is_known = np.int64(-1), np.int32(0), True
    for index in range(len(result)):
        code = (np.int64(red[index]) << 16) | (np.int64(green[index]) << 8) | np.int64(blue[index])
        if code != last:  # masks are made of runs of one colour
            place = np.searchsorted(codes, code)
            is_there = bool(place < len(codes) and codes[place] == code)
            last, last_class = code, class_of[place] if is_there else np.int32(NO_COLOR)
            is_known = is_known and is_there
        result[index] = last_class
    return is_known

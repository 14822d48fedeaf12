"""A trained network as a task's decoder asks it. Axes: B images, C channels, *P spatial axes of what the network sees."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segwright.core import Classes
from segwright.core.errors import SegwrightError, SettingError
from segwright.decoding.sliding_window import smallest_tile

Outputs = tuple[np.ndarray, ...]  # of a network, each with B in front; valid until the next call
Engine = Callable[[np.ndarray], Outputs]  # images float32 (B, C, *P) to outputs

SIZES_PER_TILE = 8  # images below a tile are padded to 8 sizes per axis, so that engines are built for few shapes


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """How a network may be asked: in tiles of at most `tile` (None: never in tiles), `at_once` of them in a batch.

    Sides must be multiples of `divisors`, one per axis. `flip_axes`, counted from the end, are those over whose mirror images
    outputs are averaged. `classes` are what it was trained for. Objects with scores below `min_score` are not wanted.
    Probabilities are those of logits divided by the `temperature`.
    """

    engine: Engine
    classes: Classes
    divisors: tuple[int, ...]
    tile: tuple[int, ...] | None = None
    flip_axes: tuple[int, ...] = ()
    at_once: int = 1
    output: str = ""
    min_score: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise SettingError(
                f"min_score is {self.min_score:g}; scores go from 0 to 1: give 0.5 for objects that are likely there"
            )
        if len({*self.flip_axes}) != len(self.flip_axes) or any(axis not in (-1, -2, -3) for axis in self.flip_axes):
            raise SettingError(
                f"flip_axes is {self.flip_axes}; count axes from the end, each once: -1 columns, -2 rows, -3 slices"
            )

    def __call__(self, images: np.ndarray) -> Outputs:
        """The outputs for images float32 (B, C, *P), as many at once as the run allows.

        Raises:
            SegwrightError: the network gives NaN.
        """
        parts = []
        for first in range(0, len(images), self.at_once):
            outputs = self.engine(images[first : first + self.at_once])
            if any(output.size and np.isnan(output.max()) for output in outputs if output.dtype.kind == "f"):
                raise SegwrightError(
                    "the network answers NaN; its weights hold NaN or values that overflow: take an earlier model"
                )
            if len(images) <= self.at_once:
                return outputs
            parts.append([output.copy() for output in outputs])  # the next call may overwrite them
        return tuple(np.concatenate(output) for output in zip(*parts, strict=True))

    def sizes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of the tiles, and that of the padded image, for a view of some shape: few tiles, and few sizes of them."""
        tile, padded = [], []
        for side, most, divisor in zip(shape, self.tile or shape, self.divisors, strict=True):
            most = max(most // divisor, 1) * divisor if self.tile else _up(side, divisor)
            step = max(most // divisor // SIZES_PER_TILE, 1) * divisor if self.tile else divisor
            if side <= most:
                padded.append(min(_up(side, step), most))
                tile.append(padded[-1])
            else:
                padded.append(_up(side, divisor))
                tile.append(min(_up(smallest_tile(side, most), step), most))
        if max(self.divisors) > 1 and tuple(padded) == self.divisors:  # one pixel at the deepest stage: no norm works on it
            tile[-1] = padded[-1] = 2 * self.divisors[-1]
        return tuple(tile), tuple(padded)


def _up(side: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-side // step) * step

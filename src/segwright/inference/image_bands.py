"""The pixels of an image, shared out to threads: pieces side by side, and in each of them bands of rows, one after the other.

How many threads there are changes neither pieces nor bands, and so no bit of what is computed. What runs in them holds no lock
of Python's; numba's own threads may not be nested.

Axes: (H, W) of the image, N = H * W pixels.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

PIECES = 4  # of the image: as many threads find work; few, as a filter may hold rows of its own for each
BAND = 2**13  # pixels: 24 numbers of each stay in the cache, and a millisecond is ten times what a call costs


@dataclass(frozen=True, eq=False)
class ImageBands:
    """An image `height` x `width`, its pieces from pixel `cuts[p]` up to `cuts[p + 1]`; all start at even rows."""

    pool: Executor
    height: int
    width: int
    cuts: tuple[int, ...]

    @classmethod
    def of(cls, pool: Executor, height: int, width: int) -> "ImageBands":
        """Those of an image of so many rows and columns."""
        rows = {2 * (height * piece // (2 * PIECES)) for piece in range(PIECES)} | {height}
        return cls(pool, height, width, tuple(width * row for row in sorted(rows)))

    @property
    def pieces(self) -> range:
        """The numbers of the pieces."""
        return range(len(self.cuts) - 1)

    @property
    def longest(self) -> int:
        """Pixels of the longest band: an even number of rows."""
        return 2 * self.width * max(1, BAND // (2 * self.width))

    def each(self, run: Callable[[int, int, int], None]) -> None:
        """Call `run` with the piece, the first pixel and that behind the last of each band, in order within a piece."""

        def run_piece(piece: int) -> None:
            for first in range(self.cuts[piece], self.cuts[piece + 1], self.longest):
                run(piece, first, min(first + self.longest, self.cuts[piece + 1]))

        list(self.pool.map(run_piece, self.pieces))

    def share(self, run: Callable[[int, int], None], count: int) -> None:
        """Call `run` with the first and that behind the last of each share of so many things of whatever kind."""
        step = max(1, -(-count // PIECES))
        list(self.pool.map(lambda first: run(first, min(first + step, count)), range(0, count, step)))

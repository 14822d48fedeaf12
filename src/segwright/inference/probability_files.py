"""Probabilities of classes beside masks: an OME-Zarr, written as rows come. Axes: K classes, n rows, *S spatial axes."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np

from segwright.codecs.zarr_writer import notes_of_channels, writing_zarr
from segwright.core import Classes, Grid
from segwright.core.missing import missing_pixels
from segwright.decoding.upsample_argmax import label_dtype
from segwright.formats.ome_zarr import PROBABILITIES
from segwright.transforms.prepare import PixelSource


def probability_path(folder: Path, key: str) -> Path:
    """The folder of the probabilities of an image."""
    return folder / f"{key}{PROBABILITIES}.zarr"


def labels_beside_probabilities(
    rows: Iterator[tuple[int, np.ndarray]], pixels: PixelSource, grid: Grid, classes: Classes, path: Path
) -> Iterator[tuple[int, np.ndarray]]:
    """Labels (n, ...) of rows, and the first of them, where probabilities are highest; these are written as they come.

    See `written_probabilities`.
    """
    with closing(written_probabilities(rows, pixels, grid, classes, path)) as coming:
        for first, probs in coming:
            yield first, probs.argmax(axis=0).astype(label_dtype(len(probs)))


def written_probabilities(
    rows: Iterator[tuple[int, np.ndarray]], pixels: PixelSource, grid: Grid, classes: Classes, path: Path
) -> Generator[tuple[int, np.ndarray]]:
    """The probabilities (K, n, ...) of rows, and the first of them, as they are given, which are written to `path` meanwhile.

    `rows` are as `TellsProbabilities` gives them. Where the image `pixels` (C, *S) lacks values they are written as NaN. The
    file is there once all rows are taken.

    Raises:
        OutputError: the place is not writable.
        MissingExtraError: zarr is not installed.
    """
    start = next(rows)
    count, sides = len(start[1]), [slice(0, side) for side in grid.shape[1:]]
    notes = notes_of_channels(classes) if len(classes) == count else None
    with writing_zarr(path, grid, np.float32, channels=count, notes=notes) as array:
        for first, probs in chain([start], rows):
            here = slice(first, first + probs.shape[1])
            missing = missing_pixels(pixels[slice(0, pixels.shape[0]), here, *sides])
            array[:, here] = probs if missing is None else np.where(missing, np.float32(np.nan), probs)
            yield first, probs

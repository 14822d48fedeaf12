"""Class maps of images and volumes that fill the memory, or do not fit into it: seen in parts, labels written as they come.

What is held of a TIFF or a Zarr is the part under a row of tiles, the sums of logits where tiles overlap (sliding_window.py),
and some rows of labels. Other volumes are read as a whole in the type of their file, which packed files need; their labels take
a byte per voxel. Probabilities, where they are wanted, are those of some rows; maps of uncertainty wait in temporary files, of
four bytes a pixel, for the mask to be whole.
Axes: C channels, *S spatial axes, (H, W) of a TIFF.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
from torch import nn

from segwright.codecs.image_writer import colormap_of
from segwright.codecs.tiff_axes import Axes
from segwright.codecs.tiff_parts import TiffParts
from segwright.codecs.volume_file import layout_of
from segwright.codecs.zarr_image import ZarrImage
from segwright.core import Dataset, Grid
from segwright.core.missing import missing_pixels
from segwright.decoding.expected_dice import Quality
from segwright.decoding.run import Run
from segwright.decoding.sliding_window import FLOAT_BYTES, OVERLAP, sums_bytes
from segwright.decoding.uncertainty import Missing
from segwright.formats import ome_zarr, tiff, volume
from segwright.inference.engine import AutoEngine
from segwright.inference.network_memory import living_bytes
from segwright.inference.predictor import Predictor
from segwright.inference.probability_files import labels_beside_probabilities, probability_path
from segwright.inference.uncertainty_files import KeptMaps, write_maps
from segwright.transforms.prepare import PixelSource, View

LARGE = 2**26  # pixels, 8192 x 8192: below, maps and images take little memory
GLANCED_AT = 2**24  # pixels that tell the scale of the values, in bands spread over the image
BANDS = 16
PROBABILITY_ROWS = 2  # of the rows of a tile: those that are complete, and those that are put into them
GB = 1e9
log = logging.getLogger(__name__)


def write_in_parts(
    predictor: Predictor,
    kind: ModuleType,
    key: str,
    source: Dataset,
    folder: Path,
    tell: Callable[[np.ndarray], None],
    *,
    palette: bool = False,
    probabilities: bool = False,
    told: Callable[[Quality, list[Path]], None] | None = None,
) -> bool:
    """Write the class map of a large image of `source` as `kind.write_mask` would; False where file or model do not allow it.

    `kind` is the format that reads the image, and `tell` is given some rows of its values (C, n, ...) before it begins. With
    `probabilities` these are written beside it. `told`, if it is given, gets the quality to expect, and the maps of uncertainty
    that are then written beside it.

    Raises:
        ShapeError: the image has channels that the network is not made for.
        FormatError: the file is damaged.
        OutputError: the place is not writable.
        SegwrightError: the network gives NaN.
    """
    if key not in source.image_files:
        return False
    if told is None:
        beside = probability_path(folder, key) if probabilities else None
        return _LargeImage(predictor, key, source, folder, tell, beside).write(kind, palette=palette) is not None
    with KeptMaps(folder, len(predictor.answers)) as kept:
        grid = _LargeImage(predictor, key, source, folder, tell, kept).write(kind, palette=palette)
        if grid is None:
            return False
        paths = write_maps(folder, key, grid, kept.maps(), kind, source)
    told(predictor.quality(kept.sums, kept.sums.predicted > 0), paths)
    return True


@dataclass(frozen=True, eq=False)
class _LargeImage:
    """An image of `source` whose mask goes to a folder; `beside` it probabilities become a file, or maps are kept."""

    predictor: Predictor
    key: str
    source: Dataset
    folder: Path
    tell: Callable[[np.ndarray], None]  # some rows of its values (C, n, ...)
    beside: Path | KeptMaps | None

    @property
    def path(self) -> Path:
        """Its file."""
        return self.source.image_files[self.key]

    def write(self, kind: ModuleType, *, palette: bool) -> Grid | None:
        """Write its class map, and return the grid; None where it is small, or where file or model do not allow it."""
        predictor, loader = self.predictor, self.source.load
        if kind is volume and predictor.in_parts(3) and prod(layout_of(self.path).stored) >= LARGE:
            return self._write_volume()
        if kind is ome_zarr and isinstance(loader, ome_zarr.Reader) and (predictor.in_parts(2) or predictor.in_parts(3)):
            return self._write_zarr()
        is_plain = kind is tiff and predictor.in_parts(2) and isinstance(loader, tiff.Reader)  # no values are taken out
        parts = TiffParts.opened(self.path, LARGE) if is_plain else None
        if parts is None:
            return None
        with closing(parts):
            grid = Grid((parts.shape[1], parts.shape[2]))
            rows = (labels for _, labels in self._label_rows(parts, grid))
            colors = colormap_of(predictor.answers) if palette else None
            tiff.write_mask_rows(self.folder, rows, (parts.shape[1], parts.shape[2]), self.key, self.source, colors)
        return grid

    def _write_zarr(self) -> Grid | None:
        predictor = self.predictor
        image = ZarrImage.opened(self.path, Axes((None,) * len(predictor.tile or (0, 0))))
        if prod(image.grid.shape) < LARGE or not predictor.in_parts(len(image.grid.shape)):
            return None
        rows = self._label_rows(image, image.grid)
        ome_zarr.write_label_rows(self.folder, rows, image.grid, predictor.answers, self.key, self.source)
        return image.grid

    def _write_volume(self) -> Grid:
        sample = self.source.load(self.key)
        image, grid = sample.image, sample.grid
        labels: np.ndarray = np.empty(0)
        del sample
        for first, rows in self._label_rows(image, grid):
            labels = np.empty(grid.shape, rows.dtype) if not first else labels
            labels[first : first + len(rows)] = rows
        del image  # while the file is made
        volume.write_mask_values(self.folder, labels, grid, self.predictor.answers, self.key, self.source)
        return grid

    def _label_rows(self, pixels: PixelSource, grid: Grid) -> Iterator[tuple[int, np.ndarray]]:
        """Labels (n, ...) of rows of the image (C, *S) on its grid, and the first of them; void is the highest number."""
        predictor, beside = self.predictor, self.beside
        seen = glanced(pixels)
        self.tell(seen)
        view = predictor.view_in_parts(pixels, grid, self.key, predictor.scale_of(seen, self.key))
        run = predictor.run(len(grid.shape))
        del seen
        network = (
            predictor.network if getattr(predictor.engine, "device", "cpu") == "cpu" else None
        )  # else a GPU holds its maps
        expected = expected_bytes(run, view, network, probabilities=beside is not None)
        log.info("%s takes about %.1f GB of memory", self.key, expected / GB)
        if isinstance(predictor.engine, AutoEngine):
            predictor.engine.ahead = _tiles(*run.sizes(view.covered)) * 2 ** len(predictor.flips)
        task: Any = predictor.task  # as Predictor.in_parts says
        missing = _missing_in(pixels)
        if beside is None:
            rows = task.label_rows(run, view)
        elif isinstance(beside, KeptMaps):
            rows = beside.kept(task.uncertainty_rows(run, view, beside.sums, missing), missing, grid.shape)
        else:
            found = task.probability_rows(run, view)
            rows = labels_beside_probabilities(found, pixels, grid, predictor.answers, beside)
        return _with_void(rows, missing)


def expected_bytes(run: Run, view: View, network: nn.Module | None, *, probabilities: bool = False) -> int:
    """What this process will hold at most, which holds what it keeps of the image, and all libraries, already.

    `network` is one that answers in this process's memory. Networks of a stride above 1 give fewer logits, and take less than
    this.
    """
    tile, padded = run.sizes(view.covered)
    logits = FLOAT_BYTES * len(run.classes) * prod(tile)
    shape = (run.at_once, view.image.shape[0], *tile)
    answering = max(logits * run.at_once, (living_bytes(network, shape) if network is not None else None) or 0)
    labels = prod(view.source.shape) if len(tile) == 3 else tile[0] * view.source.shape[1]
    rows = FLOAT_BYTES * len(run.classes) * tile[0] * prod(view.source.shape[1:])
    beside = PROBABILITY_ROWS * rows if probabilities else 0
    held = sums_bytes(padded, tile, len(run.classes)) + logits + labels  # the logits are a brick of those that are final
    return psutil.Process().memory_info().rss + held + answering + beside


def _tiles(tile: tuple[int, ...], padded: tuple[int, ...]) -> int:
    """About how many tiles a padded image has."""
    return prod(ceil(side / (each * (1 - OVERLAP))) for side, each in zip(padded, tile, strict=True))


def glanced(pixels: PixelSource) -> np.ndarray:
    """Some rows (C, n, ...) of an image (C, *S), evenly spread over it: all of it would take more memory to look at."""
    _, height, *sides = pixels.shape
    high = max(1, min(height, GLANCED_AT // prod(sides)) // BANDS)
    starts, rest = np.linspace(0, height - high, BANDS).astype(int), [slice(0, side) for side in sides]
    return np.concatenate([pixels[:, start : start + high, *rest] for start in starts.tolist()], axis=1)


def _missing_in(pixels: Any) -> Missing:
    """Which pixels lack a value in rows of an image (C, *S)."""
    may_lack = getattr(pixels, "nodata", None) is not None or pixels.dtype.kind == "f"
    channels, *sides = (slice(0, side) for side in (pixels.shape[0], *pixels.shape[2:]))
    return lambda rows: missing_pixels(pixels[channels, rows, *sides]) if may_lack else None


def _with_void(rows: Iterator[tuple[int, np.ndarray]], missing: Missing) -> Iterator[tuple[int, np.ndarray]]:
    """Labels (n, ...) of rows, and the first of them, the highest number where a pixel is missing."""
    for first, labels in rows:
        gone = missing(slice(first, first + len(labels)))
        if gone is not None:
            labels[gone] = np.iinfo(labels.dtype).max
        yield first, labels

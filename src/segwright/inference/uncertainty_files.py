"""Maps of how unsure a network is, beside its masks: files of float32 on the grid of the image. Axes: *S spatial axes."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from segwright.codecs.volume_file import write_volume
from segwright.core import Dataset, Grid
from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.uncertainty import DISAGREEMENT, UNCERTAINTY, Missing, Row
from segwright.formats import dicom, tiff, volume

DICOM_SUFFIX = ".nrrd"  # which holds a DICOM series' grid, and numbers with a fraction, as a DICOM-SEG does not


def map_paths(folder: Path, key: str, kind: ModuleType, source: Dataset) -> dict[str, Path]:
    """The files of all maps of an image, by name: volumes of the same kind for volumes, NRRD for a DICOM series, else TIFF."""
    suffix = ".tif"
    if kind is volume:
        suffix = volume.mask_path(folder, key, source).name.removeprefix(key.rpartition("/")[2])
    elif kind is dicom:
        suffix = DICOM_SUFFIX
    return {name: folder / f"{key}_{name}{suffix}" for name in (UNCERTAINTY, DISAGREEMENT)}


def write_maps(
    folder: Path, key: str, grid: Grid, maps: Mapping[str, np.ndarray], kind: ModuleType, source: Dataset
) -> list[Path]:
    """Write maps float32 (*S) by name of an image on its grid, and return their files; a TIFF has its place on the map.

    Raises:
        OutputError: the place is not writable.
    """
    paths = {name: path for name, path in map_paths(folder, key, kind, source).items() if name in maps}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in (volume, dicom):
            write_volume(path, maps[name][None], grid)
        else:
            tags = tiff.geo_tags(source.image_files[key]) if kind is tiff else None
            tiff.write_layers(path, maps[name][None], tags)
    return [*paths.values()]


class KeptMaps:
    """The maps of an image that come row by row, in temporary files in a folder, and what its pixels add up to; for `with`."""

    def __init__(self, folder: Path, num_classes: int) -> None:
        self.folder, self.sums, self.shape = folder, OverlapSums.of_none(num_classes), tuple[int, ...]()
        self._place: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> "KeptMaps":
        return self

    def __exit__(self, *_: object) -> None:
        if self._place is not None:
            self._place.cleanup()

    def kept(self, rows: Iterable[Row], missing: Missing, shape: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
        """What is found in rows of a grid (*S), from top to bottom, whose maps are kept, with NaN where pixels are missing."""
        self.shape, self._place = shape, tempfile.TemporaryDirectory(prefix=".maps_", dir=self.folder)
        place = Path(self._place.name)
        for first, found, maps in rows:
            gone = missing(slice(first, first + len(found)))
            for name, values in maps.items():
                with (place / name).open("ab") as file:
                    (values if gone is None else np.where(gone, np.float32(np.nan), values)).tofile(file)
            yield first, found

    def maps(self) -> dict[str, np.ndarray]:
        """The maps float32 (*S) by name, read from their files where they are looked at, once all rows have come."""
        files = Path(self._place.name).iterdir() if self._place is not None else ()
        return {path.name: np.memmap(path, np.float32, "r", shape=self.shape) for path in files}

"""Maps of how unsure a network is, beside its masks: files of float32 on the grid of the image. Axes: *S spatial axes."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from segwright.codecs.volume_file import write_volume
from segwright.core import Dataset, Sample
from segwright.decoding.uncertainty import DISAGREEMENT, UNCERTAINTY
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


def write_maps(folder: Path, sample: Sample, maps: Mapping[str, np.ndarray], kind: ModuleType, source: Dataset) -> None:
    """Write maps float32 (*S) by name on the grid of a sample; a TIFF lies on the map where the image does.

    Raises:
        OutputError: the place is not writable.
    """
    paths = map_paths(folder, sample.key, kind, source)
    for name, values in maps.items():
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        if kind in (volume, dicom):
            write_volume(paths[name], values[None], sample.grid)
        else:
            tags = tiff.geo_tags(source.image_files[sample.key]) if kind is tiff else None
            tiff.write_layers(paths[name], values[None], tags)

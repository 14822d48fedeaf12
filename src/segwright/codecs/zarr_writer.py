"""Writes images as OME-Zarr 0.5 (Zarr version 3) part by part: memory holds the part that is written, and no more.

One resolution, whose axes, scale and unit are those of the grid (ngff.openmicroscopy.org/0.5). What OME-Zarr has no place for,
the affine, is an attribute of our own, "segwright". Needs `segwright[zarr]`.

Axes: C channels, *S spatial axes, (D, H, W) or (H, W).
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from segwright.codecs.zarr_image import OURS, zarr_package
from segwright.core import Classes, Grid
from segwright.core.atomic_files import check_utf8, remove
from segwright.core.errors import OutputError

VERSION = "0.5"
CHUNK = {2: (64, 2048), 3: (8, 256, 256)}  # low and wide: parts come as rows, and no chunk is written more than twice
OPAQUE = 255


@contextmanager
def writing_zarr(
    path: Path, grid: Grid, dtype: np.dtype | type, *, channels: int | None = None, notes: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """An array (C, *S), or (*S) without `channels`, to assign parts of; in its place at the end, and never after an error.

    `notes` are keys of OME-Zarr beside "multiscales".

    Raises:
        OutputError: the place is not writable; nothing is left behind.
        MissingExtraError: zarr is not installed.
    """
    zarr = zarr_package()
    check_utf8(path)
    axes, front = len(grid.shape), () if channels is None else (channels,)
    unfinished = path.parent / f".{path.name[:50]}.{uuid4().hex}"  # 50: names longer than 255 bytes are refused
    try:
        unfinished.mkdir(parents=True)
        group = zarr.create_group(store=str(unfinished), zarr_format=3, attributes=_attributes(path, grid, channels, notes))
        yield group.create_array(
            "0",
            shape=(*front, *grid.shape),
            dtype=dtype,
            chunks=(*(1 for _ in front), *(min(most, side) for most, side in zip(CHUNK[axes], grid.shape, strict=True))),
            dimension_names=_letters(grid, channels),
        )
        remove(path)
        os.replace(unfinished, path)  # noqa: PTH105  (one step on every system)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose a writable place with free space") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def notes_of_channels(classes: Classes) -> dict[str, Any]:
    """Channels as viewers show them: one for each class, from 0 to 1, with its name and colour."""
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    pairs = zip(classes.names, classes.colors, strict=True)
    shown = [{"label": name, "color": bytes(color).hex().upper(), "active": True, "window": window} for name, color in pairs]
    return {"omero": {"version": VERSION, "channels": shown}}


def notes_of_labels(classes: Classes, void: int) -> dict[str, Any]:
    """What numbers of a label image mean: names and colours of classes, and the number of what nobody knows."""
    numbered = list(enumerate(zip(classes.names, classes.colors, strict=True)))
    return {
        "image-label": {
            "version": VERSION,
            "colors": [{"label-value": number, "rgba": [*color, OPAQUE]} for number, (_, color) in numbered]
            + [{"label-value": void, "rgba": [0, 0, 0, 0]}],
            "properties": [{"label-value": number, "name": name} for number, (name, _) in numbered],
        }
    }


def _letters(grid: Grid, channels: int | None) -> Sequence[str]:
    return [*("c" if channels is not None else ""), *"zyx"[-len(grid.shape) :]]


def _attributes(path: Path, grid: Grid, channels: int | None, notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes of a group for one image."""
    letters = _letters(grid, channels)
    unit = {} if grid.spacing_mm is None else {"unit": "millimeter"}
    axes = [{"name": each, "type": "channel"} if each == "c" else {"name": each, "type": "space", **unit} for each in letters]
    scale = [1.0] * (len(letters) - len(grid.shape)) + list(grid.spacing_mm or (1.0,) * len(grid.shape))
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [float(step) for step in scale]}]}]
    ome = {"version": VERSION, "multiscales": [{"name": path.stem, "axes": axes, "datasets": datasets}], **(notes or {})}
    ours = {} if grid.affine is None else {OURS: {"affine": np.asarray(grid.affine, float).tolist()}}
    return {"ome": ome, **ours}

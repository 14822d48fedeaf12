"""Writes images as OME-Zarr 0.5 (Zarr version 3) part by part: memory holds the part that is written, and no more.

Axes, scale and unit are those of the grid (ngff.openmicroscopy.org/0.5), and coarser levels follow it (zarr_pyramid.py). What
OME-Zarr has no place for is an attribute of our own, "segwright": the affine, that a stack has one slice, and that all chunks
are there. Zarr takes one that is not for a chunk of the fill value; those are written too, so that a lost one is noticed.
Needs `segwright[zarr]`.

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

from segwright.codecs.zarr_image import ALL_CHUNKS, IMAGE_LABEL, IS_EMPTY, IS_STACK, LABELS, NOTHING, OURS, zarr_package
from segwright.codecs.zarr_pyramid import factors_of_levels, fill_levels, shape_of_level
from segwright.core import Classes, Grid
from segwright.core.atomic_files import check_utf8, remove
from segwright.core.errors import OutputError
from segwright.core.strict_json import without_nan

VERSION = "0.5"
CHUNK = {2: (64, 2048), 3: (8, 256, 256)}  # low and wide: parts come as rows, and no chunk is written more than twice
OPAQUE = 255


@contextmanager
def writing_zarr(
    path: Path, grid: Grid, dtype: np.dtype | type, *, channels: int | None = None, notes: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """An array (C, *S), or (*S) without `channels`, to assign parts of; in its place at the end, and never after an error.

    `notes` are keys of OME-Zarr beside "multiscales"; with "image-label" the array is one of labels.

    Raises:
        OutputError: the place is not writable; nothing is left behind.
        MissingExtraError: zarr is not installed.
    """
    zarr = zarr_package()
    check_utf8(path)
    front = () if channels is None else (channels,)
    unfinished = path.parent / f".{path.name[:50]}.{uuid4().hex}"  # 50: names longer than 255 bytes are refused
    try:
        unfinished.mkdir(parents=True)
        group = zarr.create_group(
            store=str(unfinished), zarr_format=3, attributes=without_nan(_attributes(path, grid, channels, notes))
        )
        arrays = [
            group.create_array(
                str(level),
                shape=(*front, *sides),
                dtype=dtype,
                chunks=(*(1 for _ in front), *map(min, CHUNK[len(sides)], sides)),
                dimension_names=_letters(grid, channels),
                config={"write_empty_chunks": True},
            )
            for level, sides in enumerate(shape_of_level(grid, factors) for factors in factors_of_levels(grid))
        ]
        yield arrays[0]
        fill_levels(arrays, grid, is_label=IMAGE_LABEL in (notes or {}))
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


def notes_of_labels(
    classes: Classes,
    void: int,
    *,
    first: int = 0,
    nothing: int | None = None,
    scores: Mapping[int, float] | None = None,
    is_inside: bool = False,
) -> dict[str, Any]:
    """What numbers of a label image mean: names and colours of classes, from `first` on, and the number of what nobody knows.

    `nothing` is that of pixels of no class, if it is not 0. `scores` are those of classes that have one, by their place.
    `is_inside` the folder of its image lies the label image. Of regions, which share numbers, there are colours alone.
    """
    shown = [(first + k, color) for k, color in enumerate(classes.colors)]
    if classes.regions:
        inside = {number: color for numbers, color in zip(classes.regions, classes.colors, strict=True) for number in numbers}
        shown = sorted(inside.items())  # of the last region that a number lies in, which is seen
    hidden = [void] if nothing is None else [nothing, void]
    given = [] if classes.regions else list(enumerate(classes.names))
    properties: list[dict[str, Any]] = [{"label-value": first + k, "name": name, **_score(scores, k)} for k, name in given]
    properties += [] if nothing is None else [{"label-value": nothing, OURS: NOTHING}]
    colors = [{"label-value": number, "rgba": [*color, OPAQUE]} for number, color in shown]
    colors += [{"label-value": number, "rgba": [0, 0, 0, 0]} for number in hidden]
    return {IMAGE_LABEL: {"version": VERSION, "colors": colors, "properties": properties, **_source(is_inside=is_inside)}}


def notes_of_objects(objects: Sequence[tuple[int, str, float]]) -> dict[str, Any]:
    """What numbers of a label image of objects mean: number, name of the class and score of each."""
    properties = [
        {"label-value": number, "class": name, **({} if score == 1 else {"score": score})} for number, name, score in objects
    ]
    return {IMAGE_LABEL: {"version": VERSION, "properties": properties, **_source(is_inside=True)}}


def _source(*, is_inside: bool) -> dict[str, Any]:
    return {"source": {"image": "../../"}} if is_inside else {}


def _score(scores: Mapping[int, float] | None, k: int) -> dict[str, float]:
    return {"score": scores[k]} if scores and k in scores else {}


def write_empty_group(path: Path) -> None:
    """Write a group without an image, to hold label images alone, in the place of what is there.

    Raises:
        OutputError: the place is not writable.
    """
    remove(path)
    _write_group(path, {OURS: {IS_EMPTY: True}})


def list_labels(path: Path, names: Sequence[str]) -> None:
    """Say in the folder of an image which label images its labels/ holds.

    Raises:
        OutputError: the place is not writable.
    """
    _write_group(path / LABELS, {"ome": {"version": VERSION, "labels": [*names]}})


def _write_group(path: Path, attributes: dict[str, Any]) -> None:
    check_utf8(path)
    try:
        zarr_package().create_group(store=str(path), zarr_format=3, attributes=without_nan(attributes))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose a writable place with free space") from error


def _letters(grid: Grid, channels: int | None) -> Sequence[str]:
    return [*("c" if channels is not None else ""), *"zyx"[-len(grid.shape) :]]


def _attributes(path: Path, grid: Grid, channels: int | None, notes: Mapping[str, Any] | None) -> dict[str, Any]:
    """The attributes of a group for one image."""
    letters = _letters(grid, channels)
    unit = {} if grid.spacing_mm is None else {"unit": "millimeter"}
    axes = [{"name": each, "type": "channel"} if each == "c" else {"name": each, "type": "space", **unit} for each in letters]
    front, spacing = len(letters) - len(grid.shape), np.array(grid.spacing_mm or (1.0,) * len(grid.shape))
    datasets = []
    for level, factors in enumerate(map(np.array, factors_of_levels(grid))):
        changes = [{"type": "scale", "scale": [*[1.0] * front, *(spacing * factors).tolist()]}]
        if level:  # the middle of the first pixel
            changes.append({"type": "translation", "translation": [*[0.0] * front, *(spacing * (factors - 1) / 2).tolist()]})
        datasets.append({"path": str(level), "coordinateTransformations": changes})
    scales = {"name": path.stem, "axes": axes, "datasets": datasets}
    if datasets[1:]:
        scales["type"] = "nearest" if IMAGE_LABEL in (notes or {}) else "mean"
    ours: dict[str, Any] = {ALL_CHUNKS: True}
    ours |= {} if grid.affine is None else {"affine": np.asarray(grid.affine, float).tolist()}
    ours |= {IS_STACK: True} if len(grid.shape) == 3 and grid.shape[0] == 1 else {}
    return {"ome": {"version": VERSION, "multiscales": [scales], **(notes or {})}, OURS: ours}

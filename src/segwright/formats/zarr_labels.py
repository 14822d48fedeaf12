"""A truth as label images in the Zarr folder of its image: NAME.zarr/labels/masks, with the objects beside and layers below.

    labels/masks          the number of the class at each pixel, with its name and colour ("image-label")
    labels/instances      where there are objects: the number of each, 0 for none, with the name of its class
    labels/masks_2, ...   of overlapping segments one layer over the other, each with its objects, labels/instances_2, ...

A class is its place in the list, from 0 on where the first is the background, else from 1 on: viewers leave 0 transparent.
Void is 255, or 65535 where there are more classes. Nothing is 0, or, where that is the background, the number after the last
class. Scores are properties of numbers. Classes that are regions have the numbers of `values` in classes.json, in one layer.

Axes: P planes, N segments, n rows, *S spatial axes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.zarr_image import LABELS, labels_of_zarr, told_labels_of_zarr
from segwright.codecs.zarr_writer import CHUNK, list_labels, notes_of_labels, notes_of_objects, writing_zarr
from segwright.core import VOID, Classes, Grid, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import FormatError, OutputError
from segwright.formats.label_encoding import MAX_VALUE, VOID_8_BIT, VOID_16_BIT, Meaning, write_classes
from segwright.formats.label_maps import mask_values, to_segmentation
from segwright.formats.mask_file import MAX_NUMBER
from segwright.formats.pairing import Files
from segwright.formats.resume_journal import truth_of
from segwright.formats.volume_masks import check_same_grid, read_mask_volume

MASKS, OBJECTS = "masks", "instances"
UNKNOWN = -1  # what stands for NaN; where nobody says that another negative number is void, this one is
ROWS = 64  # that are looked at at once


@dataclass(frozen=True)
class ClassNumbers:
    """The numbers that stand for classes, void and nothing in label images of these classes, and their type."""

    first: int
    nothing: int
    void: int
    dtype: np.dtype

    @classmethod
    def of(cls, classes: Classes) -> "ClassNumbers":
        """Those of classes that exclude each other.

        Raises:
            OutputError: there are more than 16 bits hold.
        """
        first = 0 if background_of(classes) == 0 else 1
        if len(classes) >= VOID_16_BIT:
            raise OutputError(f"{len(classes)} classes leave no number for void and nothing; merge some")
        is_narrow = len(classes) < VOID_8_BIT
        nothing, void = (0 if first else len(classes)), (VOID_8_BIT if is_narrow else VOID_16_BIT)
        return cls(first, nothing, void, np.dtype(np.uint8 if is_narrow else np.uint16))


def write_numbers_of_classes(path: Path, classes: Classes) -> None:
    """Write the classes.json of label images of these classes.

    Raises:
        OutputError: the place is not writable.
    """
    if classes.regions:
        write_classes(path, classes, values=classes.regions)
        return
    numbers = ClassNumbers.of(classes)
    write_classes(
        path,
        classes,
        values=[numbers.first + k for k in range(len(classes))],
        ignore_index=numbers.void,
        nothing_index=numbers.nothing,
    )


def write_labels(image: Path, sample: Sample) -> None:
    """Write the truth of a sample into the Zarr folder of its image, in rows.

    Raises:
        OutputError: the place is not writable, or there are regions with objects, or too many classes.
        MissingExtraError: zarr is not installed.
    """
    truth, folder = truth_of(sample), image / LABELS
    if truth.classes.regions:
        values = mask_values(sample)
        notes = notes_of_labels(truth.classes, int(np.iinfo(values.dtype).max), is_inside=True)
        with writing_zarr(folder / MASKS, sample.grid, values.dtype, notes=notes) as array:
            array[:] = values
        list_labels(image, [MASKS])
        return
    numbers = ClassNumbers.of(truth.classes)
    class_numbers = np.array([numbers.void, numbers.nothing, *(truth.class_ids + numbers.first)], numbers.dtype)
    is_narrow = truth.instance_ids.max(initial=0) <= MAX_VALUE
    object_numbers = np.array([0, 0, *truth.instance_ids], np.uint16 if is_narrow else np.uint32)
    names = []
    for layer, plane in enumerate(truth.planes):
        here = [(*_told(truth, index), int(truth.class_ids[index])) for index in _present(plane, len(truth))]
        notes = notes_of_labels(
            truth.classes,
            numbers.void,
            first=numbers.first,
            nothing=numbers.nothing or None,
            scores={k: score for number, _, score, k in here if not number and score != 1},
            is_inside=True,
        )
        names.append(_name(MASKS, layer))
        _write_rows(folder / names[-1], sample.grid, plane, class_numbers, notes)
        objects = [(number, name, score) for number, name, score, _ in here if number]
        if objects:
            names.append(_name(OBJECTS, layer))
            _write_rows(folder / names[-1], sample.grid, plane, object_numbers, notes_of_objects(objects))
    list_labels(image, names)


def read_truth(files: Files, meaning: Meaning) -> tuple[Segmentation, Grid]:
    """The truth of a sample, from its label image with what belongs to it, and their grid.

    Raises:
        FormatError: a label image is damaged, of another size than the first, or holds a number that is no class, or a negative
            one that nobody explains; or there is none.
        MissingExtraError: zarr is not installed.
    """
    layers = _layers(files)
    maps, grid = [], None
    meaning = replace(meaning, negative=UNKNOWN) if meaning.negative is None else meaning
    for mask, objects in layers:
        values = read_mask_volume(mask)
        grid = grid or values.grid
        check_same_grid(grid, values.grid, layers[0][0], mask)
        if len(layers) == 1 and objects is None:
            return _scored(values.truth(meaning)[0], layers), grid
        known, is_void = values.known(meaning)
        class_map = meaning.class_map(known, mask)
        class_map[is_void] = VOID
        numbers = np.zeros_like(class_map)
        if objects is not None:
            told = read_mask_volume(objects)
            check_same_grid(grid, told.grid, mask, objects)
            numbers = told.numbers(MAX_NUMBER)
        maps.append((class_map, np.maximum(numbers, 0)))
    if grid is None:
        raise FormatError("a sample has no label image; copy its files again")
    flat = (-1, *grid.shape[1:])  # layers one below the other, so that a segment may lie in several of them
    class_maps, numbers = (np.stack(each).reshape(flat) for each in zip(*maps, strict=True))
    found = to_segmentation(class_maps, numbers, meaning.classes)
    return _scored(replace(found, planes=found.planes.reshape(len(layers), *grid.shape)), layers), grid


def _layers(files: Files) -> list[tuple[Path, Path | None]]:
    """The label images of classes and of objects of each layer of a truth."""
    if files.mask is None:
        return []
    if files.numbers is not None or files.mask.name != MASKS or files.mask.parent.name != LABELS:
        return [(files.mask, files.numbers)]
    folder, names = files.mask.parent, labels_of_zarr(files.mask.parent.parent)
    layers = takewhile(lambda layer: _name(MASKS, layer) in names, count())
    return [
        (folder / _name(MASKS, layer), folder / _name(OBJECTS, layer) if _name(OBJECTS, layer) in names else None)
        for layer in layers
    ]


def _scored(truth: Segmentation, layers: list[tuple[Path, Path | None]]) -> Segmentation:
    """A truth with the scores that its label images tell of regions, by class, and of objects, by class and number."""
    scores: dict[tuple[str, int], float] = {}
    for path in (path for layer in layers for path in layer if path is not None):
        for entry in told_labels_of_zarr(path).properties:
            score, number = entry.get("score", ""), 0 if "name" in entry else entry.get("label-value")
            if isinstance(score, int | float | None) and isinstance(number, int):
                scores[str(entry.get("name", entry.get("class"))), number] = math.nan if score is None else score
    if not scores:
        return truth
    names = zip((truth.classes.names[k] for k in truth.class_ids), truth.instance_ids.tolist(), strict=True)
    return replace(truth, scores=np.array([scores.get(each, 1.0) for each in names], np.float32))


def _told(truth: Segmentation, index: int) -> tuple[int, str, float]:
    """The number, the name of the class and the score of a segment."""
    return int(truth.instance_ids[index]), truth.classes.names[truth.class_ids[index]], float(truth.scores[index])


def _present(plane: np.ndarray, num_segments: int) -> list[int]:
    """The segments, of so many, that have a pixel in a plane (*S)."""
    is_there = np.zeros(num_segments + 2, bool)
    for first in range(0, len(plane), ROWS):
        is_there[plane[first : first + ROWS] + 1] = True
    return np.flatnonzero(is_there[2:]).tolist()


def _name(kind: str, layer: int) -> str:
    return f"{kind}_{layer + 1}" if layer else kind


def _write_rows(path: Path, grid: Grid, plane: np.ndarray, number_of: np.ndarray, notes: Mapping[str, Any]) -> None:
    """Write the numbers of void, nothing and the segments (N + 2,) at the pixels of a plane (*S)."""
    with writing_zarr(path, grid, number_of.dtype, notes=notes) as array:
        for first in range(0, len(plane), CHUNK[plane.ndim][0]):
            rows = slice(first, first + CHUNK[plane.ndim][0])
            array[rows] = number_of[plane[rows] + 1]

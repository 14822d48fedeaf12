"""Drawn scenes with exact truth, such as "synthetic:streets" or "synthetic:cells?count=20&seed=3&shape=32x96x96".

    streets        views of streets from a car, RGB; 9 classes, cars and pedestrians as objects
    street_video   a drive through one street, ten frames a second; the objects keep their numbers
    cells          cells under a fluorescence microscope, grey, in 2D and 3D; each cell is an object

Image and truth come from one drawing, so that the truth is exact: semantic through `truth.class_map()`, instance and
panoptic through its segments. A sample depends on its seed and its number alone. They serve demonstrations and tests: a
network that fails here is broken; one that succeeds has still to be tried on real images.

There is no `write`: nothing on disk has this format. `mask_folder.write(path, synthetic.streets(100))` keeps the scenes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import SettingError, ShapeError, UnknownNameError
from segwright.core.lookup import did_you_mean
from segwright.formats.synthetic import cells_scene, street_scenery, street_world

PREFIX = "synthetic:"
COUNT = 24  # scenes or frames where no count is given: a sixth of them, four, are a small validation part
SHAPE = (192, 256)  # the smallest size at which a pedestrian at 20 m still has a head
MIN_STREET, MIN_CELLS = 32, 8  # pixels per axis; smaller scenes show nothing


def streets(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Dataset:
    """`count` views (3, H, W) of different streets, drawn when they are asked for.

    Raises:
        SettingError: count is below 1 or seed below 0.
        ShapeError: shape is not (H, W) or too small.
    """
    _check_shape("streets", shape, (2,), MIN_STREET)
    return _dataset("streets", "street", street_world.CLASSES, count, seed, shape, partial(_street, seed, tuple(shape)))


def street_video(frames: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Dataset:
    """`frames` consecutive views (3, H, W) of one drive; instance ids stay with their objects.

    Raises:
        SettingError: frames is below 1 or seed below 0.
        ShapeError: shape is not (H, W) or too small.
    """
    _check_shape("street_video", shape, (2,), MIN_STREET)
    load = partial(_frame, seed, tuple(shape), frames)
    return _dataset("street_video", "frame", street_world.CLASSES, frames, seed, shape, load)


def cells(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Dataset:
    """`count` images (1, H, W) or volumes (1, D, H, W) of cells, drawn when they are asked for.

    Raises:
        SettingError: count is below 1 or seed below 0.
        ShapeError: shape has not 2 or 3 axes, or is too small.
    """
    _check_shape("cells", shape, (2, 3), MIN_CELLS)
    return _dataset("cells", "cells", cells_scene.CLASSES, count, seed, shape, partial(_cells, seed, tuple(shape)))


SCENES: dict[str, Callable[..., Dataset]] = {"streets": streets, "street_video": street_video, "cells": cells}
OPTIONS = ("count", "seed", "shape")


def matches(path: Path | str) -> bool:
    """Whether a path is a name like "synthetic:streets"."""
    return str(path).startswith(PREFIX)


def read(path: Path | str) -> Dataset:
    """The scenes that a name like "synthetic:cells?count=20&seed=3&shape=192x256" stands for; all options may be left out.

    Raises:
        UnknownNameError: there is no such scene or option; the message offers the nearest.
        SettingError: an option is no number.
        ShapeError: as `streets`, `street_video` and `cells`.
    """
    name, _, query = str(path).removeprefix(PREFIX).partition("?")
    if name not in SCENES:
        raise UnknownNameError(f"there is no scene {name!r}{did_you_mean(name, list(SCENES))}; known are {', '.join(SCENES)}")
    options: dict[str, Any] = {"count": COUNT, "seed": 0, "shape": SHAPE}
    for option, value in parse_qsl(query, keep_blank_values=True):
        if option not in OPTIONS:
            raise UnknownNameError(
                f"{path}: there is no option {option!r}{did_you_mean(option, list(OPTIONS))}; known are {', '.join(OPTIONS)}"
            )
        try:
            options[option] = tuple(map(int, value.split("x"))) if option == "shape" else int(value)
        except ValueError as error:
            example = "192x256" if option == "shape" else "20"
            raise SettingError(f"{path}: {option} is {value!r}; give whole numbers, such as {option}={example}") from error
    return SCENES[name](options["count"], shape=options["shape"], seed=options["seed"])


def _dataset(
    name: str, stem: str, classes: Classes, count: int, seed: int, shape: tuple[int, ...], load: Callable[[str], Sample]
) -> Dataset:
    if count < 1 or seed < 0:
        raise SettingError(f"synthetic {name}: count is {count} and seed {seed}; at least 1 and 0 are needed")
    source = f"{PREFIX}{name}?count={count}&seed={seed}&shape={'x'.join(map(str, shape))}"
    return Dataset(source, classes, tuple(f"{stem}_{index:04d}" for index in range(count)), load)


def _check_shape(name: str, shape: tuple[int, ...], axes: tuple[int, ...], smallest: int) -> None:
    if len(shape) not in axes or min(shape) < smallest:
        forms = " or ".join("(H, W)" if count == 2 else "(D, H, W)" for count in axes)
        raise ShapeError(f"synthetic {name}: shape is {tuple(shape)}; {forms} with at least {smallest} per axis is needed")


def _index(key: str) -> int:
    return int(key.rpartition("_")[2])


def _street(seed: int, shape: tuple[int, ...], key: str) -> Sample:
    street = street_world.make_street(np.random.default_rng([seed, _index(key)]))
    return street_scenery.street_sample(key, street, shape)


def _frame(seed: int, shape: tuple[int, ...], frames: int, key: str) -> Sample:
    length = frames * street_scenery.FRAME_S * street_scenery.DRIVE_SPEED
    street = street_world.make_street(np.random.default_rng(seed), length)
    return street_scenery.street_sample(key, street, shape, frame=_index(key))


def _cells(seed: int, shape: tuple[int, ...], key: str) -> Sample:
    return cells_scene.cell_sample(key, shape, np.random.default_rng([seed, _index(key)]))

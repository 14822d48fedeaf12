"""A healthy data set on disk, to be made ill."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.codecs.image_file import read_image, read_mask
from segwright.codecs.image_writer import write_image, write_values
from segwright.inspection.inspect import inspect

NAMES = ["sky", "road", "car"]
TRAIN, VAL = 30, 8


@dataclass(frozen=True)
class Patient:
    """A data set with train/ and val/, each with images/ and masks/, and classes.json above both."""

    root: Path

    def pairs(self) -> list[tuple[Path, Path]]:
        """Image and mask files, those of train/ first."""
        images = [path for part in ("train", "val") for path in sorted((self.root / part / "images").iterdir())]
        return [(path, path.parent.parent / "masks" / f"{path.stem}.png") for path in images]

    def each_mask(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Every mask as another."""
        for _, mask in self.pairs():
            write_values(mask, change(read_mask(mask)))

    def put(self, index: int, image: np.ndarray | None = None, mask: np.ndarray | None = None) -> str:
        """Another image or mask in place of one; its key."""
        image_path, mask_path = self.pairs()[index]
        if image is not None:
            image_path.unlink()
            write_image(image_path.with_suffix(""), image)
        if mask is not None:
            write_values(mask_path, mask)
        return self.key(index)

    def add(self, part: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
        """One more sample."""
        write_image(self.root / part / "images" / name, image)
        write_values(self.root / part / "masks" / f"{name}.png", mask)

    def key(self, index: int) -> str:
        """The key of a sample when the whole is opened."""
        image = self.pairs()[index][0]
        return f"{image.parent.parent.name}__{image.stem}"

    def image(self, index: int) -> np.ndarray:
        """The picture of a sample, uint8 (3, H, W)."""
        return read_image(self.pairs()[index][0])

    def mask(self, index: int) -> np.ndarray:
        """The numbers of a sample, uint8 (H, W)."""
        return read_mask(self.pairs()[index][1])

    def name(self, content: Any) -> None:
        """Another classes.json, or none."""
        (self.root / "classes.json").unlink(missing_ok=True)
        if content is not None:
            (self.root / "classes.json").write_text(json.dumps(content))

    def found(self) -> dict[str, str]:
        """Name and level of what the doctor finds."""
        return {finding.name: finding.level for finding in inspect(self.root).findings}


def draw(seed: int, shape: tuple[int, int] = (48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (3, H, W) of coarse noise, and numbers uint8 (H, W) 0, 1 and 2 of what lies where in it."""
    rng = np.random.default_rng(seed)
    height, width = shape
    horizon, row, column = rng.integers(10, height - 20), rng.integers(8, height - 16), rng.integers(0, width - 20)
    mask = np.zeros(shape, np.uint8)
    mask[horizon:] = 1
    mask[row : row + 9, column : column + 14] = 2
    coarse = rng.integers(0, 160, (3, height // 8 + 1, width // 8 + 1))
    image = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width] + 40 * mask + rng.integers(0, 15, (3, *shape))
    return image.astype(np.uint8), mask


@pytest.fixture(scope="session")
def scene() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A picture and its numbers by a seed."""
    return draw


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> Patient:
    """A healthy set; not to be changed."""
    patient = Patient(tmp_path_factory.mktemp("clean"))
    for index in range(TRAIN + VAL):
        patient.add("train" if index < TRAIN else "val", f"img_{index:03}", *draw(index))
    patient.name(NAMES)
    return patient


@pytest.fixture
def patient(clean, tmp_path) -> Patient:
    """A copy of the healthy set, to be made ill."""
    return Patient(Path(shutil.copytree(clean.root, tmp_path / "ill")))

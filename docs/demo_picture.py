"""The picture in the README: what the demo's model makes of scenes it has never seen.

    make demo && .venv/bin/python docs/demo_picture.py segwright-demo docs/demo.png

Rows are scenes, columns are image, truth and prediction.
"""

import sys
from pathlib import Path

import numpy as np

import segwright
from segwright.codecs.image_writer import write_picture
from segwright.core.visualise import as_rgb, overlay

SCENES = (0, 3, 7)
GAP = 6  # white pixels between pictures


def main(demo: Path, target: Path) -> None:
    """Draw the picture from the demo's folder."""
    model = segwright.load(demo / "run")
    scenes = segwright.open_dataset(demo / "data" / "val")
    rows = []
    for number in SCENES:
        sample = scenes[number]
        colours = sample.truth.classes.palette
        truth, prediction = (overlay(sample.image, s.class_map(), colours, 0.65) for s in (sample.truth, model(sample)))
        rows.append(np.concatenate([framed(picture) for picture in (as_rgb(sample.image), truth, prediction)], axis=1))
    write_picture(target, np.concatenate(rows))


def framed(picture: np.ndarray) -> np.ndarray:
    """An RGB picture (H, W, 3) with a white margin to the right and below."""
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

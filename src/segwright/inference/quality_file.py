"""The Dice to expect of each image of a folder of predictions, quality.csv: the worst first, which is to be looked at first."""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

import numpy as np

from segwright.core.atomic_files import replace_file
from segwright.decoding.expected_dice import Quality

QUALITY_FILE = "quality.csv"
COLUMNS = ("case", "class", "expected_dice", "low", "high")
MEAN = "mean"  # of all classes, which comes first of an image

log = logging.getLogger(__name__)


def write_quality(folder: Path, qualities: Mapping[str, Quality], names: Sequence[str]) -> Path:
    """Write what is expected of images, by their keys, into a folder; `names` are those of the classes.

    Images come by the expected mean over classes, the lowest first; one without is before all others. What is not known stays
    empty.

    Raises:
        OutputError: the folder is not writable.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    worst_first = sorted(qualities, key=lambda key: float(np.nan_to_num(qualities[key].expected[-1])))
    for key in worst_first:
        rows = [*zip((*names, MEAN), *(each.tolist() for each in qualities[key]), strict=True)]
        for name, *values in (rows[-1], *rows[:-1]):
            table.writerow([key, name, *("" if isnan(value) else f"{value:.4f}" for value in values)])
    path = folder / QUALITY_FILE
    replace_file(path, text.getvalue().encode())
    if all(np.isnan(each.low).all() for each in qualities.values()):
        log.warning(
            "%s has no intervals: the run held out too few samples for them, or is of an earlier version, or not one of "
            "Segwright; its scores.json says how many are needed",
            path,
        )
    return path

"""Numbers of masks that were stored as floats."""

from pathlib import Path

import numpy as np
import pytest

from segwright.codecs.whole_numbers import whole_numbers
from segwright.core.errors import FormatError

MASK = Path("masks/a.nii.gz")


def test_integers_stay_and_whole_floats_become_integers():
    numbers = np.array([0, 2, 200], np.uint8)
    assert whole_numbers(numbers, MASK) is numbers
    for dtype in (np.float16, np.float32, np.float64):
        found = whole_numbers(np.array([0, 1, 4], dtype), MASK)
        assert found.tolist() == [0, 1, 4] and found.dtype == np.int32
    assert whole_numbers(np.array([5e9]), MASK).tolist() == [5_000_000_000]


@pytest.mark.parametrize("highest", [1, 4, 104, 200])
@pytest.mark.parametrize("levels", [2**8 - 1, 2**16 - 1])
def test_law_labels_that_a_slope_rounded_come_back(highest, levels):
    labels = np.arange(highest + 1)
    slope = highest / levels
    stored = np.rint(labels / slope)
    for dtype in (np.float32, np.float64):
        assert whole_numbers((stored * slope).astype(dtype), MASK, slope=slope).tolist() == labels.tolist()


def test_what_float_arithmetic_leaves_is_rounded_and_missing_is_minus_one():
    assert whole_numbers(np.array([0.99999, 2.0004, -1e-9, np.nan], np.float32), MASK).tolist() == [1, 2, 0, -1]


@pytest.mark.parametrize(
    ("values", "slope", "shown"),
    [
        ([0, 0.25, 1], 0.0, "fractions such as 0.25"),
        ([0, 0.5, 1], 0.5, "fractions such as 0.5"),
        ([0, 0.4, 0.8], 0.4, "fractions such as 0.4"),  # 0.8 is half a step from 1
        ([0, 3.7, 7.4], 3.7, "fractions such as 3.7"),  # a slope that rounds nothing
        (np.arange(256) / 255, 1 / 255, "fractions such as 0.003922"),
        ([0, np.inf], 0.0, "fractions such as inf"),
        ([0, 1e20], 0.0, r"fractions such as 1e\+20"),
    ],
)
def test_fractions_are_told(values, slope, shown):
    with pytest.raises(FormatError, match=f"{shown} .*threshold them or take the argmax first"):
        whole_numbers(np.array(values, np.float64), MASK, slope=slope)


def test_complex_masks_are_told():
    with pytest.raises(FormatError, match="holds complex64, .* save it with integers"):
        whole_numbers(np.zeros(2, np.complex64), MASK)

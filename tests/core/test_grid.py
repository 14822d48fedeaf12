"""Where the pixels are."""

import numpy as np
import pytest

from segwright.core import Grid
from segwright.core.errors import ShapeError


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_spacing_and_affine_go_with_the_axes(shape):
    grid = Grid(shape, spacing_mm=(0.5,) * len(shape), affine=np.eye(len(shape) + 1))
    assert grid.shape == shape
    assert len(grid.spacing_mm) == len(grid.affine) - 1 == len(shape)


def test_spacing_and_affine_may_be_unknown():
    assert Grid((2, 3)).spacing_mm is None
    assert Grid((2, 3)).affine is None


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3, 4)])
def test_only_two_or_three_axes(shape):
    with pytest.raises(ShapeError, match=f"2 or 3 spatial axes, not {len(shape)}.*an image is"):
        Grid(shape)


def test_spacing_of_another_number_of_axes():
    with pytest.raises(ShapeError, match="3 values for 2 axes; give one per axis"):
        Grid((2, 3), spacing_mm=(1.0, 1.0, 1.0))
    Grid((2, 3), spacing_mm=(1.0, 1.0))


def test_affine_of_another_number_of_axes():
    with pytest.raises(ShapeError, match=r"affine is \(4, 4\), a grid of 2 axes needs \(3, 3\)"):
        Grid((2, 3), affine=np.eye(4))
    Grid((2, 3), affine=np.eye(3))

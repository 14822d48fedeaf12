"""One image with what is known about it."""

import numpy as np
import pytest

from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import ShapeError


def test_an_image_alone():
    sample = Sample.of("a", np.zeros((3, 4, 5), np.uint8))
    assert sample.grid.shape == (4, 5)
    assert sample.grid.spacing_mm is None
    assert sample.truth is None


def test_a_volume_with_its_truth():
    truth = Segmentation.semantic(np.zeros((2, 4, 5), np.int32))
    sample = Sample("a", np.zeros((1, 2, 4, 5), np.int16), Grid((2, 4, 5), spacing_mm=(5.0, 1.0, 1.0)), truth)
    assert sample.truth is truth


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)])
@pytest.mark.parametrize("has_truth", [False, True])
def test_a_notebook_shows_the_picture_and_its_legend(shape, has_truth):
    truth = Segmentation.semantic(np.ones(shape, np.int32), Classes.of(["unseen", "a<b"])) if has_truth else None
    html = Sample.of("a", np.zeros((1, *shape), np.float32), truth)._repr_html_()
    assert "data:image/png;base64," in html
    assert ("a&lt;b" in html) == has_truth
    assert "unseen" not in html


def test_a_grid_of_another_shape():
    with pytest.raises(ShapeError, match=r"sample 'a': the image is \(4, 5\) and its grid \(5, 4\); make them equal"):
        Sample("a", np.zeros((3, 4, 5)), Grid((5, 4)))


def test_a_truth_of_another_shape():
    with pytest.raises(ShapeError, match=r"sample 'a': the image is \(4, 5\) and its truth \(2, 2\); check that both belong"):
        Sample.of("a", np.zeros((3, 4, 5)), Segmentation.semantic(np.zeros((2, 2), np.int32)))


def test_an_image_without_its_channel_axis():
    with pytest.raises(ShapeError, match=r"an image is \(C, H, W\) or \(C, D, H, W\)"):
        Sample.of("a", np.zeros((4, 5)))
    Sample.of("a", np.zeros((4, 5))[None])

"""Resampling by splines. Axes: C, *S, *T."""

from pathlib import Path

import numpy as np
import pytest

from segwright.transforms.resize import scaled
from segwright.transforms.spline_resample import nearest_slices, spline_resample, thick_axis


def test_the_axis_of_thick_slices_by_hand():
    assert thick_axis((5, 1, 1), (1, 1, 1)) == 0
    assert thick_axis((1, 1, 1), (1, 1, 3.5)) == 2
    assert thick_axis((3, 1, 1), (1, 1, 1)) is None  # not more than three times
    assert thick_axis((4, 4, 1), (9, 1, 1)) is None  # two axes are apart, which no slices explain
    assert thick_axis((1, 5, 1), (5, 1, 1)) == 1  # the first counts


def test_nearest_slices_by_hand():
    assert nearest_slices(2, 4).tolist() == [0, 0, 1, 1]
    assert nearest_slices(4, 2).tolist() == [1, 3]  # centres lie between two slices: the later one
    assert nearest_slices(3, 3).tolist() == [0, 1, 2]


def test_thick_slices_stay_apart():
    image = np.zeros((1, 3, 4, 4), np.float32)
    image[0, 1] = np.arange(16).reshape(4, 4)
    found = spline_resample(image, (6, 4, 4), 0)
    assert np.array_equal(found[0, 2], image[0, 1]) and np.array_equal(found[0, 3], image[0, 1])
    assert not found[0, [0, 1, 4, 5]].any()
    joined = spline_resample(image, (6, 4, 4), None)
    assert joined[0, 1].any()


@pytest.mark.parametrize("thick", [None, 0, 1, 2])
def test_a_constant_stays_and_values_stay_in_their_range(thick):
    generator = np.random.default_rng(0)
    assert spline_resample(np.full((2, 4, 5, 6), 7, np.int16), (6, 4, 9), thick) == pytest.approx(7)
    image = generator.random((1, 4, 5, 6)).astype(np.float32)
    found = spline_resample(image, (9, 7, 8), thick)
    assert found.dtype == np.float32 and found.min() >= image.min() and found.max() <= image.max()
    assert spline_resample(image, (4, 5, 6), thick) is image


@pytest.mark.parametrize(
    ("name", "thick"), [("finer", 0), ("coarser", 0), ("last axis", 2), ("becomes thick", 0)], ids=lambda each: str(each)
)
def test_thick_slices_are_resampled_as_by_nnunet(name, thick):
    """Its own results, by its default for images (tests/golden/make_nnunet_real.py)."""
    with np.load(Path(__file__).parents[1] / "golden" / "nnunet_thick.npz") as golden:
        volume, wanted, (has, wants) = (golden[f"{name}/{part}"] for part in ("in", "out", "spacings"))
    assert thick_axis(has, wants) == thick
    shape = scaled(volume.shape[1:], tuple(has / wants))
    assert shape == wanted.shape[1:]
    np.testing.assert_allclose(spline_resample(volume, shape, thick), wanted, atol=1e-6)


@pytest.mark.parametrize(("axes", "shape"), [(2, (7, 11)), (3, (9, 4, 8))])
def test_equals_the_resizing_that_nnunet_calls(axes, shape):
    transform = pytest.importorskip("skimage.transform", reason="the live comparison needs scikit-image")
    image = np.random.default_rng(1).normal(size=(6, 5, 7)[:axes])
    wanted = transform.resize(image, shape, 3, mode="edge", anti_aliasing=False)
    assert spline_resample(image[None], shape, None)[0] == pytest.approx(wanted, abs=1e-6)

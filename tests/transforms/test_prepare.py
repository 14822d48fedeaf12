"""From a sample to what the network sees, and back. Axes: C, H, W."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from segwright.core import Grid, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess, View

AS_IT_IS = Normalise(mean=(0.0,), std=(1.0,))


def sample_of(shape: tuple[int, ...], spacing_mm=None) -> Sample:
    image = np.random.default_rng(0).integers(0, 255, (1, *shape), np.uint8)
    return Sample("a", image, Grid(shape, spacing_mm), Segmentation.semantic(image[0].astype(int) % 3))


# By hand


def test_channels_scale_and_fixed_normalisation():
    sample = Sample.of("a", np.full((1, 4, 6), 30, np.uint8))
    view = Preprocess(channels=3, scale=(0.5, 1.0), normalise=Normalise(mean=(10.0,) * 3, std=(4.0,) * 3))(sample)
    np.testing.assert_array_equal(view.image, np.full((3, 2, 6), 5.0, np.float32))
    assert view.covered == (2, 6) and view.source == sample.grid and view.ratio == (2.0, 1.0)


def test_statistics_of_each_image_are_those_of_the_whole():
    preprocess = Preprocess(channels=1)
    seen = preprocess.resampled(sample_of((20, 30)))
    assert abs(seen.image.mean()) < 1e-5 and preprocess.values(seen.image[:, :3]) is not None
    np.testing.assert_array_equal(preprocess.values(seen.image[:, :3]), seen.image[:, :3])


def test_fixed_statistics_leave_the_values_of_the_file_until_a_part_is_taken():
    preprocess = Preprocess(channels=1, normalise=Normalise(mean=(10.0,), std=(2.0,)))
    sample = sample_of((20, 30))
    seen = preprocess.resampled(sample)
    assert seen.image is sample.image and seen.truth is sample.truth
    np.testing.assert_allclose(preprocess.values(seen.image[:, :3]), (sample.image[:, :3].astype(float) - 10) / 2)


def test_pixels_of_one_size_in_the_world():
    preprocess = Preprocess(channels=1, spacing_mm=(1.0, 2.0), normalise=AS_IT_IS)
    seen = preprocess.resampled(sample_of((20, 30), (2.0, 1.0)))
    assert seen.image.shape == (1, 40, 15) and seen.truth.shape == (40, 15) and seen.grid.spacing_mm == (1.0, 2.0)


def test_padding_is_at_the_end_and_moves_nothing():
    view = Preprocess(channels=1, normalise=AS_IT_IS)(sample_of((5, 7)))
    padded = view.padded((8, 8))
    assert padded.image.shape == (1, 8, 8) and padded.covered == (5, 7) and padded.ratio == view.ratio
    np.testing.assert_array_equal(padded.image[:, :5, :7], view.image)


@pytest.mark.parametrize("scale", [None, (0.5, 0.5), (0.3, 2.0)])
@pytest.mark.parametrize("normalise", [Normalise(), Normalise(mean=(300.0,) * 2, std=(2.0,) * 2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_missing_values_are_the_mean_to_the_network_and_change_no_other(normalise, scale, kind):
    image = np.random.default_rng(4).normal(300, 2, (2, 40, 60)).astype(kind)
    whole = Sample.of("a", image.copy(), Segmentation.semantic(np.zeros((40, 60), int)))
    image[:, :, :17] = np.nan
    image[1, 20:, 40:] = np.inf
    holey = Sample.of("a", image, whole.truth)
    preprocess = Preprocess(channels=2, scale=scale, normalise=normalise)
    view, seen = preprocess(holey).image, preprocess.resampled(holey)
    missing = np.isnan(seen.image)
    shape = view.shape[1:]
    columns = np.floor((np.arange(shape[1]) + 0.5) * 60 / shape[1])  # of the image, below the centres of the view
    np.testing.assert_array_equal(missing[0], np.broadcast_to(columns < 17, shape))
    np.testing.assert_array_equal(view[missing], 0)
    np.testing.assert_array_equal(view, preprocess.values(seen.image))
    assert np.isfinite(view).all() and np.abs(view).max() < 6 and view[~missing].std() > 0.2
    if normalise.mean is not None:  # where no missing value is near, nothing is as if it were there
        far = ~binary_dilation(missing, np.ones((1, 9, 9)))
        np.testing.assert_allclose(view[far], preprocess(whole).image[far], atol=1e-4)


def test_an_image_without_any_value_is_all_mean():
    for normalise in (Normalise(), Normalise(mean=(300.0,), std=(2.0,))):
        view = Preprocess(channels=1, scale=(0.5, 0.5), normalise=normalise)(Sample.of("a", np.full((1, 8, 8), np.nan)))
        np.testing.assert_array_equal(view.image, np.zeros((1, 4, 4)))


# By a law


@given(st.integers(5, 60), st.integers(5, 60), st.floats(0.3, 3), st.floats(0.3, 3))
def test_the_corners_of_the_view_are_the_corners_of_the_image(height, width, down, across):
    view = Preprocess(channels=1, scale=(down, across), normalise=AS_IT_IS)(sample_of((height, width)))
    seen_height, seen_width = view.image.shape[1:]
    corners = view.points_to_source(np.array([[0, 0], [seen_width, seen_height], [seen_width / 2, 0]]))
    np.testing.assert_allclose(corners, [[0, 0], [width, height], [width / 2, 0]])


def test_a_mark_comes_back_to_where_it_was():
    """Of a bright block, the middle of what is seen maps to the middle of what there was."""
    image = np.zeros((1, 40, 60), np.uint8)
    image[0, 10:20, 30:50] = 200
    view = Preprocess(channels=1, scale=(0.5, 2.0), normalise=AS_IT_IS)(Sample.of("a", image))
    rows, columns = np.nonzero(view.image[0] > 100)
    middle_xy = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    np.testing.assert_allclose(view.points_to_source(middle_xy), [40, 15], atol=0.5)


def test_in_three_axes_points_are_x_y_z():
    view = View(np.zeros((1, 2, 4, 8), np.float32), (2, 4, 8), Grid((4, 4, 4)))
    np.testing.assert_allclose(view.points_to_source(np.array([8, 4, 2])), [4, 4, 4])


# By its messages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels is 0; give 1 for grey"),
        ({"scale": (0.0, 1.0)}, r"scale is \[0.0, 1.0\]; give a factor per axis above 0 and up to 16"),
        ({"scale": (17.0, 1.0)}, "up to 16"),
        ({"spacing_mm": (0.0, 1.0)}, "give millimetres above 0"),
        ({"scale": (1.0, 1.0), "spacing_mm": (1.0, 1.0)}, "leave one of them out"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        Preprocess(**settings)


def test_images_that_cannot_follow_are_refused_and_the_remedy_works():
    preprocess = Preprocess(channels=1, spacing_mm=(1.0, 1.0), normalise=AS_IT_IS)
    with pytest.raises(SettingError, match="'a' does not know the size of its pixels.* or scale instead of spacing_mm"):
        preprocess(sample_of((4, 4)))
    replace(preprocess, spacing_mm=None, scale=(0.5, 0.5))(sample_of((4, 4)))
    with pytest.raises(SettingError, match=r"spacing_mm is \[1.0, 1.0\] and sample 'a' has 3 axes"):
        preprocess(sample_of((4, 4, 4), (1.0, 1.0, 1.0)))
    with pytest.raises(ShapeError, match="the image has 5 channels, 1 are needed"):
        Preprocess(channels=1, normalise=AS_IT_IS)(Sample.of("a", np.zeros((5, 4, 4), np.uint8)))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(channels=3, normalise=Normalise(mean=(90.0,) * 3, std=(40.0,) * 3)),
        Preprocess(channels=3, scale=(0.4, 1.7)),
        Preprocess(channels=1, normalise=AS_IT_IS, scale=(2.0, 0.5)),
        Preprocess(channels=1, spacing_mm=(3.0, 1.0)),
    ],
)
def test_parts_of_a_view_are_cut_out_of_it(preprocess, dtype):
    """All of it is never made; missing values and padding are those of the whole."""
    image = np.random.default_rng(0).integers(0, 255, (1, 33, 21)).astype(dtype)
    if dtype == "float32":
        image[0, 4:9, 3:6] = np.nan
    sample = Sample("a", image, Grid(image.shape[1:], (1.0, 1.0)))
    whole = preprocess(sample)
    parts = preprocess.in_parts(image, sample.grid, "a")
    assert parts.covered == whole.covered and parts.source == whole.source and parts.ratio == whole.ratio
    padded = tuple(side + 9 for side in whole.covered)
    whole, parts = whole.padded(padded), parts.padded(padded)
    assert parts.image.shape == whole.image.shape
    height, width = padded
    for rows, columns in (
        (slice(0, height), slice(0, width)),
        (slice(3, 8), slice(2, 5)),
        (slice(height - 12, height), slice(1, 2)),
    ):
        found = parts.image[:, rows, columns]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, whole.image[:, rows, columns], atol=2e-5)


def test_statistics_of_an_image_in_parts_are_taken_in_bands(monkeypatch):
    monkeypatch.setattr("segwright.transforms.prepare.MEASURED_AT_ONCE", 50)
    sample, read = sample_of((20, 30)), []

    class Pixels:
        shape = sample.image.shape

        def __getitem__(self, part):
            read.append(part[1])
            return sample.image[part]

    parts = Preprocess(channels=1).in_parts(Pixels(), sample.grid, "a").padded((20, 30)).image
    np.testing.assert_allclose(parts[:, 2:5, 3:9], Preprocess(channels=1)(sample).image[:, 2:5, 3:9], atol=1e-6)
    parts[:, 0:5, 0:5]
    assert len(read) == 22 and all(rows.stop - rows.start == 1 for rows in read[:20])  # measured once


@pytest.mark.parametrize("fixed", [True, False])
def test_channels_of_classes_are_0_or_1_whatever_is_done_with_the_others(fixed):
    image = np.random.default_rng(0).integers(50, 90, (1, 8, 8)).astype(np.uint8)
    there = np.zeros((2, 8, 8), np.uint8)
    there[0, :4], there[1, :, 5:] = 1, 1  # 5: three of the eight columns, of which the middle one of four is half
    normalise = Normalise(mean=(70.0,), std=(4.0,)) if fixed else Normalise()
    alone, both = (Preprocess(channels=1, scale=(0.5, 0.5), normalise=normalise, class_channels=k) for k in (0, 2))
    view = both(Sample.of("a", np.concatenate([image, there])))
    assert both.all_channels == 3 and view.image.dtype == np.float32
    np.testing.assert_array_equal(view.image[:1], alone(Sample.of("a", image)).image)
    np.testing.assert_array_equal(view.image[1], np.repeat([1, 1, 0, 0], 4).reshape(4, 4))
    np.testing.assert_array_equal(view.image[2][:, [0, 1, 3]], np.tile([0, 0, 1], (4, 1)))
    crop = np.array([[[70.0]], [[0.4]], [[0.6]]])  # as interpolation leaves it
    assert both.values(crop)[1:].ravel().tolist() == [0, 1]
    with pytest.raises(SettingError, match="class_channels is -1; give 0, or the number of classes"):
        Preprocess(class_channels=-1)

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from segwright.core import VOID, Grid, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.transforms.geometric import STEP, CropPlacement, Geometric, anywhere, place, rotation, source_nodes, spline_noise

STILL = {"scale": (1.0, 1.0), "flip_axes": ()}


def sample_of(image, class_map=None, spacing_mm=None):
    truth = None if class_map is None else Segmentation.semantic(class_map)
    return Sample("a", image, Grid(image.shape[1:], spacing_mm), truth)


def draws(seed=0):
    return np.random.default_rng(seed)


# By hand


def test_a_crop_of_the_whole_is_the_whole():
    class_map = np.array([[0, 1, 2], [-1, 0, 1], [2, 2, 0]])
    result = Geometric(**STILL)(sample_of(class_map[None].astype(np.int16), class_map), (3, 3), draws())
    assert result.image.dtype == np.float32
    np.testing.assert_array_equal(result.image[0], class_map)
    np.testing.assert_array_equal(result.truth.class_map(), class_map)


def test_flips_happen_half_of_the_time_along_each_axis():
    image = np.array([[[1, 2], [3, 4]]], np.uint8)
    geometric = Geometric(scale=(1.0, 1.0), flip_axes=(-1, -2))
    seen = [geometric(sample_of(image), (2, 2), draws(seed)).image[0].tolist() for seed in range(200)]
    for expected in ([[1, 2], [3, 4]], [[2, 1], [4, 3]], [[3, 4], [1, 2]], [[4, 3], [2, 1]]):
        assert 30 <= seen.count(expected) <= 70  # 50 expected; 3.3 standard deviations to both sides


def test_outside_is_mirrored_in_the_image_and_void_in_the_truth():
    image = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    result = Geometric(**STILL)(sample_of(image, image[0].astype(int)), (7, 8), draws(3))
    known = result.truth.class_map() != VOID
    (top, left), (bottom, right) = np.argwhere(known).min(axis=0), np.argwhere(known).max(axis=0)
    assert (bottom - top, right - left) == (2, 3)  # the whole image, once, at a whole pixel
    np.testing.assert_array_equal(result.image[0], np.pad(image[0], ((top, 4 - top), (left, 4 - left)), mode="reflect"))
    np.testing.assert_array_equal(result.truth.class_map()[known], image.ravel())


def test_one_pixel_and_nothing_but_void():
    result = Geometric(rotate_deg=30, elastic_px=1)(
        sample_of(np.full((2, 1, 1), 7, np.uint8), np.full((1, 1), VOID)), (5, 9), draws()
    )
    np.testing.assert_array_equal(result.image, np.full((2, 5, 9), 7.0, np.float32))
    assert (result.truth.planes == VOID).all()


def test_twice_the_magnification_repeats_labels_and_halves_the_spacing():
    class_map = np.array([[0, 1], [2, 3]])
    result = Geometric(scale=(2.0, 2.0), flip_axes=())(sample_of(class_map[None], class_map, (0.5, 2.0)), (4, 4), draws())
    np.testing.assert_array_equal(result.truth.class_map(), class_map.repeat(2, 0).repeat(2, 1))
    np.testing.assert_allclose(result.image[0, 1], [0.75, 0.75, 1.25, 1.25])  # centres lie at -0.25, 0.25, 0.75, 1.25
    assert result.grid.spacing_mm == (0.25, 1.0)


def test_a_sample_without_truth_keeps_none():
    assert Geometric()(sample_of(np.zeros((1, 4, 4), np.uint8)), (4, 4), draws()).truth is None


# By a slow twin


@pytest.mark.parametrize("shape", [(13, 21), (9, 10, 17)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool])
def test_the_kernel_equals_interpolation_at_explicit_coordinates(shape, dtype):
    generator = draws(1)
    source = tuple(side + 4 for side in shape)
    image = generator.integers(0, 200, (2, *source)).astype(dtype)
    class_map = generator.integers(-1, 5, source)
    matrix, elastic_px = rotation(len(shape), 25, None, generator) / 0.8, np.full(len(shape), 2.0)
    nodes = source_nodes(shape, matrix, np.array(source) / 2, elastic_px, generator)
    result = CropPlacement(shape, nodes, source).crop(sample_of(image, class_map))
    at = np.stack(np.meshgrid(*(np.arange(side) / STEP for side in shape), indexing="ij"))
    coordinates = [map_coordinates(axis, at, order=1) for axis in nodes]
    for channel, expected in zip(result.image, image.astype(np.float64), strict=True):
        np.testing.assert_allclose(channel, map_coordinates(expected, coordinates, order=1, mode="mirror"), atol=1e-3)
    inside = [np.floor(axis + 0.5).astype(int) for axis in coordinates]
    known = np.all([(axis >= 0) & (axis < side) for axis, side in zip(inside, source, strict=True)], axis=0)
    expected = np.where(known, class_map[tuple(np.where(known, axis, 0) for axis in inside)], VOID)
    np.testing.assert_array_equal(result.truth.class_map(), expected)


@pytest.mark.parametrize("shape", [(13, 21), (9, 10, 17)])
def test_missing_values_are_not_mixed_with_their_neighbours(shape):
    generator = draws(1)
    source = tuple(side + 4 for side in shape)
    image = generator.normal(100, 20, (2, *source)).astype(np.float32)
    image[generator.random(image.shape) < 0.2] = np.nan
    known = np.isfinite(image)
    matrix, elastic_px = rotation(len(shape), 25, None, generator) / 0.8, np.full(len(shape), 2.0)
    nodes = source_nodes(shape, matrix, np.array(source) / 2, elastic_px, generator)
    result, zeros, weights, nearest = (
        CropPlacement(shape, nodes, source).crop(sample_of(values.astype(np.float32), index.astype(int)))
        for values, index in ((image, known[0]), (np.nan_to_num(image), known[1]), (known, known[0]), (image, known[1]))
    )
    for channel, truth in ((0, result.truth), (1, nearest.truth)):
        inside = truth.class_map() != VOID
        np.testing.assert_array_equal(np.isfinite(result.image[channel])[inside], truth.class_map()[inside] == 1)
    there = np.isfinite(result.image)
    np.testing.assert_allclose(result.image[there], (zeros.image / weights.image.clip(1e-9))[there], rtol=1e-4)


def test_any_memory_layout_gives_the_same():
    image = draws().integers(0, 255, (20, 30, 3), dtype=np.uint8).transpose(2, 0, 1)
    geometric = Geometric(rotate_deg=20, elastic_px=1)
    one, other = (geometric(sample_of(i), (16, 16), draws(5)).image for i in (image, np.ascontiguousarray(image)))
    np.testing.assert_array_equal(one, other)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([2, 3]), st.booleans(), st.booleans())
def test_a_crop_from_a_part_is_that_of_the_whole_to_the_bit(seed, axes, is_at_border, lacks_values):
    generator = draws(seed)
    source = tuple(int(side) for side in generator.integers(1, 40, axes))
    image = generator.normal(100, 20, (2, *source)).astype(np.float32)
    if lacks_values:
        image[generator.random(image.shape) < 0.2] = np.nan
    sample = sample_of(image, generator.integers(-1, 4, source), (1.0,) * axes)
    geometric = Geometric(scale=(0.6, 1.8), rotate_deg=40.0, flip_axes=(-1, -2), elastic_px=0.5)
    corner = np.zeros(axes) if is_at_border else np.array(source) - 1
    placement = geometric.placement("a", sample.grid, (12, 10, 13)[:axes], generator, lambda _: corner)
    window = placement.window()
    assert all(0 <= here.start < here.stop <= side for here, side in zip(window, source, strict=True))
    everywhere = (slice(None), *window)
    part = sample_of(np.ascontiguousarray(image[everywhere]))
    part = replace(part, truth=replace(sample.truth, planes=np.ascontiguousarray(sample.truth.planes[everywhere])))
    whole, again = placement.crop(sample), placement.crop(part, tuple(here.start for here in window))
    assert whole.image.tobytes() == again.image.tobytes()
    np.testing.assert_array_equal(whole.truth.planes, again.truth.planes)


def test_no_more_of_a_sample_is_needed_than_a_crop_covers():
    placement = Geometric(**STILL).placement("a", Grid((500, 400)), (32, 16), draws(), lambda _: np.array([250, 200]))
    assert [here.stop - here.start for here in placement.window()] == [36, 20]  # neighbours, and one for rounding


# By a law


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    axes=st.sampled_from([2, 3]),
    rotate_deg=st.sampled_from([0.0, 20.0, 180.0]),
    elastic_px=st.sampled_from([0.0, 0.5]),
    centred=st.booleans(),
)
def test_image_and_truth_stay_together(seed, axes, rotate_deg, elastic_px, centred):
    """The image holds each pixel's own index, and so does the truth: they differ by half a pixel at most."""
    side = (11, 14, 9)[:axes]
    class_map = np.arange(np.prod(side)).reshape(side)
    image = np.stack(np.meshgrid(*map(np.arange, side), indexing="ij")).astype(np.float32)
    geometric = Geometric(scale=(0.7, 1.5), rotate_deg=rotate_deg, flip_axes=(-1, -2), elastic_px=elastic_px)
    centre = (lambda generator: generator.integers(0, side)) if centred else anywhere
    result = geometric(sample_of(image, class_map), (12, 10, 13)[:axes], draws(seed), centre)
    known = result.truth.class_map() != VOID
    index = np.stack(np.unravel_index(result.truth.class_map()[known], side))
    assert np.abs(result.image[:, known] - index).max(initial=0) <= 0.5 + 1e-4


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), axes=st.sampled_from([2, 3]))
def test_where_a_value_is_missing_the_truth_is_void_and_nowhere_else(seed, axes):
    side = (11, 14, 9)[:axes]
    image = draws(seed).normal(size=(1, *side)).astype(np.float32)
    image[draws(seed).random(image.shape) < 0.3] = np.nan
    truth = np.where(np.isnan(image[0]), VOID, 0)
    result = Geometric(rotate_deg=20.0, elastic_px=0.5)(sample_of(image, truth), (12, 10, 13)[:axes], draws(seed))
    assert (result.truth.class_map()[np.isnan(result.image[0])] == VOID).all()
    assert np.isfinite(result.image[0][result.truth.class_map() == 0]).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), axes=st.sampled_from([2, 3]), dtype=st.sampled_from([np.uint8, np.uint16, np.float32]))
def test_flips_and_crops_are_slices_to_the_bit(seed, axes, dtype):
    side, shape = (12, 15, 10)[:axes], (7, 15, 6)[:axes]
    class_map = np.arange(np.prod(side)).reshape(side)
    image = draws(seed).normal(100, 30, (2, *side)).astype(dtype)
    result = Geometric(scale=(1.0, 1.0), flip_axes=(-1, -2))(sample_of(image, class_map), shape, draws(seed))
    index = np.stack(np.unravel_index(result.truth.class_map(), side))  # where each pixel came from
    for axis in range(axes):
        step = np.diff(index[axis], axis=axis)
        assert (step == 1).all() or (step == -1).all()
    np.testing.assert_array_equal(result.image, image[(slice(None), *index)].astype(np.float32))


def test_the_same_seed_repeats_to_the_bit_and_the_input_is_left_alone():
    image, class_map = draws().integers(0, 255, (3, 40, 30), dtype=np.uint8), draws().integers(0, 3, (40, 30))
    sample, before = sample_of(image, class_map), image.copy()
    geometric = Geometric(rotate_deg=30, elastic_px=2)
    first, again, other = (geometric(sample, (24, 24), draws(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.truth.planes, again.truth.planes)
    assert (first.image != other.image).any()
    np.testing.assert_array_equal(sample.image, before)


@pytest.mark.parametrize(("pixel", "seen"), [((50, 60), (4, 4)), ((0, 99), (0, 8)), ((99, 3), (8, 3))])
def test_a_crop_is_centred_as_far_as_the_image_allows(pixel, seen):
    class_map = np.zeros((100, 100), int)
    class_map[pixel] = 1
    sample = sample_of(np.zeros((1, 100, 100), np.uint8), class_map)
    crop = Geometric(**STILL)(sample, (9, 9), draws(), lambda generator: np.array(pixel))
    assert tuple(np.argwhere(crop.truth.class_map() == 1)[0]) == seen


def test_crops_lie_uniformly_inside():
    starts = [tuple(place((10, 8), np.array([8.0, 8.0]), None, draws(seed)) - 4) for seed in range(300)]
    assert set(starts) == {(0.0, 0.0), (1.0, 0.0), (2.0, 0.0)}
    assert min(starts.count(start) for start in set(starts)) > 70


def test_rotation_is_rigid_in_millimetres():
    spacing = np.array([1.4, 1.0, 0.5])
    matrix = rotation(3, 40, tuple(spacing), draws())
    rigid = np.diag(spacing) @ matrix @ np.diag(1 / spacing)
    np.testing.assert_allclose(rigid @ rigid.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rigid) == pytest.approx(1)


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_thick_slices_stay_slices(thick):
    """Each slice holds its own number, and none of the crop mixes two; in their plane pixels move."""
    spacing_mm = tuple(3.5 if axis == thick else 1.0 for axis in range(3))
    image = np.stack(np.meshgrid(*map(np.arange, (12, 14, 13)), indexing="ij")).astype(np.float32)
    geometric = Geometric(scale=(1.3, 1.3), rotate_deg=40.0, flip_axes=(), elastic_px=0.3)
    crop = geometric(sample_of(image, spacing_mm=spacing_mm), (8, 8, 8), draws())
    slices = np.moveaxis(crop.image[thick], thick, 0)
    np.testing.assert_allclose(slices - slices[0, 0, 0], np.arange(8)[:, None, None] + np.zeros((8, 8, 8)), atol=1e-4)
    for other in {0, 1, 2} - {thick}:
        assert (crop.image[other] % 1 > 1e-3).any()
    spacings = [3.5 if axis == thick else 1 / 1.3 for axis in range(3)]
    assert crop.grid.spacing_mm == pytest.approx(spacings)


def test_slices_up_to_three_times_as_thick_are_turned_like_all_axes():
    image = np.stack(np.meshgrid(*map(np.arange, (12, 14, 13)), indexing="ij")).astype(np.float32)
    crop = Geometric(**(STILL | {"rotate_deg": 40.0}))(sample_of(image, spacing_mm=(3.0, 1.0, 1.0)), (8, 8, 8), draws())
    assert (crop.image[0] % 1 > 1e-3).any()


def test_elastic_noise_has_unit_deviation_and_no_jumps():
    field = np.stack([spline_noise([np.arange(0, 5, 0.02)] * 2, draws(seed)) for seed in range(60)])
    assert field.std() == pytest.approx(1, abs=0.05)
    assert np.abs(np.diff(field, axis=-1)).max() < 0.15


# By its messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": (2.0, 1.0)}, r"such as \(0.5, 2.0\)"),
        ({"scale": (0.0, 1.0)}, "smallest and a largest"),
        ({"rotate_deg": -1.0}, "0 or more"),
        ({"elastic_px": -1.0}, "0 or more"),
        ({"flip_axes": (0,)}, "count axes from the end"),
    ],
)
def test_wrong_settings_name_the_remedy(setting, message):
    with pytest.raises(SettingError, match=message):
        Geometric(**setting)


def test_shapes_that_do_not_fit_name_the_remedy():
    sample = sample_of(np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ShapeError, match="one side per axis"):
        Geometric()(sample, (4, 4, 4), draws())
    with pytest.raises(ShapeError, match="leave out the rest"):
        Geometric(flip_axes=(-3,))(sample, (4, 4), draws())


# The probabilities


def test_each_change_of_place_has_a_probability_of_its_own():
    image = draws().normal(size=(1, 16, 16)).astype(np.float32)
    kinds = {"scale": {"scale": (1.5, 1.5)}, "rotate": {"rotate_deg": 45.0}, "elastic": {"elastic_px": 0.4}}
    for name, setting in kinds.items():
        geometric = Geometric(**{**STILL, **setting, f"{name}_probability": 0.2})
        seen = [geometric(sample_of(image), (16, 16), draws(seed)).image for seed in range(300)]
        assert 36 < sum(not np.array_equal(each, image) for each in seen) < 86  # 60 expected
    certain, never = (Geometric(scale=(0.5, 2.0), scale_probability=share) for share in (1.0, 0.0))
    assert certain == Geometric() and never(sample_of(image, spacing_mm=(1.0, 2.0)), (8, 8), draws()).grid.spacing_mm == (1, 2)


@pytest.mark.parametrize("name", ["scale_probability", "rotate_probability", "elastic_probability"])
def test_what_is_no_probability_is_refused(name):
    with pytest.raises(SettingError, match=f"{name} is -0.5; give a number from 0"):
        Geometric(**{name: -0.5})


def test_deformations_are_as_steep_as_those_of_the_unet_paper():
    """3 x 3 vectors of 10 pixels over 572, by Keys' cubic with the ends repeated, against 0.8 % of the side here."""
    generator, side = draws(), 572

    def keys_cubic(distance):
        near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        return np.where(distance <= 1, near, np.where(distance < 2, far, 0))

    at = np.linspace(0, 2, side)[::4]
    weights = keys_cubic(np.abs(at[:, None] - np.arange(-1, 4))) @ np.eye(3)[[0, 0, 1, 2, 2]]
    theirs = [np.gradient(weights @ (10 * generator.standard_normal((3, 3))) @ weights.T, 4, axis=1) for _ in range(60)]
    ours = [np.gradient(0.008 * side * spline_noise([5 * at / 2] * 2, generator), 4, axis=2) for _ in range(60)]
    assert np.std(ours) == pytest.approx(np.std(theirs), rel=0.1) and np.std(theirs) == pytest.approx(0.047, abs=0.004)

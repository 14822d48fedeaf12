"""Surface elements: by hand, by a slow twin, by laws, and against DeepMind's surface-distance and MONAI's subvoxels."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics.surface_distance_surfels import (
    SurfaceDistanceSurfels,
    areas_of_codes,
    element_distances,
    elements,
    percentile,
)

UNIT = (1.0, 1.0, 1.0)
ONE = Classes.of(["organ"])
AS_THEY_ARE = pytest.mark.filterwarnings("ignore")  # the peers warn of their own dependencies


def one_class(mask):
    return Segmentation.panoptic(np.asarray(mask).astype(np.int32), [0], classes=ONE)


def masks(seed):
    """Two masks that are not empty, 2D or 3D, and a spacing: noise, blobs, a line, a voxel, a full frame, at the edge."""
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 16, 2 + seed % 2))
    kinds = [
        lambda: generator.random(shape) < generator.uniform(0.05, 0.95),
        lambda: ndimage.gaussian_filter(generator.normal(size=shape), 2) > 0,
        lambda: np.indices(shape)[0] == generator.integers(shape[0]),
        lambda: np.arange(np.prod(shape)).reshape(shape) == generator.integers(np.prod(shape)),
        lambda: np.ones(shape, bool),
        lambda: np.indices(shape)[-1] < generator.integers(1, shape[-1] + 1),
    ]
    made = [kinds[generator.integers(len(kinds))]() for _ in range(2)]
    return *(mask if mask.any() else ~mask for mask in made), tuple(generator.uniform(0.4, 3, len(shape)))


def scores(prediction, truth, spacing_mm=None, tolerance_mm=1.0):
    """HD95, HD, ASSD and NSD of two masks."""
    metric = SurfaceDistanceSurfels(ONE, tolerance_mm)
    by_name = metric.score(metric.count(one_class(prediction), one_class(truth), spacing_mm))
    return np.array([by_name[name] for name in SurfaceDistanceSurfels.SCORES])


def area(mask, spacing_mm=None):
    """Area of the surface of a mask, in 2D the length of its contour."""
    (_, areas), _ = element_distances(np.asarray(mask, bool), np.asarray(mask, bool), spacing_mm)
    return areas.sum()


# By hand


def test_the_contour_of_a_pixel_is_a_rhombus():
    assert area([[1]], (3.0, 4.0)) == pytest.approx(4 * 2.5)  # half the diagonal of 5 at each corner


def test_the_surface_of_a_voxel_is_an_octahedron():
    assert area([[[1]]]) == pytest.approx(3**0.5)


def test_the_contour_of_a_square_has_cut_corners():
    assert area(np.ones((4, 6)), (1.0, 2.0)) == pytest.approx(2 * 3 + 2 * 10 + 2 * 5**0.5)


def test_areas_of_single_elements():
    code = {tuple(cell): 1 << bit for bit, cell in enumerate(product((0, 1), repeat=3))}
    areas = areas_of_codes((2.0, 3.0, 5.0))
    assert areas[0] == areas[255] == 0
    square = [code[0, y, x] for y, x in product((0, 1), repeat=2)]
    assert areas[sum(square)] == pytest.approx(3 * 5)  # a face across z
    edge = code[0, 0, 0] + code[0, 0, 1]
    assert areas[edge] == pytest.approx(5 * 13**0.5 / 2)  # along x, half the diagonal of the face across it
    corners = code[0, 0, 0] + code[1, 1, 1]
    assert areas[corners] == pytest.approx(2 * areas[1])
    half_face, aslant = 15 / 2, 3 / 8 * (15**2 + 10**2 + 6**2) ** 0.5
    assert areas[edge + code[0, 1, 0]] == pytest.approx(half_face + aslant)


def test_of_a_step_aside():
    truth = np.zeros((1, 4), bool)
    truth[0, 1] = True
    prediction = np.roll(truth, 1)
    # corners at x = 1, 2 (truth) and 2, 3 (prediction), two rows each: half of each contour is 1 away, half is 0
    np.testing.assert_allclose(scores(prediction, truth), [1, 1, 0.5, 1])
    np.testing.assert_allclose(scores(prediction, truth, (1.0, 3.0)), [3, 3, 1.5, 0.5])


def test_percentiles_are_of_the_area():
    distances, areas = np.array([2.0, 0.0, 5.0]), np.array([1.0, 8.0, 1.0])
    assert [percentile(distances, areas, percent) for percent in (0, 80, 81, 90, 91, 100)] == [0, 0, 2, 2, 5, 5]


def test_what_is_missing_gets_the_diagonal():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    diagonal = (9**2 + 8**2) ** 0.5
    for prediction, truth in ((empty, full), (full, empty)):
        np.testing.assert_allclose(scores(prediction, truth, (3.0, 2.0)), [diagonal, diagonal, diagonal, 0])
    assert np.isnan(scores(empty, empty)).all()
    (forth, areas), (back, none) = element_distances(full, empty)
    assert np.isinf(forth).all() and len(areas) == 14 and len(back) == len(none) == 0


def test_void_is_taken_out_of_both():
    truth, prediction = np.array([[VOID, 0, 0, 0, VOID, VOID]]), np.array([[0, 0, 0, 0, 0, 0]])
    state = SurfaceDistanceSurfels(ONE).count(Segmentation.semantic(prediction, ONE), Segmentation.semantic(truth, ONE))
    np.testing.assert_array_equal(state.values[:, 0], [0, 0, 0, 1, 1, 37**0.5])


def test_a_volume_of_one_slice_has_two_faces():
    assert area(np.ones((1, 9, 9))) > 2 * 64 and area(np.ones((9, 9))) < 36


# By a slow twin


@pytest.mark.parametrize("seed", range(40))
def test_elements_are_where_some_but_not_all_voxels_meet(seed):
    mask, _, _ = masks(seed)
    padded = np.pad(mask, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2,) * mask.ndim)
    inside = windows.reshape(*windows.shape[: mask.ndim], -1)
    expected = np.argwhere(inside.any(axis=-1) & ~inside.all(axis=-1))
    found = elements(one_class(mask), 1)[0]
    np.testing.assert_array_equal(found[:, 3 - mask.ndim : 3], expected)
    whole = inside if mask.ndim == 3 else np.tile(inside, 2)  # both slices alike
    codes = (whole * (1 << np.arange(8))).sum(axis=-1)
    np.testing.assert_array_equal(found[:, 3], codes[tuple(expected.T)])


@pytest.mark.parametrize("shape", [(17, 21), (7, 9, 12)])
@pytest.mark.parametrize("seed", range(4))
def test_overlapping_segments_are_measured_class_by_class(seed, shape):
    generator = np.random.default_rng(seed)
    classes = Classes.of(["a", "b", "c"])
    pair, class_ids = [], np.array([0, 1, 1, 2, 0])
    for _ in range(2):
        stack = np.stack([ndimage.gaussian_filter(generator.normal(size=shape), 1.5) > 0.05 for _ in class_ids])
        pair.append(Segmentation.instances(stack, class_ids, classes=classes))
    together = SurfaceDistanceSurfels(classes).count(*pair).values
    for k in range(3):
        alone = [one_class(given.masks()[given.class_ids == k].any(axis=0)) for given in pair]
        np.testing.assert_allclose(together[:, k], SurfaceDistanceSurfels(ONE).count(*alone).values[:, 0], rtol=1e-12)


# By laws


def test_a_large_ball_has_about_the_surface_of_a_ball():
    z, y, x = np.indices((41, 81, 81)) - np.array([20, 40, 40]).reshape(3, 1, 1, 1)
    ball = (2 * z) ** 2 + y**2 + x**2 <= 35**2
    assert 1 < area(ball, (2.0, 1.0, 1.0)) / (4 * np.pi * 35**2) < 1.15  # corners of stairs are cut, stairs are not smoothed


def test_areas_have_the_symmetries_of_a_cube():
    areas = areas_of_codes(UNIT).reshape((2,) * 8)  # an axis per voxel, the last bit first
    np.testing.assert_allclose(areas, np.flip(areas), rtol=1e-12)  # in and out
    for axes in ((4, 5, 6, 7, 0, 1, 2, 3), (1, 0, 3, 2, 5, 4, 7, 6), (0, 1, 4, 5, 2, 3, 6, 7), (0, 2, 1, 3, 4, 6, 5, 7)):
        np.testing.assert_allclose(areas, areas.transpose(axes), rtol=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 100_000), st.floats(0.01, 100))
def test_laws_of_distances(seed, factor):
    prediction, truth, spacing_mm = masks(seed)
    found = scores(prediction, truth, spacing_mm)
    np.testing.assert_allclose(scores(truth, prediction, spacing_mm), found, rtol=1e-9)
    np.testing.assert_array_equal(scores(truth, truth, spacing_mm), [0, 0, 0, 1])
    larger = tuple(factor * step for step in spacing_mm)
    np.testing.assert_allclose(scores(prediction, truth, larger, factor)[1:], (found * [1, factor, factor, 1])[1:], rtol=1e-9)
    moved = [np.pad(mask, [(3, 1)] * truth.ndim) for mask in (prediction, truth)]
    np.testing.assert_allclose(scores(*moved, spacing_mm), found, rtol=1e-9)
    turned = [np.flip(mask, 0).T for mask in (prediction, truth)]
    np.testing.assert_allclose(scores(*turned, spacing_mm[::-1])[1:], found[1:], rtol=1e-9)


# By messages


def test_refuses_what_does_not_fit():
    mask = np.ones((4, 4), bool)
    with pytest.raises(ShapeError, match="give one per axis"):
        scores(mask, mask, (1.0, 1.0, 1.0))
    with pytest.raises(SettingError, match="distances need positive numbers"):
        scores(mask, mask, (1.0, 0.0))
    with pytest.raises(SettingError, match="0 or more is needed"):
        SurfaceDistanceSurfels(ONE, -1.0)
    with pytest.raises(ShapeError, match="predict at the size"):
        element_distances(mask, mask[1:])
    with pytest.raises(UsageError, match="the prediction holds class 1"):
        SurfaceDistanceSurfels(ONE).count(Segmentation.semantic(np.eye(4, dtype=int)), one_class(mask))


def test_the_convention_tells_the_tolerance():
    assert "within 2.5" in SurfaceDistanceSurfels(ONE, 2.5).convention


# Against DeepMind's surface-distance, and MONAI, whose numbers are float32


@AS_THEY_ARE
@pytest.mark.parametrize("seed", range(40))
def test_equals_deepmind(seed):
    deepmind = pytest.importorskip("surface_distance")
    prediction, truth, spacing_mm = masks(seed + 2000)
    theirs = deepmind.compute_surface_distances(truth, prediction, spacing_mm)
    found = scores(prediction, truth, spacing_mm, 1.234)
    expected = [
        deepmind.compute_robust_hausdorff(theirs, 95),
        deepmind.compute_robust_hausdorff(theirs, 100),
        deepmind.compute_surface_dice_at_tolerance(theirs, 1.234),
    ]
    np.testing.assert_allclose(found[[0, 1, 3]], expected, 1e-9)
    both = element_distances(prediction, truth, spacing_mm)
    averages = [np.average(distances, weights=areas) for distances, areas in both]
    np.testing.assert_allclose(averages[::-1], deepmind.compute_average_surface_distance(theirs), 1e-9)
    weights = [areas.sum() for _, areas in both]
    np.testing.assert_allclose(found[2], np.average(averages, weights=weights), 1e-9)  # which DeepMind leaves to its caller


@pytest.mark.parametrize("spacing", [UNIT, (1.3, 0.7, 2.1)])
def test_areas_equal_deepminds_table(spacing):
    tables = pytest.importorskip("surface_distance.lookup_tables")
    theirs = tables.create_table_neighbour_code_to_surface_area(spacing)
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]  # they count the bits from the other end
    np.testing.assert_allclose(areas_of_codes(spacing), theirs[mirrored], rtol=1e-12)
    lengths = tables.create_table_neighbour_code_to_contour_length(spacing[1:])
    flat = [int(f"{code:04b}"[::-1], 2) for code in range(16)]
    walls = areas_of_codes((1.0, *spacing[1:]))
    np.testing.assert_allclose([walls[code * 17] for code in range(16)], lengths[flat], rtol=1e-12)  # 17: both slices alike


@AS_THEY_ARE
@pytest.mark.parametrize("seed", range(10))
def test_equals_monai_with_subvoxels(seed):
    monai, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    prediction, truth, spacing_mm = masks(seed + 3000)
    pair = [torch.tensor(mask)[None, None] for mask in (prediction, truth)]
    settings = {"class_thresholds": [1.234], "include_background": True, "spacing": spacing_mm, "use_subvoxels": True}
    expected = monai.compute_surface_dice(*pair, **settings)
    np.testing.assert_allclose(scores(prediction, truth, spacing_mm, 1.234)[3], float(expected), 1e-6, 1e-6)

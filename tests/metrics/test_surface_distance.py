"""Surface distances: by hand, by brute force, by laws, by messages, and against MONAI."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics.surface_distance import SurfaceDistance, borders, surface_distances

ONE = Classes.of(["organ"])
NAMES = ("HD95", "HD", "ASSD", "NSD")
AS_THEY_ARE = pytest.mark.filterwarnings("ignore")  # the peers warn of their own dependencies


def one_class(mask):
    return Segmentation.panoptic(np.asarray(mask).astype(np.int32), [0], classes=ONE)


def scores(prediction, truth, spacing_mm=None, tolerance_mm=1.0):
    """HD95, HD, ASSD and NSD of two masks."""
    metric = SurfaceDistance(ONE, tolerance_mm)
    by_name = metric.score(metric.count(one_class(prediction), one_class(truth), spacing_mm))
    return np.array([by_name[name] for name in NAMES])


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


def twin(prediction, truth, spacing_mm):
    """Distances both ways from all pairs of border voxels."""
    edges = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(spacing_mm) for mask in (prediction, truth)]
    pairs = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=2)
    return pairs.min(axis=1), pairs.min(axis=0)


# By hand


def test_of_two_pixels_in_mm():
    prediction, truth = np.zeros((2, 3, 4), bool)
    prediction[0, 0] = truth[1, 2] = True  # one row of 3 mm down, two columns of 2 mm across
    np.testing.assert_array_equal(scores(prediction, truth, (3.0, 2.0), 4.9), [5, 5, 5, 0])
    np.testing.assert_array_equal(scores(prediction, truth, (3.0, 2.0), 5.0), [5, 5, 5, 1])
    np.testing.assert_allclose(scores(prediction, truth), [5**0.5, 5**0.5, 5**0.5, 0])  # in pixels


def test_of_a_pixel_in_a_full_frame():
    truth = np.ones((3, 3), bool)  # its border is the ring of 8 pixels, as nothing lies beyond the image
    prediction = np.zeros_like(truth)
    prediction[1, 1] = True
    root = 2**0.5
    np.testing.assert_allclose(scores(prediction, truth), [root, root, (1 + 4 + 4 * root) / 9, 5 / 9])


def test_the_percentile_is_that_of_the_worse_direction():
    prediction, truth = np.zeros((2, 1, 400), bool)
    prediction[0, :101], truth[0, :100] = True, True  # a row is all border; one of 101 is 1 away
    assert scores(prediction, truth)[0] == 0
    prediction[0, 101:111] = True  # 11 of 111 are up to 11 away: place 104.5 of 0..110 is halfway between 5 and 6
    np.testing.assert_allclose(scores(prediction, truth)[:2], [5.5, 11])


def test_a_tolerance_reaches_as_many_steps_as_it_holds():
    prediction, truth = np.zeros((2, 1, 9), bool)
    prediction[0, 0] = truth[0, 3] = True
    assert 3 * 0.1 > 0.3 and scores(prediction, truth, (1.0, 0.1), 0.3)[3] == 1


def test_a_volume_of_one_slice_is_all_border_and_an_image_is_not():
    image = np.ones((5, 5), bool)
    assert [len(borders(one_class(mask), 1)[0]) for mask in (image, image[None])] == [16, 25]


def test_what_is_missing_gets_the_diagonal():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    diagonal = (9**2 + 8**2) ** 0.5
    for prediction, truth in ((empty, full), (full, empty)):
        np.testing.assert_allclose(scores(prediction, truth, (3.0, 2.0)), [diagonal, diagonal, diagonal, 0])
    assert np.isnan(scores(empty, empty)).all()


def test_no_prediction_is_worse_than_any():
    truth = np.zeros((6, 6), bool)
    truth[0, 0] = True
    worst, missing = scores(truth[::-1, ::-1], truth), scores(np.zeros_like(truth), truth)
    assert (missing[:3] > worst[:3]).all() and missing[3] == 0
    nothing = Segmentation.panoptic(np.zeros((6, 6), np.int32), [], classes=ONE)
    metric = SurfaceDistance(ONE)
    np.testing.assert_array_equal(metric.count(nothing, one_class(truth)).values[:4, 0], missing)


def test_averages_over_images_then_classes():
    classes = Classes.of(["a", "b", "never"])
    metric = SurfaceDistance(classes)
    image = np.full((1, 8), 2)
    image[0, :2] = 0, 1
    shifted = np.where(image == 2, 2, 0)  # b is missing, a one step too long

    def count(prediction, truth):
        kept = [np.where(one == 2, VOID + 1, one + 1).astype(np.int32) for one in (prediction, truth)]  # 2 is nothing
        return metric.count(*(Segmentation.panoptic(one, [0, 1], classes=classes) for one in kept))

    found = metric.score(count(image, image) + count(shifted, image))
    diagonal = 65**0.5
    assert found["HD/a"] == 0.5 and found["HD/b"] == pytest.approx(diagonal / 2) and np.isnan(found["HD/never"])
    assert found["HD"] == pytest.approx((0.5 + diagonal / 2) / 2)


def test_background_is_not_averaged_unless_alone():
    pair = np.array([[[0, 1, 1, 0]], [[0, 1, 0, 0]]])
    classes = Classes.of(["background", "organ"])
    metric = SurfaceDistance(classes)
    found = metric.score(metric.count(*(Segmentation.semantic(one, classes) for one in pair)))
    assert found["ASSD"] == found["ASSD/organ"] == 1 / 3 and found["ASSD/background"] == 1 / 5
    alone = SurfaceDistance(Classes.of(["_background_"]))
    only = Segmentation.panoptic(np.int32([[0, 1, 0]]), [0], classes=alone.classes)
    assert alone.score(alone.count(only, only))["NSD"] == 1


def test_void_is_taken_out_of_both():
    truth = np.array([[VOID, 0, 0, 0, VOID, VOID]])
    prediction = np.array([[0, 0, 0, 0, 0, 0]])
    metric = SurfaceDistance(ONE)
    state = metric.count(Segmentation.semantic(prediction, ONE), Segmentation.semantic(truth, ONE))
    np.testing.assert_array_equal(state.values[:, 0], [0, 0, 0, 1, 1, 37**0.5])
    planes = np.int32([[[-1, 1, 1, 1, -1, -1]], [[2, 0, 0, 0, 2, 2]]])  # a second plane of the truth does not fill void
    overlapping = Segmentation(planes, np.int32([0, 0]), np.int32([0, 0]), np.ones(2, np.float32), ONE)
    np.testing.assert_array_equal(metric.count(overlapping, overlapping).values[:, 0], [0, 0, 0, 1, 1, 37**0.5])
    assert len(borders(overlapping, 1)[0]) == 6  # where nobody takes void out, all are of the class


def test_objects_of_a_class_that_touch_have_no_border_between():
    halves = np.zeros((2, 6, 6), bool)
    halves[0, :, :3], halves[1, :, 3:] = True, True
    whole = Segmentation.instances(halves, [0, 0], classes=ONE)
    np.testing.assert_array_equal(borders(whole, 1)[0], borders(one_class(np.ones((6, 6))), 1)[0])


# By a slow twin


@pytest.mark.parametrize("seed", range(60))
def test_equals_brute_force(seed):
    prediction, truth, spacing_mm = masks(seed)
    forth, back = twin(prediction, truth, spacing_mm)
    for found, expected in zip(surface_distances(prediction, truth, spacing_mm), (forth, back), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    pooled = np.concatenate([forth, back])
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    expected = hd95, pooled.max(), pooled.mean(), (pooled <= 1.234).mean()
    np.testing.assert_allclose(scores(prediction, truth, spacing_mm, 1.234), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(17, 21), (7, 9, 12)])
@pytest.mark.parametrize("seed", range(4))
def test_overlapping_segments_are_measured_class_by_class(seed, shape):
    generator = np.random.default_rng(seed)
    classes = Classes.of(["a", "b", "c"])
    metric = SurfaceDistance(classes)
    pair, class_ids = [], np.array([0, 1, 1, 2, 0])
    for _ in range(2):
        stack = np.stack([ndimage.gaussian_filter(generator.normal(size=shape), 1.5) > 0.05 for _ in class_ids])
        pair.append(Segmentation.instances(stack, class_ids, classes=classes))
    assert len(pair[0].planes) > 2
    together = metric.count(*pair).values
    for k in range(3):
        alone = [one_class(given.masks()[given.class_ids == k].any(axis=0)) for given in pair]
        np.testing.assert_allclose(together[:, k], SurfaceDistance(ONE).count(*alone).values[:, 0], rtol=1e-12)


def test_classes_of_one_map_are_measured_as_their_masks():
    generator = np.random.default_rng(0)
    classes = Classes.of([str(k) for k in range(12)])
    maps = [generator.integers(VOID, 12, (5, 6, 7)).repeat(2, 0).repeat(3, 1).repeat(2, 2) for _ in range(2)]
    together = SurfaceDistance(classes).count(*(Segmentation.semantic(one, classes) for one in maps), (2.0, 1.0, 1.5)).values
    for k in range(12):
        alone = [one_class((one == k) & (maps[1] != VOID)) for one in maps]
        np.testing.assert_allclose(together[:, k], SurfaceDistance(ONE).count(*alone, (2.0, 1.0, 1.5)).values[:, 0], rtol=1e-12)


# By laws


@settings(max_examples=40)
@given(st.integers(0, 100_000), st.floats(0.01, 100))
def test_laws_of_distances(seed, factor):
    prediction, truth, spacing_mm = masks(seed)
    found = scores(prediction, truth, spacing_mm)
    np.testing.assert_allclose(scores(truth, prediction, spacing_mm), found, rtol=1e-12)
    np.testing.assert_array_equal(scores(truth, truth, spacing_mm), [0, 0, 0, 1])
    larger = tuple(factor * step for step in spacing_mm)
    np.testing.assert_allclose(scores(prediction, truth, larger, factor), found * [factor, factor, factor, 1], rtol=1e-9)
    axes = tuple(np.random.default_rng(seed).permutation(truth.ndim))
    turned = [np.flip(mask, 0).transpose(axes) for mask in (prediction, truth)]
    np.testing.assert_allclose(scores(*turned, tuple(spacing_mm[axis] for axis in axes)), found, rtol=1e-12)
    moved = [np.pad(mask, [(3, 1)] * truth.ndim) for mask in (prediction, truth)]
    np.testing.assert_allclose(scores(*moved, spacing_mm), found, rtol=1e-12)
    assert max(found[0], found[2]) <= found[1] * (1 + 1e-12) and 0 <= found[3] <= 1


# By messages


def test_refuses_what_does_not_fit():
    mask = np.ones((4, 4), bool)
    with pytest.raises(ShapeError, match="spacing .* has 3 values, the image .* 2 axes; give one per axis"):
        scores(mask, mask, (1.0, 1.0, 1.0))
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(SettingError, match="distances need positive numbers in mm, or None"):
            scores(mask, mask, (1.0, wrong))
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(SettingError, match="a tolerance of .* 0 or more is needed"):
            SurfaceDistance(ONE, wrong)
    with pytest.raises(ShapeError, match="predict at the size"):
        surface_distances(mask, mask[1:])
    with pytest.raises(ShapeError, match="take one image at a time"):
        surface_distances(mask[0], mask[0])
    with pytest.raises(UsageError, match="the prediction holds class 1"):
        SurfaceDistance(ONE).count(Segmentation.semantic(np.eye(4, dtype=int)), one_class(mask))


def test_the_convention_tells_the_tolerance():
    assert "within 2.5" in SurfaceDistance(ONE, 2.5).convention and "within 1." in SurfaceDistance(ONE).convention


def test_an_empty_mask_is_infinitely_far():
    mask = np.eye(3, dtype=bool)
    forth, back = surface_distances(mask, np.zeros((3, 3), bool))
    np.testing.assert_array_equal(forth, [np.inf] * 3)
    assert back.shape == (0,)


# Against MONAI, whose numbers are float32


@AS_THEY_ARE
@pytest.mark.parametrize("seed", range(40))
def test_equals_monai(seed):
    monai, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    prediction, truth, spacing_mm = masks(seed + 1000)
    pair = [torch.tensor(mask)[None, None] for mask in (prediction, truth)]
    settings = {"include_background": True, "spacing": spacing_mm}
    expected = [
        monai.compute_hausdorff_distance(*pair, percentile=95, **settings),
        monai.compute_hausdorff_distance(*pair, **settings),
        monai.compute_average_surface_distance(*pair, symmetric=True, **settings),
        monai.compute_surface_dice(*pair, class_thresholds=[1.234], **settings),
    ]
    np.testing.assert_allclose(scores(prediction, truth, spacing_mm, 1.234), [float(one) for one in expected], 1e-6, 1e-6)
    forth = surface_distances(prediction, truth, spacing_mm)[0]
    directed = [
        monai.compute_hausdorff_distance(*pair, percentile=95, directed=True, **settings),
        monai.compute_average_surface_distance(*pair, **settings),
    ]
    np.testing.assert_allclose([np.percentile(forth, 95), forth.mean()], [float(one) for one in directed], 1e-6, 1e-6)


@AS_THEY_ARE
@pytest.mark.parametrize("seed", range(3))
def test_equals_monai_on_long_borders_but_for_its_rounding(seed):
    """Its distances are ours; of thousands, it finds the place of the percentile in float32, we in float64."""
    utils, torch = pytest.importorskip("monai.metrics.utils"), pytest.importorskip("torch")
    generator = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(generator.normal(size=(2, 300, 300)), (0, 4, 4))
    prediction, truth = (smooth[0] > 0) & (np.indices((300, 300))[1] < 200), smooth[1] > 0
    pair = [torch.tensor(mask) for mask in (prediction, truth)]
    _, theirs, _ = utils.get_edge_surface_distance(*pair, spacing=(1.0, 1.0), symmetric=True)
    for found, expected in zip(surface_distances(prediction, truth), theirs, strict=True):
        assert len(found) > 3000
        np.testing.assert_allclose(np.sort(found), np.sort(expected.numpy()), rtol=1e-6)
    exact = max(float(torch.quantile(one.double(), 0.95)) for one in theirs)
    np.testing.assert_allclose(scores(prediction, truth)[0], exact, rtol=1e-6)


@AS_THEY_ARE
def test_void_equals_what_monai_ignores():
    monai, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    prediction, truth = generator.integers(0, 3, (2, 6, 7)).repeat(4, 1).repeat(4, 2)  # class 2 is void
    classes = Classes.of(["a", "b"])
    ours = SurfaceDistance(classes).count(
        Segmentation.semantic(np.where(prediction == 2, VOID, prediction), classes),
        Segmentation.semantic(np.where(truth == 2, VOID, truth), classes),
    )
    one_hot = [torch.tensor(np.stack([one == k for k in range(3)])).float()[None] for one in (prediction, truth)]
    metric = monai.HausdorffDistanceMetric(include_background=True, percentile=95, reduction="none", ignore_index=2)
    np.testing.assert_allclose(ours.values[0], metric(*one_hot)[0, :2], 1e-6)


@AS_THEY_ARE
def test_monai_leaves_a_missing_prediction_to_its_caller():
    """The difference: an infinite distance, which its means take for 0 or infinity; here it is the diagonal."""
    monai, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    mask = np.eye(4, dtype=bool)
    pair = torch.zeros(1, 1, 4, 4, dtype=bool), torch.tensor(mask)[None, None]
    assert not np.isfinite(float(monai.compute_hausdorff_distance(*pair, include_background=True)))
    assert scores(np.zeros_like(mask), mask)[1] == 32**0.5


def test_simpleitk_measures_from_all_voxels():
    """The difference: its distances from voxels within the other mask are 0, and the middle of a ring is far from the ring."""
    itk = pytest.importorskip("SimpleITK")
    disc = np.ones((9, 9), bool)
    ring = disc & ~ndimage.binary_erosion(disc)
    peer = itk.HausdorffDistanceImageFilter()
    peer.Execute(*(itk.GetImageFromArray(mask.astype(np.uint8)) for mask in (disc, ring)))
    assert peer.GetHausdorffDistance() == 4 and scores(disc, ring)[1] == 0

"""Borders: by hand, against plain morphology, and by what must not change them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics.boundary import Boundary, band, border, boundary_f, class_borders, matches

CLASSES = Classes.of(["ground", "tree", "house"])
NAMES = CLASSES.names


def semantic(class_map):
    return Segmentation.semantic(np.array(class_map), CLASSES)


def blobs(seed, shape, *, void=True):
    """A class map of smooth regions, void here and there."""
    generator = np.random.default_rng(seed)
    level = ndimage.gaussian_filter(generator.normal(size=shape), 1.5)
    class_map = np.digitize(level, np.quantile(level, (0.3, 0.7)))
    return np.where((generator.random(shape) < 0.05) & void, VOID, class_map)


def scores_of(metric, prediction, truth):
    return {name: float(value) for name, value in metric.score(metric.count(prediction, truth)).items()}


# By hand


def test_border_by_hand():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 0:4] = True
    assert np.array_equal(border(mask), mask & ~np.array([[x < 3 and y == 2 for x in range(6)] for y in range(5)]))


def test_a_border_against_void_is_none():
    class_map = np.array([[0, 0, -1, 1, 1, 0]], np.int32)
    assert class_borders(class_map, 2).tolist() == [[-1, -1, -1, -1, 1, 0]]


def test_scores_by_hand():
    truth = np.zeros((8, 8), int)
    truth[:, 4:] = 1
    prediction = np.zeros((8, 8), int)
    prediction[:, 6:] = 1  # the border lies 2 pixels to the right
    met = scores_of(Boundary(CLASSES, tolerance_pixels=2, band_share=0.1), semantic(prediction), semantic(truth))
    assert met["boundary F1"] == met["boundary F1/ground"] == 1.0 and np.isnan(met["boundary F1/house"])
    missed = scores_of(Boundary(CLASSES, tolerance_pixels=1.9, band_share=0.1), semantic(prediction), semantic(truth))
    assert missed["boundary F1"] == missed["boundary recall/tree"] == 0.0
    # bands of one pixel: the ring of 8 x 4 has 20 pixels, that of 8 x 2 all 16; they share 8 + 2 * 1
    assert met["boundary IoU/tree"] == 10 / (20 + 16 - 10)
    near = scores_of(Boundary(CLASSES, trimap_pixels=3), semantic(prediction), semantic(truth))
    assert near["trimap IoU/ground"] == 24 / 40  # columns 1 to 6: three are ground, five are predicted to be
    assert near["trimap IoU/tree"] == 8 / 24


def test_one_pixel_and_nothing():
    metric = Boundary(CLASSES)
    truth = np.zeros((5, 5), int)
    truth[2, 2] = 1
    assert scores_of(metric, semantic(truth), semantic(truth))["boundary F1/tree"] == 1.0
    scores = scores_of(metric, Segmentation.panoptic(np.zeros((5, 5), int), [], classes=CLASSES), semantic(truth))
    assert scores["boundary F1"] == scores["boundary recall"] == scores["boundary IoU"] == scores["trimap IoU"] == 0.0
    assert np.isnan(scores["boundary precision"])  # nothing was claimed


def test_a_class_without_border():
    metric, whole = Boundary(CLASSES), semantic(np.zeros((6, 6), int))
    same = scores_of(metric, whole, whole)
    assert np.isnan(same["boundary F1"]) and same["boundary IoU"] == 1.0 and np.isnan(same["trimap IoU"])
    missed = scores_of(metric, Segmentation.panoptic(np.zeros((6, 6), int), [], classes=CLASSES), whole)
    assert missed["boundary F1"] == 0.0 and missed["boundary IoU"] == 0.0
    nothing = semantic(np.full((6, 6), VOID))
    assert all(np.isnan(value) for value in scores_of(metric, whole, nothing).values())


def test_averages_over_classes_of_an_image_then_over_images():
    metric = Boundary(CLASSES, tolerance_pixels=0)
    one, two = blobs(0, (12, 14)), blobs(1, (12, 14))
    two[two == 2] = 1
    states = [metric.count(semantic(blobs(5, one.shape)), semantic(one)), metric.count(semantic(two), semantic(two))]
    alone, both = [metric.score(state) for state in states], metric.score(states[0] + states[1])
    for title in ("F1", "precision", "recall"):
        own = np.mean([alone[0][f"boundary {title}/{name}"] for name in NAMES])
        np.testing.assert_allclose(alone[0][f"boundary {title}"], own)
        np.testing.assert_allclose(both[f"boundary {title}"], (own + 1) / 2)
    np.testing.assert_allclose(both["boundary F1/house"], alone[0]["boundary F1/house"])  # only the first image has one


# By a slow twin


def slow_border(mask, is_known):
    around = ndimage.generate_binary_structure(mask.ndim, 1)
    return mask & ndimage.binary_dilation(is_known & ~mask, around)


def slow_band(mask, is_known, width, *, has_edge):
    """Erode with a square; void cannot eat into the mask."""
    square = np.ones((3,) * mask.ndim)
    distance_grown = ndimage.maximum_filter(is_known & ~mask, 2 * width + 1, mode="constant", cval=False)
    if has_edge:
        distance_grown |= ~ndimage.binary_erosion(np.ones_like(mask), square, iterations=width, border_value=0)
    return mask & distance_grown


def slow_matches(mine, other, tolerance):
    if not other.any():
        return 0
    return (ndimage.distance_transform_edt(~other)[mine] <= tolerance).sum()


def slow_scores(prediction, truth, tolerance, width, reach):
    """F1, boundary IoU and trimap IoU of each class, from masks (K, *S)."""
    is_known = truth.planes[0] != VOID
    masks = [
        [given.masks()[given.class_ids == k].any(axis=0) & is_known for k in range(len(NAMES))] for given in (prediction, truth)
    ]
    near = np.any(
        [
            slow_band(m, is_known, reach, has_edge=False) | slow_band(~m & is_known, is_known, reach, has_edge=False)
            for m in masks[1]
        ],
        axis=0,
    )
    scores = {}
    for name, predicted, true in zip(NAMES, *masks, strict=True):
        mine, own = slow_border(predicted, is_known), slow_border(true, is_known)
        found, met = slow_matches(mine, own, tolerance), slow_matches(own, mine, tolerance)
        precision, recall = found / max(mine.sum(), 1), met / max(own.sum(), 1)
        if mine.any() or own.any():
            scores[f"boundary F1/{name}"] = 2 * precision * recall / (precision + recall) if found else 0.0
        bands = [slow_band(mask, is_known, width, has_edge=True) for mask in (predicted, true)]
        for title, one, two in (("boundary IoU", *bands), ("trimap IoU", predicted & near, true & near)):
            if (one | two).any():
                scores[f"{title}/{name}"] = (one & two).sum() / (one | two).sum()
    return scores


def overlapping(seed, shape):
    generator = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(generator.normal(size=(4, *shape)), (0, *(1.5,) * len(shape))) > 0.1
    given = Segmentation.instances(masks, generator.integers(0, 3, 4), classes=CLASSES)
    given.planes[0][generator.random(shape) < 0.05] = VOID
    return given


@pytest.mark.parametrize("make", [lambda *a: semantic(blobs(*a)), overlapping])
@pytest.mark.parametrize("shape", [(21, 26), (9, 11, 12)])
def test_scores_equal_a_slow_twin(make, shape):
    for seed in range(6):
        prediction, truth = make(seed, shape), make(seed + 50, shape)
        tolerance, width, reach = [(0, 1, 1), (1.5, 2, 1), (2.9, 3, 2), (1, 1, 3), (4.0, 4, 2), (60, 30, 20)][seed]
        metric = Boundary(CLASSES, tolerance_pixels=tolerance, band_share=width / np.linalg.norm(shape), trimap_pixels=reach)
        scores = metric.score(metric.count(prediction, truth))
        for name, value in slow_scores(prediction, truth, tolerance, width, reach).items():
            np.testing.assert_allclose(scores[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("shape", [(17, 23), (8, 9, 11)])
@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_the_band_is_a_mask_without_its_eroded_self(shape, width):
    mask = blobs(3, shape, void=False) == 1
    eroded = ndimage.binary_erosion(mask, np.ones((3,) * len(shape)), iterations=width, border_value=0)
    result = band(np.where(mask, 0, 1).astype(np.int32), width, has_edge=True)
    np.testing.assert_array_equal(result & mask, mask & ~eroded)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3.7, 30])
def test_boundary_f_equals_distances(tolerance):
    one, two = (border(blobs(seed, (30, 40), void=False) == 0) for seed in (0, 1))
    f1, precision, recall = boundary_f(one, two, tolerance)
    assert precision == slow_matches(one, two, tolerance) / one.sum()
    assert recall == slow_matches(two, one, tolerance) / two.sum()
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    empty = np.zeros_like(one)
    assert boundary_f(one, empty, tolerance) == (0.0, 0.0, 1.0)
    assert boundary_f(empty, one, tolerance) == (0.0, 1.0, 0.0)
    assert boundary_f(empty, empty, tolerance) == (1.0, 1.0, 1.0)


def test_matches_are_of_one_class():
    mine, others = np.array([[0, -1, 1, -1]], np.int32), np.array([[1, 0, -1, -1]], np.int32)
    assert matches(mine, others, 2, 1.0).tolist() == [[1, 0], [1, 1], [1, 0], [1, 1]]
    assert matches(mine, others, 2, 2.0).tolist() == [[1, 1]] * 4


# By laws


@pytest.mark.parametrize("shape", [(20, 25), (8, 10, 9)])
def test_planes_do_not_matter(shape):
    """The same pixels in one plane and in two give the same scores."""
    metric = Boundary(CLASSES, tolerance_share=0.05, trimap_pixels=2)
    prediction, truth = semantic(blobs(0, shape)), semantic(blobs(1, shape))
    deep = replace(
        truth, planes=np.concatenate([np.where(truth.planes == 2, 0, truth.planes), np.where(truth.planes == 2, 2, 0)])
    )
    one, two = metric.count(prediction, truth), metric.count(prediction, deep)
    np.testing.assert_allclose(one.values, two.values, rtol=1e-12)


def test_flips_and_turns_change_nothing():
    metric = Boundary(CLASSES, tolerance_pixels=2)
    prediction, truth = blobs(0, (20, 25)), blobs(1, (20, 25))
    whole = metric.count(semantic(prediction), semantic(truth)).values
    for turn in (np.flipud, np.fliplr, np.transpose):
        turned = metric.count(semantic(turn(prediction)), semantic(turn(truth))).values
        np.testing.assert_allclose(turned, whole)


def test_exchanging_prediction_and_truth_exchanges_precision_and_recall():
    metric = Boundary(CLASSES, tolerance_pixels=1)
    one, two = semantic(blobs(0, (20, 25), void=False)), semantic(blobs(1, (20, 25), void=False))
    there, back = scores_of(metric, one, two), scores_of(metric, two, one)
    for name in NAMES:
        assert there[f"boundary precision/{name}"] == back[f"boundary recall/{name}"]
        assert there[f"boundary IoU/{name}"] == back[f"boundary IoU/{name}"]


def test_more_tolerance_never_scores_less():
    prediction, truth = semantic(blobs(0, (30, 30))), semantic(blobs(1, (30, 30)))
    scores = [scores_of(Boundary(CLASSES, tolerance_pixels=t), prediction, truth)["boundary F1"] for t in (0, 1, 2, 4, 50)]
    assert scores == sorted(scores) and scores[-1] == 1.0


def test_what_is_predicted_on_void_changes_nothing():
    metric = Boundary(CLASSES, tolerance_pixels=1)
    prediction, truth = blobs(0, (30, 30)), blobs(1, (30, 30))
    other = np.where(truth == VOID, np.random.default_rng(0).integers(VOID, 3, truth.shape), prediction)
    assert (other != prediction).any()
    states = [metric.count(semantic(each), semantic(truth)).values for each in (prediction, other)]
    np.testing.assert_array_equal(*states)


def test_many_classes_score_like_few():
    prediction, truth = blobs(0, (20, 25)), blobs(1, (20, 25))
    few = Boundary(CLASSES).count(semantic(prediction), semantic(truth)).values
    many = Classes.of([f"class {k}" for k in range(200)])  # maps of 16 bits
    pair = [Segmentation.semantic(np.where(each == VOID, VOID, each * 70), many) for each in (prediction, truth)]
    np.testing.assert_array_equal(Boundary(many).count(*pair).values[:, [0, 70, 140, -1]], few)


# By messages


@pytest.mark.parametrize(
    "setting", [{"tolerance_share": -0.1}, {"tolerance_pixels": -1}, {"band_share": float("nan")}, {"trimap_pixels": 0}]
)
def test_refuses_settings_out_of_range(setting):
    with pytest.raises(SettingError, match="leave it out for the published value"):
        Boundary(CLASSES, **setting)
    Boundary(CLASSES)


def test_refuses_sizes_and_classes_that_differ():
    metric = Boundary(Classes.of(["ground"]))
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        metric.count(semantic([[0, 0]]), semantic([[0]]))
    with pytest.raises(UsageError, match="give both the same classes"):
        metric.count(semantic([[1]]), semantic([[0]]))
    with pytest.raises(ShapeError, match="predict at the size"):
        boundary_f(np.zeros((2, 2), bool), np.zeros((2, 3), bool), 1)


def test_the_convention_names_the_settings():
    assert "0.75 % of the image diagonal" in Boundary(CLASSES).convention
    assert "up to 3 pixels" in Boundary(CLASSES, tolerance_pixels=3).convention
    assert "2 % of the diagonal" in Boundary(CLASSES).convention and "within 5 pixels" in Boundary(CLASSES).convention

"""Topology: by hand, against labelled pixels and gudhi, and by laws."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.evaluation.bootstrap import bootstrap
from segwright.metrics.skeleton import skeleton
from segwright.metrics.topology import Topology, betti_numbers, cl_dice, euler_characteristic

CLASSES = Classes.of(["ground", "vessel"])
MASKS = st.one_of(
    arrays(bool, st.tuples(*[st.integers(1, 9)] * 2)), arrays(bool, st.tuples(*[st.integers(1, 5)] * 3))
)  # images and volumes


def semantic(class_map):
    return Segmentation.semantic(np.array(class_map, int), CLASSES)


def scores_of(metric, prediction, truth):
    return {name: float(value) for name, value in metric.score(metric.count(prediction, truth)).items()}


def figure(text):
    """A mask from rows of . and #."""
    return np.array([[letter == "#" for letter in row] for row in text.split()])


def noise(seed, shape):
    generator = np.random.default_rng(seed)
    return ndimage.gaussian_filter(generator.normal(size=shape), 1) > 0.1


# By hand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("... ... ...", [0, 0]),
        ("... .#. ...", [1, 0]),
        ("### #.# ###", [1, 1]),
        (".#. #.# .#.", [1, 1]),  # corners connect the foreground, and so enclose the background
        ("#.# .#. #.#", [1, 0]),
        ("##### #.#.# #####", [1, 2]),
        ("#.# #.# #.#", [2, 0]),  # open to the edge of the image
    ],
)
def test_betti_numbers_of_images_by_hand(text, expected):
    assert betti_numbers(figure(text)).tolist() == expected


def test_betti_numbers_of_volumes_by_hand():
    shell = np.ones((3, 3, 3), bool)
    assert betti_numbers(shell).tolist() == [1, 0, 0]
    shell[1, 1, 1] = False
    assert betti_numbers(shell).tolist() == [1, 0, 1]
    shell[0, 1, 1] = shell[2, 1, 1] = False
    assert betti_numbers(shell).tolist() == [1, 1, 0]  # a tunnel
    assert betti_numbers(np.zeros((2, 2, 2), bool)).tolist() == [0, 0, 0]
    assert betti_numbers(np.array([[[True, False, True]]])).tolist() == [2, 0, 0]


def test_scores_by_hand():
    truth, prediction = np.zeros((2, 9, 11), int)
    truth[4, 1:10] = 1
    prediction[4, 1:4] = prediction[4, 5:7] = 1  # broken, and too short
    prediction[7, 1:3] = 1  # nothing is there
    scores = scores_of(Topology(CLASSES), semantic(prediction), semantic(truth))
    precision, sensitivity = 5 / 7, 5 / 9
    assert scores["clDice/vessel"] == pytest.approx(2 * precision * sensitivity / (precision + sensitivity))
    assert scores["Betti-0 error/vessel"] == 2 and scores["Betti-1 error/vessel"] == 0
    assert scores["Betti-1 error/ground"] == 2 and scores["Betti-0 error/ground"] == 0
    assert scores["Betti-1 error"] == 1  # the mean over classes
    assert "Betti-2 error" not in scores


def test_volumes_have_a_third_betti_number():
    truth = np.zeros((5, 5, 5), int)
    truth[1:4, 1:4, 1:4] = 1
    prediction = truth.copy()
    prediction[2, 2, 2] = 0
    metric = Topology(CLASSES)
    scores = scores_of(metric, semantic(prediction), semantic(truth))
    assert scores["Betti-2 error/vessel"] == 1 and scores["Betti-0 error/ground"] == 1
    image = metric.count(semantic(truth[2]), semantic(truth[2]))
    both = metric.score(image + metric.count(semantic(prediction), semantic(truth)))
    assert both["Betti-2 error/vessel"] == 1 and both["Betti-0 error/ground"] == 0.5  # images count for what they have


def test_a_missing_class_is_punished_and_an_absent_one_left_out():
    metric, truth = Topology(CLASSES), semantic(figure("##### #.#.# #####"))
    empty = Segmentation.panoptic(np.zeros((3, 5), int), [], classes=CLASSES)
    missed = scores_of(metric, empty, truth)
    assert missed["clDice"] == 0 and missed["Betti-0 error/vessel"] == 1 and missed["Betti-1 error/vessel"] == 2
    one = scores_of(metric, semantic(np.zeros((4, 4))), semantic(np.zeros((4, 4))))
    assert one["clDice/ground"] == one["clDice"] == 1 and np.isnan(one["clDice/vessel"])
    nothing = scores_of(metric, truth, semantic(np.full((3, 5), VOID)))
    assert all(np.isnan(value) for value in nothing.values())


def test_errors_per_patch():
    truth, prediction = np.zeros((2, 8, 12), int)
    truth[1, 1], truth[6, 6] = 1, 1
    prediction[1, 3:6] = 1  # one component across two patches, and none in the third
    scores = scores_of(Topology(CLASSES, patch_pixels=4), semantic(prediction), semantic(truth))
    assert scores["Betti-0 error/vessel"] == 2 / 6  # the first agrees, one too many, one too few
    whole = scores_of(Topology(CLASSES), semantic(prediction), semantic(truth))
    assert whole["Betti-0 error/vessel"] == 1
    assert scores_of(Topology(CLASSES, patch_pixels=50), semantic(prediction), semantic(truth)) == whole


@pytest.mark.parametrize("shape", [(23, 31), (9, 10, 11)])
def test_patches_equal_a_slow_twin(shape):
    metric, side = Topology(CLASSES, patch_pixels=4), 4
    predicted, true = noise(0, shape) & (noise(5, shape) | noise(6, shape)), noise(1, shape) & noise(2, shape)
    errors = []
    for start in np.ndindex(*[-(-length // side) for length in shape]):
        part = tuple(slice(side * i, side * i + side) for i in start)
        errors.append(np.abs(betti_numbers(predicted[part]) - betti_numbers(true[part])))
    scores = scores_of(metric, semantic(predicted), semantic(true))
    for order, expected in enumerate(np.mean(errors, axis=0)):
        assert scores[f"Betti-{order} error/vessel"] == pytest.approx(expected)


# By twins


@settings(max_examples=200)
@given(MASKS)
def test_betti_numbers_equal_labelled_pixels(mask):
    padded = np.pad(mask, 1)
    components = ndimage.label(padded, np.ones((3,) * mask.ndim))[1]
    enclosed = ndimage.label(~padded)[1] - 1
    numbers = betti_numbers(mask)
    assert numbers[0] == components and numbers[-1] == enclosed
    assert numbers[0] - numbers[1] + (numbers[2] if mask.ndim == 3 else 0) == slow_euler(mask)


def slow_euler(mask):
    """Corners - edges + faces - cubes, each listed by its centre in half pixels."""
    cells = set()
    for place in np.argwhere(mask):
        cells |= {tuple(2 * place + 1 + step - 1) for step in np.ndindex(*(3,) * mask.ndim)}
    return sum((-1) ** sum(side % 2 for side in cell) for cell in cells)


@settings(max_examples=100)
@given(MASKS)
def test_euler_characteristic_equals_listed_cells(mask):
    assert euler_characteristic(np.pad(mask, 1)) == slow_euler(mask)


@settings(max_examples=100)
@given(MASKS)
def test_betti_numbers_equal_gudhi(mask):
    gudhi = pytest.importorskip("gudhi")
    complex_of = gudhi.CubicalComplex(top_dimensional_cells=np.where(np.pad(mask, 1), 0.0, 1.0))
    complex_of.compute_persistence()
    expected = complex_of.persistent_betti_numbers(0.5, 0.5)
    assert betti_numbers(mask).tolist() == expected[: mask.ndim]


def test_cl_dice_equals_the_published_steps():
    morphology = pytest.importorskip("skimage.morphology")
    for seed in range(5):
        one, two = noise(seed, (60, 70)), noise(seed, (60, 70)) ^ (noise(seed + 9, (60, 70)) & noise(seed + 20, (60, 70)))
        lines = morphology.skeletonize(one), morphology.skeletonize(two)
        precision, sensitivity = (lines[0] * two).sum() / lines[0].sum(), (lines[1] * one).sum() / lines[1].sum()
        assert cl_dice(one, two) == pytest.approx(2 * precision * sensitivity / (precision + sensitivity), abs=1e-12)


# By laws


@pytest.mark.parametrize("shape", [(40, 50), (14, 15, 16)])
def test_cl_dice_is_symmetric_perfect_on_itself_and_blind_to_thickness(shape):
    one, two = noise(0, shape), noise(1, shape)
    assert cl_dice(one, two) == cl_dice(two, one) and 0 < cl_dice(one, two) < 1
    assert cl_dice(one, one) == 1.0
    assert cl_dice(skeleton(one), one) == 1.0
    assert np.isnan(cl_dice(one & False, one & False)) and cl_dice(one & False, one) == cl_dice(one, one & False) == 0.0
    assert cl_dice(one, ~one) == 0.0


@pytest.mark.parametrize("shape", [(20, 25), (8, 10, 9)])
def test_planes_and_void_do_not_matter(shape):
    generator = np.random.default_rng(0)
    truth = np.where(generator.random(shape) < 0.1, VOID, noise(0, shape))
    prediction = noise(1, shape).astype(int)
    metric = Topology(CLASSES)
    once = metric.count(semantic(prediction), semantic(truth)).values
    other = np.where(truth == VOID, 1 - prediction, prediction)
    np.testing.assert_array_equal(metric.count(semantic(other), semantic(truth)).values, once)
    flat = semantic(truth)
    deep = replace(flat, planes=np.concatenate([np.where(flat.planes == 2, 0, flat.planes), np.where(flat.planes == 2, 2, 0)]))
    np.testing.assert_array_equal(metric.count(semantic(prediction), deep).values, once)


def test_law_no_error_exceeds_the_pixels_of_the_largest_image():
    metric = Topology(CLASSES)
    states = [
        metric.count(semantic(noise(n, shape)), semantic(noise(n + 9, shape))) for n, shape in enumerate([(5, 6), (7, 8)])
    ]
    assert metric.limits(states)["Betti-0 error"] == (0, 56)
    for seed in range(5):
        found = bootstrap(metric, states, 50, np.random.default_rng(seed))
        assert all(not high > 56 for name, (_, high) in found.items() if name.startswith("Betti"))


# By messages


def test_refuses_what_it_cannot_count():
    with pytest.raises(SettingError, match="1 or more are needed; leave it out"):
        Topology(CLASSES, patch_pixels=0)
    with pytest.raises(ShapeError, match=r"Betti numbers are for 2 or 3; give one image \(H, W\)"):
        betti_numbers(np.zeros(3, bool))
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        Topology(CLASSES).count(semantic([[0, 1]]), semantic([[0]]))
    with pytest.raises(UsageError, match="give both the same classes"):
        Topology(Classes.of(["ground"])).count(semantic([[1]]), semantic([[0]]))


def test_the_convention_names_the_patches():
    assert "of the whole image" in Topology(CLASSES).convention
    assert "per patch of 64 pixels a side" in Topology(CLASSES, patch_pixels=64).convention

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.evaluation.borders import BANDS, border_distance, border_errors, labels_of_both

CLASSES = Classes.of(["sky", "road"])
THINGS = Classes.of(["cell"], is_thing=[True])


def slow_distance(labels):
    """Each pixel against each pixel that has a neighbour of another label."""
    at_border = []
    for place in np.ndindex(labels.shape):
        for axis in range(labels.ndim):
            for step in (-1, 1):
                other = list(place)
                other[axis] += step
                if 0 <= other[axis] < labels.shape[axis]:
                    a, b = labels[place], labels[tuple(other)]
                    if a != b and -1 not in (a, b):
                        at_border.append(place)
    result = np.full(labels.shape, np.inf)
    for place in np.ndindex(labels.shape):
        for other in at_border:
            result[place] = min(result[place], 1 + np.linalg.norm(np.subtract(place, other)))
    return result


def test_distance_by_hand():
    row = border_distance(np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]))
    assert row.tolist() == [[3, 2, 1, 1, 2]] * 2
    assert np.isinf(border_distance(np.zeros((3, 3), int))).all()
    assert np.isinf(border_distance(np.array([[0, -1, 1]]))).all()  # void parts them: nobody knows where the border is


@pytest.mark.parametrize("shape", [(7, 9), (4, 5, 6), (1, 40), (40, 1), (30, 31)])
def test_distance_equals_a_slow_twin(shape):
    labels = np.random.default_rng(0).integers(-1, 2, shape) * (np.random.default_rng(1).random(shape) < 0.1)
    expected = slow_distance(labels)
    np.testing.assert_allclose(border_distance(labels), np.where(expected > BANDS[-1], np.inf, expected), rtol=1e-6)


def test_distance_equals_that_of_scipy():
    labels = np.zeros((20, 40, 50), int)
    labels[:3, 5:9, 7:] = labels[15, 30, 2:4] = 1
    found = border_distance(labels)
    at_border = found == 1
    expected = 1 + distance_transform_edt(~at_border)
    np.testing.assert_allclose(found, np.where(expected > BANDS[-1], np.inf, expected), rtol=1e-6)


def test_errors_by_hand():
    truth = np.array([[0] * 10 + [1] * 10 + [-1] * 3])
    guess = truth.copy()
    guess[0, [9, 8, 0, 12, 22]] = [1, 1, 1, 0, 1]  # 1, 2 and 10 px from the border, 3 px, and in void
    sums = border_errors(guess, truth, border_distance(truth), 3).values
    assert sums.shape == (2, 3, len(BANDS) + 1)
    assert sums[0].tolist() == [[1, 1, 2, 4, 2, 0], [1, 1, 2, 4, 2, 0], [0] * 6]
    assert sums[1].tolist() == [[1, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0] * 6]


def test_without_any_border_all_is_interior():
    truth = np.zeros((4, 4), int)
    sums = border_errors(truth + 1, truth, border_distance(truth), 2).values
    assert sums[:, 0, -1].tolist() == [16, 16] and sums.sum() == 32


def test_labels_by_hand():
    truth = Segmentation.panoptic(np.array([[1, 0, -1]]), [0], [7], classes=THINGS)
    guess, actual = labels_of_both(Segmentation.panoptic(np.array([[0, 1, 1]]), [0], [7], classes=THINGS), truth)
    assert actual.tolist() == [[0, 1, -1]] and guess.tolist() == [[1, 0, 0]]  # around objects lies background, label K
    truth = Segmentation.panoptic(np.array([[1, 0, -1]]), [1], classes=CLASSES)
    guess, actual = labels_of_both(Segmentation.panoptic(np.array([[0, 1, 1]]), [1], classes=CLASSES), truth)
    assert actual.tolist() == [[1, -1, -1]] and guess.tolist() == [[2, 1, 1]]  # nobody knows what a pixel without stuff is
    named = Classes.of(["cell", "Background"], is_thing=[True, False])
    truth = Segmentation.panoptic(np.array([[1, 2, -1]]), [0, 1], [7, 0], classes=named)
    guess, actual = labels_of_both(Segmentation.panoptic(np.array([[1, 0, 0]]), [0], [7], classes=named), truth)
    assert actual.tolist() == [[0, 1, -1]] and guess.tolist() == [[0, 1, 1]]  # nothing was predicted: that is background


@given(arrays(np.int64, (6, 8), elements=st.integers(-1, 2)), arrays(np.int64, (6, 8), elements=st.integers(0, 2)))
def test_law_each_known_pixel_counts_once(truth, guess):
    sums = border_errors(guess, truth, border_distance(truth), 3).values
    assert sums[0].sum() == (truth >= 0).sum() and sums[1].sum() == ((truth != guess) & (truth >= 0)).sum()
    assert (sums[1] <= sums[0]).all()


def test_messages():
    one, other = (Segmentation.semantic(np.zeros(shape, int), CLASSES) for shape in ((2, 3), (3, 2)))
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        labels_of_both(one, other)

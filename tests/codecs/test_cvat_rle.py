import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.codecs import cvat_rle, rle
from segwright.core.errors import FormatError

# By hand


def test_runs_go_row_by_row():
    mask = rle.decode(cvat_rle.to_counts([0, 1, 3, 2], (1, 1, 3, 2), (3, 4)), (3, 4))
    assert mask.astype(int).tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]
    assert cvat_rle.of_counts(rle.encode(mask), (3, 4)) == ([0, 1, 3, 2], (1, 1, 3, 2))


@pytest.mark.parametrize("runs", [[0, 6], [6], [0, 6, 0, 0], [2, 0, 4], [0, 2, 0, 4]])
def test_full_and_empty_masks(runs):
    mask = rle.decode(cvat_rle.to_counts(runs, (0, 0, 3, 2), (2, 3)), (2, 3))
    assert mask.all() == (sum(runs[1::2]) == 6) and mask.any() == (sum(runs[1::2]) > 0)


def test_counts_are_as_short_as_they_can_be():
    assert cvat_rle.to_counts([0, 12], (0, 0, 4, 3), (3, 4)).tolist() == [0, 12]
    assert cvat_rle.to_counts([0, 6], (1, 0, 2, 3), (3, 4)).tolist() == [3, 6, 3]


# By a slow twin


@settings(max_examples=80)
@given(data=st.data(), mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=7)))
def test_equals_a_mask_in_an_image(data, mask):
    height, width = mask.shape
    left, top, right, bottom = (data.draw(st.integers(0, 3)) for _ in range(4))
    image = np.zeros((top + height + bottom, left + width + right), bool)
    image[top : top + height, left : left + width] = mask
    runs, last = [0], False
    for value in mask.ravel():
        if value != last:
            runs.append(0)
        runs[-1] += 1
        last = value
    if data.draw(st.booleans()):
        runs += [0] * data.draw(st.integers(0, 3))
    counts = cvat_rle.to_counts(runs, (left, top, width, height), image.shape)
    assert counts.tolist() == rle.encode(image).tolist()


# By a law


@settings(max_examples=40)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=8)))
def test_there_and_back(mask):
    counts = rle.encode(mask)
    runs, box = cvat_rle.of_counts(counts, mask.shape)
    if mask.any():
        assert cvat_rle.to_counts(runs, box, mask.shape).tolist() == counts.tolist()


def test_a_large_mask_of_few_runs_costs_little():
    side = 13_000  # a mask of it has 169 MB
    counts = cvat_rle.to_counts([0, 1, side * side - 2, 1], (0, 0, side, side), (side, side))
    assert counts.tolist() == [0, 1, side * side - 2, 1]


# By its messages


def test_what_does_not_fit():
    for box in [(4, 0, 1, 1), (-1, 0, 1, 1), (0, 0, 0, 1), (0, 3, 1, 1)]:
        with pytest.raises(FormatError, match="do not fit the image of 3 x 4 .rows x columns.; correct them"):
            cvat_rle.to_counts([1], box, (3, 4))
    for runs in ([1], [3, -1], [2, 1]):
        with pytest.raises(FormatError, match="the box has 2 x 1 = 2; the rle is damaged or cut short"):
            cvat_rle.to_counts(runs, (0, 0, 2, 1), (3, 4))
    stripes = [0] + [9000] * 9000
    with pytest.raises(FormatError, match="the mask changes 81,000,000 times down its columns, 33,554,432 is the limit"):
        cvat_rle.to_counts(stripes, (0, 0, 9000, 9000), (9000, 9000))

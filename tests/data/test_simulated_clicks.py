"""Where a simulated person clicks, and what boxes it draws. Axes: H, W."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from segwright.data.simulated_clicks import drawn_box, next_click

KNOWN = np.ones((9, 12), bool)


def block(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((9, 12), bool)
    mask[rows, columns] = True
    return mask


def test_by_hand_the_first_click_is_the_centre_of_the_object():
    nothing = np.zeros_like(KNOWN)
    assert next_click(nothing, block(slice(2, 7), slice(3, 8)), KNOWN) == ((5.5, 4.5), True)
    assert next_click(nothing, block(slice(4, 5), slice(6, 7)), KNOWN) == ((6.5, 4.5), True)  # a single pixel


def test_the_border_of_the_image_is_a_border():
    point, is_foreground = next_click(np.zeros_like(KNOWN), KNOWN, KNOWN)
    assert is_foreground and point[1] == 4.5 and 4.5 <= point[0] <= 7.5


def test_the_deeper_error_comes_first_and_says_what_it_is():
    truth = block(slice(0, 3), slice(0, 3))
    mask = block(slice(2, 9), slice(4, 12))
    assert next_click(mask, truth, KNOWN) == ((8.5, 5.5), False) or next_click(mask, truth, KNOWN)[0][1] in (4.5, 5.5, 6.5)
    assert not next_click(mask, truth, KNOWN)[1]
    assert next_click(mask, truth, ~mask)[1]  # what nobody knows is no error


def test_no_error_no_click():
    truth = block(slice(2, 7), slice(3, 8))
    assert next_click(truth, truth, KNOWN) is None
    assert next_click(~truth, truth, np.zeros_like(KNOWN)) is None


def test_the_centre_is_the_farthest_from_the_outside():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = np.kron(rng.random((5, 6)) < 0.5, np.ones((4, 4))) > 0
        if not truth.any():
            continue
        depth = distance_transform_edt(np.pad(truth, 1))[1:-1, 1:-1]
        (x, y), _ = next_click(np.zeros_like(truth), truth, np.ones_like(truth))
        assert depth[int(y), int(x)] == pytest.approx(depth.max(), rel=1e-5)


def test_what_lies_in_a_corner_is_as_deep_as_in_the_middle():
    nothing, small = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    small[50:60, 70:78] = small[3:5, 2:4] = True  # the larger piece ends at the border
    (x, y), _ = next_click(nothing, small, ~nothing)
    depth = distance_transform_edt(np.pad(small, 1))[1:-1, 1:-1]
    assert depth[int(y), int(x)] == depth.max() == 4


def test_clicks_about_the_centre_lie_in_its_piece_more_often_where_it_is_deep():
    truth = block(slice(0, 9), slice(0, 7)) | block(slice(0, 9), slice(9, 12))
    rng = np.random.default_rng(0)
    clicks = [next_click(np.zeros_like(truth), truth, KNOWN, rng) for _ in range(300)]
    columns = np.array([int(x) for (x, _), _ in clicks])
    assert columns.max() < 7 and len({*columns}) == 7
    counts = np.bincount(columns, minlength=7)
    assert counts[3] > 1.5 * counts[0] and counts[3] > 1.5 * counts[6]


def test_boxes_are_near_the_object_inside_the_image_and_never_empty():
    rng = np.random.default_rng(0)
    large, thin = np.zeros((100, 200), bool), np.zeros((100, 200), bool)
    large[20:80, 40:140], thin[50, 60] = True, True
    boxes = np.stack([drawn_box(large, rng) for _ in range(300)])
    assert np.abs(boxes.mean(axis=0) - (40, 20, 140, 80)).max() < 2
    assert boxes.std(axis=0) == pytest.approx([10, 6, 10, 6], rel=0.2) and boxes.dtype == np.float32
    everything = np.stack([drawn_box(np.ones((100, 200), bool), rng) for _ in range(100)])
    assert (everything >= 0).all() and (everything <= (200, 100, 200, 100)).all()
    assert np.abs(everything - (0, 0, 200, 100)).max() <= 20
    for box in (drawn_box(thin, rng) for _ in range(100)):
        assert (box[2:] - box[:2] >= 1).all()

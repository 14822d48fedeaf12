"""Flow fields of objects. Axes: P planes, H, W."""

import numpy as np
import pytest

from segwright.layers.flow_targets import flow_targets, uppermost


def drawn(*rows: str) -> np.ndarray:
    """A map of objects, one digit for each pixel."""
    return np.array([[int(digit) for digit in row] for row in rows], np.int32)


def slow_twin(objects: np.ndarray) -> np.ndarray:
    """The flows of objects of one piece each, by plain loops over pixels."""
    H, W = objects.shape
    flows = np.zeros((2, H, W))
    for number in np.unique(objects[objects > 0]):
        pixels = np.argwhere(objects == number)
        far = ((pixels - np.median(pixels, axis=0)) ** 2).sum(axis=1)
        middle = tuple(pixels[far.argmin()])
        heat = np.zeros((H + 2, W + 2))  # with a frame, in which there is none
        for _ in range(2 * int(np.ptp(pixels, axis=0).sum() + 2)):
            heat[middle[0] + 1, middle[1] + 1] += 1
            mean = sum(np.roll(heat, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
            heat = np.zeros_like(heat)
            heat[1:-1, 1:-1] = mean[1:-1, 1:-1] * (objects == number)
        heat = np.log(1 + heat)
        for y, x in pixels:
            way = np.array([heat[y + 2, x + 1] - heat[y, x + 1], heat[y + 1, x + 2] - heat[y + 1, x]])
            if (y, x) != middle and way.any():
                flows[:, y, x] = way / np.hypot(*way)
    return flows


def blobs(generator: np.random.Generator, side: int, count: int) -> np.ndarray:
    """The pixels nearest to each of some seeds, as far as they are no further than 6 pixels from one: each of one piece."""
    seeds = generator.random((count, 2)) * side
    far = np.linalg.norm(np.indices((side, side))[..., None] + 0.5 - seeds.T[:, None, None], axis=0)  # (H, W, N)
    return np.where(far.min(axis=2) <= 6, far.argmin(axis=2) + 1, 0).astype(np.int32)


# By hand


def test_a_row_flows_to_its_middle_which_stays():
    down, right = flow_targets(drawn("00000", "11111", "00000"))
    assert right.tolist() == [[0] * 5, [1, 1, 0, -1, -1], [0] * 5]
    assert not down.any()


def test_a_square_flows_to_its_middle_from_all_sides():
    flows = flow_targets(drawn("111", "111", "111"))
    half = 0.5**0.5
    np.testing.assert_allclose(flows[0], [[half, 1, half], [0, 0, 0], [-half, -1, -half]], atol=1e-6)
    np.testing.assert_allclose(flows[1], flows[0].T, atol=1e-6)


def test_objects_that_touch_part_at_their_border():
    right = flow_targets(drawn("111222", "111222", "111222"))[1]
    assert right[1].tolist() == [1, 0, -1, 1, 0, -1]


@pytest.mark.parametrize("rows", [["0"], ["1"], ["000", "010", "000"]])
def test_nothing_and_one_pixel_flow_nowhere(rows):
    assert not flow_targets(drawn(*rows)).any()


def test_each_piece_has_a_middle_of_its_own():
    flows = flow_targets(drawn("1110111"))
    assert flows[1].tolist() == [[1, 0, -1, 0, 1, 0, -1]]


def test_pixels_that_touch_at_corners_are_one_piece():
    down, right = flow_targets(drawn("100", "010", "001"))
    assert not down.any() and not right.any()  # heat comes, but rises neither to a side, nor up or down


def test_void_flows_nowhere():
    objects = drawn("01110")
    objects[0, 0] = -1
    assert flow_targets(objects)[1].tolist() == [[0, 1, 0, -1, 0]]


def test_a_bent_object_is_followed_inside():
    objects = drawn("1111111", "1000001", "1000001", "1000001")
    down, right = flow_targets(objects)
    assert down[1:, 0].tolist() == [-1] * 3 == down[1:, 6].tolist()  # up both legs
    assert (right[0, 1:3] > 0.9).all() and (right[0, 4:6] < -0.9).all()  # and then to the middle


def test_the_last_plane_shows():
    planes = np.stack([drawn("1120"), drawn("0330")])
    assert uppermost(planes).tolist() == [[1, 3, 3, 0]]
    planes[0, 0, 0], planes[0, 0, 1] = -1, -1
    assert uppermost(planes).tolist() == [[-1, 3, 3, 0]]
    assert planes[0].tolist() == [[-1, -1, 2, 0]]  # as they were


# By a slow twin


@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_loops(seed):
    objects = blobs(np.random.default_rng(seed), 24, 6)
    np.testing.assert_allclose(flow_targets(objects), slow_twin(objects), atol=1e-6)


# By a law


def test_a_mirror_turns_the_flows_along_its_axis_round():
    objects = np.zeros((11, 13), np.int32)
    objects[2:9, 1:6], objects[3:8, 6:13] = 1, 2  # of odd sides, so that one pixel is the middle from all sides
    down, right = flow_targets(objects)
    for axis, signs in ((0, (-1, 1)), (1, (1, -1))):
        mirrored = flow_targets(np.ascontiguousarray(np.flip(objects, axis)))
        np.testing.assert_allclose(mirrored[0], signs[0] * np.flip(down, axis), atol=1e-6)
        np.testing.assert_allclose(mirrored[1], signs[1] * np.flip(right, axis), atol=1e-6)


def test_flows_have_the_length_one_in_objects_alone():
    objects = blobs(np.random.default_rng(7), 64, 30)
    lengths = np.hypot(*flow_targets(objects))
    assert not lengths[objects == 0].any()
    assert (lengths[objects > 0] == 0).sum() <= 2 * len(np.unique(objects))
    np.testing.assert_allclose(lengths[lengths > 0], 1, atol=1e-6)

"""Which cells find which object. Axes: N objects, P planes, G cells, H, W sides of the image."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.layers.grid_targets import cells_of_objects, mass_centres, sampled_masks
from segwright.layers.object_truth import ObjectTruth

RANGES = ((1, 8), (6, 64))


def truth_of(planes: torch.Tensor) -> ObjectTruth:
    """Objects of planes (P, H, W), with the boxes around them; those that have no pixels have an empty one."""
    boxes = []
    for number in range(1, max(int(planes.max()), 0) + 1):
        ys, xs = (planes == number).any(dim=0).nonzero().T
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4)
    return ObjectTruth(torch.tensor(boxes).float().reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64), planes)


def drawn(seed: int, count: int, shape: tuple[int, int] = (24, 32)) -> torch.Tensor:
    """Planes (2, H, W) of rectangles, some over others, some behind others, with a little void."""
    generator = np.random.default_rng(seed)
    planes = np.zeros((2, *shape), np.int32)
    for number in range(1, count + 1):
        y, x = generator.integers(shape)
        h, w = generator.integers(1, 12, 2)
        planes[generator.integers(2), y : y + h, x : x + w] = number
    planes[0, :2, 5:9] = -1
    return torch.from_numpy(planes)


def test_centres_by_hand():
    planes = torch.tensor([[[1, 1, 0], [1, -1, 3]], [[3, 0, 0], [0, 0, 0]]], dtype=torch.int32)
    centres, pixels = mass_centres(planes, 3)
    assert pixels.tolist() == [3, 0, 2]
    assert centres.tolist() == [pytest.approx([5 / 6, 5 / 6]), [0, 0], [1.5, 1]]


def test_cells_by_hand():
    """A square of 8 x 8 pixels in the middle of 16 x 16 is for the four cells around it; one pixel is for its own cell."""
    planes = torch.zeros(1, 16, 16, dtype=torch.int32)
    planes[0, 4:12, 4:12] = 1
    planes[0, 15, 0] = 2
    cells = cells_of_objects(truth_of(planes), (4, 2), RANGES)
    fine, coarse = cells[:16].reshape(4, 4), cells[16:].reshape(2, 2)
    assert fine.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [2, 0, 0, 0]]
    assert coarse.tolist() == [[1, 1], [1, 1]]  # the pixel is too small for this grid


def test_an_image_without_objects():
    empty = truth_of(torch.zeros(1, 8, 8, dtype=torch.int32))
    assert cells_of_objects(empty, (4, 2), RANGES).tolist() == [0] * 20
    masks = sampled_masks(empty, 4)
    assert masks.of(torch.zeros(0, dtype=torch.int64)).shape == (0, 4) and masks.known().all()


def test_void_is_for_nobody_unless_an_object_claims_it():
    planes = torch.full((1, 16, 16), -1, dtype=torch.int32)
    assert cells_of_objects(truth_of(planes), (4, 2), RANGES).tolist() == [-1] * 20
    planes[0, :8] = 0
    planes[0, 14, 14] = 1
    assert cells_of_objects(truth_of(planes), (4, 2), RANGES)[:16].tolist() == [0] * 8 + [-1] * 7 + [1]


def test_a_cell_is_for_the_object_whose_centre_lies_there_and_then_for_the_smaller():
    planes = torch.zeros(3, 16, 16, dtype=torch.int32)
    planes[0] = 1  # centre (8, 8), which claims the four cells around it
    planes[1, 4:10, 3:12] = 2  # centre (7.5, 7), which claims the upper two
    cells = cells_of_objects(truth_of(planes), (4,), ((1, 64),)).reshape(4, 4)
    assert cells.tolist() == [[0, 0, 0, 0], [0, 2, 2, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    planes[2, 1:12, 3:16] = 3  # centre (9.5, 6.5), larger than the second
    cells = cells_of_objects(truth_of(planes), (4,), ((1, 64),)).reshape(4, 4)
    assert cells.tolist() == [[0, 0, 0, 0], [0, 2, 3, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_no_object_is_too_small_or_too_large():
    planes = torch.zeros(2, 32, 32, dtype=torch.int32)
    planes[0, 3, 3], planes[1] = 1, 2
    cells = cells_of_objects(truth_of(planes), (4, 2), ((2, 6), (4, 8)))
    assert cells[:16].unique().tolist() == [0, 1] and cells[16:].unique().tolist() == [2]


def test_three_hundred_objects_each_have_a_cell():
    planes = torch.zeros(1, 320, 480, dtype=torch.int32)
    for number in range(300):
        y, x = 16 * (number // 20), 24 * (number % 20)
        planes[0, y + 2 : y + 12, x + 3 : x + 15] = number + 1
    cells = cells_of_objects(truth_of(planes), (40, 36), ((1, 96), (48, 192)))
    assert set(range(1, 301)) == set(cells[:1600].tolist()) - {0} and not cells[1600:].any()


def slow_twin(truth: ObjectTruth, grids, ranges) -> list[int]:
    """Each object in each grid by itself: first the cells near its middle, the largest object first, then all centres."""
    _, H, W = truth.planes.shape
    cells = []
    for side, (low, high) in zip(grids, ranges, strict=True):
        grid = np.zeros((side, side), int)
        void = (truth.planes == -1).any(dim=0).numpy()
        for r, c in np.ndindex(side, side):
            grid[r, c] = -int(void[int((r + 0.5) * H / side), int((c + 0.5) * W / side)])
        masks = [(truth.planes == number + 1).any(dim=0).numpy() for number in range(len(truth.class_ids))]
        order = sorted(range(len(masks)), key=lambda number: -(truth.planes == number + 1).sum().item())
        for only_centre in (False, True):
            for number in order:
                if not masks[number].any():
                    continue
                _, ys, xs = (truth.planes == number + 1).numpy().nonzero()
                x1, y1, x2, y2 = truth.boxes[number].tolist()
                size = np.clip(((x2 - x1) * (y2 - y1)) ** 0.5, ranges[0][0], ranges[-1][1])
                if not low <= size <= high:
                    continue
                about = 0 if only_centre else 0.1
                x, y, w, h = xs.mean() + 0.5, ys.mean() + 0.5, about * (x2 - x1), about * (y2 - y1)
                rows = [int(np.clip(np.floor(value * side / H), 0, side - 1)) for value in (y - h, y + h)]
                columns = [int(np.clip(np.floor(value * side / W), 0, side - 1)) for value in (x - w, x + w)]
                grid[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = number + 1
        cells += grid.flatten().tolist()
    return cells


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), count=st.integers(0, 12))
def test_equals_its_slow_twin(seed, count):
    truth, grids, ranges = truth_of(drawn(seed, count)), (7, 5, 3), ((1, 4), (3, 7), (5, 9))
    assert cells_of_objects(truth, grids, ranges).tolist() == slow_twin(truth, grids, ranges)


def test_flipping_flips():
    planes = drawn(1, 6)
    cells = cells_of_objects(truth_of(planes), (7,), ((1, 64),)).reshape(7, 7)
    flipped = cells_of_objects(truth_of(planes.flip(2)), (7,), ((1, 64),)).reshape(7, 7)
    assert torch.equal(flipped.flip(1), cells)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), stride=st.sampled_from([2, 4, 8]))
def test_masks_are_those_that_opencv_makes_smaller(seed, stride):
    """The authors' targets come from cv2 on bytes, which rounds a half up."""
    planes = drawn(seed, 8)
    masks = sampled_masks(truth_of(planes), stride).of(torch.arange(8))
    for number, mask in enumerate(masks, start=1):
        full = (planes == number).any(dim=0).numpy().astype(np.uint8)
        small = cv2.resize(full, (32 // stride, 24 // stride), interpolation=cv2.INTER_LINEAR)
        if small.any():
            assert np.array_equal(mask.reshape(small.shape).numpy(), small.astype(bool))
        else:
            assert mask.sum() == 1  # the cell of its centre


def test_a_pixel_that_no_sample_hits_is_one_cell():
    planes = torch.zeros(1, 8, 12, dtype=torch.int32)
    planes[0, 7, 8] = 1
    assert sampled_masks(truth_of(planes), 4).of(torch.tensor([0])).reshape(2, 3).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_void_is_known_to_be_void():
    planes = torch.zeros(2, 8, 8, dtype=torch.int32)
    planes[1, 2, 5] = -1
    assert sampled_masks(truth_of(planes), 4).known().tolist() == [True, False, True, True]

"""Masks at the pixels of an image. Axes: N objects, h, w sides of masks, H, W sides of the image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segwright.core.errors import ShapeError
from segwright.decoding.image_detections import ImageDetections
from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.paste import on_whole_pixels, paste_detections, paste_masks

GOLDEN = Path(__file__).parent.parent / "golden" / "paste_masks_a.safetensors"


def dense(runs: MaskRuns, shape: tuple[int, int]) -> np.ndarray:
    """Masks bool (N, H, W)."""
    masks = np.zeros((len(runs), *shape), bool)
    for number in range(len(runs)):
        for y, first, stop in runs[number]:
            assert not masks[number, y, first:stop].any()
            masks[number, y, first:stop] = True
    return masks


def slowly(box, mask, region, is_whole: bool, shape: tuple[int, int]) -> np.ndarray:
    """One mask (H, W), pixel by pixel."""
    h, w = mask.shape
    padded = np.pad(mask.astype(float), 1, mode="edge" if is_whole else "constant")
    found = np.zeros(shape, bool)
    for y in range(shape[0]):
        for x in range(shape[1]):
            if box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]:
                u = np.clip((x + 0.5 - region[0]) / (region[2] - region[0]) * w + 0.5, 0, w + 1)
                v = np.clip((y + 0.5 - region[1]) / (region[3] - region[1]) * h + 0.5, 0, h + 1)
                i, j = min(int(v), h), min(int(u), w)
                one, other = padded[i, j] * (j + 1 - u) + padded[i, j + 1] * (u - j), 0.0
                other = padded[i + 1, j] * (j + 1 - u) + padded[i + 1, j + 1] * (u - j)
                found[y, x] = one * (i + 1 - v) + other * (v - i) >= 0.5
    return found


def random_boxes(random: np.random.Generator, count: int, shape: tuple[int, int], largest: float) -> np.ndarray:
    """Boxes float32 (N, 4), some of them partly outside."""
    low = random.uniform(-5, np.array(shape[::-1]), (count, 2))
    return np.concatenate([low, low + random.uniform(0.3, largest, (count, 2))], axis=1).astype(np.float32)


def smooth_masks(random: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Masks float32 (N, side, side) with some borders."""
    coarse = torch.from_numpy(random.standard_normal((1, count, 5, 5), np.float32))
    return torch.nn.functional.interpolate(3 * coarse, size=(side, side), mode="bicubic").sigmoid()[0].numpy()


# By hand


def test_values_at_pixels_are_the_mask():
    mask = np.array([[[0.9, 0.1, 0.9], [0.4, 0.5, 0.6]]], np.float32)
    box = np.array([[1, 2, 4, 4]], np.float32)
    found = paste_masks(box, mask, box, np.array([False]), (5, 6))
    assert found.runs.tolist() == [[2, 1, 2], [2, 3, 4], [3, 2, 4]]


def test_probabilities_fade_at_a_box_and_not_at_the_end_of_all_that_was_seen():
    mask, box = np.full((1, 1, 1), 0.8, np.float32), np.array([[0, 0, 8, 8]], np.float32)
    # At pixel 0, 0.5 + 0.5/8 of the value are left along each axis; 0.8 times two such shares reach 0.5 from pixel 2 on or so.
    shares = 1 - abs(np.arange(8) + 0.5 - 4) / 8
    faded = dense(paste_masks(box, mask, box, np.array([False]), (8, 8)), (8, 8))[0]
    assert np.array_equal(faded, 0.8 * shares[:, None] * shares >= 0.5) and not faded[0].any() and faded[4, 4]
    assert dense(paste_masks(box, mask, box, np.array([True]), (8, 8)), (8, 8)).all()


def test_an_object_without_a_mask_fills_its_box():
    boxes = np.array([[0.5, 1, 2.5, 3], [1.6, 1.6, 2.4, 9], [-3, -3, 99, 99]], np.float32)
    found = paste_masks(boxes, np.zeros((3, 0, 0), np.float32), boxes, np.zeros(3, bool), (4, 5))
    expected = np.zeros((3, 4, 5), bool)
    expected[0, 1:3, :2] = True  # centres at 0.5 and 1.5; the one at 2.5 is on the right edge, and outside
    expected[2] = True  # and between 1.6 and 2.4 there is no centre
    assert np.array_equal(dense(found, (4, 5)), expected)


def test_an_object_of_one_pixel_and_boxes_that_are_none():
    boxes = np.array([[2, 1, 3, 2], [2, 1, 2, 2], [9, 9, 12, 12], [4, 0, 5, 1]], np.float32)
    found = dense(paste_masks(boxes, np.ones((4, 28, 28), np.float32), boxes, np.zeros(4, bool), (3, 5)), (3, 5))
    assert found.sum(axis=(1, 2)).tolist() == [1, 0, 0, 1] and found[0, 1, 2] and found[3, 0, 4]


def test_no_objects():
    found = paste_masks(np.zeros((0, 4)), np.zeros((0, 28, 28)), np.zeros((0, 4)), np.zeros(0, bool), (3, 3))
    assert len(found) == 0 and len(found.runs) == 0


def test_a_mask_that_alternates_gives_a_run_for_each_value():
    mask = np.tile(np.array([1, 0], np.float32), (1, 6, 40))
    box = np.array([[0, 0, 80, 6]], np.float32)
    found = paste_masks(box, mask, box, np.array([True]), (6, 80))
    assert len(found.runs) == 6 * 40 and (dense(found, (6, 80))[0] == (mask[0] > 0)).all()


def test_detections_at_a_corner_of_a_larger_view_and_on_another_grid():
    box = np.array([[1, 2, 3, 3], [0, 0, 0.1, 0.1]], np.float32)
    found = ImageDetections(box, np.array([0.9, 0.8]), np.array([4, 5]), np.ones((2, 1, 1), np.float32), box[[0, 0]])
    kept, pixels = paste_detections(found, (4, 4), (30, 30), corner=(5, 10), ratio=(2.0, 1.0))
    assert kept.class_ids.tolist() == [4] and kept.scores.tolist() == [0.9]
    assert pixels.extents().tolist() == [[14, 11, 16, 13]]


# Against the authors


def test_equals_detectron2():
    golden = load_file(GOLDEN)
    boxes, masks = golden["in/boxes"], golden["in/probs"][:, 0]
    found = dense(paste_masks(boxes, masks, boxes, np.zeros(len(boxes), bool), (40, 60)), (40, 60))
    assert np.array_equal(found, golden["out/detectron2.mask"] > 0)


def test_equals_torchvision():
    golden = load_file(GOLDEN)
    masks = golden["in/probs"][:, 0]
    boxes, regions = on_whole_pixels(golden["in/boxes"], masks.shape[-1])
    found = dense(paste_masks(boxes, masks, regions, np.zeros(len(boxes), bool), (40, 60)), (40, 60))
    assert np.array_equal(found, golden["out/torchvision.prob"][:, 0] >= 0.5)


@pytest.mark.parametrize("side", [28, 7])
def test_equals_torchvision_of_today(side):
    random, shape = np.random.default_rng(side), (50, 70)
    boxes = random_boxes(random, 200, shape, 40).clip(0, [70, 50, 70, 50])  # torchvision fails where nothing is inside
    masks = smooth_masks(random, 200, side)
    expected = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), shape)[:, 0].numpy()
    found = dense(paste_masks(*_arguments(boxes, masks), np.zeros(len(boxes), bool), shape), shape)
    is_clear = abs(expected - 0.5) > 1e-5  # what the rounding of either decides
    assert np.array_equal(found[is_clear], expected[is_clear] >= 0.5) and is_clear.mean() > 0.9999


def _arguments(boxes: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes, regions = on_whole_pixels(boxes, masks.shape[-1])
    return boxes, masks, regions


def test_whole_pixels_leave_boxes_without_masks_as_they_are():
    boxes = np.array([[0.2, 0.3, 5.5, 6.5]], np.float32)
    assert all(each is boxes for each in on_whole_pixels(boxes, 0))


# By a slow twin


@pytest.mark.parametrize("is_whole", [False, True])
def test_each_pixel_alone(is_whole):
    random, shape = np.random.default_rng(0), (19, 23)
    boxes = random_boxes(random, 30, shape, 25)
    regions = np.float32([[-1, -2, 24, 21]]).repeat(30, axis=0) if is_whole else boxes
    masks = random.random((30, 5, 9)).astype(np.float32)
    found = dense(paste_masks(boxes, masks, regions, np.full(30, is_whole), shape), shape)
    for box, mask, region, one in zip(boxes, masks, regions, found, strict=True):
        assert np.array_equal(one, slowly(box.astype(float), mask, region.astype(float), is_whole, shape))
    assert found.any(axis=(1, 2)).mean() > 0.7


# By a law


def test_a_mirrored_mask_gives_mirrored_pixels():
    random, shape = np.random.default_rng(1), (40, 60)
    boxes, masks = random_boxes(random, 50, shape, 30), smooth_masks(random, 50, 28)
    mirrored = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [60, 0, 60, 0]
    one = paste_masks(boxes.astype(float), masks, boxes, np.zeros(50, bool), shape)
    other = paste_masks(mirrored, masks[..., ::-1], mirrored, np.zeros(50, bool), shape)
    assert np.array_equal(dense(one, shape), dense(other, shape)[..., ::-1])


# By its messages


def test_numbers_that_differ_are_told():
    boxes = np.zeros((2, 4), np.float32)
    with pytest.raises(ShapeError, match=r"boxes are \(2, 4\), masks \(3, 28, 28\) and regions \(2, 4\); give \(N, 4\)"):
        paste_masks(boxes, np.zeros((3, 28, 28), np.float32), boxes, np.zeros(2, bool), (5, 5))

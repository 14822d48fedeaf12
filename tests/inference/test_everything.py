"""All objects of an image. Axes: N masks, P points, H, W."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from segwright.core.errors import SettingError, ShapeError
from segwright.decoding.query_pixels import Place
from segwright.inference import everything
from segwright.inference.everything import are_cut, crop_boxes, found_in, point_grid, segment_everything
from segwright.layers.prompts import PromptedMasks

GOLDEN = Path(__file__).parents[1] / "golden" / "sam_amg_a"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN.with_suffix(".safetensors")), json.loads(GOLDEN.with_suffix(".json").read_text())["config"]


def test_each_square_is_found_once(squares_prompter, squares):
    found = segment_everything(squares_prompter, squares, points_per_side=16)
    assert len(found) == 2 and found.instance_ids.tolist() == [1, 2]
    assert found.areas()[0] > found.areas()[1]  # the largest first
    assert found.scores.tolist() == pytest.approx([0.95, 0.95])  # neither the blurred nor the poor answers
    for index, (rows, columns) in enumerate([(slice(32, 60), slice(32, 44)), (slice(4, 20), slice(8, 24))]):
        wanted = np.zeros((64, 64), bool)
        wanted[rows, columns] = True
        assert (found.mask(index) & wanted).sum() / (found.mask(index) | wanted).sum() > 0.8  # edges on patches of 4


def test_crops_are_looked_at_too_and_cut_objects_there_left_out(squares_prompter, squares):
    found = segment_everything(squares_prompter, squares, points_per_side=8, crop_layers=1)
    assert len(squares_prompter.network.sides) == 5 and len(found) == 2
    small = np.zeros((3, 256, 256), np.uint8)
    small[:, 100:106, 30:36] = 255  # no patch of the whole image is bright enough, and some of a crop are
    whole = segment_everything(squares_prompter, small, points_per_side=8)
    crops = segment_everything(squares_prompter, small, points_per_side=16, crop_layers=2)
    assert len(whole) == 0 and len(crops) == 1
    assert crops.mask(0)[100:106, 30:36].any() and crops.areas()[0] < 100  # there, on patches of 6 pixels
    left, top, right, bottom = crops.boxes_xyxy()[0]
    assert left >= 24 and right <= 42 and top >= 94 and bottom <= 112


def test_nothing_is_found_in_nothing(squares_prompter):
    found = segment_everything(squares_prompter, np.zeros((3, 30, 50), np.uint8), points_per_side=4)
    assert len(found) == 0 and found.shape == (30, 50) and found.planes.max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (70, 2)])
def test_images_of_odd_shapes(shape, squares_prompter):
    image = np.full((3, *shape), 255, np.uint8)
    found = segment_everything(squares_prompter, image, points_per_side=4)
    assert found.shape == shape and len(found) == 1


def test_holes_and_islands_are_mended():
    logits = np.full((16, 16), -9.0, np.float32)
    logits[2:12, 2:12] = 9
    logits[5, 5], logits[14, 14] = -9, 9
    answers = PromptedMasks(torch.from_numpy(logits)[None, None, None], torch.tensor([[[0.99]]]))
    place = Place((0, 0), np.arange(16.0), np.arange(16.0))
    plain, mended = (found_in(answers, place, (0, 0), (16, 16), (16, 16), min_area=area) for area in (0, 4))
    assert plain.masks.areas().tolist() == [100] and mended.masks.areas().tolist() == [100]
    assert not np.array_equal(plain.masks.runs, mended.masks.runs)  # without the hole and without the island


def test_grids_and_crops_are_the_authors(golden):
    arrays, config = golden
    for layer in (0, 1):
        points = point_grid(config["points_per_side"] // config["downscale_per_layer"] ** layer)
        np.testing.assert_allclose(points, arrays[f"out/point_grid{layer}"], atol=1e-12)
    boxes, layers = crop_boxes(tuple(config["crop_im_size"]), config["crop_n_layers"])
    assert boxes.tolist() == arrays["out/crop_boxes"].tolist()
    assert layers.tolist() == arrays["out/crop_layer_idxs"].tolist()


def test_what_a_crop_cuts(golden):
    boxes = golden[0]["out/near_crop_edge_boxes"]  # whose crop is not told; this one explains the authors' answers
    found = are_cut(boxes, (0, 0, 60, 60), (60, 100))
    assert found.tolist() == golden[0]["out/near_crop_edge"].astype(bool).tolist() == [False, False, False, True]
    assert not are_cut(np.array([[0, 0, 99, 49]]), (0, 0, 100, 50), (50, 100)).any()  # the whole image cuts nothing
    random = np.random.default_rng(0)
    many, crop = random.integers(0, 200, (500, 4)), (30, 0, 150, 120)
    near = np.isclose(many, crop, atol=20, rtol=0) & ~np.isclose(many, (0, 0, 200, 140), atol=20, rtol=0)
    assert np.array_equal(are_cut(many, crop, (140, 200)), near.any(axis=1)) and near.any()


def test_crops_cover_the_image():
    for shape in ((100, 196), (7, 500), (1, 1)):
        boxes, layers = crop_boxes(shape, 2)
        for layer in range(3):
            covered = np.zeros(shape, bool)
            for left, top, right, bottom in boxes[layers == layer]:
                covered[top:bottom, left:right] = True
            assert covered.all()


def test_what_cannot_be_is_refused(squares_prompter, squares):
    with pytest.raises(SettingError, match="points_per_side is 0, crop_layers 0 and min_area 0; give at least 1, 0 to 4"):
        segment_everything(squares_prompter, squares, points_per_side=0)
    for layers in (-1, 5):
        with pytest.raises(SettingError, match=f"crop_layers {layers}"):
            segment_everything(squares_prompter, squares, crop_layers=layers)
    with pytest.raises(ShapeError, match=r"\(3, H, W\) is needed"):
        segment_everything(squares_prompter, squares[:1])
    assert everything.POINTS_PER_SIDE == 32


def test_images_of_fewer_pixels_than_crops_are_looked_at():
    for shape in ((1, 1), (1, 7), (3, 2)):
        boxes, layers = crop_boxes(shape, 3)
        assert (boxes[:, 2] > boxes[:, 0]).all() and (boxes[:, 3] > boxes[:, 1]).all() and len(boxes) == len(layers)
        assert boxes[0].tolist() == [0, 0, shape[1], shape[0]]


def test_a_score_that_is_no_number_is_refused(squares_prompter, squares):
    with pytest.raises(SettingError, match="min_score is no number; give a score from 0 to 1"):
        segment_everything(squares_prompter, squares, min_score=float("nan"))

"""Pixels of queries by hand and against slow twins. Axes: Q queries, K classes, N objects, h, w sides of masks, H, W."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.query_pixels import Place, class_labels, mean_probabilities, to_probabilities, winners

MASKS = np.random.default_rng(0).normal(0, 3, (5, 6, 8)).astype(np.float32)
SHAPE = (24, 32)  # four times the sides of the masks
WHOLE = Place.of((0, 0), SHAPE, (6, 8), (1.0, 1.0), SHAPE)


def pixels() -> np.ndarray:
    """The probabilities float32 (Q, H, W)."""
    return F.interpolate(torch.from_numpy(MASKS)[None], size=SHAPE, mode="bilinear")[0].sigmoid().numpy()


def test_places_of_an_image_that_is_seen_whole():
    place = Place.of((0, 0), (4, 8), (1, 2), (1.0, 1.0), (4, 6))
    assert place.first == (0, 0) and place.shape == (4, 6)
    assert place.rows.tolist() == [0, 0, 0, 0]  # one value, for all pixels
    assert place.columns.tolist() == [0, 0, 0.125, 0.375, 0.625, 0.875]


def test_places_of_a_tile_are_the_pixels_whose_centres_it_sees():
    place = Place.of((0, 8), (4, 8), (4, 8), (1.0, 0.5), (4, 8))  # two pixels of the network for one of the image
    assert place.first == (0, 4) and place.shape == (4, 4)
    assert place.columns.tolist() == [0.5, 2.5, 4.5, 6.5] and place.rows.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("sharpness", [0.3, 1, 20])  # from cells that many classes may win to cells that one has
def test_labels_are_the_highest_sums_in_bands_of_any_height(monkeypatch, sharpness):
    probs = np.random.default_rng(1).dirichlet(np.full(4, 1 / sharpness), 5).astype(np.float32)
    masks = MASKS * np.float32(sharpness)
    full = F.interpolate(torch.from_numpy(masks)[None], size=SHAPE, mode="bilinear")[0].sigmoid().numpy()
    slow = np.einsum("qk,qhw->khw", probs, full).argmax(axis=0)
    for values in (2**22, 5 * MASKS.shape[2] * 2, 1):
        monkeypatch.setattr("segwright.decoding.query_pixels.BAND_VALUES", values)
        labels = class_labels(probs, masks, WHOLE)
        assert (labels == slow).all() and labels.dtype == np.uint8


def test_labels_of_a_part_of_the_masks():
    probs = np.random.default_rng(1).dirichlet(np.ones(4), 5).astype(np.float32)
    part = Place.of((0, 0), SHAPE, (6, 8), (1.0, 1.0), (17, 23))
    assert (class_labels(probs, MASKS, part) == class_labels(probs, MASKS, WHOLE)[:17, :23]).all()


def test_one_value_is_one_class():
    place = Place.of((0, 0), (3, 4), (1, 1), (1.0, 1.0), (3, 4))
    assert (class_labels(np.array([[0.2, 0.7]]), np.zeros((1, 1, 1), np.float32), place) == 1).all()
    many = class_labels(np.eye(300)[:1], np.zeros((1, 1, 1), np.float32), place)
    assert many.dtype == np.uint16 and not many.any()


def test_probabilities_of_logits_far_off_are_finite():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert to_probabilities(np.array([-1e4, 0, 1e4], np.float32)).tolist() == pytest.approx([0, 0.5, 1])


def test_means_over_the_pixels_of_objects():
    inside = pixels() >= 0.5
    inside[2] = False
    maps = [MaskRuns.of_map(mask.astype(np.int32), 1) for mask in inside]
    slow = [probs[mask].mean() if mask.any() else 0 for probs, mask in zip(pixels(), inside, strict=True)]
    np.testing.assert_allclose(mean_probabilities(MASKS, MaskRuns.joined(maps), WHOLE), slow, rtol=1e-5)


def test_means_of_a_tile_count_from_its_first_pixel():
    tile = Place.of((24, 32), SHAPE, (6, 8), (1.0, 1.0), (48, 64))
    moved = MaskRuns.of_map((pixels()[0] >= 0.5).astype(np.int32), 1, (24, 32))
    here = MaskRuns.of_map((pixels()[0] >= 0.5).astype(np.int32), 1)
    assert mean_probabilities(MASKS[:1], moved, tile) == mean_probabilities(MASKS[:1], here, WHOLE)


@pytest.mark.parametrize("scores", [np.ones(5), np.array([0.2, 0.9, 0.5, 1.0, 0.81])])
def test_the_winner_of_each_pixel_and_what_each_has(scores):
    found, won, half = winners(scores, MASKS, WHOLE)
    probs = pixels()
    best = (scores[:, None, None] * probs).argmax(axis=0)
    is_half = np.take_along_axis(probs, best[None], axis=0)[0] >= 0.5
    assert (found == np.where(is_half, best + 1, 0)).all()
    assert won.tolist() == np.bincount(best.ravel(), minlength=5).tolist()
    assert half.tolist() == (probs >= 0.5).sum(axis=(1, 2)).tolist()


def test_rows_in_threads_give_the_same(monkeypatch):
    one = winners(np.ones(5), MASKS, WHOLE)
    monkeypatch.setattr("segwright.decoding.upsample_argmax.BAND_PIXELS", 1)
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", 3)
    for ours, theirs in zip(one, winners(np.ones(5), MASKS, WHOLE), strict=True):
        assert (ours == theirs).all()


def test_nobody_wins_without_queries():
    found, won, half = winners(np.empty(0), MASKS[:0], WHOLE)
    assert not found.any() and found.shape == SHAPE and won.shape == half.shape == (0,)

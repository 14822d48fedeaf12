"""Channels of what an earlier network found. Axes: K classes, *S."""

import numpy as np
import pytest
from scipy import ndimage

from segwright.core import Classes, Sample, Segmentation
from segwright.transforms import class_channels
from segwright.transforms.class_channels import shown_classes, with_class_channels, with_errors

ORGANS = Classes.of(["background", "liver", "spleen"])
SIDES = (16, 16, 16)


def ball(middle: tuple[int, ...], radius: float, shape: tuple[int, ...] = SIDES) -> np.ndarray:
    places = np.indices(shape) - np.reshape(middle, (-1, *[1] * len(shape)))
    return (places**2).sum(axis=0) <= radius**2


@pytest.fixture
def always(monkeypatch):
    """Turn the changes on and off."""

    def turn(reshaped: float, removed: float) -> None:
        for name, value in (("RESHAPED", reshaped), ("REMOVED", removed), ("OF_A_CLASS", 1.0)):
            monkeypatch.setattr(class_channels, name, value)

    return turn


def test_each_class_but_the_background_gets_a_channel_in_the_type_of_the_image():
    image = np.array([[[7, 8], [9, 5]]], np.uint8)
    sample = with_class_channels(Sample.of("a", image), Segmentation.semantic(np.array([[0, 1], [2, -1]]), ORGANS))
    assert sample.image.dtype == np.uint8 and shown_classes(ORGANS) == [1, 2]
    assert sample.image.tolist() == [[[7, 8], [9, 5]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]


def test_classes_that_overlap_and_several_objects_of_one():
    parts = Classes.of(["tumour", "core"])
    masks = np.array([[[True, True, False]], [[False, True, False]]])
    found = Segmentation.instances(np.concatenate([masks, ~masks[:1]]), [0, 1, 0], classes=parts)
    sample = with_class_channels(Sample.of("a", np.zeros((1, 1, 3), np.float32)), found)
    assert sample.image[1:].tolist() == [[[1, 1, 1]], [[0, 1, 0]]]
    nothing = Segmentation.instances(np.empty((0, 1, 3), bool), [], classes=parts)
    assert not with_class_channels(Sample.of("a", np.zeros((1, 1, 3), np.float32)), nothing).image.any()


def test_borders_move_as_by_a_ball_of_one_voxel(always):
    """In a crop of 16 voxels the ball has a radius of 1: the six neighbours."""
    always(1.0, 0.0)
    mask = ball((8, 8, 8), 4) & ~ball((8, 8, 4), 1.0) | ball((2, 2, 2), 0.5) | ball((0, 8, 8), 2)
    grown, shrunk = ndimage.binary_dilation(mask), ndimage.binary_erosion(mask, border_value=1)
    closed, opened = ndimage.binary_erosion(grown, border_value=1), ndimage.binary_dilation(shrunk)
    wanted, seen = [grown, shrunk, closed, opened], set()
    given = mask[None].astype(np.float32)
    for seed in range(24):
        found = with_errors(given, np.random.default_rng(seed))
        assert found.dtype == np.float32
        (which,) = [number for number, each in enumerate(wanted) if (found[0] == each).all()]
        seen.add(which)
    assert seen == {0, 1, 2, 3} and (given[0] == mask).all()


def test_classes_that_exclude_each_other_still_do(always):
    always(1.0, 0.0)
    left, right = ball((8, 8, 5), 3), ball((8, 8, 11), 3)  # which touch once they grow
    right &= ~left
    for seed in range(12):
        assert with_errors(np.stack([left, right]).astype(np.float32), np.random.default_rng(seed)).sum(axis=0).max() <= 1
    outer = ball((8, 8, 8), 6)
    for seed in range(12):
        both = with_errors(np.stack([outer, ball((8, 8, 8), 3)]).astype(np.float32), np.random.default_rng(seed))
        assert both[0, 8, 8, 8] == both[1, 8, 8, 8] == 1  # the inner one is no hole of the outer


def test_pieces_are_lost_unless_they_are_large(always):
    always(0.0, 1.0)
    small, other, large = ball((2, 2, 2), 1), ball((2, 12, 2), 1), np.zeros(SIDES, bool)
    large[6:] = True
    left = {
        tuple(with_errors((small | other | large)[None].astype(np.float32), np.random.default_rng(seed))[0, 2, [2, 12], 2])
        for seed in range(8)
    }
    assert left == {(0, 1), (1, 0)}  # one of the two, never both
    assert (with_errors(large[None].astype(np.float32), np.random.default_rng(0))[0] == large).all()


def test_most_crops_stay_and_what_was_interpolated_becomes_0_or_1():
    given = np.stack([ball((8, 8, 8), 4), ball((3, 3, 3), 2)]) * np.float32(0.6)
    found = [with_errors(given, np.random.default_rng(seed)) for seed in range(60)]
    assert all(set(np.unique(each)) <= {0, 1} for each in found)
    same = np.mean([(each == (given > 0)).all() for each in found])
    assert 0.4 < same < 0.8  # 0.595 = (1 - 0.4 * 0.75) (1 - 0.2 * 0.75), but what is closed may stay the same
    assert (with_errors(given, np.random.default_rng(5)) == found[5]).all()
    assert not with_errors(np.zeros_like(given), np.random.default_rng(0)).any()

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.decoding.upsample_argmax import places, upsample_argmax
from segwright.decoding.upsample_probs import interpolated, upsample_probs


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


# By hand


def test_between_two_logits():
    probs = upsample_probs(np.array([[[0, 4]], [[0, 0]]], np.float32), (1, 4))
    assert probs[0, 0] == pytest.approx(1 / (1 + np.exp([0, -1, -3, -4])))
    assert probs.sum(axis=0) == pytest.approx(1)


def test_one_class_and_large_logits():
    assert upsample_probs(noise(1, 2, 3), (4, 5)).tolist() == np.ones((1, 4, 5)).tolist()
    assert upsample_probs(np.array([[[1e4]], [[-1e4]]], np.float32), (1, 1)).ravel().tolist() == [1, 0]


# By a slow twin


@pytest.mark.parametrize(("small", "large"), [((5, 7), (20, 21)), ((4, 4), (4, 4)), ((6, 9), (4, 5)), ((3, 4, 5), (6, 9, 10))])
def test_equals_interpolation_and_softmax(small, large):
    logits = noise(4, *small)
    mode = "bilinear" if len(small) == 2 else "trilinear"
    wanted = F.interpolate(torch.from_numpy(logits)[None], size=large, mode=mode, align_corners=False)[0].softmax(dim=0)
    assert upsample_probs(logits, large) == pytest.approx(wanted.numpy(), abs=1e-6)


@pytest.mark.parametrize(("small", "large"), [((5, 7), (20, 21)), ((6, 9), (4, 9)), ((3, 4, 5), (6, 4, 10))])
def test_maps_are_interpolated_as_torch_does(small, large):
    maps = noise(2, *small)
    mode = "bilinear" if len(small) == 2 else "trilinear"
    wanted = F.interpolate(torch.from_numpy(maps)[None], size=large, mode=mode, align_corners=False)[0]
    where = [places(size, count, (0.0, count)) for size, count in zip(large, small, strict=True)]
    assert interpolated(maps, where) == pytest.approx(wanted.numpy(), abs=1e-6)


# By a law


def test_the_highest_is_the_label():
    logits, spans = noise(5, 8, 9), ((0.0, 7.3), (0.0, 8.5))
    assert (upsample_probs(logits, (40, 41), spans).argmax(axis=0) == upsample_argmax(logits, (40, 41), spans)).mean() > 0.999

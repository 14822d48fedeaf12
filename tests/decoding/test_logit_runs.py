"""Coarse logits to runs of pixels. Axes: N masks, h, w sides of their logits, H, W of the pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

from segwright.codecs import rle
from segwright.decoding.logit_runs import runs_of_logits
from segwright.decoding.query_pixels import Place
from segwright.decoding.upsample_argmax import places

GOLDEN = Path(__file__).parents[1] / "golden" / "sam_amg_a"


def over(logits: np.ndarray, shape: tuple[int, int]) -> Place:
    """The place of an image (H, W) that logits (N, h, w) cover."""
    rows, columns = (places(size, count, (0.0, float(count))) for size, count in zip(shape, logits.shape[1:], strict=True))
    return Place((0, 0), rows, columns)


def masks_of(runs, shape: tuple[int, int]) -> np.ndarray:
    return np.stack([runs.taken(np.array([n])).painted(shape) > 0 for n in range(len(runs))])


def smooth(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Logits with areas that are far from every threshold, and borders between these."""
    torch.manual_seed(seed)
    coarse = torch.randn(1, shape[0], 4, 5)
    return (4 * F.interpolate(coarse, shape[1:], mode="bicubic"))[0].numpy()


def test_by_hand():
    logits = np.array([[[-2.0, 2.0]]], np.float32)
    masks, stability = runs_of_logits(logits, over(logits, (1, 8)))
    # pixels lie at -2, -2, -1.5, -0.5, 0.5, 1.5, 2, 2: three above 1, four above 0, five above -1
    assert masks[0].tolist() == [[0, 4, 8]] and stability.tolist() == pytest.approx([3 / 5])


def test_nothing_and_all():
    logits = np.stack([np.full((3, 4), -5.0), np.full((3, 4), 5.0), np.full((3, 4), 0.0)]).astype(np.float32)
    masks, stability = runs_of_logits(logits, over(logits, (2, 9)))
    assert [masks[n].tolist() for n in range(3)] == [[], [[0, 0, 9], [1, 0, 9]], []]
    assert stability.tolist() == [0, 1, 0]
    none, shares = runs_of_logits(logits[:0], over(logits, (2, 9)))
    assert len(none) == 0 and shares.shape == (0,)


def test_equals_the_authors_stability_and_masks():
    arrays = load_file(GOLDEN.with_suffix(".safetensors"))
    meta = json.loads(GOLDEN.with_suffix(".json").read_text())
    logits = arrays["in/logits"]
    as_they_are = Place((0, 0), np.arange(logits.shape[1]) * 1.0, np.arange(logits.shape[2]) * 1.0)
    _, stability = runs_of_logits(logits, as_they_are)
    np.testing.assert_allclose(stability, arrays["out/stability"], **meta["tolerance"]["stability"])
    masks, _ = runs_of_logits(logits - np.float32(meta["config"]["mask_threshold"]), as_they_are)
    assert np.abs(masks.areas() - arrays["out/rle_areas"]).max() <= meta["tolerance"]["rle_areas"]["atol"]
    for number, mask in enumerate(masks_of(masks, logits.shape[1:])[:3]):
        assert rle.encode(mask).tolist() == arrays[f"out/rle{number}"].tolist()
    top, left, bottom, right = masks.extents().T
    assert np.array_equal(np.stack([left, top, right - 1, bottom - 1], axis=1), arrays["out/boxes_from_masks"])


@pytest.mark.parametrize("shape", [(64, 96), (53, 71), (10, 7), (16, 24), (1, 200)])
def test_equals_interpolation_at_full_size(shape):
    logits = smooth(sum(shape), (7, 16, 24))
    whole = F.interpolate(torch.from_numpy(logits)[None], shape, mode="bilinear")[0].numpy()
    masks, stability = runs_of_logits(logits, over(logits, shape))
    found = masks_of(masks, shape)
    assert (found != (whole > 0))[np.abs(whole) > 1e-5].sum() == 0  # nearer to 0 rounding decides
    wanted = (whole > 1).sum(axis=(1, 2)) / np.maximum((whole > -1).sum(axis=(1, 2)), 1)
    np.testing.assert_allclose(stability, wanted, atol=2 / max(1, (whole > -1).sum(axis=(1, 2)).min()))


def test_runs_are_in_order_and_never_touch():
    masks, _ = runs_of_logits(smooth(1, (5, 30, 40)), over(np.zeros((1, 30, 40)), (211, 160)))
    for number in range(5):
        runs = masks[number].astype(int)
        assert (runs[:, 2] > runs[:, 1]).all()
        same_row = runs[1:, 0] == runs[:-1, 0]
        assert (runs[1:, 0] >= runs[:-1, 0]).all() and (runs[1:, 1] > runs[:-1, 2])[same_row].all()


def test_a_part_of_the_logits_at_a_place_in_a_larger_image():
    logits = smooth(2, (3, 16, 16))
    rows, columns = places(40, 16, (0.0, 10.0)), places(64, 16, (0.0, 16.0))
    whole = F.interpolate(torch.from_numpy(logits)[None], (64, 64), mode="bilinear")[0].numpy()[:, :40]
    masks, _ = runs_of_logits(logits, Place((100, 7), rows, columns))
    expected = np.zeros((3, 150, 80), bool)
    expected[:, 100:140, 7:71] = whole > 0
    assert (masks_of(masks, (150, 80)) != expected).sum() <= 3


def test_many_masks_in_threads_are_those_of_each_alone():
    logits = smooth(3, (40, 16, 16))
    place = over(logits, (128, 128))
    together, shares = runs_of_logits(logits, place)
    for number in (0, 17, 39):
        alone, share = runs_of_logits(logits[number : number + 1], place)
        assert np.array_equal(alone[0], together[number]) and share[0] == shares[number]

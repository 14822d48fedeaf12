import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.codecs import rle
from segwright.core.errors import FormatError, ShapeError
from segwright.metrics.matching import Objects
from segwright.metrics.rle_overlap import Runs, overlapping


def random_masks(seed, count, shape):
    """Masks of squares, noise, nothing and everything."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, *shape), bool)
    for mask in masks:
        kind = generator.integers(4)
        top, left = generator.integers(0, shape[0]), generator.integers(0, shape[1])
        mask[top : top + 9, left : left + 30] = True
        if kind == 1:
            mask[:] = generator.random(shape) < generator.random()
        elif kind > 1:
            mask[:] = kind == 2 and mask
    return masks


def pixels_of(runs):
    """The masks (N, size) that runs stand for."""
    masks = np.zeros((len(runs), runs.size), bool)
    for n, mask in enumerate(masks):
        for start, end in zip(*(each[runs.offsets[n] : runs.offsets[n + 1]] for each in (runs.starts, runs.ends)), strict=True):
            mask[start:end] = True
    return masks


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 5), st.tuples(st.integers(1, 40), st.integers(1, 70)))
def test_masks_become_runs(seed, count, shape):
    masks = random_masks(seed, count, shape)
    along_rows = Runs.of_masks(masks)
    np.testing.assert_array_equal(pixels_of(along_rows), masks.reshape(count, shape[0] * shape[1]))
    counts = [rle.encode(mask) for mask in masks]
    texts = [rle.to_text(each) for each in counts]
    for runs in (
        Runs.of_counts(counts, shape),
        Runs.of_texts(texts, shape),
        Runs.of_texts([text.encode() for text in texts], shape),
    ):
        np.testing.assert_array_equal(pixels_of(runs), masks.transpose(0, 2, 1).reshape(count, shape[0] * shape[1]))
        np.testing.assert_array_equal(runs.areas, masks.sum(axis=(1, 2)))
        boxes = runs.boxes_xywh(shape[0])
        edges = [rle.box_xyxy(each, shape) for each in counts]
        np.testing.assert_array_equal(boxes, np.array([[x, y, x2 - x, y2 - y] for x, y, x2, y2 in edges]).reshape(-1, 4))
    np.testing.assert_array_equal(along_rows.areas, masks.sum(axis=(1, 2)))
    assert (along_rows.starts < along_rows.ends).all()


def test_masks_may_lie_anywhere():
    masks = random_masks(1, 6, (17, 23))
    for view in (masks[1:], masks[::2], masks[:, ::-1], masks[:, 3:9, 2:], np.asfortranarray(masks)):
        np.testing.assert_array_equal(pixels_of(Runs.of_masks(view)), view.reshape(len(view), -1))
    volume = np.zeros((2, 3, 4, 5), bool)
    volume[1, 2, 3, 4] = True
    assert Runs.of_masks(volume).starts.tolist() == [59]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(0, 6), st.sampled_from([0.01, 0.5, 1 - 1e-10]))
def test_overlaps_equal_the_slow_twin(seed, count, objects, least):
    generator = np.random.default_rng(seed)
    masks, true = random_masks(seed, count, (20, 40)), random_masks(seed, objects, (20, 40))
    class_ids, true_class_ids = generator.integers(0, 2, count), generator.integers(0, 2, objects)
    is_crowd = generator.random(objects) < 0.3
    runs, true_runs = Runs.of_masks(masks), Runs.of_masks(true)
    detections, truth = Objects(class_ids, runs.areas), Objects(true_class_ids, true_runs.areas, is_crowd=is_crowd)
    expected = []
    for d in range(count):
        for g in range(objects):
            shared = (masks[d] & true[g]).sum()
            overlap = shared / (masks[d].sum() if is_crowd[g] else (masks[d] | true[g]).sum()) if shared else 0
            if class_ids[d] == true_class_ids[g] and overlap >= least:
                expected.append((d, g, overlap))
    assert list(zip(*overlapping(runs, detections, true_runs, truth, least), strict=True)) == expected


def test_a_pair_just_at_the_threshold_is_kept():
    """55 of 100 pixels: 0.55 * 100 is above 55 in float64, 55 / 100 is not below 0.55."""
    masks = np.zeros((2, 10, 10), bool)
    masks[0, :5], masks[0, 5, :5], masks[1] = True, True, True
    one = Objects(np.zeros(1, int), np.ones(1))
    assert overlapping(Runs.of_masks(masks[:1]), one, Runs.of_masks(masks[1:]), one, 0.55)[2].tolist() == [0.55]


def test_messages():
    with pytest.raises(ShapeError, match="masks are uint8, bool is needed; compare them with a threshold"):
        Runs.of_masks(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(FormatError, match="region 1: the run lengths add up to 4 pixels, the image has 3 x 3"):
        Runs.of_texts(["9", rle.to_text(np.array([4], np.uint32))], (3, 3))
    with pytest.raises(FormatError, match="region 0: the run lengths add up to 4 pixels"):
        Runs.of_counts([np.array([4], np.uint32)], (3, 3))
    with pytest.raises(FormatError, match="the compressed run lengths are damaged at character 1"):
        Runs.of_texts(["9", " "], (3, 3))
    with pytest.raises(FormatError):
        Runs.of_texts(["9", "Ä"], (3, 3))
    one = Objects(np.zeros(1, int), np.ones(1))
    with pytest.raises(ShapeError, match="of an image of 6 pixels and the truth of 9; predict at the size"):
        overlapping(Runs.of_masks(np.ones((1, 2, 3), bool)), one, Runs.of_masks(np.ones((1, 3, 3), bool)), one, 0.5)

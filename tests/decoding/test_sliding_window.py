import tracemalloc
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from segwright.core.errors import ShapeError
from segwright.decoding.sliding_window import (
    OVERLAP,
    Axis,
    bricks,
    labels_at,
    located,
    smallest_tile,
    sums_bytes,
    tiled_label_rows,
    tiled_labels,
    tiled_maps,
    tiled_probs,
)
from segwright.decoding.upsample_argmax import upsample_argmax


def pooled(image: np.ndarray, stride: int) -> np.ndarray:
    """An image (C, *S) averaged over blocks, so a network of this stride that sees nothing beyond its block."""
    for axis in range(1, image.ndim):
        shape = (*image.shape[:axis], image.shape[axis] // stride, stride, *image.shape[axis + 1 :])
        image = image.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return image


def blurred(image: np.ndarray) -> np.ndarray:
    """Means of 3 x 3 with zeros beyond the border: a network that sees a tile's border."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    height, width = image.shape[1:]
    return sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)) / np.float32(9)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def each(run):
    """A network that is asked about a batch of images, from one for a single image."""
    return lambda images: np.stack([run(image) for image in images])


def joined(image: np.ndarray, run, tile: tuple[int, ...], at_once: int = 1, over=Axis.over) -> np.ndarray:
    """All new logits of the bricks, each of which is given once."""
    whole = np.empty(0)
    for brick in bricks(image, each(run), tile, at_once, over):
        whole = whole if whole.size else np.full((len(brick.logits), *brick.total), np.nan, np.float32)
        assert brick.logits.shape[1:] == tuple(stop - first for first, stop in zip(brick.first, brick.stop, strict=True))
        new = tuple(slice(first + 1, stop) for first, stop in zip(brick.first, brick.stop, strict=True))
        assert np.isnan(whole[:, *new]).all()
        whole[:, *new] = brick.logits[:, *[slice(1, None)] * len(new)]
    assert not np.isnan(whole).any()
    return whole


# By hand


def test_two_tiles_share_their_overlap():
    axis = Axis.over(6, 4)
    assert axis.starts.tolist() == [0, 2]
    assert axis.weights[0].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3])  # distances 1, 0.5 to the border against 0.5, 1
    assert axis.weights[1].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_one_tile_is_enough_for_its_own_size():
    assert Axis.over(5, 5).starts.tolist() == [0]
    assert Axis.over(5, 5).weights.tolist() == [[1.0] * 5]


def test_an_image_of_one_tile_is_run_once():
    seen = []
    image = noise(2, 8, 12)
    tiled_labels(image, each(lambda part: seen.append(part.shape) or part), (8, 12), (8, 12), (8, 12))
    assert seen == [(2, 8, 12)]


# By a slow twin


def test_equals_weighted_sums_over_the_whole_image():
    image, tile = noise(2, 20, 26), (8, 12)
    total, weight = np.zeros((2, 20, 26)), np.zeros((20, 26))
    rows, columns = Axis.over(20, 8), Axis.over(26, 12)
    for y, wy in zip(rows.starts, rows.weights, strict=True):
        for x, wx in zip(columns.starts, columns.weights, strict=True):
            total[:, y : y + 8, x : x + 12] += np.outer(wy, wx) * blurred(image[:, y : y + 8, x : x + 12])
            weight[y : y + 8, x : x + 12] += np.outer(wy, wx)
    np.testing.assert_allclose(weight, 1, atol=1e-6)
    np.testing.assert_allclose(joined(image, blurred, tile), total, atol=1e-6)


def summed(image: np.ndarray, run, tile: tuple[int, ...], over) -> np.ndarray:
    """The weighted sum of all tiles in one array of the size of the image, which a network of stride 1 sees."""
    axes, total = [over(side, part) for side, part in zip(image.shape[1:], tile, strict=True)], np.zeros(image.shape)
    for number in np.ndindex(*(len(axis.starts) for axis in axes)):
        part = tuple(slice(axis.starts[n], axis.starts[n] + side) for axis, n, side in zip(axes, number, tile, strict=True))
        weights = [axis.weights[n] for axis, n in zip(axes, number, strict=True)]
        total[:, *part] += run(image[:, *part]) * reduce(np.multiply.outer, weights)
    return total


@pytest.mark.parametrize("over", [Axis.over, Axis.gaussian])
@pytest.mark.parametrize(
    ("size", "tile"), [((9, 20, 13), (4, 8, 5)), ((7, 8, 30), (7, 3, 9)), ((23, 31), (6, 10)), ((6, 40), (6, 9))]
)
def test_bricks_are_cut_out_of_the_sum_and_begin_one_before(over, size, tile):
    """Tiles tell their own corner, so that no two say the same of a logit."""
    image = noise(3, *size)
    whole = summed(image, lambda part: part - part[:, *[slice(0, 1)] * len(size)], tile, over)
    for brick in bricks(image, each(lambda part: part - part[:, *[slice(0, 1)] * len(size)]), tile, 2, over):
        begin = [max(first, 0) for first in brick.first]
        wanted = whole[:, *(slice(at, stop) for at, stop in zip(begin, brick.stop, strict=True))]
        found = brick.logits[:, *(slice(at - first, None) for at, first in zip(begin, brick.first, strict=True))]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


# By a law


@given(tile=st.integers(1, 40), more=st.integers(0, 200))
def test_weights_sum_to_one_and_tiles_overlap(tile, more):
    size = tile + more
    axis = Axis.over(size, tile)
    total = np.zeros(size)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        total[start : start + tile] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[0] == 0 and axis.starts[-1] == size - tile
    assert (np.diff(axis.starts) <= np.ceil(tile * (1 - OVERLAP))).all()
    assert (np.diff(axis.starts) > 0).all()


@given(most=st.integers(4, 60).map(lambda n: 4 * n), more=st.integers(1, 900))
def test_smaller_tiles_are_not_more(most, more):
    small = smallest_tile(most + more, most)
    assert most / 2 < small <= most
    rounded = min(-(-small // 4) * 4, most)  # so that a quarter of it is whole
    assert len(Axis.over(most + more, rounded).starts) == len(Axis.over(most + more, most).starts)


@settings(max_examples=15)
@given(
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    tile=st.tuples(st.integers(2, 6), st.integers(2, 6)),
    stride=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 9),
)
def test_a_pointwise_network_does_not_notice_tiles(size, tile, stride, seed):
    size = tuple(max(side, most) * stride for side, most in zip(size, tile, strict=True))
    tile = tuple(side * stride for side in tile)
    image = np.random.default_rng(seed).standard_normal((3, *size), dtype=np.float32)
    shape, covered = (31, 17), (size[0] - 0.7, size[1] - 0.3)
    found = tiled_labels(image, each(lambda part: pooled(part, stride)), tile, shape, covered)
    spans = tuple((0.0, end / stride) for end in covered)
    assert (found == upsample_argmax(pooled(image, stride), shape, spans)).mean() > 0.995  # ties within rounding
    np.testing.assert_allclose(joined(image, lambda part: pooled(part, stride), tile), pooled(image, stride), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_network_does_not_notice_tiles_in_3d(stride):
    image = noise(3, 12, 16, 20)
    found = tiled_labels(image, each(lambda part: pooled(part, stride)), (4, 8, 8), (25, 16, 21), (12, 16, 20))
    assert (found == upsample_argmax(pooled(image, stride), (25, 16, 21))).mean() > 0.999


@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_tiles_in_batches_give_the_same_to_the_bit(at_once):
    image, seen = noise(2, 20, 50), []
    alone = joined(image, blurred, (8, 12))
    together = joined(image, lambda part: seen.append(1) or blurred(part), (8, 12), at_once)
    np.testing.assert_array_equal(together, alone)
    batches = []
    tiled_labels(image, lambda parts: batches.append(len(parts)) or each(blurred)(parts), (8, 12), (20, 50), (20, 50), at_once)
    assert sum(batches) == len(seen) and max(batches) == min(at_once, 6)  # a row holds six tiles


def test_the_seam_does_not_show():
    image = noise(1, 40, 40)
    found, whole = joined(image, blurred, (16, 16)), blurred(image)
    inner = np.abs(found - whole)[0, 1:-1, 1:-1]
    assert inner.max() < 0.1 * np.abs(whole).max()  # a tile's own border, where zeros were seen, hardly counts


def test_no_array_of_all_classes_exists_at_full_size():
    classes, height, width, tile = 100, 1024, 128, 128
    image = noise(1, height, width)
    weights = noise(classes, 1, 1)

    def run(parts: np.ndarray) -> np.ndarray:
        return weights * parts

    tiled_labels(image[:, :256], run, (tile, 64), (256, width), (256, width))  # the kernels are compiled
    tracemalloc.start()
    tiled_labels(image, run, (tile, 64), (height, width), (height, width))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    band, one_tile = 4 * classes * (tile + 1) * width, 4 * classes * tile * 64
    assert peak < band + 3 * one_tile + 2 * height * width
    assert peak < 0.3 * 4 * classes * height * width


def test_a_volume_takes_what_is_said_before():
    """What is kept of neighbours, the logits of a tile twice, as a brick is as large at most, labels, and two rows of tiles."""
    size, tile, classes = (96, 80, 96), (32, 32, 32), 6
    image, weights = noise(1, *size), noise(classes, 1, 1, 1)
    tiled_labels(image[:, :40], each(lambda part: weights * part), tile, (40, *size[1:]), (40, *size[1:]))  # compiles
    tracemalloc.start()
    tiled_labels(image, lambda parts: weights * parts, tile, size, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.05 * (sums_bytes(size, tile, classes) + 2 * 4 * classes * 33**3 + image.size + 2 * 32 * 80 * 96)
    assert peak < 4 * classes * image.size / 2


@pytest.mark.parametrize("size", [(9, 20, 13), (23, 31)])
def test_threads_give_the_same_to_the_bit(size, monkeypatch):
    image, tile, run = noise(5, *size), tuple(side // 2 for side in size), np.sin
    alone = joined(image, run, tile)
    monkeypatch.setattr("segwright.decoding.upsample_argmax.BAND_PIXELS", 1)
    monkeypatch.setattr("segwright.decoding.upsample_argmax.numba.config.NUMBA_NUM_THREADS", 3)
    np.testing.assert_array_equal(joined(image, run, tile), alone)


@pytest.mark.parametrize("tile", [(48, 64), (24, 32), (16, 64)])
def test_maps_come_in_rows_that_make_up_the_whole(tile):
    image, sizes = noise(3, 48, 64), ((90, 121), (45.0, 60.5))
    run = each(lambda crop: pooled(blurred(crop), 4))
    parts, done = [], 0
    for first, maps in tiled_maps(image, run, tile, *sizes):
        assert first == done and maps.dtype == np.float32
        parts.append(maps)
        done += maps.shape[1]
    assert len(parts) == len(Axis.over(12, tile[0] // 4).starts)
    maps = np.concatenate(parts, axis=1)
    probs = np.exp(maps) / np.exp(maps).sum(axis=0)
    np.testing.assert_allclose(probs, tiled_probs(image, run, tile, *sizes), atol=1e-6)


@pytest.mark.parametrize(("size", "shape"), [((12, 16, 20), (12, 16, 20)), ((12, 16, 20), (25, 9, 31)), ((24, 40), (5, 7))])
def test_rows_of_labels_make_up_the_whole(size, shape):
    image, tile = noise(3, *size), tuple(side // 2 for side in size)
    rows, done = [], 0
    for first, labels in tiled_label_rows(image, each(np.sin), tile, shape, size):
        assert first == done
        rows.append(labels)
        done += len(labels)
    assert done == shape[0] and len(rows) > 1
    np.testing.assert_array_equal(np.concatenate(rows), tiled_labels(image, each(np.sin), tile, shape, size))
    np.testing.assert_array_equal(np.concatenate(rows), tiled_probs(image, each(np.sin), tile, shape, size).argmax(axis=0))


def test_parts_decide_each_pixel_once_and_from_logits_of_their_own():
    image, where = noise(2, 16, 24), [np.linspace(0, 15, 9), np.arange(24.0)]
    counts, found = np.zeros((9, 24), int), np.zeros((9, 24), np.uint8)
    for part in located(bricks(image, each(np.sin), (8, 8)), lambda total: where if total == (16, 24) else []):
        counts[part.place] += 1
        assert all(at.min() >= 0 and at.max() <= side - 1 for at, side in zip(part.where, part.logits.shape[1:], strict=True))
        found[part.place] = labels_at(part.logits, part.where)
    assert (counts == 1).all()
    np.testing.assert_array_equal(found, labels_at(np.sin(image), where))


# By its messages


def test_a_stride_that_does_not_divide_the_tile_is_refused():
    with pytest.raises(ShapeError, match="whole number of pixels per logit.*divisors"):
        tiled_labels(noise(1, 20, 20), each(lambda part: pooled(part[:, :9, :9], 3)), (10, 10), (20, 20), (20, 20))


@pytest.mark.parametrize("tile", [(48, 64), (24, 32), (16, 64)])
def test_labels_are_the_highest_probabilities(tile):
    image, sizes = noise(3, 48, 64), ((90, 121), (45.0, 60.5))
    run = each(lambda crop: pooled(blurred(crop), 4))
    probs = tiled_probs(image, run, tile, *sizes)
    assert probs.shape == (3, 90, 121) and probs.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert (probs.argmax(axis=0) == tiled_labels(image, run, tile, *sizes)).mean() > 0.999


def test_bells_of_tiles_are_those_of_nnunet():
    """By a slow twin: its tiles lie half a tile apart at most, and weigh as a Gaussian of an eighth of a side."""
    for size, tile in ((110, 64), (64, 64), (90, 20), (7, 3), (5, 1)):
        axis = Axis.gaussian(size, tile)
        count = int(np.ceil((size - tile) / (tile * 0.5))) + 1
        step = (size - tile) / (count - 1) if count > 1 else 0
        assert axis.starts.tolist() == [int(np.round(step * number)) for number in range(count)]
        point = np.zeros(tile)
        point[tile // 2] = 1
        bell = gaussian_filter(point, tile / 8, mode="constant")
        total = np.zeros(size)
        for start in axis.starts:
            total[start : start + tile] += bell
        for start, weights in zip(axis.starts, axis.weights, strict=True):
            assert weights == pytest.approx(bell / total[start : start + tile], rel=1e-4, abs=1e-6)

import cv2
import numpy as np
import pytest

from segwright.formats.smoothed_values import NO_VALUES, classes_among, count_values, without_noise


def disc(values, seed=0, size=96):
    """A mask of discs of each value on the first."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((size, size))
    mask = np.full((size, size), values[0], np.uint8)
    for value in values[1:]:
        row, column = rng.integers(size // 4, 3 * size // 4, 2)
        mask[(rows - row) ** 2 + (columns - column) ** 2 < (size // 5) ** 2] = value
    return mask


def over(masks):
    return sum(map(count_values, masks), NO_VALUES)


# By hand


def test_a_count_by_hand():
    mask = np.array([[0, 0, 0, 5], [0, 0, 0, 5], [0, 0, 0, 9]])
    found = count_values(mask)
    assert found.values.tolist() == [0, 5, 9] and found.counts.tolist() == [9, 2, 1]
    assert found.inside.tolist() == [6, 0, 0] and found.between.tolist() == [0, 1, 0]  # the lower 5 is beside 0 and 9
    assert found.covers.tolist() == [True, False, False]
    both = found + count_values(np.array([[9, 7]]))
    assert both.values.tolist() == [0, 5, 7, 9] and both.counts.tolist() == [9, 2, 1, 2]


def test_too_little_to_tell():
    assert classes_among(count_values(np.zeros((4, 4), int))) is None and classes_among(NO_VALUES) is None
    assert classes_among(count_values(disc([0, 255]))) is None  # nothing between


# By a slow twin


@pytest.mark.parametrize("highest", [5, 300, 70_000])
def test_counts_equal_those_of_a_slow_twin(highest):
    mask = np.random.default_rng(0).integers(0, 3, (9, 12)).astype(np.int64) * highest // 2
    found = count_values(mask)
    padded = np.pad(mask, 1, mode="edge")
    for value, count, inside, between in zip(found.values, found.counts, found.inside, found.between, strict=True):
        around = [padded[r : r + 3, c : c + 3] for r, c in zip(*np.nonzero(mask == value), strict=True)]
        assert count == len(around) and inside == sum((near == value).all() for near in around)
        assert between == sum(near.min() < value < near.max() for near in around)


def test_volumes_are_counted_slice_by_slice():
    volume = np.random.default_rng(0).integers(0, 4, (3, 8, 8))
    found, slices = count_values(volume), over(volume)
    assert np.array_equal(found.inside, slices.inside) and np.array_equal(found.between, slices.between)


# By a law


SMOOTHINGS = {
    "resized": lambda mask: cv2.resize(mask, (40, 40), interpolation=cv2.INTER_LINEAR),
    "halved": lambda mask: cv2.resize(mask, (48, 48), interpolation=cv2.INTER_AREA),
    "enlarged": lambda mask: cv2.resize(mask, (300, 300), interpolation=cv2.INTER_CUBIC),
    "blurred": lambda mask: cv2.GaussianBlur(mask, (0, 0), 1.5),
    "jpeg": lambda mask: cv2.imdecode(cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE),
}


@pytest.mark.parametrize("how", SMOOTHINGS)
@pytest.mark.parametrize("values", [[0, 255], [0, 100, 200], [0, 128, 255]])
def test_smoothing_leaves_the_classes(how, values):
    masks = [SMOOTHINGS[how](disc(values, seed, 240 if how == "resized" else 96)) for seed in range(6)]
    assert classes_among(over(masks)) == values
    if values == [0, 255]:
        assert classes_among(over([mask.astype(np.uint16) * 257 for mask in masks])) == [0, 65_535]


def numbers(seed, size, count):
    return np.random.default_rng(seed).integers(0, count, (96 // size, 96 // size)).repeat(size, 0).repeat(size, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("count", [3, 21, 150, 256, 3000])
def test_numbers_of_classes_are_no_smoothing(size, count):
    assert classes_among(over([numbers(seed, size, count) for seed in range(4)])) is None


def test_thin_things_are_no_smoothing():
    lines = disc([0, 60, 120, 180], 1)
    lines[::7] = 90
    lines[:, ::9] = 30
    layers = np.concatenate([np.zeros((40, 96)), np.arange(1, 9).repeat(2)[:, None] * np.ones(96), np.zeros((40, 96))])
    rng = np.random.default_rng(0)
    cells = np.zeros((96, 96), int)
    for number in range(1, 200):
        row, column = rng.integers(0, 94, 2)
        cells[row : row + 2, column : column + 2] = number
    cells[90:] = 255
    for mask in (lines, layers.astype(int), cells):
        assert classes_among(count_values(mask)) is None


def test_noise_of_files_that_are_not_exact():
    jpeg = SMOOTHINGS["jpeg"](disc([0, 120, 240]))
    found = count_values(without_noise(jpeg[None]))
    classes = classes_among(found, are_lossy=True)
    assert len(classes) == 3 and np.abs(np.array(classes) - [0, 120, 240]).max() <= 2
    exact = np.array([[[7, 200], [7, 9]], [[1, 0], [1, 1]], [[0, 0], [0, 0]]], np.uint8)
    assert without_noise(exact).tolist() == [[7 * 65_536 + 256, 200 * 65_536], [7 * 65_536 + 256, 7 * 65_536 + 256]]

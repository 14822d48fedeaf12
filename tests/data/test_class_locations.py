"""Where the pixels of a class are: found by a count of each band of rows."""

import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.data import class_locations
from segwright.data.class_locations import ClassLocations

CLASSES = Classes.of(["background", "cell", "wall"])


def reader_of(truth):
    return lambda window: Segmentation.semantic(truth.class_map()[window], truth.classes)


def test_pixels_are_counted_and_found_in_the_order_of_memory():
    truth = Segmentation.semantic(np.array([[0, 2, VOID], [2, 2, 0]]), CLASSES)
    found = ClassLocations.of(truth)
    assert found.counts().tolist() == [2, 0, 3]
    assert [found.pixel(2, n, reader_of(truth)).tolist() for n in range(3)] == [[0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("shape", [(7, 5), (3, 7, 5), (1, 1), (2, 1, 9)])
@pytest.mark.parametrize("band", [1, 11, 1 << 15])
def test_all_pixels_are_those_of_the_class_map(shape, band, monkeypatch):
    monkeypatch.setattr(class_locations, "BAND_PIXELS", band)
    class_map = np.random.default_rng(0).integers(-1, 3, shape)
    truth = Segmentation.semantic(class_map, CLASSES)
    found = ClassLocations.of(truth)
    for k in range(3):
        pixels = np.flatnonzero(class_map == k)
        assert found.counts()[k] == len(pixels)
        for number, pixel in enumerate(pixels):
            assert tuple(found.pixel(k, number, reader_of(truth))) == np.unravel_index(pixel, shape)


def test_a_later_plane_covers_an_earlier_one():
    masks = np.array([[[True, True, False]], [[False, True, True]]])
    found = ClassLocations.of(Segmentation.instances(masks, [1, 2], classes=CLASSES))
    assert found.counts().tolist() == [0, 1, 2]


def test_a_volume_takes_little_memory_and_one_band_is_read(monkeypatch):
    truth = Segmentation.semantic(np.ones((4, 256, 256), np.int64), CLASSES)
    found, read = ClassLocations.of(truth), []
    pixel = found.pixel(1, 200_000, lambda window: read.append(window) or reader_of(truth)(window))
    assert np.ravel_multi_index(tuple(pixel), truth.shape) == 200_000
    assert read == [(slice(3, 4), slice(0, 128), slice(0, 256))] and found.ends.nbytes == 8 * 3 * 8


@pytest.mark.parametrize(("k", "number"), [(0, 4), (0, -1), (3, 0), (1, 0)])
def test_a_pixel_that_is_not_there_is_refused(k, number):
    truth = Segmentation.semantic(np.zeros((2, 2), np.int64), CLASSES)
    with pytest.raises(ShapeError, match=rf"pixel {number} of class {k} was asked for, but classes have \[4, 0, 0\] pixels"):
        ClassLocations.of(truth).pixel(k, number, reader_of(truth))

from dataclasses import replace
from pathlib import Path

import numpy as np

from segwright.core import Dataset, Sample, Segmentation
from segwright.data.missing import void_where_missing

TRUTH = Segmentation.semantic(np.array([[0, 1, 1]]))


class Loader:
    """Loads one sample, and knows how to leave its image out."""

    def __init__(self, image, truth=TRUTH):
        self.sample = Sample.of("a", image, truth)

    def __call__(self, key):
        return self.sample

    def without_image(self, key):
        return replace(self.sample, image=self.sample.image[:0])


def dataset_of(load, file="a.tif"):
    return Dataset("here", TRUTH.classes, ("a",), load, {"a": Path(file)})


HOLE = np.array([[[5, 6, np.nan]]], np.float32)


def test_the_truth_is_void_where_the_image_has_no_value():
    data = dataset_of(Loader(HOLE))
    assert void_where_missing(data)[0].truth.class_map().tolist() == [[0, 1, -1]]
    assert data[0].truth.class_map().tolist() == [[0, 1, 1]]  # which a conversion keeps
    np.testing.assert_array_equal(void_where_missing(data)[0].image, HOLE)


def test_a_truth_without_image_knows_what_its_tiff_lacks():
    assert void_where_missing(dataset_of(Loader(HOLE))).without_images()[0].truth.class_map().tolist() == [[0, 1, -1]]
    picture = void_where_missing(dataset_of(Loader(np.zeros((1, 1, 3), np.uint8)), "a.png")).without_images()[0]
    assert len(picture.image) == 0 and picture.truth is TRUTH  # no pixel of it was read


def test_what_lacks_nothing_is_the_same():
    for load in (Loader(np.zeros((1, 1, 3), np.float32)), Loader(HOLE, None)):
        assert void_where_missing(dataset_of(load))[0] is load.sample

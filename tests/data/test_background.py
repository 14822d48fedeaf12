from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.data.background import with_background


def dataset_of(truth):
    sample = Sample.of("a", np.zeros((1, *truth.shape), np.uint8), truth)
    return Dataset("here", truth.classes, ("a",), lambda key: sample)


def test_objects_alone_get_a_background():
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], dtype=bool)
    data = with_background(dataset_of(Segmentation.instances(masks, [0, 0], classes=Classes.of(["cell"], is_thing=[True]))))
    assert data.classes.names == ("background", "cell") and data.classes.is_thing == (False, True)
    assert data[0].truth.class_map().tolist() == [[1, 1, 1, 0]]
    assert data[0].truth.areas().tolist() == [2, 2, 1]  # overlaps stay


def test_void_stays_void_around_objects():
    truth = Segmentation.panoptic(np.array([[1, 0, -1]]), [0], [1], classes=Classes.of(["cell"], is_thing=[True]))
    assert with_background(dataset_of(truth))[0].truth.class_map().tolist() == [[1, 0, -1]]


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
@pytest.mark.parametrize("is_thing", [True, False])
def test_a_background_that_nobody_drew_is_around_the_objects(name, is_thing):
    classes = Classes.of(["cell", name], is_thing=[True, is_thing])  # exports often list such a class, and never use it
    data = with_background(dataset_of(Segmentation.panoptic(np.array([[1, 0, -1]]), [0], [1], classes=classes)))
    assert data.classes == classes and data[0].truth.class_map().tolist() == [[0, 1, -1]]
    whole = dataset_of(Segmentation.semantic(np.array([[1, 0, -1]]), classes))
    assert with_background(whole)[0] is whole[0]


def test_data_that_name_stuff_stay_as_they_are():
    data = dataset_of(
        Segmentation.panoptic(np.array([[1, 0]]), [0], classes=Classes.of(["road", "car"], is_thing=[False, True]))
    )
    assert with_background(data) is data


def test_what_lies_in_no_region_is_background_where_classes_are_to_exclude_each_other():
    classes = Classes.of(["whole", "core"], regions=[[1, 2], [2]])
    data = dataset_of(Segmentation.regions(np.array([[[1, 1, 0]], [[0, 1, 0]]], bool), classes))
    assert with_background(data) is data
    filled = with_background(data, of_regions=True)
    assert filled.classes.names == ("background", "whole", "core") and not filled.classes.regions
    assert filled[0].truth.class_map().tolist() == [[1, 2, 0]]


class BothWays:
    """Loads samples with and without image."""

    def __init__(self, data):
        self.data = data

    def __call__(self, key):
        raise AssertionError("the photograph was decoded")

    def without_image(self, key):
        sample = self.data.load(key)
        return replace(sample, image=sample.image[:0])


def test_truths_without_photographs():
    whole = dataset_of(Segmentation.panoptic(np.array([[1, 0, -1]]), [0], [1], classes=Classes.of(["cell"], is_thing=[True])))
    bare = with_background(replace(whole, load=BothWays(whole))).without_images()[0]
    assert bare.image.shape == (0, 1, 3)
    np.testing.assert_array_equal(bare.truth.planes, with_background(whole)[0].truth.planes)

"""The loss of logits at a coarser grid is that of their upsampled copy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.tasks.semantic import Semantic, with_background


def test_the_target_is_the_class_map():
    class_map = np.array([[0, 1], [-1, 1]])
    sample = Sample.of("a", np.zeros((1, 2, 2), np.uint8), Segmentation.semantic(class_map))
    target = Semantic(CrossEntropy()).target(sample)
    assert target.dtype == np.int64 and (target == class_map).all()


@pytest.mark.parametrize(("size", "mode"), [((8, 12), "bilinear"), ((4, 8, 8), "trilinear")])
def test_coarse_logits_are_upsampled(size, mode):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, *(side // 4 for side in size), generator=generator)
    target = torch.randint(-1, 3, (2, *size), generator=generator)
    expected = F.cross_entropy(F.interpolate(coarse, size=size, mode=mode), target, ignore_index=-1)
    torch.testing.assert_close(Semantic(CrossEntropy()).loss(coarse, target), expected)


def test_a_sample_without_truth_is_named():
    with pytest.raises(UsageError, match="sample 'a' has no truth"):
        Semantic(CrossEntropy()).target(Sample.of("a", np.zeros((1, 2, 2), np.uint8)))


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

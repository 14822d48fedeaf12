"""Classes that are all stuff: the same segments, with nothing that is a thing. Axes: H, W."""

import numpy as np

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.data.stuff_alone import stuff_alone

CLASSES = Classes.of(["sky", "car"], is_thing=[False, True])
TRUTH = Segmentation.semantic(np.array([[0, 1], [1, 1]]), CLASSES)


def test_segments_are_the_same_and_no_class_is_a_thing():
    truths = {"a": TRUTH, "b": None}
    data = stuff_alone(Dataset("here", CLASSES, ("a", "b"), lambda key: Sample.of(key, np.zeros((3, 2, 2)), truths[key])))
    assert data.classes == Classes(CLASSES.names, CLASSES.colors, (False, False))
    for seen in (data, data.without_images()):
        assert seen.load("a").truth.classes == data.classes and (seen.load("a").truth.planes == TRUTH.planes).all()
        assert seen.load("b").truth is None

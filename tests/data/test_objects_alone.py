"""Data sets of objects alone: what is left, what becomes void, and who is refused. Axes: P planes, H, W."""

import json

import numpy as np
import pytest

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.data.objects_alone import objects_alone, things_of
from segwright.formats import mask_folder, open_dataset, synthetic

CLASSES = Classes(("sky", "car", "cat"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), (False, True, True))


def dataset(truth: Segmentation | None, classes: Classes = CLASSES) -> Dataset:
    shape = truth.shape if truth is not None else (2, 5)
    return Dataset("here", classes, ("a",), lambda key: Sample.of(key, np.zeros((1, *shape), np.uint8), truth))


def test_objects_stay_stuff_is_nothing_and_a_thing_without_number_is_void():
    segment_map = np.array([[1, 1, 2, 3, 4], [VOID, 0, 2, 3, 4]], np.int32)
    truth = Segmentation.panoptic(segment_map, [0, 2, 1, 2], [0, 7, 0, 9], classes=CLASSES)
    data = objects_alone(dataset(truth))
    assert data.classes.names == ("car", "cat") and all(data.classes.is_thing)
    found = data[0].truth
    assert found.planes.tolist() == [[[0, 0, 1, VOID, 2], [VOID, 0, 1, VOID, 2]]]
    assert found.class_ids.tolist() == [1, 1] and found.instance_ids.tolist() == [7, 9]


def test_objects_that_overlap_keep_their_planes():
    masks = np.zeros((2, 3, 3), bool)
    masks[0, :2], masks[1, 1:] = True, True
    truth = Segmentation.instances(masks, [1, 2], classes=CLASSES)
    found = objects_alone(dataset(truth))[0].truth
    assert (found.masks() == masks).all() and found.class_ids.tolist() == [0, 1]


def test_a_sample_without_truth_stays_as_it_is():
    assert objects_alone(dataset(None))[0].truth is None


def test_data_without_things_are_refused_with_what_to_do():
    stuff = Classes(("sky", "road"), ((0, 0, 0), (1, 1, 1)), (False, False))
    with pytest.raises(UsageError, match=r"here has no class of things.*sky, road.*--task semantic.*instances"):
        objects_alone(dataset(None, stuff))


def test_the_remedy_makes_objects_of_maps_of_numbers(tmp_path):
    mask_folder.write(tmp_path, synthetic.cells(2, shape=(32, 32), seed=1))
    told = json.loads((tmp_path / "classes.json").read_text())
    as_classes = {"classes": [f"number {number}" for number in range(99)], "masks": "classes"}
    (tmp_path / "classes.json").write_text(json.dumps(as_classes))
    with pytest.raises(UsageError, match='"masks": "instances"'):
        objects_alone(open_dataset(tmp_path))
    (tmp_path / "classes.json").write_text(json.dumps({"classes": told["classes"]} | {"masks": "instances"}))
    assert len(objects_alone(open_dataset(tmp_path))[0].truth)


def test_things_alone_keep_their_names_and_colours():
    assert things_of(CLASSES).names == CLASSES.names[1:] and things_of(CLASSES).colors == CLASSES.colors[1:]
    stuff = Classes.of(["a", "b"])
    assert things_of(stuff) is stuff

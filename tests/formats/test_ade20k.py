import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import mask_folder
from segwright.formats.ade20k import CLASSES, matches, read, write
from segwright.formats.label_maps import to_maps

THREE = Classes.of(["road", "car", "sky"], is_thing=[False, True, False])
IMAGE = np.zeros((1, 3, 3), dtype=np.uint8)


def put(root, name, values, part="training", has_image=True):
    for folder, array in (("annotations", np.array([values], dtype=np.uint8)), ("images", IMAGE)):
        if folder == "annotations" or has_image:
            path = root / folder / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def sample(key, planes, class_ids, instance_ids=None, classes=THREE):
    truth = Segmentation.panoptic(np.array(planes), class_ids, instance_ids, classes=classes)
    return Sample.of(key, np.zeros((3, *truth.shape), np.uint8), truth)


# By hand: the published encodings


def test_the_release_stores_void_as_0(tmp_path):
    put(tmp_path, "ADE_train_00000001", [0, 1, 150])
    put(tmp_path, "ADE_val_00000001", [0, 2, 13], part="validation")
    data = read(tmp_path)
    assert matches(tmp_path) and data.keys == ("train__ADE_train_00000001", "val__ADE_val_00000001")
    assert data.classes == CLASSES and len(CLASSES) == 150
    assert data[0].truth.class_map().tolist() == [[VOID, 0, 149]] and data[1].truth.class_map().tolist() == [[VOID, 1, 12]]
    assert (CLASSES.names[0], CLASSES.names[12], CLASSES.names[149]) == ("wall", "person", "flag")
    assert (CLASSES.colors[0], CLASSES.colors[2], CLASSES.colors[149]) == ((120, 120, 120), (6, 230, 230), (92, 0, 255))


def test_others_store_void_as_255(tmp_path):
    put(tmp_path, "ADE_train_00000001", [0, 1, 255])
    assert read(tmp_path)[0].truth.class_map().tolist() == [[0, 1, VOID]]


def test_a_release_without_the_rarest_class(tmp_path):
    put(tmp_path, "ADE_train_00000001", [0, 1, 2])
    assert read(tmp_path)[0].truth.class_map().tolist() == [[VOID, 0, 1]]
    put(tmp_path / "b", "x", [0, 1, 2])
    assert not matches(tmp_path / "b")
    (tmp_path / "b" / "objectInfo150.txt").touch()
    assert matches(tmp_path / "b") and read(tmp_path / "b")[0].truth.class_map().tolist() == [[VOID, 0, 1]]


def test_classes_of_ones_own(tmp_path):
    put(tmp_path, "x", [0, 1, 3])
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    assert not matches(tmp_path)  # mask_folder reads such, as nothing speaks for this format
    assert read(tmp_path)[0].truth.class_map().tolist() == [[VOID, 0, 2]]
    put(tmp_path, "x", [0, 1, 255])
    assert read(tmp_path)[0].truth.class_map().tolist() == [[0, 1, VOID]]
    (tmp_path / "dataset.toml").write_text("[masks]\nvalues = [1, 2, 0]\nignore_index = 255\n")
    assert read(tmp_path)[0].truth.class_map().tolist() == [[2, 0, VOID]]


def test_what_is_written(tmp_path):
    write(tmp_path, [sample("train__x", [[1, 2, 3, VOID, 0, 4]], [0, 1, 1, 2], [0, 5, 0, 0])])
    assert np.array(Image.open(tmp_path / "annotations" / "training" / "x.png")).tolist() == [[1, 2, 2, 0, 4, 3]]
    assert np.array(Image.open(tmp_path / "instances" / "training" / "x.png")).tolist() == [[0, 5, 0, 0, 0, 0]]
    content = json.loads((tmp_path / "classes.json").read_text())
    assert (content["values"], content["ignore_index"], content["nothing_index"]) == ([1, 2, 3], 0, 4)
    assert matches(tmp_path) and read(tmp_path).keys == ("train__x",)
    assert np.array_equal(mask_folder.read(tmp_path)[0].truth.planes, read(tmp_path)[0].truth.planes)


KEYS = ["a", "train__a", "val__a", "test__a", "training__a", "train__b__c", "train__no_split__a", "train__.x", "no_split__a"]


def test_keys_of_any_kind_come_back(tmp_path):
    write(tmp_path, [sample(key, [[1]], [0], [number + 1]) for number, key in enumerate(KEYS)])
    data = read(tmp_path)
    assert sorted(data.keys) == sorted(KEYS)
    for key in data.keys:
        assert data.load(key).truth.instance_ids.tolist() == [KEYS.index(key) + 1]
    assert pickle.loads(pickle.dumps(data)).load("a").key == "a"


def test_masks_without_images(tmp_path):
    put(tmp_path, "ADE_train_1", [0, 1, 150], has_image=False)
    assert matches(tmp_path) and read(tmp_path)[0].image.shape == (0, 1, 3)


# By a law


@settings(max_examples=30)
@given(class_map=arrays(np.int64, (3, 4), elements=st.integers(-2, 2)), classes=st.sampled_from([THREE, CLASSES, None]))
def test_what_does_not_overlap_comes_back(tmp_path_factory, class_map, classes):
    classes = classes or Classes.of([f"c{k}" for k in range(300)])
    planes = np.where(class_map >= 0, class_map + 1, -class_map - 2)
    written = sample("a", np.where(class_map == -1, VOID, planes), [0, 1, len(classes) - 1], [0, 7, 0], classes)
    root = tmp_path_factory.mktemp("data")
    write(root, [written])
    data = read(root)
    assert data.classes == classes
    for back, before in zip(to_maps(data[0].truth), to_maps(written.truth), strict=True):
        assert np.array_equal(back, before)


# By its messages


def test_files_that_contradict_each_other(tmp_path):
    put(tmp_path, "ADE_train_1", [0, 1, 150])
    put(tmp_path, "ADE_train_2", [0, 1, 255])
    with pytest.raises(
        FormatError,
        match=r"ADE_train_1.png holds 150, as where class k is stored as k \+ 1, and .*ADE_train_2.png holds 255, as where 255 "
        r"is void; write into dataset.toml, below \[masks\], \"ignore_index = 0\" and \"values = \[1, 2, ..., 150\]\"",
    ):
        read(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b"]))
    (tmp_path / "dataset.toml").write_text("[masks]\nignore_index = 255\n")
    assert read(tmp_path).load("train__ADE_train_2").truth.class_map().tolist() == [[0, 1, VOID]]


def test_files_that_tell_nothing(tmp_path):
    put(tmp_path, "x", [0, 1, 2])
    with pytest.raises(
        FormatError, match=r"no mask tells whether class k is stored as k \+ 1 and void as 0, or .* void as 255"
    ):
        read(tmp_path)


def test_places_that_are_no_data_set(tmp_path):
    with pytest.raises(FormatError, match=r"has no folder annotations \(it is empty\); give the folder that holds images/"):
        read(tmp_path)
    put(tmp_path, "ADE_1", [0, 1, 150])
    put(tmp_path, "ADE_2", [0, 1, 150])
    (tmp_path / "images" / "training" / "ADE_2.png").unlink()
    with pytest.raises(FormatError, match="ADE_2.png has no image; add it under the same name, or remove the mask"):
        read(tmp_path).load("train__ADE_2")
    (tmp_path / "annotations" / "training" / "ADE_1.png").unlink()
    with pytest.raises(FormatError, match="images/training/ADE_1.png has no mask, others in training/ have; add it"):
        read(tmp_path)


def test_what_cannot_be_written(tmp_path):
    volume = Sample.of("v", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int), THREE))
    with pytest.raises(OutputError, match="ade20k holds flat images"):
        write(tmp_path / "volume", [volume])
    with pytest.raises(OutputError, match="ade20k holds 65533 classes, there are 65534; merge some"):
        write(tmp_path / "classes", [sample("a", [[1]], [0], [0], Classes.of([f"c{k}" for k in range(65534)]))])

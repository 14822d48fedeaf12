"""Where COCO's JSON files and images are found, what their keys are, and what the categories become."""

import json
import logging
import time

import numpy as np
import pytest
from PIL import Image

from segwright.core.errors import FormatError
from segwright.formats import coco
from segwright.formats.coco_files import is_panoptic, prefixes, split_name, write_categories

SQUARE = [[0, 0, 2, 0, 2, 2, 0, 2]]
CAR = {"id": 3, "name": "car"}


def annotation(image_id, **more):
    return {"image_id": image_id, "category_id": 3, "segmentation": SQUARE, "iscrowd": 0} | more


def save_json(path, names=("a.png",), *, annotations=None, categories=(CAR,), **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": index, "file_name": name, "height": 3, "width": 4} for index, name in enumerate(names)]
    annotations = [annotation(index) for index in range(len(names))] if annotations is None else annotations
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": list(categories)} | more))
    return path


def save_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 4), value, np.uint8)).save(path)


# By hand


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017.json", ("train", "train2017")),
        ("instances_val.json", ("val", "val")),
        ("instances.json", ("", "")),
        ("_annotations.coco.json", ("", "")),
        ("test.json", ("test", "test")),
        ("training-set.json", ("training", "training")),
        ("constraints.json", ("", "")),
    ],
)
def test_names_tell_the_part(tmp_path, name, split):
    assert split_name(tmp_path / name) == split


def test_parts_of_one_name_are_kept_apart(tmp_path):
    names = ["instances_train2014.json", "instances_train2017.json", "instances_val.json"]
    assert prefixes(tmp_path, [tmp_path / name for name in names]) == ["train2014__", "train2017__", "val__"]
    assert prefixes(tmp_path, [tmp_path / name for name in ("a.json", "b.json")]) == ["a__", "b__"]
    assert prefixes(tmp_path, [tmp_path / "a.json"]) == [""]


def test_the_folder_of_annotations_stands_for_the_data_set(tmp_path):
    save_json(tmp_path / "annotations" / "instances_val.json")
    save_image(tmp_path / "images" / "a.png", 7)
    for place in (tmp_path, tmp_path / "annotations", tmp_path / "annotations" / "instances_val.json"):
        assert coco.read(place)[0].image.max() == 7


def test_the_layout_of_coco_itself(tmp_path):
    for part in ("train2017", "val2017"):
        save_json(tmp_path / "annotations" / f"instances_{part}.json", ["0001.png", "0002.png"])
        save_json(tmp_path / "annotations" / f"person_keypoints_{part}.json", ["0001.png"])
        for number in (1, 2):
            save_image(tmp_path / part / f"000{number}.png", number + (10 if part == "val2017" else 0))
    (tmp_path / "annotations" / "captions_val2017.json").write_text('{"images": [], "annotations": []}')
    data = coco.read(tmp_path)
    assert data.keys == ("train__0001", "train__0002", "val__0001", "val__0002")
    assert [int(sample.image[0, 0, 0]) for sample in data] == [1, 2, 11, 12]
    alone = coco.read(tmp_path / "annotations" / "instances_val2017.json")
    assert alone.keys == ("0001", "0002") and [int(sample.image[0, 0, 0]) for sample in alone] == [11, 12]


def test_a_folder_per_part_with_its_json(tmp_path):
    save_json(tmp_path / "_annotations.coco.json", ["a.png"])
    save_image(tmp_path / "a.png", 5)
    assert coco.read(tmp_path)[0].image[0, 0, 0] == 5


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.png", "train__a"),
        ("images/a.png", "train__a"),
        ("./train2017/x/a.b.png", "train__x__a.b"),
        ("images/train/a.png", "train__a"),
        ("..\\..\\a.png", "train__a"),
        ("/data/a.png", "train__data__a"),
        ("https://example.org/b/a.png", "train__example.org__b__a"),
    ],
)
def test_keys_of_file_names(tmp_path, name, key):
    save_json(tmp_path / "instances_train2017.json", [name])
    assert coco.read(tmp_path).keys == (key,)


def test_no_image_outside_of_the_folder_is_found(tmp_path):
    save_image(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        save_json(tmp_path / "data" / "instances.json", [name])
        data = coco.read(tmp_path / "data")
        assert not data.image_files and data[0].image.shape == (0, 3, 4)


def test_a_mask_or_the_image_of_another_part_is_no_image(tmp_path):
    save_json(tmp_path / "annotations" / "instances_train.json", ["a.png"])
    save_image(tmp_path / "masks" / "a.png")
    assert coco.read(tmp_path)[0].image.shape == (0, 3, 4)
    save_image(tmp_path / "annotations" / "a.png", 7)  # unusual, but beside the JSON that tells of it
    assert coco.read(tmp_path)[0].image[0, 0, 0] == 7
    save_image(tmp_path / "images" / "train" / "a.png", 5)
    assert coco.read(tmp_path)[0].image[0, 0, 0] == 5
    save_json(tmp_path / "annotations" / "instances_val.json", ["a.png"])
    with pytest.raises(FormatError, match="a.png is the image of 'train__a' and of 'val__a'; is one missing"):
        coco.read(tmp_path)


def test_many_categories_are_read_at_once(tmp_path):
    many = [{"id": number, "name": f"class {number}"} for number in range(20_000)]
    started = time.process_time()
    assert len(coco.read(save_json(tmp_path / "instances.json", categories=many)).classes) == len(many)
    assert time.process_time() - started < 3  # 20 with a list that is searched


def test_classes_are_in_the_order_of_ids(tmp_path, caplog):
    categories = [{"id": 90, "name": "sky", "isthing": 0}, CAR | {"color": [1, 2, 3]}, {"id": 5, "name": "car"}]
    save_json(tmp_path / "instances.json", categories=categories)
    classes = coco.read(tmp_path).classes
    assert classes.names == ("car", "car (5)", "sky") and classes.is_thing == (True, True, False)
    assert classes.colors[0] == (1, 2, 3) and "two categories are called 'car'" in caplog.text
    assert [entry["isthing"] for entry in write_categories(classes, [3, 5, 90])] == [1, 1, 0]


def test_ids_may_be_text(tmp_path):
    images = [{"id": name, "file_name": f"{name}.png", "height": 3, "width": 4} for name in ("x", "y")]
    save_json(tmp_path / "instances.json", images=images, annotations=[annotation("y"), annotation("y")])
    assert [len(sample.truth) for sample in coco.read(tmp_path)] == [0, 2]


def test_boxes_without_masks_are_counted(tmp_path, caplog):
    boxes = [annotation(0, segmentation=[]), annotation(0, segmentation=None), {"image_id": 0, "category_id": 3}]
    save_json(tmp_path / "instances.json", annotations=[annotation(0), *boxes, annotation(77)])
    with caplog.at_level(logging.WARNING):
        sample = coco.read(tmp_path)[0]
    assert len(sample.truth) == 1 and sample.left_out == {"given as a box without a mask": 3}
    assert "1 of 5 annotations are of images not listed there" in caplog.text
    save_json(tmp_path / "instances.json", annotations=boxes)
    with pytest.raises(FormatError, match="none of the 3 annotations has a 'segmentation' .boxes alone"):
        coco.read(tmp_path)


def test_annotations_that_are_all_of_other_images(tmp_path):
    save_json(tmp_path / "instances.json", annotations=[annotation(77), annotation(78)])
    message = "none of the 2 annotations is of an image that is listed there .image_id 77, images have ids such as 0.; give"
    with pytest.raises(FormatError, match=message):
        coco.read(tmp_path)


@pytest.mark.parametrize("as_image", [str, int, float])
@pytest.mark.parametrize("as_annotation", [str, int, float])
def test_ids_are_numbers_or_texts_of_numbers(tmp_path, as_image, as_annotation):
    images = [{"id": as_image(k), "file_name": f"{k}.png", "height": 3, "width": 4} for k in range(2)]
    entries = [annotation(as_annotation(1), category_id=as_annotation(3)) for _ in range(2)]
    save_json(tmp_path / "instances.json", images=images, annotations=entries)
    assert [len(sample.truth) for sample in coco.read(tmp_path)] == [0, 2]


def test_the_root_of_all_categories_is_no_class(tmp_path, caplog):
    root, cell = {"id": 0, "name": "cells-x1", "supercategory": "none"}, CAR | {"supercategory": "cells-x1"}
    save_json(tmp_path / "instances.json", categories=[root, cell], annotations=[annotation(0)])
    assert coco.read(tmp_path).classes.names == ("car",) and "'cells-x1' groups all categories" in caplog.text
    other = {"id": 5, "name": "other", "supercategory": "none"}  # a class of its own, like the first
    for categories, entry in (([root, cell], annotation(0, category_id=0)), ([root, cell, other], annotation(0))):
        save_json(tmp_path / "instances.json", categories=categories, annotations=[entry])
        assert "cells-x1" in coco.read(tmp_path).classes.names


def test_what_is_of_coco(tmp_path):
    assert is_panoptic(save_json(tmp_path / "a.json")) is False
    assert is_panoptic(save_json(tmp_path / "b.json", annotations=[])) is False
    assert is_panoptic(save_json(tmp_path / "c.json", annotations=[{"segments_info": []}])) is True
    assert is_panoptic(tmp_path / "none.json") is None
    (tmp_path / "d.json").write_text('{"images": []}')
    assert is_panoptic(tmp_path / "d.json") is None


# Messages


def test_what_is_wrong_with_the_file_that_looks_like_one(tmp_path):
    with pytest.raises(FormatError, match="holds no JSON file of COCO's objects .it is empty"):
        coco.read(tmp_path)
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(FormatError, match="instances.json is no file of COCO's objects: it lacks categories"):
        coco.read(tmp_path)
    (tmp_path / "instances.json").write_text('{"images": [], "annot')
    with pytest.raises(FormatError, match="instances.json is cut short"):
        coco.read(tmp_path)
    with pytest.raises(FormatError, match="does not exist"):
        coco.read(tmp_path / "nothing")


def test_the_parts_must_agree(tmp_path):
    save_json(tmp_path / "instances_train.json")
    save_json(tmp_path / "instances_val.json", categories=[{"id": 3, "name": "dog"}])
    with pytest.raises(FormatError, match="the category 3 is 'dog', and 'car' elsewhere"):
        coco.read(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [{"id": 1, "file_name": "a", "height": 1, "width": 1}] * 2}, "two images have one id"),
        ({"categories": []}, "categories: 0 classes were given"),
        ({"images": [{"id": 0, "file_name": "a", "height": 1}]}, r"images\[0\].width: Field required"),
        ({"images": 3}, "images: Input should be a valid"),
        ({"annotations": 3}, "annotations is no list"),
        ({"annotations": [{"segmentation": SQUARE}]}, r"annotations\[0\].image_id.*: Field required"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    save_json(tmp_path / "instances.json", **content)
    with pytest.raises(FormatError, match=f"instances.json.*{message}"):
        coco.read(tmp_path)


def test_two_samples_of_one_key_are_refused(tmp_path):
    save_json(tmp_path / "instances.json", ["a.png", "images/a.jpg"])
    with pytest.raises(FormatError, match="two samples that would both be called 'a'"):
        coco.read(tmp_path)

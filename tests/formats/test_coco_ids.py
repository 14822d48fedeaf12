"""Numbers of images and categories: by hand, from files, and through the writers and predictions."""

import json

import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.formats import coco, coco_panoptic
from segwright.formats.coco_ids import CocoIds, ids_of

CLASSES = Classes.of(["road", "car"], is_thing=[False, True])

# By hand


def test_known_numbers_stay_and_others_are_free():
    ids = CocoIds({"a": 39, "b": "fifty", "c": 7}, {"car": 3, "sky": 200})
    assert ids.of_images(["x", "c", "b", "a", "y"]) == {"x": 40, "c": 7, "b": "fifty", "a": 39, "y": 41}
    assert ids.of_classes(CLASSES) == [201, 3]


def test_without_a_file_they_count_from_one():
    assert CocoIds().of_images(["x", "a"]) == {"x": 1, "a": 2} and CocoIds().of_classes(CLASSES) == [1, 2]


def sample_of(key):
    truth = Segmentation.panoptic(np.array([[1, 1, 2], [1, 2, 2]]), [0, 1], [0, 1], classes=CLASSES)
    return Sample.of(key, np.full((3, 2, 3), ord(key[-1]), np.uint8), truth)


@pytest.mark.parametrize(("module", "name"), [(coco, "instances"), (coco_panoptic, "panoptic")])
@pytest.mark.parametrize("image_ids", [(70, 5), ("seventy", "five")])
def test_numbers_of_a_file_are_written_again(tmp_path, module, name, image_ids):
    module.write(tmp_path / "a", [sample_of("p"), sample_of("q")])
    file = tmp_path / "a" / "annotations" / f"{name}.json"
    content = json.loads(file.read_text())
    number = {1: image_ids[0], 2: image_ids[1]}
    for image in content["images"]:
        image["id"] = number[image["id"]]
    for annotation in content["annotations"]:
        annotation["image_id"] = number[annotation["image_id"]]
        for entry in annotation.get("segments_info", [annotation]):
            entry["category_id"] = {1: 90, 2: 18}[entry["category_id"]]
    for category in content["categories"]:
        category["id"] = {1: 90, 2: 18}[category["id"]]
    file.write_text(json.dumps(content))
    ids = ids_of(file)
    assert ids == CocoIds({"p": image_ids[0], "q": image_ids[1]}, {"car": 18, "road": 90})
    module.write(tmp_path / "b", [sample_of("q"), sample_of("p")], ids=ids)  # in another order, classes in another too
    again = json.loads((tmp_path / "b" / "annotations" / f"{name}.json").read_text())
    assert [image["id"] for image in again["images"]] == [*image_ids[::-1]]
    assert {each["name"]: each["id"] for each in again["categories"]} == {"road": 90, "car": 18}

    def told(annotations):
        return sorted(
            (str(each["image_id"]), entry["category_id"], entry["area"], entry["bbox"])
            for each in annotations
            for entry in each.get("segments_info", [each])
        )

    assert told(again["annotations"]) == told(content["annotations"])


# By what is no such file


def test_other_files_have_no_numbers(tmp_path):
    (tmp_path / "a.json").write_text('{"shapes": []}')
    (tmp_path / "a.txt").write_text("images")
    for path in (tmp_path, tmp_path / "a.json", tmp_path / "a.txt", tmp_path / "missing.json"):
        assert ids_of(path) is None

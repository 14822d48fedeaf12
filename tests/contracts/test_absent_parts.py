"""A part of a data set whose images are not there is left out with a warning that names it; the others are read."""

from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.formats import open_dataset, readers

CLASSES = Classes.of(["background", "cell"], is_thing=[False, True])
NAMES_PARTS = ("ade20k", "cityscapes", "coco", "coco_panoptic", "cvat", "datumaro", "davis", "geojson", "label_studio")
NAMES_PARTS += ("labelme", "voc", "yolo")
IMAGES = {"cityscapes": "leftImg8bit", "davis": "JPEGImages", "voc": "JPEGImages", "geojson": "", "labelme": ""}


def write(name: str, root: Path) -> None:
    def sample(key: str, size: int) -> Sample:
        truth = np.ones((6, 8), int)
        truth[:size, :3] = 2
        segmentation = Segmentation.panoptic(truth, [0, 1], [0, 1], classes=CLASSES)
        return Sample.of(key, np.full((3, 6, 8), size, np.uint8), segmentation)

    readers()[name].write(root, iter([sample("train__a", 1), sample("train__b", 2), sample("val__c", 3), sample("test__d", 4)]))


@pytest.mark.parametrize("name", NAMES_PARTS)
def test_a_part_without_images_is_left_out_by_name(name, tmp_path, caplog):
    write(name, tmp_path)
    assert sorted(open_dataset(tmp_path).keys) == ["test__d", "train__a", "train__b", "val__c"] and not caplog.text
    images = [path for path in (tmp_path / IMAGES.get(name, "images")).rglob("*.png") if path.name.startswith("c")]
    for path in images:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    assert len(images) == 1
    data = open_dataset(tmp_path)
    assert sorted(data.keys) == ["test__d", "train__a", "train__b"] and len([*data]) == 3
    assert "val" in caplog.text and "left out" in caplog.text


def test_where_no_image_is_there_nothing_is_left_out(tmp_path):
    write("coco", tmp_path)
    for path in (tmp_path / "images").rglob("*.png"):
        path.unlink()
    assert len(open_dataset(tmp_path)) == 4

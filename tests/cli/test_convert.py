import json

import numpy as np
from typer.testing import CliRunner

from segwright.cli.app import application
from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.formats import coco


def call(*arguments):
    return CliRunner().invoke(application(), ["convert", *map(str, arguments)])


def test_a_data_set_without_loss(tmp_path):
    result = call(
        "synthetic:cells?count=2&shape=16x16", tmp_path / "new", "--to", "mask_folder", "--report", tmp_path / "a.csv"
    )
    assert result.exit_code == 0, result.output
    assert f"2 samples in {tmp_path / 'new'}, 2 without loss; mean IoU 1.000000" in result.stdout
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["key,iou,reasons,notes,left_out", "cells_0000,1.000000,,,", "cells_0001,1.000000,,,"]


def test_what_is_lost_is_told(tmp_path):
    masks = np.array([[[True, True, False]], [[False, True, True]]])
    truth = Segmentation.instances(masks, [0, 0], classes=Classes.of(["car"], is_thing=[True]))
    coco.write(tmp_path / "coco", [Sample.of("a", np.zeros((1, 1, 3), np.uint8), truth)])
    result = call(tmp_path / "coco", tmp_path / "new", "--to", "mask_folder")
    assert result.exit_code == 0, result.output
    assert "1 sample in" in result.stdout and "0 without loss; mean IoU 0.75" in result.stdout
    assert "pixels of several objects keep one of them" in result.stdout and "mask_folder: " in result.stdout
    result = call(tmp_path / "coco", tmp_path / "new", "--to", "mask_folder", "--force", "--json")
    assert json.loads(result.stdout)["lossless"] == 0


def test_annotations_that_became_no_segment_are_told(tmp_path):
    truth = Segmentation.instances(np.ones((1, 4, 4), bool), [0])
    coco.write(tmp_path / "coco", [Sample.of("a", np.zeros((1, 4, 4), np.uint8), truth)])
    path = tmp_path / "coco/annotations/instances.json"
    content = json.loads(path.read_text())
    outside = {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[9, 1, 12, 1, 12, 2]]}
    path.write_text(json.dumps(content | {"annotations": [*content["annotations"], outside]}))
    result = call(tmp_path / "coco", tmp_path / "new", "--to", "voc", "--report", tmp_path / "a.csv")
    assert result.exit_code == 0, result.output
    assert "0 without loss; mean IoU 0.500000" in result.stdout
    assert "that became no segment: 1 outside the image\n" in result.stdout
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == "a,0.500000,annotations became no segment,,1 outside the image"
    result = call(tmp_path / "coco", tmp_path / "new", "--to", "voc", "--force", "--json")
    assert json.loads(result.stdout)["left_out"] == {"outside the image": 1}


def test_a_report_over_the_source_is_refused(tmp_path):
    coco.write(
        tmp_path / "coco",
        [Sample.of("a", np.zeros((1, 4, 4), np.uint8), Segmentation.instances(np.ones((1, 4, 4), bool), [0]))],
    )
    path = tmp_path / "coco/annotations/instances.json"
    before = path.read_bytes()
    result = call(tmp_path / "coco", tmp_path / "new", "--to", "voc", "--report", path)
    assert isinstance(result.exception, OutputError) and "instances.json is part of what is read" in str(result.exception)
    assert path.read_bytes() == before and not (tmp_path / "new").exists()


def test_a_report_in_the_target_is_refused(tmp_path):
    result = call(
        "synthetic:cells?count=2&shape=16x16", tmp_path / "new", "--to", "voc", "--report", tmp_path / "new" / "a.csv"
    )
    assert isinstance(result.exception, OutputError) and "give a place outside of it" in str(result.exception)
    assert not (tmp_path / "new").exists()

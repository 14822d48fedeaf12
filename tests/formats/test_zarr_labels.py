"""Truths as label images in the Zarr folder of an image. Axes: (H, W)."""

import json

import numpy as np
import pytest

from segwright.codecs.zarr_image import labels_of_zarr, read_numbers_of_zarr
from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats.label_encoding import read_classes
from segwright.formats.pairing import Files
from segwright.formats.zarr_labels import ClassNumbers, read_truth, write_labels, write_numbers_of_classes

zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")

STREET = Classes.of(["road", "car"], colors=[(1, 2, 3), (4, 5, 6)], is_thing=[False, True])
TISSUE = Classes.of(["background", "cell"], is_thing=[False, True])


def written(tmp_path, truth):
    """A truth that is written and read: the numbers of its label images, and what came back."""
    image = tmp_path / "a.zarr"
    write_labels(image, Sample.of("a", np.zeros((1, *truth.shape), np.uint8), truth))
    write_numbers_of_classes(tmp_path / "classes.json", truth.classes)
    numbers = {name: read_numbers_of_zarr(image / "labels" / name)[0].tolist() for name in labels_of_zarr(image)}
    back, grid = read_truth(Files(None, image / "labels" / "masks"), read_classes(tmp_path / "classes.json"))
    assert grid.shape == truth.shape and back.classes == truth.classes
    return numbers, back


# By hand


def test_where_the_first_class_is_no_background_zero_is_nothing(tmp_path):
    truth = Segmentation.panoptic(np.array([[VOID, 0, 1, 2]]), [0, 1], [0, 7], classes=STREET)
    numbers, back = written(tmp_path, truth)
    assert numbers == {"masks": [[255, 0, 1, 2]], "instances": [[0, 0, 0, 7]]}
    assert back.planes.tolist() == [[[VOID, 0, 1, 2]]] and back.instance_ids.tolist() == [0, 7]


def test_the_background_is_zero(tmp_path):
    numbers, back = written(tmp_path, Segmentation.panoptic(np.array([[VOID, 0, 1, 2]]), [0, 1], classes=TISSUE))
    assert numbers == {"masks": [[255, 2, 0, 1]]} and back.planes.tolist() == [[[VOID, 0, 1, 2]]]


def test_what_label_images_say(tmp_path):
    truth = Segmentation.panoptic(np.array([[1, 2, 3]]), [0, 1, 1], [0, 7, 9], scores=[1, 0.5, 1], classes=STREET)
    written(tmp_path, truth)
    labels = tmp_path / "a.zarr" / "labels"
    assert json.loads((labels / "zarr.json").read_text())["attributes"]["ome"] == {
        "version": "0.5",
        "labels": ["masks", "instances"],
    }
    masks, objects = (
        json.loads((labels / name / "zarr.json").read_text())["attributes"]["ome"] for name in ("masks", "instances")
    )
    assert masks["image-label"]["source"] == {"image": "../../"} and masks["image-label"]["colors"] == [
        {"label-value": 1, "rgba": [1, 2, 3, 255]},
        {"label-value": 2, "rgba": [4, 5, 6, 255]},
        {"label-value": 255, "rgba": [0, 0, 0, 0]},
    ]
    assert masks["image-label"]["properties"] == [{"label-value": 1, "name": "road"}, {"label-value": 2, "name": "car"}]
    assert objects["image-label"]["properties"] == [
        {"label-value": 7, "class": "car", "score": 0.5},
        {"label-value": 9, "class": "car"},
    ]


def test_numbers_grow_with_the_classes(tmp_path):
    many = Classes.of([f"c{k}" for k in range(255)])
    assert ClassNumbers.of(Classes.of([f"c{k}" for k in range(254)])).dtype == np.uint8
    assert ClassNumbers.of(many) == ClassNumbers(1, 0, 65535, np.dtype(np.uint16))
    numbers, back = written(tmp_path, Segmentation.semantic(np.array([[VOID, 0, 254]]), many))
    assert numbers == {"masks": [[65535, 1, 255]]} and back.class_map().tolist() == [[VOID, 0, 254]]


# By a law


def test_layers_scores_and_large_numbers_come_back(tmp_path):
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :3], masks[1, 1:, 2:], masks[2, 2:, :5] = True, True, True
    ids, scores = [70_000, 2, 0], [0.25, 1.0, 0.125]
    numbers, back = written(tmp_path, Segmentation.instances(masks, [1, 1, 0], instance_ids=ids, scores=scores, classes=STREET))
    assert set(numbers) == {"masks", "instances", "masks_2", "instances_2", "masks_3"}
    found = {
        int(number): (mask.tolist(), float(score))
        for number, mask, score in zip(back.instance_ids, back.masks(), back.scores, strict=True)
    }
    assert found == {number: (mask.tolist(), score) for number, mask, score in zip(ids, masks, scores, strict=True)}


def test_a_score_that_nobody_knows_comes_back_and_is_json_to_strict_readers(tmp_path):
    mask = np.ones((1, 4, 6), bool)
    _, back = written(tmp_path, Segmentation.instances(mask, [1], scores=[np.nan], classes=STREET))
    assert np.isnan(back.scores).all() and len(back.scores) == 1
    for file in tmp_path.rglob("zarr.json"):
        json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_regions_keep_their_numbers(tmp_path):
    regions = Classes(("whole", "core"), ((9, 9, 9), (200, 0, 0)), (False, False), ((1, 2), (2,)))
    inside = np.array([[[1, 1, 1, 0]], [[0, 1, 0, 0]]], bool)
    truth = Segmentation.regions(inside, regions).with_void(np.array([[0, 0, 1, 0]], bool))
    numbers, back = written(tmp_path, truth)
    assert numbers == {"masks": [[1, 2, 255, 0]]} and back.classes.regions == ((1, 2), (2,))
    assert back.masks().tolist() == truth.masks().tolist() and back.planes[0, 0, 2] == VOID
    label = json.loads((tmp_path / "a.zarr" / "labels" / "masks" / "zarr.json").read_text())["attributes"]["ome"]["image-label"]
    assert label["properties"] == [] and label["colors"][1] == {"label-value": 2, "rgba": [200, 0, 0, 255]}


# By its messages


def test_refuses_too_many_classes_and_layers_of_other_sizes(tmp_path):
    with pytest.raises(OutputError, match="65535 classes leave no number for void and nothing; merge some"):
        ClassNumbers.of(Classes.of([f"c{k}" for k in range(65_535)]))
    written(tmp_path, Segmentation.panoptic(np.array([[1, 2]]), [0, 1], [0, 7], classes=STREET))
    write_labels(tmp_path / "b.zarr", Sample.of("b", np.zeros((1, 1, 3)), Segmentation.panoptic(np.ones((1, 3), int), [0])))
    masks = [tmp_path / name / "labels" / "masks" for name in ("a.zarr", "b.zarr")]
    with pytest.raises(FormatError, match="1 x 2, .* is 1 x 3"):
        read_truth(Files(None, masks[0], masks[1]), read_classes(tmp_path / "classes.json"))
    with pytest.raises(FormatError, match="no label image"):
        read_truth(Files(None), read_classes(tmp_path / "classes.json"))

"""COCO's panoptic segments: by hand, real ones, there and back, and damaged ones."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segwright.conversion import compare_samples
from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import coco, coco_panoptic, open_dataset
from segwright.formats.coco_ids import ids_of

BOTH = Classes.of(["road", "car"], colors=[(1, 2, 3), (40, 50, 60)], is_thing=[False, True])
CATEGORIES = [{"id": 7, "name": "sky", "isthing": 0}, {"id": 3, "name": "car", "isthing": 1, "color": [9, 8, 7]}]
SEGMENTS = [{"id": 66051, "category_id": 7}, {"id": 5, "category_id": 3}, {"id": 6, "category_id": 3, "iscrowd": 1}]
COLORS = np.array(
    [[[3, 2, 1], [5, 0, 0], [0, 0, 0]], [[6, 0, 0], [6, 0, 0], [5, 0, 0]]], np.uint8
)  # 3 + 2 * 256 + 65536 = 66051


def save(root, *, segments=SEGMENTS, colors=COLORS, annotations=None, height=2, width=3):
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(colors).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": height, "width": width}],
        "annotations": annotations or [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": CATEGORIES,
    }
    folder.with_suffix(".json").write_text(json.dumps(content))
    return coco_panoptic.read(root)


def sample_of(key, truth):
    return Sample.of(key, np.random.default_rng(len(key)).integers(0, 256, (3, *truth.shape), dtype=np.uint8), truth)


# By hand


def test_colours_are_numbers_of_segments(tmp_path):
    data = save(tmp_path)
    truth = data[0].truth
    assert data.keys == ("val__a",) and data.classes.names == ("car", "sky") and data.classes.is_thing == (True, False)
    assert data.classes.colors[0] == (9, 8, 7)
    assert truth.planes.tolist() == [[[1, 2, VOID], [3, 3, 2]]]
    assert truth.class_ids.tolist() == [1, 0, 0] and truth.instance_ids.tolist() == [0, 1, 0]
    assert coco_panoptic.matches(tmp_path) and not coco.matches(tmp_path)


def test_what_becomes_no_segment_is_counted(tmp_path):
    gone = {"id": 77, "category_id": 3}
    sample = save(tmp_path, segments=[SEGMENTS[0], gone, {**SEGMENTS[1], "category_id": 99}, SEGMENTS[2]])[0]
    whole = save(tmp_path)[0].truth
    assert sample.left_out == {"without a pixel": 1, "of the category 99, which is not listed": 1}
    assert sample.truth.class_map().tolist() == np.where(whole.planes[0] == 2, VOID, whole.class_map()).tolist()
    assert len(sample.truth) == 2 and sample.truth.areas().tolist() == whole.areas()[[0, 2]].tolist()


def test_what_is_written(tmp_path):
    masks = np.zeros((3, 2, 3), bool)
    masks[0, :, :2], masks[1, 0, 1:], masks[2, 1, 2] = True, True, True
    truth = Segmentation.instances(masks, [0, 1, 1], instance_ids=[0, 4, 0], scores=[1, 0.5, 1], classes=BOTH)
    coco_panoptic.write(tmp_path / "x", [sample_of("a", truth)])
    content = json.loads((tmp_path / "x" / "annotations" / "panoptic.json").read_text())
    colors = np.array(Image.open(tmp_path / "x" / "annotations" / "panoptic" / "a.png"))
    assert colors[..., 0].tolist() == [[1, 2, 2], [1, 1, 3]] and not colors[..., 1:].any()
    (annotation,) = content["annotations"]
    assert annotation["image_id"] == 1 and annotation["file_name"] == "a.png"
    assert annotation["segments_info"] == [
        {"id": 1, "category_id": 1, "iscrowd": 0, "area": 3, "bbox": [0, 0, 2, 2]},
        {"id": 2, "category_id": 2, "iscrowd": 0, "area": 2, "bbox": [1, 0, 2, 1], "instance_id": 4, "score": 0.5},
        {"id": 3, "category_id": 2, "iscrowd": 1, "area": 1, "bbox": [2, 1, 1, 1]},
    ]


def test_stuff_of_one_class_is_one_entry_and_so_are_crowds(tmp_path):
    truth = Segmentation.panoptic(
        np.array([[1, 2, 3, 4, 5, 6]]), [0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 2, 3], scores=[0.5, 1, 0.75, 1, 1, 1], classes=BOTH
    )
    coco_panoptic.write(tmp_path / "x", [sample_of("a", truth)])
    (annotation,) = json.loads((tmp_path / "x" / "annotations" / "panoptic.json").read_text())["annotations"]
    entries = [(each["id"], each["category_id"], each["iscrowd"], each["area"]) for each in annotation["segments_info"]]
    assert entries == [(1, 1, 0, 2), (2, 2, 1, 2), (5, 2, 0, 1), (6, 2, 0, 1)]
    assert annotation["segments_info"][0]["bbox"] == [0, 0, 3, 1] and annotation["segments_info"][0]["score"] == 0.75
    colors = np.array(Image.open(tmp_path / "x" / "annotations" / "panoptic" / "a.png"))
    assert colors[0, :, 0].tolist() == [1, 2, 1, 2, 5, 6]


def test_numbers_as_in_another_file(tmp_path):
    save(tmp_path / "given")
    ids = ids_of(tmp_path / "given" / "annotations" / "panoptic_val2017.json")
    classes = Classes.of(["tree", "car", "sky"], is_thing=[False, True, False])
    truth = Segmentation.panoptic(np.array([[1, 2, 3]]), [0, 1, 2], [0, 1, 0], classes=classes)
    coco_panoptic.write(tmp_path / "x", [sample_of(key, truth) for key in ("b", "a")], ids=ids)
    content = json.loads((tmp_path / "x" / "annotations" / "panoptic.json").read_text())
    assert [(image["id"], image["file_name"][0]) for image in content["images"]] == [(2, "b"), (1, "a")]
    assert [annotation["image_id"] for annotation in content["annotations"]] == [2, 1]
    assert {each["name"]: each["id"] for each in content["categories"]} == {"sky": 7, "car": 3, "tree": 8}
    for annotation in content["annotations"]:
        assert [each["category_id"] for each in annotation["segments_info"]] == [8, 3, 7]
    back = coco_panoptic.read(tmp_path / "x").load("a")
    assert compare_samples(sample_of("a", truth), back).iou == 1


def test_segments_without_images_are_no_images(tmp_path):
    truth = Segmentation.panoptic(np.ones((2, 3), int), [0])
    coco_panoptic.write(tmp_path, [Sample.of(key, np.zeros((0, 2, 3), np.uint8), truth) for key in ("a", "val__b")])
    for data in (coco_panoptic.read(tmp_path), coco_panoptic.read(tmp_path / "annotations" / "panoptic.json")):
        assert data[0].image.shape == (0, 2, 3) and not data.image_files


def test_many_segments_use_all_colours(tmp_path):
    numbers = np.arange(70_000).reshape(250, 280) + 1
    truth = Segmentation.panoptic(numbers, np.ones(70_000, int), np.arange(70_000) + 1, classes=BOTH)
    coco_panoptic.write(tmp_path / "x", [sample_of("a", truth)])
    assert np.array_equal(coco_panoptic.read(tmp_path / "x")[0].truth.planes[0], numbers)


def test_parts_of_the_data_set(tmp_path):
    truth = Segmentation.semantic(np.array([[0, 1, VOID]]), BOTH)
    coco_panoptic.write(tmp_path / "x", [sample_of(key, truth) for key in ("train__a", "val__a", "b")])
    data = open_dataset(tmp_path / "x")
    assert sorted(data.keys) == ["b", "train__a", "val__a"]
    for sample in data:
        assert compare_samples(sample_of(sample.key, truth), sample).iou == 1
        assert np.array_equal(sample.image, sample_of(sample.key, truth).image)


def test_a_reader_travels_to_another_process(tmp_path):
    load = pickle.loads(pickle.dumps(save(tmp_path).load))
    assert len(load("val__a").truth) == 3


# Real data


def test_ids_and_areas_equal_segments_info(shared_data):
    root = shared_data / "coco_panoptic"
    data = coco_panoptic.read(root)
    content = json.loads((root / "panoptic_examples.json").read_text())
    assert len(data) == 2 and len(data.classes) == 133 and sum(data.classes.is_thing) == 80
    for sample, annotation in zip(data, content["annotations"], strict=True):
        truth, segments = sample.truth, annotation["segments_info"]
        assert truth.areas().tolist() == [segment["area"] for segment in segments]
        names = {category["id"]: category["name"] for category in content["categories"]}
        assert [data.classes.names[k] for k in truth.class_ids] == [names[segment["category_id"]] for segment in segments]
        left, top, right, bottom = truth.boxes_xyxy().T.astype(int)
        assert np.stack([left, top, right - left, bottom - top], 1).tolist() == [segment["bbox"] for segment in segments]
        is_thing = np.array(data.classes.is_thing)[truth.class_ids]
        assert ((truth.instance_ids == 0) & is_thing).tolist() == [bool(segment["iscrowd"]) for segment in segments]


@pytest.mark.parametrize("module", [coco, coco_panoptic])
def test_real_segments_survive(shared_data, tmp_path, module):
    data = coco_panoptic.read(shared_data / "coco_panoptic")
    module.write(tmp_path / "x", data)
    for before, after in zip(data, module.read(tmp_path / "x"), strict=True):
        change = compare_samples(before, after)
        assert (change.iou, change.reasons, change.notes) == (1.0, (), ())


# By laws


@settings(max_examples=60)
@given(arrays(np.int64, array_shapes(min_dims=2, max_dims=2, max_side=15), elements=st.integers(-1, 6)))
def test_any_map_comes_back(tmp_path_factory, segment_map):
    root = tmp_path_factory.mktemp("data") / "x"
    segment_map[segment_map == 0] = VOID
    sample = sample_of("a", Segmentation.panoptic(segment_map, [0, 1, 1, 0, 1, 1], [0, 9, 3, 0, 2, 0], classes=BOTH))
    coco_panoptic.write(root, [sample])
    change = compare_samples(sample, coco_panoptic.read(root)[0])
    assert (change.iou, change.reasons, change.notes) == (1.0, (), ())


def test_what_is_lost(tmp_path):
    masks = np.array([[[1, 1, 0]], [[0, 1, 0]]], bool)
    coco_panoptic.write(tmp_path / "x", [sample_of("a", Segmentation.instances(masks, [1, 1], classes=BOTH))])
    assert coco_panoptic.read(tmp_path / "x")[0].truth.planes.tolist() == [[[1, 2, VOID]]]


# Messages


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"segments": SEGMENTS[:2]}, "a.png holds the segment 6 at 2 pixels, which .*annotations.0..segments_info lacks"),
        ({"segments": [*SEGMENTS, {"id": 5, "category_id": 3}]}, "ids are different numbers 1..16777215"),
        ({"segments": [{"id": 0, "category_id": 3}]}, "ids are different numbers"),
        ({"segments": [*SEGMENTS[:2], {**SEGMENTS[2], "instance_id": -1}]}, "an instance_id is -1"),
        ({"colors": COLORS[..., 0]}, "a.png has 1 channels of uint8, red, green and blue"),
        ({"colors": COLORS[:, :2]}, "a.png is 2 x 2 .rows x columns., its image 2 x 3"),
        ({"annotations": [{"image_id": 1, "file_name": "b.png", "segments_info": []}]}, "b.png does not exist"),
        ({"annotations": [{"image_id": 1, "file_name": "../../a.png", "segments_info": []}]}, "a.png holds the segment 5"),
        ({"annotations": 2 * [{"image_id": 1, "file_name": "a.png", "segments_info": []}]}, "has 2 annotations, one is needed"),
        ({"height": 10**9}, "an image of 1000000000 x 3"),
    ],
)
def test_damaged_files_are_refused(tmp_path, more, message):
    data = save(tmp_path, **more)
    with pytest.raises(FormatError, match=message):
        data[0]


def test_volumes_are_refused(tmp_path):
    volume = Sample.of("a", np.zeros((1, 2, 3, 4), np.uint8), Segmentation.semantic(np.zeros((2, 3, 4), int)))
    with pytest.raises(OutputError, match="'a' is a volume"):
        coco_panoptic.write(tmp_path / "x", [volume])


def test_the_truth_without_its_photograph(tmp_path):
    truth = Segmentation.panoptic(np.array([[1, 2, 0], [2, 2, -1]]), [0, 1], [0, 1], classes=BOTH)
    coco_panoptic.write(tmp_path, [sample_of(key, truth) for key in ("train__a", "val__b")])
    data = open_dataset(tmp_path)
    for key in data.keys:
        whole, bare = data.load(key), data.without_images().load(key)
        assert bare.key == key and bare.image.shape == (0, 2, 3) and whole.image.shape == (3, 2, 3)
        np.testing.assert_array_equal(bare.truth.planes, whole.truth.planes)
    for file in data.image_files.values():
        Image.fromarray(np.zeros((3, 2, 3), np.uint8)).save(file)  # turned: seen from the head of the file
    with pytest.raises(FormatError, match="is 3 x 2 .* but .* tells of 2 x 3; give the image that was annotated"):
        data.without_images()[0]
    next(iter(data.image_files.values())).unlink()
    with pytest.raises(FormatError):
        data.without_images()[0]

import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats.cityscapes import CLASSES, matches, read, write
from segwright.formats.label_maps import to_maps

IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
THINGS = Classes.of(["car", "person", "road"], is_thing=[True, True, False])


def put(root, name, kind, values, dtype=np.uint16, split="train/aachen", truth="gtFine"):
    folder = root / truth / split
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "polygons":
        (folder / f"{name}_{truth}_polygons.json").write_text(json.dumps(values))
    else:
        Image.fromarray(np.array(values, dtype=dtype)).save(folder / f"{name}_{truth}_{kind}.png")


def put_image(root, name, split="train/aachen"):
    folder = root / "leftImg8bit" / split
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(IMAGE).save(folder / f"{name}_leftImg8bit.png")


def sample(key, planes, class_ids, instance_ids, classes=THINGS):
    planes = np.array(planes)
    truth = Segmentation.panoptic(planes, class_ids, instance_ids, classes=classes)
    return Sample.of(key, np.zeros((3, *planes.shape), np.uint8), truth)


# By hand: the published rules


def test_instance_ids(tmp_path):
    put_image(tmp_path, "aachen_0")
    put(tmp_path, "aachen_0", "instanceIds", [[7, 11, 26, 26000], [26001, 24007, 0, 29003]])
    put(tmp_path, "aachen_0", "labelIds", np.zeros((2, 4)), np.uint8)  # instanceIds say more
    data = read(tmp_path)
    assert matches(tmp_path) and data.keys == ("train__aachen__aachen_0",) and data.classes == CLASSES
    assert np.array_equal(data[0].image, IMAGE.transpose(2, 0, 1))
    class_map, numbers = to_maps(data[0].truth)
    assert class_map.tolist() == [[0, 2, 13, 13], [13, 11, VOID, VOID]]  # road, building, cars, person; a trailer is void
    assert numbers.tolist() == [[0, 0, 0, 1], [2, 8, 0, 0]]  # 26 is a crowd of cars
    assert data.classes.names[13] == "car" and data.classes.colors[13] == (0, 0, 142) and data.classes.is_thing[13]


def test_label_ids_and_train_ids(tmp_path):
    for name, kind, values in (
        ("a", "labelIds", [[7, 33, 0, 3], [8, 26, 4, 18]]),
        ("b", "labelTrainIds", [[0, 18, 255, 255], [1, 13, 255, 255]]),
    ):
        put_image(tmp_path, name)
        put(tmp_path, name, kind, values, np.uint8)
    for item in read(tmp_path):
        assert item.truth.class_map().tolist() == [[0, 18, VOID, VOID], [1, 13, VOID, VOID]]


def test_polygons(tmp_path):
    def square(label, left, right, **more):
        return {"label": label, "polygon": [[left, 0], [right, 0], [right, 2], [left, 2]], **more}

    objects = [
        square("road", 0, 8),
        square("car", 1, 3),
        square("car", 2, 4),
        square("cargroup", 4, 5),
        square("polegroup", 5, 6),
        square("person", 0, 8, deleted=1),
        square("license plate", 0, 8),
        square("rider", 6, 7),
    ]
    put(tmp_path, "a", "polygons", {"imgHeight": 3, "imgWidth": 8, "objects": objects, "more": 1}, truth="gtCoarse")
    data = read(tmp_path)
    assert data[0].image.shape == (0, 3, 8)
    class_map, numbers = to_maps(data[0].truth)
    assert class_map[0].tolist() == class_map[1].tolist() == [0, 13, 13, 13, 13, VOID, 12, 0]
    assert numbers[0].tolist() == [0, 1, 2, 2, 0, 0, 1, 0] and class_map[2].tolist() == [VOID] * 8


def test_fine_goes_before_coarse(tmp_path):
    for name in "ab":
        put_image(tmp_path, name)
        put(tmp_path, name, "labelIds", np.full((2, 4), 7), np.uint8, truth="gtCoarse")
    put(tmp_path, "a", "labelTrainIds", np.full((2, 4), 5), np.uint8)
    assert [int(item.truth.class_ids[0]) for item in read(tmp_path)] == [5, 0]


def test_what_is_written(tmp_path):
    truth = sample("val__bonn__x", [[1, 2, 3, 4], [VOID, 0, 5, 5]], [0, 13, 13, 13, 11], [0, 1, 7, 0, 1], CLASSES)
    write(tmp_path, [truth])
    place = tmp_path / "gtFine" / "val" / "bonn"
    stored = {path.name[9:]: np.array(Image.open(path)).tolist() for path in place.iterdir()}
    assert stored == {
        "instanceIds.png": [[7, 26000, 26006, 26], [0, 34, 24000, 24000]],
        "labelIds.png": [[7, 26, 26, 26], [0, 34, 24, 24]],
        "labelTrainIds.png": [[0, 13, 13, 13], [255, 255, 11, 11]],
    }
    assert json.loads((tmp_path / "classes.json").read_text())["nothing_index"] == 34
    write(tmp_path / "b", [sample("val__bonn__x", [[1, VOID]], [0], [0], CLASSES)])
    assert not (tmp_path / "b" / "classes.json").exists() and read(tmp_path / "b").classes == CLASSES


def test_classes_of_ones_own(tmp_path):
    put(tmp_path, "a", "instanceIds", [[0, 1, 2000, 255]])
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["road", "x", "cat"], "ignore_index": 255}))
    truth = read(tmp_path)[0].truth
    assert truth.class_map().tolist() == [[0, 1, 2, VOID]] and truth.instance_ids.tolist() == [0, 0, 1]
    put(tmp_path, "a", "polygons", {"imgHeight": 1, "imgWidth": 1, "objects": []})
    (tmp_path / "gtFine" / "train" / "aachen" / "a_gtFine_instanceIds.png").unlink()
    assert read(tmp_path)[0].truth.class_map().tolist() == [[0]]


KEYS = ["a", "train__a", "train__bonn__a", "val__bonn__a__b", "val__no_city__x", "train__no_split__x", "train____x", "x__y"]
KEYS += ["test__..__x", "training__.x", "train__bonn__.x", "Val__bonn__", "trainextra__a__b", "train__a___b", "gtFine_x"]


def test_keys_of_any_kind_come_back(tmp_path):
    write(tmp_path, [sample(key, [[1]], [0], [number + 1]) for number, key in enumerate(KEYS)])
    data = read(tmp_path)
    assert sorted(data.keys) == sorted(KEYS) and len(list((tmp_path / "leftImg8bit").glob("*/*/*.png"))) == len(KEYS)
    for key in data.keys:
        assert data.load(key).truth.instance_ids.tolist() == [KEYS.index(key) + 1]
    assert pickle.loads(pickle.dumps(data)).load("a").key == "a"


# By a law


@settings(max_examples=40)
@given(
    class_map=arrays(np.int64, (3, 4), elements=st.integers(-2, 2)),
    numbers=arrays(np.int64, (3, 4), elements=st.sampled_from([0, 1, 2, 999, 1000])),
    is_published=st.booleans(),
)
def test_what_does_not_overlap_comes_back(tmp_path_factory, class_map, numbers, is_published):
    pairs = sorted({(int(k), int(n)) for k, n in zip(class_map.flat, numbers.flat, strict=True) if k >= 0})
    planes = np.array(
        [pairs.index((k, n)) + 1 if k >= 0 else -k - 2 for k, n in zip(class_map.flat, numbers.flat, strict=True)]
    )
    planes = np.where(class_map.ravel() == -1, VOID, planes).reshape(3, 4)
    classes = CLASSES if is_published else THINGS
    written = sample("a", planes, [k for k, _ in pairs], [n for _, n in pairs], classes)
    root = tmp_path_factory.mktemp("data")
    write(root, [written])
    data = read(root)
    assert data.classes == classes
    for back, before in zip(to_maps(data[0].truth), to_maps(written.truth), strict=True):
        assert np.array_equal(back, before)


@pytest.mark.parametrize("count", [64, 70, 300])
def test_many_classes(tmp_path, count):
    classes = Classes.of([f"c{k}" for k in range(count)], is_thing=[k >= count - 60 for k in range(count)])
    planes = np.arange(1, count + 1)[None]
    write(tmp_path, [sample("a", planes, range(count), [k * (k >= count - 60) for k in range(count)], classes)])
    truth = read(tmp_path)[0].truth
    assert truth.classes == classes and truth.class_map().tolist() == [list(range(count))]
    assert truth.instance_ids.tolist() == [k * (k >= count - 60) for k in range(count)]


def test_high_numbers_are_given_anew(tmp_path):
    write(tmp_path, [sample("a", [[1, 2, 3]], [0, 0, 1], [5, 70_000, 6])])
    assert read(tmp_path)[0].truth.instance_ids.tolist() == [1, 2, 6]


# By its messages


def test_places_that_are_no_data_set(tmp_path):
    with pytest.raises(FormatError, match=r"has no folder gtFine or gtCoarse \(it is empty\); give the folder that holds"):
        read(tmp_path)
    (tmp_path / "gtFine").mkdir()
    with pytest.raises(FormatError, match="holds no pair of image and mask"):
        read(tmp_path)


def test_files_that_are_missing(tmp_path, caplog):
    for name in "ab":
        put_image(tmp_path, name)
    put_image(tmp_path, "c", "test/bonn")
    put(tmp_path, "a", "labelIds", np.full((2, 4), 7), np.uint8)
    with pytest.raises(FormatError, match="b_leftImg8bit.png has no mask, others in train/ have; add it"):
        read(tmp_path)
    (tmp_path / "dataset.toml").write_text('drop = ["train__aachen__b"]')
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path).keys == ("train__aachen__a",)
    assert "left out test/ (1 files), which has images without masks" in caplog.text
    put(tmp_path, "d", "labelIds", np.full((2, 4), 7), np.uint8)
    with pytest.raises(FormatError, match="d_gtFine_labelIds.png has no image in leftImg8bit; add it, or remove this file"):
        read(tmp_path).load("train__aachen__d")


def test_two_files_of_one_key(tmp_path):
    put(tmp_path, "aachen__a", "labelIds", [[7]], np.uint8, split="train/no_city")
    put(tmp_path, "a", "labelIds", [[7]], np.uint8)
    with pytest.raises(FormatError, match="would both be called train__aachen__a; rename one"):
        read(tmp_path)


def test_numbers_and_sizes_that_are_wrong(tmp_path):
    put_image(tmp_path, "a")
    put(tmp_path, "a", "instanceIds", [[200, 7]])
    with pytest.raises(
        FormatError, match="a_gtFine_instanceIds.png holds the number 200 at 1 of 2 pixels, but Cityscapes' labels"
    ):
        read(tmp_path)[0]
    put(tmp_path, "a", "instanceIds", [[7, 7]])
    with pytest.raises(FormatError, match="is 1 x 2, its image .* is 2 x 4"):
        read(tmp_path)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": [{"label": "cat", "polygon": []}]}, r"objects\[0\].label: 'cat' is no label of Cityscapes' labels"),
        ({"objects": [{"label": "car", "polygon": [[1, float("nan")]]}]}, r"objects\[0\].polygon"),
        ({"objects": [{"label": "car"}]}, r"a_gtFine_polygons.json.objects\[0\].polygon: Field required"),
        ({"imgHeight": 10**6, "imgWidth": 10**6}, "the image is 1000000 x 1000000 pixels"),
        ({"imgHeight": 0}, r"the image is 0 x 4 pixels \(rows x columns\); needed are 1 to 33,554,432: correct"),
        ({"imgWidth": "x"}, "imgWidth: Input should be a valid integer"),
    ],
)
def test_wrong_polygons(tmp_path, change, message):
    put(tmp_path, "a", "polygons", {"imgHeight": 2, "imgWidth": 4, "objects": []} | change)
    with pytest.raises(FormatError, match=message):
        read(tmp_path)[0]


def test_polygons_of_another_image(tmp_path):
    put_image(tmp_path, "a")
    put(tmp_path, "a", "polygons", {"imgHeight": 2, "imgWidth": 5, "objects": []})
    with pytest.raises(FormatError, match="the image is 2 x 5 pixels .* needed are 2 x 4 as in the image file"):
        read(tmp_path)[0]


def test_what_cannot_be_written(tmp_path):
    volume = Sample.of("v", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int), THINGS))
    with pytest.raises(OutputError, match="cityscapes holds flat images"):
        write(tmp_path / "volume", [volume])
    many = Classes.of([f"c{k}" for k in range(999)])
    with pytest.raises(OutputError, match="cityscapes holds 998 classes, there are 999; write to mask_folder"):
        write(tmp_path / "classes", [sample("a", [[1]], [0], [0], many)])
    things = Classes.of([f"c{k}" for k in range(65)], is_thing=[True] * 65)
    with pytest.raises(OutputError, match="objects of more than 64 classes"):
        write(tmp_path / "things", [sample("a", [[1]], [64], [1], things)])
    crowd = sample("a", np.arange(1, 1002)[None], [0] * 1001, range(1, 1002))
    with pytest.raises(OutputError, match="has 1001 objects of class 'car', cityscapes holds 1000; write to mask_folder"):
        write(tmp_path / "objects", [crowd])

import logging
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.data.splits import open_splits
from segwright.formats import open_dataset
from segwright.formats.yolo import matches, read, write

THINGS = Classes.of(["car", "no: 'x' ✓"], is_thing=[True, True])
SQUARE = "1 0.25 0 0.75 0 0.75 0.5 0.25 0.5\n"  # columns 1 and 2 of 4, rows 0 and 1 of 4


def yaml(root, text="train: images\nval: images\nnames: [road, car]\n"):
    root.mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(text, encoding="utf-8")
    return root


def add(root, place, labels=None, side=4):
    """An image at a path such as images/a.png, and its labels."""
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), len(place), np.uint8)).save(file)
    if labels is not None:
        text = root / place.replace("images/", "labels/").replace(".png", ".txt")
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(labels)


def truth(root, labels):
    add(yaml(root), "images/a.png", labels)
    return read(root)[0].truth


def sample_of(key, masks, classes=THINGS):
    picture = np.random.default_rng(len(key)).integers(0, 256, (3, *masks.shape[1:]), dtype=np.uint8)
    return Sample.of(key, picture, Segmentation.instances(masks, np.arange(len(masks)) % 2, classes=classes))


# By hand


def test_lines_become_objects(tmp_path):
    found = truth(tmp_path, SQUARE + "\n0 0 0 1 0 1 1 0 1\r\n" + SQUARE)
    assert found.mask(0).astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.areas().tolist() == [4, 16, 4] and found.class_ids.tolist() == [1, 0, 1]
    assert found.instance_ids.tolist() == [1, 2, 3] and len(found.planes) == 3


def test_names_are_a_list_or_numbered(tmp_path):
    add(tmp_path, "images/a.png", SQUARE)
    split = "train: images\n"
    assert read(yaml(tmp_path, split + "names: [yes, 1.0]\nnc: 2\n")).classes.names == ("yes", "1.0")
    assert read(yaml(tmp_path, split + "names:\n  1: no\n  0: 'a b'\n")).classes.names == ("a b", "no")
    ours = 'names: [a, b]\nis_thing: [true, "False"]\ncolors: [[1, 2, 3], [4, 5, 6]]\n'
    data = read(yaml(tmp_path, split + ours))
    assert data.classes == Classes.of(["a", "b"], colors=[(1, 2, 3), (4, 5, 6)], is_thing=[True, False])
    assert data[0].truth.instance_ids.tolist() == [0]


@pytest.mark.parametrize("value", ["../test/images", "test/images", "/content/data/test/images", "C:\\\\data\\\\test", "[]"])
def test_a_part_that_is_not_there_is_left_out(tmp_path, caplog, value):
    for place in ("train/images/a.png", "valid/images/b.png"):
        add(tmp_path, place, SQUARE)
    data = read(yaml(tmp_path, f"train: ../train/images\nval: ../valid/images\ntest: {value}\nnames: [a, b]\n"))
    assert data.keys == ("train__a", "valid__b")
    assert value == "[]" or "data.yaml: test is left out: " in caplog.text
    yaml(tmp_path, "train: ../train/images\nval: ../valid/images\nnames: [a, b]\n")  # the remedy
    caplog.clear()
    assert read(tmp_path).keys == data.keys and not caplog.text


@pytest.mark.parametrize(
    ("path", "train", "val"),
    [
        ("", "/content/data/train/images", "/content/data/valid/images"),
        ("", "C:\\data\\train\\images", "C:\\data\\valid\\images"),
        ("/datasets/cells", "train/images", "valid/images"),
        ("../datasets/cells", "train/images", "valid/images"),
        ("", "./train/images", "valid"),
        ("", "/content/data/train", "/content/data/valid"),
    ],
)
def test_paths_of_another_machine_are_found_by_their_ends(tmp_path, path, train, val):
    for place in ("train/images/a.png", "valid/images/b.png"):
        add(tmp_path, place, SQUARE)
    data = read(yaml(tmp_path, f"path: {path}\ntrain: {train}\nval: {val}\nnames: [a, b]\n"))
    assert data.keys == ("train__a", "valid__b")


def test_the_last_name_alone_of_another_machine_is_no_guess(tmp_path):
    add(tmp_path, "images/a.png", SQUARE)
    with pytest.raises(FormatError, match="train: '/content/train/images' leads out of"):
        read(yaml(tmp_path, "train: /content/train/images\nval: /content/valid/images\nnames: [a, b]\n"))


def test_parts_become_keys(tmp_path):
    for place in ("images/train/b/2.png", "images/train/10.png", "images/train/9.png", "images/val/a.png"):
        add(tmp_path, place, SQUARE)
    add(tmp_path, "images/test/a.png")
    data = read(yaml(tmp_path, "path: .\ntrain: images/train/\nval: [images/val]\ntest: ./images/test\nnames: [a, b]\n"))
    assert data.keys == ("train__9", "train__10", "train__b__2", "val__a", "test__a")
    assert data.load("test__a").truth is None  # nobody drew any of that part
    assert data.image_files["val__a"] == tmp_path / "images" / "val" / "a.png"
    train, val = open_splits(tmp_path)
    assert train.keys == data.keys[:3] and val.keys == ("val__a",)
    assert pickle.loads(pickle.dumps(data))[0].truth.areas().tolist() == [4]


@pytest.mark.parametrize(
    ("places", "text", "keys"),
    [
        (("images/a.png",), "train: images\nval: images\n", ("a",)),
        (("images/a.png",), "path: ../elsewhere\ntrain: images\n", ("a",)),
        (("deep/images/a.png",), "path: deep\ntrain: images\n", ("a",)),
        (
            ("images/train2017/a.png", "images/val2017/a.png"),
            "train: images/train2017\nval: images/val2017\n",
            ("train__a", "val__a"),
        ),
        (
            ("train/images/a.png", "valid/images/a.png"),
            "train: ../train/images\nval: ../valid/images\n",
            ("train__a", "valid__a"),
        ),
        (("train/images/a.png", "val/images/b.png"), "train: train\nval: val\ntest:\n", ("train__a", "val__b")),
    ],
)
def test_layouts(tmp_path, places, text, keys):
    for place in places:
        add(tmp_path, place, SQUARE)
    data = read(yaml(tmp_path, text + "names: [a, b]\n"))
    assert data.keys == keys and data[0].truth.areas().tolist() == [4]


def test_lists_of_images(tmp_path):
    for name in "abc":
        add(tmp_path, f"images/{name}.png", SQUARE)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("images/b.png\r\n\nimages/a.png\n")
    (tmp_path / "val.txt").write_text("./images/c.png")
    data = read(yaml(tmp_path, "train: lists/train.txt\nval: val.txt\nnames: [a, b]\n"))
    assert data.keys == ("train__b", "train__a", "val__c")


def test_an_image_without_labels_has_no_object(tmp_path):
    add(yaml(tmp_path), "images/a.png", SQUARE)
    add(tmp_path, "images/b.png", "")
    add(tmp_path, "images/c.png")
    assert [len(sample.truth) for sample in read(tmp_path)] == [1, 0, 0]


def test_labels_without_an_image_are_counted(tmp_path, caplog):
    add(yaml(tmp_path), "images/a.png", SQUARE)
    (tmp_path / "labels/classes.txt").write_text("road\ncar\n")
    (tmp_path / "labels/._a.txt").write_bytes(b"\0\5\x16")
    assert read(tmp_path).left_out == {} and not caplog.text
    (tmp_path / "labels/gone.txt").write_text(SQUARE * 2 + "\n")
    assert read(tmp_path).left_out == {"of images that are not there": 2}
    assert "no image belongs to 1 files of labels (gone.txt)" in caplog.text
    add(tmp_path, "images/gone.png")
    assert read(tmp_path).left_out == {}


def test_any_name_of_the_yaml_will_do(tmp_path):
    add(tmp_path, "images/a.png", SQUARE)
    assert not matches(tmp_path)
    (tmp_path / "birds.yml").write_text("names: [a, b]\n'train': images")
    assert matches(tmp_path) and matches(tmp_path / "birds.yml") and open_dataset(tmp_path).keys == ("a",)
    assert read(tmp_path / "birds.yml").keys == ("a",)
    yaml(tmp_path)
    with pytest.raises(FormatError, match=r"there is several \(birds.yml, data.yaml\): give one of them"):
        read(tmp_path)


def test_what_is_written(tmp_path):
    masks = np.zeros((2, 4, 8), bool)
    masks[0, :2, :4] = True
    write(tmp_path / "a", [sample_of("train__x", masks), sample_of("val__y", masks[:0])])
    assert (tmp_path / "a" / "labels" / "train" / "x.txt").read_text() == "0 0 0 0.5 0 0.5 0.5 0 0.5\n"
    assert (tmp_path / "a" / "labels" / "val" / "y.txt").read_text() == ""
    text = (tmp_path / "a" / "data.yaml").read_text(encoding="utf-8")
    assert text == "train: images/train\nval: images/val\nnames:\n  0: car\n  1: 'no: ''x'' ✓'\n"
    assert not (tmp_path / "a" / "all.txt").exists()
    write(tmp_path / "b", [sample_of("x", masks)])
    assert (tmp_path / "b" / "data.yaml").read_text(encoding="utf-8").startswith("train: images\nval: images\n")


def test_stuff_stays_stuff(tmp_path):
    classes = Classes.of(["sky", "car"], is_thing=[False, True])
    segments = np.array([[1, 1, 2], [3, 0, -1]])
    sample = Sample.of(
        "a", np.zeros((1, 2, 3), np.uint8), Segmentation.panoptic(segments, [0, 1, 1], [0, 4, 0], classes=classes)
    )
    write(tmp_path / "data", [sample])
    data = open_dataset(tmp_path / "data")
    assert data.classes == classes and data[0].truth.instance_ids.tolist() == [0, 1, 2]  # numbered by lines; the crowd is one
    assert data[0].truth.planes[0].tolist() == [[1, 1, 2], [3, 0, 0]]  # void is nothing


# By a law


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_objects_come_back(tmp_path_factory, data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=9))
    sample = sample_of("val__a__b.c", data.draw(arrays(bool, (data.draw(st.integers(0, 5)), *shape))))
    place = tmp_path_factory.mktemp("data") / "set"
    write(place, [sample])
    back = read(place)
    assert back.keys == (sample.key,) and back.classes == THINGS
    assert np.array_equal(back[0].image, sample.image)
    written = [(int(k), m.tolist()) for k, m in zip(sample.truth.class_ids, sample.truth.masks(), strict=True) if m.any()]
    assert [(int(k), m.tolist()) for k, m in zip(back[0].truth.class_ids, back[0].truth.masks(), strict=True)] == written


def test_odd_sizes_are_exact(tmp_path):
    generator = np.random.default_rng(0)
    for side in (3, 7, 999, 1023, 30_011):
        mask = np.zeros((1, 3, side), bool)
        mask[0, 0] = generator.random(side) < 0.5
        mask[0, 2] = generator.random(side) < 0.5
        write(tmp_path / str(side), [sample_of("a", mask)])
        assert np.array_equal(read(tmp_path / str(side))[0].truth.mask(0), mask[0])


@pytest.mark.parametrize(
    "keys",
    [("b", "a"), ("a", "b"), ("val__b", "train__a"), ("val__b", "z", "train__c", "a", "train__a"), ("test__a",), ("10", "9")]
    + [
        ("train__a", "val__b", "train__c"),
        ("training__b", "train__a", "valid__x"),
        ("Train__b", "Val__a"),
        ("train__b", "train__a"),
    ],
)
def test_keys_keep_their_order(tmp_path, keys):
    write(tmp_path / "data", [sample_of(key, np.ones((1, 2, 2), bool)) for key in keys])
    assert open_dataset(tmp_path / "data").keys == keys


def test_an_order_that_is_out_of_date(tmp_path, caplog):
    write(tmp_path / "data", [sample_of(key, np.ones((1, 2, 2), bool)) for key in ("b", "a")])
    (tmp_path / "data" / "train.txt").write_text("./images/a.png\n")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path / "data").keys == ("a",)
    assert "all does not name the images that are there" in caplog.text


def test_what_becomes_no_segment_is_counted(tmp_path):
    lines = ["0 .5 .5 .2 .1", "1 .5 .5 .2 .1 .9", "0 .1 .1", "0", "0 1.2 0 1.4 0 1.4 1"]
    add(yaml(tmp_path), "images/a.png", "\n".join(lines) + "\n" + SQUARE)
    sample = read(tmp_path)[0]
    assert len(sample.truth) == 1 and sample.left_out == {
        "given as a box without a mask": 2,
        "with fewer than three corners": 2,
        "outside the image": 1,
    }


def test_boxes_with_points_and_turned_boxes(tmp_path):
    pose, turned = "0 .5 .5 .2 .1 .4 .4 2 .6 .6 1", "0 0 0 1 0 1 1 0 1"  # a turned box is its four corners
    text = "train: images\nnames: [road, car]\nkpt_shape: {}\n"
    add(yaml(tmp_path, text.format("[2, 3]")), "images/a.png", f"{pose}\n{turned}")
    sample = read(tmp_path)[0]
    assert len(sample.truth) == 1 and sample.left_out == {"given as a box without a mask": 1}
    with pytest.raises(FormatError, match="kpt_shape is 'x'; .points, 2 or 3 numbers of each. is needed"):
        read(yaml(tmp_path, text.format("x")))


# By its messages


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (SQUARE + "0 0.5 0.5 0.2", "line 2 has 3 numbers after the class; x and y of three or more corners"),
        ("0 0 0 1 1 0 1 0.5", "has 7 numbers after the class.*: remove a score at its end, or write the kpt_shape"),
        ("2 0 0 1 1 0 1", "has the class 2; names has the classes 0..1: correct one of them"),
        ("-1 .5 .5 .2 .1", "has the class -1"),
        ("0.5 0 0 1 1 0 1", "a class number and the corners x y x y"),
        ("0 0 0 1 1 0 a", "is '0 0 0 1 1 0 a'; a class number"),
        ("0 0 0 640 1 0 1", r"no shares of the image \(0..1\); divide x by its width"),
        ("0 0 0 nan 1 0 1", "no shares of the image"),
    ],
)
def test_lines_that_are_wrong(tmp_path, labels, message):
    with pytest.raises(FormatError, match=message) as error:
        truth(tmp_path, labels)
    assert str(tmp_path / "labels" / "a.txt") in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images\nnames: &a [x]\nnc: *a\n", "line 3 has an alias"),
        ("train: images\nnames: [" + "[" * 5000, "line 2 is nested more than 16 deep"),
        ("train: images\nnames: {0: a, 2: b}\n", "number them 0, 1, 2"),
        ("train: images\nnames: x\n", "names is 'x'; a list of class names is needed"),
        ("train: images\nnames: []\n", "names is ..; a list"),
        ("train: images\nnames: [a, a]\n", "class name 'a' appears 2 times"),
        ("train: images\nnames: [a]\nnc: 80\n", "nc is '80', but names has 1"),
        ("train: images\nnames: [a]\nis_thing: [maybe]\n", "give one true or false of is_thing"),
        ("train: images\nnames: [a]\ncolors: [[1, 2]]\n", "give one|red, green and blue|not enough"),
        ("train: images\nnames: [a]\ncolors: 7\n", "one .r, g, b. of colors per class"),
        ("train: {a: b}\nnames: [a]\n", "train is .*; a folder, a .txt or a list of these"),
        ("train: nowhere\nnames: [a]\n", "train: 'nowhere' is not in .*; correct the name"),
        ("train: ../../etc\nnames: [a]\n", "'../../etc' leads out of"),
        ("train: /etc\nnames: [a]\n", "'/etc' leads out of"),
        ("train: C:/x\nnames: [a]\n", "'C:/x' leads out of"),
        ("train:\nnames: [a]\n", "there is no image in train, val or test"),
        ("train: labels\nnames: [a]\n", "there is no image in .*labels"),
        ("train: list.txt\nnames: [a]\n", "line 1: '../../x.png' leads out of"),
        ("train: other.txt\nnames: [a]\n", r"line 2: 'labels/a.txt' is no image; images end in"),
        ("- names:\n- train:\nnames: [a]\ntrain: b", "cannot be read as YAML"),
        ("train: images\nnames: [a]\nx: " + "y" * (1 << 20), "1,048,576 are the limit"),
    ],
)
def test_a_yaml_that_is_wrong(tmp_path, text, message):
    add(tmp_path, "images/a.png", SQUARE)
    (tmp_path / "list.txt").write_text("../../x.png")
    (tmp_path / "other.txt").write_text("images/a.png\nlabels/a.txt\n")
    with pytest.raises(FormatError, match=message) as error:
        read(yaml(tmp_path, text))
    assert str(tmp_path) in str(error.value)


def test_a_short_yaml_cannot_stand_for_gigabytes(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(FormatError, match="has an alias"):
        read(yaml(tmp_path, "\n".join(lines) + "\ntrain: x\nnames: *a11\n"))


def test_few_corners_cannot_claim_any_number_of_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("segwright.formats.yolo.MAX_RUNS", 10)
    with pytest.raises(FormatError, match="a.txt, line 3: the objects have 15 runs of pixels; cut the image into tiles"):
        truth(tmp_path, SQUARE * 3)


def test_labels_that_are_missing(tmp_path):
    add(yaml(tmp_path), "images/a.png")
    with pytest.raises(FormatError, match=r"no image has labels; those of .*a.png would be .*labels/a.txt: add them"):
        read(tmp_path)
    with pytest.raises(FormatError, match="is needed, such as data.yaml; there is none"):
        read(tmp_path / "images")
    add(tmp_path, "images/b.png", "")
    (tmp_path / "labels" / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="b.txt cannot be read"):
        read(tmp_path).load("b")


def test_what_cannot_be_written(tmp_path):
    volume = Sample.of("a", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int)))
    with pytest.raises(OutputError, match="is a volume, 2 x 2 x 2, and yolo holds flat images"):
        write(tmp_path / "volume", [volume])
    bare = Sample.of("a", np.zeros((0, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2), int)))
    with pytest.raises(OutputError, match="'a' has no image, to whose size corners are relative; write it as coco"):
        write(tmp_path / "bare", [bare])


def test_our_keys_are_json_in_yaml(tmp_path):
    classes = Classes.of(["a", "b"], colors=[(1, 2, 3), (4, 5, 6)], is_thing=[True, False])
    write(tmp_path / "data", [sample_of("a", np.ones((1, 2, 2), bool), classes)])
    text = (tmp_path / "data" / "data.yaml").read_text(encoding="utf-8")
    assert text.endswith("is_thing: [true, false]\ncolors: [[1, 2, 3], [4, 5, 6]]\n")
    assert read(tmp_path / "data").classes == classes

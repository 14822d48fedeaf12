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
from segwright.formats.label_maps import to_maps
from segwright.formats.voc import CLASSES, colors_of, matches, numbers_of_colors, read, write

THINGS = Classes.of(["car", "person", "road"], is_thing=[True, True, False])
IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def put(root, folder, name, values, *, is_palette=False, dtype=np.uint8):
    path = root / folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.array(values, dtype=dtype))
    if is_palette:
        picture.putpalette(colors_of(np.arange(256)).tobytes())
    picture.save(path)


def put_list(root, name, *names):
    path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in names))


def sample(key, planes, class_ids, instance_ids, classes=THINGS):
    truth = Segmentation.panoptic(np.array(planes), class_ids, instance_ids, classes=classes)
    return Sample.of(key, np.zeros((3, *truth.shape), np.uint8), truth)


# By hand: the published encodings


def test_the_colors_of_voc():
    assert colors_of(np.array([0, 1, 2, 15, 20, 255])).tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
        [224, 224, 192],
    ]
    numbers = np.array([[0, 1, 300, 2**24 - 1]])
    assert np.array_equal(numbers_of_colors(np.moveaxis(colors_of(numbers[0])[None], -1, 0)), numbers)


def test_the_published_layout(tmp_path):
    for name in ("a", "b", "c", "d"):
        put(tmp_path / "VOCdevkit" / "VOC2012", "JPEGImages", name, IMAGE)
    root = tmp_path / "VOCdevkit" / "VOC2012"
    put(root, "SegmentationClass", "a", [[0, 15, 15, 255], [0, 7, 15, 255]], is_palette=True)
    put(root, "SegmentationObject", "a", [[0, 1, 2, 255], [0, 3, 255, 255]], is_palette=True)
    for name in "bc":
        put(root, "SegmentationClass", name, np.zeros((2, 4)), is_palette=True)
    put_list(root, "val", "a")
    put_list(root, "train", "c", "")
    put_list(root, "trainval", "a", "c")
    data = read(tmp_path)
    assert matches(tmp_path) and matches(root) and data.keys == ("train__c", "val__a", "b") and data.classes == CLASSES
    class_map, numbers = to_maps(data.load("val__a").truth)
    assert class_map.tolist() == [[0, 15, 15, VOID], [0, 7, 15, VOID]] and numbers.tolist() == [[0, 1, 2, 0], [0, 3, 0, 0]]
    assert data.classes.names[15] == "person" and data.classes.colors[15] == (192, 128, 128) and data.classes.is_thing[15]
    assert np.array_equal(data[0].image, IMAGE.transpose(2, 0, 1))


def test_what_cvat_exports(tmp_path):
    (tmp_path / "labelmap.txt").parent.mkdir(exist_ok=True)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "a:b:250,50,83::", "cat:::", "ignored:224,224,192::"]
    (tmp_path / "labelmap.txt").write_text("\n".join(lines) + "\n")
    put(tmp_path, "SegmentationClass", "x", [[[0, 0, 0], [250, 50, 83], [0, 128, 0], [224, 224, 192]]])
    put(tmp_path, "SegmentationObject", "x", [colors_of(np.array([0, 1, 300, 255]))])
    put(tmp_path, "SegmentationClass", "sub/y", [[[0, 0, 0]]])
    put_list(tmp_path, "default", "x", "sub/y")
    data = read(tmp_path)
    assert data.keys == ("x", "sub__y") and data.classes.names == ("background", "a:b", "cat")
    assert data.classes.colors == ((0, 0, 0), (250, 50, 83), (0, 128, 0)) and data.classes.is_thing == (False, True, True)
    class_map, numbers = to_maps(data[0].truth)
    assert class_map.tolist() == [[0, 1, 2, VOID]] and numbers.tolist() == [[0, 1, 300, 0]]
    assert data[0].image.shape == (0, 1, 4) and data[1].truth.class_map().tolist() == [[0]]


def test_what_labelme_exports(tmp_path):
    put(tmp_path, "SegmentationClass", "x", [[0, 1, 255]], is_palette=True)
    put_list(tmp_path, "train", "x")
    (tmp_path / "class_names.txt").write_text("__ignore__\n_background_\ncat\n")
    data = read(tmp_path)
    assert data.classes.names == ("_background_", "cat") and data[0].truth.class_map().tolist() == [[0, 1, VOID]]


def stored(path):
    picture = Image.open(path)
    return picture.mode, np.array(picture).tolist()


def test_what_is_written(tmp_path):
    write(tmp_path, [sample("train__x", [[1, 2, 3], [0, VOID, 4]], [0, 0, 1, 2], [1, 0, 7, 0])])
    assert stored(tmp_path / "SegmentationClass" / "x.png") == ("P", [[1, 1, 2], [0, 255, 3]])
    assert stored(tmp_path / "SegmentationObject" / "x.png") == ("P", [[1, 0, 7], [0, 255, 0]])
    picture = np.array(Image.open(tmp_path / "SegmentationClass" / "x.png").convert("RGB"))
    assert tuple(picture[0, 0]) == THINGS.colors[0] and picture[1].tolist()[:2] == [[0, 0, 0], [224, 224, 192]]
    assert (tmp_path / "ImageSets" / "Segmentation" / "train.txt").read_text() == "x\n"
    assert (tmp_path / "labelmap.txt").read_text().splitlines()[1:3] == ["background:0,0,0::", "car:61,122,242::"]
    assert json.loads((tmp_path / "classes.json").read_text())["values"] == [1, 2, 3]
    write(tmp_path / "b", [sample("x", [[1, 2, VOID]], [0, 15], [0, 3], CLASSES)])
    assert stored(tmp_path / "b" / "SegmentationClass" / "x.png")[1] == [[0, 15, 255]]
    assert not (tmp_path / "b" / "classes.json").exists() and read(tmp_path / "b").classes == CLASSES


KEYS = ["a", "train__a", "val__a", "train__b__c", "default__a", "val__b", "b", "train__.x", "train__ y", "train__val__a"]


def test_keys_of_any_kind_come_back(tmp_path):
    write(tmp_path, [sample(key, [[1]], [0], [number + 1]) for number, key in enumerate(KEYS)])
    data = read(tmp_path)
    assert sorted(data.keys) == sorted(KEYS)
    for key in data.keys:
        assert data.load(key).truth.instance_ids.tolist() == [KEYS.index(key) + 1]
    assert pickle.loads(pickle.dumps(data)).load("a").key == "a"


def test_the_order_of_the_lists_is_kept(tmp_path):
    write(tmp_path, [sample(key, [[1]], [0], [1]) for key in ("z", "a", "val__k", "train__q", "train__b")])
    assert read(tmp_path).keys == ("train__q", "train__b", "val__k", "z", "a")


def test_a_writer_that_was_stopped_goes_on(tmp_path):
    def samples(count):
        for number, key in enumerate(KEYS):
            if number == count:
                raise KeyboardInterrupt
            yield sample(key, [[1]], [0], [number + 1])

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", samples(2))
    write(tmp_path / "a", samples(len(KEYS) + 1))
    write(tmp_path / "b", samples(len(KEYS) + 1))
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}


# By a law


@settings(max_examples=40)
@given(
    class_map=arrays(np.int64, (3, 4), elements=st.integers(-2, 2)),
    numbers=arrays(np.int64, (3, 4), elements=st.sampled_from([0, 1, 2, 254, 255, 300, 65534])),
    classes=st.sampled_from([THINGS, CLASSES, Classes.of(["background", "a", "b"], is_thing=[False, True, True])]),
)
def test_what_does_not_overlap_comes_back(tmp_path_factory, class_map, numbers, classes):
    pairs = sorted({(int(k), int(n)) for k, n in zip(class_map.flat, numbers.flat, strict=True) if k >= 0})
    planes = np.array(
        [pairs.index((k, n)) + 1 if k >= 0 else -k - 2 for k, n in zip(class_map.flat, numbers.flat, strict=True)]
    )
    planes = np.where(class_map.ravel() == -1, VOID, planes).reshape(3, 4)
    written = sample("a", planes, [k for k, _ in pairs], [n for _, n in pairs], classes)
    root = tmp_path_factory.mktemp("data")
    write(root, [written])
    data = read(root)
    assert data.classes == classes
    for back, before in zip(to_maps(data[0].truth), to_maps(written.truth), strict=True):
        assert np.array_equal(back, before)


def test_high_numbers_are_given_anew(tmp_path):
    write(tmp_path, [sample("a", [[1, 2, 3]], [0, 0, 1], [5, 70_000, 6])])
    assert read(tmp_path)[0].truth.instance_ids.tolist() == [1, 3, 2]


# By its messages


def test_places_that_are_no_data_set(tmp_path):
    with pytest.raises(FormatError, match=r"has no folder SegmentationClass \(it is empty\); give the folder"):
        read(tmp_path)
    (tmp_path / "SegmentationClass").mkdir()
    with pytest.raises(FormatError, match="SegmentationClass holds no mask"):
        read(tmp_path)
    assert not matches(tmp_path)
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / "kit" / "VOCdevkit" / year / "SegmentationClass").mkdir(parents=True)
    with pytest.raises(FormatError, match="holds several data sets, VOC2007 and VOC2012; give one of them"):
        read(tmp_path / "kit")


def test_lists_and_files_that_differ(tmp_path, caplog):
    put(tmp_path, "SegmentationClass", "a", [[0]])
    put_list(tmp_path, "train", "a", "b", "../c")
    with pytest.raises(
        FormatError, match=r"train.txt: 2 of 3 names have no mask in SegmentationClass \(b, ../c\); add the masks"
    ):
        read(tmp_path)
    (tmp_path / "dataset.toml").write_text('drop = ["train__b", "train__.___c", "train__..__c"]')
    put_list(tmp_path, "test", "x", "y")
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path).keys == ("train__a",)
    assert "test.txt: none of its 2 names has a mask; it is left out" in caplog.text
    put(tmp_path, "SegmentationClass", "train__a", [[0]])
    with pytest.raises(FormatError, match="would both be called train__a; rename one"):
        read(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(FormatError, match="train.txt cannot be read as text"):
        read(tmp_path)


def test_files_that_are_missing_or_wrong(tmp_path):
    for name in "ab":
        put(tmp_path, "SegmentationClass", name, [[0, 30]])
    put(tmp_path, "JPEGImages", "a", IMAGE[:1, :2])
    data = read(tmp_path)
    with pytest.raises(FormatError, match="b.png has no image in JPEGImages; add it, or remove the mask"):
        data.load("b")
    with pytest.raises(
        FormatError, match="a.png holds the number 30 at 1 of 2 pixels, but VOC's list .*belong into labelmap.txt"
    ):
        data.load("a")
    put(tmp_path, "SegmentationClass", "a", [[0, 20]])
    put(tmp_path, "SegmentationObject", "a", [[0, 1, 1]])
    with pytest.raises(FormatError, match="SegmentationObject/a.png is 1 x 3, its image"):
        read(tmp_path).load("a")
    put(tmp_path, "SegmentationObject", "a", [[[0, 1, 2, 255], [1, 2, 3, 9]]])
    assert read(tmp_path).load("a").truth.instance_ids.max() > 0  # alpha is left out


@pytest.mark.parametrize("line", ["car", "car:1,2::", "car:red::", "car:1,2,300::"])
def test_wrong_label_maps(tmp_path, line):
    put(tmp_path, "SegmentationClass", "a", [[0]])
    (tmp_path / "labelmap.txt").write_text(f"background:0,0,0::\n{line}\n")
    if line == "car":
        assert read(tmp_path).classes.colors[1] == (128, 0, 0)
        return
    with pytest.raises(FormatError, match="labelmap.txt: .* is no class; a line such as car:128,0,0:: is needed"):
        read(tmp_path)


def test_what_cannot_be_written(tmp_path):
    volume = Sample.of("v", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int), THINGS))
    with pytest.raises(OutputError, match="voc holds flat images"):
        write(tmp_path / "volume", [volume])
    with pytest.raises(OutputError, match="voc holds 254 classes, there are 255; write to mask_folder"):
        write(tmp_path / "classes", [sample("a", [[1]], [0], [0], Classes.of([f"c{k}" for k in range(255)]))])

import json
import logging
import pickle

import numpy as np
import pytest

from segwright.codecs import rle
from segwright.codecs.image_writer import write_image
from segwright.core import Sample
from segwright.core.errors import FormatError
from segwright.formats.datumaro import matches, read, write

LABELS = [{"name": "cat", "parent": "", "attributes": []}, {"name": "dog", "parent": "cat"}]


def one(kind, label=0, **more):
    return {"id": 0, "type": kind, "attributes": {}, "group": 0, "label_id": label, "z_order": 0} | more


def mask(rows, **more):
    counts = rle.encode(np.array(rows, bool))
    return one("mask", rle={"counts": rle.to_text(counts), "size": [len(rows), len(rows[0])]}, **more)


def item(name, *annotations, size=(2, 3), **more):
    return {"id": name, "annotations": list(annotations), "image": {"path": f"{name}.jpg", "size": list(size)}} | more


def subset(root, *items, name="train", labels=LABELS, **categories):
    path = root / "annotations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {}, "categories": {"label": {"labels": labels}} | categories, "items": items}))
    return root


# By hand


def test_each_kind_of_annotation(tmp_path, caplog):
    annotations = [
        mask([[1, 1, 0], [0, 0, 0]], z_order=5, object_id=9),
        one("polygon", 1, points=[1.0, 0.0, 3.0, 0.0, 3.0, 1.0, 1.0, 1.0], attributes={"score": 0.5}),
        mask([[0, 0, 0], [1, 0, 0]], attributes={"is_crowd": True}),
        one("ellipse", 1, points=[1.0, 1.0, 2.0, 2.0], object_id=-1),
        *(one("bbox", bbox=[0, 0, 1, 1]), one("caption", None, caption="x"), mask([[1, 1, 1]] * 2, label_id=None)),
        one("bbox", None, bbox=[0, 0, 1, 1]),
        one("polygon", points=[9.0, 9.0, 12.0, 9.0, 12.0, 12.0]),
    ]
    colors = {"colormap": [{"label_id": 1, "r": 1, "g": 2, "b": 3}]}
    with caplog.at_level(logging.WARNING):
        data = read(subset(tmp_path, item("a", *annotations), mask=colors))
        truth = data[0].truth
        left_out = data[0].left_out
    assert data.keys == ("train__a",) and data.classes.names == ("cat", "dog") and data.classes.colors[1] == (1, 2, 3)
    assert data.classes.is_thing == (True, True) and data[0].image.shape == (0, 2, 3)
    assert truth.class_ids.tolist() == [1, 0, 1, 0] and truth.instance_ids.tolist() == [1, 0, 2, 9]  # the highest comes last
    assert truth.scores.tolist() == [0.5, 1, 1, 1]
    assert truth.planes.tolist() == [[[0, 1, 1], [2, 3, 0]], [[4, 4, 0], [0, 0, 0]]]
    assert len(caplog.records) == 1 and "no image lies beside" in caplog.text
    assert left_out == {
        "about the image as a whole": 1,
        "without a label": 2,
        "outside the image": 1,
        "given as a box without a mask": 1,
    }


def test_a_group_is_one_object(tmp_path):
    parts = [mask([[1, 0, 0]], group=7), mask([[0, 1, 0]], group=7), mask([[0, 0, 1]], group=7, label_id=1)]
    truth = read(subset(tmp_path, item("a", *parts, size=(1, 3))))[0].truth
    assert truth.planes.tolist() == [[[1, 1, 2]]]


def test_a_box_of_an_object_with_a_mask_is_not_counted(tmp_path):
    box, turned = one("bbox", bbox=[0, 0, 1, 1], group=7), one("rotated_bbox", bbox=[0, 0, 1, 1], group=8)
    sample = read(subset(tmp_path, item("a", box, mask([[1, 0, 0]], group=7), turned, size=(1, 3))))[0]
    assert len(sample.truth) == 1 and sample.left_out == {"given as a box without a mask": 1}


def test_what_is_no_region_is_counted(tmp_path):
    corners = [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    kinds = ("polyline", "points", "skeleton", "cuboid_2d", "label", "new_kind")
    parts = [one(kind, points=corners) for kind in kinds] + [mask([[0, 0, 0]])]
    sample = read(subset(tmp_path, item("a", *parts, one("polygon", points=corners[:4]), size=(1, 3))))[0]
    assert sample.truth.planes.tolist() == [[[1, 0, 0]]]  # the kind that is not known
    assert sample.left_out == {
        "drawn as a line or as points": 3,
        "of the kind 'cuboid_2d'": 1,
        "about the image as a whole": 1,
        "without a pixel": 1,
        "with fewer than three corners": 1,
    }


def test_subsets_and_images(tmp_path):
    for name in ("images/test/a", "images/x/b", "images/default/c"):
        write_image(tmp_path / name, np.zeros((1, 2, 3), np.uint8))
    for name, part in (("a", "test"), ("x/b", "train"), ("c", "default")):
        subset(tmp_path, {"id": name, "annotations": [], "image": {"path": f"{name}.png"}}, name=part)
    data = read(tmp_path)
    assert data.keys == ("c", "train__x__b", "test__a") and [one.image.shape for one in data] == [(1, 2, 3)] * 3


def test_what_is_written_is_as_datumaro_has_it(tmp_path, hard_samples):
    write(tmp_path / "new", hard_samples[:3])
    content = json.loads((tmp_path / "new/annotations/train.json").read_text())
    assert [one["id"] for one in content["items"]] == ["a.000", "a.001", "a.002"]
    assert content["items"][1]["image"] == {"path": "a.001.png", "size": list(hard_samples[1].grid.shape)}
    labels = content["categories"]["label"]["labels"]
    assert [label["name"] for label in labels] == list(hard_samples[0].truth.classes.names)
    assert all({"name", "parent", "attributes"} <= label.keys() for label in labels)
    assert {one["type"] for entry in content["items"] for one in entry["annotations"]} == {"mask"}
    assert (tmp_path / "new/images/train/a.001.png").is_file()


# By a law


def test_what_was_written_comes_back(tmp_path, hard_samples, assert_same):
    write(tmp_path / "new", iter(hard_samples))
    data = pickle.loads(pickle.dumps(read(tmp_path / "new")))
    assert matches(tmp_path / "new") and data.keys == tuple(sample.key for sample in hard_samples)
    assert data.classes == hard_samples[0].truth.classes
    for read_back, written in zip(data, hard_samples, strict=True):
        assert_same(read_back, written)


def test_without_images_the_truth_comes_back(tmp_path, hard_samples, assert_same):
    bare = [Sample.of(one.key, one.image[:0], one.truth) for one in hard_samples[:4]]
    write(tmp_path / "new", bare)
    for read_back, written in zip(read(tmp_path / "new"), bare, strict=True):
        assert_same(read_back, written)


# By its messages


def test_what_is_no_datumaro(tmp_path):
    assert not matches(tmp_path)
    with pytest.raises(FormatError, match="has no annotations/.*.json .*it is empty"):
        read(tmp_path)
    with pytest.raises(FormatError, match="it is no folder"):
        read(tmp_path / "nothing")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert not matches(tmp_path)
    with pytest.raises(FormatError, match="holds no item"):
        read(subset(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (mask([[1, 1]]), r"the mask is \[1, 2\], the image \[2, 3\]"),
        (mask([[1] * 3] * 2) | {"rle": {"counts": "06", "size": [2]}}, r"rle.size: List should have at least 2 items"),
        (one("mask", rle={"counts": "0", "size": [2, 3]}), r"add up to 0 pixels, the image has 2 x 3"),
        (one("mask", rle={"counts": "0~", "size": [2, 3]}), r"run lengths are damaged at character 2"),
        (one("mask", rle={"counts": [0, -6], "size": [2, 3]}), r"counts.*greater than or equal to 0"),
        (one("polygon", points=[1, 2, 3]), r"annotations\[0\]: 3 numbers are no points of a polygon"),
        (one("ellipse", points=[1, 2]), r"annotations\[0\]: 2 numbers are no points of a ellipse"),
        (mask([[1] * 3] * 2, label_id=2), r"annotations\[0\].label_id is 2, there are 2 labels"),
    ],
)
def test_what_is_wrong_with_an_annotation(tmp_path, wrong, message):
    with pytest.raises(FormatError, match=rf"train.json: items\[0\].*{message}"):
        _ = read(subset(tmp_path, item("a", wrong)))[0]


def test_what_is_wrong_with_a_file(tmp_path):
    with pytest.raises(FormatError, match="categories: class name 'cat' appears 2 times"):
        read(subset(tmp_path, item("a"), labels=[LABELS[0]] * 2))
    with pytest.raises(FormatError, match="two samples that would both be called 'train__a'"):
        read(subset(tmp_path, item("a"), item("a")))
    subset(tmp_path, item("a"))
    with pytest.raises(FormatError, match="its subsets have other labels or colours than train.json"):
        read(subset(tmp_path, item("a"), name="val", labels=LABELS[:1]))


def test_damaged_files_are_read_or_refused(tmp_path, hard_samples, mutations):
    write(tmp_path / "new", hard_samples[1:3])
    for _ in mutations(tmp_path / "new/annotations/train.json", 200, 0):
        try:
            list(read(tmp_path / "new"))
        except FormatError as error:
            assert str(tmp_path) in str(error)

import json
import logging
import pickle

import numpy as np
import pytest

from segwright.codecs import brush_rle
from segwright.codecs.image_writer import write_image
from segwright.core import Sample
from segwright.core.errors import FormatError
from segwright.formats.label_studio import matches, read, write

SIZE = {"original_width": 6, "original_height": 4}


def result(kind, value, label="a", **more):
    return {"type": kind, "from_name": "label", "to_name": "image", **SIZE, "value": value | {kind: [label]}} | more


def brush(*pixels):
    mask = np.zeros((4, 6), bool)
    for row, column in pixels:
        mask[row, column] = True
    return {"format": "rle", "rle": brush_rle.encode_brush(mask).tolist()}


def task(*results, image="/data/upload/3/1a2b3c4d-a.png", **more):
    return {
        "id": 1,
        "annotations": [{"id": 7, "was_cancelled": False, "result": list(results)}],
        "data": {"image": image},
    } | more


def export(root, *tasks, name="project-1.json"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(tasks))
    return root


# By hand


def test_each_kind_of_result(tmp_path, caplog):
    results = [
        result("brushlabels", brush((0, 0), (3, 5)), "b10"),
        result("polygonlabels", {"points": [[50, 0], [100, 0], [100, 25], [50, 25]], "closed": True}, "b9"),
        result("rectanglelabels", {"x": 0, "y": 25, "width": 50, "height": 25, "rotation": 0}, "b9", score=0.5),
        result("rectanglelabels", {"x": 100, "y": 50, "width": 20, "height": 30, "rotation": 90}, "b9"),  # 1.2 x 1.2 pixels
        result("ellipselabels", {"x": 25, "y": 87.5, "radiusX": 20, "radiusY": 1}, "b9"),
        result("keypointlabels", {"x": 1, "y": 2, "width": 1}, "b9"),
        {"type": "choices", "value": {"choices": ["good"]}},
        result("polygonlabels", {"points": [[50, 0], [100, 0], [100, 25]], "closed": False}, "b9"),
        result("polygonlabels", {"points": [[50, 0], [100, 0]]}, "b9"),
        result("rectanglelabels", {"x": 120, "y": 25, "width": 50, "height": 25}, "b9"),
    ]
    with caplog.at_level(logging.WARNING):
        data = read(export(tmp_path, task(*results)))
        truth, left_out = data[0].truth, data[0].left_out
    assert data.keys == ("1a2b3c4d-a",) and data.classes.names == ("b9", "b10") and data[0].image.shape == (0, 4, 6)
    assert truth.class_ids.tolist() == [1, 0, 0, 0, 0] and truth.scores.tolist() == [1, 1, 0.5, 1, 1]
    assert truth.planes.tolist() == [[[1, 0, 0, 2, 2, 2], [3, 3, 3, 0, 0, 0], [0, 0, 0, 0, 0, 4], [5, 5, 5, 0, 0, 1]]]
    assert left_out == {
        "drawn as a line or as points": 2,
        "about the image as a whole": 1,
        "with fewer than three corners": 1,
        "outside the image": 1,
    }


def test_a_region_and_its_label_may_be_two_results(tmp_path):
    value = brush((0, 0))
    parts = [
        {"id": "x", "type": "brush", **SIZE, "value": value},
        {"id": "x", "type": "labels", **SIZE, "value": value | {"labels": ["a"]}},
        {"id": "y", "type": "brush", **SIZE, "value": value},  # never labelled
    ]
    sample = read(export(tmp_path, task(*parts)))[0]
    assert len(sample.truth) == 1 and sample.truth.planes[0, 0, 0] == 1 and sample.left_out == {"without a label": 1}


def test_a_region_on_an_image_that_was_turned_is_refused(tmp_path):
    box = result("rectanglelabels", {"x": 0, "y": 25, "width": 50, "height": 25})
    assert len(read(export(tmp_path, task(box | {"image_rotation": 0})))[0].truth) == 1
    with pytest.raises(FormatError, match=r"result\[1\] was drawn on the image turned by 90 degrees .* turn the image back"):
        _ = read(export(tmp_path, task(box, box | {"image_rotation": 90})))[0]


def test_a_label_of_nothing_is_none(tmp_path):
    box = {"x": 0, "y": 25, "width": 50, "height": 25}
    data = read(export(tmp_path, task(result("rectanglelabels", box), result("rectanglelabels", box, " "))))
    assert data.classes.names == ("a",) and data[0].left_out == {"without a label": 1} and len(data[0].truth) == 1


def test_the_first_annotation_that_is_not_cancelled_counts(tmp_path, caplog):
    one, two = (result("brushlabels", brush((0, column)), label) for column, label in enumerate("ab"))
    annotations = [{"was_cancelled": True, "result": [one]}, {"result": [two]}, {"result": [one]}]
    old = {"data": {"text": "no image", "img": "s3://bucket/b.jpg?x=1"}, "completions": [{"result": [one]}, {"result": []}]}
    skipped = [{"data": {"image": "c.jpg"}, "annotations": []}, {"data": {}, "completions": [{"skipped": True, "result": []}]}]
    with caplog.at_level(logging.WARNING):
        data = read(export(tmp_path, task(annotations=annotations), old, *skipped))
    assert data.keys == ("1a2b3c4d-a", "b") and "2 tasks have no finished annotation and are left out" in caplog.text
    assert [sample.truth.planes[0, 0, :2].tolist() for sample in data] == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("name", "file", "key"),
    [
        ("/data/upload/3/1a2b3c4d-a.png", "a", "1a2b3c4d-a"),
        ("/data/upload/3/1a2b3c4d-a.png", "pictures/1a2b3c4d-a", "1a2b3c4d-a"),
        ("/data/local-files/?d=some/train/a%20b.png", "train/a b", "a b"),
        ("https://example.org/x/a%20b.png?size=3", "images/a b", "a b"),
        ("images/train/a%20b.png", "images/train/a%20b", "train__a%20b"),
        ("../a.png", "a", "a"),
    ],
)
def test_images_are_found_by_their_names(tmp_path, name, file, key):
    path = write_image(tmp_path / file, np.zeros((3, 4, 6), np.uint8))
    data = read(export(tmp_path, task(image=name)))
    assert data.image_files == {key: path} and data[0].image.shape == (3, 4, 6)


def test_what_is_written_is_as_label_studio_has_it(tmp_path, hard_samples):
    write(tmp_path / "new", hard_samples[:3])
    tasks = json.loads((tmp_path / "new/tasks.json").read_text())
    assert [one["data"]["image"] for one in tasks] == [f"images/train/a.00{n}.png" for n in range(3)]
    first = tasks[1]["annotations"][0]["result"][0]
    height, width = hard_samples[1].grid.shape
    assert first["type"] == "brushlabels" and first["value"]["format"] == "rle"
    assert (first["original_height"], first["original_width"]) == (height, width)
    assert len(first["value"]["brushlabels"]) == 1 and first["value"]["rle"][:4] == [*(4 * height * width).to_bytes(4, "big")]


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


def test_what_is_no_export(tmp_path):
    (tmp_path / "a.json").write_text('[{"id": 1}]')
    (tmp_path / "b.json").write_text('{"annotations": []}')
    assert not matches(tmp_path) and not matches(tmp_path / "nothing")
    with pytest.raises(FormatError, match="holds no JSON export of Label Studio .*2 .json"):
        read(tmp_path)
    with pytest.raises(FormatError, match="it is no folder"):
        read(tmp_path / "nothing")
    (tmp_path / "a.json").write_text('[{"id": 1, "annotations": [')
    with pytest.raises(FormatError, match="a.json is cut short"):
        read(tmp_path)
    with pytest.raises(FormatError, match="no task has a finished annotation"):
        read(export(tmp_path / "x", {"data": {"image": "a"}, "annotations": []}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (task(data={}), r"\[0\].data names no image"),
        (task(result("brushlabels", {"rle": [256]})), r"\[0\].result\[0\]: the run lengths are no bytes"),
        (task(result("brushlabels", {"rle": [0] * 20})), r"\[0\].result\[0\]: the run lengths hold 0 values, .* 4 x 6 has 96"),
        (task(result("brushlabels", {"rle": "abc"})), r"value.rle: Input should be a valid array"),
        (task(result("brushlabels", brush(), original_width=-6)), r"\[0\]: an image of 4 x -6 .* is impossible"),
        (task(result("brushlabels", brush()), result("brushlabels", brush(), original_width=5)), "images of different sizes"),
        (task(), r"\[0\]: neither its image '/data.*' nor the size of that is known"),
    ],
)
def test_what_is_wrong_with_a_task(tmp_path, wrong, message):
    with pytest.raises(FormatError, match=f"project-1.json.*{message}"):
        _ = read(export(tmp_path, wrong))[0]


def test_two_tasks_of_one_image(tmp_path):
    with pytest.raises(FormatError, match="two samples that would both be called '1a2b3c4d-a'"):
        read(export(tmp_path, task(), task()))


def test_damaged_files_are_read_or_refused(tmp_path, hard_samples, mutations):
    write(tmp_path / "new", hard_samples[1:3])
    for _ in mutations(tmp_path / "new/tasks.json", 200, 0):
        try:
            list(read(tmp_path / "new"))
        except FormatError as error:
            assert str(tmp_path) in str(error)

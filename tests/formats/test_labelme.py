import base64
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import labelme
from segwright.formats.labelme import matches, read, write

IMAGE = np.arange(24, dtype=np.uint8).reshape(4, 6)


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}} | more


def labelled(path, *shapes, image="a.png", **more):
    """A file as labelme writes it; returns the folder."""
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image, "imageData": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"imageHeight": 4, "imageWidth": 6} | more))
    return path.parent


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


# By hand


def test_each_kind_of_shape(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    shapes = [
        shape("b2", box(0, 0, 2, 1)),
        shape("b10", [[6.0, 4.0], [5.0, 3.0]], "rectangle"),  # drawn from the right
        shape("b2", [[1.5, 2.5], [1.5, 3.6]], "circle"),
        shape("b10", [[4, 0], [5, 1]], "mask", mask=png(np.array([[True, False], [True, True]]))),
        *(shape("b2", [[1, 1]], "point"), shape("b3", [[1, 1], [2, 2], [3, 3]], "linestrip"), shape("b2", [[1, 1]], "points")),
        *(shape("b2", box(9, 0, 12, 3)), shape("b2", [[1, 1], [2, 2]]), shape("b2", [[1, 1]], "rectangle")),
        *(shape("b2", box(0.6, 0.6, 0.8, 2)), shape("b2", [], "mask", mask="abc"), shape("b2", [[0, 0]], "mask")),
        *(shape("b2", box(0, 0, 2, 1) * 2, "cuboid"), shape("b2", [[1, 1]], "circle")),
    ]
    data = read(labelled(tmp_path / "a.json", *shapes))
    sample = data[0]
    assert data.keys == ("a",) and data.classes.names == ("b2", "b10") and data.classes.is_thing == (True, True)
    assert np.array_equal(sample.image[0], IMAGE) and data.image_files == {"a": tmp_path / "a.png"}
    assert sample.truth.class_ids.tolist() == [0, 1, 0, 1] and sample.truth.instance_ids.tolist() == [1, 2, 3, 4]
    assert sample.truth.planes.tolist() == [
        [[1, 1, 0, 0, 4, 0], [0, 3, 0, 0, 4, 4], [3, 3, 3, 0, 0, 0], [0, 3, 0, 0, 0, 2]],
    ]
    assert sample.left_out == {
        "drawn as a line or as points": 3,
        "outside the image": 1,
        "with fewer than three corners": 3,
        "without a pixel": 3,
        "of the kind 'cuboid'": 1,
    }


def test_boxes_of_x_anylabeling_are_polygons_of_their_corners(tmp_path):
    kinds = ("rotation", "rectangle", "quadrilateral", "oriented_rectangle", "new kind")
    shapes = [shape(f"{k}", box(k, 0, k + 1, 1), kind, direction=0.78) for k, kind in enumerate(kinds)]
    data = read(labelled(tmp_path / "a.json", *shapes))
    assert data.classes.names == ("0", "1", "2", "3", "4") and not data[0].left_out
    assert data[0].truth.planes[0, 0].tolist() == [1, 2, 3, 4, 5, 0]


def test_a_label_of_nothing_is_none(tmp_path):
    shapes = [
        shape(None, box(0, 0, 2, 1)),
        shape("", box(0, 0, 2, 1)),
        shape("a", box(2, 2, 4, 4)),
        shape(None, [[1, 1]], "point"),
    ]
    data = read(labelled(tmp_path / "a.json", *shapes))
    assert data.classes.names == ("a",) and data[0].truth.areas().tolist() == [4]
    assert data[0].left_out == {"without a label": 2, "drawn as a line or as points": 1}


def test_shapes_of_one_group_are_one_object(tmp_path):
    parts = [
        shape("a", box(0, 0, 1, 1), group_id=0),
        shape("b", box(1, 0, 2, 1), group_id=0),
        shape("a", box(2, 0, 3, 1), group_id=0),
    ]
    truth = read(labelled(tmp_path / "a.json", *parts))[0].truth
    assert truth.planes[0, 0].tolist() == [1, 2, 1, 0, 0, 0]


def test_void_and_nothing_take_away_from_what_was_there(tmp_path):
    shapes = [
        shape("a", box(0, 0, 4, 1)),
        *(shape("__ignore__", box(1, 0, 3, 1)), shape("_background_", box(2, 0, 5, 1)), shape("b", box(0, 1, 1, 2))),
        shape("__ignore__", box(5, 0, 6, 1)),
    ]
    data = read(labelled(tmp_path / "a.json", *shapes))
    assert data.classes.names == ("a", "b") and data[0].truth.planes[0, 0].tolist() == [1, -1, 0, 0, 0, -1]
    (tmp_path / "classes.json").write_text('["_background_", "a", "b"]')
    named = read(tmp_path)[0].truth
    assert named.class_ids.tolist() == [1, 0, 2] and named.planes[:, 0].tolist() == [[1, -1, 0, 1, 0, -1], [0, 0, 2, 2, 2, 0]]


def test_the_image_may_lie_in_the_file_or_nowhere(tmp_path):
    labelled(tmp_path / "a.json", image="a.jpg", imageData=png(IMAGE))
    assert np.array_equal(read(tmp_path)[0].image[0], IMAGE)
    labelled(tmp_path / "a.json", image="a.jpg")
    data = read(tmp_path)
    assert data[0].image.shape == (0, 4, 6) and data.classes.names == ("object",)


def test_labels_in_a_folder_of_their_own(tmp_path):
    for part in ("train", "val"):
        (tmp_path / "images" / part).mkdir(parents=True)
        Image.fromarray(IMAGE + (part == "val")).save(tmp_path / "images" / part / "a.png")
        labelled(tmp_path / "labels" / part / "a.json", shape("a", box(0, 0, 1, 1)), image=f"..\\..\\images\\{part}\\a.png")
    data = read(tmp_path)
    assert data.keys == ("train__a", "val__a") and [sample.image[0, 0, 0] for sample in data] == [0, 1]


def test_what_is_written_is_as_labelme_has_it(tmp_path):
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :3, :3], masks[0, 1, 1] = True, False
    masks[1, 3, 4:] = True
    masks[2, 0, 5] = masks[2, 2, 5] = True
    truth = Segmentation.instances(masks, [0, 0, 0], classes=Classes.of(["x"], is_thing=[True]))
    write(tmp_path / "new", [Sample.of("train__a", IMAGE[None], truth)])
    content = json.loads((tmp_path / "new/train/a.json").read_text())
    hole, flat, *parts = content["shapes"]
    assert content["imagePath"] == "a.png" and (content["imageHeight"], content["imageWidth"]) == (4, 6)
    assert hole["shape_type"] == "mask" and hole["points"] == [[0, 0], [2, 2]]
    assert np.array_equal(np.array(Image.open(io.BytesIO(base64.b64decode(hole["mask"])))), masks[0, :3, :3])
    assert flat["shape_type"] == "polygon" and flat["points"] == [[4, 3], [6, 3], [6, 4], [4, 4]] and flat["group_id"] is None
    assert [part["group_id"] for part in parts] == [3, 3]


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


def test_what_is_no_labelme(tmp_path):
    assert not matches(tmp_path) and not matches(tmp_path / "nothing")
    with pytest.raises(FormatError, match="holds no JSON file of labelme .*it is empty"):
        read(tmp_path)
    with pytest.raises(FormatError, match="is not a folder"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"points": [[0, 0, 0]]}, r"shapes\[1\].points\[0\]: List should have at most 2 items"),
        ({"points": [[0, float("nan")]]}, r"shapes\[1\].points\[0\]\[1\]: Input should be a finite number"),
        ({"points": [[0, 0]], "shape_type": "mask", "mask": "abc"}, r"shapes\[1\]: the base64 text is damaged"),
        ({"points": [[0, 0]], "shape_type": "mask", "mask": "abcd"}, r"shapes\[1\] is not an image"),
        ({"instance_id": -1, "points": [[0, 0], [1, 1], [0, 1]]}, "an object has the number -1"),
    ],
)
def test_what_is_wrong_with_a_shape(tmp_path, wrong, message):
    labelled(tmp_path / "a.json", shape("a", box(0, 0, 1, 1)), shape("b", [], group_id=1) | wrong)
    with pytest.raises(FormatError, match=f"a.json.*{message}"):
        _ = read(tmp_path)[0]


def test_what_is_wrong_with_a_file(tmp_path):
    labelled(tmp_path / "a.json", imageHeight=0)
    with pytest.raises(FormatError, match="a.json: an image of 0 x 6 .* is impossible"):
        _ = read(tmp_path)[0]
    labelled(tmp_path / "a.json", imageData=png(IMAGE[:2]))
    with pytest.raises(FormatError, match=r"imageData is \(2, 6\), imageHeight and imageWidth say \(4, 6\)"):
        _ = read(tmp_path)[0]
    (tmp_path / "a.json").write_text('{"shapes": [')
    with pytest.raises(FormatError, match="a.json is cut short"):
        read(tmp_path)
    labelled(tmp_path / "a.json")
    labelled(tmp_path / "labels/a.json")
    with pytest.raises(FormatError, match="two samples that would both be called 'a'"):
        read(tmp_path)


def test_what_cannot_be_written(tmp_path):
    void = Segmentation.semantic(np.array([[0, -1]]), Classes.of(["__ignore__"]))
    with pytest.raises(OutputError, match="'a' has void, which labelme calls '__ignore__'; rename that class"):
        write(tmp_path / "new", [Sample.of("a", np.zeros((1, 1, 2), np.uint8), void)])
    with pytest.raises(OutputError, match="'classes' would overwrite classes.json; give it another key"):
        write(tmp_path / "other", [Sample.of("classes", np.zeros((1, 1, 2), np.uint8), void)])


def test_damaged_files_are_read_or_refused(tmp_path, hard_samples, mutations):
    write(tmp_path / "new", hard_samples[1:3])
    for number, name in enumerate(("a.001.json", "a.002.json")):
        for _ in mutations(tmp_path / "new/train" / name, 100, number):
            try:
                list(read(tmp_path / "new"))
            except FormatError as error:
                assert str(tmp_path) in str(error)
    assert labelme.LOSES

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segwright.core import VOID, Classes
from segwright.core.errors import FormatError
from segwright.formats.mask_meaning import guess_meaning, present, read_classes, read_numbers, write_classes

HERE = Path("mask.png")


def saved(folder, *masks, suffix="png"):
    """Files that hold these masks."""
    folder.mkdir(exist_ok=True, parents=True)
    paths = [folder / f"{index}.{suffix}" for index in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        Image.fromarray(np.asarray(mask)).save(path)
    return paths


def bytes_of(*values):
    return np.array([values], dtype=np.uint8)


def words_of(*values):
    return np.array([values], dtype=np.uint16)


def classes_json(folder, content):
    path = folder / "classes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# By hand


@pytest.mark.parametrize("value", [1, 7, 128, 255])
def test_two_numbers_are_background_and_foreground(tmp_path, value):
    meaning = guess_meaning(saved(tmp_path, bytes_of(0, value), bytes_of(0, 0)))
    assert meaning.classes.names == ("background", "foreground")
    assert meaning.truth(bytes_of(0, value), HERE).class_map().tolist() == [[0, 1]]


def test_masks_of_one_number(tmp_path):
    assert guess_meaning(saved(tmp_path, bytes_of(0, 0))).classes.names == ("background", "foreground")
    meaning = guess_meaning(saved(tmp_path, bytes_of(255, 255)))
    assert meaning.truth(bytes_of(255), HERE).class_map().tolist() == [[1]]
    meaning = guess_meaning(saved(tmp_path, words_of(0, 65535)))
    assert not meaning.is_instances and meaning.truth(words_of(0, 65535), HERE).class_map().tolist() == [[0, 1]]


def test_more_numbers_are_classes_and_255_is_void(tmp_path):
    meaning = guess_meaning(saved(tmp_path, bytes_of(0, 3), bytes_of(1, 255)))
    assert meaning.classes.names == ("class_0", "class_1", "class_2", "class_3")
    assert meaning.truth(bytes_of(2, 255, 0), HERE).class_map().tolist() == [[2, VOID, 0]]


def test_16_bit_numbers_are_objects(tmp_path):
    meaning = guess_meaning(saved(tmp_path, words_of(0, 1), words_of(2, 300)))
    truth = meaning.truth(words_of(0, 300, 2, 300, 65535), HERE)
    assert truth.classes.names == ("background", "object") and truth.classes.is_thing == (False, True)
    assert truth.instance_ids.tolist() == [0, 2, 300] and truth.class_ids.tolist() == [0, 1, 1]
    assert truth.class_map().tolist() == [[0, 1, 1, 1, VOID]]
    assert truth.areas().tolist() == [1, 1, 2]
    assert len(meaning.truth(words_of(65535, 65535), HERE)) == 0


def test_a_jpeg_mask_is_black_and_white(tmp_path):
    square = np.zeros((64, 64), dtype=np.uint8)
    square[10:50, 20:60] = 255
    (path,) = saved(tmp_path, square, suffix="jpg")
    assert set(np.unique(np.array(Image.open(path)))) > {0, 255}  # blurred
    assert np.array_equal(read_numbers(path), square // 255)
    assert guess_meaning([path]).classes.names == ("background", "foreground")


def test_all_layouts_of_classes_json(tmp_path):
    assert read_classes(classes_json(tmp_path, ["road", "car"])).classes.names == ("road", "car")
    colored = read_classes(classes_json(tmp_path, {"road": [1, 2, 3], "car": [4, 5, 6]})).classes
    assert colored.names == ("road", "car") and colored.colors == ((1, 2, 3), (4, 5, 6))
    whole = {"classes": ["road", "car"], "palette": [[1, 2, 3], [4, 5, 6], [0, 0, 0]], "ignore_index": 2, "is_thing": [0, 1]}
    meaning = read_classes(classes_json(tmp_path, whole | {"comment": "left alone"}))
    assert meaning.classes.colors == ((1, 2, 3), (4, 5, 6)) and meaning.classes.is_thing == (False, True)
    assert meaning.truth(bytes_of(0, 1, 2), HERE).class_map().tolist() == [[0, 1, VOID]]


def test_values_ignored_classes_and_instances(tmp_path):
    meaning = read_classes(classes_json(tmp_path, {"classes": ["ground", "polyp"], "values": [0, 255]}))
    assert meaning.truth(bytes_of(0, 255), HERE).class_map().tolist() == [[0, 1]]
    meaning = read_classes(classes_json(tmp_path, {"classes": ["unlabelled", "road"], "ignore_index": 0}))
    assert meaning.truth(bytes_of(0, 1), HERE).class_map().tolist() == [[VOID, 1]]
    meaning = read_classes(classes_json(tmp_path, {"classes": ["ground", "cell"], "masks": "instances", "ignore_index": 9}))
    truth = meaning.truth(bytes_of(0, 3, 9), HERE)
    assert truth.class_map().tolist() == [[0, 1, VOID]] and truth.instance_ids.tolist() == [0, 3]
    assert meaning.classes.is_thing == (False, True)


# By a twin


@settings(deadline=None, max_examples=30)
@given(numbers=st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_present_equals_unique(numbers):
    assert np.array_equal(present(np.array(numbers)), np.unique(numbers))


# By a law


@pytest.mark.parametrize(
    "classes",
    [
        Classes.of(["one"]),
        Classes.of(["a", "b", "c"], colors=[(1, 2, 3)] * 3, is_thing=[True, False, True]),
        Classes.of([f"c{k}" for k in range(300)]),
    ],
)
def test_classes_come_back(tmp_path, classes):
    write_classes(tmp_path / "classes.json", classes, is_instances=False)
    assert read_classes(tmp_path / "classes.json").classes == classes


# By its messages


def test_a_number_without_class_names_the_ways_out(tmp_path):
    meaning = read_classes(classes_json(tmp_path, ["a", "b", "c"]))
    expected = r'mask.png holds the number 7 at 2 of 4 pixels, but .*classes.json has 3 classes .*or "ignore_index": 7'
    with pytest.raises(FormatError, match=expected):
        meaning.truth(bytes_of(0, 7, 9, 7), HERE)
    with pytest.raises(FormatError, match='"masks": "instances" if each number is one object'):
        meaning.truth(words_of(0, 700), HERE)
    binary = read_classes(classes_json(tmp_path, ["ground", "polyp"]))
    with pytest.raises(FormatError, match=r'or "values": \[0, 255\] if they are the second class'):
        binary.truth(bytes_of(0, 255), HERE)
    remedy = read_classes(classes_json(tmp_path, {"classes": ["a", "b", "c"], "ignore_index": 7}))
    assert remedy.truth(bytes_of(0, 7), HERE).class_map().tolist() == [[0, VOID]]


def test_jpegs_of_class_numbers_and_of_pictures_are_refused(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 255, (32, 32)).astype(np.uint8)
    numbers = np.full((32, 32), 7, dtype=np.uint8)
    for path in saved(tmp_path, cv2.blur(photograph, (3, 3)), numbers, suffix="jpg"):
        with pytest.raises(FormatError, match="JPEG whose values are not black and white .*export the masks as PNG"):
            read_numbers(path)


def test_numbers_beyond_16_bits(tmp_path):
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(FormatError, match=r"a.tif holds the numbers 0..70000; renumber them 0..65535"):
        read_numbers(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", "cannot be read as JSON .*correct it or remove it"),
        ('"road"', "a list of class names is needed, such as"),
        ({"classes": [1, 2]}, "a list of class names is needed"),
        ([], "0 classes were given"),
        (["a", "a"], "class name 'a' appears .*name each class once"),
        ({"a": [1, 2]}, r"give one \[r, g, b\] of palette"),
        ({"a": [1, 2, 256]}, "colours are numbers 0..255"),
        ({"classes": ["a", "b"], "palette": [[1, 2, 3]]}, "2 names, 1 colours"),
        ({"classes": ["a", "b"], "is_thing": [True]}, "1 thing flags"),
        ({"classes": ["a", "b"], "values": [0]}, "2 classes, but 1 values"),
        ({"classes": ["a", "b"], "ignore_index": "255"}, "one number 0..65535 as ignore_index"),
        ({"classes": ["a", "b"], "ignore_index": -1}, "numbers of masks are 0..65535"),
        ({"classes": ["a", "b"], "ignore_index": 1.5}, "numbers of masks are 0..65535, not 1.5"),
        (
            {"classes": ["a", "b", "c"], "values": [0, 1, 1]},
            "the number 1 stands for 2 classes; .*one number of values per class",
        ),
        ({"classes": ["a", "b"], "values": "ab"}, "numbers of masks are 0..65535, not 'a'"),
        ({"classes": ["a", "b"], "is_thing": "no"}, "is_thing is 'no'; .*one true or false of is_thing"),
        ({"a": [1, 2, 3], "b": "red"}, "colours are numbers 0..255"),
        ({"classes": ["a", "b"], "masks": "objects"}, '"masks" is \'objects\'; write "instances" if each number is one object'),
        ("[" * 100_000, "cannot be read as JSON .*correct it or remove it"),
        (["a", "\ud800"], "cannot be read as JSON .*surrogates not allowed"),
        ({"classes": ["a", "b", "c"], "masks": "instances"}, "need two classes, the background and the object, not 3"),
        ([str(k) for k in range(65_536)], "names 65536 classes; 16-bit masks hold up to 65535: merge some"),
    ],
)
def test_wrong_classes_json(tmp_path, content, message):
    path = classes_json(tmp_path, content)
    with pytest.raises(FormatError, match=message) as caught:
        read_classes(path)
    assert str(path) in str(caught.value)


def test_sparse_numbers_are_read_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        meaning = guess_meaning(saved(tmp_path, bytes_of(0, 85, 170)))
    assert len(meaning.classes) == 171 and 'name the classes in classes.json, with "values"' in caplog.text

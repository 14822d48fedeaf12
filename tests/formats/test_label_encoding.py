import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segwright.core import VOID, Classes
from segwright.core.errors import FormatError
from segwright.formats.guessed_meaning import guess_meaning
from segwright.formats.label_encoding import (
    colors_without_meaning,
    meaning_of,
    present,
    read_classes,
    read_numbers,
    read_table,
    write_classes,
    written_meaning,
)
from segwright.formats.mask_file import MaskFile

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


def test_all_layouts_of_classes_json(tmp_path):
    assert read_classes(classes_json(tmp_path, ["road", "car"])).classes.names == ("road", "car")
    colored = read_classes(classes_json(tmp_path, {"road": [1, 2, 3], "car": [4, 5, 6]})).classes
    assert colored.names == ("road", "car") and colored.colors == ((1, 2, 3), (4, 5, 6))
    whole = {"classes": ["road", "car"], "palette": [[1, 2, 3], [4, 5, 6], [0, 0, 0]], "ignore_index": 2, "is_thing": [0, 1]}
    meaning = read_classes(classes_json(tmp_path, whole | {"comment": "left alone"}))
    assert meaning.classes.colors == ((1, 2, 3), (4, 5, 6)) and meaning.classes.is_thing == (False, True)
    assert meaning.truth(bytes_of(0, 1, 2), HERE).class_map().tolist() == [[0, 1, VOID]]


def test_the_table_is_the_same_in_all_layouts(tmp_path):
    assert read_table(classes_json(tmp_path, ["road"])) == {"classes": ["road"]}
    assert read_table(classes_json(tmp_path, {"road": [1, 2, 3]})) == {"classes": ["road"], "palette": [[1, 2, 3]]}
    assert read_table(classes_json(tmp_path, {"classes": ["road"], "more": 1})) == {"classes": ["road"], "more": 1}


def test_values_ignored_classes_and_instances(tmp_path):
    meaning = read_classes(classes_json(tmp_path, {"classes": ["ground", "polyp"], "values": [0, 255]}))
    assert meaning.truth(bytes_of(0, 255), HERE).class_map().tolist() == [[0, 1]]
    meaning = read_classes(classes_json(tmp_path, {"classes": ["unlabelled", "road"], "ignore_index": 0}))
    assert meaning.truth(bytes_of(0, 1), HERE).class_map().tolist() == [[VOID, 1]]
    meaning = read_classes(classes_json(tmp_path, {"classes": ["ground", "cell"], "masks": "instances", "ignore_index": 9}))
    truth = meaning.truth(bytes_of(0, 3, 9), HERE)
    assert truth.class_map().tolist() == [[0, 1, VOID]] and truth.instance_ids.tolist() == [0, 3]
    assert meaning.classes.is_thing == (False, True)


def test_one_class_of_objects_crowds_and_nothing(tmp_path):
    content = {"classes": ["cell"], "masks": "instances", "crowd_index": 9}
    truth = read_classes(classes_json(tmp_path, content)).truth(words_of(0, 3, 9, 65535, 0), HERE)
    assert truth.classes.is_thing == (True,) and truth.instance_ids.tolist() == [0, 3] and truth.class_ids.tolist() == [0, 0]
    assert truth.planes.tolist() == [[[0, 2, 1, VOID, 0]]]
    content = {"classes": ["ground", "cell"], "masks": "instances", "nothing_index": 8, "ignore_index": 7}
    truth = read_classes(classes_json(tmp_path, content)).truth(words_of(0, 3, 8, 7), HERE)
    assert truth.planes.tolist() == [[[1, 2, 0, VOID]]]


def test_pixels_of_nothing_are_not_void(tmp_path):
    meaning = read_classes(classes_json(tmp_path, {"classes": ["a", "b"], "ignore_index": 255, "nothing_index": 2}))
    assert meaning.truth(bytes_of(0, 1, 2, 255), HERE).planes.tolist() == [[[1, 2, 0, VOID]]]


def colored(folder, *colors, suffix="png"):
    (path,) = saved(folder, np.array([colors], dtype=np.uint8), suffix=suffix)
    return path


def test_colors_are_looked_up(tmp_path):
    content = {"classes": ["road", "car"], "palette": [[128, 64, 128], [0, 0, 142]], "values": [7, 26]}
    meaning = read_classes(classes_json(tmp_path, content))
    path = colored(tmp_path / "m", (128, 64, 128), (0, 0, 142), (0, 0, 0))
    class_map, numbers = meaning.maps(path)
    assert class_map.tolist() == [[0, 1, VOID]] and numbers is None
    listed = {"classes": ["road", "car"], "palette": [[128, 64, 128], [0, 0, 142], [9, 9, 9]], "ignore_index": 2}
    meaning = read_classes(classes_json(tmp_path, listed))
    assert meaning.maps(colored(tmp_path / "n", (9, 9, 9), (0, 0, 142)))[0].tolist() == [[VOID, 1]]


def test_grey_pictures_are_colors_where_another_mask_is(tmp_path):
    grey, blue = tmp_path / "grey", tmp_path / "blue"
    paths = [colored(grey, (128, 128, 128), (0, 0, 0)), colored(blue, (128, 128, 128), (0, 0, 142))]
    content = {"classes": ["sky", "car"], "palette": [[128, 128, 128], [0, 0, 142]]}
    meaning = read_classes(classes_json(tmp_path, content)).looking_at(paths)
    assert meaning.is_colors and meaning.maps(paths[0])[0].tolist() == [[0, VOID]]
    assert meaning.maps(saved(tmp_path / "flat", bytes_of(128))[0])[0].tolist() == [[0]]
    numbers = read_classes(classes_json(tmp_path, content)).looking_at(saved(tmp_path / "numbers", bytes_of(0, 1)))
    assert not numbers.is_colors and not read_classes(classes_json(tmp_path, content)).looking_at(paths[:1]).is_colors
    said = read_classes(classes_json(tmp_path, content | {"masks": "colors"}))
    assert said.maps(paths[0])[0].tolist() == [[0, VOID]]


def test_dataset_toml_goes_before_classes_json(tmp_path):
    assert written_meaning(tmp_path) is None
    classes_json(tmp_path, ["a", "b"])
    assert written_meaning(tmp_path).classes.names == ("a", "b")
    assert written_meaning(tmp_path / "train") is None
    assert written_meaning(tmp_path / "train", is_above=True).classes.names == ("a", "b")
    (tmp_path / "dataset.toml").write_text('[masks]\nclasses = ["x"]\nvalues = [5]\n')
    meaning = written_meaning(tmp_path)
    assert meaning.classes.names == ("x",) and meaning.source == str(tmp_path / "dataset.toml")
    (tmp_path / "dataset.toml").write_text("[masks]\nignore_index = 0\n")
    assert written_meaning(tmp_path).truth(bytes_of(0, 1), HERE).class_map().tolist() == [[VOID, 1]]
    assert meaning_of({"classes": ["x"], "values": [5]}, "here").truth(bytes_of(5), HERE).class_map().tolist() == [[0]]


def test_a_class_may_have_several_numbers(tmp_path):
    meaning = read_classes(classes_json(tmp_path, {"classes": ["ground", "car"], "values": [0, [1, 255]]}))
    assert meaning.truth(bytes_of(0, 1, 255), HERE).class_map().tolist() == [[0, 1, 1]]


def test_numbers_may_lie_in_several_regions(tmp_path):
    content = {"classes": ["whole", "core"], "values": [[1, 2], 2], "masks": "regions", "ignore_index": 255}
    meaning = read_classes(classes_json(tmp_path, content))
    assert meaning.classes.regions == ((1, 2), (2,))
    truth = meaning.truth(bytes_of(0, 1, 2, 255), HERE)
    assert truth.masks()[:, 0].astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]
    assert truth.planes[0].tolist() == [[0, 1, 1, VOID]]
    with pytest.raises(FormatError, match="holds the number 3 .* has 2 classes"):
        meaning.truth(bytes_of(3), HERE)
    write_classes(tmp_path / "again.json", meaning.classes, values=meaning.classes.regions)
    assert read_classes(tmp_path / "again.json").classes == meaning.classes
    toml = 'classes = ["whole", "core"]\nvalues = [[1, 2], 2]\nmasks = "regions"\nnothing_index = 7\n'
    (tmp_path / "dataset.toml").write_text(f"[masks]\n{toml}")
    meaning = written_meaning(tmp_path)
    assert meaning.classes.regions == ((1, 2), (2,)) and meaning.truth(bytes_of(0, 7, 2), HERE).areas().tolist() == [1, 1]


def test_others_count_as_the_nearest(tmp_path):
    content = {"classes": ["ground", "car"], "values": [0, 255], "nearest": True}
    meaning = read_classes(classes_json(tmp_path, content))
    assert meaning.truth(bytes_of(0, 127, 128, 254), HERE).class_map().tolist() == [[0, 0, 1, 1]]
    void = read_classes(
        classes_json(tmp_path, {"classes": ["a", "b"], "values": [0, 100], "ignore_index": 255, "nearest": True})
    )
    assert void.truth(bytes_of(49, 51, 170, 190), HERE).class_map().tolist() == [[0, 1, 1, VOID]]
    colors = {"classes": ["road", "car"], "palette": [[128, 64, 128], [0, 0, 142]]}
    path = colored(tmp_path / "m", (120, 60, 121), (9, 9, 150), (3, 0, 0))
    assert read_classes(classes_json(tmp_path, colors | {"nearest": True})).maps(path)[0].tolist() == [[0, 1, VOID]]


def palette_file(folder, indices, *colors):
    folder.mkdir(exist_ok=True)
    picture = Image.fromarray(np.array([indices], np.uint8))
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    picture.save(folder / "p.png")
    return folder / "p.png"


BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("content", "indices", "colors", "expected"),
    [
        (["a", "b"], (0, 1), (WHITE, BLACK), [1, 0]),  # white is the second class
        (["a", "b"], (0, 1), (BLACK, WHITE), [0, 1]),
        ({"classes": ["a", "b"], "values": [0, 255]}, (0, 1), (WHITE, BLACK), [1, 0]),
        ({"classes": ["a", "b"], "ignore_index": 255}, (0, 1), (BLACK, WHITE), [0, 1]),  # and never void
        ({"classes": ["a", "b"], "palette": [WHITE, BLACK]}, (0, 1), (WHITE, BLACK), [0, 1]),  # but where colours are written
        ({"classes": ["a", "b"], "palette": [RED, BLUE]}, (0, 1), (BLUE, RED), [1, 0]),
        ({"classes": ["a", "b"], "palette": [BLACK, RED]}, (0, 1), (RED, BLACK), [1, 0]),
        ({"classes": ["a", "b"], "palette": [RED, BLUE]}, (0, 1), ((9, 9, 8), (7, 7, 8)), [0, 1]),  # others say nothing
        (["a", "b"], (0, 1), (BLUE, RED), [0, 1]),
        (["a", "b", "c"], (0, 1, 2), (BLACK, (128,) * 3, WHITE), [0, 1, 2]),  # greys in the order of the classes
        ({"classes": ["a", "b", "c"], "values": [0, 128, 255]}, (0, 1, 2), ((128,) * 3, WHITE, BLACK), [1, 2, 0]),
    ],
)
def test_palettes(tmp_path, content, indices, colors, expected):
    meaning = read_classes(classes_json(tmp_path, content))
    assert meaning.maps(palette_file(tmp_path / "m", indices, *colors))[0].tolist() == [expected]


def test_one_bit_is_the_second_class_whatever_its_number(tmp_path):
    (path,) = saved(tmp_path / "m", np.array([[False, True]]))
    for values, void in (([0, 255], None), ([0, 1], 255), ([1, 255], 0)):
        content = {"classes": ["a", "b"], "values": values} | ({} if void is None else {"ignore_index": void})
        assert read_classes(classes_json(tmp_path, content)).maps(path)[0].tolist()[0][1] == int(values != [1, 255])


def test_jpegs_count_by_the_nearest(tmp_path):
    greys = np.kron(np.array([[0, 120], [240, 0]]), np.ones((16, 16), int)).astype(np.uint8)
    (path,) = saved(tmp_path / "m", greys, suffix="jpg")
    content = {"classes": ["a", "b", "c"], "values": [0, 120, 240]}
    class_map = read_classes(classes_json(tmp_path, content)).maps(path)[0]
    assert class_map[4, 4] == 0 and class_map[4, 28] == 1 and (class_map[20:, :12] == 2).all()
    with pytest.raises(
        FormatError, match='JPEG whose values .* write these into classes.json as "values", with "nearest": true'
    ):
        read_classes(classes_json(tmp_path, ["a", "b", "c"])).maps(path)
    red = np.kron(np.array([[0, 1], [1, 0]])[..., None] * [255, 0, 0], np.ones((16, 16, 1), int)).astype(np.uint8)
    (path,) = saved(tmp_path / "n", red, suffix="jpg")
    content = {"classes": ["ground", "red"], "palette": [[0, 0, 0], [255, 0, 0]]}
    class_map = read_classes(classes_json(tmp_path, content)).maps(path)[0]
    assert (class_map == np.kron([[0, 1], [1, 0]], np.ones((16, 16), int))).mean() > 0.98


# By a twin


@settings(max_examples=30)
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


def test_colors_that_nobody_explained(tmp_path):
    path = colored(tmp_path / "m", (1, 2, 3))
    remedy = '.its channels differ.* write the classes and their colours .*"palette".*inspect --write-config proposes it'
    for look in (read_numbers, lambda path: guess_meaning([path]), read_classes(classes_json(tmp_path, ["a"])).maps):
        with pytest.raises(FormatError, match=f"0.png is a picture of colours {remedy}"):
            look(path)
    assert read_classes(classes_json(tmp_path, {"a": [1, 2, 3]})).maps(path)[0].tolist() == [[0]]


def test_numbers_beyond_16_bits(tmp_path):
    Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(FormatError, match=r"a.tif holds the numbers 0..70000; renumber them 0..65535"):
        read_numbers(tmp_path / "a.tif")
    with pytest.raises(FormatError, match='holds the number 70000 at 1 of 2 .*or "masks": "instances" if each number is one'):
        read_classes(classes_json(tmp_path, ["a", "b"])).maps(tmp_path / "a.tif")
    content = {"classes": ["ground", "cell"], "masks": "instances"}
    meaning = read_classes(classes_json(tmp_path, content))
    truth = meaning.truth(np.array([[0, 70_000, 65_535, 65_535]], np.uint32), HERE)
    assert truth.instance_ids.tolist() == [0, 65_535, 70_000]  # 65535 is void in 16 bits alone
    assert len(meaning.truth(words_of(65_535), HERE)) == 0
    written = read_classes(classes_json(tmp_path, content | {"ignore_index": 65_535}))
    assert written.truth(np.array([[70_000, 65_535]], np.uint32), HERE).planes.tolist() == [[[1, VOID]]]


def test_palettes_that_differ_name_both_files(tmp_path):
    first, second = palette_file(tmp_path / "a", (0, 1), BLACK, RED), palette_file(tmp_path / "b", (0, 1), BLACK, BLUE)
    meaning = read_classes(classes_json(tmp_path, ["x", "y"])).looking_at([first, second])
    assert meaning.maps(first)[0].tolist() == [[0, 1]]
    with pytest.raises(FormatError, match=r"a/p.png and .*b/p.png show the index 1 of their palettes in different colours"):
        meaning.maps(second)
    remedy = {"classes": ["x", "y", "z"], "palette": [BLACK, RED, BLUE], "masks": "colors"}
    meaning = read_classes(classes_json(tmp_path, remedy)).looking_at([first, second])
    assert meaning.maps(first)[0].tolist() == [[0, 1]] and meaning.maps(second)[0].tolist() == [[0, 2]]


def test_greys_that_are_no_classes(tmp_path):
    path = palette_file(tmp_path / "m", (0, 1, 2), (128,) * 3, WHITE, BLACK)
    with pytest.raises(FormatError, match=r'a palette of greys, \(128, 128, 128\), .*write them there as "values"'):
        read_classes(classes_json(tmp_path, ["a", "b", "c"])).maps(path)


def test_remedies_of_smoothed_numbers(tmp_path):
    (path,) = saved(tmp_path / "m", bytes_of(0, 37, 255))
    for content, remedy in (
        (["a", "b"], '"values": .0, 255. with "nearest": true if smoothing put them between both classes$'),
        ({"classes": ["a", "b"], "ignore_index": 255}, 'between both classes, then without "ignore_index"$'),
        ({"classes": ["a", "b"], "values": [0, 255]}, 'or "nearest": true if smoothing put them between'),
    ):
        with pytest.raises(FormatError, match=remedy):
            read_classes(classes_json(tmp_path, content)).maps(path)
    followed = {"classes": ["a", "b"], "values": [0, 255], "nearest": True}
    assert read_classes(classes_json(tmp_path, followed)).maps(path)[0].tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(("channels", "highest"), [(6, 12), (3, 300)])
def test_stacks_are_no_pictures(channels, highest):
    file = MaskFile(HERE, np.arange(channels).reshape(-1, 1, 1) + np.array([[highest - channels + 1]]))
    message = str(colors_without_meaning(file, "classes.json"))
    assert f"has {channels} channels that differ, of values up to {highest}: neither numbers nor an RGB picture" in message
    assert message.endswith('write axes = "ZYX" into dataset.toml beside the data')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"classes": ["a"], "nearest": 1.5}, "nearest. is 1.5, not true or false"),
        ({"classes": ["a"], "masks": "instances", "nearest": True}, 'numbers of objects have no nearest; take "nearest" away'),
        ({"classes": ["a", "b"], "values": [0, [1, 0]]}, 'the number 0 stands for 2 classes .write "masks": "regions" if'),
        ({"classes": ["a", "b"], "values": [0, 1], "masks": "regions"}, "leave out the background: 0 is what lies in none"),
        ({"classes": ["a", "b"], "values": [1, "2"], "masks": "regions"}, "numbers of masks are 0..65535, not '2'"),
        ({"classes": ["a", "b"], "values": [0, []]}, r"numbers of masks are 0..65535, not \[\]"),
        ("{broken", "cannot be read as JSON .*correct it or remove it"),
        ('"road"', "a list of class names is needed, such as"),
        ({"classes": [1, 2]}, "a list of class names is needed"),
        ([], "0 classes were given"),
        (["a", "a"], "class name 'a' appears .*name each class once"),
        ({"a": [1, 2]}, r"give one \[r, g, b\] of palette"),
        ({"a": [1, 2, 256]}, "colours are numbers 0..255"),
        ({"0": "a", "1": "b"}, '"0": "a", "1": "b".*names and their numbers are written as ."classes"'),
        ({"a": 0, "b": 1}, "names and their numbers are written as"),
        ({"classes": ["a", "b"], "palette": [[1, 2, 3]]}, "2 names, 1 colours"),
        ({"classes": ["a", "b"], "is_thing": [True]}, "1 thing flags"),
        ({"classes": ["a", "b"], "values": [0]}, "2 classes, but 1 values"),
        ({"classes": ["a", "b"], "ignore_index": "255"}, "one number up to 65535 as ignore_index"),
        ({"classes": ["a", "b"], "ignore_index": 70_000}, "numbers of masks are 0..65535"),
        ({"classes": ["a", "b"], "ignore_index": 1.5}, "numbers of masks are 0..65535, not 1.5"),
        (
            {"classes": ["a", "b", "c"], "values": [0, 1, 1]},
            "the number 1 stands for 2 classes .*; .*one number of values per class",
        ),
        ({"classes": ["a", "b"], "values": "ab"}, "numbers of masks are 0..65535, not 'a'"),
        ({"classes": ["a", "b"], "is_thing": "no"}, "is_thing is 'no'; .*one true or false of is_thing"),
        ({"a": [1, 2, 3], "b": "red"}, "colours are numbers 0..255"),
        ({"classes": ["a", "b"], "masks": "objects"}, '"masks" is \'objects\'; write "instances" if each number is one object'),
        ("[" * 100_000, "cannot be read as JSON .*correct it or remove it"),
        (["a", "\ud800"], "cannot be read as JSON .*surrogates not allowed"),
        ({"classes": ["a"], "masks": "colors"}, 'write the colours of the classes as "palette"'),
        ({"classes": ["a"], "nothing_index": "x"}, "numbers of masks are 0..65535, not 'x'"),
        ({"classes": ["a"], "masks": "instances", "crowd_index": -3}, "numbers of masks are 0..65535, not -3"),
        ({"classes": ["a", "b", "c"], "masks": "instances"}, "two classes, the background and the object, not 3"),
        ([str(k) for k in range(65_536)], "names 65536 classes; 16-bit masks hold up to 65535: merge some"),
    ],
)
def test_wrong_classes_json(tmp_path, content, message):
    path = classes_json(tmp_path, content)
    with pytest.raises(FormatError, match=message) as caught:
        read_classes(path)
    assert str(path) in str(caught.value)

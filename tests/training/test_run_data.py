"""A run knows its data again, and says what became of them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from segwright.data.splits import open_splits
from segwright.training.run_data import RunData

BEFORE = RunData(train={"a": 10, "b": 20, "c": None}, val={"d": 40, "e": 50}, classes=("rest", "disc"))


@pytest.mark.parametrize(
    ("train", "val", "classes", "expected"),
    [
        ({"a": 10, "b": 20, "c": None}, {"d": 40, "e": 50}, ("rest", "disc"), []),
        ({"c": 30, "b": 20, "a": 10}, {"e": 50, "d": None}, ("rest", "disc"), []),  # order and unknown sizes are no change
        (
            {"a": 10, "b": 20},
            {"c": None},
            ("rest", "disc"),
            ["the samples 'd', 'e' are no longer there", "the sample 'c' is to be held out after being trained with"],
        ),
        (
            {"a": 10, "b": 20, "c": None, "d": 40},
            {"e": 50, "f": 60},
            ("rest", "disc"),
            ["the sample 'f' is new", "the sample 'd' is to be trained with after being held out"],
        ),
        ({"a": 11, "b": 20, "c": None}, {"d": 4, "e": 50}, ("rest", "disc"), ["the samples 'a', 'd' are of another file size"]),
        ({"a": 10, "b": 20, "c": None}, {"d": 40, "e": 50}, ("rest", "disc", "bar"), ["the class 'bar' is new"]),
        (
            {"a": 10, "b": 20, "c": None},
            {"d": 40, "e": 50},
            ("bar", "rod"),
            ["the classes 'rest', 'disc' are no longer there", "the classes 'bar', 'rod' are new"],
        ),
        (
            {"a": 10, "b": 20, "c": None},
            {"d": 40, "e": 50},
            ("disc", "rest"),
            ["the classes were rest, disc and are disc, rest"],
        ),
    ],
)
def test_by_hand(train, val, classes, expected):
    assert BEFORE.changes(RunData(train=train, val=val, classes=classes)) == expected


def test_many_names_are_counted():
    now = RunData(train=dict(BEFORE.train) | {f"n{i}": 1 for i in range(7)}, val=BEFORE.val, classes=BEFORE.classes)
    assert BEFORE.changes(now) == ["the samples 'n0', 'n1', 'n2', 'n3', 'n4', ... (7) are new"]


def test_folders_that_hold_an_image_have_no_size_which_each_disk_tells_otherwise(truths, tmp_path):
    (tmp_path / "s0.zarr").mkdir()
    data = replace(truths, image_files={"s0": tmp_path / "s0.zarr"})
    assert RunData.of(data, data.subset(())).train == dict.fromkeys(truths.keys)


def test_the_sizes_are_those_of_the_image_files_and_go_through_json(tiny_plan, tmp_path):
    train, val = open_splits(tiny_plan.data.train)
    data = RunData.of(train, val)
    assert len(data.train) == 6 and all(size == train.image_files[key].stat().st_size for key, size in data.train.items())
    assert RunData.of_table(json.loads(json.dumps(asdict(data)))) == data
    train.image_files[train.keys[0]].unlink()
    assert RunData.of(train, val).train[train.keys[0]] is None


def test_what_was_learnt_by_heart_is_found_by_key_and_size():
    now = RunData(train={}, val={"a": 10, "b": 21, "d": 40}, classes=("x",))
    assert BEFORE.trained_and_held_out(now) == ["a"]


def test_parts_from_two_places_may_share_keys():
    before = RunData(train={"a": 10, "b": 20}, val={"a": 30}, classes=("x",))
    assert before.changes(before) == [] == before.trained_and_held_out(before)
    now = replace(before, val={"b": 40})
    assert before.changes(now) == [
        "the sample 'a' is no longer there",
        "the sample 'b' is to be held out after being trained with",
    ]
    assert before.trained_and_held_out(now) == [] and before.trained_and_held_out(replace(now, val={"a": 10})) == ["a"]


def rewritten(path, change):
    """An image file with other values."""
    with Image.open(path) as image:
        Image.fromarray(change(np.array(image))).save(path)


@pytest.fixture
def raw(tmp_path):
    """A folder of four samples in BMP files, all of one size in bytes."""
    random = np.random.default_rng(0)
    for folder, values in ("images", 255), ("masks", 2):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in "abcd":
            pixels = random.integers(0, values, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / folder / f"{name}.{'bmp' if folder == 'images' else 'png'}")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda raw: None, []),
        (lambda raw: rewritten(raw / "images/b.bmp", np.flipud), ["the sample 'b' is of another image or mask"]),
        (lambda raw: rewritten(raw / "masks/d.png", np.flipud), ["the sample 'd' is of another image or mask"]),
        (
            lambda raw: (raw / "dataset.toml").write_text("[masks]\nignore_index = 1\n"),
            ["the samples 'a', 'b', 'c', 'd' are of another image or mask"],
        ),
    ],
)
def test_what_no_size_tells_is_seen(raw, change, expected):
    (raw / "classes.json").write_text('["rest", "disc"]')
    before = RunData.of(*open_splits(str(raw)))
    change(raw)
    now = RunData.of(*open_splits(str(raw)))
    assert before.changes(now) == expected
    assert RunData.of_table({name: value for name, value in asdict(before).items() if name != "looks"}).changes(now) == []

"""What dataset.toml says, where it lies, and what is refused."""

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import FormatError
from segwright.formats import dataset_file


def written(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(text, encoding="utf-8")
    return folder


def in_memory(*keys):
    return Dataset("memory", Classes.of(["a"]), keys, lambda key: Sample.of(key, np.zeros((1, 2, 2), np.uint8)))


def test_by_hand(tmp_path):
    root = written(
        tmp_path, 'drop = ["a"]\ngroups = [["b", "c"]]\n[masks]\nclasses = ["road"]\nvalues = [7]\nignore_index = 0\n'
    )
    known = dataset_file.read(root)
    assert known.drop == ("a",) and known.groups == (("b", "c"),) and known.path == root / "dataset.toml"
    assert dataset_file.masks_table(root) == {"classes": ["road"], "values": [7], "ignore_index": 0}
    assert dataset_file.apply(in_memory("a", "b"), root).keys == ("b",)
    assert dataset_file.dropped(root) == {"a"}


def test_without_a_file(tmp_path):
    assert dataset_file.read(tmp_path) is None and dataset_file.masks_table(tmp_path) is None
    data = in_memory("a")
    assert dataset_file.apply(data, tmp_path) is data
    assert dataset_file.read("synthetic:streets") is None


def test_a_part_is_told_by_the_file_above_it(tmp_path):
    groups = 'groups = [["train__d", "train__e"], ["train__f", "val__f"]]'
    written(tmp_path, f'drop = ["train__a", "val__b", "c"]\n{groups}\n[masks]\nclasses = ["x"]')
    train = written(tmp_path / "train", 'drop = ["n"]')
    known = dataset_file.read(train)
    assert known.drop == ("n", "a") and known.groups == (("d", "e"),) and known.masks == {"classes": ["x"]}
    assert dataset_file.dropped(tmp_path / "val") == {"b"}
    (tmp_path / "other").mkdir()
    assert dataset_file.read(tmp_path / "other") is None


def test_beside_a_file(tmp_path):
    written(tmp_path, 'drop = ["a"]')
    (tmp_path / "coco.json").write_text("{}")
    assert dataset_file.dropped(tmp_path / "coco.json") == {"a"}


def test_a_group_goes_where_most_of_it_is():
    train, val = ("a", "b", "c", "d"), ("e", "f")
    assert dataset_file.keep_together(train, val, [("d", "e", "f")]) == (("a", "b", "c"), ("d", "e", "f"))
    assert dataset_file.keep_together(train, val, [("c", "d", "e")]) == (("a", "b", "c", "d", "e"), ("f",))
    assert dataset_file.keep_together(train, val, [("a", "b"), ("x", "e")]) == (train, val)


def test_no_part_becomes_empty():
    assert dataset_file.keep_together(("a", "b"), ("c",), [("b", "c")]) == (("a",), ("b", "c"))
    assert dataset_file.keep_together(("a", "b"), ("c",), [("a", "b", "c")]) == (("a", "b"), ("c",))


@pytest.mark.parametrize("seed", range(20))
def test_law_nothing_is_lost_and_order_is_kept(seed):
    rng = np.random.default_rng(seed)
    keys = [f"k{i:02}" for i in range(20)]
    train, val = keys[:15], keys[15:]
    places = np.array_split(rng.permutation(20), 8)
    groups = [[keys[i] for i in place] for place in places]
    new_train, new_val = dataset_file.keep_together(train, val, groups)
    assert sorted(new_train + new_val) == keys and list(new_train) == sorted(new_train) and new_train and new_val
    torn = [group for group in groups if 0 < len(set(group) & set(new_val)) < len(group)]
    assert not torn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dorp = []", "no key 'dorp', did you mean 'drop'"),
        ("[masks]\nclases = ['a']", r"\[masks\] there is no key 'clases', did you mean 'classes'"),
        ("masks = 3", "masks is 3; a table is needed"),
        ("axes = 'TYX'", "axes is 'TYX'; Y and X and perhaps Z and C are needed"),
        ("drop = 'a'", "drop is 'a'; a list of keys"),
        ("drop = [1]", "drop is .1.; a list of keys"),
        ("groups = ['a']", "groups is .'a'.; a list of lists"),
        ("drop = [", "cannot be read as TOML"),
    ],
)
def test_messages(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        dataset_file.read(written(tmp_path, text))


def test_bytes_that_are_no_text_are_named(tmp_path):
    (tmp_path / "dataset.toml").write_bytes(b"\xff\xfe\x00drop")
    with pytest.raises(FormatError, match="cannot be read as TOML"):
        dataset_file.read(tmp_path)


def test_dropping_everything_is_refused(tmp_path):
    with pytest.raises(FormatError, match="drops all 1 samples; shorten the list"):
        dataset_file.apply(in_memory("a"), written(tmp_path, 'drop = ["a"]'))


def test_groups_are_written(tmp_path):
    groups = (("a b", "ü'\\"), ("c\u2028", "d"))
    dataset_file.write_groups(tmp_path, groups)
    assert dataset_file.read(tmp_path).groups == groups

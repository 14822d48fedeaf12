import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from segwright.codecs import json_stream
from segwright.codecs.json_stream import JsonFile, forget, open_json, parse, top_keys, write_json
from segwright.core.errors import FormatError

ANY, NUMBER = TypeAdapter(object), TypeAdapter(int)


class Entry(TypedDict):
    id: int
    runs: list[int]


ENTRY = TypeAdapter(Entry)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def save(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# By hand


def test_entries_and_values_are_read_when_asked_for(tmp_path):
    path = save(
        tmp_path,
        '{"info": {"a": [1, 2]}, "images": [ {"id": 1, "runs": [1, 2]},\n {"id": 2, "runs": []}], "none": [ ], "n": 3}',
    )
    file = JsonFile(path)
    assert file.keys == ("info", "images", "none", "n") and not file.is_list
    assert file.count("images") == 2 and file.count("none") == 0 and list(file.entries("none", ANY)) == []
    assert list(file.entries("images", ENTRY)) == [{"id": 1, "runs": [1, 2]}, {"id": 2, "runs": []}]
    assert file.entry("images", 1, ENTRY)["id"] == 2 and file.value("n", NUMBER) == 3
    assert file.value("info", ANY) == {"a": [1, 2]}
    assert pickle.loads(pickle.dumps(file)).entry("images", 1, ENTRY)["id"] == 2


def test_a_file_may_be_a_list(tmp_path):
    file = JsonFile(save(tmp_path, b"\xef\xbb\xbf [1, [2, 3], {}] \n"))
    assert file.is_list and file.keys == () and file.count() == 3
    assert list(file.entries("", ANY)) == [1, [2, 3], {}]


def test_marks_in_strings_are_text(tmp_path):
    content = {'a"},[': ["}]", '\\",', "\\"], "b": ":{"}
    file = JsonFile(save(tmp_path, json.dumps(content)))
    assert file.keys == ('a"},[', "b") and list(file.entries('a"},[', ANY)) == content['a"},[']


# By a law


@given(content=st.dictionaries(st.text(), st.lists(values, max_size=5) | values, max_size=5), indent=st.sampled_from([None, 1]))
def test_whatever_json_holds_comes_back(tmp_path_factory, content, indent):
    path = save(tmp_path_factory.mktemp("json"), json.dumps(content, indent=indent))
    file = JsonFile(path)
    assert file.keys == tuple(content) and top_keys(path) == frozenset(content)
    for name, value in content.items():
        assert file.value(name, ANY) == value
        if isinstance(value, list):
            assert list(file.entries(name, ANY)) == value and file.count(name) == len(value)


@given(content=st.lists(values, max_size=5), size=st.integers(1, 20))
def test_chunks_do_not_show(tmp_path_factory, content, size):
    path = save(tmp_path_factory.mktemp("json"), json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", size)
        assert list(JsonFile(path).entries("", ANY)) == content


def test_what_is_written_streams_and_comes_back(tmp_path):
    write_json(tmp_path / "b.json", {"info": {"x": 1}, "entries": iter([{"id": 1}, {"id": 2}]), "none": iter([]), "list": [3]})
    assert json.loads((tmp_path / "b.json").read_text()) == {
        "info": {"x": 1}, "entries": [{"id": 1}, {"id": 2}], "none": [], "list": [3],
    }  # fmt: skip
    write_json(tmp_path / "b.json", {})
    assert json.loads((tmp_path / "b.json").read_text()) == {}


def test_what_is_remembered_of_a_file_can_be_forgotten(tmp_path):
    path = save(tmp_path, '{"a": 1}')
    file = open_json(path)
    assert open_json(path) is file
    forget()
    assert open_json(path) is not file and top_keys(path) == {"a"}


def test_the_kind_of_a_file_is_known_from_its_keys(tmp_path):
    assert top_keys(save(tmp_path, "[1]")) == {"[]"} and top_keys(save(tmp_path, '{"a": 1}')) == {"a"}
    assert top_keys(save(tmp_path, "no")) == top_keys(tmp_path) == top_keys(tmp_path / "nothing") == frozenset()


# By its messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty or no JSON"),
        ("   ", "is empty or no JSON"),
        ("12", "byte 0 ends the JSON or stands outside of it"),
        ('{"a": [1, 2', "is cut short after 11 bytes; copy or export it again"),
        ('{"a": "b}', "is cut short"),
        ("[1] [2]", "byte 4 ends the JSON"),
        ("[1]]", "byte 3 ends the JSON"),
        ("{a: 1}", "byte 1: Invalid JSON"),
    ],
)
def test_what_is_no_json(tmp_path, text, message):
    with pytest.raises(FormatError, match=f"a.json.* {message}"):
        JsonFile(save(tmp_path, text))


def test_a_mistake_is_told_with_its_place(tmp_path):
    file = JsonFile(save(tmp_path, '{"images": [{"id": 1, "runs": []}, {"id": 1, "runs": [1, "x"]}, {"id": }, {}], "n": 1}'))
    with pytest.raises(
        FormatError, match=r"a.json: images\[1\].runs\[1\]: Input should be a valid integer.* \(it is 'x'\); correct"
    ):
        list(file.entries("images", ENTRY))
    with pytest.raises(FormatError, match=r"images\[2\]: Invalid JSON"):
        file.entry("images", 2, ENTRY)
    with pytest.raises(FormatError, match=r"images\[3\].id: Field required; correct it"):
        file.entry("images", 3, ENTRY)
    with pytest.raises(FormatError, match="has no 'masks': it is an object with images, n; is it a file of another kind"):
        file.count("masks")
    with pytest.raises(FormatError, match="n is no list"):
        file.count("n")
    with pytest.raises(FormatError, match=r"\[0\]: Invalid JSON"):
        list(JsonFile(save(tmp_path, "[1:2]")).entries("", ANY))
    with pytest.raises(FormatError, match="does not exist"):
        JsonFile(tmp_path / "nothing.json")
    with pytest.raises(FormatError, match="cannot be read"):
        JsonFile(tmp_path)
    with pytest.raises(FormatError, match=r"here: Invalid JSON"):
        parse(ANY, b"[" * 100_000, "here")


def test_depth_is_only_counted(tmp_path):
    depth = 1_000_000
    file = JsonFile(save(tmp_path, '{"a": ' + "[" * depth + "]" * depth + "}"))
    with pytest.raises(FormatError, match="a: Invalid JSON: recursion limit exceeded"):
        file.value("a", ANY)


# Integers of many entries


def test_integers_and_what_is_filled(tmp_path):
    entries = [
        '{"id": 7, "x": [1]}',
        '{"x": [ ], "id" : -12 }',
        ' { "y": {"id": 5}, "z": "id", "t": "a\\"id\\": 3", "x": null}',
        '{"id": "7", "x": {}}',
        '{"id": 1.5, "x": 0}',
        '{"id": 123456789012345678901, "x": ""}',
        "[]",
    ]
    file = JsonFile(save(tmp_path, '{"a": [' + ",\n ".join(entries) + '], "b": []}'))
    none = json_stream.NO_INTEGER
    assert file.integers("a", "id").tolist() == [7, -12, none, none, none, none, none]
    assert file.is_filled("a", "x").tolist() == [True, False, False, False, True, True, False]
    assert len(file.integers("b", "id")) == 0


@given(st.lists(st.dictionaries(st.sampled_from(["id", "i", "idd", "x"]), values, max_size=4), max_size=6))
def test_integers_are_those_of_the_parsed_entries(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, {"list": entries})
    wanted = [json_stream.NO_INTEGER if type(entry.get("id")) is not int else entry["id"] for entry in entries]
    assert JsonFile(path).integers("list", "id").tolist() == wanted
    filled = ["id" in entry and entry["id"] is not None and entry["id"] not in ([], {}) for entry in entries]
    assert JsonFile(path).is_filled("list", "id").tolist() == filled


def test_integers_across_chunks(tmp_path, monkeypatch):
    path = save(tmp_path, json.dumps({"a": [{"text": "x" * (n % 50), "id": n} for n in range(300)]}))
    for chunk in (1, 7, 100, 1 << 20):
        monkeypatch.setattr(json_stream, "CHUNK", chunk)
        assert JsonFile(path).integers("a", "id").tolist() == list(range(300))

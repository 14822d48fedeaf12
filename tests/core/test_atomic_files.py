from pathlib import Path

import pytest

from segwright.core.atomic_files import lock, make_folder, remove_unfinished, replace_file, replacing
from segwright.core.errors import OutputError


def test_writing_replaces_and_makes_folders(tmp_path):
    for content in (b"old", b"new"):
        replace_file(tmp_path / "deep" / "er" / "a.txt", content)
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == b"new"
    assert len(list((tmp_path / "deep" / "er").iterdir())) == 1


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    with replacing(tmp_path / "a") as file:
        file.write(b"1")
        assert not (tmp_path / "a").exists()
        file.write(b"2")
    assert (tmp_path / "a").read_bytes() == b"12"


def test_a_name_of_many_bytes(tmp_path):
    replace_file(tmp_path / ("日" * 83 + ".png"), b"x")  # 253 bytes, of 255
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_is_named(tmp_path):
    make_folder(tmp_path / "deep" / "er")
    make_folder(tmp_path / "deep" / "er")
    assert not list((tmp_path / "deep" / "er").iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="file.* cannot be written .*; choose another folder with out"):
            make_folder(folder)


def test_what_killed_writers_left_is_removed(tmp_path):
    for name in (".hidden.png", f".a.{'0' * 31}", f"a.{'0' * 32}"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    (tmp_path / f".folder.{'1' * 32}" / f".x.{'2' * 32}").mkdir(parents=True)
    with pytest.raises(OutputError, match="No such file"), replacing(tmp_path / "deep" / "a.png"):
        remove_unfinished(tmp_path)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "deep"])


def test_a_file_is_kept_until_it_is_closed(tmp_path):
    with (tmp_path / "a").open("a") as first, (tmp_path / "a").open("a") as second:
        lock(first)
        with pytest.raises(BlockingIOError):
            lock(second)
        first.close()
        lock(second)


def test_an_error_on_the_way_leaves_what_was_there(tmp_path):
    replace_file(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as file:
        file.write(b"new")
        file.write(bytes([1 // 0]))
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_an_unwritable_place_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.png", tmp_path / "folder", Path(), Path("/")):
        with pytest.raises(OutputError, match="cannot be written .*choose a writable place with free space"):
            replace_file(path, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]

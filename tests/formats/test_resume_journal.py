from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.codecs.image_file import read_image
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.formats.resume_journal import UNFINISHED, Journal, LeftOutError, stopped, truth_of

TWO = Classes.of(["a", "b"])


def sample(key, value=0):
    image = np.full((1, 2, 3), value, np.uint8)
    return Sample.of(key, image, Segmentation.semantic(np.zeros((2, 3), int), TWO))


def dataset(*keys, loaded=None):
    def load(key):
        if loaded is not None:
            loaded.append(key)
        return sample(key)

    return Dataset("here", TWO, keys, load)


def write(root, samples, stop_at=None):
    """A format of nothing but its keys."""
    with Journal(root, "keys", samples) as journal:
        for item in journal.samples():
            if item.key == stop_at:
                raise RuntimeError
            journal.add(item, {"pixels": item.image.size})
        return list(journal.records()), journal.classes


# By hand


def test_what_is_noted_comes_back_and_the_journal_goes(tmp_path):
    records, classes = write(tmp_path / "new", [sample("one"), sample("two")])
    assert records == [{"key": "one", "pixels": 6}, {"key": "two", "pixels": 6}] and classes == TWO
    assert list((tmp_path / "new").iterdir()) == []


def test_a_stopped_writer_goes_on(tmp_path):
    with pytest.raises(RuntimeError):
        write(tmp_path, dataset("one", "two", "three"), stop_at="three")
    with (tmp_path / UNFINISHED).open("a") as file:
        file.write('{"key": "thr')  # the process ended in the middle of a line
    loaded = []
    records, _ = write(tmp_path, dataset("one", "two", "three", loaded=loaded))
    assert [record["key"] for record in records] == ["one", "two", "three"]
    assert loaded == ["three"]  # the finished samples were not even read


def test_what_a_stopped_writer_has_finished(tmp_path):
    assert stopped(tmp_path) is None
    with pytest.raises(RuntimeError):
        write(tmp_path, dataset("one", "two", "three"), stop_at="three")
    with (tmp_path / UNFINISHED).open("a") as file:
        file.write('{"key": "thr')
    assert stopped(tmp_path) == ("keys", {"one", "two"})
    (tmp_path / UNFINISHED).write_text("")
    assert stopped(tmp_path) is None  # killed before the first line was whole
    (tmp_path / UNFINISHED).write_text("[]\n")
    with pytest.raises(OutputError, match="is damaged; remove"):
        stopped(tmp_path)


def test_a_sample_may_be_left_out(tmp_path):
    def load(key):
        if key == "two":
            raise LeftOutError("nothing was predicted")
        return sample(key)

    records, _ = write(tmp_path, replace(dataset("one", "two", "three"), load=load))
    assert [record["key"] for record in records] == ["one", "three"]


def test_what_a_killed_writer_leaves_is_removed(tmp_path):
    with pytest.raises(RuntimeError):
        write(tmp_path, dataset("one", "two"), stop_at="two")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f".two.png.{'0a' * 16}").touch()
    write(tmp_path, dataset("one", "two"))
    assert [path.name for path in tmp_path.rglob("*")] == ["images"]


def test_an_end_before_the_first_line_was_written(tmp_path):
    (tmp_path / UNFINISHED).touch()
    assert len(write(tmp_path, dataset("one"))[0]) == 1


def test_image_files_are_copied_where_they_hold_the_image(tmp_path):
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "one.bmp")
    data = Dataset("here", TWO, ("one", "two"), lambda key: sample(key, value=int(key == "two")))
    data = Dataset(data.source, TWO, data.keys, data.load, {key: tmp_path / "one.bmp" for key in data.keys})
    with Journal(tmp_path / "new", "keys", data) as journal:
        copied, encoded = [
            journal.write_image(item, tmp_path / "new" / item.key) for item in journal.samples() if not journal.add(item)
        ]
        empty = Sample.of("three", np.zeros((0, 2, 3), np.uint8))
        assert journal.write_image(empty, tmp_path / "new" / "three") is None
    assert copied.name == "one.bmp" and copied.read_bytes() == (tmp_path / "one.bmp").read_bytes()
    assert encoded.name == "two.png"  # the file holds another image, such as before a transform


def test_files_are_copied_with_what_is_no_channel_and_what_is_missing(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "alpha.png")
    tifffile.imwrite(tmp_path / "inks.tif", values, photometric="separated")
    tifffile.imwrite(tmp_path / "white.tif", values[..., 0], photometric="miniswhite")
    tifffile.imwrite(tmp_path / "nodata.tif", values[..., 0], extratags=[(42113, "s", 0, str(values[1, 1, 0]), True)])
    files = {path.stem: path for path in tmp_path.iterdir()}
    truth = Segmentation.semantic(np.zeros((4, 5), int), TWO)
    data = Dataset("here", TWO, tuple(files), lambda key: Sample.of(key, read_image(files[key]), truth), files)
    with Journal(tmp_path / "new", "keys", data) as journal:
        for item in journal.samples():
            copy = journal.write_image(item, tmp_path / "new" / item.key)
            assert copy.read_bytes() == files[item.key].read_bytes()
            journal.add(item)


@pytest.mark.parametrize("orientation", [0, 1, 6, 9])  # 0 and 9 do not exist
def test_an_image_that_exif_turns_is_written_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("L", (3, 2)).save(tmp_path / "one.jpg", exif=exif)
    image = np.zeros((1, 3, 2) if orientation == 6 else (1, 2, 3), np.uint8)
    data = Dataset("here", TWO, ("one",), lambda key: Sample.of(key, image), {"one": tmp_path / "one.jpg"})
    with Journal(tmp_path / "new", "keys", data) as journal:
        for item in journal.samples():
            written = journal.write_image(item, tmp_path / "new" / item.key)
            journal.add(item)
    assert written.name == ("one.png" if orientation == 6 else "one.jpg")
    with Image.open(written) as picture:  # as a program that does not know EXIF
        assert picture.size == image.shape[:0:-1]


# By its messages


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="no sample was given"):
        write(tmp_path / "none", [])
    with pytest.raises(OutputError, match="'a/b' cannot be a file name; use 'a__b'"):
        write(tmp_path / "key", [sample("a/b")])
    other = Sample.of("two", sample("two").image, Segmentation.semantic(np.zeros((2, 3), int), Classes.of(["a"])))
    with pytest.raises(OutputError, match="'two' has other classes than those before it"):
        write(tmp_path / "mixed", [sample("one"), other])
    with pytest.raises(OutputError, match="'flat' has no pixel .its shape is .0, 3.."):
        write(tmp_path / "flat", [Sample.of("flat", np.zeros((1, 0, 3), np.uint8))])
    assert not (tmp_path / "none").exists() and not (tmp_path / "key").exists()
    with pytest.raises(OutputError, match="'two' has no truth.*drop = ..two.. in dataset.toml"):
        truth_of(Sample.of("two", sample("two").image))
    assert truth_of(other) is other.truth


def test_a_place_that_is_taken(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputError, match="is not empty .*give a new folder"):
        write(tmp_path, [sample("one")])
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "notes.txt" / "x", [sample("one")])


def test_another_unfinished_data_set(tmp_path):
    with pytest.raises(RuntimeError):
        write(tmp_path, dataset("one", "two"), stop_at="two")
    with pytest.raises(OutputError, match="is unfinished: it was to hold here as keys; finish that, or remove the folder"):
        write(tmp_path, [sample("one")])
    for change in ({"classes": Classes.of(["a", "c"])}, {"keys": ("two", "three")}, {"source": "there"}):
        message = {"classes": "here as keys with other classes", "keys": "the sample 'one', which", "source": "here as keys;"}
        with pytest.raises(OutputError, match=message[next(iter(change))]):
            write(tmp_path, replace(dataset("one", "two"), **change))
    assert len(write(tmp_path, dataset("one", "two"))[0]) == 2


def test_a_relative_path_is_another_source_elsewhere(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(RuntimeError):
        write(tmp_path / "new", dataset("one", "two"), stop_at="two")
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(OutputError, match="it was to hold .*a.here as keys"):
        write(tmp_path / "new", dataset("one", "two"))


@pytest.mark.parametrize("line", [b"\0\0\n", b"[]\n", b'{"no": 1}\n'])
def test_a_damaged_journal(tmp_path, line):
    with pytest.raises(RuntimeError):
        write(tmp_path, dataset("one", "two"), stop_at="two")
    with (tmp_path / UNFINISHED).open("ab") as file:
        file.write(line)
    with pytest.raises(OutputError, match="is damaged; remove .* and begin anew"):
        write(tmp_path, dataset("one", "two"))


def test_two_writers_at_once(tmp_path):
    with Journal(tmp_path, "keys", dataset("one")) as journal:
        with pytest.raises(OutputError, match="is being written by another process; wait"):
            write(tmp_path, dataset("one"))
        journal.add(next(journal.samples()))

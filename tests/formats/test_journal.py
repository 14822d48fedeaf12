import numpy as np
import pytest
from PIL import Image

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.formats.journal import UNFINISHED, Journal, truth_of

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


# By its messages


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="no sample was given"):
        write(tmp_path / "none", [])
    with pytest.raises(OutputError, match="'a/b' cannot be a file name; use 'a__b'"):
        write(tmp_path / "key", [sample("a/b")])
    other = Sample.of("two", sample("two").image, Segmentation.semantic(np.zeros((2, 3), int), Classes.of(["a"])))
    with pytest.raises(OutputError, match="'two' has other classes than those before it"):
        write(tmp_path / "mixed", [sample("one"), other])
    assert not (tmp_path / "none").exists() and not (tmp_path / "key").exists()
    with pytest.raises(OutputError, match="'two' has no truth"):
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
    with pytest.raises(OutputError, match="is unfinished: it was to hold here as keys; finish that, or give a new folder"):
        write(tmp_path, [sample("one")])

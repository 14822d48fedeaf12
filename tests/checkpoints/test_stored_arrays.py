"""Pickle files are read as arrays, numbers and texts, and nothing that they name is ever run."""

import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from segwright.checkpoints.stored_arrays import ForbiddenNameError, StoredArray, read_arrays


def stored(value, protocol=4):
    return io.BytesIO(pickle.dumps(value, protocol))


class Runs:
    """Makes a pickle file that calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# By hand


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.array(3.5),
        np.zeros((0, 4), np.float16),
        np.array([1, -2], ">i4"),
        np.array([True, False]),
    ],
    ids=str,
)
def test_an_array_is_read_as_numpy_wrote_it(array, protocol):
    found = read_arrays(
        stored({"model": OrderedDict(a=array), "author": "me", "epoch": 3, "kept": [None, (1.5, b"x")]}, protocol)
    )
    assert isinstance(found["model"]["a"], StoredArray) and np.array_equal(found["model"]["a"].array, array)
    assert found["model"]["a"].array.shape == array.shape
    assert (found["author"], found["epoch"], found["kept"]) == ("me", 3, [None, (1.5, b"x")])


@pytest.mark.parametrize("number", [np.float64(0.5), np.int32(-7), np.bool_(True)])
def test_a_number_of_numpys_is_pythons(number):
    found = read_arrays(stored({"n": number}))["n"]
    assert found == number and not isinstance(found, np.generic)


def test_what_python_2_wrote_is_read():
    text = (  # {"a": array([1, 2], "<i4")} as Python 2 wrote it, where bytes are text
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\n"
        b"dtype\nU\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x01\x00\x00\x00\x02"
        b"\x00\x00\x00tbs."
    )
    assert read_arrays(io.BytesIO(text))["a"].array.tolist() == [1, 2]


# By its messages: what could run ends the reading


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Runs(os.system, "touch ran"), "posix.system" if os.name == "posix" else "nt.system"),
        (Runs(eval, "open('ran', 'w')"), ".eval"),
        (Runs(getattr, "", "join"), ".getattr"),
        ({"model": {"a": [np.ones(2), {"b": Runs(os.mkdir, "ran")}]}}, ".mkdir"),
        (Runs(np.load, "ran"), "numpy.load"),
        (np.array([object], object), "an array of type 'O8'"),
        (np.zeros(2, [("a", "f4"), ("b", "O")]), "an array of type"),
        (np.array(["text"]), "an array of type 'U4'"),
        (Runs(__import__("_codecs").encode, "x", "zlib"), "the encoding 'zlib'"),
    ],
)
def test_what_could_run_is_refused_and_does_not_run(value, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4, 5):
        with pytest.raises(ForbiddenNameError) as refusal:
            read_arrays(stored(value, protocol))
        assert name in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_bytes_do_not_become_pointers():
    reconstruct, array = np.zeros(1).__reduce__()[0], np.zeros(1)
    kind = np.dtype([("pointer", "O")])
    forged = pickle.dumps(Runs(reconstruct, np.ndarray, (0,), b"b"))
    assert read_arrays(io.BytesIO(forged)) is not None  # an array that is never filled

    class Forged:
        def __reduce__(self):
            return (*array.__reduce__()[:2], (1, (1,), kind, False, b"\x41" * 8))

    with pytest.raises(ForbiddenNameError, match="an array of type 'V8'"):
        read_arrays(stored(Forged()))


@pytest.mark.parametrize("cut", [1, 20, 60, -1])
def test_a_damaged_file_is_told(cut):
    text = pickle.dumps({"a": np.arange(50.0)})
    with pytest.raises(pickle.UnpicklingError):
        read_arrays(io.BytesIO(text[:cut]))
    with pytest.raises(pickle.UnpicklingError, match=r"an array \[3\] has 2 numbers"):
        array = np.zeros(2)

        class Short:
            def __reduce__(self):
                return (*array.__reduce__()[:2], (1, (3,), array.dtype, False, array.tobytes()))

        read_arrays(stored(Short()))


def test_a_file_cannot_change_how_the_next_is_read():
    text = b"\x80\x02cnumpy\ndtype\n}U\x08__call__cnumpy\nndarray\ns\x86b."  # sets an attribute of what stands for a name
    with pytest.raises(pickle.UnpicklingError):
        read_arrays(io.BytesIO(text))
    assert read_arrays(stored(np.ones(2))).array.tolist() == [1, 1]

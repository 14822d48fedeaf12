import pickle

import numpy as np
import pytest

from segwright.core.errors import SettingError, ShapeError, UnknownNameError
from segwright.data.splits import open_splits
from segwright.formats import open_dataset, synthetic
from segwright.formats.synthetic import SCENES, cells, matches, read, street_video, streets

# By hand


def test_scenes_by_function():
    data = streets(3, shape=(48, 64), seed=2)
    assert data.keys == ("street_0000", "street_0001", "street_0002") and len(data.classes) == 9
    assert data[2].key == "street_0002" and data[2].image.shape == (3, 48, 64)
    assert cells(2, shape=(8, 20, 24))[1].image.shape == (1, 8, 20, 24)
    assert cells(2, shape=(24, 32)).classes.names == ("background", "cell")
    assert street_video(2, shape=(48, 64)).keys == ("frame_0000", "frame_0001")


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_by_name(scene):
    assert matches(f"synthetic:{scene}") and not matches(scene)
    assert len(read(f"synthetic:{scene}")) == synthetic.COUNT
    data = open_dataset(f"synthetic:{scene}?count=5&seed=3&shape=40x56")
    assert len(data) == 5 and data[4].image.shape[1:] == (40, 56) == data[4].truth.shape
    assert data.source == f"synthetic:{scene}?count=5&seed=3&shape=40x56"


def test_splits():
    train, val = open_splits("synthetic:cells?count=12&shape=24x32")
    assert (len(train), len(val)) == (10, 2)


# By a law


@pytest.mark.parametrize("scene", SCENES)
def test_samples_repeat_differ_and_travel(scene):
    data = read(f"synthetic:{scene}?count=4&shape=48x64&seed=7")
    same, other = read(data.source), read(f"synthetic:{scene}?count=4&shape=48x64&seed=8")
    for index in range(4):
        assert np.array_equal(data[index].image, same[index].image)
        assert np.array_equal(data[index].truth.planes, same[index].truth.planes)
        assert not np.array_equal(data[index].image, other[index].image)
    assert not np.array_equal(data[0].image, data[1].image)
    travelled = pickle.loads(pickle.dumps(data))
    assert np.array_equal(travelled[3].image, data[3].image)


def test_more_scenes_leave_the_first_as_they_are():
    assert np.array_equal(streets(2, (48, 64))[1].image, streets(5, (48, 64))[1].image)


# By its messages


def test_names_that_are_misspelt():
    with pytest.raises(UnknownNameError, match="no scene 'street', did you mean 'streets'?"):
        read("synthetic:street")
    with pytest.raises(UnknownNameError, match="no option 'cuont', did you mean 'count'?"):
        read("synthetic:streets?cuont=3")


@pytest.mark.parametrize("query", ["count=many", "count=", "shape=48", "shape=48xA", "seed=1.5"])
def test_options_that_are_no_numbers(query):
    expected = ShapeError if query == "shape=48" else SettingError
    with pytest.raises(expected, match="give whole numbers|is needed"):
        read(f"synthetic:cells?{query}")


def test_sizes_and_counts_out_of_range():
    with pytest.raises(SettingError, match="count is 0 and seed 0; at least 1 and 0 are needed"):
        streets(0)
    with pytest.raises(SettingError, match="seed -1"):
        cells(1, seed=-1)
    with pytest.raises(ShapeError, match=r"streets: shape is \(8, 40, 40\); \(H, W\) with at least 32 per axis is needed"):
        streets(1, shape=(8, 40, 40))
    with pytest.raises(ShapeError, match=r"shape is \(4, 40\); \(H, W\) or \(D, H, W\) with at least 8"):
        cells(1, shape=(4, 40))
    with pytest.raises(ShapeError, match="street_video"):
        street_video(1, shape=(16, 64))

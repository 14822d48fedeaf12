"""Masks of volumes as programs store them: scaled, in floats, with negative numbers, with a fourth axis."""

import json

import numpy as np
import pytest

from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import VOID, Grid
from segwright.core.errors import FormatError
from segwright.formats import open_dataset
from segwright.formats.volume_masks import guessed, meaning_of_masks, read_mask_volume, read_number_volume

pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")

LABELS = np.zeros((3, 4, 5), np.int16)
LABELS[0, :2], LABELS[1, :2], LABELS[2, 1:] = 1, 2, 4


def put(root, labels, suffix=".nii.gz"):
    """A data set of one volume with these labels (C, *S)."""
    shape = labels.shape[1:]
    write_volume(root / f"images/a{suffix}", np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5), Grid(LABELS.shape))
    write_volume(root / f"masks/a{suffix}", labels, Grid(shape))
    return root / f"masks/a{suffix}"


def scaled(path, labels, dtype, inter=0.0):
    """Labels in a NIfTI as nibabel stores them: integers that span the dtype, and the slope back."""
    low, high = int(labels.min()), int(labels.max())
    info = np.iinfo(dtype)
    slope = (high - low) / (info.max - info.min)
    stored = np.rint((labels - low) / slope + info.min).astype(dtype)
    write_volume(path.with_name("stored.nii"), stored[None], Grid(labels.shape))
    data = bytearray(path.with_name("stored.nii").read_bytes())
    data[112:120] = np.array([slope, low - info.min * slope], "<f4").tobytes()
    path.write_bytes(data)
    path.with_name("stored.nii").unlink()


# By hand


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("numbers", [(0, 1, 2, 4), (0, 1, 3, 104), (0, 7, 40, 200)])
def test_labels_that_a_slope_rounded_come_back(tmp_path, dtype, numbers):
    labels = np.choose(np.minimum(LABELS, 3), numbers)
    put(tmp_path, LABELS[None], ".nii")
    scaled(tmp_path / "masks/a.nii", labels, dtype)
    assert read_volume(tmp_path / "masks/a.nii")[0].dtype == np.float32
    found, _ = read_number_volume(tmp_path / "masks/a.nii")
    assert np.array_equal(found, labels)
    assert np.array_equal(open_dataset(tmp_path)[0].truth.class_map(), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_all_types_hold_labels(tmp_path, dtype, suffix):
    put(tmp_path, LABELS.astype(dtype)[None], suffix)
    assert np.array_equal(open_dataset(tmp_path)[0].truth.class_map(), LABELS)


def test_probabilities_stay_an_error(tmp_path):
    put(tmp_path, LABELS[None], ".nii")
    scaled(tmp_path / "masks/a.nii", LABELS, np.uint8)
    data = bytearray((tmp_path / "masks/a.nii").read_bytes())
    data[112:120] = np.array([1 / 255, 0], "<f4").tobytes()
    data[352:412] = bytes(range(60))
    (tmp_path / "masks/a.nii").write_bytes(data)
    with pytest.raises(FormatError, match="fractions such as 0.003922 .*threshold them"):
        open_dataset(tmp_path)


def test_a_mask_that_is_the_same_at_each_time_is_one(tmp_path):
    put(tmp_path, np.repeat(LABELS[None], 4, axis=0))
    assert np.array_equal(open_dataset(tmp_path)[0].truth.class_map(), LABELS)
    put(tmp_path, np.stack([LABELS, LABELS[::-1]]))
    with pytest.raises(FormatError, match="holds 2 masks that differ, as channels or along a fourth axis"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("unknown", [-1, -100, np.nan])
def test_a_number_below_zero_is_void_and_it_is_said(tmp_path, unknown, caplog):
    labels = LABELS.astype(np.int16 if unknown == unknown else np.float32)
    labels[:, 3] = unknown
    put(tmp_path, labels[None])
    data = open_dataset(tmp_path)
    number = -1 if unknown != unknown else unknown
    assert f"the number {number} in masks is taken for void (" in caplog.text
    expected = np.where(labels >= 0, labels, VOID)
    assert np.array_equal(data[0].truth.class_map(), expected) and len(data[0].truth.planes) == 1
    caplog.clear()
    content = {"classes": ["a", "b", "c", "d", "e"], "ignore_index": number}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert np.array_equal(open_dataset(tmp_path)[0].truth.class_map(), expected) and not caplog.records
    (tmp_path / "classes.json").write_text(json.dumps(content | {"ignore_index": 9}))
    with pytest.raises(FormatError, match=f'the number {number} at 15 of 60 voxels, .*"ignore_index": {number}'):
        open_dataset(tmp_path)[0]


def test_objects_may_be_void_too(tmp_path):
    labels = LABELS.copy()
    labels[:, 3] = -1
    put(tmp_path, labels[None])
    (tmp_path / "classes.json").write_text('{"classes": ["background", "cell"], "masks": "instances", "ignore_index": -1}')
    truth = open_dataset(tmp_path)[0].truth
    assert truth.instance_ids.tolist() == [0, 1, 2, 4] and (truth.planes == VOID).sum() == 15


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.float64])
def test_numbers_beyond_16_bits_are_objects(tmp_path, dtype):
    labels = LABELS.astype(np.int64)
    labels[labels == 4] = 2_000_000_000
    labels[labels == 2] = 70_000
    put(tmp_path, labels.astype(dtype)[None])
    truth = open_dataset(tmp_path)[0].truth
    assert truth.classes.names == ("background", "object") and truth.instance_ids.tolist() == [0, 1, 70_000, 2_000_000_000]
    assert truth.areas().tolist() == [(labels == number).sum() for number in (0, 1, 70_000, 2_000_000_000)]
    (tmp_path / "classes.json").write_text('{"classes": ["cell"], "masks": "instances"}')
    assert open_dataset(tmp_path)[0].truth.instance_ids.tolist() == [1, 70_000, 2_000_000_000]
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(FormatError, match='0..2000000000; renumber them 0..65535, or write "masks": "instances"'):
        open_dataset(tmp_path)[0]


def test_what_masks_mean_and_whether_names_count(tmp_path):
    path = put(tmp_path, LABELS[None])
    meaning, is_named = meaning_of_masks([path], None)
    assert meaning.classes.names == tuple(f"class_{k}" for k in range(5)) and not is_named and meaning.negative is None
    assert meaning_of_masks([path], meaning) == (meaning, False)
    assert guessed([LABELS], tmp_path).classes == meaning.classes
    mask = read_mask_volume(path)
    assert mask.segments == () and mask.within(Grid((9, 9, 9))) is mask


def test_volumes_that_were_smoothed_are_read_as_flat_masks_are(tmp_path, caplog):
    soft = np.zeros((8, 32, 32), np.uint8)
    soft[:, 8:24, 8:24] = 255
    for step in range(1, 9):  # a ramp around the square
        soft[:, 8 - step, 8:24] = 255 - 28 * step
        soft[:, 23 + step, 8:24] = 255 - 29 * step
    meaning = guessed([soft], tmp_path / "a.nii.gz")
    assert meaning.classes.names == ("background", "foreground") and meaning.is_nearest
    assert "smoothing put between 0, 255" in caplog.text
    truth = meaning.truth(soft, tmp_path / "a.nii.gz")
    assert np.array_equal(truth.class_map(), soft >= 128)


def test_255_among_grey_levels_of_volumes(tmp_path):
    path = tmp_path / "a.nii.gz"
    assert guessed([np.array([[0, 127, 255]])], path).classes.names == ("class_0", "class_127", "class_255")
    assert guessed([np.array([[0, 1, 255]])], path).classes.names == ("class_0", "class_1")
    with pytest.raises(
        FormatError, match="a.nii.gz and the masks beside it hold 3 numbers up to 255, which may be a class or void"
    ):
        guessed([np.array([[0, 60, 255]])], path)

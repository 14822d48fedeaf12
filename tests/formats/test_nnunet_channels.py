"""Channels of cases in files of their own. Axes: C, (D, H, W)."""

import json

import numpy as np
import pytest

from segwright.codecs.image_writer import write_values
from segwright.codecs.volume_file import write_volume
from segwright.core import Grid
from segwright.core.errors import FormatError
from segwright.formats import nnunet
from segwright.formats.nnunet_channels import CasePart, files_ending, read_channels

GRID = Grid((2, 3, 4), (2.5, 0.7, 0.5))
IMAGE = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4)


def put(folder, case, channels=(0, 1), grid=GRID):
    for channel in channels:
        write_volume(folder / f"{case}_{channel:04}.nii.gz", IMAGE[channel : channel + 1], grid)


def named(folder, channels=2):
    content = {"channel_names": {str(k): f"c{k}" for k in range(channels)}, "labels": {"background": 0, "a": 1}}
    (folder / "dataset.json").write_text(json.dumps(content | {"file_ending": ".nii.gz"}))


@pytest.mark.parametrize("place", ["above", "inside", "none"])
def test_a_folder_of_images_is_one_of_cases(tmp_path, place):
    folder = tmp_path / ("other" if place == "inside" else "imagesTs")
    for case in ("b10", "b9"):
        put(folder, case)
    if place != "none":
        named(tmp_path if place == "above" else folder)
    data = nnunet.images_alone(folder)
    assert data.keys == ("b9", "b10") and data.image_files["b9"] == folder / "b9_0000.nii.gz"
    np.testing.assert_array_equal(data[0].image, IMAGE)
    assert data[0].truth is None and data[0].grid.spacing_mm == pytest.approx(GRID.spacing_mm)


def test_other_folders_are_none_of_nnunet(tmp_path):
    put(tmp_path / "frames", "a")
    named(tmp_path)
    assert nnunet.images_alone(tmp_path / "frames") is None and nnunet.images_alone(tmp_path / "nothing") is None
    (tmp_path / "imagesTs").mkdir()
    assert nnunet.images_alone(tmp_path / "imagesTs") is None


def test_a_data_set_has_the_keys_of_its_truth(tmp_path):
    named(tmp_path)
    put(tmp_path / "imagesTr", "a")
    put(tmp_path / "imagesTs", "b")
    write_volume(tmp_path / "labelsTr" / "a.nii.gz", np.zeros((1, 2, 3, 4), np.uint8), GRID)
    assert nnunet.images_alone(tmp_path).keys == ("a", "b")
    write_volume(tmp_path / "labelsTs" / "b.nii.gz", np.zeros((1, 2, 3, 4), np.uint8), GRID)
    assert nnunet.images_alone(tmp_path).keys == nnunet.read(tmp_path).keys == ("train__a", "test__b")


def test_numbers_of_four_digits_are_no_channels_where_no_file_is_the_first(tmp_path):
    for case in ("hippo_0001", "hippo_0002"):
        write_volume(tmp_path / f"{case}.nii.gz", IMAGE, GRID)
    part = CasePart.of(tmp_path, ".nii.gz", {})
    assert sorted(part.images) == ["hippo_0001", "hippo_0002"] and len(part.files("hippo_0001", 2)) == 1
    assert sorted(files_ending(tmp_path, ".nii.gz")) == ["hippo_0001", "hippo_0002"]


# By its messages


def test_a_missing_channel_is_named(tmp_path):
    folder = tmp_path / "imagesTs"
    put(folder, "a")
    put(folder, "b", channels=(1,))
    with pytest.raises(FormatError, match=r"case b has the channels \[1\], and 2 are needed; add .* files: b_0000.nii.gz"):
        nnunet.images_alone(folder)
    put(folder, "b", channels=(0,))
    assert nnunet.images_alone(folder).keys == ("a", "b")
    (folder / "b_0001.nii.gz").unlink()
    data = nnunet.images_alone(folder)
    with pytest.raises(FormatError, match=r"have 1 channels, dataset.json names 2; add .*imagesTs/b_0001.nii.gz"):
        data.load("b")
    named(tmp_path, channels=1)
    with pytest.raises(FormatError, match=r"case a has the channels \[0, 1\], and 1 are needed; remove the others"):
        nnunet.images_alone(folder)


def test_channels_on_other_grids_are_refused(tmp_path):
    put(tmp_path, "a", channels=(0,))
    put(tmp_path, "a", channels=(1,), grid=Grid((2, 3, 4), (2.5, 0.7, 0.6)))
    files = [tmp_path / f"a_{channel:04}.nii.gz" for channel in range(2)]
    with pytest.raises(FormatError, match="have one shape but lie .* voxels apart"):
        read_channels("a", files, 2, None)


def test_channels_of_images_keep_their_types(tmp_path):
    for channel, dtype in enumerate((np.uint8, np.uint16)):
        write_values(tmp_path / f"a_{channel:04}.png", np.full((3, 4), 7 + channel, dtype))
    image, grid = read_channels("a", [tmp_path / f"a_{channel:04}.png" for channel in range(2)], 2, (None, None))
    assert image.dtype == np.uint16 and image[:, 0, 0].tolist() == [7, 8] and grid.shape == (3, 4)

import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.codecs.volume_file import write_volume
from segwright.core import Grid
from segwright.formats import coco, open_dataset, synthetic
from segwright.inspection.fixes import write_config
from segwright.inspection.image_files import about_failures, about_sizes, about_values
from segwright.inspection.inspect import inspect
from segwright.inspection.sample_scan import Failure, MaskLook, SampleScan


def look(key, dtype="uint8", channels=3, scale=200.0, mask_shape=None, turned=1.0):
    mask = None
    if mask_shape:
        mask = MaskLook(mask_shape, np.array([0]), np.array([9]), np.array([0]), None, 1, np.array([9]), np.array([0]))
    return SampleScan(
        key=key, part="", shape=(4, 6), channels=channels, dtype=dtype, scale=scale, step=None,
        thumb=np.zeros((32, 32), np.float32), digest=b"", borders=None, mask=mask, turned=turned,
    )  # fmt: skip


def test_failures_by_what_the_reader_said():
    failures = [
        Failure("a", "", "a.png is damaged; copy it again"),
        Failure("b", "", "m and i have one shape but lie 3 voxels apart in the world (spacing ...); resample"),
        Failure("c", "", "m is 2 x 2, i is 3 x 3; export the mask again on the grid of the image"),
        Failure("d", "", 'd.tif holds axes TYX ...; if its axes are others than it says, write them as axes = "ZYX" into ...'),
    ]
    found = {finding.name: finding for finding in about_failures(failures)}
    assert {name: finding.keys for name, finding in found.items()} == {
        "unreadable": ("a",),
        "affine-mismatch": ("b",),
        "size-mismatch": ("c",),
        "stack-without-axes": ("d",),
    }
    assert found["unreadable"].fix.drop == ("a",) and found["unreadable"].numbers["messages"] == {"a": failures[0].message}


@pytest.mark.parametrize(("moved", "shape", "name"), [(5.0, (4, 5, 6), "affine-mismatch"), (0.0, (4, 5, 7), "size-mismatch")])
def test_a_volume_whose_mask_lies_elsewhere(tmp_path, moved, shape, name):
    rng = np.random.default_rng(0)
    for index in range(4):
        affine = np.eye(4)
        write_volume(
            tmp_path / "images" / f"v{index}.nii.gz", rng.normal(size=(1, 4, 5, 6)).astype(np.float32), _grid((4, 5, 6))
        )
        affine[0, 3] = moved if index == 2 else 0.0
        size = shape if index == 2 else (4, 5, 6)
        numbers = rng.integers(0, 2, (1, *size)).astype(np.uint8)
        write_volume(tmp_path / "masks" / f"v{index}.nii.gz", numbers, _grid(size, affine))
    found = {finding.name: finding for finding in inspect(tmp_path).findings if finding.level != "note"}
    assert set(found) == {name} and found[name].keys == ("v2",)


def _grid(shape, affine=None):
    return Grid(shape, spacing_mm=(1.0,) * 3, affine=np.eye(4) if affine is None else affine)


def test_samples_without_an_image(tmp_path):
    coco.write(tmp_path, synthetic.cells(3, shape=(16, 16)))
    assert not {"no-images", "unreadable"} & {finding.name for finding in inspect(tmp_path).findings}
    for file in (tmp_path / "images").iterdir():
        file.rename(file.with_suffix(".PNG"))  # another name than that in the JSON, where capitals count
    findings = {finding.name: finding for finding in inspect(tmp_path).findings}
    assert findings["no-images"].evidence.startswith("3 of 3 samples have a truth and no image (")
    assert findings["no-images"].level == "warning" and not {"unreadable", "duplicates", "duplicates-across-splits"} & {
        *findings
    }


def test_sizes():
    found = about_sizes([look("a", mask_shape=(4, 6)), look("b", mask_shape=(8, 12))], {})
    assert [(finding.name, finding.keys) for finding in found] == [("size-mismatch", ("b",))]
    assert found[0].numbers["sizes"] == {"b": {"image": [4, 6], "mask": [8, 12]}}
    assert "8 x 12, the image 4 x 6" in found[0].evidence


def test_masks_that_fit_better_when_turned():
    (finding,) = about_sizes([look("a", mask_shape=(4, 6), turned=3.0), look("b", mask_shape=(4, 6), turned=1.1)], {})
    assert finding.name == "exif-not-applied" and finding.level == "warning" and finding.fix.drop == ("a",)


def test_mixed_kinds():
    assert about_values([look("a"), look("b")]) == []
    found = about_values([look("a"), look("b", dtype="uint16", channels=1), look("c")])
    assert [(finding.name, finding.keys) for finding in found] == [("mixed-bit-depths", ("b",)), ("mixed-channels", ("b",))]
    assert "2 as uint8 and 1 as uint16" in found[0].evidence and "2 with 3 and 1 with 1" in found[1].evidence


def test_scales_are_compared_inside_one_type():
    floats = [look("a", "float32", scale=10.0), look("b", "float32", scale=999.0)]
    assert about_values(floats) == []
    (finding,) = about_values([*floats, look("c", "float32", scale=1000.0)])
    assert finding.name == "intensity-scales" and finding.keys == ("a", "c")
    assert about_values([look("a", scale=1.0), look("b", scale=255.0)]) == []  # 8 bits: one is dark
    assert about_values([look("a", "float32", scale=0.0), look("b", "float32", scale=5.0)]) == []  # an empty image


@pytest.mark.parametrize("letters", ["", "TYX"])
def test_stacks_without_axes_and_after_their_remedy(tmp_path, letters):
    """Told by the masks, or asked for."""
    rng = np.random.default_rng(0)
    how = {"metadata": {"axes": letters}} if letters else {}
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(30):
        mask = np.zeros((5, 12, 16), np.uint8)
        mask[:, 2:8, 2 : 5 + index % 9] = 1
        tifffile.imwrite(tmp_path / f"masks/{index}.tif", mask, photometric="minisblack")
        image = rng.integers(0, 4000, (5, 12, 16)).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"images/{index}.tif", image, photometric="minisblack", **how)
    report = inspect(tmp_path)
    [finding] = [finding for finding in report.findings if finding.name != "few-samples"]
    assert (finding.name, finding.level) == ("stack-without-axes", "error" if letters else "note")
    if letters:
        assert not write_config(report)[1] and 'write them as axes = "ZYX" into dataset.toml' in finding.evidence
        (tmp_path / "dataset.toml").write_text('axes = "ZYX"')
    else:
        assert write_config(report)[1] == ["axes: ZYX for stack-without-axes"]
    assert [finding.name for finding in inspect(tmp_path).findings if finding.name != "few-samples"] == []
    assert open_dataset(tmp_path)[0].image.shape == (1, 5, 12, 16)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_that_hides_something_is_told(tmp_path, suffix):
    root, picture = pictures_with_alpha(tmp_path, suffix, hidden=4)
    (note,) = [finding for finding in inspect(root).findings if finding.name == "transparent"]
    assert note.level == "note" and note.numbers == {"images": 1, "share": 4 / 30}
    assert note.evidence.startswith("1 of 2 images (b) have an alpha channel by which 13.3 % of their pixels")
    root, _ = pictures_with_alpha(tmp_path / "opaque", suffix, hidden=0)
    assert not [finding for finding in inspect(root).findings if finding.name == "transparent"]


def test_a_band_that_is_called_alpha_becomes_a_channel_by_its_remedy(tmp_path):
    root, _ = pictures_with_alpha(tmp_path, "png", hidden=0)
    values = np.random.default_rng(0).integers(0, 65535, (5, 6, 4), np.uint16)
    tifffile.imwrite(root / "images" / "c.tif", values)
    Image.fromarray(255 * np.eye(5, 6, dtype=np.uint8)).save(root / "masks" / "c.png")
    assert len(open_dataset(root).load("c").image) == 3
    (note,) = [finding for finding in inspect(root).findings if finding.name == "transparent"]
    code = re.search(r'python -c "(.+)"', note.remedy)[1].replace("FILE.tif", str(root / "images" / "c.tif"))
    subprocess.run([sys.executable, "-c", code], check=True)
    assert np.array_equal(open_dataset(root).load("c").image, np.moveaxis(values, -1, 0))
    assert not [finding for finding in inspect(root).findings if finding.name == "transparent"]


def test_masks_of_which_alpha_hides_what_is_read(tmp_path):
    root, _ = pictures_with_alpha(tmp_path, "png", hidden=0)
    white = np.full((5, 6, 4), 255, np.uint8)
    white[2:, :, 3], white[0, 0, :3] = 0, 0
    Image.fromarray(white).save(root / "masks" / "b.png")
    (warning,) = [finding for finding in inspect(root).findings if finding.name == "transparent-masks"]
    assert warning.numbers == {"masks": 1, "pixels": 18} and warning.keys == ("b",)
    code = re.search(r'python -c "(.+)"', warning.remedy)[1].replace("FILE.png", str(root / "masks" / "b.png"))
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not [finding for finding in inspect(root).findings if finding.name == "transparent-masks"]
    assert open_dataset(root).load("b").truth.areas().tolist() == [19, 11]


def pictures_with_alpha(root, suffix, hidden):
    """A data set of an opaque picture and one of which alpha hides some pixels, and the latter, uint8 (5, 6, 4)."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    picture = np.random.default_rng(1).integers(0, 255, (5, 6, 4), np.uint8)
    picture[..., 3] = 255
    Image.fromarray(picture).save(root / "images" / f"a.{suffix}")
    picture[0, :hidden, 3] = range(hidden)
    Image.fromarray(picture).save(root / "images" / f"b.{suffix}")
    for key in "ab":
        Image.fromarray(255 * np.eye(5, 6, dtype=np.uint8)).save(root / "masks" / f"{key}.png")
    return root, picture

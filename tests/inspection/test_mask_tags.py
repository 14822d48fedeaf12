import re
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.formats import open_dataset
from segwright.inspection.fixes import write_config
from segwright.inspection.inspect import inspect
from segwright.inspection.mask_tags import about_tags

PLACE = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 100.0, 200.0, 0.0), True)]
OBJECT = np.zeros((20, 24), np.uint8)
OBJECT[4:9, 5:12] = 1


def data_set(root, *masks, tags=(), **options):
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number, mask in enumerate(masks):
        picture = np.random.default_rng(number).integers(0, 255, (20, 24, 3), np.uint8)
        tifffile.imwrite(root / "images" / f"{number}.tif", picture, photometric="rgb", extratags=PLACE)
        tifffile.imwrite(root / "masks" / f"{number}.tif", mask, extratags=tags, **options)
    return root


def nodata(number):
    return [(42113, "s", 0, str(number), True)]


def finding(root, name):
    found = [one for one in inspect(root).findings if one.name == name]
    return found[0] if found else None


def foreground(root):
    return [open_dataset(root).load(key).truth.areas()[1:].sum() for key in open_dataset(root).keys]


def run(remedy, path):
    """Run the Python that a remedy has for a file."""
    code = re.search(r'python -c "(.+)"', remedy)[1].replace("FILE" + path.suffix, str(path))
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("folder", ["masks", "train/labels", "labelsTr"])
def test_masks_whose_zero_is_nodata_by_their_files(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    for name, tags in (("a.tif", nodata(0)), ("b.tif", nodata(255)), ("c.tif", [])):
        tifffile.imwrite(tmp_path / folder / name, np.zeros((2, 3), np.uint8), extratags=tags)
    (tmp_path / folder / "broken.tif").write_bytes(b"II*\0")
    (note,) = about_tags(tmp_path, {"classes": ["field", "house"]}, [])
    assert (note.name, note.level) == ("zero-is-nodata", "note")
    assert "The files of 1 mask say that 0 is no data (a.tif)" in note.evidence
    assert about_tags(tmp_path, {"classes": ["field", "house"], "values": [1, 2], "ignore_index": 0}, []) == []
    assert about_tags(tmp_path / folder, None, []) == about_tags(tmp_path / "nowhere", None, []) == []


@pytest.mark.parametrize("mask", [OBJECT > 0, OBJECT, OBJECT * 255], ids=["bits", "numbers", "white"])
def test_white_is_zero_is_told_and_turned_back_by_values(tmp_path, caplog, mask):
    root = data_set(tmp_path, mask, mask, photometric="miniswhite")
    warning = finding(root, "white-is-zero")
    assert warning.level == "warning" and warning.fix is None and "(tag 262, PhotometricInterpretation)" in warning.evidence
    assert caplog.text.count(f"{root / 'masks'}: masks say that white is 0 (tag 262)") == 1
    write_config(inspect(root))
    assert finding(root, "white-is-zero") is not None  # nothing is certain, so that nothing is written
    (root / "dataset.toml").unlink(missing_ok=True)
    if mask.dtype == bool:
        assert foreground(root) == [OBJECT.size - 35] * 2
        classes, values = re.search(r"(classes = \[.+?\]) and (values = \[.+?\])", warning.remedy).groups()
        (root / "dataset.toml").write_text(f"[masks]\n{classes}\n{values}\n")
        assert foreground(root) == [35, 35] and finding(root, "white-is-zero") is None
        (root / "dataset.toml").unlink()
    for path in (root / "masks").iterdir():
        run(warning.remedy, path)
    assert foreground(root) == [35, 35] and finding(root, "white-is-zero") is None


def test_where_some_masks_are_turned_only_their_tags_help(tmp_path):
    root = data_set(tmp_path, OBJECT > 0, OBJECT > 0)
    tifffile.imwrite(root / "masks" / "1.tif", OBJECT > 0, photometric="minisblack")
    warning = finding(root, "white-is-zero")
    assert "values" not in warning.remedy and "The files of 1 mask (0.tif)" in warning.evidence
    run(warning.remedy, root / "masks" / "0.tif")
    assert foreground(root) == [35, 35]


def test_black_is_zero_and_fax_packings_are_no_finding(tmp_path, caplog):
    root = data_set(tmp_path, OBJECT > 0, OBJECT > 0, photometric="minisblack")
    Image.fromarray(OBJECT > 0).save(root / "masks" / "1.tif", compression="group4")
    assert finding(root, "white-is-zero") is None and foreground(root) == [35, 35]
    assert "white is 0" not in caplog.text


@pytest.mark.parametrize("value", [255, 1])
def test_a_foreground_that_is_nodata_is_void_and_told(tmp_path, caplog, value):
    root = data_set(tmp_path, OBJECT * value, OBJECT * value, tags=nodata(value))
    truth = open_dataset(root).load("0").truth
    assert truth.areas().tolist() == [OBJECT.size - 35] and (truth.planes[0] == -1).sum() == 35
    assert "nothing but 0 and what their GDAL_NODATA (tag 42113) calls missing" in caplog.text
    warning = finding(root, "foreground-is-nodata")
    assert f"say that {value} is no data" in warning.evidence
    classes, values = re.search(r"(classes = \[.+?\]) and (values = \[.+?\])", warning.remedy).groups()
    (root / "dataset.toml").write_text(f"[masks]\n{classes}\n{values}\n")
    assert foreground(root) == [35, 35] and finding(root, "foreground-is-nodata") is None


def test_void_beside_a_foreground_is_no_finding(tmp_path):
    mask = OBJECT.copy()
    mask[:2] = 255
    root = data_set(tmp_path, mask, mask, tags=nodata(255))
    assert finding(root, "foreground-is-nodata") is None and foreground(root) == [35, 35]

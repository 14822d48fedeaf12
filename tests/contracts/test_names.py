"""What every format promises of names: two spellings of one name are one, and what systems leave beside files is no data."""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.core import Classes, Sample, Segmentation
from segwright.formats import open_dataset, readers

WRITERS = [name for name, module in readers().items() if hasattr(module, "write")]
CLASSES = Classes.of(["background", "Zellé"], is_thing=[False, True])
NFC, NFD = (unicodedata.normalize(form, "Änderung é") for form in ("NFC", "NFD"))
KEYS = ("a.1", "plain", NFC, "图2 左")  # in name order; a dot, accents, spaces, Chinese
LEFT_BEHIND = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "  # how an AppleDouble file begins


def write(name: str, root: Path) -> Path:
    def sample(number: int, key: str) -> Sample:
        image = np.full((3, 6, 8), 20 * number, np.uint8)
        truth = np.zeros((6, 8), int)
        truth[: number + 1, :3] = 1
        return Sample.of(key, image, Segmentation.panoptic(truth + 1, [0, 1], [0, 1], classes=CLASSES))

    readers()[name].write(root, iter([sample(number, key) for number, key in enumerate(KEYS)]))
    return root


def rename_below(root: Path, old: str, new: str) -> int:
    count = 0
    for path in sorted(root.rglob("*"), reverse=True):  # what a folder holds before the folder
        if old in path.name:
            path.rename(path.with_name(path.name.replace(old, new)))
            count += 1
    return count


def rewrite_texts(root: Path, old: str, new: str) -> int:
    """In annotation files, also where JSON or XML escape what is not ASCII."""
    count = 0
    for path in [root] if root.is_file() else root.rglob("*.*"):
        if path.suffix in (".json", ".xml", ".txt", ".yaml", ".toml", ".geojson"):
            text = path.read_text(encoding="utf-8")
            changed = text.replace(old, new).replace(*(json.dumps(name)[1:-1] for name in (old, new)))
            count += changed != text
            path.write_text(changed, encoding="utf-8")
    return count


def contents(root: Path) -> list[tuple[str, int, list[float]]]:
    """Key, pixels of cells and colour of each sample."""
    data = open_dataset(root)
    return [
        (sample.key, int((sample.truth.class_map() == 1).sum()), sample.image.mean(axis=(1, 2)).tolist()) for sample in data
    ]


@pytest.mark.parametrize("name", WRITERS)
def test_files_may_be_spelt_as_macos_does(name, tmp_path):
    root = write(name, tmp_path / "data")
    expected = contents(root)
    assert sorted(key for key, *_ in expected) == sorted(KEYS)
    assert rename_below(root, NFC, NFD) > 0
    assert contents(root) == expected


@pytest.mark.parametrize("name", WRITERS)
def test_annotations_may_spell_names_as_macos_does(name, tmp_path):
    root = write(name, tmp_path / "data")
    expected = contents(root)
    rewrite_texts(root, NFC, NFD)  # of samples
    assert contents(root) == expected
    rewrite_texts(root, "é", "e\u0301")  # of classes too, in all but classes.json
    if (root / "classes.json").exists():
        rewrite_texts(root / "classes.json", "e\u0301", "é")
    assert contents(root) == expected


@pytest.mark.parametrize("name", WRITERS)
def test_names_in_dataset_toml_may_be_spelt_either_way(name, tmp_path):
    root = write(name, tmp_path / "data")
    (root / "dataset.toml").write_text(f'drop = ["{NFD}"]', encoding="utf-8")
    assert sorted(open_dataset(root).keys) == sorted({*KEYS} - {NFC})


@pytest.mark.parametrize("name", WRITERS)
def test_what_systems_leave_beside_files_is_no_data(name, tmp_path):
    root = write(name, tmp_path / "data")
    expected = contents(root)
    for path in [*root.rglob("*")]:
        path.with_name(f"._{path.name}").write_bytes(LEFT_BEHIND)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        for left in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / left).write_bytes(LEFT_BEHIND)
    shutil.copytree(
        root, root / "__MACOSX", ignore=lambda _, names: [each for each in names if each[:2] != "._" and "." in each]
    )
    assert contents(root) == expected


NO_JPEGS = ("coco_panoptic", "nnunet", "ome_zarr", "tiff", "volume")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", ".Jpeg"])
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in NO_JPEGS])
def test_a_jpeg_may_end_otherwise(name, suffix, tmp_path):
    root = write(name, tmp_path / "data")
    expected = contents(root)
    folder = {"cityscapes": "leftImg8bit", "davis": "JPEGImages", "voc": "JPEGImages", "geojson": "", "labelme": ""}
    renamed = {}
    for path in [*(root / folder.get(name, "images")).rglob("*.png")]:
        target = path.with_suffix(suffix)
        Image.open(path).save(target, format="JPEG", quality=100)
        path.unlink()
        renamed[path.name] = target.name
    assert renamed
    for old, new in renamed.items():
        rewrite_texts(root, old, new)
    found = contents(root)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    assert np.allclose([entry[2] for entry in found], [entry[2] for entry in expected], atol=2)

import json

import pytest

from segwright.core.errors import FormatError
from segwright.formats import coco, mask_folder, synthetic
from segwright.inspection.lenient_loader import named_classes, open_leniently


def test_a_healthy_set(clean):
    opened = open_leniently(clean.root)
    assert opened.dataset is not None and opened.findings == () and opened.is_split and opened.has_mask_files
    assert opened.named == {"classes": ["sky", "road", "car"]} and opened.classes.names == ("sky", "road", "car")
    assert [item.part for item in opened.items].count("val") == 8 and opened.root == clean.root
    item = opened.items[0]
    assert item.load().key == item.key == "train__img_000" and item.mask.name == "img_000.png" and item.image.is_file()


def test_a_set_that_nobody_else_opens(patient):
    patient.pairs()[1][1].unlink()
    opened = open_leniently(patient.root)
    assert opened.dataset is None and len(opened.items) == 37 and opened.items[0].load().truth is not None
    assert [finding.name for finding in opened.findings] == ["missing-partner"]


def test_names_that_differ_in_capitals_are_not_dropped(patient):
    names = {
        mask: mask.with_name(name) for (_, mask), name in zip(patient.pairs(), ("IMG_000.png", "img_ 001.png"), strict=False)
    }
    for mask, other in names.items():
        mask.rename(other)
    (finding,) = open_leniently(patient.root).findings
    assert finding.remedy == "Names of 2 of them differ in capitals or blanks alone: rename the masks like their images."
    assert finding.fix is None and len(finding.keys) == 4
    for mask, other in names.items():
        other.rename(mask)
    assert open_leniently(patient.root).findings == ()


def test_what_is_dropped_is_not_there(patient):
    patient.pairs()[1][1].unlink()
    (patient.root / "dataset.toml").write_text('drop = ["train__img_001", "val__img_031"]')
    opened = open_leniently(patient.root)
    assert opened.dataset is not None and len(opened.items) == 36 and opened.findings == ()
    assert open_leniently(patient.root / "train").known.drop == ("img_001",)


def test_without_parts_the_last_sixth_is_one(patient):
    opened = open_leniently(patient.root / "train")
    assert (
        not opened.is_split and [item.part for item in opened.items] == ["the rest"] * 25 + ["the sixth that is held out"] * 5
    )


def test_other_formats(tmp_path):
    coco.write(tmp_path / "coco", synthetic.cells(3, shape=(32, 32)))
    opened = open_leniently(tmp_path / "coco")
    assert not opened.has_mask_files and all(item.mask is None and item.image is not None for item in opened.items)
    next((tmp_path / "coco").rglob("*.json")).write_text('{"images": [')
    broken = open_leniently(tmp_path / "coco", "coco")
    assert [finding.name for finding in broken.findings] == ["cannot-open"] and broken.items == ()
    drawn = open_leniently("synthetic:cells?count=3&shape=32x32")
    assert drawn.root is None and drawn.known is None and len(drawn.items) == 3


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (["a", "b"], {"classes": ["a", "b"]}),
        ({"a": [1, 2, 3]}, {"classes": ["a"], "palette": [[1, 2, 3]]}),
        ({"classes": ["a"], "ignore_index": 4}, {"classes": ["a"], "ignore_index": 4}),
    ],
)
def test_names_from_classes_json(tmp_path, content, named):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert named_classes(tmp_path) == named == named_classes(tmp_path / "below")
    (tmp_path / "dataset.toml").write_text('[masks]\nclasses = ["x"]')
    assert named_classes(tmp_path) == {"classes": ["x"]}


def test_guessed_where_masks_are_damaged_too(patient):
    patient.name(None)
    patient.pairs()[0][1].write_bytes(b"damaged")
    opened = open_leniently(patient.root)
    assert opened.dataset is None and opened.classes.names == ("class_0", "class_1", "class_2")


def test_messages(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        open_leniently(tmp_path / "none")
    mask_folder.write(tmp_path / "cells", synthetic.cells(3, shape=(32, 32)))
    (tmp_path / "cells" / "dataset.toml").write_text("dorp = []")
    with pytest.raises(FormatError, match="did you mean 'drop'"):
        open_leniently(tmp_path / "cells")

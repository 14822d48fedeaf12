from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes
from segwright.inspection.class_counts import about_classes
from segwright.inspection.sample_scan import SampleScan

ROAD = Classes.of(["sky", "road", "car"])
CELLS = Classes.of(["background", "cell"])


def look(key, pixels, part="train", nothing=0, void=0, shape=(10, 10)):
    return SampleScan(
        key=key, part=part, shape=shape, channels=1, dtype="uint8", scale=1.0, step=None, thumb=np.zeros((32, 32), np.float32),
        digest=key.encode(), borders=None, pixels=np.array(pixels), nothing=nothing, void=void,
    )  # fmt: skip


def named(looks, classes, given=None, is_split=True, has_mask_files=True):
    findings = about_classes(looks, classes, given, is_split=is_split, has_mask_files=has_mask_files)
    return {finding.name: finding for finding in findings}


def test_all_is_well():
    assert named([look("a", [40, 30, 30]), look("b", [10, 20, 70], "val")], ROAD) == {}
    assert named([], ROAD) == {}


def test_never_seen_and_its_fix():
    given = {"classes": ["sky", "road", "car"], "palette": [[1, 1, 1], [2, 2, 2], [3, 3, 3]], "ignore_index": 9}
    finding = named([look("a", [40, 0, 60])], ROAD, given)["class-never-seen"]
    assert finding.numbers == {"classes": ["road"], "masks": 1}
    masks = {"classes": ["sky", "car"], "palette": [[1, 1, 1], [3, 3, 3]], "ignore_index": 9, "values": [0, 2]}
    assert finding.fix.masks == masks and finding.remedy.endswith("with the values of the others in dataset.toml.")
    finding = named([look("a", [40, 0, 60])], ROAD, given, has_mask_files=False)["class-never-seen"]
    assert finding.fix is None and finding.remedy.endswith("or take the name away where the classes are listed.")
    assert named([look("a", [40, 0, 60])], ROAD)["class-never-seen"].fix is None


def test_names_in_several_spellings():
    twice = Classes.of(["Car", "car ", "road"])
    finding = named([look("a", [40, 30, 30])], twice)["spellings"]
    assert finding.evidence == "Classes of their own are called 'Car' and 'car '." and finding.level == "warning"
    assert finding.numbers == {"classes": [["Car", "car "]]}


def test_absent_from_a_part():
    looks = [look("a", [40, 30, 30]), look("b", [50, 50, 0], "val")]
    finding = named(looks, ROAD)["class-absent-from-split"]
    assert finding.numbers == {"absent": {"val": ["car"]}} and finding.level == "warning"
    assert named(looks, ROAD, is_split=False)["class-absent-from-split"].level == "note"


def test_empty_masks():
    looks = [look("a", [50, 50]), look("b", [100, 0]), look("c", [0, 0], void=100)]
    finding = named(looks, CELLS)["empty-masks"]
    assert finding.keys == ("b", "c") and finding.fix.drop == ("c",) and finding.numbers["all_void"] == 1


def test_a_gap_in_numbers_that_nobody_named():
    guessed = Classes.of([f"class_{k}" for k in range(4)])
    finding = named([look("a", [40, 30, 0, 30])], guessed)["class-never-seen"]
    assert finding.fix.masks == {"classes": ["class_0", "class_1", "class_3"], "values": [0, 1, 3]}
    finding = named([look("a", [40, 30, 0, 20], void=10)], guessed)["class-never-seen"]
    assert finding.fix.masks["ignore_index"] == 255


def test_all_masks_are_empty():
    finding = named([look("a", [100, 0]), look("b", [0, 0], void=100)], CELLS)["empty-masks"]
    assert finding.level == "error" and finding.evidence.startswith("2 of 2 masks hold no object and no class but background")
    assert finding.fix.drop == ("b",)
    assert named([look("a", [0, 0], void=100)], CELLS)["empty-masks"].fix is None  # nothing would be left
    told = replace(look("a", [100, 0]), left_out={"outside the image": 1})  # by left_out.py
    assert named([told], CELLS) == {}


def test_tiny_foreground_tells_the_expected_pixels():
    finding = named([look("a", [9990, 10], shape=(100, 100))], CELLS)["tiny-foreground"]
    assert finding.numbers["expected_pixels"] == pytest.approx(0.001 * 8 * 100 * 100)
    assert "80 such pixels of 80,000" in finding.evidence
    objects = Classes.of(["cell"], is_thing=[True])
    assert "tiny-foreground" in named([look("a", [10], nothing=9990, shape=(100, 100))], objects)
    volume = named([look("a", [9990, 10], shape=(10, 10, 100))], CELLS)["tiny-foreground"]
    assert volume.numbers["crop"] == [10, 10, 100] and volume.numbers["crops"] == 2


def test_one_class_has_nearly_all():
    finding = named([look("a", [5, 9990, 5], shape=(100, 100))], ROAD)["dominant-class"]
    assert finding.numbers == {"class": "road", "share": 0.999}
    assert "dominant-class" not in named([look("a", [50, 9900, 50], shape=(100, 100))], CELLS_AND_MORE)


CELLS_AND_MORE = Classes.of(["cell", "background", "dirt"])

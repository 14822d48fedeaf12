from dataclasses import replace

import numpy as np
import pytest

from segwright.codecs.image_writer import write_values
from segwright.core.errors import FormatError, UsageError
from segwright.formats import dataset_file, open_dataset
from segwright.inspection.finding import Finding, Fix
from segwright.inspection.fixes import remedied, write_config
from segwright.inspection.inspect import InspectionReport, inspect


def findings(**fixes):
    return [Finding(name.replace("_", "-"), "error", "E.", "R.", {}, (), fix) for name, fix in fixes.items()]


def reported(root, **fixes):
    return InspectionReport(
        source="data",
        root=root,
        part_of=dict.fromkeys("abc", ""),
        count=3,
        looked_at=3,
        compared=3,
        dropped=0,
        parts={},
        sizes={},
        areas=(),
        findings=tuple(findings(**fixes)),
        dataset=None,
        measured=None,
    )


def test_by_hand(tmp_path):
    found = findings(
        unreadable=Fix(drop=("a", "b")),
        duplicates=Fix(drop=("b", "c")),
        tiles=Fix(groups=(("a", "d", "e"), ("f", "g"))),
        subject=Fix(groups=(("g", "h"),)),
        off_by_one=Fix(masks={"classes": ["x", "y"], "values": [1, [2, 3]], "ignore_index": None}),
        never_seen=Fix(masks={"classes": ["z"]}),
    )
    text, changes = remedied(None, found)
    assert changes == [
        "drop: 2 samples for unreadable",
        "drop: 1 sample for duplicates",
        "groups: 2 groups of samples that belong together for tiles, subject",
        "masks.classes: ['x', 'y'] for off-by-one",
        "masks.values: [1, [2, 3]] for off-by-one",
    ]
    (tmp_path / "dataset.toml").write_bytes(text)
    known = dataset_file.read(tmp_path)
    assert known.drop == ("a", "b", "c") and known.groups == (("d", "e"), ("f", "g", "h"))
    assert known.masks == {"classes": ["x", "y"], "values": [1, [2, 3]]}
    assert b'"a", # unreadable' in text and b'"c", # duplicates' in text and text.startswith(b"# What is known")
    assert remedied(text, found) == (text, [])  # once more changes nothing


@pytest.mark.parametrize(
    "before", ["", "nodata = -9999  # of the sensor\n", "nodata = [-9999]\n[masks]\nclasses = ['x', 'y']\n"]
)
def test_numbers_of_missing_values(tmp_path, before):
    text, changes = remedied(before.encode(), findings(undeclared_nodata=Fix(nodata=(-3.4028234663852886e38, 0))))
    assert changes == ["nodata: -3.4028234663852886e+38 for undeclared-nodata", "nodata: 0 for undeclared-nodata"]
    (tmp_path / "dataset.toml").write_bytes(text)
    assert dataset_file.read(tmp_path).nodata == (*([-9999] if before else []), -3.4028234663852886e38, 0)
    assert (dataset_file.read(tmp_path).masks is not None) == ("[masks]" in before)
    assert remedied(text, findings(undeclared_nodata=Fix(nodata=(0,)))) == (text, [])


def test_what_a_person_wrote_stays(tmp_path):
    mine = (
        '# mine\ndrop = ["k"]  # blurred\ngroups = [["a", "b"]] # one room\n\n'
        '[masks]\n# as in the paper\nclasses = ["x", "y"]\nignore_index = 7\npalette = [[1, 2, 3], [4, 5, 6]]\n'
    )
    masks = {"classes": ["x", "y"], "values": [1, 2], "ignore_index": 0}
    fixes = {"unreadable": Fix(drop=("a",)), "off_by_one": Fix(masks=masks), "tiles": Fix(groups=(("c", "d"),))}
    text, changes = remedied(mine.encode(), findings(**fixes))
    assert changes == [
        "drop: 1 sample for unreadable",
        "groups: 1 group of samples that belong together for tiles",
        "masks.palette: was [[1, 2, 3], [4, 5, 6]], is taken away for off-by-one",
        "masks.values: [1, 2] for off-by-one",
        "masks.ignore_index: was 7, is 0 for off-by-one",
    ]
    (tmp_path / "dataset.toml").write_bytes(text)
    for line in (b"# mine", b"# blurred", b"# one room", b"# as in the paper"):
        assert line in text
    known = dataset_file.read(tmp_path)
    assert known.drop == ("k", "a") and known.groups == (("a", "b"), ("c", "d")) and known.masks == masks


def test_lists_are_put_above_a_table_that_is_there(tmp_path):
    text, _ = remedied(b'[masks]\nclasses = ["x"]\n', findings(unreadable=Fix(drop=("a",))))
    (tmp_path / "dataset.toml").write_bytes(text)
    known = dataset_file.read(tmp_path)
    assert known.drop == ("a",) and known.masks == {"classes": ["x"]}


def test_axes_are_named_where_nobody_has(tmp_path):
    text, changes = remedied(b'[masks]\nclasses = ["x"]\n', findings(stack_without_axes=Fix(axes="ZCYX")))
    assert changes == ["axes: ZCYX for stack-without-axes"] and text.startswith(b'axes = "ZCYX" # stack-without-axes')
    (tmp_path / "dataset.toml").write_bytes(text)
    assert dataset_file.read(tmp_path).masks == {"classes": ["x"]}
    assert remedied(text, findings(again=Fix(axes="ZYX")))[1] == []


def test_nothing_to_write_writes_no_file(tmp_path):
    assert write_config(reported(tmp_path, dominant=None)) == (tmp_path / "dataset.toml", [], [])
    assert not (tmp_path / "dataset.toml").exists()


def break_masks(patient, first, last):
    for _, mask in patient.pairs()[first:last]:
        mask.write_bytes(b"no picture")


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (0, 38, "unreadable: its remedy would leave 0 of 38 samples, too few to learn from and measure on"),
        (0, 37, "unreadable: its remedy would leave 1 of 38 samples, too few to learn from and measure on"),
        (
            *(30, 38),
            "unreadable: its remedy would leave 30 of 38 samples, none of val, too few to learn from and measure on",
        ),
    ],
)
def test_too_few_samples_are_never_left(patient, first, last, said):
    break_masks(patient, first, last)
    path, changes, refused = write_config(inspect(patient.root))
    assert changes == [] and not path.exists() and [reason.partition(";")[0] for reason in refused] == [said]


def test_what_does_not_help_is_taken_back(patient):
    """Beside a wrong remedy the right one of another finding is written, and what was there stays."""
    mine = b"# mine\ndrop = []\n"
    (patient.root / "dataset.toml").write_bytes(mine)
    break_masks(patient, 5, 6)
    patient.put(8, image=patient.image(2))
    report = inspect(patient.root)
    wrong = {"unreadable": Fix(drop=("train__img_005",)), "duplicates": Fix(drop=("train__img_007",))}
    report = replace(report, findings=tuple(replace(found, fix=wrong[found.name]) for found in report.findings))
    path, changes, refused = write_config(report)
    assert changes == ["drop: 1 sample for unreadable"] and refused == ["duplicates: it would still be there after its remedy"]
    assert dataset_file.read(patient.root).drop == ("train__img_005",) and path.read_text().startswith("# mine")


def test_nothing_is_written_where_the_data_would_still_not_open(patient):
    mine = b"# mine\n"
    (patient.root / "dataset.toml").write_bytes(mine)
    for index in range(38):  # all masks differ in size, which has no remedy
        write_values(patient.pairs()[index][1], np.zeros((24, 32), np.uint8))
    patient.put(8, image=patient.image(2))
    path, changes, refused = write_config(inspect(patient.root))
    assert changes == [] and path.read_bytes() == mine and len(refused) == 2 and "would still not open" in refused[1]


def test_one_remedy_after_another(patient):
    """Numbers that have two diseases need two looks."""
    patient.name({"classes": ["road", "car"], "ignore_index": 0})
    patient.each_mask(lambda mask: np.array([0, 1, 255], np.uint8)[mask])
    path, changes, refused = write_config(inspect(patient.root))
    assert changes and not refused and patient.found() == {}
    data = open_dataset(patient.root)
    assert len([*data]) == 38 and data.classes.names == ("road", "car", "class_255")


def test_messages(tmp_path):
    with pytest.raises(UsageError, match="lies in no folder"):
        write_config(reported(None, unreadable=Fix(drop=("a",))))
    (tmp_path / "dataset.toml").write_text("drop = [")
    with pytest.raises(FormatError, match="cannot be read as TOML"):
        write_config(reported(tmp_path, unreadable=Fix(drop=("a",))))
    (tmp_path / "dataset.toml").write_text("drop = 3")
    with pytest.raises(FormatError, match="a list of keys is needed"):
        write_config(reported(tmp_path, unreadable=Fix(drop=("a",))))

import pytest

from segwright.core.errors import FormatError, UsageError
from segwright.formats import dataset_file
from segwright.inspection.finding import Finding, Fix
from segwright.inspection.fixes import write_config
from segwright.inspection.inspect import InspectionReport


def reported(root, **fixes):
    findings = tuple(Finding(name.replace("_", "-"), "error", "E.", "R.", {}, (), fix) for name, fix in fixes.items())
    return InspectionReport(
        source="data",
        root=root,
        count=1,
        looked_at=1,
        compared=1,
        dropped=0,
        parts={},
        sizes={},
        areas=(),
        findings=findings,
        dataset=None,
        measured=None,
    )


def test_by_hand(tmp_path):
    report = reported(
        tmp_path,
        unreadable=Fix(drop=("a", "b")),
        duplicates=Fix(drop=("b", "c")),
        tiles=Fix(groups=(("a", "d", "e"), ("f", "g"))),
        subject=Fix(groups=(("g", "h"),)),
        off_by_one=Fix(masks={"classes": ["x", "y"], "values": [1, 2], "ignore_index": None}),
        never_seen=Fix(masks={"classes": ["z"]}),
    )
    path, changes = write_config(report)
    assert changes == [
        "drop: 2 samples for unreadable",
        "drop: 1 sample for duplicates",
        "groups: 2 groups of samples that belong together for tiles, subject",
        "masks.classes: ['x', 'y'] for off-by-one",
        "masks.values: [1, 2] for off-by-one",
    ]
    known = dataset_file.read(tmp_path)
    assert known.drop == ("a", "b", "c") and known.groups == (("d", "e"), ("f", "g", "h"))
    assert known.masks == {"classes": ["x", "y"], "values": [1, 2]}
    text = path.read_text()
    assert '"a", # unreadable' in text and '"c", # duplicates' in text and text.startswith("# What is known")
    assert write_config(report)[1] == [] and path.read_text() == text  # once more changes nothing


@pytest.mark.parametrize(
    "before", ["", "nodata = -9999  # of the sensor\n", "nodata = [-9999]\n[masks]\nclasses = ['x', 'y']\n"]
)
def test_numbers_of_missing_values(tmp_path, before):
    (tmp_path / "dataset.toml").write_text(before)
    path, changes = write_config(reported(tmp_path, undeclared_nodata=Fix(nodata=(-3.4028234663852886e38, 0))))
    assert changes == ["nodata: -3.4028234663852886e+38 for undeclared-nodata", "nodata: 0 for undeclared-nodata"]
    assert dataset_file.read(tmp_path).nodata == (*([-9999] if before else []), -3.4028234663852886e38, 0)
    assert (dataset_file.read(tmp_path).masks is not None) == ("[masks]" in before)
    text = path.read_text()
    assert write_config(reported(tmp_path, undeclared_nodata=Fix(nodata=(0,))))[1] == [] and path.read_text() == text


def test_what_a_person_wrote_stays(tmp_path):
    mine = (
        '# mine\ndrop = ["k"]  # blurred\ngroups = [["a", "b"]] # one room\n\n'
        '[masks]\n# as in the paper\nclasses = ["x", "y"]\nignore_index = 7\npalette = [[1, 2, 3], [4, 5, 6]]\n'
    )
    (tmp_path / "dataset.toml").write_text(mine)
    masks = {"classes": ["x", "y"], "values": [1, 2], "ignore_index": 0}
    fixes = {"unreadable": Fix(drop=("a",)), "off_by_one": Fix(masks=masks), "tiles": Fix(groups=(("c", "d"),))}
    _, changes = write_config(reported(tmp_path, **fixes))
    assert changes == [
        "drop: 1 sample for unreadable",
        "groups: 1 group of samples that belong together for tiles",
        "masks.palette: was [[1, 2, 3], [4, 5, 6]], is taken away for off-by-one",
        "masks.values: [1, 2] for off-by-one",
        "masks.ignore_index: was 7, is 0 for off-by-one",
    ]
    text = (tmp_path / "dataset.toml").read_text()
    for line in ("# mine", "# blurred", "# one room", "# as in the paper"):
        assert line in text
    known = dataset_file.read(tmp_path)
    assert known.drop == ("k", "a") and known.groups == (("a", "b"), ("c", "d")) and known.masks == masks


def test_lists_are_put_above_a_table_that_is_there(tmp_path):
    (tmp_path / "dataset.toml").write_text('[masks]\nclasses = ["x"]\n')
    write_config(reported(tmp_path, unreadable=Fix(drop=("a",))))
    known = dataset_file.read(tmp_path)
    assert known.drop == ("a",) and known.masks == {"classes": ["x"]}


def test_axes_are_named_where_nobody_has(tmp_path):
    (tmp_path / "dataset.toml").write_text('[masks]\nclasses = ["x"]\n')
    report = reported(tmp_path, stack_without_axes=Fix(axes="ZCYX"))
    path, changes = write_config(report)
    assert changes == ["axes: ZCYX for stack-without-axes"] and path.read_text().startswith(
        'axes = "ZCYX" # stack-without-axes'
    )
    assert dataset_file.read(tmp_path).masks == {"classes": ["x"]}
    assert write_config(reported(tmp_path, again=Fix(axes="ZYX")))[1] == []


def test_nothing_to_write_writes_no_file(tmp_path):
    assert write_config(reported(tmp_path, dominant=None))[1] == [] and not (tmp_path / "dataset.toml").exists()


def test_messages(tmp_path):
    with pytest.raises(UsageError, match="lies in no folder"):
        write_config(reported(None, unreadable=Fix(drop=("a",))))
    (tmp_path / "dataset.toml").write_text("drop = [")
    with pytest.raises(FormatError, match="cannot be read as TOML"):
        write_config(reported(tmp_path, unreadable=Fix(drop=("a",))))
    (tmp_path / "dataset.toml").write_text("drop = 3")
    with pytest.raises(FormatError, match="a list of keys is needed"):
        write_config(reported(tmp_path, unreadable=Fix(drop=("a",))))

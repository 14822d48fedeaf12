import numpy as np
import pytest

from segwright.inspection.label_smoothing import about_smoothing
from segwright.inspection.sample_scan import MaskLook, SampleScan


def look(values, is_lossy=False):
    """A look at a mask where `values` cover areas and each tenth number between lies on borders."""
    between = [value for value in range(values[0] + 5, values[-1], 10) if value not in values]
    numbers = np.array(sorted([*values, *between]))
    is_class = np.isin(numbers, values)
    counts, inside = np.where(is_class, 500, 2), np.where(is_class, 450, 0)
    mask = MaskLook((8, 8), numbers, counts, counts, None, 1, inside, counts - inside, is_lossy=is_lossy)
    return SampleScan(
        key="a", part="", shape=(8, 8), channels=1, dtype="uint8", scale=1.0, step=None, thumb=np.zeros((32, 32)), digest=b"",
        borders=None, mask=mask,
    )  # fmt: skip


def test_unnamed():
    finding = about_smoothing([look([0, 255])], None)
    masks = {"classes": ["background", "foreground"], "values": [0, 255], "nearest": True}
    assert (finding.name, finding.level, finding.fix.masks) == ("smoothed-masks", "warning", masks)
    assert "only 0 and 255 cover areas; 25 lie between them" in finding.evidence
    assert about_smoothing([look([0, 255], is_lossy=True)], None).level == "note"
    assert about_smoothing([look([0, 100, 200])], None).fix.masks["classes"] == ["class_0", "class_100", "class_200"]
    assert about_smoothing([look([0, 128, 255])], None).level == "warning"
    assert about_smoothing([look([0, 100, 255])], None).level == "error"  # 255 may be void


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"classes": ["a", "b"]}, {"classes": ["a", "b"]}),
        ({"classes": ["a", "b"], "ignore_index": 255}, {"classes": ["a", "b"]}),
        ({"classes": ["a", "b"], "values": [0, 255]}, {"classes": ["a", "b"]}),
    ],
)
def test_named(given, expected):
    finding = about_smoothing([look([0, 255])], given)
    assert finding.level == "error" and finding.fix.masks == expected | {"values": [0, 255], "nearest": True}
    assert about_smoothing([look([0, 255], is_lossy=True)], given).level == "note"


def test_what_is_not_explained_by_smoothing():
    assert about_smoothing([look([0, 255])], {"classes": ["a", "b", "c"]}) is None
    assert about_smoothing([look([0, 255])], {"classes": ["a"], "values": [7]}) is None
    assert about_smoothing([look([0, 5])], None) is None and about_smoothing([], None) is None

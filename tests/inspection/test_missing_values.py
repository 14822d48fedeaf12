from dataclasses import replace

import numpy as np

from segwright.inspection.missing_values import about_missing
from segwright.inspection.sample_scan import SampleScan

LOOK = SampleScan("a", "", (10, 20), 1, "float32", 310.0, None, np.zeros((32, 32), np.float32), b"", None)


def test_what_is_declared_is_a_note_with_its_share():
    looks = [LOOK, replace(LOOK, key="b", missing=50), replace(LOOK, key="c", missing=200)]
    (note,) = about_missing(looks)
    assert (note.name, note.level, note.keys, note.fix) == ("missing-values", "note", ("b", "c"), None)
    assert note.evidence == (
        "In 2 of 3 images, 62.5 % of the pixels have no value: nodata, NaN or infinity. 1 of them holds none at all (c)."
    )
    assert note.numbers == {"images": 2, "share": 0.625, "without_any": 1}


def test_what_looks_undeclared_is_a_warning_with_the_most_frequent_first():
    looks = [LOOK, *(replace(LOOK, key=f"x{n}", undeclared=-9999.0) for n in range(3)), replace(LOOK, key="y", undeclared=1e20)]
    (warning,) = about_missing(looks)
    assert (warning.name, warning.level) == ("undeclared-nodata", "warning") and warning.fix.nodata == (-9999, 1e20)
    assert "-9999 and 1e+20 fills areas of 4 of 5 images (x0, x1, x2 and 1 more)" in warning.evidence
    assert "gdal_edit.py -a_nodata -9999 FILE.tif" in warning.remedy and "nodata = [-9999, 1e+20]" in warning.remedy


def test_where_all_is_there_nothing_is_said():
    assert about_missing([LOOK]) == [] and about_missing([]) == []

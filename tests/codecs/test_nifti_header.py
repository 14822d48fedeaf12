import struct

import numpy as np
import pytest

from segwright.codecs.nifti_header import nifti
from segwright.core.errors import FormatError


def row(codec, tag):
    return pytest.mark.row(codec, tag)


def nifti_bytes(**changes) -> bytes:
    """A NIfTI file of 2 x 3 x 4 int16 in which some header fields, (offset, struct format, values), are changed."""
    data = bytearray(352 + 48)
    fields = {
        "size": (0, "<i", 348), "dim": (40, "<8h", 3, 2, 3, 4, 1, 1, 1, 1), "type": (70, "<2h", 4, 16),
        "pixdim": (76, "<8f", 1, 1, 2, 3, 0, 0, 0, 0), "start": (108, "<3f", 352, 0, 0), "codes": (252, "<2h", 0, 0),
        "sform": (280, "<12f", 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0), "magic": (344, "<4s", b"n+1"),
    }  # fmt: skip
    for offset, form, *values in (fields | changes).values():
        struct.pack_into(form, data, offset, *values)
    return bytes(data)


# By hand


@row("NIfTI", "scl_slope, scl_inter")
def test_nifti(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(start=(108, "<3f", 352, 2.5, 1)))
    layout = nifti(tmp_path / "a.nii")
    assert layout.stored == (4, 3, 2) and layout.dtype == np.int16 and (layout.slope, layout.inter) == (2.5, 1)


def test_a_plain_header_lies_along_the_world(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti_bytes())
    steps, origin = nifti(tmp_path / "a.nii").place
    assert np.array_equal(steps, np.diag([1, 2, 3])) and not origin.any()


@row("NIfTI", "scl_slope 0, NaN or infinite")
@pytest.mark.parametrize("slope", [0.0, float("nan"), float("inf")])
def test_a_slope_that_is_none_scales_nothing(tmp_path, slope):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(start=(108, "<3f", 352, slope, 7)))
    assert not nifti(tmp_path / "a.nii").is_scaled


@row("NIfTI", "datatype 128, 2304, RGB and RGBA")
def test_colours_are_never_scaled_and_have_no_alpha(tmp_path):
    color = {"dim": (40, "<8h", 3, 2, 2, 3, 1, 1, 1, 1), "start": (108, "<3f", 352, 2, 7)}
    (tmp_path / "a.nii").write_bytes(nifti_bytes(**color, type=(70, "<2h", 2304, 32)))
    layout = nifti(tmp_path / "a.nii")
    assert layout.stored == (3, 2, 2, 4) and layout.has_alpha and not layout.is_scaled


@row("NIfTI", "xyzt_units")
@row("NIfTI", "qform_code, sform_code")
@pytest.mark.parametrize(("unit", "size"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (8 + 3, 0.001)])  # 8: seconds
def test_the_unit_of_length_is_heeded(tmp_path, unit, size):
    for codes in ((0, 0), (1, 0), (0, 1)):
        (tmp_path / "a.nii").write_bytes(nifti_bytes(unit=(123, "<B", unit), codes=(252, "<2h", *codes)))
        layout = nifti(tmp_path / "a.nii")
        assert layout.unit_mm == size and np.allclose(np.abs(layout.place[0]), np.diag([1, 2, 3]) * size)


@row("NIfTI", "cal_min, cal_max")
@row("NIfTI", "intent_code, others")
@pytest.mark.parametrize("display", [(124, "<2f", 5, 1), (68, "<h", 1002), (344, "<4s", b"n+1")])
def test_what_is_for_the_display_changes_nothing(tmp_path, display):
    """cal_max and cal_min, the intent "label", and the magic itself."""
    (tmp_path / "a.nii").write_bytes(nifti_bytes(changed=display))
    layout = nifti(tmp_path / "a.nii")
    assert not layout.is_scaled and layout.stored == (4, 3, 2)


@row("NIfTI", "dim, a fourth axis")
@row("NIfTI", "intent_code 1007, vector")
def test_further_axes(tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(dim=(40, "<8h", 4, 2, 3, 2, 2, 1, 1, 1)))
    assert nifti(tmp_path / "a.nii").stored == (2, 2, 3, 2)
    vector = {"dim": (40, "<8h", 5, 2, 3, 1, 1, 4, 1, 1), "intent": (68, "<h", 1007)}
    (tmp_path / "a.nii").write_bytes(nifti_bytes(**vector))
    layout = nifti(tmp_path / "a.nii")
    assert layout.stored == (4, 1, 1, 3, 2) and len(layout.place[1]) == 2  # an image of four components


# By its messages


@row("NIfTI", "datatype, others")
@row("NIfTI", "datatype 32, 1792, 2048, complex")
@row("NIfTI", "scl_inter NaN or infinite")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((40, "<8h", 9, 2, 3, 4, 1, 1, 1, 1), "9 axes"),
        ((40, "<8h", 3, 2, 0, 4, 1, 1, 1, 1), "1 pixel or more"),
        ((40, "<8h", 3, 200, 300, 400, 1, 1, 1, 1), "cut short"),
        ((40, "<8h", 5, 2, 3, 1, 2, 2, 1, 1), "one axis after x, y, z"),
        ((70, "<2h", 32, 64), "its datatype is 32, complex numbers; .* save their magnitude"),
        ((70, "<2h", 1536, 128), "its datatype is 1536"),
        ((70, "<2h", 4, 8), "with 8 bits"),
        ((76, "<8f", 1, 0, 2, 3, 0, 0, 0, 0), "0 x 2 x 3 mm, which is no size"),
        ((76, "<8f", 1, 1, float("nan"), 3, 0, 0, 0, 0), "which is no size"),
        ((108, "<3f", float("inf"), 0, 0), "its pixels start at byte inf"),
        ((108, "<3f", 352, 2, float("nan")), "its scl_slope is 2 and its scl_inter nan; .*correct the header"),
        ((344, "<4s", b"ni1"), "half of a .hdr/.img pair"),
        ((4, "<4s", b"n+2"), None),
        ((0, "<i", 540), "no NIfTI-1 file"),
    ],
)
def test_a_broken_nifti_is_told(tmp_path, change, message):
    (tmp_path / "a.nii").write_bytes(nifti_bytes(changed=change))
    if message is None:
        assert nifti(tmp_path / "a.nii")  # these bytes are nobody's in NIfTI-1
        return
    with pytest.raises(FormatError, match=message) as error:
        nifti(tmp_path / "a.nii")
    assert str(tmp_path) in str(error.value)


def test_a_nifti_whose_two_sizes_differ_is_told(tmp_path):
    sform = (280, "<12f", 1, 0, 0, 0, 0, 9, 0, 0, 0, 0, 3, 0)
    (tmp_path / "a.nii").write_bytes(nifti_bytes(codes=(252, "<2h", 0, 1), sform=sform))
    with pytest.raises(FormatError, match="1 x 2 x 3 mm by pixdim and 1 x 9 x 3 mm by its sform"):
        nifti(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(nifti_bytes(codes=(252, "<2h", 1, 1), sform=sform))
    assert nifti(tmp_path / "a.nii")  # there is a qform to turn to
    lost = (280, "<12f", float("nan"), 0, 0, 0, 0, 9, 0, 0, 0, 0, 3, 0)
    (tmp_path / "a.nii").write_bytes(nifti_bytes(codes=(252, "<2h", 1, 1), sform=lost))
    with pytest.raises(FormatError, match="its sform holds"):
        nifti(tmp_path / "a.nii")


def test_no_file_and_no_header(tmp_path):
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(FormatError, match="does not exist"):
            nifti(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(FormatError, match=name):
            nifti(tmp_path / name)

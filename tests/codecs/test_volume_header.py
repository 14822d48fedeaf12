import zlib

import numpy as np
import pytest

from segwright.codecs.volume_header import MAX_OF_SMALL, MAX_RATIO, meta, nrrd, suffix_of
from segwright.core.errors import FormatError

NRRD = """NRRD0004
# made by hand
type: short
dimension: 3
space: left-posterior-superior
sizes: 2 3 4
space directions: (1,0,0) (0,2,0) (0,0,3)
kinds: domain domain domain
endian: little
encoding: raw
space origin: (5,6,7)
note:=anything: at all

"""
META = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 0 1 0 1 0 0 0 0 1
Offset = 5 6 7
ElementSpacing = 1 2 3
DimSize = 2 3 4
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""


def row(codec, tag):
    return pytest.mark.row(codec, tag)


def put(path, text: str, size: int = 48):
    path.write_bytes(text.encode() + bytes(size))
    return path


# By hand


@row("NRRD", "endian, type, encoding")
def test_nrrd(tmp_path):
    layout = nrrd(put(tmp_path / "a.nrrd", NRRD))
    assert layout.stored == (4, 3, 2) and layout.dtype == np.int16 and layout.coding == "raw" and layout.start == len(NRRD)
    steps, origin = layout.place
    assert np.array_equal(steps, np.diag([1, 2, 3])) and origin.tolist() == [5, 6, 7]


@row("NRRD", "space")
@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("RAS", (-1, -1, 1)),
        ("right-anterior-superior", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("LPS", (1, 1, 1)),
    ],
)
def test_spaces_are_turned_to_lps(tmp_path, space, signs):
    steps, origin = nrrd(put(tmp_path / "a.nrrd", NRRD.replace("left-posterior-superior", space))).place
    assert np.array_equal(steps, np.diag([1, 2, 3]) * signs) and origin.tolist() == [5 * signs[0], 6 * signs[1], 7]


@row("MetaImage", "TransformMatrix, Offset, ElementSpacing")
def test_metaimage_names_its_axes_row_by_row(tmp_path):
    layout = meta(put(tmp_path / "a.mha", META.replace("0 1 0 1 0 0", "0 1 0 -1 0 0")))
    assert layout.stored == (4, 3, 2) and layout.dtype == np.int16 and layout.start == len(META) + 1
    assert np.array_equal(layout.place[0], [[0, -2, 0], [1, 0, 0], [0, 0, 3]])  # x runs along world y, y against world x


@row("NRRD", "space units, units")
@row("MetaImage", "DistanceUnits")
@pytest.mark.parametrize(("unit", "size"), [('"mm"', 1), ('"um"', 0.001), ('"µm"', 0.001), ('"m"', 1000), ('""', 1)])
def test_units_are_heeded(tmp_path, unit, size):
    said = f"endian: little\nspace units: {unit} {unit} {unit}"
    for layout in (
        nrrd(put(tmp_path / "a.nrrd", NRRD.replace("endian: little", said))),
        meta(put(tmp_path / "a.mha", META.replace("NDims = 3", "NDims = 3\nDistanceUnits = " + unit.strip('"')))),
    ):
        assert layout.unit_mm == size and np.allclose(layout.place[1], np.array([5, 6, 7]) * size)
        assert np.allclose(np.linalg.norm(layout.place[0], axis=0), np.array([1, 2, 3]) * size)


@row("NRRD", "old min, old max, sample units")
@row("NRRD", "centerings, measurement frame")
@row("MetaImage", "ElementMin, ElementMax")
@row("MetaImage", "AnatomicalOrientation")
def test_what_is_for_the_display_changes_nothing(tmp_path):
    said = 'endian: little\nold min: 0\nold max: 1\nsample units: "HU"\ncenterings: cell cell cell\nmeasurement frame: (1,0,0)'
    layout = nrrd(put(tmp_path / "a.nrrd", NRRD.replace("endian: little", said)))
    assert not layout.is_scaled and np.array_equal(layout.place[0], np.diag([1, 2, 3]))
    shown = "NDims = 3\nElementMin = 0\nElementMax = 1\nAnatomicalOrientation = LPI\nElementToIntensityFunctionSlope = 1"
    assert not meta(put(tmp_path / "a.mha", META.replace("NDims = 3", shown))).is_scaled


@row("MetaImage", "ElementNumberOfChannels")
@row("MetaImage", "ElementByteOrderMSB, CompressedData")
def test_channels_and_bytes_of_a_metaimage(tmp_path):
    said = "NDims = 3\nElementNumberOfChannels = 2\nElementByteOrderMSB = True"
    layout = meta(put(tmp_path / "a.mha", META.replace("NDims = 3", said), 96))
    assert layout.stored == (4, 3, 2, 2) and layout.channel_axis == 3 and layout.dtype == np.dtype(">i2")
    assert meta(put(tmp_path / "a.mha", META.replace("CompressedData = False", "CompressedData = True"))).coding == "zlib"


@row("NRRD", "kinds, RGBA-color")
@row("NRRD", "kinds, directions none")
def test_alpha_is_named_by_its_kind(tmp_path):
    colors = NRRD.replace("sizes: 2 3 4", "sizes: 4 3 2").replace("kinds: domain", "kinds: RGBA-color")
    layout = nrrd(
        put(tmp_path / "a.nrrd", colors.replace("(1,0,0) (0,2,0) (0,0,3)", "none (1,0) (0,2)").replace("5,6,7", "5,6"))
    )
    assert layout.has_alpha and layout.channel_axis == 2


@row("NRRD", "SegmentN_Name, _LabelValue, _Layer")
def test_notes_are_read_in_either_coding(tmp_path):
    text = NRRD.replace("note:=", "Segment0_Name:=Größe \\\\ a\\nb\nnote:=")
    for coding in ("utf-8", "latin-1"):
        (tmp_path / "a.nrrd").write_bytes(text.encode(coding) + bytes(48))
        assert nrrd(tmp_path / "a.nrrd").notes == {"Segment0_Name": "Größe \\ a b", "note": "anything: at all"}


def test_suffixes(tmp_path):
    names = {"a.nii.gz": ".nii.gz", "A.NII": ".nii", "a.b.mha": ".mha", "a.gz": "", "nii": ""}
    assert {name: suffix_of(tmp_path / name) for name in names} == names


# By its messages


@row("NRRD", "kinds, complex, HSV, XYZ, quaternion")
@row("NRRD", "space units, units, others")
@row("NRRD", "axis mins without spacings")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NRRD0004", "NRRD", "does not begin like an NRRD file"),
        ("type: short", "type: block", "NRRD type 'block'"),
        ("dimension: 3", "dimension: 5", "dimension 5 and sizes"),
        ("sizes: 2 3 4", "sizes: 2 3 many", "whole numbers are needed"),
        ("sizes: 2 3 4", "sizes: 2 3 0", "are named in its header"),
        ("sizes: 2 3 4", "sizes: 2 3 5", "cut short"),
        ("encoding: raw", "encoding: bzip2", "its encoding is 'bzip2'"),
        ("encoding: raw", "encoding: raw\nbyte skip: 7", "bytes or lines to skip"),
        ("encoding: raw", "encoding: gzip", None),
        ("(0,2,0)", "(0,0,0)", "which is no size"),
        ("(0,2,0)", "(0,nan,0)", "finite numbers are needed"),
        ("(0,2,0)", "(1,0,0)", "point the same way"),
        ("(0,2,0)", "none", "directions in space"),
        ("(0,2,0) ", "", "are no image"),
        ("kinds: domain", "kinds: complex", "of kind complex; this is not read: save plain numbers"),
        (
            "endian: little",
            'endian: little\nspace units: "mm" "mm" "um"',
            "space units are .*one unit of length for all",
        ),
        (
            "endian: little",
            'endian: little\nspace units: "ell" "ell" "ell"',
            "space units are .*one unit of length for all",
        ),
        (
            "space directions: (1,0,0) (0,2,0) (0,0,3)",
            "axis mins: 0 0 0",
            "its axis mins are 0 0 0; .*write spacings",
        ),
        ("(5,6,7)", "(5,6)", "does not fit its directions"),
        ("endian: little", "endian: little\nendian: big", "twice"),
        ("endian: little", "data file: ../secret.raw", "no plain file name"),
        ("endian: little", "data file: /etc/passwd", "no plain file name"),
        ("endian: little", "data file: LIST", "no plain file name"),
        ("endian: little", "data file: slice%03d.raw 1 9 1", "no plain file name"),
        ("endian: little", "data file: missing.raw", "cannot be read"),
        ("# made", "\0 made", "binary where text is needed"),
    ],
)
def test_a_broken_nrrd_is_told(tmp_path, old, new, message):
    path = put(tmp_path / "a.nrrd", NRRD.replace(old, new))
    if message is None:
        assert nrrd(path).coding == "gzip"
        return
    with pytest.raises(FormatError, match=message) as error:
        nrrd(path)
    assert str(tmp_path) in str(error.value)


@row("MetaImage", "ElementToIntensityFunctionSlope, Offset")
@row("MetaImage", "DistanceUnits, others")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NDims = 3", "NDims = 30", "30 axes and sizes"),
        ("MET_SHORT", "MET_STRING", "no MetaImage with integers or floats"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 2", "3 numbers are needed"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 0 3", "which is no size"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 nan 3", "finite numbers are needed"),
        ("Offset = 5 6 7", "Offset = 5 6 1e300", "finite numbers are needed"),
        ("0 1 0 1 0 0 0 0 1", "0 1 0 0 1 0 0 0 1", "point the same way"),
        ("DimSize = 2 3 4", "DimSize = 2 3 -4", "are named in its header"),
        ("DimSize = 2 3 4", "DimSize = 2 30000 40000", "cut short"),
        ("NDims = 3", "NDims = 3\nNDims = 3", "there twice"),
        ("NDims = 3", "NDims = 3\nHeaderSize = 12", "HeaderSize 12"),
        ("NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 2", "FunctionSlope is 2; .*scale, write 1 and 0"),
        ("NDims = 3", "NDims = 3\nElementToIntensityFunctionOffset = -9", "FunctionOffset is -9; .*scale, write 1 and 0"),
        ("NDims = 3", "NDims = 3\nDistanceUnits = ell", "DistanceUnits are ell; .*write mm, um or cm there"),
        ("LOCAL", "../up.raw", "no plain file name"),
        ("LOCAL", "LIST", "no plain file name"),
        ("ElementDataFile = LOCAL", "", "no line of a MetaImage header"),
    ],
)
def test_a_broken_metaimage_is_told(tmp_path, old, new, message):
    with pytest.raises(FormatError, match=message) as error:
        meta(put(tmp_path / "a.mha", META.replace(old, new)))
    assert str(tmp_path) in str(error.value)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    packed = zlib.compress(bytes(1000))
    for count, message in ((2**14, "more than"), (2, None)):
        text = META.replace("DimSize = 2 3 4", f"DimSize = {count} {count} 4").replace(
            "CompressedData = False", "CompressedData = True"
        )
        (tmp_path / "a.mha").write_bytes(text.encode() + packed)
        if message:
            with pytest.raises(FormatError, match=message):
                meta(tmp_path / "a.mha")
        else:
            assert meta(tmp_path / "a.mha").coding == "zlib"
    side = MAX_OF_SMALL // 2 + 1
    text = META.replace("DimSize = 2 3 4", f"DimSize = {side // 2**10 + 1} 1024 1").replace(
        "CompressedData = False", "CompressedData = True"
    )
    (tmp_path / "a.mha").write_bytes(text.encode() + bytes(side * 2 // MAX_RATIO + 2**12))
    with pytest.raises(FormatError, match="could fill the memory; if you trust it, save it uncompressed"):
        meta(tmp_path / "a.mha")


def test_no_file_and_no_header(tmp_path):
    for read, name in ((nrrd, "a.nrrd"), (meta, "a.mha")):
        with pytest.raises(FormatError, match="does not exist"):
            read(tmp_path / name)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(FormatError, match=name):
            read(tmp_path / name)

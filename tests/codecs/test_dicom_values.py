"""What the tags of a DICOM slice make of its numbers; each test that is marked is the proof of a row of tag_table.py."""

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from segwright.codecs.dicom_values import reason, slice_values, unpacked
from segwright.core.errors import FormatError

pydicom = pytest.importorskip("pydicom", reason="DICOM needs segwright[medical]")

from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian  # noqa: E402

STORED = np.array([[0, 1, 100], [7, 4094, 4095]], np.uint16)
BITS_12 = {"BitsStored": 12, "HighBit": 11}
COLORS = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def row(codec, tag):
    return pytest.mark.row(codec, tag)


def write_slice(path, pixels, *, syntax=ExplicitVRLittleEndian, **changes):
    """A slice of pixels (H, W) or (H, W, 3) and what its values need; `changes` add or change tags, or drop them by None."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = (
        1,
        "MONOCHROME2",
        int(pixels.dtype.kind == "i"),
    )
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelData = pixels.tobytes()
    for name, value in changes.items():
        delattr(data, name) if value is None else setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)


def values_of(tmp_path, pixels, **changes):
    """The values (C, H, W) of a slice."""
    write_slice(tmp_path / "a.dcm", pixels, **changes)
    found = slice_values(tmp_path / "a.dcm", pixels.shape[:2])
    return found.shown((found.low, found.high))


def item(**values):
    data = pydicom.Dataset()
    for name, value in values.items():
        setattr(data, name, value)
    return data


@row("DICOM", "(0028,0004) MONOCHROME2")
@row("DICOM", "(0028,0004) MONOCHROME1")
@row("DICOM", "(2050,0020) INVERSE")
def test_bright_is_high(tmp_path):
    assert np.array_equal(values_of(tmp_path, STORED, **BITS_12)[0], STORED)
    for turned in ({"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}):
        assert np.array_equal(values_of(tmp_path, STORED, **BITS_12, **turned)[0], 4095 - STORED)
        both = turned | {"PresentationLUTShape": "INVERSE"}
        assert np.array_equal(values_of(tmp_path, STORED, **BITS_12, **both)[0], 4095 - STORED)
        signed = values_of(tmp_path, np.array([[-2048, 0, 2047]], np.int16), **BITS_12, **turned)
        assert signed.tolist() == [[[2047, -1, -2048]]]
        scaled = values_of(tmp_path, STORED, **BITS_12, **turned, RescaleSlope=2, RescaleIntercept=-1024)
        assert np.array_equal(scaled[0], 2 * (4095 - STORED.astype(int)) - 1024)
        halves = values_of(tmp_path, STORED, **BITS_12, **turned, RescaleSlope=0.5, RescaleIntercept=0)
        assert halves.dtype == np.float32 and np.array_equal(halves[0], (4095 - STORED) / 2)


@row("DICOM", "MONOCHROME1 of floats")
def test_floats_have_no_white(tmp_path):
    floats = {"FloatPixelData": np.float32([[1, 2, 3]]).tobytes(), "PixelData": None, "BitsAllocated": 32}
    pixels = np.zeros((1, 3), np.uint16)
    with pytest.raises(FormatError, match="it is MONOCHROME1 and its values are float32; .*: save it as MONOCHROME2"):
        values_of(tmp_path, pixels, **floats, PhotometricInterpretation="MONOCHROME1")
    assert values_of(tmp_path, pixels, **floats).tolist() == [[[1, 2, 3]]]


@row("DICOM", "(0028,0004) RGB")
@row("DICOM", "(0028,0006) planar configuration")
def test_colours(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    plain = {"PhotometricInterpretation": "RGB"} | COLORS
    assert np.array_equal(values_of(tmp_path, rgb, **plain), rgb.transpose(2, 0, 1))
    planes = plain | {"PlanarConfiguration": 1, "PixelData": rgb.transpose(2, 0, 1).tobytes()}
    assert np.array_equal(values_of(tmp_path, rgb, **planes), rgb.transpose(2, 0, 1))


@row("DICOM", "(0028,0004) YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT")
def test_brightness_and_differences_of_colours(tmp_path):
    rgb = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    ycbcr = np.array(Image.fromarray(rgb).convert("YCbCr"))
    half = np.stack([ycbcr[:, ::2, 0], ycbcr[:, 1::2, 0], ycbcr[:, ::2, 1], ycbcr[:, ::2, 2]], axis=-1)  # Y Y Cb Cr
    j2k = {"level": 0, "codecformat": "j2k", "mct": True}
    packed = {
        "1.2.840.10008.1.2.4.50": imagecodecs.jpeg_encode(rgb, level=95),
        "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode(ycbcr),
        "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_encode(rgb, **j2k),
        "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_encode(rgb, **j2k, reversible=True),
    }
    cases = [("YBR_FULL", ycbcr.tobytes(), ExplicitVRLittleEndian), ("YBR_FULL_422", half.tobytes(), ExplicitVRLittleEndian)]
    for kind, syntax in zip(("YBR_FULL_422", "YBR_FULL", "YBR_ICT", "YBR_RCT"), packed, strict=True):
        cases.append((kind, encapsulate([packed[syntax]]), syntax))
    for kind, data, syntax in cases:
        values = values_of(tmp_path, rgb, **COLORS, PhotometricInterpretation=kind, PixelData=data, syntax=syntax)
        assert np.abs(values.astype(int) - rgb.transpose(2, 0, 1)).max() <= 4, (kind, syntax)


@row("DICOM", "(0028,0004) PALETTE COLOR")
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette(tmp_path, bits):
    table = np.arange(256) * (1 if bits == 8 else 257)
    changes = {"PhotometricInterpretation": "PALETTE COLOR", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    for index, name in enumerate(("Red", "Green", "Blue")):
        changes[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        entries = ((table + index * (1 if bits == 8 else 257)) % 2**bits).astype(f"<u{bits // 8}")
        changes[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    values = values_of(tmp_path, np.array([[0, 7, 250, 9]], np.uint8), **changes)
    assert values.dtype == np.uint8 and values[:, 0].T.tolist() == [[0, 1, 2], [7, 8, 9], [250, 251, 252], [9, 10, 11]]


@row("DICOM", "(0028,0004), others")
@pytest.mark.parametrize("kind", ["YBR_PARTIAL_420", "HSV", "CMYK", "XYB"])
def test_other_interpretations(tmp_path, kind):
    with pytest.raises(
        FormatError, match=rf"PhotometricInterpretation .0028,0004. is '{kind}'; .*: save it as RGB or MONOCHROME2"
    ):
        values_of(tmp_path, STORED, PhotometricInterpretation=kind)
    assert values_of(tmp_path, STORED).shape == (1, 2, 3)


@row("DICOM", "(0028,0101) bits stored, (0028,0102) high bit")
@row("DICOM", "(0028,0103) pixel representation")
@row("DICOM", "(60xx,xxxx) overlays")
def test_bits_that_are_no_part_of_the_value(tmp_path):
    drawn = STORED | np.uint16(0xA000)  # an overlay in the bits above, as files had it once
    assert np.array_equal(values_of(tmp_path, drawn, **BITS_12)[0], STORED)
    signed = values_of(tmp_path, drawn, **BITS_12, PixelRepresentation=1)
    assert np.array_equal(signed[0], np.where(STORED > 2047, STORED.astype(int) - 4096, STORED))
    high = (STORED << 4) | np.uint16(5)
    assert np.array_equal(values_of(tmp_path, high, BitsStored=12, HighBit=15)[0], STORED)
    high = (STORED << 2) | np.uint16(0x8003)
    assert np.array_equal(values_of(tmp_path, high, BitsStored=12, HighBit=13)[0], STORED)


@row("DICOM", "(0028,0120), (0028,0121) pixel padding")
def test_padding_is_missing(tmp_path):
    values = values_of(tmp_path, STORED, PixelPaddingValue=7, RescaleSlope=2, RescaleIntercept=-1)
    assert values.dtype == np.float32
    assert np.array_equal(values[0], [[-1, 1, 199], [np.nan, 8187, 8189]], equal_nan=True)
    ranged = values_of(tmp_path, STORED, PixelPaddingValue=100, PixelPaddingRangeLimit=1)
    assert np.isnan(ranged[0]).tolist() == [[False, True, True], [True, False, False]]
    assert values_of(tmp_path, STORED, PixelPaddingValue=3000).dtype == np.uint16  # which no pixel has
    hounsfield = np.array([[-2000, 5]], np.int16)
    assert np.isnan(values_of(tmp_path, hounsfield, PixelPaddingValue=-2000)).tolist() == [[[True, False]]]
    turned = values_of(tmp_path, STORED, **BITS_12, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(turned[0, 0], [np.nan, 4094, 3995], equal_nan=True)


@row("DICOM", "(0028,1053), (0028,1052) slope and intercept")
def test_slope_and_intercept(tmp_path):
    values = values_of(tmp_path, STORED, RescaleSlope=1, RescaleIntercept=-1024)
    assert values.dtype == np.int32 and np.array_equal(values[0], STORED.astype(int) - 1024)  # 16 bits may hold 65535
    assert values_of(tmp_path, STORED, **BITS_12, RescaleIntercept=-1024).dtype == np.int16


@row("DICOM", "(0028,3000) modality LUT")
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_table_of_values(tmp_path, bits):
    entries = np.array([5, 40, 30, 250], f"<u{1 if bits == 8 else 2}")
    table = item(LUTDescriptor=[4, 1, bits], LUTData=entries.tobytes(), ModalityLUTType="US")
    table["LUTData"].VR = "OW"
    pixels = np.array([[0, 1, 2], [3, 4, 900]], np.uint16)
    expected = np.array([[5, 5, 40], [30, 250, 250]])  # what lies outside has the value of the end
    assert np.array_equal(values_of(tmp_path, pixels, ModalityLUTSequence=[table])[0], expected)
    turned = values_of(tmp_path, pixels, ModalityLUTSequence=[table], PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(turned[0], 255 - expected)  # between 5 and 250
    table.LUTDescriptor = [40, 0, bits]
    with pytest.raises(FormatError, match="its modality LUT has . of 40 entries"):
        values_of(tmp_path, pixels, ModalityLUTSequence=[table])


@row("DICOM", "(0040,9096) real world values, alone")
@row("DICOM", "(0040,9096) real world values, beside a slope")
@row("DICOM", "(0040,9096) real world values, others")
def test_real_world_values(tmp_path):
    line = item(RealWorldValueSlope=0.5, RealWorldValueIntercept=2.0, RealWorldValueFirstValueMapped=0)
    assert np.array_equal(values_of(tmp_path, STORED, RealWorldValueMappingSequence=[line])[0], STORED / 2 + 2)
    both = values_of(tmp_path, STORED, RealWorldValueMappingSequence=[line, line], RescaleSlope=1, RescaleIntercept=0)
    assert np.array_equal(both[0], STORED)
    for mappings in ([line, line], [item(RealWorldValueLUTData=[1.0, 2.0])]):
        with pytest.raises(FormatError, match=r"real world value mappings \(0040,9096\).*: rewrite it with rescale slope"):
            values_of(tmp_path, STORED, RealWorldValueMappingSequence=mappings)


@row("DICOM", "(0028,1050), (0028,1051), (0028,3010) window and VOI LUT")
def test_what_only_concerns_the_display_changes_no_value(tmp_path):
    table = item(LUTDescriptor=[2, 0, 8], LUTData=bytes([0, 255, 0, 0]))
    values = values_of(tmp_path, STORED, WindowCenter=40, WindowWidth=80, VOILUTSequence=[table])
    assert np.array_equal(values[0], STORED)


def test_padding_that_is_written_as_if_it_had_no_sign(tmp_path):
    write_slice(tmp_path / "a", np.array([[-2000, 5]], np.int16), PixelPaddingValue=-2000)
    content = (tmp_path / "a").read_bytes()
    signed = b"\x28\x00\x20\x01SS\x02\x00"
    assert signed in content
    (tmp_path / "a").write_bytes(content.replace(signed, signed.replace(b"SS", b"US")))  # 63536
    assert slice_values(tmp_path / "a", (1, 2)).missing.tolist() == [[[True, False]]]


@pytest.mark.parametrize("bits", [12, 16])
def test_packed_pixels_with_a_sign(tmp_path, bits):
    values = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 6)).astype(np.int16)
    packed = imagecodecs.jpegls_encode(values.view(np.uint16) & np.uint16(2**bits - 1))
    write_slice(tmp_path / "a", values, BitsStored=bits, HighBit=bits - 1)
    data = pydicom.dcmread(tmp_path / "a")
    data.PixelData = encapsulate([packed])
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
    assert np.array_equal(unpacked(data), values)


def test_the_reason_is_one_line():
    assert reason(ValueError("one\ntwo")) == "one" and reason(KeyError()) == "KeyError"

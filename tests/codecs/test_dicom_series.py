import random
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from segwright.codecs.dicom_series import find_series, in_order, is_dicom, read_series, unpacked
from segwright.core.errors import FormatError, MissingExtraError

pydicom = pytest.importorskip("pydicom", reason="DICOM needs segwright[medical]")

from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid  # noqa: E402

UID = generate_uid()
AXES = {"plain": np.eye(3), "oblique": np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]}
AXES["coronal"] = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


def write_slice(path: Path, pixels: np.ndarray, position, directions=AXES["plain"], **changes) -> None:
    """One CT image uint16 or int16 (H, W); `directions` has the row direction and the column direction as its first rows."""
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID, data.SeriesNumber, data.Modality = UID, UID, 4, "CT"
    data.Rows, data.Columns, data.PixelSpacing, data.SliceThickness = *pixels.shape[:2], [0.7, 0.5], 9
    data.ImagePositionPatient = [f"{number:.8g}" for number in position]
    data.ImageOrientationPatient = [f"{number:.8g}" for number in np.asarray(directions)[:2].ravel()]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = (
        1,
        "MONOCHROME2",
        int(pixels.dtype.kind == "i"),
    )
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    data.file_meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def write_series(folder: Path, directions=AXES["plain"], *, count: int = 5, step: float = 2.5, **changes) -> np.ndarray:
    """A series in files whose names are in no order; returns its values (D, H, W) along the normal."""
    values = np.random.default_rng(1).integers(0, 4000, (count, 4, 6)).astype(np.uint16)
    normal = np.cross(directions[0], directions[1])
    names = random.Random(2).sample(range(1000), count)
    for index in range(count):
        write_slice(folder / f"IM{names[index]}", values[index], [10, -20, 30] + normal * step * index, directions, **changes)
    return values


def read(folder: Path):
    [slices] = find_series(folder)[0].values()
    return read_series(in_order(slices))


# By hand


def test_slices_are_put_in_order_and_in_the_world(tmp_path):
    values = write_series(tmp_path / "ct")
    (tmp_path / "ct" / "README.txt").write_text("no image")
    array, grid = read(tmp_path)
    assert np.array_equal(array[0], values) and array.dtype == np.uint16
    assert grid.shape == (5, 4, 6) and grid.spacing_mm == pytest.approx((2.5, 0.7, 0.5))
    assert np.allclose(grid.affine @ [1, 2, 3, 1], [10 + 3 * 0.5, -20 + 2 * 0.7, 30 + 2.5, 1])


@pytest.mark.parametrize(
    ("change", "dtype", "value"),
    [
        ({}, np.uint16, 3),
        ({"RescaleSlope": 1, "RescaleIntercept": 0}, np.uint16, 3),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, np.int32, -1021),
        ({"RescaleSlope": 1, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}, np.int16, -1021),
        ({"RescaleSlope": 0.5, "RescaleIntercept": 1}, np.float32, 2.5),
    ],
)
def test_values_are_rescaled(tmp_path, change, dtype, value):
    write_slice(tmp_path / "a", np.full((2, 3), 3, np.uint16), (0, 0, 0), **change)
    array, grid = read(tmp_path)
    assert array.dtype == dtype and (array == value).all() and grid.spacing_mm == (9, 0.7, 0.5)


def test_an_image_without_position_is_flat(tmp_path):
    write_slice(tmp_path / "a", np.ones((2, 3), np.uint16), (0, 0, 0), ImagePositionPatient=None, ImageOrientationPatient=None)
    [slices] = find_series(tmp_path)[0].values()
    array, grid = read_series(slices)
    assert array.shape == (1, 2, 3) and grid.spacing_mm == (0.7, 0.5) and grid.affine is None


def test_colours_are_channels(tmp_path):
    rgb = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    change = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    change |= {"BitsStored": 8, "HighBit": 7, "PixelData": rgb.tobytes()}
    write_slice(tmp_path / "a", np.zeros((2, 3), np.uint16), (0, 0, 0), **change)
    assert np.array_equal(read(tmp_path)[0][:, 0], np.moveaxis(rgb, -1, 0))


# By a slow twin


@pytest.mark.parametrize("name", AXES)
def test_equals_simple_itk(tmp_path, name):
    itk = pytest.importorskip("SimpleITK")
    write_series(tmp_path, AXES[name], RescaleSlope=1, RescaleIntercept=-5)
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    array, grid = read(tmp_path)
    assert np.array_equal(array[0], itk.GetArrayFromImage(image))
    for index in ((0, 0, 0), (4, 3, 5), (1, 2, 3)):
        assert np.allclose((grid.affine @ [*index, 1])[:3], image.TransformIndexToPhysicalPoint(index[::-1]), atol=1e-5)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (".4.90", lambda values: imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", reversible=True)),
        (".4.80", imagecodecs.jpegls_encode),
        (".4.70", lambda values: imagecodecs.ljpeg_encode(values, bitspersample=16)),
        (".5", None),
    ],
)
def test_packed_pixels(tmp_path, syntax, encode):
    values = write_series(tmp_path, RescaleSlope=2, RescaleIntercept=-5)
    for file in tmp_path.iterdir():
        data = pydicom.dcmread(file)
        if encode is None:
            data.compress(RLELossless)
        else:
            data.PixelData = encapsulate([encode(data.pixel_array)])
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" + syntax
        data.save_as(file)
    assert np.array_equal(read(tmp_path)[0][0], values.astype(np.int32) * 2 - 5)


@pytest.mark.parametrize("bits", [12, 16])
def test_packed_pixels_with_a_sign(tmp_path, bits):
    values = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, 6)).astype(np.int16)
    packed = imagecodecs.jpegls_encode(values.view(np.uint16) & np.uint16(2**bits - 1))
    write_slice(tmp_path / "a", values, (0, 0, 0), BitsStored=bits, HighBit=bits - 1)
    data = pydicom.dcmread(tmp_path / "a")
    data.PixelData = encapsulate([packed])
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"
    assert np.array_equal(unpacked(data), values)


# What the tags make of the numbers; each test that is marked is the proof of a row of tag_table.py


STORED = np.array([[0, 1, 100], [7, 4094, 4095]], np.uint16)
BITS_12 = {"BitsStored": 12, "HighBit": 11}
COLORS = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def row(codec, tag):
    return pytest.mark.row(codec, tag)


def values_of(tmp_path, pixels, **changes):
    """The values (C, 1, H, W) of one slice that is alone, without the axis of depth."""
    write_slice(tmp_path / "one" / "a.dcm", pixels, (0, 0, 0), **changes)
    return read(tmp_path / "one")[0][:, 0]


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


def test_slices_of_a_series_that_differ_are_alike_to_the_eye(tmp_path):
    write_slice(tmp_path / "a", STORED, (0, 0, 0), **BITS_12)
    write_slice(tmp_path / "b", 4095 - STORED, (0, 0, 2), **BITS_12, PhotometricInterpretation="MONOCHROME1")
    values = read(tmp_path)[0][0]
    assert np.array_equal(values[0], STORED) and np.array_equal(values[1], STORED)
    write_slice(tmp_path / "b", 4095 - STORED, (0, 0, 2), **BITS_12, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2)
    values = read(tmp_path)[0][0]  # turned within 0..8190, which is what both may hold
    assert np.array_equal(values[1], 8190 - 2 * (4095 - STORED.astype(int)))


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
        write_slice(tmp_path / "a", rgb, (0, 0, 0), **COLORS, PhotometricInterpretation=kind, PixelData=data, syntax=syntax)
        [[values]] = [read(tmp_path)[0].transpose(1, 0, 2, 3)]
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
    write_slice(tmp_path / "one" / "b.dcm", STORED[:, :2], (0, 0, 2))
    write_slice(tmp_path / "one" / "a.dcm", hounsfield.repeat(2, axis=0), (0, 0, 0), PixelPaddingValue=-2000)
    assert np.isnan(read(tmp_path / "one")[0]).sum() == 2  # the other slice has none


def test_padding_that_is_written_as_if_it_had_no_sign(tmp_path):
    write_slice(tmp_path / "a", np.array([[-2000, 5]], np.int16), (0, 0, 0), PixelPaddingValue=-2000)
    content = (tmp_path / "a").read_bytes()
    signed = b"\x28\x00\x20\x01SS\x02\x00"
    assert signed in content
    (tmp_path / "a").write_bytes(content.replace(signed, signed.replace(b"SS", b"US")))  # 63536
    assert np.isnan(read(tmp_path)[0]).tolist() == [[[[True, False]]]]


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


@row("DICOM", "(0028,0008) frames")
def test_frames(tmp_path):
    with pytest.raises(FormatError, match="it holds 3 frames; .*: single images are read: split it"):
        values_of(tmp_path, STORED, NumberOfFrames=3)
    assert values_of(tmp_path, STORED, NumberOfFrames=1).shape == (1, 2, 3)


# By its messages


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"position": (10, -20, 30 + 2.5)}, "lie at one place .*give each time point, echo or copy a folder of its own"),
        ({"position": (10, -20, 30 + 6 * 2.5)}, "its slices are 2.5 mm apart, but .* 5 mm .*add the missing slices"),
        ({"position": (10, -20, 30 + 5.5 * 2.5)}, "its slices are 2.5 mm apart"),
        ({"position": (12, -20, 30 + 5 * 2.5)}, "its slices are 2.5 mm apart"),
        ({"directions": AXES["coronal"]}, "is mixed: .*different directions"),
        ({"PixelSpacing": [0.7, 0.6]}, "is mixed: .*pixels of"),
        ({"pixels": np.zeros((4, 7), np.uint16)}, r"is mixed: .*\(4, 6\) and \(4, 7\)|\(4, 7\) and \(4, 6\)"),
        ({"ImagePositionPatient": None}, "is mixed|says nothing of its position"),
    ],
)
def test_series_that_fit_no_grid_are_told(tmp_path, extra, message):
    write_series(tmp_path)
    given = {"pixels": np.zeros((4, 6), np.uint16), "position": (10, -20, 30 + 5 * 2.5)} | extra
    write_slice(tmp_path / "last", **given)
    with pytest.raises(FormatError, match=message) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"NumberOfFrames": 3}, "holds 3 frames"),
        ({"PixelSpacing": [0, 1]}, "copy it again"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "which is no direction"),
        ({"PixelData": bytes(10)}, "is damaged DICOM"),
        ({"RescaleSlope": "nan"}, "damaged DICOM|rescaled by nan"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "is damaged DICOM"),  # there is no table
        ({"PixelData": None}, "is damaged DICOM"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_slices_that_are_not_read_are_told(tmp_path, change, message):
    write_slice(tmp_path / "a", np.zeros((2, 3), np.uint16), (0, 0, 0), **change)
    with pytest.raises(FormatError, match=message) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_told_or_read(tmp_path):
    write_slice(tmp_path / "whole", np.zeros((4, 6), np.uint16), (0, 0, 0), RescaleSlope=1, RescaleIntercept=-5)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "whole").unlink()
    chance = random.Random(3)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            spot = chance.randrange(len(data))
            data[spot : spot + chance.choice([1, 1, 4])] = chance.randbytes(chance.choice([1, 1, 4, 0]))
        if chance.random() < 0.2:
            data = data[: chance.randrange(len(data))]
        (tmp_path / "a").write_bytes(data)
        try:
            for slices in find_series(tmp_path)[0].values():
                read_series(slices)
        except FormatError as error:
            assert str(tmp_path) in str(error)


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    write_slice(tmp_path / "a", np.zeros((2, 3), np.uint16), (0, 0, 0))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert is_dicom(tmp_path / "a") and not is_dicom(tmp_path)
    with pytest.raises(MissingExtraError, match=r"pip install 'segwright\[medical\]'"):
        find_series(tmp_path)

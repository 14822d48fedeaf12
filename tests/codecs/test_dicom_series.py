import random
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from segwright.codecs.dicom_series import find_series, in_order, is_dicom, read_series
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


def row(codec, tag):
    return pytest.mark.row(codec, tag)


def test_slices_of_a_series_that_differ_are_alike_to_the_eye(tmp_path):
    stored = np.array([[0, 1, 100], [7, 4094, 4095]], np.uint16)
    write_slice(tmp_path / "a", stored, (0, 0, 0), BitsStored=12, HighBit=11)
    write_slice(tmp_path / "b", 4095 - stored, (0, 0, 2), BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    values = read(tmp_path)[0][0]
    assert np.array_equal(values[0], stored) and np.array_equal(values[1], stored)
    write_slice(
        tmp_path / "b",
        4095 - stored,
        (0, 0, 2),
        BitsStored=12,
        HighBit=11,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope=2,
    )
    values = read(tmp_path)[0][0]  # turned within 0..8190, which is what both may hold
    assert np.array_equal(values[1], 8190 - 2 * (4095 - stored.astype(int)))


def test_padding_of_one_slice_of_a_series(tmp_path):
    write_slice(tmp_path / "a", np.array([[-2000, 5]], np.int16), (0, 0, 0), PixelPaddingValue=-2000)
    write_slice(tmp_path / "b", np.array([[-2000, 5]], np.int16), (0, 0, 2))
    values = read(tmp_path)[0]
    assert values.dtype == np.float32 and np.isnan(values[0, :, 0]).tolist() == [[True, False], [False, False]]


@row("DICOM", "(0028,0008) frames")
def test_frames(tmp_path):
    with pytest.raises(FormatError, match="it holds 3 frames; .*: single images are read: split it"):
        write_slice(tmp_path / "a", np.zeros((2, 3), np.uint16), (0, 0, 0), NumberOfFrames=3)
        read(tmp_path)
    write_slice(tmp_path / "a", np.zeros((2, 3), np.uint16), (0, 0, 0), NumberOfFrames=1)
    assert read(tmp_path)[0].shape == (1, 1, 2, 3)


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

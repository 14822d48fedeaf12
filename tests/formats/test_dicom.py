from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import dicom, open_dataset

pydicom = pytest.importorskip("pydicom", reason="DICOM needs segwright[medical]")
highdicom = pytest.importorskip("highdicom", reason="DICOM-SEG needs segwright[medical]")

from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom_series"
CLASSES = Classes.of(
    ["background", "liver", "lesion"], colors=[(0, 0, 0), (200, 10, 30), (1, 2, 3)], is_thing=[False, False, True]
)
TURNS = {
    "axial": [[1, 0, 0], [0, 1, 0]],
    "upside down": [[1, 0, 0], [0, -1, 0]],
    "mirrored": [[-1, 0, 0], [0, 1, 0]],
    "sagittal": [[0, 1, 0], [0, 0, -1]],
    "oblique": np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0].T[:2].round(9).tolist(),
}


def write_series(
    folder: Path, directions=TURNS["axial"], *, count: int = 5, number: int = 3, is_placed: bool = True
) -> np.ndarray:
    """A CT series (D, 4, 6) along its normal, in files whose names run against it."""
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(number).integers(0, 4000, (count, 4, 6)).astype(np.uint16)
    study, series, frame = "1.2.3", generate_uid(), "1.2.4"
    for index in range(count):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, frame
        data.SeriesNumber, data.Modality = number, "CT"
        data.Rows, data.Columns, data.PixelSpacing = 4, 6, [0.7, 0.5]
        if is_placed:
            position = np.array([10, -20, 30]) + np.cross(*directions) * 2.5 * index
            data.ImagePositionPatient = [f"{value:.9g}" for value in position]
            data.ImageOrientationPatient = [f"{value:.9g}" for value in np.ravel(directions)]
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelData = values[index].tobytes()
        data.save_as(folder / f"{count - index}.ima", enforce_file_format=True)
    return values


def panoptic(shape: tuple[int, ...], classes: Classes = CLASSES) -> Segmentation:
    """Background, liver and two lesions."""
    return Segmentation.panoptic(np.random.default_rng(0).integers(1, 5, shape), [0, 1, 2, 2], [0, 0, 7, 3], classes=classes)


# By hand


def test_a_mask_of_a_series_holds_its_objects(tmp_path):
    values = write_series(tmp_path / "ct")
    series = dicom.read(tmp_path / "ct")
    truth = panoptic(values.shape)
    sample = replace(series[0], truth=truth)
    assert dicom.write_mask(tmp_path / "ct" / "masks", sample, series) == tmp_path / "ct" / "masks" / "ct.dcm"
    [back] = open_dataset(tmp_path / "ct")
    assert sorted(back.truth.instance_ids.tolist()) == [0, 0, 3, 7]
    for number in (3, 7):
        found, written = ([*one.instance_ids].index(number) for one in (back.truth, truth))
        assert np.array_equal(back.truth.mask(found), truth.mask(written))


def test_series_by_folder_and_number(tmp_path):
    for folder, number in (("a", 3), ("b/c", 1), ("b/c", 2), ("b/c", 10)):
        write_series(tmp_path / folder, number=number)
    (tmp_path / "b" / "c" / "1.ima").write_bytes((tmp_path / "b" / "c" / "1.ima").read_bytes())
    assert dicom.matches(tmp_path)
    data = open_dataset(tmp_path)
    assert data.keys == ("a", "b__c") and data.classes.names == ("nothing",) and data[0].truth is None


def test_several_series_in_one_folder(tmp_path):
    first = write_series(tmp_path / "all", number=2)
    for file in (tmp_path / "all").iterdir():
        file.rename(file.with_suffix(".2"))
    second = write_series(tmp_path / "all", number=10)
    data = open_dataset(tmp_path)
    assert data.keys == ("all__2", "all__10")
    assert np.array_equal(data[0].image[0], first) and np.array_equal(data[1].image[0], second)


def test_images_without_position_are_samples_of_their_own(tmp_path):
    write_series(tmp_path / "xray", is_placed=False, count=2)
    data = open_dataset(tmp_path)
    assert data.keys == ("xray__1", "xray__2") and data[0].image.shape == (1, 4, 6)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_hippocampus(tmp_path):
    [sample] = open_dataset(SHARED)
    assert sample.key == "11_HCropVolume" and sample.image.shape == (1, 40, 50, 34) and sample.image.dtype == np.int16
    assert (sample.image.min(), sample.image.max()) == (2, 194) and sample.grid.spacing_mm == (1, 1, 1)
    truth = panoptic(sample.grid.shape)
    dicom.write_segmentation(tmp_path / "a.dcm", truth, SHARED)
    stored = highdicom.seg.segread(tmp_path / "a.dcm")
    assert stored.PatientID == "PGBM-003" and stored.number_of_segments == 3


# By a law: in the world, a segmentation lies where it was drawn


@pytest.mark.parametrize("name", TURNS)
def test_a_segmentation_lands_on_the_voxels_it_was_made_for(tmp_path, name):
    write_series(tmp_path / "ct", TURNS[name])
    [sample] = dicom.read(tmp_path / "ct")
    truth = panoptic(sample.grid.shape)
    dicom.write_segmentation(tmp_path / "out" / "seg.dcm", truth, tmp_path / "ct")
    stored = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    shared = stored.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    number_of = {segment.SegmentNumber: index for index, segment in zip((1, 2, 3), stored.SegmentSequence, strict=True)}
    found = {index: [] for index in (1, 2, 3)}
    for groups, frame in zip(stored.PerFrameFunctionalGroupsSequence, stored.pixel_array, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        rows, columns = np.nonzero(frame)
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        where = position + np.outer(rows * spacing[0], column) + np.outer(columns * spacing[1], row)
        found[number_of[number]].append(where)
    for index in (1, 2, 3):  # the segments after the background
        inside = np.argwhere(truth.mask(index))
        wanted = inside @ sample.grid.affine[:3, :3].T + sample.grid.affine[:3, 3]
        have = np.concatenate(found[index])
        assert len(have) == len(wanted)
        distance = np.linalg.norm(have[:, None] - wanted[None], axis=-1)
        assert distance.min(axis=0).max() < 1e-4 and distance.min(axis=1).max() < 1e-4  # mm


@pytest.mark.parametrize("name", TURNS)
def test_a_segmentation_in_the_same_tree_is_the_truth(tmp_path, name):
    write_series(tmp_path / "ct", TURNS[name])
    written = panoptic((5, 4, 6))
    dicom.write_segmentation(tmp_path / "ct" / "anything", written, tmp_path / "ct")
    data = open_dataset(tmp_path)
    assert data.keys == ("ct",)
    assert data.classes == CLASSES
    truth = data[0].truth
    assert truth.instance_ids.tolist() == [0, 7, 3, 0] and np.array_equal(truth.masks()[:3], written.masks()[1:])
    assert np.array_equal(truth.class_map(), written.class_map())  # what is left over is the background


def test_segments_that_overlap_come_back(tmp_path):
    write_series(tmp_path)
    masks = np.random.default_rng(0).random((3, 5, 4, 6)) < 0.5
    written = Segmentation.instances(masks, [0, 0, 1], classes=Classes.of(["a", "b"], is_thing=[True, True]))
    dicom.write_segmentation(tmp_path / "seg", written, tmp_path)
    truth = dicom.read(tmp_path)[0].truth
    assert np.array_equal(truth.masks(), masks) and truth.instance_ids.tolist() == [1, 2, 3]


def test_nothing_found_is_written_too(tmp_path):
    write_series(tmp_path)
    dicom.write_segmentation(tmp_path / "seg", Segmentation.semantic(np.zeros((5, 4, 6), int), CLASSES), tmp_path)
    data = dicom.read(tmp_path)
    assert data.classes.names == ("background", "liver", "lesion") and data[0].truth.areas().tolist() == [5 * 4 * 6]
    assert data[0].left_out == {"segments without a pixel": 2}


def test_labels_in_two_spellings_are_one_class(tmp_path, caplog):
    for number, name in enumerate(("Liver", "liver")):
        write_series(tmp_path / str(number), number=number)
        written = Segmentation.semantic(np.ones((5, 4, 6), int), Classes.of(["background", name]))
        dicom.write_segmentation(tmp_path / str(number) / "seg", written, tmp_path / str(number))
    data = open_dataset(tmp_path)
    assert data.classes.names == ("background", "Liver") and "'Liver', 'liver'" in caplog.text
    assert all((sample.truth.class_map() == 1).all() for sample in data)


def test_a_localizer_beside_a_scan_is_passed_over(tmp_path, caplog):
    values = write_series(tmp_path / "ct", number=2)
    write_series(tmp_path / "scout", TURNS["sagittal"], count=1, number=1)
    [scout] = (tmp_path / "scout").iterdir()
    with pydicom.dcmread(scout) as data:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        data.save_as(scout)
    [only] = open_dataset(tmp_path)
    assert np.array_equal(only.image[0], values) and "1 localizers beside the scan are passed over" in caplog.text
    assert open_dataset(tmp_path / "scout").keys == ("scout",)  # nothing else is there


def test_contours_are_counted_as_left_out(tmp_path, caplog):
    write_series(tmp_path)
    uid = pydicom.dcmread(next(tmp_path.glob("*.ima"))).SeriesInstanceUID
    series, study, frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = uid
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.ReferencedFrameOfReferenceSequence = [frame]
    data.StructureSetROISequence = [pydicom.Dataset(), pydicom.Dataset()]
    data.save_as(tmp_path / "rtstruct", enforce_file_format=True)
    [only] = open_dataset(tmp_path)
    assert only.truth is None and only.left_out == {"contours of a structure set (RTSTRUCT)": 2}
    assert "rtstruct: its 2 contours (RTSTRUCT) are not read; save them as DICOM-SEG or NIfTI" in caplog.text


# By its messages


def test_the_wrong_series_is_told(tmp_path):
    write_series(tmp_path / "a", number=1)
    write_series(tmp_path / "b", number=2, count=3)
    truth = panoptic((3, 4, 6))
    with pytest.raises(OutputError, match=r"holds 2 series \(a, b\); say which one is meant with key"):
        dicom.write_segmentation(tmp_path / "seg", truth, tmp_path)
    with pytest.raises(OutputError, match=r"the segmentation is \(3, 4, 6\), the series \(5, 4, 6\)"):
        dicom.write_segmentation(tmp_path / "seg", truth, tmp_path, key="a")
    dicom.write_segmentation(tmp_path / "seg", truth, tmp_path, key="b")
    assert [sample.truth is None for sample in dicom.read(tmp_path)] == [True, False]


def test_a_segmentation_of_another_series_is_passed_over(tmp_path, caplog):
    write_series(tmp_path / "a", number=1)
    dicom.write_segmentation(tmp_path / "b" / "seg", panoptic((5, 4, 6)), tmp_path / "a")
    write_series(tmp_path / "b", number=2)
    assert dicom.read(tmp_path / "b")[0].truth is None and "the series that it segments is not below" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_segmentation_is_told(tmp_path):
    write_series(tmp_path)
    dicom.write_segmentation(tmp_path / "seg", panoptic((5, 4, 6)), tmp_path)
    whole = (tmp_path / "seg").read_bytes()
    for length in range(200, len(whole), 301):
        (tmp_path / "seg").write_bytes(whole[:length])
        try:
            dicom.read(tmp_path)[0]
        except FormatError as error:
            assert str(tmp_path) in str(error)
    with pytest.raises(FormatError, match="holds no DICOM image"):
        (tmp_path / "empty").mkdir()
        dicom.read(tmp_path / "empty")

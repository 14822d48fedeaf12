import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.formats import open_dataset
from segwright.inspection.color_models import about_color_models
from segwright.inspection.inspect import inspect

RGB = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)


def names(found):
    return {one.name for one in found}


@pytest.mark.parametrize(
    ("kind", "save"),
    [
        ("as inks (CMYK)", lambda path: Image.fromarray(RGB).convert("CMYK").save(path.with_suffix(".jpg"))),
        ("as inks (CMYK)", lambda path: Image.fromarray(RGB).convert("CMYK").save(path.with_suffix(".tif"))),
        (
            "with white as zero",
            lambda path: tifffile.imwrite(path.with_suffix(".tif"), RGB[..., 0], photometric="miniswhite"),
        ),
    ],
)
def test_images_stored_in_another_way_are_named_and_their_twins_are_not(tmp_path, kind, save):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        Image.fromarray(np.eye(20, 24, dtype=np.uint8)).save(tmp_path / "masks" / f"{number}.png")
        Image.fromarray(np.roll(RGB, 5 * number, axis=0)).save(tmp_path / "images" / f"{number}.png")
    assert "mixed-color-models" not in names(inspect(tmp_path).findings)
    (tmp_path / "images" / "1.png").unlink()
    save(tmp_path / "images" / "1")
    [finding] = [one for one in inspect(tmp_path).findings if one.name == "mixed-color-models"]
    assert finding.keys == ("1",) and f"1 {kind} (1) and 2 as they are shown" in finding.evidence
    assert len(open_dataset(tmp_path).load("1").image) in (1, 3)
    for number in (0, 2):  # all in one way
        (tmp_path / "images" / f"{number}.png").unlink()
        save(tmp_path / "images" / str(number))
    assert "mixed-color-models" not in names(inspect(tmp_path).findings)


def test_series_of_dicom(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    for name, kind in (("a", "MONOCHROME1"), ("b", "MONOCHROME2"), ("c", "MONOCHROME2")):
        header = pydicom.Dataset()
        header.PhotometricInterpretation, header.SOPClassUID, header.SOPInstanceUID = kind, "1.2.840.10008.5.1.4.1.1.2", "1.2"
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        (tmp_path / name).mkdir()
        header.save_as(tmp_path / name / "1.dcm", enforce_file_format=True)
    [finding] = about_color_models(tmp_path, {})
    assert finding.keys == ("a/1.dcm",) and "1 with white as zero (MONOCHROME1) (a/1.dcm) and 2 as" in finding.evidence
    (tmp_path / "a" / "1.dcm").unlink()
    assert about_color_models(tmp_path, {}) == about_color_models(None, {}) == []


def test_damage_is_left_to_those_who_read(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    (tmp_path / "b.jpg").write_bytes(b"")
    assert about_color_models(tmp_path, {"a": tmp_path / "a.tif", "b": tmp_path / "b.jpg"}) == []

import numpy as np
import pytest

from segwright.codecs.image_file import read_image
from segwright.core.errors import OutputError, UsageError
from segwright.formats import mask_folder, synthetic
from segwright.inspection import augmented_sheet
from segwright.inspection.augmented_sheet import write_augmented_sheet


@pytest.fixture
def drawn(monkeypatch):
    """What goes onto the sheet."""
    kept = {}
    monkeypatch.setattr(
        augmented_sheet,
        "contact_sheet",
        lambda *parts: (
            kept.update(zip(("title", "text", "legend", "columns", "rows"), parts, strict=True))
            or np.zeros((8, 8, 3), np.uint8)
        ),
    )
    return kept


def test_a_scene_with_an_up(tmp_path, drawn):
    mask_folder.write(tmp_path / "data", synthetic.streets(9, shape=(96, 128), seed=1))
    write_augmented_sheet(tmp_path / "sheet.png", str(tmp_path / "data"))
    assert "8 images to train with, crops of" in drawn["text"]
    assert "mirrored left to right;" in drawn["text"] and "JPEG in 20%" in drawn["text"] and "blur" not in drawn["text"]
    assert [len(row.pictures) for row in drawn["rows"]] == [6] * 6 and len(drawn["columns"]) == 6
    assert drawn["rows"][0].name.endswith(", 96 x 128")
    assert len(drawn["legend"]) >= 8 and drawn["legend"][-1] == ("void, teaches nothing", None)
    whole, *crops = drawn["rows"][0].pictures
    assert whole.shape == (198, 264, 3) and max(crops[0].shape) == 264
    assert len({crop.tobytes() for crop in crops}) == len(crops)


def test_volumes_show_their_middle(tmp_path, shared_data, drawn):
    write_augmented_sheet(tmp_path / "sheet.png", str(shared_data / "hippocampus"))
    assert "volumes to train with" in drawn["text"] and "low resolution in 25%" in drawn["text"]
    assert all(picture.ndim == 3 and picture.dtype == np.uint8 for row in drawn["rows"] for picture in row.pictures)


def test_the_sheet_is_a_picture_and_the_same_each_time(tmp_path):
    mask_folder.write(tmp_path / "data", synthetic.cells(3, shape=(48, 64), seed=1))
    for name in ("a.png", "b.png"):
        write_augmented_sheet(tmp_path / name, str(tmp_path / "data"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    sheet = read_image(tmp_path / "a.png")
    assert sheet.shape[0] == 3 and sheet.shape[2] > 6 * 200


def test_sixteen_bits_are_shown_in_the_range_of_the_image(tmp_path, drawn):
    data = synthetic.cells(3, shape=(48, 64), seed=1)
    dark = augmented_sheet.replace(data, load=lambda key: _with_image(data.load(key)))
    mask_folder.write(tmp_path / "data", dark)
    write_augmented_sheet(tmp_path / "sheet.png", str(tmp_path / "data"))
    for row in drawn["rows"]:
        assert np.percentile(row.pictures[0], 95) > 120 and all(picture.std() > 15 for picture in row.pictures)


def _with_image(sample):
    return augmented_sheet.replace(sample, image=sample.image.astype(np.uint16) * 3 + 900)


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UsageError, match="none"):
        write_augmented_sheet(tmp_path / "sheet.png", str(tmp_path / "none"))
    mask_folder.write(tmp_path / "data", synthetic.cells(3, shape=(48, 64), seed=1))
    with pytest.raises(OutputError, match="png"):
        write_augmented_sheet(tmp_path / "sheet.gif", str(tmp_path / "data"))

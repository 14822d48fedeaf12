import numpy as np
import pytest

from segwright.codecs.image_file import read_image
from segwright.core import Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import OutputError, UsageError
from segwright.data.splits import Splits
from segwright.formats import mask_folder, synthetic
from segwright.inspection import augmented_sheet
from segwright.inspection.augmented_sheet import write_augmented_sheet


@pytest.fixture
def drawn(monkeypatch):
    """What goes onto the sheet."""
    kept = {}

    def keep(*parts) -> np.ndarray:
        kept.update(zip(("title", "text", "legend", "columns", "rows"), parts, strict=True))
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(augmented_sheet, "contact_sheet", keep)
    return kept


@pytest.fixture
def given(monkeypatch):
    """Let the samples be these."""

    def give(images, class_maps, names=("background", "thing")) -> None:
        classes = Classes.of(names)
        truths = [Segmentation.semantic(class_map, classes) for class_map in class_maps]
        samples = {
            f"s{n}": Sample(f"s{n}", image, Grid(image.shape[1:]), truth)
            for n, (image, truth) in enumerate(zip(images, truths, strict=True))
        }
        data = Dataset("data", classes, tuple(samples), samples.__getitem__)
        monkeypatch.setattr(augmented_sheet, "open_splits", lambda path, format=None: Splits(data, data))

    return give


def discs(shape, count=3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Bright discs, or balls, on noise from 0 to 1, and their class maps."""
    generator = np.random.default_rng(0)
    inside = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) / 2, axis=-1) < min(shape) / 3
    return [(0.4 * inside + 0.5 * generator.random((1, *shape))) for _ in range(count)], [inside.astype(int)] * count


def test_a_scene_with_an_up(tmp_path, drawn):
    mask_folder.write(tmp_path / "data", synthetic.streets(9, shape=(96, 128), seed=1))
    settings = ["augmentation.jpeg.probability=0.2"]
    write_augmented_sheet(tmp_path / "sheet.png", str(tmp_path / "data"), settings=settings)
    assert "8 images to train with, crops of" in drawn["text"]
    assert "mirrored left to right;" in drawn["text"] and "JPEG in 20%" in drawn["text"] and "blur" not in drawn["text"]
    assert [len(row.pictures) for row in drawn["rows"]] == [6] * 6 and len(drawn["columns"]) == 6
    assert drawn["rows"][0].name.endswith(", 96 x 128")
    assert len(drawn["legend"]) >= 8 and drawn["legend"][-1] == ("void, teaches nothing", None)
    whole, *crops = drawn["rows"][0].pictures
    assert whole.shape == (198, 264, 3) and max(crops[0].shape) == 264
    assert len({crop.tobytes() for crop in crops}) == len(crops)


def test_volumes_show_their_middle(tmp_path, drawn, given):
    given(*discs((12, 20, 16)))
    write_augmented_sheet(tmp_path / "sheet.png", "data")
    assert "3 volumes to train with" in drawn["text"] and "low resolution in 12%" in drawn["text"]
    assert all(picture.ndim == 3 and picture.dtype == np.uint8 for row in drawn["rows"] for picture in row.pictures)
    assert drawn["rows"][0].pictures[0].shape == (264, 211, 3)  # 20 x 16


def test_changes_that_few_crops_get_are_told_with_their_share(tmp_path, drawn, given):
    given(*discs((12, 20, 16)))
    names = ("geometric.scale", "geometric.rotate", "intensity.noise")
    settings = [f"augmentation.{name}_probability=0.25" for name in names]
    settings.append("augmentation.intensity.contrast_probability=1")
    write_augmented_sheet(tmp_path / "sheet.png", "data", settings=settings)
    for words in ("scaled by 0.", "turned by up to", "noise"):
        assert drawn["text"].partition(words)[2].partition("%")[0].endswith(" in 25"), words
    assert "contrast," in drawn["text"]


def test_the_background_is_not_coloured_and_what_is_in_it_is(tmp_path, drawn, given):
    given([np.full((1, 40, 40), 200, np.uint8)] * 2, [np.pad(np.ones((20, 20), int), 10)] * 2)
    write_augmented_sheet(tmp_path / "sheet.png", "data")
    picture = drawn["rows"][0].pictures[0]
    assert [name for name, _ in drawn["legend"] if name != "void, teaches nothing"] == ["thing"]
    assert (picture[5, 5] == 200).all() and len(set(picture[132, 132].tolist())) > 1


@pytest.mark.parametrize(("gain", "offset", "dtype"), [(900, 4000, np.uint16), (0.01, -3, np.float32), (60, 0, np.uint8)])
def test_values_are_shown_in_the_range_of_the_image(tmp_path, drawn, given, gain, offset, dtype):
    images, class_maps = discs((40, 48), 2)
    given([(gain * image + offset).astype(dtype) for image in images], class_maps)
    write_augmented_sheet(tmp_path / "sheet.png", "data")
    for row in drawn["rows"]:
        assert np.percentile(row.pictures[0], 95) > 120 and all(picture.std() > 15 for picture in row.pictures)


def test_the_sheet_is_a_picture_and_the_same_each_time(tmp_path):
    mask_folder.write(tmp_path / "data", synthetic.cells(3, shape=(48, 64), seed=1))
    for name in ("a.png", "b.png"):
        write_augmented_sheet(tmp_path / name, str(tmp_path / "data"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    sheet = read_image(tmp_path / "a.png")
    assert sheet.shape[0] == 3 and sheet.shape[2] > 6 * 200


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UsageError, match="none"):
        write_augmented_sheet(tmp_path / "sheet.png", str(tmp_path / "none"))
    mask_folder.write(tmp_path / "data", synthetic.cells(3, shape=(48, 64), seed=1))
    with pytest.raises(OutputError, match="png"):
        write_augmented_sheet(tmp_path / "sheet.gif", str(tmp_path / "data"))

import json
import logging
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError, UsageError
from segwright.decoding.detections import decode_detections
from segwright.decoding.run import Outputs, Run
from segwright.formats import mask_folder, open_dataset, readers, tiff
from segwright.inference import predict_files
from segwright.inference.engine import AutoEngine, TorchEngine
from segwright.inference.predict_files import predict
from segwright.inference.predictor import Predictor
from segwright.tasks.regions import Regions
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess, View

CLASSES = Classes.of(["dark", "bright"], colors=[(10, 20, 30), (200, 100, 0)])


class Bright(nn.Module):
    """Dark or bright."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        bright = image.mean(dim=1, keepdim=True) - 100
        return torch.cat([-bright, bright], dim=1)


def predictor(**changes) -> Predictor:
    network = Bright()
    preprocess = Preprocess(normalise=Normalise(mean=(0.0,) * 3, std=(1.0,) * 3))
    settings = {"task": Semantic(), "classes": CLASSES, "preprocess": preprocess, "engine": TorchEngine(network)} | changes
    return Predictor(network=network, **settings)


def scene(seed: int, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    """A dark picture uint8 (H, W) with a bright box somewhere."""
    top, left = np.random.default_rng(seed).integers(1, 10, 2)
    picture = np.full(shape, 10, np.uint8)
    picture[top : top + 6, left : left + 12] = 240
    return picture


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "holiday"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(scene(number)).save(folder / f"{number}.png")
    return folder


# By hand


@pytest.mark.parametrize(
    ("format", "file"), [("coco", "annotations/instances.json"), ("yolo", "data.yaml"), ("cvat", "annotations.xml")]
)
def test_the_file_of_a_data_set_names_its_images(tmp_path, photos, format, file):
    truth = Segmentation.panoptic(np.ones((20, 30), int), [0], [1], classes=Classes.of(["cell"], is_thing=[True]))
    pictures = ((path, np.array(Image.open(path).convert("RGB")).transpose(2, 0, 1)) for path in sorted(photos.iterdir())[:2])
    readers()[format].write(tmp_path / "data", [Sample.of(path.stem, image, truth) for path, image in pictures])
    written = predict(predictor(), [tmp_path / "data" / file], tmp_path / "found")
    assert [path.name for path in written] == ["0.png", "1.png"]
    for path in (tmp_path / "data" / "images").rglob("*.png"):
        path.unlink()
    with pytest.raises(FormatError, match=f"no image that .*{file} names is there; add them, or|there is no image in .*; add"):
        predict(predictor(), [tmp_path / "data" / file], tmp_path / "other")


def test_of_a_data_set_with_parts_no_mask_is_predicted(tmp_path, photos):
    for part in ("train", "val"):
        (tmp_path / "data" / part / "masks").mkdir(parents=True)
        (tmp_path / "data" / part / "images").mkdir()
        for path in (tmp_path / "data" / part / folder / f"{part}.png" for folder in ("images", "masks")):
            path.write_bytes((photos / "0.png").read_bytes())
    written = predict(predictor(), [tmp_path / "data"], tmp_path / "found")
    assert [path.name for path in written] == ["train__train.png", "val__val.png"]


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_channels_of_nnunet_are_one_image_called_like_its_case(tmp_path, ending):
    picture, folder = scene(0), tmp_path / "imagesTs"
    folder.mkdir()
    for case in ("a", "b"):
        for channel in range(3):
            file = folder / f"{case}_{channel:04}{ending}"
            values = picture if channel < 2 else np.zeros_like(picture)
            if ending == ".png":
                Image.fromarray(values).save(file)
            else:
                write_volume(file, np.stack([values] * 2)[None], Grid((2, *picture.shape), (2.0, 1.0, 1.0)))
    written = predict(predictor(tile=(32, 32) if ending == ".png" else None), folder, tmp_path / "out")
    assert [path.name for path in written] == [f"a{ending}", f"b{ending}"]
    found = np.array(Image.open(written[0])) if ending == ".png" else read_volume(written[0])[0][0, 0]
    np.testing.assert_array_equal(found, picture > 100)  # the mean of two bright channels and a dark one is bright
    (folder / f"b_0001{ending}").unlink()
    with pytest.raises(FormatError, match=rf"add the missing files: b_0001{ending}"):
        predict(predictor(), folder, tmp_path / "out")


def test_a_mask_for_each_image(photos, tmp_path):
    written = predict(predictor(), photos, tmp_path / "new" / "masks")
    assert written == [tmp_path / "new" / "masks" / f"{number}.png" for number in range(7)]
    assert sorted(path.name for path in (tmp_path / "new" / "masks").iterdir()) == [f"{number}.png" for number in range(7)]
    for number, path in enumerate(written):
        assert (np.array(Image.open(path)) == (scene(number) > 100)).all()


def test_files_of_all_kinds(tmp_path):
    picture, out = scene(0), tmp_path / "masks"
    Image.fromarray(picture).save(tmp_path / "grey.png")
    Image.fromarray(picture).convert("RGB").save(tmp_path / "photo.JPG", quality=100)
    cv2.imwrite(str(tmp_path / "deep.png"), picture.astype(np.uint16))
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([picture] * 3), photometric="minisblack", metadata={"axes": "CYX"})
    names = ["grey.png", "photo.JPG", "deep.png", "stack.tif"]
    written = predict(predictor(), [tmp_path / name for name in names], out, overlay=True)
    assert [path.name for path in written] == [
        *("grey.png", "grey_overlay.png", "photo.png", "photo_overlay.jpg"),
        *("deep.png", "deep_overlay.png", "stack.tif", "stack_overlay.png"),
    ]
    for path in written[::2]:
        found = tifffile.imread(path) if path.suffix == ".tif" else np.array(Image.open(path))
        assert found.dtype == np.uint8 and (found == (picture > 100)).all()
    shown = np.array(Image.open(out / "grey_overlay.png"))
    inside, outside = shown[picture > 100].astype(int).mean(axis=0), shown[picture < 100].astype(int).mean(axis=0)
    assert inside[0] > inside[2] + 50 and outside[2] > outside[0]


@pytest.mark.parametrize(("tile", "is_volume"), [((8, 32, 32), True), ((32, 32), False)])
def test_the_model_tells_slices_from_channels(tmp_path, tile, is_volume):
    stack = np.stack([scene(number) for number in range(6)]).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    count = 1 if is_volume else 6
    preprocess = Preprocess(channels=count, normalise=Normalise(mean=(0.0,) * count, std=(1.0,) * count))
    model = predictor(tile=tile, preprocess=preprocess)
    [path] = predict(model, tmp_path / "stack.tif", tmp_path / "out")
    found = tifffile.imread(path)
    assert found.shape == (stack.shape if is_volume else stack.shape[1:])
    assert not is_volume or np.array_equal(found, stack > 100)


def test_a_stack_that_nobody_can_tell_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", np.stack([scene(0)] * 6).astype(np.uint16), photometric="minisblack")
    model = predictor(preprocess=Preprocess(channels=1, normalise=Normalise(mean=(0.0,), std=(1.0,))))
    with pytest.raises(UsageError, match='write axes = "ZYX" .* into dataset.toml beside the data'):
        predict(model, tmp_path / "in.tif", tmp_path / "out")
    (tmp_path / "dataset.toml").write_text('axes = "ZYX"')
    [path] = predict(model, tmp_path / "in.tif", tmp_path / "out")
    assert tifffile.imread(path).shape == (6, 20, 30)


def test_volumes(tmp_path):
    volume = np.stack([scene(seed) for seed in range(5)])
    tifffile.imwrite(tmp_path / "volume.tif", volume, metadata={"axes": "ZYX"})
    [mask, picture] = predict(predictor(), tmp_path / "volume.tif", tmp_path / "masks", overlay=True)
    assert (tifffile.imread(mask) == (volume > 100)).all()
    assert Image.open(picture).size == (30, 20)


@pytest.mark.parametrize(
    ("suffix", "written"), [(".nii.gz", ".nii.gz"), (".nrrd", ".nrrd"), (".mha", ".mha"), (".mhd", ".mha")]
)
def test_a_volume_becomes_a_volume_on_its_grid(tmp_path, suffix, written):
    pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
    volume = np.stack([scene(seed) for seed in range(5)])
    affine = np.array([[0, 0, -0.5, 7], [0, 0.7, 0, -8], [2.5, 0, 0, 9], [0, 0, 0, 1.0]])
    write_volume(tmp_path / "scans" / f"a{suffix}", volume[None], Grid(volume.shape, (2.5, 0.7, 0.5), affine))
    for images in (tmp_path / "scans", tmp_path / "scans" / f"a{suffix}"):
        [mask, picture] = predict(predictor(), images, tmp_path / "masks", overlay=True)
        assert mask == tmp_path / "masks" / f"a{written}" and Image.open(picture).size == (30, 20)
        values, grid = read_volume(mask)
        assert values.dtype == np.uint8 and np.array_equal(values[0], volume > 100)
        assert np.allclose(grid.affine, affine, atol=1e-6)
    assert predict(predictor(), tmp_path, tmp_path / "masks") == [tmp_path / "masks" / f"scans__a{written}"]  # not its own


def test_a_dicom_series_becomes_a_segmentation(tmp_path):
    pytest.importorskip("highdicom", reason="DICOM needs segwright[medical]")
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    volume = np.stack([scene(seed) for seed in range(4)]).astype(np.uint16)
    for name in "ab":
        series = generate_uid()
        for index, pixels in enumerate(volume):
            data = Dataset()
            data.file_meta = FileMetaDataset()
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2", series, "1.3"
            data.Rows, data.Columns, data.PixelSpacing, data.Modality = *pixels.shape, [1, 1], "CT"
            data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 3 * index], [1, 0, 0, 0, 1, 0]
            data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelData = 16, 16, 15, pixels.tobytes()
            (tmp_path / "ct" / name).mkdir(parents=True, exist_ok=True)
            data.save_as(tmp_path / "ct" / name / f"{9 - index}", enforce_file_format=True)
    written = predict(predictor(), tmp_path / "ct", tmp_path / "ct" / "masks")
    assert written == [tmp_path / "ct" / "masks" / "a.dcm", tmp_path / "ct" / "masks" / "b.dcm"]
    for sample in open_dataset(tmp_path / "ct"):
        names = [sample.truth.classes.names[k] for k in sample.truth.class_ids]
        assert np.array_equal(sample.truth.mask(names.index("bright")), volume > 100)


def test_a_mask_of_a_map_lies_on_the_map(tmp_path):
    scale, tie = (33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0, 0, 0, 440720.0, 3751320.0, 0), True)
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "a" / "map.tif", scene(0), extratags=[scale, tie])
    for palette in (False, True):
        [mask] = predict(predictor(), tmp_path / "a", tmp_path / "masks", palette=palette)
        assert tiff.geo_tags(mask) == tiff.geo_tags(tmp_path / "a" / "map.tif")
        with tifffile.TiffFile(mask) as file:
            page = file.pages.first
            assert np.array_equal(page.asarray(), scene(0) > 100) and (page.photometric == 3) == palette
            assert not palette or page.colormap[:, 1].tolist() == [200 * 257, 100 * 257, 0]


NO_DATA = np.s_[3:9, 5:9]


@pytest.mark.parametrize("kind", ["nan", "tag", "dataset.toml", "dataset.toml above"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_what_an_image_lacks_is_void_in_its_mask(tmp_path, kind, dtype):
    place = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0, 0, 0, 440720.0, 3751320.0, 0), True)]
    values, void = scene(0).astype(dtype), np.zeros((20, 30), bool)
    void[NO_DATA] = True
    values[void] = np.nan if kind == "nan" and dtype == np.float32 else -9999
    tags = [*place, (42113, "s", 0, "-9999", True)] if kind == "tag" or kind == "nan" and dtype == np.int16 else place
    (tmp_path / "set" / "images").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "set" / "images" / "a.tif", values, extratags=tags)
    if kind.startswith("dataset"):
        (tmp_path / "set" / ("images" if kind == "dataset.toml" else "") / "dataset.toml").write_text("nodata = -9999")
    for images in (tmp_path / "set" / "images", tmp_path / "set" / "images" / "a.tif"):
        [mask, picture] = predict(predictor(), images, tmp_path / "out", overlay=True)
        with tifffile.TiffFile(mask) as file:
            np.testing.assert_array_equal(file.asarray(), np.where(void, 255, scene(0) > 100))
            assert file.pages.first.tags[42113].value == "255"
        assert not np.array(Image.open(picture))[5:8, 6:8].any()  # black
    predict(predictor(), tmp_path / "set" / "images", tmp_path / "tiffs", format="tiff")
    [sample] = open_dataset(tmp_path / "tiffs")
    np.testing.assert_array_equal(sample.truth.class_map(), np.where(void, -1, scene(0) > 100))


def test_what_looks_like_missing_values_is_told_once_and_the_remedy_helps(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    for number in range(3):
        values = scene(number).astype(np.int16) + np.arange(30, dtype=np.int16) % 7
        values[NO_DATA] = -32768
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", values)
    tifffile.imwrite(tmp_path / "images" / "empty.tif", np.full((20, 30), np.nan, np.float32))
    *masks, empty = predict(predictor(), tmp_path / "images", tmp_path / "out")
    assert [tifffile.imread(mask)[NO_DATA].max() for mask in masks] == [0, 0, 0] and (tifffile.imread(empty) == 255).all()
    one, other = caplog.messages
    assert "0.tif has areas of -32768, far off" in one and "nodata = [-32768] in a dataset.toml beside the images" in one
    assert other.endswith("empty.tif: no pixel has a value, so that its mask is void throughout")
    caplog.clear()
    (tmp_path / "images" / "dataset.toml").write_text("nodata = [-32768]")
    *masks, _ = predict(predictor(), tmp_path / "images", tmp_path / "out")
    assert [tifffile.imread(mask)[NO_DATA].min() for mask in masks] == [255, 255, 255] and len(caplog.messages) == 1


def test_a_volume_is_void_where_it_lacks_values(tmp_path):
    pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
    volume = np.stack([scene(seed) for seed in range(4)]).astype(np.float32)
    void = np.zeros(volume.shape, bool)
    void[:, *NO_DATA] = void[3] = True
    volume[void] = np.nan
    write_volume(tmp_path / "scans" / "a.nii.gz", volume[None], Grid(volume.shape))
    [mask] = predict(predictor(), tmp_path / "scans", tmp_path / "masks")
    np.testing.assert_array_equal(read_volume(mask)[0][0], np.where(void, 255, volume > 100))


def test_colours_that_other_tools_show(photos, tmp_path):
    [path] = predict(predictor(), photos / "0.png", tmp_path / "masks", palette=True)
    mask = Image.open(path)
    assert mask.mode == "P" and set(np.unique(np.array(mask))) == {0, 1}
    assert mask.convert("RGB").getpixel((0, 0)) == (10, 20, 30)


def test_regions_are_written_by_their_numbers_and_in_their_colours(photos, tmp_path):
    """All is in the whole, the bright box in the core too, whose number is 9."""
    classes = Classes.of(["whole", "core"], colors=[(10, 20, 30), (200, 100, 0)], regions=[[4, 9], [9]])
    engine = lambda batch: (np.concatenate([np.ones_like(batch[:, :1]), batch[:, :1] - 100], axis=1),)  # noqa: E731
    [path] = predict(
        predictor(task=Regions(), classes=classes, engine=engine), photos / "0.png", tmp_path / "masks", palette=True
    )
    mask, bright = Image.open(path), scene(0) > 100
    assert np.array_equal(np.array(mask), np.where(bright, 9, 4))
    assert np.array_equal(np.array(mask.convert("RGB")), classes.palette[bright.astype(int)])
    wide = Classes.of(["whole", "core"], regions=[[4, 900], [900]])
    [path] = predict(predictor(task=Regions(), classes=wide, engine=engine), photos / "0.png", tmp_path / "wide")
    assert np.array_equal(np.array(Image.open(path)), np.where(bright, 900, 4))
    with pytest.raises(OutputError, match="a palette holds 255 classes"):
        predict(predictor(task=Regions(), classes=wide, engine=engine), photos, tmp_path / "more", palette=True)


def test_flips_are_those_of_the_call_or_of_the_model(photos, tmp_path):
    seen = []
    model = predictor(engine=lambda batch: seen.append(0) or TorchEngine(Bright())(batch), flips=(-1,))
    predict(model, photos / "0.png", tmp_path / "a")
    predict(model, photos / "0.png", tmp_path / "b", flips=(-2, -1))
    predict(model, photos / "0.png", tmp_path / "c", flips=())
    assert len(seen) == 2 + 4 + 1
    assert model.flips == (-1,)


def test_a_folder_of_a_run_is_a_model(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_files, "load", lambda path, **_: predictor() if path == "runs/a" else None)
    assert len(predict("runs/a", str(photos), str(tmp_path / "masks"))) == 7


def test_the_engine_hears_how_much_lies_ahead(photos, tmp_path):
    network = Bright()
    heard = []

    class Listening(AutoEngine):
        def __call__(self, batch: np.ndarray) -> np.ndarray:
            heard.append(self.ahead)
            return super().__call__(batch)

    predict(predictor(engine=Listening(network, Semantic().agreement)), photos, tmp_path / "masks")
    assert heard == [7, 6, 5, 4, 3, 2, 1]


# By a law


def test_again_gives_the_same_and_takes_no_mask_for_an_image(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    first = predict(predictor(), ".", "masks", overlay=True)
    before = [path.read_bytes() for path in first]
    assert predict(predictor(), ".", "masks", overlay=True) == first
    assert [path.read_bytes() for path in first] == before


def test_the_same_image_twice_is_one(photos, tmp_path):
    assert len(predict(predictor(), [photos, photos / "3.png", photos], tmp_path / "masks")) == 7


# By its messages


def test_the_good_ones_are_written_and_the_bad_ones_named(photos, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    whole = (photos / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[:50])
    tifffile.imwrite(photos / "5.tif", np.zeros((2, 9, 9), np.uint8), metadata={"axes": "CYX"})
    (photos / "7.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"3 of 9 images could not be predicted, the others are in .*masks") as error:
        predict(predictor(), photos, tmp_path / "masks")
    assert f"{photos / '2.png'} is damaged" in str(error.value)
    assert f"{photos / '5.tif'}: the image has 2 channels" in str(error.value)
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"{n}.png" for n in (0, 1, 3, 4, "5_png", 6)]
    assert "7.png is empty" in str(error.value) and "2.png is damaged" in caplog.text
    (photos / "2.png").write_bytes(whole)
    (photos / "5.tif").unlink()
    (photos / "7.png").unlink()
    assert len(predict(predictor(), photos, tmp_path / "masks")) == 7  # the remedy


def test_many_bad_ones_are_counted(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_files, "SHOWN", 2)
    for path in photos.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UsageError, match="7 of 7 images could not be predicted, nothing was written") as error:
        predict(predictor(), photos, tmp_path / "masks")
    assert str(error.value).endswith("and 5 more") and str(error.value).count("is not an image") == 2


def test_results_do_not_mix_with_images(photos, tmp_path):
    with pytest.raises(OutputError, match="would lie among the images"):
        predict(predictor(), photos, photos)
    with pytest.raises(OutputError, match="would replace .*3.png; choose another folder"):
        predict(predictor(), photos / "3.png", photos)
    (tmp_path / "b").mkdir()
    Image.fromarray(scene(3)).save(tmp_path / "b" / "3.png")
    with pytest.raises(OutputError, match="would both be called 3"):
        predict(predictor(), [photos, tmp_path / "b"], tmp_path / "masks")
    Image.fromarray(scene(3)).save(photos / "3_overlay.png")
    with pytest.raises(OutputError, match="would replace"):
        predict(predictor(), photos, tmp_path / "masks", overlay=True)
    assert not (tmp_path / "masks").exists()
    with pytest.raises(OutputError, match="would lie among the images"):  # not "nothing to do, these are my results"
        predict(predictor(), photos, tmp_path)


def test_the_truth_of_a_data_set_is_not_replaced(photos, tmp_path):
    photos.rename(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "3.png").write_bytes(b"truth")
    for images in (tmp_path, tmp_path / "images", tmp_path / "images" / "3.png"):
        with pytest.raises(OutputError, match="3.png, would replace a mask .* its truth; choose another folder with out"):
            predict(predictor(), images, tmp_path / "masks")
    assert (tmp_path / "masks" / "3.png").read_bytes() == b"truth" and len([*(tmp_path / "masks").iterdir()]) == 1
    (tmp_path / "masks" / "3.png").unlink()
    assert len(predict(predictor(), tmp_path / "images", tmp_path / "masks")) == 7  # the remedy


def test_a_place_that_cannot_be_written_is_told_before_any_work(photos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        predict(predictor(engine=lambda batch: pytest.fail("work was done")), photos, tmp_path / "file")


def test_too_many_colours_are_told_before_any_work(photos, tmp_path):
    model = predictor(classes=Classes.of([str(k) for k in range(300)]))
    with pytest.raises(OutputError, match="there are 300; write without a palette"):
        predict(model, photos, tmp_path / "masks", palette=True)
    assert not (tmp_path / "masks").exists()


def test_a_full_disk_stops_at_once(photos, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OutputError("no space left")

    monkeypatch.setattr(mask_folder, "write_values", full)
    with pytest.raises(OutputError, match="no space left"):
        predict(predictor(), photos, tmp_path / "masks")


def test_no_image_is_told(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        predict(predictor(), tmp_path / "nowhere", tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="holds no image"):
        predict(predictor(), tmp_path / "empty", tmp_path / "masks")


# Objects


@dataclass(frozen=True)
class FindObjects:
    """The part of a task of finding objects that a predictor asks for."""

    def decode(self, run: Run, view: View) -> Segmentation:
        return decode_detections(run, view)


def components(images: np.ndarray) -> Outputs:
    """Each bright component of one image as an object, as sure as it is bright, with a mask of all pixels."""
    [image] = images[:, 0]
    count, numbers, stats, _ = cv2.connectedComponentsWithStats((image > 0).astype(np.uint8))
    left, top, width, height = stats[1:, :4].T.astype(np.float32)
    boxes = np.stack([left, top, left + width, top + height], axis=1)
    scores = np.array([image[numbers == number].max() / 255 for number in range(1, count)], np.float32)
    masks = (numbers == np.arange(1, count)[:, None, None]).astype(np.float32)
    regions = np.tile(np.float32([0, 0, *image.shape[::-1]]), (count - 1, 1))
    order = np.argsort(-scores, kind="stable")
    return tuple(part[order][None] for part in (boxes, scores, np.zeros(count - 1, int), masks, regions))


def finder(channels: int = 1, **changes) -> Predictor:
    preprocess = Preprocess(channels=channels, normalise=Normalise(mean=(0.0,) * channels, std=(1.0,) * channels))
    settings = {"task": FindObjects(), "classes": Classes.of(["cell"], is_thing=[True]), "preprocess": preprocess}
    return Predictor(network=Bright(), engine=components, **(settings | changes))


def annotations(out) -> dict:
    [file] = out.rglob("*.json")
    return json.loads(file.read_text())


def test_objects_become_coco_with_ids_scores_boxes_areas_and_outlines(tmp_path):
    picture = np.zeros((20, 30), np.uint8)
    picture[2:8, 3:12] = 240
    picture[10:18, 3:6] = picture[15:18, 3:20] = 200  # the shape of an L
    picture[0:4, 25:30] = 100
    Image.fromarray(picture).save(tmp_path / "cells.png")
    predict(finder(), tmp_path / "cells.png", tmp_path / "out")
    found = annotations(tmp_path / "out")["annotations"]
    assert [each["bbox"] for each in found] == [[3, 2, 9, 6], [3, 10, 17, 8]] and [each["area"] for each in found] == [54, 66]
    assert [each["score"] for each in found] == pytest.approx([240 / 255, 200 / 255], abs=1e-4)
    assert len({each["id"] for each in found}) == 2 and all(each["segmentation"] for each in found)
    [sample] = open_dataset(tmp_path / "out")
    assert np.array_equal(sample.truth.mask(1), picture == 200) and sample.truth.instance_ids.all()
    predict(finder(), tmp_path / "cells.png", tmp_path / "all", min_score=0)
    assert len(annotations(tmp_path / "all")["annotations"]) == 3
    assert len(finder()(picture[None])) == 3  # evaluation ranks all


def test_images_without_objects_and_with_tiny_ones_at_the_border(tmp_path):
    (tmp_path / "in").mkdir()
    tiny = np.zeros((20, 30), np.uint8)
    tiny[0, 0] = tiny[19, 29] = tiny[5:9, 29] = tiny[0, 10:20] = 255
    for name, picture in (("a", np.zeros((20, 30), np.uint8)), ("b", tiny), ("c", np.full((20, 30), 255, np.uint8))):
        Image.fromarray(picture).save(tmp_path / "in" / f"{name}.png")
    predict(finder(), tmp_path / "in", tmp_path / "out", format="coco")
    none, few, one = open_dataset(tmp_path / "out")
    assert len(none.truth) == 0 and np.array_equal(few.truth.planes[0] > 0, tiny > 0) and len(few.truth) == 4
    assert sorted(few.truth.areas().tolist()) == [1, 1, 4, 10] and one.truth.areas().tolist() == [600]


@pytest.mark.parametrize("channels", [1, 5])
def test_a_thousand_objects_in_images_of_any_channels(tmp_path, channels):
    picture = np.zeros((100, 160), np.uint8)
    picture[1::4, 1::4] = picture[2::4, 1::4] = 255
    stack = np.stack([picture] * channels)
    tifffile.imwrite(tmp_path / "in.tif", stack[0] if channels == 1 else stack, photometric="minisblack")
    model = finder(channels, tile=(64, 64))
    predict(model, tmp_path / "in.tif", tmp_path / "out")
    found = annotations(tmp_path / "out")["annotations"]
    assert len(found) == 1000 and {each["area"] for each in found} == {2}
    [sample] = open_dataset(tmp_path / "out")
    assert np.array_equal(sample.truth.planes[0] > 0, picture > 0)

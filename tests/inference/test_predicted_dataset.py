"""Data sets of predictions: objects by themselves, any format by name."""

import json
import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.codecs.volume_file import read_volume, write_volume
from segwright.codecs.zarr_writer import writing_zarr
from segwright.conversion import compare_samples, writers
from segwright.core import VOID, Classes, Grid, Sample, Segmentation
from segwright.core.errors import OutputError, ShapeError, UnknownNameError, UsageError
from segwright.formats import dicom, mask_folder, ome_zarr, open_dataset, tiff, volume
from segwright.inference.predict_files import predict
from segwright.inference.predicted_dataset import Losses, format_for

CLASSES = Classes.of(["road", "car"], colors=[(10, 20, 30), (200, 100, 0)], is_thing=[False, True])


def boxes(image, *, count=2):
    """Two cars that overlap, of different scores."""
    masks = np.zeros((count, *image.shape[1:]), bool)
    for number in range(count):
        masks[number, ..., 1:9, 2 + 3 * number : 8 + 3 * number] = True
    return Segmentation.instances(masks, [1] * count, scores=[0.75, 0.5][:count], classes=CLASSES)


def classes_of(image):
    return Segmentation.semantic((image[0] > 100).astype(np.int64), CLASSES)


def road_and_cars(image):
    """A car of its own number on a road, and void."""
    segment_map = np.ones(image.shape[1:], np.int32)
    segment_map[..., :5, :5], segment_map[..., -1, :] = 2, VOID
    return Segmentation.panoptic(segment_map, [0, 1], [0, 4], scores=[0.9, 0.8], classes=CLASSES)


@dataclass
class Fake:
    """A predictor that gives what a function makes of each image, and knows which it has seen."""

    answer: object
    seen: list = field(default_factory=list)
    classes: Classes = CLASSES
    answers: Classes = CLASSES
    flips: tuple = ()
    tile: tuple | None = None
    engine: object = None
    min_score: float = 0.0

    def __call__(self, sample):
        self.seen.append(sample.key)
        return self.answer(sample.image)

    def in_parts(self, axes):
        return False


def picture(seed):
    image = np.random.default_rng(seed).integers(0, 90, (16, 20, 3), dtype=np.uint8)
    image[3:12, 4 + seed : 9 + seed] = 220
    return image


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(5):
        Image.fromarray(picture(number)).save(tmp_path / "photos" / f"{number}.{'jpg' if number == 4 else 'png'}")
    return tmp_path / "photos"


# By hand


@pytest.mark.parametrize(
    ("answer", "kind"), [(boxes, "annotations/instances.json"), (road_and_cars, "annotations/panoptic.json")]
)
def test_objects_become_coco(photos, tmp_path, answer, kind):
    written = predict(Fake(answer), photos, tmp_path / "out")
    assert tmp_path / "out" / kind in written and tmp_path / "out" / "images" / "4.jpg" in written
    data = open_dataset(tmp_path / "out")
    assert data.keys == tuple("01234") and data.classes == CLASSES
    for sample in data:
        change = compare_samples(Sample.of(sample.key, sample.image, answer(sample.image)), sample)
        assert not change.reasons and not change.notes
    assert (tmp_path / "out" / "images" / "4.jpg").read_bytes() == (photos / "4.jpg").read_bytes()


def test_the_format_that_holds_a_segmentation():
    def chosen(kind, answer, shape=(9, 12), affine=None):
        image = np.zeros((1, *shape), np.uint8)
        return format_for(Sample("a", image, Grid(shape, affine=affine), answer(image)), kind)

    def regions(image):
        return Segmentation(np.ones((2, *image.shape[1:]), np.int32), *map(np.array, ([0], [0], [1.0])), CLASSES)

    answers = (classes_of, boxes, road_and_cars, regions)
    assert [chosen(mask_folder, answer) for answer in answers] == [None, "coco", "coco_panoptic", "coco"]
    assert [chosen(volume, answer, (3, 9, 12)) for answer in answers] == [None, "volume", "volume", "nnunet"]
    assert [chosen(tiff, answer, (3, 9, 12)) for answer in answers] == [None, "tiff", "tiff", "tiff"]
    assert [chosen(tiff, answer, affine=np.eye(3)) for answer in answers] == [None, "geojson", "geojson", "geojson"]
    assert [chosen(tiff, answer) for answer in answers] == [None, "coco", "coco_panoptic", "coco"]
    assert [chosen(dicom, answer, (3, 9, 12)) for answer in answers] == [None] * 4
    for shape in ((9, 12), (3, 9, 12)):
        assert [chosen(ome_zarr, answer, shape) for answer in answers] == [None, "ome_zarr", "ome_zarr", "ome_zarr"]


@pytest.mark.parametrize(("name", "format"), [("road", "coco_panoptic"), ("Background", "coco")])
def test_stuff_that_the_first_image_lacks_may_be_in_the_next(name, format):
    classes = Classes.of([name, "car"], is_thing=[False, True])
    cars = Segmentation.panoptic(np.array([[0, 1, 1]]), [1], [1], classes=classes)
    assert format_for(Sample.of("a", np.zeros((1, 1, 3), np.uint8), cars), mask_folder) == format


def test_objects_on_a_map_keep_their_place(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "segwright")
    scale, tie = (33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0, 0, 0, 440720.0, 3751320.0, 0), True)
    tifffile.imwrite(tmp_path / "map.tif", picture(0)[..., 0], extratags=[scale, tie])
    predict(Fake(boxes), tmp_path / "map.tif", tmp_path / "out")
    [sample] = open_dataset(tmp_path / "out")
    assert np.array_equal(sample.truth.masks(), boxes(sample.image).masks()) and sample.truth.scores.tolist() == [0.75, 0.5]
    assert np.array_equal(sample.grid.affine, tiff.tiff_grid(tmp_path / "map.tif").affine) and not caplog.text
    feature = json.loads((tmp_path / "out" / "map.geojson").read_text())["features"][0]
    assert feature["geometry"]["coordinates"][0][0][0] > 440720


def test_objects_may_be_found_late(photos, tmp_path):
    fake = Fake(lambda image: boxes(image) if np.array_equal(image, np.moveaxis(picture(3), -1, 0)) else classes_of(image))
    written = predict(fake, photos, tmp_path / "out", overlay=True)
    assert fake.seen[:4] == [*"0123"] and fake.seen[-5:] == [*"01234"]
    assert not list((tmp_path / "out").glob("*.png"))  # neither masks nor overlays of the first try
    data = open_dataset(tmp_path / "out")
    assert [int(sample.truth.instance_ids.max()) for sample in data] == [0, 0, 0, 2, 0]
    assert written[-1] == tmp_path / "out_overlays" / "4_overlay.jpg" and len(written) == 1 + 5 + 5


def test_volumes_with_objects_keep_their_grid(tmp_path):
    pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
    scan = np.random.default_rng(0).integers(0, 99, (1, 3, 10, 16)).astype(np.int16)
    write_volume(tmp_path / "scans" / "a.nrrd", scan, Grid((3, 10, 16), (3.0, 0.5, 0.5)))
    predict(Fake(road_and_cars), tmp_path / "scans", tmp_path / "out")
    [sample] = open_dataset(tmp_path / "out")
    change = compare_samples(Sample("a", scan, sample.grid, road_and_cars(scan)), sample)
    assert not change.reasons and sample.grid.spacing_mm == (3.0, 0.5, 0.5) and np.array_equal(sample.image, scan)
    assert read_volume(tmp_path / "out" / "masks" / "a.nii.gz")[0].max() == 255
    predict(Fake(classes_of), tmp_path / "scans", tmp_path / "nnunet", format="nnunet")
    assert open_dataset(tmp_path / "nnunet").keys == ("a",)


def test_zarrs_with_objects_keep_all(tmp_path, caplog):
    pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    caplog.set_level(logging.WARNING, "segwright")
    scan, grid = np.random.default_rng(0).integers(0, 99, (2, 3, 10, 16)).astype(np.int16), Grid((3, 10, 16), (3.0, 0.5, 0.5))
    with writing_zarr(tmp_path / "scans" / "a.zarr", grid, scan.dtype, channels=2) as array:
        array[:] = scan
    written = predict(Fake(boxes), tmp_path / "scans", tmp_path / "out")
    [sample] = open_dataset(tmp_path / "out")
    change = compare_samples(Sample("a", scan, grid, boxes(scan)), sample)
    assert not change.reasons and not change.notes and not caplog.text
    assert tmp_path / "out" / "a.ome.zarr" / "labels" / "instances" / "zarr.json" in written


@pytest.mark.parametrize("format", writers())
def test_any_format_by_its_name(photos, tmp_path, format):
    predict(Fake(classes_of), photos, tmp_path / "out", format=format)
    data = open_dataset(tmp_path / "out", format)
    assert data.keys == tuple("01234")
    for sample in data:
        car = data.classes.names.index("car")
        there = (sample.truth.masks()[sample.truth.class_ids == car]).any(axis=0)
        assert np.array_equal(there, sample.image[0] > 100)


def test_pictures_of_a_data_set_lie_beside_it(photos, tmp_path):
    predict(Fake(boxes), photos, tmp_path / "out", overlay=True, format="coco")
    shown = np.array(Image.open(tmp_path / "out_overlays" / "0_overlay.png")).astype(int)
    assert shown[5, 4, 0] > shown[5, 4, 2] + 50  # orange over whatever was there
    assert shown[2:8, 5].min() > shown[2:8, 4].min()  # a line where the second car begins
    assert open_dataset(tmp_path / "out").keys == tuple("01234")


@pytest.mark.parametrize(("format", "name"), [("coco", "instances"), ("coco_panoptic", "panoptic")])
def test_images_of_a_file_of_cocos_keep_its_numbers(photos, tmp_path, format, name):
    named = [
        {"id": 139 - number, "file_name": path.name, "height": 16, "width": 20}
        for number, path in enumerate(sorted(photos.iterdir()))
    ]
    categories = [{"id": 200, "name": "road", "isthing": 0}, {"id": 3, "name": "car", "isthing": 1}]
    empty = {"id": 1, "image_id": 139, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 5]], "area": 8, "iscrowd": 0}
    list_of_images = photos / "instances.json"
    list_of_images.write_text(json.dumps({"images": named, "annotations": [empty], "categories": categories}))
    predict(Fake(road_and_cars), list_of_images, tmp_path / "out", format=format)
    content = json.loads((tmp_path / "out" / "annotations" / f"{name}.json").read_text())
    assert [(image["id"], image["file_name"]) for image in content["images"]] == [(e["id"], e["file_name"]) for e in named]
    assert {each["name"]: each["id"] for each in content["categories"]} == {"road": 200, "car": 3}
    assert {each["image_id"] for each in content["annotations"]} == {139, 138, 137, 136, 135}
    for annotation in content["annotations"]:
        entries = annotation.get("segments_info", [annotation])
        assert {entry["category_id"] for entry in entries} <= {200, 3}
    [first, *_] = open_dataset(tmp_path / "out")
    assert not compare_samples(Sample.of("0", first.image, road_and_cars(first.image)), first).reasons


# By a law


def test_a_stopped_run_goes_on(photos, tmp_path):
    def stop(image):
        if len(stopping.seen) == 4:
            raise KeyboardInterrupt
        return boxes(image)

    stopping, again, whole = Fake(stop), Fake(boxes), Fake(boxes)
    with pytest.raises(KeyboardInterrupt):
        predict(stopping, photos, tmp_path / "out")
    with pytest.raises(OutputError, match="is unfinished: it was to hold what a model finds in .*photos as coco; finish that"):
        predict(Fake(boxes), photos, tmp_path / "out", format="yolo")
    predict(again, photos, tmp_path / "out")
    assert again.seen == [*"01234"[5 - len(again.seen) :]] and len(again.seen) < 5
    predict(whole, photos, tmp_path / "whole")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


# By its messages


def test_what_fails_is_left_out_and_named(photos, tmp_path):
    def answer(image):
        if len(fake.seen) in (2, 5):
            raise ShapeError("too wide")
        return boxes(image)

    (photos / "3.png").write_bytes(b"no image")
    fake = Fake(answer)
    with pytest.raises(UsageError, match="2 of 5 images could not be predicted, the others are in .*out") as error:
        predict(fake, photos, tmp_path / "out", format="coco")
    assert "1.png: too wide" in str(error.value) and "3.png is not an image" in str(error.value)
    assert open_dataset(tmp_path / "out").keys == tuple("024")
    for photo in photos.iterdir():
        photo.write_bytes(b"no image")
    with pytest.raises(UsageError, match="5 of 5 images could not be predicted, nothing was written"):
        predict(fake, photos, tmp_path / "none", format="coco")


def test_what_a_format_loses_is_said_once(photos, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    predict(Fake(boxes), photos, tmp_path / "coco", format="coco")
    assert not caplog.text
    predict(Fake(boxes), photos, tmp_path / "yolo", format="yolo")
    [record] = caplog.records
    assert "yolo does not hold all that was predicted: " in record.message and "scores are not kept" in record.message
    caplog.clear()
    unsure = Segmentation.panoptic(np.eye(16, 20, dtype=np.int32), [1], scores=[0.5], classes=CLASSES)
    predict(Fake(lambda image: unsure), photos, tmp_path / "masks")
    [record] = caplog.records
    assert "scores are not kept; pixels of no segment become void; a data set may" in record.message


def test_one_sample_of_each_kind_is_kept():
    losses = Losses()
    for key, answer in (("a", classes_of), ("b", boxes), ("c", classes_of), ("d", boxes), ("e", road_and_cars)):
        image = np.zeros((1, 10, 16), np.uint8)
        losses.keep(Sample.of(key, image, answer(image)))
    assert [sample.key for sample in losses.kept.values()] == ["a", "b", "e"]


def test_wrong_formats_and_places(photos, tmp_path):
    fake = Fake(lambda image: pytest.fail("work was done"))
    with pytest.raises(UnknownNameError, match="no format 'cocoo' can be written, did you mean 'coco'.*known are ade20k"):
        predict(fake, photos, tmp_path / "out", format="cocoo")
    with pytest.raises(UnknownNameError, match="no format 'dicom' can be written.*known are ade20k"):
        predict(fake, photos, tmp_path / "out", format="dicom")
    with pytest.raises(OutputError, match="a palette is for masks, and coco keeps colours in its own way"):
        predict(fake, photos, tmp_path / "out", format="coco", palette=True)
    with pytest.raises(OutputError, match="is not empty, and a data set needs a folder of its own; choose another"):
        predict(fake, photos / "0.png", photos, format="coco")
    assert not (tmp_path / "out").exists()


def test_what_a_format_refuses_ends_the_run(tmp_path):
    pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
    for name in "abcdefgh":
        write_volume(tmp_path / "scans" / f"{name}.nrrd", np.zeros((1, 3, 10, 16), np.uint8), Grid((3, 10, 16)))
    with pytest.raises(OutputError, match="'a' is a volume, .*write it as nnunet, volume or mask_folder"):
        predict(Fake(boxes), tmp_path / "scans", tmp_path / "out", format="coco")
    assert not (tmp_path / "out").exists()

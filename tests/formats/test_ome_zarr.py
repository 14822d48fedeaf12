"""Data sets of Zarr folders. Axes: C, (D, H, W)."""

import json
import shutil

import numpy as np
import pytest

from segwright.codecs.image_writer import write_image
from segwright.codecs.volume_file import write_volume
from segwright.codecs.zarr_writer import notes_of_labels, writing_zarr
from segwright.conversion import compare_samples, convert
from segwright.core import VOID, Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import ome_zarr, open_dataset

zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")

CLASSES = Classes.of(["background", "liver", "lesion"])
GRID = Grid((3, 4, 5), (2.5, 0.7, 0.5))
IMAGE = np.arange(120, dtype=np.uint16).reshape(2, 3, 4, 5)
NUMBERS = (np.arange(60) % 3).reshape(3, 4, 5).astype(np.uint8)


def put(path, values, grid=GRID, **notes):
    channels = None if values.ndim == len(grid.shape) else len(values)
    with writing_zarr(path, grid, values.dtype, channels=channels, notes=notes) as array:
        array[:] = values
    return path


def with_labels(path, **labels):
    put(path, IMAGE)
    zarr.create_group(store=str(path / "labels"), zarr_format=3, attributes={"ome": {"labels": [*labels]}})
    for name, numbers in labels.items():
        put(path / "labels" / name, numbers)
    return path


# By hand


def test_one_folder_is_an_image(tmp_path):
    path = put(tmp_path / "head.ome.zarr", IMAGE)
    assert ome_zarr.matches(path) and ome_zarr.matches(tmp_path) and not ome_zarr.matches(path / "0")
    [only] = open_dataset(path)
    assert only.key == "head" and only.truth is None and only.grid.spacing_mm == GRID.spacing_mm
    np.testing.assert_array_equal(only.image, IMAGE)


def test_truth_lies_in_the_folder_of_the_image(tmp_path):
    with_labels(tmp_path / "b10.zarr", tissue=NUMBERS)
    with_labels(tmp_path / "b9.zarr", other=NUMBERS, masks=NUMBERS[::-1].copy())
    (tmp_path / "classes.json").write_text(json.dumps([*CLASSES.names]))
    data = open_dataset(tmp_path)
    assert data.keys == ("b9", "b10") and data.classes.names == CLASSES.names and set(data.image_files) == {"b9", "b10"}
    np.testing.assert_array_equal(data[0].truth.class_map(), NUMBERS[::-1])
    np.testing.assert_array_equal(data[1].truth.class_map(), NUMBERS)
    bare = data.without_images()[1]
    assert bare.image.shape == (0, 3, 4, 5) and np.array_equal(bare.truth.class_map(), NUMBERS)


def test_images_and_masks_lie_side_by_side(tmp_path):
    put(tmp_path / "images" / "sub" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "sub" / "a_seg.zarr", NUMBERS)
    data = open_dataset(tmp_path)
    assert data.keys == ("sub__a",) and data.classes.names == ("class_0", "class_1", "class_2")
    np.testing.assert_array_equal(data[0].truth.class_map(), NUMBERS)


def test_numbers_mean_what_label_images_say(tmp_path):
    told = {
        "colors": [{"label-value": 2, "rgba": [9, 8, 7, 255]}, {"label-value": 1, "rgba": [0, 0, 0, 0]}],
        "properties": [{"label-value": 2, "name": "cell"}],
    }
    put(tmp_path / "images" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "a.zarr", NUMBERS, **{"image-label": told})
    [only] = open_dataset(tmp_path)
    assert only.truth.classes.names == ("cell",)
    assert np.array_equal(only.truth.mask(0), NUMBERS == 2) and np.array_equal(only.truth.planes[0] == VOID, NUMBERS == 1)
    put(tmp_path / "images" / "b.zarr", IMAGE)
    put(tmp_path / "masks" / "b.zarr", NUMBERS)
    with pytest.raises(FormatError, match="give other names to their numbers; write classes.json"):
        open_dataset(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps([*CLASSES.names]))
    assert open_dataset(tmp_path).classes.names == CLASSES.names


def test_a_folder_of_label_images_holds_masks_alone(tmp_path):
    told = {"properties": [{"label-value": 1, "name": "liver"}, {"label-value": 2, "name": "lesion"}]}
    put(tmp_path / "a.zarr", NUMBERS, **{"image-label": told})
    put(tmp_path / "a_probabilities.zarr", IMAGE)
    for place in (tmp_path, tmp_path / "a.zarr"):
        [only] = open_dataset(place)
        assert only.key == "a" and only.image.shape == (0, 3, 4, 5) and only.truth.classes.names == ("liver", "lesion")
        assert np.array_equal(only.truth.class_map(), NUMBERS.astype(int) - 1)
    put(tmp_path / "b.zarr", IMAGE)
    with pytest.raises(
        FormatError, match=r"a.zarr is a label image and .*b.zarr is none \(1 of 2 are\); put them into images/"
    ):
        open_dataset(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "b.zarr").rename(tmp_path / "images" / "a.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / "masks" / "a.zarr")
    assert open_dataset(tmp_path)[0].image.shape == IMAGE.shape


@pytest.mark.parametrize("kind", ["png", "nii.gz"])
def test_masks_lie_beside_images_of_any_kind(tmp_path, kind):
    numbers = NUMBERS[0] if kind == "png" else NUMBERS
    put(tmp_path / "masks" / "a.zarr", numbers, Grid(numbers.shape))
    put(tmp_path / "instances" / "a.zarr", (numbers // 2).astype(np.uint16) * 300, Grid(numbers.shape))
    (tmp_path / "classes.json").write_text(json.dumps([*CLASSES.names]))
    if kind == "png":
        write_image(tmp_path / "images" / "a", IMAGE[:1, 0].astype(np.uint8))
    else:
        pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
        write_volume(tmp_path / "images" / "a.nii.gz", IMAGE[:1], GRID)
    data = open_dataset(tmp_path)
    [only], bare = data, data.without_images()[0]
    assert np.array_equal(only.image[0], IMAGE[0, 0] if kind == "png" else IMAGE[0]) and bare.image.shape == (0, *numbers.shape)
    assert only.grid.spacing_mm == (None if kind == "png" else pytest.approx(GRID.spacing_mm))  # NIfTI has float32
    assert np.array_equal(only.truth.class_map(), numbers) and {*only.truth.instance_ids.tolist()} == {0, 300}


def test_what_is_written_opens_with_zarr_alone(tmp_path):
    generator = np.random.default_rng(0)
    image, numbers = generator.integers(0, 4000, (2, 5, 300, 700), np.uint16), generator.integers(0, 3, (5, 300, 700))
    grid = Grid(numbers.shape, (2.0, 0.5, 0.5))
    ome_zarr.write(tmp_path, [Sample("a", image, grid, Segmentation.semantic(numbers, CLASSES))])
    group = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="r")
    assert np.array_equal(group["0"][:], image) and np.array_equal(group["labels/masks/0"][:], numbers)
    for root, front in ((group, [1.0]), (group["labels/masks"], [])):
        [scales] = root.attrs["ome"]["multiscales"]
        assert scales["type"] == ("mean" if front else "nearest") and root.attrs["ome"]["version"] == "0.5"
        assert [entry["path"] for entry in scales["datasets"]] == ["0", "1", "2"]
        assert scales["datasets"][2]["coordinateTransformations"] == [
            {"type": "scale", "scale": [*front, 2.0, 2.0, 2.0]},
            {"type": "translation", "translation": [*(0.0 for _ in front), 0.0, 0.75, 0.75]},
        ]
        assert root["2"].shape[-3:] == (5, 75, 175) and root["2"].dtype == root["0"].dtype
    blocks = image[:, :, :4, :4].reshape(2, 5, 2, 2, 2, 2).mean(axis=(3, 5))
    assert np.abs(group["1"][:, :, :2, :2] - blocks).max() <= 0.5
    assert group["labels"].attrs["ome"]["labels"] == ["masks"]


# By a law


def truth_on(shape):
    return Segmentation.semantic(np.random.default_rng(0).integers(VOID, 3, shape), CLASSES)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f2", "f4", "f8"])
def test_images_come_back(tmp_path, dtype):
    image = (np.random.default_rng(0).random((3, 70, 9)) * 100).astype(dtype)
    affine = np.array([[0, 2.0, 7], [3.0, 0, 8], [0, 0, 1]])
    ome_zarr.write(tmp_path, [Sample("a.ome", image, Grid((70, 9), (3.0, 2.0), affine), truth_on((70, 9)))])
    [read] = open_dataset(tmp_path)
    assert read.key == "a.ome" and read.image.dtype == image.dtype and np.array_equal(read.image, image)
    assert read.grid.spacing_mm == (3.0, 2.0) and np.array_equal(read.grid.affine, affine)


@pytest.mark.parametrize(("shape", "channels"), [((1, 4, 5), 1), ((1, 4, 5), 0), ((4, 5), 0)])
def test_a_stack_of_one_slice_and_masks_without_images_come_back(tmp_path, shape, channels):
    before = Sample("a", np.zeros((channels, *shape), np.uint8), Grid(shape, (2.0, 1.0, 1.0)[-len(shape) :]), truth_on(shape))
    ome_zarr.write(tmp_path / "data", [before])
    [after] = open_dataset(tmp_path / "data")
    change = compare_samples(before, after)
    assert after.image.shape == before.image.shape and not change.reasons and not change.notes
    again = convert(tmp_path / "data", tmp_path / "again", "ome_zarr")
    assert again.lossless == 1 and not again.notes


@pytest.mark.parametrize("grid", [GRID, Grid((4, 5))])
def test_masks_that_are_written_come_back(tmp_path, grid):
    truth = Segmentation.semantic(np.random.default_rng(0).integers(VOID, 3, grid.shape), CLASSES)
    image = put(tmp_path / "images" / "a.zarr", np.zeros((1, *grid.shape), np.uint8), grid)
    source = open_dataset(image)
    path = ome_zarr.write_mask(tmp_path / "masks", Sample("a", source[0].image, grid, truth), source)
    assert path == ome_zarr.mask_path(tmp_path / "masks", "a", source)
    [read] = open_dataset(tmp_path)
    assert read.truth.classes == CLASSES and np.array_equal(read.truth.class_map(), truth.class_map())


# By its messages


def test_refuses_what_has_no_partner(tmp_path):
    put(tmp_path / "images" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "b.zarr", NUMBERS)
    with pytest.raises(FormatError, match=r"a.zarr has no mask of its name \(1 images and 1 masks have none\); add it"):
        ome_zarr.read(tmp_path)
    (tmp_path / "images" / "a.zarr").rename(tmp_path / "images" / "b.zarr")
    assert ome_zarr.read(tmp_path).keys == ("b",)
    (tmp_path / "images").rename(tmp_path / "others")
    with pytest.raises(FormatError, match="in 0 folders of images and .zarr in 1 of masks; put them into images/ and masks/"):
        ome_zarr.read(tmp_path)


def test_refuses_several_label_images_and_images_without(tmp_path):
    with_labels(tmp_path / "a.zarr", cells=NUMBERS, nuclei=NUMBERS)
    with pytest.raises(FormatError, match="label images cells, nuclei, and one is needed; call that 'masks'"):
        ome_zarr.read(tmp_path)
    with_labels(tmp_path / "a.zarr", cells=NUMBERS)
    put(tmp_path / "b.zarr", IMAGE)
    with pytest.raises(FormatError, match="b.zarr has no label image, 1 of 2 have none; add them, or move these"):
        ome_zarr.read(tmp_path)


@pytest.mark.parametrize("how", ["guessed", "named", "written", "with objects"])
def test_negative_numbers_are_void_where_that_is_said_and_refused_elsewhere(tmp_path, how):
    numbers = NUMBERS.astype(np.int16)
    numbers[0, 0, 0] = -1
    path = with_labels(tmp_path / "a.zarr", masks=numbers, **({"instances": NUMBERS} if how == "with objects" else {}))
    if how == "named":
        notes = notes_of_labels(CLASSES, 255, is_inside=True)
        put(path / "labels" / "masks", numbers, **notes)
    if how in ("written", "with objects"):
        (tmp_path / "classes.json").write_text(json.dumps([*CLASSES.names]))
    truth = open_dataset(tmp_path)[0].truth
    assert truth.planes[0, 0, 0, 0] == VOID and (truth.planes == VOID).sum() == 1
    numbers[0, 0, 1] = -7
    shutil.rmtree(path / "labels" / "masks")
    put(path / "labels" / "masks", numbers, **(notes if how == "named" else {}))
    with pytest.raises(FormatError, match=r"holds 2 negative numbers, -7\.\.-1; one may be there, for void"):
        open_dataset(tmp_path)[0]
    numbers[0, 0, :2] = -7
    shutil.rmtree(path / "labels" / "masks")
    put(path / "labels" / "masks", numbers, **(notes if how == "named" else {}))
    if how == "guessed":
        assert (open_dataset(tmp_path)[0].truth.planes == VOID).sum() == 2
        return
    with pytest.raises(FormatError, match=r'holds the number -7 at 2 of 60 .*write "ignore_index": -7'):
        open_dataset(tmp_path)[0]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [*CLASSES.names], "ignore_index": -7}))
    assert (open_dataset(tmp_path)[0].truth.planes == VOID).sum() == 2


def test_refuses_another_shape_and_two_of_one_name(tmp_path):
    put(tmp_path / "images" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "a.zarr", NUMBERS[:2].copy(), Grid((2, 4, 5)))
    with pytest.raises(FormatError, match="3 x 4 x 5, .* is 2 x 4 x 5"):
        open_dataset(tmp_path)[0]
    put(tmp_path / "images" / "a.ome.zarr", IMAGE)
    with pytest.raises(FormatError, match="have one name, so that their partner is not clear"):
        ome_zarr.read(tmp_path)


def test_parts_that_are_gone_are_told_and_no_background(tmp_path):
    numbers = np.ones((4, 5), int)
    truth = Segmentation.panoptic(numbers, [1], [3], classes=CLASSES)
    ome_zarr.write(tmp_path / "data", [Sample.of("a", np.zeros((1, 4, 5), np.uint8), truth)])
    labels = ("a.ome.zarr", "labels")
    cases = [
        (("a.ome.zarr", "zarr.json"), "a.ome.zarr is no Zarr: it holds none of zarr.json"),
        (("a.ome.zarr", "0", "zarr.json"), "a.ome.zarr is damaged or cut short"),
        (("a.ome.zarr", "0", "c", "0", "0", "0"), "a.ome.zarr is not whole: 1 of its 1 chunks are gone"),
        ((*labels, "zarr.json"), "labels is no Zarr: it holds none of zarr.json"),
        ((*labels, "masks"), "labels lists the label image 'masks', which is not there; copy it again"),
        ((*labels, "instances"), "labels lists the label image 'instances', which is not there"),
        ((*labels, "masks", "zarr.json"), "masks is no Zarr"),
        ((*labels, "masks", "0", "zarr.json"), "masks is damaged or cut short"),
        ((*labels, "masks", "0", "c", "0", "0"), "masks is not whole"),
        ((*labels, "instances", "0", "c", "0", "0"), "instances is not whole"),
    ]
    for number, (parts, message) in enumerate(cases):
        root = shutil.copytree(tmp_path / "data", tmp_path / str(number))
        gone = root.joinpath(*parts)
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
        with pytest.raises(FormatError, match=message):
            open_dataset(root)[0]


def test_a_chunk_that_is_cut_short(tmp_path):
    truth = truth_on((40, 50))
    ome_zarr.write(tmp_path, [Sample.of("a", np.zeros((1, 40, 50), np.uint8), truth)])
    chunk = tmp_path / "a.ome.zarr" / "labels" / "masks" / "0" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with pytest.raises(FormatError, match="labels/masks is damaged or cut short .*; copy it again"):
        open_dataset(tmp_path)[0]


def test_values_that_are_no_numbers_are_not_written(tmp_path):
    sample = Sample.of("a", np.zeros((1, 4, 5), np.complex64), truth_on((4, 5)))
    with pytest.raises(OutputError, match="OME-Zarr holds no complex64; convert it to uint8 or float32"):
        ome_zarr.write(tmp_path / "new", [sample])


def test_a_mask_holds_no_objects(tmp_path):
    truth = Segmentation.panoptic(np.ones((4, 5), int), [1], [3], classes=CLASSES)
    with pytest.raises(OutputError, match="has 1 objects"):
        ome_zarr.write_mask(tmp_path, Sample("a", np.zeros((1, 4, 5), np.uint8), Grid((4, 5)), truth), None)

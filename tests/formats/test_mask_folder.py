import json
import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import coco
from segwright.formats.image_index import found, natural, safe_key
from segwright.formats.label_maps import to_maps
from segwright.formats.mask_folder import image_files, matches, read, read_images, write

THREE = Classes.of(["a", "b", "c"])
CELLS = Classes.of(["background", "cell"], is_thing=[False, True])
IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)
MASK = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 0, 0, 0]], dtype=np.uint8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def folder_of(root, *names, images="images", masks="masks", image=IMAGE, mask=MASK):
    for name in names:
        save(root / images / f"{name}.png", image)
        save(root / masks / f"{name}.png", mask)
    return root


# By hand


def test_a_folder_becomes_samples(tmp_path):
    data = read(folder_of(tmp_path, "one", "two"))
    assert data.keys == ("one", "two") and data.classes.names == ("class_0", "class_1", "class_2")
    assert data.source == str(tmp_path) and matches(tmp_path)
    assert np.array_equal(data[1].image[0], IMAGE) and np.array_equal(data[1].truth.class_map(), MASK)


def test_subfolders_are_part_of_the_key(tmp_path):
    folder_of(tmp_path, "bonn/1", "bonn/2", "ulm/1")
    assert read(tmp_path).keys == ("bonn__1", "bonn__2", "ulm__1")


def test_numbers_in_names_count_as_numbers(tmp_path):
    assert read(folder_of(tmp_path, "f10", "f9", "f09", "f1")).keys == ("f1", "f09", "f9", "f10")
    assert natural("Frame_10") < natural("frame_11")


def test_classes_are_found_here_and_above(tmp_path):
    folder_of(tmp_path / "train", "one")
    (tmp_path / "classes.json").write_text(json.dumps(["x", "y", "z"]))
    assert read(tmp_path / "train").classes.names == ("x", "y", "z")
    (tmp_path / "train" / "classes.json").write_text(json.dumps(["u", "v", "w"]))
    assert read(tmp_path / "train").classes.names == ("u", "v", "w")


def test_a_mask_from_before_the_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "images").mkdir()
    Image.fromarray(IMAGE).save(tmp_path / "images" / "a.png", exif=exif)
    save(tmp_path / "masks" / "a.png", MASK)
    sample = read(tmp_path)[0]
    assert sample.image.shape == (1, 4, 3) and np.array_equal(sample.truth.class_map(), np.rot90(MASK, -1))


def test_images_alone(tmp_path):
    save(tmp_path / "a.png", IMAGE)
    save(tmp_path / "sub" / "b.png", IMAGE)
    data = read_images(tmp_path)
    assert data.keys == ("a", "sub__b") and data[0].truth is None
    assert read_images(tmp_path / "a.png").keys == ("a",)
    save(tmp_path / "a.bmp", IMAGE)
    assert list(image_files(tmp_path)) == ["a_bmp", "a_png", "sub__b"]
    assert read_images(folder_of(tmp_path / "pairs", "one")).keys == ("one",)


def test_a_data_set_travels_to_other_processes(tmp_path):
    data = pickle.loads(pickle.dumps(read(folder_of(tmp_path, "one"))))
    assert np.array_equal(data[0].truth.class_map(), MASK)


def test_object_numbers_beside_the_masks(tmp_path, caplog):
    numbers = np.array([[0, 0, 7, 7], [0, 9, 9, 8], [0, 0, 0, 0]], dtype=np.uint16)
    save(folder_of(tmp_path, "one", "two") / "instances" / "one.png", numbers)
    data = read(tmp_path)
    one = data[0].truth
    assert list(zip(one.class_ids, one.instance_ids, one.areas(), strict=True)) == [(0, 0, 7), (1, 7, 2), (1, 8, 1), (2, 9, 2)]
    assert data[1].truth.instance_ids.tolist() == [0, 0, 0]
    (tmp_path / "instances" / "one.png").rename(tmp_path / "instances" / "other.png")
    assert read(tmp_path)[0].truth.instance_ids.tolist() == [0, 0, 0] and "give both the same names" in caplog.text


def test_pictures_of_colors(tmp_path):
    picture = np.zeros((3, 4, 3), np.uint8)
    picture[1] = 10, 20, 30
    folder_of(tmp_path, "a", mask=picture)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["x", "y"], "palette": [[10, 20, 30], [4, 5, 6]]}))
    assert read(tmp_path)[0].truth.class_map().tolist() == [[VOID] * 4, [0] * 4, [VOID] * 4]


def test_masks_without_images(tmp_path, caplog):
    save(tmp_path / "masks" / "a.png", MASK)
    assert not matches(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps(["x", "y", "z"]))
    assert matches(tmp_path)
    sample = read(tmp_path)[0]
    assert sample.image.shape == (0, 3, 4) and sample.truth.class_map().tolist() == MASK.tolist()
    assert "holds masks and no images" in caplog.text
    write(tmp_path / "again", read(tmp_path))
    assert read(tmp_path / "again")[0].image.shape == (0, 3, 4)


@pytest.mark.parametrize(
    ("image", "mask", "shape"),
    [
        ({"photometric": "minisblack"}, {"photometric": "minisblack"}, (1, 6, 7, 9)),
        ({"photometric": "minisblack"}, {"imagej": True, "metadata": {"axes": "ZYX"}}, (1, 6, 7, 9)),
        ({"imagej": True, "metadata": {"axes": "ZYX"}}, {"photometric": "minisblack"}, (1, 6, 7, 9)),
        ({"imagej": True}, {"imagej": True}, (1, 6, 7, 9)),  # which says CYX where nobody names the axes
        ({"metadata": None, "photometric": "minisblack"}, {"photometric": "minisblack"}, (1, 6, 7, 9)),  # pages alone
        ({"photometric": "minisblack"}, None, (6, 7, 9)),
    ],
)
def test_the_mask_tells_slices_from_channels(tmp_path, image, mask, shape):
    stack, numbers = np.arange(378, dtype=np.uint16).reshape(6, 7, 9), np.arange(378, dtype=np.uint16).reshape(6, 7, 9) // 40
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", stack, **image)
    tifffile.imwrite(tmp_path / "masks/a.tif", numbers[0] if mask is None else numbers, **(mask or {}))
    data = read(tmp_path)
    sample = data[0]
    assert np.array_equal(sample.image, stack.reshape(shape)) and sample.truth.shape == shape[1:]
    assert np.array_equal(data.without_images()[0].truth.planes, sample.truth.planes)
    assert np.array_equal(sample.truth.instance_ids, np.unique(numbers[0] if mask is None else numbers))


def test_samples_that_dataset_toml_drops_may_lack_files(tmp_path):
    folder_of(tmp_path, "a", "b", "c")
    (tmp_path / "masks" / "b.png").unlink()
    (tmp_path / "dataset.toml").write_text('drop = ["b"]')
    assert read(tmp_path).keys == ("a", "c")
    (tmp_path / "dataset.toml").write_text('drop = ["a", "b", "c"]')
    with pytest.raises(FormatError, match="dataset.toml drops all samples of .*; shorten its list"):
        read(tmp_path)


def test_what_is_on_disk(tmp_path):
    things = Classes.of(["road", "car", "cat"], is_thing=[False, True, True])
    planes = np.array([[1, 1, 2, 3], [0, 4, VOID, 5]])
    truth = Segmentation.panoptic(planes, [0, 1, 1, 1, 2], [0, 5, 9, 0, 70_000], classes=things)
    write(tmp_path, [Sample.of("one", np.zeros((1, 2, 4), np.uint8), truth)])
    assert np.array(Image.open(tmp_path / "masks" / "one.png")).tolist() == [[0, 0, 1, 1], [3, 1, 255, 2]]
    assert tifffile.imread(tmp_path / "instances" / "one.tif").tolist() == [[0, 0, 5, 9], [0, 0, 0, 70_000]]
    assert json.loads((tmp_path / "classes.json").read_text())["nothing_index"] == 3
    cells = Classes.of(["cell"], is_thing=[True])
    truth = Segmentation.panoptic(planes, [0] * 5, [1, 2, 3, 0, 4], classes=cells)
    write(tmp_path / "cells", [Sample.of("one", np.zeros((1, 2, 4), np.uint8), truth)])
    assert np.array(Image.open(tmp_path / "cells" / "masks" / "one.png")).tolist() == [[1, 1, 2, 3], [0, 65534, 65535, 4]]


def test_more_objects_than_16_bits_hold(tmp_path):
    numbers = np.arange(70_000).reshape(200, 350)
    truth = Segmentation.panoptic(numbers + 1, [0] + [1] * 69_999, numbers.ravel(), classes=CELLS)
    sample = Sample.of("one", np.zeros((1, 200, 350), np.uint8), truth)
    write(tmp_path / "written", [sample])
    back = read(tmp_path / "written")[0].truth
    assert np.array_equal(back.planes, truth.planes) and np.array_equal(back.instance_ids, truth.instance_ids)
    (tmp_path / "plain" / "masks").mkdir(parents=True)
    save(tmp_path / "plain" / "images" / "one.png", np.zeros((200, 350), np.uint8))
    tifffile.imwrite(tmp_path / "plain" / "masks" / "one.tif", numbers.astype(np.uint32))
    found = read(tmp_path / "plain")
    assert found.classes.names == ("background", "object") and found[0].truth.instance_ids.max() == 69_999
    coco.write(tmp_path / "coco", found.subset(found.keys))
    assert len(coco.read(tmp_path / "coco")[0].truth) >= 69_999


def test_object_numbers_count_by_what_is_shown(tmp_path):
    picture = Image.fromarray(np.array([[1, 1, 0, 0]] * 3, np.uint8))
    picture.putpalette([7, 7, 7, 0, 0, 0])
    (folder_of(tmp_path, "a") / "instances").mkdir()
    picture.save(tmp_path / "instances" / "a.png")
    assert set(read(tmp_path)[0].truth.instance_ids) == {0, 7}
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3)).save(tmp_path / "instances" / "a.png")
    with pytest.raises(FormatError, match="a.png is a picture of colours; save one object number per pixel"):
        read(tmp_path)[0]


# By a law


segments = st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 300, 65532]))


@settings(max_examples=60)
@given(
    maps=st.lists(arrays(np.int64, (4, 5), elements=st.integers(-1, 4)), min_size=1, max_size=3),
    table=st.lists(segments, min_size=4, max_size=4, unique=True),
    things=st.sampled_from([(True,), (False, True), (False, False, True, True), (False,)]),
)
def test_panoptic_truth_comes_back(tmp_path_factory, maps, table, things):
    """Whatever does not overlap survives: void, nothing, crowds, objects, in samples that are not alike."""
    classes = Classes.of([f"c{k}" for k in range(len(things))], is_thing=things)
    table = sorted({(k % len(things), n if things[k % len(things)] else 0) for k, n in table})
    truths = [Segmentation.panoptic(np.minimum(m, len(table)), *zip(*table, strict=True), classes=classes) for m in maps]
    root = tmp_path_factory.mktemp("data")
    write(root, [Sample.of(f"s{k}", np.zeros((1, 4, 5), np.uint8), truth) for k, truth in enumerate(truths)])
    data = read(root)
    assert data.classes == classes and len(data) == len(truths)
    for sample, truth in zip(data, truths, strict=True):
        for back, expected in zip(to_maps(sample.truth), to_maps(truth), strict=True):
            assert np.array_equal(back, expected)


def same(written, read_back):
    assert written.key == read_back.key and written.image.dtype == read_back.image.dtype
    assert np.array_equal(written.image, read_back.image)
    assert np.array_equal(written.truth.class_map(), read_back.truth.class_map())


class_maps = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: st.one_of(
        arrays(np.int64, shape, elements=st.integers(-1, 2)), st.integers(-1, 2).map(lambda value: np.full(shape, value))
    )
)


@settings(max_examples=40)
@given(class_map=class_maps, many=st.booleans(), channels=st.integers(1, 4), seed=st.integers(0, 9))
def test_semantic_truth_comes_back(tmp_path_factory, class_map, many, channels, seed):
    classes = Classes.of([f"c{k}" for k in range(300)]) if many else THREE
    class_map = np.where(class_map == 2, len(classes) - 1, class_map)
    image = np.random.default_rng(seed).integers(0, 255, (channels, *class_map.shape), dtype=np.uint8)
    sample = Sample.of("one", image, Segmentation.semantic(class_map, classes))
    root = tmp_path_factory.mktemp("data")
    write(root, [sample])
    data = read(root)
    assert data.classes == classes
    same(sample, data[0])


@settings(max_examples=40)
@given(
    numbers=arrays(np.int64, (5, 6), elements=st.sampled_from([VOID, 0, 1, 2, 700, 65532])),
    only=st.sampled_from([None, 0, 1, VOID]),
)
def test_instance_truth_comes_back(tmp_path_factory, numbers, only):
    numbers = numbers if only is None else np.full((5, 6), only)
    values = np.unique(numbers[numbers >= 0])
    segments = np.where(numbers < 0, VOID, np.searchsorted(values, numbers) + 1)
    truth = Segmentation.panoptic(segments, (values > 0).astype(int), values, classes=CELLS)
    root = tmp_path_factory.mktemp("cells")
    write(root, [Sample.of("one", np.zeros((1, 5, 6), np.float32), truth)])
    data = read(root)
    assert data.classes == CELLS
    back = data[0].truth
    assert np.array_equal(back.planes, truth.planes) and np.array_equal(back.instance_ids, truth.instance_ids)
    assert np.array_equal(back.class_ids, truth.class_ids)


def test_volumes_come_back(tmp_path):
    generator = np.random.default_rng(0)
    volume = Sample.of(
        "scan",
        generator.random((2, 4, 5, 6), dtype=np.float32),
        Segmentation.semantic(generator.integers(-1, 3, (4, 5, 6)), THREE),
    )
    write(tmp_path, [volume])
    same(volume, read(tmp_path)[0])


def test_regions_come_back_with_their_numbers(tmp_path):
    classes = Classes.of(["kidney", "masses", "tumor"], regions=[[1, 2, 3], [3, 2], [2]])
    masks = np.array([[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]], bool)[:, None]
    truth = Segmentation.regions(masks, classes).with_void(np.array([[0, 0, 0, 0, 1]], bool))
    write(tmp_path, [Sample.of("a", np.zeros((1, 1, 5), np.uint8), truth)])
    assert np.array(Image.open(tmp_path / "masks" / "a.png")).tolist() == [[0, 1, 3, 2, 255]]
    [again] = read(tmp_path)
    assert again.truth.classes == classes and np.array_equal(again.truth.masks(), masks)
    assert np.array_equal(again.truth.planes == VOID, truth.planes == VOID)


def test_overlapping_objects_the_last_covers(tmp_path):
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[0, :2], masks[1, 1:] = True, True
    truth = Segmentation.instances(masks, [1, 1], classes=CELLS)
    write(tmp_path, [Sample.of("one", np.zeros((1, 3, 3), np.uint8), truth)])
    assert read(tmp_path)[0].truth.instance_ids.tolist() == [1, 2]
    assert read(tmp_path)[0].truth.areas().tolist() == [3, 6]


# By its messages


def test_places_that_are_no_data_set(tmp_path):
    with pytest.raises(FormatError, match="nowhere is not a folder; give the folder that holds images/"):
        read(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"has no folder of images \(it is empty\); call it images/"):
        read(tmp_path)
    assert not matches(tmp_path) and not matches(tmp_path / "nowhere")
    save(tmp_path / "images" / "a.png", IMAGE)
    with pytest.raises(FormatError, match=r"has no folder of masks \(the folder images/\); call it masks/"):
        read(tmp_path)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.xml").write_text("<a/>")
    with pytest.raises(FormatError, match=r"masks holds no image \(1 .xml\); images end in .png"):
        read(tmp_path)
    save(tmp_path / "masks" / "a.png", MASK)
    save(tmp_path / "labels" / "a.png", MASK)
    with pytest.raises(FormatError, match="several folders of masks, labels and masks; move or rename all but one"):
        read(tmp_path)


def test_sizes_that_differ(tmp_path):
    folder_of(tmp_path, "a", mask=MASK[:2])
    with pytest.raises(FormatError, match=r"a.png is 2 x 4, its image .*a.png is 3 x 4 .*export the mask again"):
        read(tmp_path)[0]


def test_a_truncated_image_is_named(tmp_path):
    folder_of(tmp_path, "a")
    path = tmp_path / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError, match="a.png is damaged or cut short"):
        read(tmp_path)[0]


def test_a_number_outside_the_classes(tmp_path):
    folder_of(tmp_path, "a")
    (tmp_path / "classes.json").write_text(json.dumps(["x", "y"]))
    with pytest.raises(FormatError, match="masks/a.png holds the number 2 at 2 of 12 pixels, but .* 2 classes"):
        read(tmp_path)[0]


def test_no_images_to_predict(tmp_path):
    with pytest.raises(FormatError, match="gone does not exist; give an image file or a folder"):
        read_images(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FormatError, match=r"holds no image \(1 .txt\); images end in"):
        read_images(tmp_path)


def test_what_cannot_be_written(tmp_path):
    image = np.zeros((1, 2, 2), np.uint8)
    good = Sample.of("one", image, Segmentation.semantic(np.zeros((2, 2), int), THREE))
    with pytest.raises(OutputError, match="no sample was given"):
        write(tmp_path / "none", [])
    with pytest.raises(OutputError, match="'two' has no truth"):
        write(tmp_path / "bare", [Sample.of("two", image)])
    with pytest.raises(OutputError, match="'a/b' cannot be a file name; use 'a__b'"):
        write(tmp_path / "key", [Sample.of("a/b", image, good.truth)])
    other = Sample.of("two", image, Segmentation.semantic(np.zeros((2, 2), int), CELLS))
    with pytest.raises(OutputError, match="'two' has other classes"):
        write(tmp_path / "mixed", [good, other])
    write(tmp_path / "twice", [good])
    with pytest.raises(OutputError, match="is not empty .*give a new folder"):
        write(tmp_path / "twice", [good])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write(tmp_path / "file" / "data", [good])


def test_objects_that_a_mask_cannot_hold(tmp_path):
    image, square = np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), bool)
    numbered = Sample.of("one", image, Segmentation.instances(square, [1], classes=CELLS))
    many = Sample.of("two", image, Segmentation.instances(square, [1], instance_ids=[65533], classes=CELLS))
    with pytest.raises(OutputError, match="'two': its objects must be numbered 1..65532 .*number the objects again"):
        write(tmp_path / "mixed", [numbered, many])
    full = Classes.of([f"c{k}" for k in range(65535)])
    nothing = Sample.of("one", image, Segmentation.panoptic(np.zeros((2, 2), int), [], classes=full))
    with pytest.raises(OutputError, match="65535 classes leave no number for pixels of no segment; merge some"):
        write(tmp_path / "full", [nothing])


def test_object_numbers_of_another_size(tmp_path):
    folder_of(tmp_path, "a")
    save(tmp_path / "instances" / "a.png", MASK[:2])
    with pytest.raises(FormatError, match="instances/a.png is 2 x 4, its image .*export the mask again"):
        read(tmp_path)[0]
    (tmp_path / "instances" / "a.png").unlink()
    tifffile.imwrite(tmp_path / "instances" / "a.tif", np.full((3, 4), 2**31, np.uint32))
    with pytest.raises(FormatError, match="object numbers are 0..2147483647; number the objects again"):
        read(tmp_path)[0]


def test_names_for_messages_and_files(tmp_path):
    assert found(tmp_path) == "it is empty"
    for name in ("a.txt", "b.txt", "c"):
        (tmp_path / name).touch()
    for name in "pqrs":
        (tmp_path / name).mkdir()
    assert found(tmp_path) == "2 .txt, 1 files without suffix and 4 folders p/, q/, r/, ..."
    assert safe_key("a/b:c?.d") == "a__b_c_.d" and safe_key("..") == "_"


# On real data


def test_camvid(shared_data):
    data = read(shared_data / "camvid" / "train")
    assert len(data) == 367 and len(data.classes) == 11 and data.classes.colors[0] == (128, 128, 128)
    sample = data[0]
    assert sample.image.shape == (3, 360, 480) and sample.truth.class_map().min() == VOID


def test_membrane(shared_data):
    data = read(shared_data / "membrane")
    assert data.classes.names == ("background", "foreground") and data.keys[:2] == ("00", "01")
    cells = sum(int((sample.truth.class_map() == 1).sum()) for sample in data)
    assert cells == json.loads((shared_data / "expected.json").read_text())["membrane"]["cell_pixels"]


def test_nuclei(shared_data):
    data = read(shared_data / "nuclei" / "val")
    assert data.classes.names == ("background", "object") and len(data) == 93
    objects = sum(int((sample.truth.class_ids == 1).sum()) for sample in data)
    assert objects == json.loads((shared_data / "expected.json").read_text())["nuclei"]["val"]["instances"]


def test_videos_and_photos(shared_data):
    assert read_images(shared_data / "video_bedroom")[59].image.shape == (3, 540, 960)
    assert read_images(shared_data / "photos" / "truck.jpg").keys == ("truck",)

"""What every data format promises of its truths: those that can are read without decoding the photographs, and are the same."""

import numpy as np
import pytest
from PIL import Image

from segwright.codecs import image_file
from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import FormatError
from segwright.formats import open_dataset, readers

NAMES = (
    *("ade20k", "cityscapes", "coco", "coco_panoptic", "cvat", "datumaro", "davis", "geojson", "label_studio", "labelme"),
    *("mask_folder", "voc", "yolo"),
)
CLASSES = Classes.of(["background", "cell"], is_thing=[False, True])
HEIGHT, WIDTH = 6, 8


def samples():
    generator = np.random.default_rng(0)
    for key in ("train__a", "train__b", "val__c"):
        truth = Segmentation.panoptic(generator.integers(1, 4, (HEIGHT, WIDTH)), [0, 1, 1], [0, 5, 9], classes=CLASSES)
        yield Sample.of(key, generator.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8), truth)


def write(name, path):
    """The data set as `open_dataset` gives it, and the files of its images."""
    readers()[name].write(path, samples())
    data = open_dataset(path)
    assert len(data.image_files) == len(data) == 3
    return data, {*data.image_files.values()}


def never_decoding(monkeypatch, images):
    """From now on, decoding one of these images fails the test."""
    decode = image_file.stored_image

    def checked(path, *axes):
        assert path not in images, f"{path} was decoded"
        return decode(path, *axes)

    monkeypatch.setattr(image_file, "stored_image", checked)


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_without_its_photograph(name, tmp_path, monkeypatch):
    data, images = write(name, tmp_path / "data")
    whole = list(data)
    never_decoding(monkeypatch, images)
    with pytest.raises(AssertionError, match="was decoded"):  # the guard sees what it is to see
        data.load.data.load(data.keys[0])
    for expected, found in zip(whole, data.without_images(), strict=True):
        assert found.key == expected.key and found.image.shape == (0, HEIGHT, WIDTH)
        assert expected.image.shape == (3, HEIGHT, WIDTH)
        for field in ("planes", "class_ids", "instance_ids", "scores"):
            np.testing.assert_array_equal(getattr(found.truth, field), getattr(expected.truth, field))
        assert found.truth.classes == expected.truth.classes


def read_both(data):
    """The truths of a data set, read with and without images, or the messages where they cannot be."""
    for key in data.keys:
        results = []
        for one in (data, data.without_images()):
            try:
                sample = one.load(key)
                results.append((sample.image.shape[1:], sample.truth.planes.tolist()))
            except FormatError as error:
                results.append(str(error))
        yield results


@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT), (HEIGHT + 1, WIDTH)])
@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_of_another_size_is_noticed_as_ever(name, shape, tmp_path):
    data, images = write(name, tmp_path / "data")
    for file in images:
        Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(file)
    for whole, bare in read_both(open_dataset(tmp_path / "data")):
        assert whole == bare
        assert name == "yolo" or isinstance(bare, str)  # its labels are parts of the size of the image, whatever it is


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["mask_folder", "voc", "cityscapes", "ade20k", "davis"])
def test_a_mask_that_is_not_turned_as_its_photograph(name, orientation, tmp_path):
    data, images = write(name, tmp_path / "data")
    exif = Image.Exif()
    exif[274] = orientation
    for file in images:
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(file.with_suffix(".jpg"), exif=exif)
        file.unlink()
    pairs = list(read_both(open_dataset(tmp_path / "data")))
    assert all(whole == bare for whole, bare in pairs)
    assert all(isinstance(bare, tuple) for _, bare in pairs)


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_that_is_gone_is_noticed_as_ever(name, tmp_path):
    data, images = write(name, tmp_path / "data")
    min(images).unlink()
    pairs = list(read_both(data))
    assert sum(isinstance(bare, str) for _, bare in pairs) == 1
    assert all(whole == bare for whole, bare in pairs)

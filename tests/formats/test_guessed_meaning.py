import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.core import VOID
from segwright.core.errors import FormatError
from segwright.formats.guessed_meaning import guess_meaning, is_spread, shown_values
from segwright.formats.label_encoding import read_classes, read_numbers
from segwright.formats.mask_file import read_mask_file

HERE = Path("mask.png")


def saved(folder, *masks, suffix="png"):
    """Files that hold these masks."""
    folder.mkdir(exist_ok=True, parents=True)
    paths = [folder / f"{index}.{suffix}" for index in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        Image.fromarray(np.asarray(mask)).save(path)
    return paths


def bytes_of(*values):
    return np.array([values], dtype=np.uint8)


def words_of(*values):
    return np.array([values], dtype=np.uint16)


def palette_file(path, indices, *colors):
    picture = Image.fromarray(np.array([indices], np.uint8))
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    picture.save(path)
    return path


def areas(*values, size=16):
    """A mask with a square of each value, in a row."""
    return np.kron(np.array([values]), np.ones((size, size), int)).astype(np.uint8)


def blurred(*values):
    return cv2.GaussianBlur(areas(*values), (5, 5), 1)


# By hand


@pytest.mark.parametrize("value", [1, 7, 128, 255])
def test_two_numbers_are_background_and_foreground(tmp_path, value):
    meaning = guess_meaning(saved(tmp_path, bytes_of(0, value), bytes_of(0, 0)))
    assert meaning.classes.names == ("background", "foreground")
    assert meaning.truth(bytes_of(0, value), HERE).class_map().tolist() == [[0, 1]]


def test_masks_of_one_number(tmp_path):
    assert guess_meaning(saved(tmp_path, bytes_of(0, 0))).classes.names == ("background", "foreground")
    meaning = guess_meaning(saved(tmp_path, bytes_of(255, 255)))
    assert meaning.truth(bytes_of(255), HERE).class_map().tolist() == [[1]]
    meaning = guess_meaning(saved(tmp_path, words_of(0, 65535)))
    assert not meaning.is_instances and meaning.truth(words_of(0, 65535), HERE).class_map().tolist() == [[0, 1]]


def test_more_numbers_are_classes_and_255_is_void(tmp_path):
    meaning = guess_meaning(saved(tmp_path, bytes_of(0, 3), bytes_of(1, 255)))
    assert meaning.classes.names == ("class_0", "class_1", "class_2", "class_3")
    assert meaning.truth(bytes_of(2, 255, 0), HERE).class_map().tolist() == [[2, VOID, 0]]


def test_16_bit_numbers_are_objects(tmp_path):
    meaning = guess_meaning(saved(tmp_path, words_of(0, 1), words_of(2, 300)))
    truth = meaning.truth(words_of(0, 300, 2, 300, 65535), HERE)
    assert truth.classes.names == ("background", "object") and truth.classes.is_thing == (False, True)
    assert truth.instance_ids.tolist() == [0, 2, 300] and truth.class_ids.tolist() == [0, 1, 1]
    assert truth.class_map().tolist() == [[0, 1, 1, 1, VOID]]
    assert truth.areas().tolist() == [1, 1, 2]
    assert len(meaning.truth(words_of(65535, 65535), HERE)) == 0


def test_a_jpeg_mask_is_black_and_white(tmp_path):
    square = np.zeros((64, 64), dtype=np.uint8)
    square[10:50, 20:60] = 255
    (path,) = saved(tmp_path, square, suffix="jpg")
    assert set(np.unique(np.array(Image.open(path)))) > {0, 255}  # blurred
    assert np.array_equal(read_numbers(path), square // 255)
    assert guess_meaning([path]).classes.names == ("background", "foreground")


def test_numbers_beyond_16_bits_are_objects(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 70_000], [65_535, 1]], np.uint32))
    meaning = guess_meaning([tmp_path / "a.tif"])
    class_map, numbers = meaning.maps(tmp_path / "a.tif")
    assert class_map.tolist() == [[0, 1], [1, 1]] and numbers.tolist() == [[0, 70_000], [65_535, 1]]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_smoothed_black_and_white(tmp_path, suffix):
    mask = blurred(0, 255, 0)
    (path,) = saved(tmp_path, mask, suffix=suffix)
    meaning = guess_meaning([path])
    assert meaning.classes.names == ("background", "foreground")
    assert np.array_equal(meaning.maps(path)[0], (mask > 127).astype(int))  # 127.5: the middle


def test_smoothed_greys_and_16_bits(tmp_path):
    (path,) = saved(tmp_path / "three", blurred(0, 100, 0, 200, 0))
    meaning = guess_meaning([path])
    assert meaning.classes.names == ("class_0", "class_100", "class_200")
    assert meaning.maps(path)[0][8, [8, 24, 56]].tolist() == [0, 1, 2]
    (path,) = saved(tmp_path / "wide", blurred(0, 255, 0).astype(np.uint16) * 257)
    assert guess_meaning([path]).maps(path)[0][8, [8, 24]].tolist() == [0, 1]


def test_a_few_pixels_of_254_make_no_void(tmp_path):
    mask = areas(0, 255, 0)
    mask[3:6, 16] = 254
    (path,) = saved(tmp_path, mask)
    meaning = guess_meaning([path])
    assert np.array_equal(meaning.maps(path)[0], (mask > 0).astype(int))


def test_files_that_are_not_exact(tmp_path):
    (path,) = saved(tmp_path / "jpg", areas(0, 120, 0, 240), suffix="jpg")
    assert guess_meaning([path]).maps(path)[0][8, [8, 24, 56]].tolist() == [0, 1, 2]
    path = path.rename(path.with_suffix(".png"))  # whatever it is called
    assert guess_meaning([path]).maps(path)[0][8, [8, 24, 56]].tolist() == [0, 1, 2]
    Image.fromarray(areas(0, 255)).convert("RGB").save(tmp_path / "a.webp", quality=50)
    assert guess_meaning([tmp_path / "a.webp"]).maps(tmp_path / "a.webp")[0][8, [8, 24]].tolist() == [0, 1]


def test_grey_palettes_count_by_their_greys(tmp_path):
    black, white = (0, 0, 0), (255, 255, 255)
    first = palette_file(tmp_path / "a.gif", (0, 1, 1), white, black)
    second = palette_file(tmp_path / "b.gif", (0, 1, 1), black, white)
    meaning = guess_meaning([first, second])
    assert meaning.maps(first)[0].tolist() == [[1, 0, 0]] and meaning.maps(second)[0].tolist() == [[0, 1, 1]]
    (plain,) = saved(tmp_path / "plain", bytes_of(0, 1))
    assert guess_meaning([first, plain]).maps(first)[0].tolist() == [[1, 0, 0]]


def test_a_palette_of_the_usual_colors_counts_by_its_indices(tmp_path):
    path = palette_file(tmp_path / "a.png", (0, 2, 7), (0, 0, 0), *[(128, k, 0) for k in range(6)], (128, 128, 128))
    assert guess_meaning([path]).maps(path)[0].tolist() == [[0, 2, 7]]


def test_grey_levels_that_are_spread_evenly_are_classes(tmp_path):
    (path,) = saved(tmp_path, areas(0, 128, 255))
    assert guess_meaning([path]).classes.names == ("class_0", "class_128", "class_255")
    assert is_spread([0, 85, 170, 255]) and is_spread([0, 127, 255])
    assert not is_spread([0, 255]) and not is_spread([0, 100, 255]) and not is_spread(range(256))


# What is no smoothing


@pytest.mark.parametrize("seed", range(3))
def test_law_numbers_of_classes_stay(tmp_path, seed):
    """Many classes, of areas of any size down to one pixel, are classes, as long as they are not all between two others."""
    rng = np.random.default_rng(seed)
    masks = [rng.integers(0, 150, (64 // size, 64 // size)).repeat(size, 0).repeat(size, 1) for size in (1, 2, 4, 8)]
    for mask in masks:
        (path,) = saved(tmp_path / str(len(mask)), mask.astype(np.uint8))
        assert np.array_equal(guess_meaning([path]).maps(path)[0], mask)
    paths = saved(tmp_path / "all", *[mask.astype(np.uint8) for mask in masks])
    assert np.array_equal(guess_meaning(paths).maps(paths[0])[0], masks[0])


def test_thin_classes_stay(tmp_path):
    mask = areas(0, 60, 0, 120)
    mask[4] = np.where(mask[4] == 0, 30, mask[4])  # a line inside one region
    mask[:, 40] = 90
    (path,) = saved(tmp_path, mask)
    assert np.array_equal(guess_meaning([path]).maps(path)[0], mask)


def test_objects_of_16_bits_stay(tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3000, (16, 16)).repeat(4, 0).repeat(4, 1).astype(np.uint16)
    (path,) = saved(tmp_path, mask)
    assert guess_meaning([path]).is_instances


# By its messages


def test_255_may_be_a_class_or_void(tmp_path):
    for folder, mask, more in (("sharp", areas(0, 100, 255), {}), ("blurred", blurred(0, 100, 0, 255), {"nearest": True})):
        (path,) = saved(tmp_path / folder, mask)
        with pytest.raises(FormatError, match="3 numbers up to 255, which may be a class or void") as caught:
            guess_meaning([path])
        as_class, as_void = map(json.loads, re.findall(r"{.*?}", str(caught.value)))
        assert as_class == {"classes": ["class_0", "class_100", "class_255"], "values": [0, 100, 255], **more}
        for content, last in ((as_class, 2), (as_void, VOID)):
            (tmp_path / "classes.json").write_text(json.dumps(content))
            assert read_classes(tmp_path / "classes.json").maps(path)[0][8, -8] == last
    (path,) = saved(tmp_path / "all", np.arange(256, dtype=np.uint8)[None])
    with pytest.raises(FormatError, match="256 numbers up to 255, .* write into dataset.toml what they mean, as"):
        guess_meaning([path])


def test_0_and_1_beside_0_and_255(tmp_path):
    paths = saved(tmp_path, bytes_of(0, 1), bytes_of(0, 255), bytes_of(0, 0))
    with pytest.raises(FormatError, match="0.png holds the numbers 0 and 1, .*1.png 0 and 255, and no mask holds both"):
        guess_meaning(paths)
    (tmp_path / "classes.json").write_text('{"classes": ["background", "foreground"], "values": [0, [1, 255]]}')
    meaning = read_classes(tmp_path / "classes.json")
    assert [meaning.maps(path)[0].tolist() for path in paths] == [[[0, 1]], [[0, 1]], [[0, 0]]]
    assert guess_meaning([*paths, *saved(tmp_path / "both", bytes_of(0, 1, 255))]).maps(paths[1])[0].tolist() == [[0, VOID]]


def test_palettes_that_differ(tmp_path):
    first = palette_file(tmp_path / "a.png", (0, 1), (0, 0, 0), (255, 0, 0))
    second = palette_file(tmp_path / "b.png", (0, 1), (0, 0, 0), (0, 0, 255))
    with pytest.raises(FormatError, match="a.png and .*b.png show the index 1 of their palettes in different colours"):
        guess_meaning([first, second])
    third = palette_file(tmp_path / "c.png", (0, 1), (255, 0, 0), (0, 0, 0))
    with pytest.raises(FormatError, match=r"c.png is a picture of colours \(its palette begins \(255, 0, 0\), \(0, 0, 0\)\)"):
        guess_meaning([third])
    with pytest.raises(FormatError, match="is a picture of colours .its channels differ"):
        shown_values(read_mask_file(saved(tmp_path / "rgb", np.array([[[1, 2, 3]]], np.uint8))[0]))


def test_a_jpeg_of_class_numbers(tmp_path):
    (path,) = saved(tmp_path, areas(0, 1, 2), suffix="jpg")
    with pytest.raises(FormatError, match="JPEG blurs class numbers: export the masks as PNG"):
        guess_meaning([path])


def test_sparse_numbers_are_read_with_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        meaning = guess_meaning(saved(tmp_path, bytes_of(0, 85, 170)))
    assert len(meaning.classes) == 171 and 'name the classes in classes.json, with "values"' in caplog.text


def with_nodata(folder, *masks, number=255):
    for index, mask in enumerate(masks):
        tags = [] if number is None else [(42113, "s", 0, str(number), True)]
        tifffile.imwrite(folder / f"{len([*folder.iterdir()])}{index}.tif", mask, extratags=tags)
    return sorted(folder.iterdir())


@pytest.mark.parametrize(
    ("dtype", "number", "names"),
    [
        ("uint8", 255, ["background", "foreground"]),
        ("uint8", 7, ["background", "foreground"]),
        ("float32", "nan", ["background", "foreground"]),
        ("int16", -9999, ["background", "object"]),  # 16 bits are objects, with nodata or without
        ("int32", -9999, ["background", "object"]),
    ],
)
def test_nodata_is_no_number_of_a_class(tmp_path, dtype, number, names):
    mask = np.array([[0, 1, float(number)]]).astype(dtype)
    (path,) = with_nodata(tmp_path, mask, number=number)
    meaning = guess_meaning([path])
    assert [*meaning.classes.names] == names and meaning.maps(path)[0].tolist() == [[0, 1, VOID]]


def test_one_number_below_0_is_void_as_in_volumes(tmp_path, caplog):
    for dtype in (np.int8, np.float32):
        tifffile.imwrite(tmp_path / "a.tif", np.array([[-1, 0, 1, 2]], dtype))
        meaning = guess_meaning([tmp_path / "a.tif"])
        assert len(meaning.classes) == 3 and meaning.maps(tmp_path / "a.tif")[0].tolist() == [[VOID, 0, 1, 2]]
    assert caplog.text.count("masks hold -1, which can be no class and is taken for void") == 1
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-1, -2, 1, 2]], np.int16))
    with pytest.raises(FormatError, match=r"holds the numbers -2\.\.2"):
        guess_meaning([tmp_path / "a.tif"])


def test_255_is_nodata_in_one_mask_and_the_foreground_in_another(tmp_path):
    with_nodata(tmp_path, bytes_of(0, 255))
    masks = with_nodata(tmp_path, bytes_of(0, 255), number=None)
    with pytest.raises(FormatError, match="which may be a class or void; write into classes.json"):
        guess_meaning(masks)


def test_a_smoothed_picture_with_a_palette_of_its_own_is_no_mask_of_numbers(tmp_path):
    colors = np.array([[0, 0, 0], [220, 20, 60], [0, 128, 192]], np.uint8)
    picture = cv2.GaussianBlur(colors[areas(0, 1, 2, size=40)], (5, 5), 0)
    Image.fromarray(picture).save(tmp_path / "a.gif")
    file = read_mask_file(tmp_path / "a.gif")
    assert len(file.used) > 8 and file.is_picture
    with pytest.raises(FormatError, match="is a picture of colours"):
        guess_meaning([tmp_path / "a.gif"])
    written = {"classes": ["none", "red", "blue"], "palette": colors.tolist(), "nearest": True, "masks": "colors"}
    (tmp_path / "classes.json").write_text(json.dumps(written))
    class_map = read_classes(tmp_path / "classes.json").maps(tmp_path / "a.gif")[0]
    assert (class_map == areas(0, 1, 2, size=40)).mean() > 0.95


def test_nodata_of_masks_of_colors_is_no_color(tmp_path):
    colors = np.array([[0, 0, 0], [220, 20, 60], [255, 255, 255]], np.uint8)[bytes_of(0, 1, 2)]
    tags = [(42113, "s", 0, "255", True)]
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="rgb", extratags=tags)
    (tmp_path / "classes.json").write_text('{"none": [0, 0, 0], "red": [220, 20, 60]}')
    assert read_classes(tmp_path / "classes.json").maps(tmp_path / "a.tif")[0].tolist() == [[0, 1, VOID]]

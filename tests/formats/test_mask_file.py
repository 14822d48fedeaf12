import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.core.errors import FormatError
from segwright.formats.mask_file import read_mask_file, read_object_numbers

MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
WHITE = MASK > 0


def palette(path, indices, *colors, **options):
    picture = Image.fromarray(indices)
    picture.putpalette(np.array(colors, np.uint8).tobytes())
    picture.save(path, **options)
    return read_mask_file(path)


def colormap(path, indices, *colors):
    entries = np.zeros((256, 3), np.uint16)
    entries[: len(colors)] = np.array(colors) * 257
    tifffile.imwrite(path, indices, photometric="palette", colormap=entries.T.copy())
    return read_mask_file(path)


# By hand


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_white_is_where_viewers_show_it(tmp_path, suffix, is_reversed):
    colors = [(255,) * 3, (0,) * 3] if is_reversed else [(0,) * 3, (255,) * 3]
    indices = 1 - MASK if is_reversed else MASK
    file = (colormap if suffix == "tif" else palette)(tmp_path / f"a.{suffix}", indices, *colors)
    assert np.array_equal(file.is_white, WHITE)
    assert np.array_equal(file.picture, np.repeat(255 * MASK[None], 3, axis=0))


def test_bits(tmp_path):
    Image.fromarray(WHITE).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", WHITE, photometric="minisblack")
    Image.fromarray(WHITE).save(tmp_path / "a.bmp")
    for name in ("a.png", "a.tif", "a.bmp"):
        file = read_mask_file(tmp_path / name)
        assert np.array_equal(file.is_white, WHITE) and file.picture.max() == 255


def test_numbers_are_not_black_and_white(tmp_path):
    for mask in (MASK, MASK * np.uint8(255)):
        Image.fromarray(mask).save(tmp_path / "a.png")
        file = read_mask_file(tmp_path / "a.png")
        assert file.is_white is None and np.array_equal(file.values[0], mask) and not file.is_picture and not file.is_lossy


def test_palettes(tmp_path):
    file = palette(tmp_path / "a.png", MASK, (0, 0, 0), (255, 0, 0), transparency=0)
    assert file.greys is None and file.is_white is None and file.used.tolist() == [0, 1] and file.palette.shape[1] == 3
    assert file.picture[:, 0, 1].tolist() == [255, 0, 0]
    greys = palette(tmp_path / "b.png", MASK * np.uint8(2), (9, 9, 9), (5, 5, 5), (7, 7, 7))
    assert greys.greys[:3].tolist() == [9, 5, 7] and greys.is_white is None and greys.used.tolist() == [0, 2]


def test_alpha_is_left_out(tmp_path):
    alpha = np.full((2, 3), 255, np.uint8)
    alpha[0, 0] = 0
    Image.fromarray(np.dstack([MASK, MASK, MASK, alpha])).save(tmp_path / "a.png")
    assert np.array_equal(read_mask_file(tmp_path / "a.png").values, np.repeat(MASK[None], 3, axis=0))


def test_whole_numbers_in_floats(tmp_path):
    for top in (1, 255, 70_000):
        tifffile.imwrite(tmp_path / "a.tif", MASK.astype(np.float32) * top)
        file = read_mask_file(tmp_path / "a.tif")
        assert np.array_equal(file.values[0], MASK.astype(int) * top) and (file.values.itemsize == 1) == (top < 256)


def test_files_that_keep_no_exact_values(tmp_path):
    square = np.kron(MASK, np.ones((16, 16), np.uint8)) * np.uint8(255)
    Image.fromarray(square).save(tmp_path / "a.png", format="JPEG")
    Image.fromarray(square).convert("RGB").save(tmp_path / "b.webp", quality=50)
    tifffile.imwrite(tmp_path / "c.tif", square, compression="jpeg")
    for name in ("a.png", "b.webp", "c.tif"):
        file = read_mask_file(tmp_path / name)
        assert file.is_lossy and len(file.values) == 1 and np.array_equal(file.is_white, square > 0)
    Image.fromarray(square).convert("RGB").save(tmp_path / "d.webp", lossless=True)
    assert not read_mask_file(tmp_path / "d.webp").is_lossy


def test_objects(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", MASK.astype(np.uint32) * 70_000)
    assert read_object_numbers(tmp_path / "a.tif").max() == 70_000
    palette(tmp_path / "b.png", 1 - MASK, (7, 7, 7), (0, 0, 0))
    assert np.array_equal(read_object_numbers(tmp_path / "b.png")[0], 7 * MASK)


# By its messages


def test_a_mask_in_the_alpha_channel(tmp_path):
    black = np.zeros((2, 3, 3), np.uint8)
    Image.fromarray(np.dstack([black, 255 * MASK])).save(tmp_path / "a.png")
    with pytest.raises(FormatError, match="one colour everywhere and differs in its transparency alone; save that channel as"):
        read_mask_file(tmp_path / "a.png")


def test_numbers_that_no_object_has(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", MASK.astype(np.uint32) * 2**31)
    with pytest.raises(FormatError, match="0..2147483648; object numbers are 0..2147483647; number the objects again"):
        read_mask_file(tmp_path / "a.tif")
    Image.fromarray(MASK * np.uint8(9)).save(tmp_path / "a.jpg")
    with pytest.raises(FormatError, match="keeps no exact numbers .it is a JPEG or the like.; export object numbers as PNG"):
        read_object_numbers(tmp_path / "a.jpg")
    error = read_mask_file(tmp_path / "a.jpg").blurred()
    assert "is a JPEG whose values are not black and white (0% lie between, the highest is" in str(error)


def test_a_third_grey_that_fills_an_area_is_no_blur(tmp_path):
    grey = np.zeros((96, 96), np.uint8)
    grey[8:40, 8:40] = 240
    Image.fromarray(grey).save(tmp_path / "two.jpg", quality=80)
    Image.fromarray(grey).resize((200, 200), Image.Resampling.BICUBIC).save(tmp_path / "soft.jpg", quality=80)
    for name in ("two.jpg", "soft.jpg"):
        assert read_mask_file(tmp_path / name).is_white is not None
    grey[64:84, 64:84] = 120  # 4 % of the pixels, fewer than borders may be
    Image.fromarray(grey).save(tmp_path / "three.jpg", quality=80)
    assert read_mask_file(tmp_path / "three.jpg").is_white is None

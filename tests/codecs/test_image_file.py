import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from segwright.codecs.image_file import decode_image, fit_mask, holds, read_image, read_mask
from segwright.codecs.image_writer import write_class_map, write_image, write_picture, write_values
from segwright.codecs.stored_image import MAX_PIXELS, upright
from segwright.core import Classes
from segwright.core.errors import FormatError, OutputError

EIGHT_BIT = Classes.of([f"c{k}" for k in range(255)])
SIXTEEN_BIT = Classes.of([f"c{k}" for k in range(300)])


def png(width, height, depth, color_type, rows):
    """A PNG byte by byte, for depths that no writer at hand makes."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def random_image(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


# By hand


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif", "gif"])
def test_grey_and_colour_come_back_as_they_were(tmp_path, suffix):
    rgb = random_image(5, 7, 3)
    path = tmp_path / f"a.{suffix}"
    colors = Image.fromarray(rgb).quantize(16) if suffix == "gif" else Image.fromarray(rgb)
    colors.save(path, **({"lossless": True} if suffix == "webp" else {}))
    read = read_image(path)
    assert read.dtype == np.uint8 and read.flags.c_contiguous and read.flags.writeable
    assert np.array_equal(read, np.array(colors.convert("RGB")).transpose(2, 0, 1))


def test_bytes_as_they_stand_in_other_files(tmp_path):
    Image.fromarray(random_image(5, 7, 3)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(decode_image(data, "b.json: imageData"), read_image(tmp_path / "a.png"))
    with pytest.raises(FormatError, match="b.json: imageData is damaged or cut short"):
        decode_image(data[:60], "b.json: imageData")


def test_jpeg_grey_colour_and_cmyk(tmp_path):
    for mode, channels in (("L", 1), ("RGB", 3), ("CMYK", 3)):
        Image.new(mode, (8, 6), color=(10,) * len(mode) if len(mode) > 1 else 10).save(tmp_path / f"{mode}.jpg")
        assert read_image(tmp_path / f"{mode}.jpg").shape == (channels, 6, 8)


def test_the_content_decides_not_the_name(tmp_path):
    Image.fromarray(random_image(5, 7)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.png", random_image(5, 7))
    assert np.array_equal(read_image(tmp_path / "a.tif"), read_image(tmp_path / "b.png"))


@pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (6, 4), (4, 2), (0, 1)])
def test_16_bit_png_keeps_its_16_bits(tmp_path, color_type, channels):
    values = random_image(3, 4, channels, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(4, 3, 16, color_type, rows))
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint16 and np.array_equal(read, values.transpose(2, 0, 1))


def test_16_bit_pgm(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([1, 60000], dtype=">u2").tobytes())
    read = read_image(tmp_path / "a.pgm")
    assert read.dtype == np.uint16 and read.tolist() == [[[1, 60000]]]


def test_few_bits_of_grey_are_spread_for_images_and_kept_for_masks(tmp_path):
    (tmp_path / "four.png").write_bytes(png(4, 1, 4, 0, bytes([0, 0x01, 0xEF])))
    (tmp_path / "two.png").write_bytes(png(4, 1, 2, 0, bytes([0, 0b00011011])))
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "one.png")
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "one.tif")
    assert read_image(tmp_path / "four.png").tolist() == [[[0, 17, 238, 255]]]
    assert read_mask(tmp_path / "four.png").tolist() == [[0, 1, 14, 15]]
    assert read_mask(tmp_path / "two.png").tolist() == [[0, 1, 2, 3]]
    for name in ("one.png", "one.tif"):
        assert read_image(tmp_path / name).tolist() == [[[255, 0]]]
        assert read_mask(tmp_path / name).tolist() == [[1, 0]]


def test_alpha_is_kept_only_where_it_says_something(tmp_path):
    rgba = random_image(5, 7, 4)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb")
    assert read_image(tmp_path / "a.png").shape == read_image(tmp_path / "a.tif").shape == (4, 5, 7)
    rgba[..., 3] = 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb")
    assert read_image(tmp_path / "a.png").shape == read_image(tmp_path / "a.tif").shape == (3, 5, 7)
    Image.new("LA", (4, 3), (9, 255)).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png").shape == (1, 3, 4)


def test_palette_gives_colours_to_images_and_indices_to_masks(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 1, 2]]
    picture.save(tmp_path / "b.png", transparency=1)
    assert read_image(tmp_path / "b.png")[:, 0].T.tolist() == [[10, 20, 30, 255], [40, 50, 60, 0], [70, 80, 90, 255]]


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((5, 6, 7), {"metadata": {"axes": "CYX"}}, (5, 6, 7)),
        ((6, 7, 5), {"metadata": {"axes": "YXC"}}, (5, 6, 7)),
        ((6, 7, 5), {"planarconfig": "contig", "photometric": "minisblack"}, (5, 6, 7)),
        ((3, 6, 7), {"photometric": "rgb", "planarconfig": "separate"}, (3, 6, 7)),
        ((6, 7, 3), {}, (3, 6, 7)),
        ((5, 6, 7), {"imagej": True}, (5, 6, 7)),
        ((5, 6, 7), {"metadata": None}, (5, 6, 7)),  # no names: the shorter of the first and last axis
        ((6, 7, 5), {"metadata": None}, (5, 6, 7)),
        ((6, 7, 2), {}, (2, 6, 7)),
        ((5, 6, 7), {"metadata": {"axes": "ZYX"}}, (1, 5, 6, 7)),
        ((5, 2, 6, 7), {"ome": True, "metadata": {"axes": "ZCYX"}}, (2, 5, 6, 7)),
        ((1, 2, 6, 7), {"ome": True, "metadata": {"axes": "ZCYX"}}, (2, 6, 7)),  # depth one is no volume
        ((1, 6, 7), {"metadata": {"axes": "TYX"}}, (1, 6, 7)),
        ((6, 1), {}, (1, 6, 1)),
    ],
)
def test_tiff_axes(tmp_path, shape, options, expected):
    values = random_image(*shape, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    read = read_image(tmp_path / "a.tif")
    assert read.shape == expected
    first = values.ravel()[0]
    assert read.ravel()[0] == first and sorted(read.ravel()) == sorted(values.ravel())


def test_float_tiff_keeps_its_values(tmp_path):
    values = np.array([[0.5, np.nan], [-1e9, 3.0]], dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=">")
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == np.float32 and read.dtype.isnative and np.array_equal(read[0], values, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "stored", "tag"),
    [
        ("f4", -9999, "-9999"), ("f4", -9999, "-9999.000000 "), ("f4", -9999, "-9999,0"), ("i2", -9999, "-9999.0"),
        ("u1", 0, "0"), ("f4", np.finfo("f4").min, "-3.40282346638529e+38"), ("f4", -3.40282306074e38, "-3.40282306074e+38"),
        ("f4", np.inf, "inf"), ("f8", np.nan, "nan"), ("f4", np.nan, "-1.#IND"),
        ("u1", 255, "255"), ("u2", 65535, "65535"), ("i4", -(2**31), "-2147483648"),
    ],
)  # fmt: skip
def test_what_gdal_calls_nodata_is_nan(tmp_path, dtype, stored, tag):
    values = np.arange(1, 13).reshape(3, 4).astype(dtype)
    values[1, 2] = stored
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, tag, True)])
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == (np.float64 if dtype in ("i4", "f8") else np.float32)
    expected = values.astype(read.dtype)
    expected[1, 2] = np.nan
    assert np.array_equal(read, expected[None], equal_nan=True)
    assert holds(tmp_path / "a.tif", read)


@pytest.mark.parametrize(
    ("dtype", "tag"), [("u1", "-9999"), ("u1", "nan"), ("u1", "256"), ("u2", "1e400"), ("f4", "1e300"), ("i2", "0.5")]
)
def test_nodata_that_no_pixel_has_leaves_the_values_as_they_are(tmp_path, dtype, tag):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, tag, True)])
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == values.dtype and np.array_equal(read[0], values)


def test_nodata_of_bands_is_per_band_and_of_colours_where_all_are(tmp_path):
    values = np.array([[[0, 0], [0, 9], [7, 9]]], np.uint8)  # one row of two bands
    tag = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "bands.tif", values, photometric="minisblack", planarconfig="contig", extratags=tag)
    assert np.isnan(read_image(tmp_path / "bands.tif"))[:, 0].tolist() == [[True, True, False], [True, False, False]]
    tifffile.imwrite(tmp_path / "rgb.tif", np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8), photometric="rgb", extratags=tag)
    assert np.isnan(read_image(tmp_path / "rgb.tif"))[:, 0].tolist() == [[True, False]] * 3


def test_nodata_that_is_no_number_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3), np.uint8), extratags=[(42113, "s", 0, "none", True)])
    with pytest.raises(FormatError, match=r"a.tif: its tag 42113 \(GDAL_NODATA\) says 'none'.*correct or remove it"):
        read_image(tmp_path / "a.tif")


def test_a_mask_of_equal_channels_or_of_whole_floats_is_a_mask(tmp_path):
    values = np.array([[0, 3], [255, 1]], dtype=np.uint8)
    Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([values] * 3 + [values // 2])).save(tmp_path / "rgba.png")  # its alpha is not asked
    tifffile.imwrite(tmp_path / "float.tif", values.astype(np.float32))
    for name in ("rgb.png", "rgba.png", "float.tif"):
        assert np.array_equal(read_mask(tmp_path / name), values) and read_mask(tmp_path / name).dtype.kind in "iu"


def test_void_and_classes_in_the_file(tmp_path):
    class_map = np.array([[0, 1, -1]])
    write_class_map(tmp_path / "few.png", class_map, Classes.of(["a", "b"]), palette=False)
    assert np.array(Image.open(tmp_path / "few.png")).tolist() == [[0, 1, 255]]
    write_class_map(tmp_path / "many.png", class_map, SIXTEEN_BIT, palette=False)
    assert np.array(Image.open(tmp_path / "many.png")).tolist() == [[0, 1, 65535]]
    write_class_map(tmp_path / "color.png", class_map, Classes.of(["a", "b"], colors=[(1, 2, 3), (4, 5, 6)]), palette=True)
    shown = Image.open(tmp_path / "color.png")
    assert shown.mode == "P" and np.array(shown.convert("RGB")).tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]
    write_class_map(tmp_path / "color.tif", class_map, Classes.of(["a", "b"], colors=[(1, 2, 3), (4, 5, 6)]), palette=True)
    assert read_image(tmp_path / "color.tif")[:, 0].T.tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]
    assert read_mask(tmp_path / "color.tif").tolist() == [[0, 1, 255]]


def test_pictures_come_back(tmp_path):
    rgb = random_image(6, 8, 3)
    write_picture(tmp_path / "a.png", rgb)
    assert np.array_equal(read_image(tmp_path / "a.png"), rgb.transpose(2, 0, 1))
    smooth = np.full((16, 16, 3), (200, 30, 90), dtype=np.uint8)
    write_picture(tmp_path / "a.jpg", smooth)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth.transpose(2, 0, 1)).max() <= 3


# By a twin


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_equals_pillow(tmp_path, orientation):
    rgb = random_image(5, 7, 3)
    picture = Image.fromarray(rgb)
    exif = Image.Exif()
    exif[274] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    picture.save(tmp_path / "a.webp", exif=exif, lossless=True)
    tifffile.imwrite(tmp_path / "a.tif", rgb, extratags=[(274, "H", 1, orientation, True)])
    expected = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))).transpose(2, 0, 1)
    for name in ("a.png", "a.webp", "a.tif"):
        assert np.array_equal(read_image(tmp_path / name), expected)


def test_a_mask_drawn_before_the_rotation_is_turned_with_its_image(tmp_path):
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (1, 3, 2)
    assert np.array_equal(fit_mask(values, (3, 2), tmp_path / "a.png"), image[0])
    assert np.array_equal(fit_mask(image[0], (3, 2), tmp_path / "a.png"), image[0])
    assert fit_mask(values[:1], (3, 2), tmp_path / "a.png") is None


# By a law


class_maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.integers(-1, 299))
)


@settings(deadline=None, max_examples=60)
@given(class_map=class_maps, suffix=st.sampled_from([".png", ".tif"]), palette=st.booleans())
def test_class_maps_come_back(tmp_path_factory, class_map, suffix, palette):
    path = tmp_path_factory.mktemp("maps") / f"map{suffix}"
    write_class_map(path, class_map, SIXTEEN_BIT, palette=False)
    assert np.array_equal(read_mask(path), class_map.astype(np.uint16))
    few = np.minimum(class_map, 254)
    write_class_map(path, few, EIGHT_BIT, palette=palette)
    assert read_mask(path).dtype == np.uint8 and np.array_equal(read_mask(path), few.astype(np.uint8))


def test_a_volume_comes_back(tmp_path):
    class_map = np.random.default_rng(0).integers(-1, 3, (4, 5, 6))
    write_class_map(tmp_path / "a.tif", class_map, Classes.of("abc"), palette=True)
    assert np.array_equal(read_mask(tmp_path / "a.tif").astype(np.int8), class_map)


@settings(deadline=None, max_examples=60)
@given(
    channels=st.integers(1, 5),
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    seed=st.integers(0, 9),
)
def test_images_come_back(tmp_path_factory, channels, shape, dtype, seed):
    if len(shape) == 3:
        shape[0] += 1  # a volume of depth one is read as a plane
    image = np.random.default_rng(seed).integers(0, 255, (channels, *shape)).astype(dtype)
    path = write_image(tmp_path_factory.mktemp("images") / "a.b", image)
    assert path.name in ("a.b.png", "a.b.tif")
    read = read_image(path)
    assert read.dtype == dtype and np.array_equal(read, image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back(orientation):
    values = np.arange(12).reshape(1, 3, 4)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    assert np.array_equal(upright(upright(values, orientation), back), values)


def encoded(kind):
    rgb = random_image(12, 16, 3)
    buffer = io.BytesIO()
    if kind == "tiff":
        tifffile.imwrite(buffer, rgb, compression="zlib", rowsperstrip=4)
    else:
        Image.fromarray(rgb).save(buffer, format=kind)
    return buffer.getvalue()


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(["png", "jpeg", "bmp", "webp", "gif", "ppm", "tiff"]), data=st.data())
def test_damage_ends_in_a_format_error_or_a_picture(tmp_path_factory, kind, data):
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    path.write_bytes(content)
    for read in (read_image, read_mask):
        try:
            assert read(path).size > 0
        except FormatError as error:
            assert str(path) in str(error)


# By its messages


def test_a_tiff_without_its_pixels(tmp_path):
    content = bytearray(encoded("tiff"))
    content[194] = 0  # beyond the 256 bytes that are kept, the file says where its pixels are
    (tmp_path / "a.tif").write_bytes(content[:256])
    for read in (read_image, read_mask):
        with pytest.raises(FormatError, match="a.tif is damaged or cut short .*; copy it again or remove it"):
            read(tmp_path / "a.tif")


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(FormatError, match="nothing.png does not exist; check the spelling"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(FormatError, match="cannot be read"):
        read_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(FormatError, match=r"empty.png is empty \(0 bytes\); copy it again or remove it"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(FormatError, match="text.png is not an image .*convert it"):
        read_mask(tmp_path / "text.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_cut_short(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(random_image(40, 40, 3)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(FormatError, match=rf"a.{suffix} is damaged or cut short .*copy it again"):
        read_image(path)


def test_decompression_bombs(tmp_path):
    (tmp_path / "huge.png").write_bytes(png(100_000, 100_000, 8, 0, b""))
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / "large.png").write_bytes(png(side, side, 8, 0, b""))
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((16, 16), np.uint8), compression="zlib")
    content = bytearray((tmp_path / "small.tif").read_bytes())
    for tag in (256, 257, 278):  # width, length, rows per strip
        at = content.index(struct.pack("<HH", tag, 4 if struct.pack("<HH", tag, 4) in content else 3))
        content[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 100_000)
    (tmp_path / "huge.tif").write_bytes(content)
    for name in ("huge.png", "large.png", "huge.tif"):
        with pytest.raises(FormatError, match=f"{name} claims .* above 178,956,970 pixels are refused.*cut it into tiles"):
            read_image(tmp_path / name)


def test_colours_and_fractions_are_no_masks(tmp_path):
    Image.fromarray(random_image(5, 7, 3)).save(tmp_path / "rgb.png")
    with pytest.raises(FormatError, match="3 channels that differ .*palette PNG"):
        read_mask(tmp_path / "rgb.png")
    tifffile.imwrite(tmp_path / "half.tif", np.full((3, 3), 0.5, np.float32))
    with pytest.raises(FormatError, match="half.tif: the mask holds fractions .*argmax"):
        read_mask(tmp_path / "half.tif")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((3, 3), np.nan, np.float32))
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(FormatError, match="nan.tif: the mask holds NaN; .*save 255"),
    ):
        read_mask(tmp_path / "nan.tif")


def test_complex_numbers_are_no_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 3), 1j, np.complex64))
    with pytest.raises(FormatError, match="a.tif holds complex numbers, real ones are needed; .*as two channels"):
        read_image(tmp_path / "a.tif")


def test_time_and_stacks_of_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "time.tif", random_image(4, 6, 7), photometric="minisblack", metadata={"axes": "TYX"})
    with pytest.raises(FormatError, match="time.tif holds axes TYX .*save one file per time point"):
        read_image(tmp_path / "time.tif")
    tifffile.imwrite(tmp_path / "pages.tif", random_image(4, 6, 7, 3), photometric="rgb", planarconfig="contig")
    with pytest.raises(FormatError, match="one image is needed"):
        read_image(tmp_path / "pages.tif")


def test_a_codec_that_is_not_installed(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    tifffile.imwrite(tmp_path / "a.tif", random_image(6, 7))
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", refuse)
    with pytest.raises(FormatError, match="a.tif: .*: pip install imagecodecs, or save the file uncompressed"):
        read_image(tmp_path / "a.tif")


def test_what_cannot_be_written(tmp_path):
    two = Classes.of(["a", "b"])
    ones = np.ones((3, 3), dtype=np.uint8)
    with pytest.raises(OutputError, match="holds 0..2, but there are 2 classes"):
        write_class_map(tmp_path / "a.png", np.array([[0, 2]]), two, palette=False)
    with pytest.raises(OutputError, match="there are 300; write without a palette"):
        write_class_map(tmp_path / "a.png", ones, SIXTEEN_BIT, palette=True)
    with pytest.raises(OutputError, match="'.jpg' keeps no exact numbers here; name the file .png or .tif"):
        write_class_map(tmp_path / "a.jpg", ones, two, palette=False)
    with pytest.raises(OutputError, match="name the file .tif"):
        write_values(tmp_path / "a.png", np.ones((2, 3, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written .*choose a writable place"):
        write_class_map(tmp_path / "file" / "a.png", np.zeros((3, 3), int), EIGHT_BIT, palette=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


# On real files


def test_real_files(shared_data):
    truck = read_image(shared_data / "photos" / "truck.jpg")
    assert truck.shape == (3, 1200, 1800) and truck.dtype == np.uint8
    nuclei = sorted((shared_data / "nuclei" / "val" / "masks").iterdir())[0]
    assert read_mask(nuclei).dtype == np.uint16

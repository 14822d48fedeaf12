import io
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from segwright.codecs.image_file import decode_image, fit_mask, holds, read_image, read_mask
from segwright.codecs.image_writer import write_image
from segwright.codecs.stored_image import MAX_PIXELS
from segwright.core.errors import FormatError


def png(width, height, depth, color_type, rows, *chunks, interlace=0):
    """A PNG byte by byte, for what no writer at hand makes; `chunks` (kind, body) stand before the pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlace)
    before = b"".join(chunk(*one) for one in chunks)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + chunk(b"IEND", b"")


def row(codec, tag):
    return pytest.mark.row(codec, tag)


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


@row("PNG", "bit depth")
@pytest.mark.parametrize(("color_type", "channels", "colors"), [(2, 3, 3), (6, 4, 3), (4, 2, 1), (0, 1, 1)])
def test_16_bit_png_keeps_its_16_bits(tmp_path, color_type, channels, colors):
    values = random_image(3, 4, channels, dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(4, 3, 16, color_type, rows))
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint16 and np.array_equal(read, values[..., :colors].transpose(2, 0, 1))


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


@row("PNG", "alpha, tRNS")
def test_alpha_is_no_channel(tmp_path):
    rgba = random_image(5, 7, 4)
    rgba[0, 0] = 9, 8, 7, 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), rgba[..., :3].transpose(2, 0, 1))
    assert holds(tmp_path / "a.png", rgba[..., :3].transpose(2, 0, 1))
    Image.fromarray(rgba[..., 2:]).save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png")[0], rgba[..., 2])
    grey, colors = bytes([0, 1, 0, 2]), bytes([0, 1, 2, 3, 4, 5, 6])
    for depth, kind, rows, key, expected in (
        (8, 0, bytes([0, 1, 2]), (1,), [[[1, 2]]]),
        (16, 0, b"\0" + grey, (1,), [[[256, 2]]]),
        (8, 2, colors, (1, 2, 3), [[[1, 4]], [[2, 5]], [[3, 6]]]),
        (16, 2, b"\0" + bytes([0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6]), (1, 2, 3), [[[1, 4]], [[2, 5]], [[3, 6]]]),
    ):
        (tmp_path / "key.png").write_bytes(png(2, 1, depth, kind, rows, (b"tRNS", struct.pack(f">{len(key)}H", *key))))
        assert read_image(tmp_path / "key.png").tolist() == expected if depth == 8 or kind == 2 else [[[1, 2]]]


@row("PNG", "PLTE, palette")
def test_palette_gives_colours_to_images_and_indices_to_masks(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", transparency=1)
    picture.save(tmp_path / "a.bmp")
    for name in ("a.png", "b.png", "a.bmp"):
        assert read_image(tmp_path / name)[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
        assert read_mask(tmp_path / name).tolist() == [[0, 1, 2]]


@row("PNG", "interlace")
def test_interlaced(tmp_path):
    first, fourth, sixth, seventh = b"\0\x01", b"\0\x02", b"\0\x03\x04", b"\0\x07\x08\x09\x0a"
    rows = first + fourth + sixth + seventh  # of 4 x 2 pixels: where Adam7 has them
    (tmp_path / "a.png").write_bytes(png(4, 2, 8, 0, rows, interlace=1))
    assert read_image(tmp_path / "a.png").tolist() == [[[1, 3, 2, 4], [7, 8, 9, 10]]]


@row("PNG", "acTL, animation")
@row("GIF", "frames")
@row("WebP", "ANMF, frames")
def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (6, 4), color) for color in ((200, 10, 10), (10, 200, 10))]
    for name, options in (("a.png", {}), ("a.gif", {}), ("a.webp", {"lossless": True})):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100, **options)
        assert Image.open(tmp_path / name).n_frames == 2
        assert read_image(tmp_path / name)[:, 0, 0].tolist() == [200, 10, 10]
    assert (read_mask(tmp_path / "a.gif") == read_mask(tmp_path / "a.gif")[0, 0]).all()  # an index


@row("PNG", "gAMA, cHRM, iCCP, sRGB, cICP, sBIT")
def test_chunks_for_the_display_change_no_value(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    chunks = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cHRM", struct.pack(">8I", *[30_000] * 8)),
        (b"sBIT", b"\x05"),
        (b"sRGB", b"\0"),
        (b"cICP", bytes([9, 16, 0, 1])),
        (b"iCCP", b"a\0\0" + zlib.compress(profile)),
    ]
    for chunk in chunks:
        (tmp_path / "a.png").write_bytes(png(2, 1, 8, 0, bytes([0, 3, 200]), chunk))
        assert read_image(tmp_path / "a.png").tolist() == [[[3, 200]]]


@row("JPEG", "ICC, profile of colours")
def test_a_profile_changes_no_value(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "a.jpg", icc_profile=profile)
    Image.new("RGB", (8, 8), (200, 30, 90)).save(tmp_path / "b.jpg")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), read_image(tmp_path / "b.jpg"))


@row("JPEG", "components")
@row("JPEG", "Adobe, transform")
def test_jpeg_of_one_three_and_four_components(tmp_path):
    Image.new("L", (8, 8), 77).save(tmp_path / "a.jpg")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), np.full((1, 8, 8), 77))
    rgb = np.full((16, 16, 3), (200, 30, 90), np.uint8)
    inks = np.dstack([255 - rgb, np.zeros((16, 16), np.uint8)])
    Image.fromarray(rgb).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(inks, "CMYK").save(tmp_path / "inks.jpg", quality=95)  # inverted, as Adobe does
    turned = 255 - inks  # as they stand in the file, and as YCCK does the first three of them
    (tmp_path / "ycck.jpg").write_bytes(imagecodecs.jpeg_encode(turned, level=95, colorspace="CMYK", outcolorspace="YCCK"))
    for name in ("a.jpg", "inks.jpg", "ycck.jpg"):
        assert np.abs(read_image(tmp_path / name).astype(int) - rgb.transpose(2, 0, 1)).max() <= 4


@row("JPEG", "precision other than 8 bits")
def test_a_jpeg_of_12_bits(tmp_path):
    values = np.full((8, 8), 3000, np.uint16)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg_encode(values, bitspersample=12, level=90))
    with pytest.raises(FormatError, match="a.jpg: it has samples of 12 bits; .*: save it as PNG or TIFF of 16 bits"):
        read_image(tmp_path / "a.jpg")
    assert np.array_equal(read_image(write_image(tmp_path / "b", values[None]))[0], values)


@row("GIF", "transparent colour")
@row("WebP", "alpha")
def test_what_is_not_seen_has_its_colour_all_the_same(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "a.gif", transparency=1)
    assert read_image(tmp_path / "a.gif")[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]
    rgba = random_image(4, 5, 4)
    Image.fromarray(rgba).save(tmp_path / "a.webp", lossless=True, exact=True)
    assert np.array_equal(read_image(tmp_path / "a.webp"), rgba[..., :3].transpose(2, 0, 1))


def bmp(bits, compression, width, height, pixels, extra=b""):
    """A BMP byte by byte; `extra` is the palette or the masks of the channels."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, 0, 0) + extra
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


@row("BMP", "bits and masks, RLE")
def test_bitmaps(tmp_path):
    palette = b"".join(bytes([30 + k, 20 + k, 10 + k, 0]) for k in range(200)) + bytes(4 * 56)
    runs = bytes([3, 1, 1, 2, 0, 0, 0, 1])  # three of 1, one of 2, end of the line, end
    packed = struct.pack("<HH", 0b1_11111_00000_00000 & 0x7FFF, 0b00000_00000_11111)
    red, blue, alpha = (200, 30, 90, 0), (1, 2, 3, 255), struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    rgba = b"".join(bytes([color[2], color[1], color[0], color[3]]) for color in (red, blue))
    for data, expected in (
        (bmp(8, 1, 4, 1, runs, palette), [[11, 21, 31]] * 3 + [[12, 22, 32]]),
        (bmp(16, 0, 2, 1, packed), [[255, 0, 0], [0, 0, 255]]),
        (bmp(32, 3, 2, 1, rgba, alpha), [[200, 30, 90], [1, 2, 3]]),
        (bmp(32, 0, 2, 1, rgba), [[200, 30, 90], [1, 2, 3]]),
        (bmp(1, 0, 2, 1, bytes([0b01000000, 0, 0, 0]), bytes([30, 20, 10, 0, 33, 22, 11, 0])), [[10, 20, 30], [11, 22, 33]]),
    ):
        (tmp_path / "a.bmp").write_bytes(data)
        assert read_image(tmp_path / "a.bmp")[:, 0].T.tolist() == expected
    (tmp_path / "a.bmp").write_bytes(bmp(8, 1, 4, 1, runs, palette))
    assert read_mask(tmp_path / "a.bmp").tolist() == [[1, 1, 1, 2]]


@row("PNM", "maxval")
def test_what_a_pnm_says_is_white(tmp_path):
    for data, image, mask in (
        (b"P5 4 1 3\n" + bytes([0, 1, 2, 3]), [[[0, 85, 170, 255]]], [[0, 1, 2, 3]]),
        (b"P2 4 1 3\n0 1 2 3\n", [[[0, 85, 170, 255]]], [[0, 1, 2, 3]]),
        (b"P5 2 1 4095\n" + np.array([1, 4095], ">u2").tobytes(), [[[16, 65535]]], [[1, 4095]]),
        (b"P5 2 1 65535\n" + np.array([1, 60000], ">u2").tobytes(), [[[1, 60000]]], [[1, 60000]]),
        (b"P4 3 1\n" + bytes([0b01000000]), [[[255, 0, 255]]], [[1, 0, 1]]),
    ):
        (tmp_path / "a.pgm").write_bytes(data)
        assert read_image(tmp_path / "a.pgm").tolist() == image and read_mask(tmp_path / "a.pgm").tolist() == mask
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 4095\n" + np.array([0, 1, 4095], ">u2").tobytes())
    assert read_image(tmp_path / "a.ppm").ravel().tolist() == [0, 16, 65535]


@row("any", "NAME.msk, NAME.aux.xml with NoDataValue")
@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_files_of_gdal_beside_an_image(tmp_path, name):
    Image.fromarray(random_image(4, 5)).save(tmp_path / name)
    (tmp_path / f"{name}.aux.xml").write_text(
        "<PAMDataset><Metadata><MDI key='STATISTICS_MEAN'>7</MDI></Metadata></PAMDataset>"
    )
    read_image(tmp_path / name)
    for beside, content in (("aux.xml", "<PAMDataset><NoDataValue>0</NoDataValue></PAMDataset>"), ("msk", "II*")):
        (tmp_path / f"{name}.{beside}").write_text(content)
        with pytest.raises(FormatError, match=rf"{name}.{beside} beside it says where .* into a TIFF, .*or remove that file"):
            read_image(tmp_path / name)
        (tmp_path / f"{name}.{beside}").unlink()
        read_image(tmp_path / name)


def test_a_mask_of_equal_channels_or_of_whole_floats_is_a_mask(tmp_path):
    values = np.array([[0, 3], [255, 1]], dtype=np.uint8)
    Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([values] * 3 + [values // 2])).save(tmp_path / "rgba.png")  # its alpha is not asked
    tifffile.imwrite(tmp_path / "float.tif", values.astype(np.float32))
    for name in ("rgb.png", "rgba.png", "float.tif"):
        assert np.array_equal(read_mask(tmp_path / name), values) and read_mask(tmp_path / name).dtype.kind in "iu"


# By a twin


@row("PNG", "eXIf, orientation")
@row("JPEG", "EXIF 274, orientation")
@row("WebP", "EXIF 274, orientation")
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
    picture.save(tmp_path / "a.jpg", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))).transpose(2, 0, 1)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), expected)


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


def encoded(kind):
    rgb = random_image(12, 16, 3)
    buffer = io.BytesIO()
    if kind == "tiff":
        tifffile.imwrite(buffer, rgb, compression="zlib", rowsperstrip=4)
    else:
        Image.fromarray(rgb).save(buffer, format=kind)
    return buffer.getvalue()


@settings(max_examples=150)
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


# On real files


def test_real_files(shared_data):
    truck = read_image(shared_data / "photos" / "truck.jpg")
    assert truck.shape == (3, 1200, 1800) and truck.dtype == np.uint8
    nuclei = sorted((shared_data / "nuclei" / "val" / "masks").iterdir())[0]
    assert read_mask(nuclei).dtype == np.uint16

"""What the tags of a TIFF make of its numbers; each test that is marked is the proof of a row of tag_table.py."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.codecs.image_file import holds, read_image, read_mask, read_mask_channels
from segwright.codecs.image_writer import write_image
from segwright.codecs.stored_values import cmyk_to_rgb
from segwright.codecs.tiff_axes import FLAT
from segwright.codecs.tiff_image import decode_tiff
from segwright.core.errors import FormatError

GREY = np.array([[0, 1, 200], [3, 254, 255]], np.uint8)
RGB = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
PLACE = {33550: [1.0, 1.0, 0.0], 33922: [0.0, 0, 0, 500_000, 4_000_000, 0]}  # on a map


def row(codec, tag):
    return pytest.mark.row(codec, tag)


def packed_rows(values, bits):
    """Rows of numbers (H, W) bit by bit, each from a new byte on."""
    return b"".join(imagecodecs.packints_encode(line, bits) for line in values)


def read_as_rgb(tmp_path):
    """What the remedy of most rows leads to."""
    Image.fromarray(RGB).save(tmp_path / "rgb.tif")
    return np.array_equal(read_image(tmp_path / "rgb.tif"), RGB.transpose(2, 0, 1))


# How a number becomes a colour or a brightness


@row("TIFF", "262 Photometric = 0, white is zero")
@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("u2", 16), ("u2", 12), ("u4", 32)])
def test_white_is_zero(write_tiff, dtype, bits):
    values = np.array([[0, 1, 200], [3, 2**bits - 2, 2**bits - 1]], dtype)
    packed = packed_rows(values, bits) if bits == 12 else None
    path = write_tiff((values, {262: 0, 258: bits, "data": packed}))
    assert read_image(path).dtype == dtype
    assert np.array_equal(read_image(path)[0], 2**bits - 1 - values)
    assert np.array_equal(read_mask(path), 2**bits - 1 - values)


def test_white_is_zero_of_one_bit_and_in_packings_that_are_white_without_a_word(write_tiff, tmp_path):
    stored = np.array([[True, False, False]])
    bits = bytes([0b10000000])
    path = write_tiff((stored.astype(np.uint8), {258: 1, 262: 0, 339: None, "data": bits}))
    assert read_image(path).tolist() == [[[0, 255, 255]]] and read_mask(path).tolist() == [[0, 1, 1]]
    path = write_tiff((stored.astype(np.uint8), {258: 1, 262: 1, 339: None, "data": bits}))
    assert read_image(path).tolist() == [[[255, 0, 0]]] and read_mask(path).tolist() == [[1, 0, 0]]
    Image.fromarray(stored).save(tmp_path / "fax.tif", compression="group4")
    assert read_image(tmp_path / "fax.tif").tolist() == [[[255, 0, 0]]]


@row("TIFF", "262 Photometric = 1, black is zero")
def test_black_is_zero_and_what_no_tag_means(write_tiff):
    assert np.array_equal(read_image(write_tiff(GREY, t262=1))[0], GREY)
    assert np.array_equal(read_image(write_tiff(GREY, t262=None))[0], GREY)
    assert np.array_equal(read_image(write_tiff(RGB, t262=None)), RGB.transpose(2, 0, 1))


@row("TIFF", "262 Photometric = 2, RGB")
def test_rgb(write_tiff):
    assert np.array_equal(read_image(write_tiff(RGB)), RGB.transpose(2, 0, 1))


@row("TIFF", "262 Photometric = 3, palette (320)")
@pytest.mark.parametrize("factor", [257, 256, 1])  # of 16 bits as the standard has it, as others write it, and of 8 bits
def test_palettes_of_16_and_of_8_bits(write_tiff, factor):
    colors = np.zeros((256, 3), int)
    colors[[0, 1, 200, 3]] = [10, 20, 30], [40, 50, 60], [70, 80, 255], [0, 0, 90]
    path = write_tiff(GREY, t262=3, t320=(colors.T * factor).ravel())
    assert np.array_equal(read_image(path), np.moveaxis(colors[GREY], -1, 0)) and read_image(path).dtype == np.uint8
    assert np.array_equal(read_mask(path), GREY)


def test_a_palette_of_one_bit(write_tiff):
    tags = {258: 1, 262: 3, 320: [257 * value for value in (1, 2, 3, 4, 5, 6)], 339: None, "data": bytes([0b01000000])}
    path = write_tiff((np.zeros((1, 3), np.uint8), tags))
    assert read_image(path)[:, 0].T.tolist() == [[1, 3, 5], [2, 4, 6], [1, 3, 5]] and read_mask(path).tolist() == [[0, 1, 0]]


@row("TIFF", "262 Photometric = 5, inks (CMYK)")
@pytest.mark.parametrize("planar", [1, 2])
def test_inks_as_pillow_shows_them(write_tiff, planar):
    inks = np.random.default_rng(1).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    inks[0, 0], inks[0, 1] = (0, 0, 0, 0), (0, 255, 0, 0)
    shown = np.array(Image.fromarray(inks, "CMYK").convert("RGB")).transpose(2, 0, 1)
    data = inks.transpose(2, 0, 1).tobytes() if planar == 2 else None
    offsets = {"data": data} if planar == 1 else {"data": data, 278: 4}
    path = write_tiff((inks, {262: 5, 284: 1, **offsets})) if planar == 1 else None
    if path is None:
        path = write_tiff((inks, {262: 5}))
        tifffile.imwrite(path, inks.transpose(2, 0, 1), photometric="separated", planarconfig="separate")
    read = read_image(path)
    assert read[:, 0, 0].tolist() == [255, 255, 255] and read[:, 0, 1].tolist() == [255, 0, 255]
    assert np.abs(read.astype(int) - shown).max() <= 1  # rounding
    tifffile.imwrite(path, inks.astype(np.uint16) * 257, photometric="separated")
    assert np.abs(read_image(path).astype(int) - shown.astype(int) * 257).max() <= 257


@row("TIFF", "262 Photometric = 6, YCbCr")
def test_brightness_and_differences_of_colours(tmp_path):
    picture = Image.fromarray(np.full((16, 16, 3), (200, 30, 90), np.uint8))
    picture.convert("YCbCr").save(tmp_path / "plain.tif")
    tifffile.imwrite(tmp_path / "jpeg.tif", np.array(picture), photometric="rgb", compression="jpeg", subsampling=(2, 2))
    assert tifffile.TiffFile(tmp_path / "jpeg.tif").pages[0].photometric == 6
    for name in ("plain.tif", "jpeg.tif"):
        assert np.abs(read_image(tmp_path / name).astype(int) - [[[200]], [[30]], [[90]]]).max() <= 2


REFUSED = [
    ("262 Photometric = 4, mask alone", {262: 4}, "tag 262.* is 4 .MASK.*: set tag 262 to 1"),
    ("262 Photometric = 8, 9, 10, CIELab", {262: 8}, "tag 262.* is 8 .CIELAB.*as RGB or grey"),
    ("262 Photometric = 8, 9, 10, CIELab", {262: 9}, "tag 262.* is 9 .ICCLAB.*as RGB or grey"),
    ("262 Photometric = 32803, 34892, raw camera", {262: 32803}, "tag 262.* is 32803 .CFA.*develop it first"),
    ("262 Photometric = 32803, 34892, raw camera", {262: 34892}, "tag 262.* is 34892 .LINEAR_RAW.*develop it first"),
    ("262 Photometric = 32844, 32845, LogL, LogLuv", {262: 32845}, "tag 262.* is 32845 .LOGLUV.*as RGB or grey"),
    ("262 Photometric, another number", {262: 777}, "tag 262.* is 777.*as RGB or grey"),
    ("346 Indexed", {346: 1}, "Indexed .tag 346.* is 1.*as RGB or grey"),
    ("433 Decode", {433: [0, 255] * 3}, "Decode .tag 433.*as RGB or grey"),
    ("530 YCbCrSubSampling without JPEG", {262: 6, 530: [2, 2]}, "tag 530. is .2, 2. without JPEG.*as RGB or grey"),
    (
        "529 YCbCrCoefficients, 532 ReferenceBlackWhite, unusual",
        {262: 6, 530: [1, 1], 529: [0.2126, 0.7152, 0.0722]},
        "YCbCrCoefficients .tag 529",
    ),
    (
        "529 YCbCrCoefficients, 532 ReferenceBlackWhite, unusual",
        {262: 6, 530: [1, 1], 532: [16.0, 235, 128, 240, 128, 240]},
        "ReferenceBlackWhite .tag 532",
    ),
]


@pytest.mark.parametrize(("tag", "tags", "message"), [pytest.param(*one, marks=row("TIFF", one[0])) for one in REFUSED])
def test_colours_that_are_not_read_are_named(write_tiff, tmp_path, tag, tags, message):
    path = write_tiff((RGB, dict(tags)))
    for read in (read_image, read_mask):
        with pytest.raises(FormatError, match=rf"a.tif: its .*{message}"):
            read(path)
    assert read_as_rgb(tmp_path)
    if 262 in tags and tags[262] == 4:
        assert np.array_equal(read_mask(write_tiff(GREY, t262=1)), GREY)


@row("TIFF", "332 InkSet, 334 NumberOfInks, other than CMYK")
@pytest.mark.parametrize("tags", [{332: 2}, {332: 2, 334: 6}, {334: 3}])
def test_other_inks(write_tiff, tmp_path, tags):
    with pytest.raises(FormatError, match=r"InkSet \(tag 332\) is .* NumberOfInks \(tag 334\) .*as RGB or grey"):
        read_image(write_tiff((np.zeros((2, 3, 4), np.uint8), {262: 5, **tags})))
    assert read_as_rgb(tmp_path)


@row("TIFF", "336 DotRange, other than the whole")
def test_a_range_of_inks(write_tiff):
    inks = np.zeros((2, 3, 4), np.uint8)
    for usual in ([0, 255], [0, 255] * 4):
        assert (read_image(write_tiff(inks, t262=5, t336=usual)) == 255).all()
    with pytest.raises(FormatError, match=r"DotRange \(tag 336\) is \(16, 235\).*as RGB or grey"):
        read_image(write_tiff(inks, t262=5, t336=[16, 235]))


@row("TIFF", "262 Photometric = 0 with signed numbers or floats")
@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_white_is_zero_of_numbers_that_have_no_white(write_tiff, dtype):
    with pytest.raises(FormatError, match="is 0 .white is zero. and its values are .*: set tag 262 to 1"):
        read_image(write_tiff(GREY.astype(dtype), t262=0))
    assert np.array_equal(read_image(write_tiff(GREY.astype(dtype), t262=1))[0], GREY)


@row("TIFF", "262 Photometric = 5 or 6 with other bits")
def test_inks_and_brightness_of_other_bits(write_tiff):
    for kind, channels in ((5, 4), (6, 3)):
        for dtype in ("f4", "u4", "i1"):
            with pytest.raises(FormatError, match=rf"is {kind} .* and its values are .*as RGB or grey"):
                read_image(write_tiff(np.zeros((2, 3, channels), dtype), t262=kind, t530=[1, 1]))


# How a number is stored


@pytest.mark.parametrize("bits", [2, 4, 10, 12])
def test_packed_bits_of_a_picture_of_some_size_are_no_damage(write_tiff, bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, (90, 70)).astype("u1" if bits < 8 else "u2")
    path = write_tiff((values, {258: bits, "data": packed_rows(values, bits)}))
    assert path.stat().st_size < values.nbytes and np.array_equal(read_mask(path), values)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match="bytes of pixels are announced|damaged"):
        read_mask(path)


@row("TIFF", "258 BitsPerSample")
def test_few_bits_and_odd_ones(write_tiff):
    values = np.array([[0, 1, 2, 3]])
    for bits, image in (
        (2, [0, 85, 170, 255]),
        (4, [0, 17, 34, 51]),
        (3, [0, 36, 73, 109]),
        (10, None),
        (12, None),
        (14, None),
    ):
        path = write_tiff(
            (values.astype(np.uint16), {258: bits, "data": packed_rows(values.astype("u1" if bits < 8 else "u2"), bits)})
        )
        assert read_image(path).dtype == (np.uint8 if bits < 8 else np.uint16)
        assert read_image(path).tolist() == [[image or [0, 1, 2, 3]]] and read_mask(path).tolist() == [[0, 1, 2, 3]]


@row("TIFF", "339 SampleFormat")
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "u8"])
def test_sample_formats(write_tiff, dtype):
    values = np.array([[0, 1, 100]]).astype(dtype)
    values[0, 0] -= values.dtype.type(dtype[0] != "u")
    read = read_image(write_tiff(values))
    assert read.dtype == dtype and np.array_equal(read[0], values)


@row("TIFF", "258 BitsPerSample, 339 SampleFormat, differing or odd")
def test_bits_or_formats_that_differ(write_tiff):
    for tags in ({258: [8, 8, 16]}, {258: [64, 8, 8]}, {258: 7, 339: 2}, {339: 9}):
        with pytest.raises(FormatError, match=r"tag 258.*tag 339.*integers of 8, 16 or 32 bits, or floats"):
            read_image(write_tiff((RGB, tags)))
    for dtype in (np.uint8, np.uint16, np.uint32, np.float32):
        assert np.array_equal(read_image(write_tiff(RGB.astype(dtype))), RGB.transpose(2, 0, 1))


@row("TIFF", "339 SampleFormat = 5, 6, complex numbers")
def test_complex_numbers_are_no_image(tmp_path):
    values = np.full((3, 4), 1 + 2j, np.complex64)
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(FormatError, match="a.tif: its .* complex numbers; .*: save real and imaginary part as two channels"):
        read_image(tmp_path / "a.tif")
    assert read_image(write_image(tmp_path / "b", np.stack([values.real, values.imag]))).shape == (2, 3, 4)


@row("TIFF", "284 PlanarConfiguration")
@pytest.mark.parametrize("count", [3, 5])
def test_planes(tmp_path, count):
    values = np.random.default_rng(0).integers(0, 256, (count, 4, 7), dtype=np.uint8)
    kind = "rgb" if count == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=kind, planarconfig="separate", metadata=None)
    tifffile.imwrite(tmp_path / "b.tif", values.transpose(1, 2, 0), photometric=kind, planarconfig="contig", metadata=None)
    for name in ("a.tif", "b.tif"):
        assert np.array_equal(read_image(tmp_path / name), values)


@row("TIFF", "266 FillOrder")
def test_bits_from_the_low_end(write_tiff):
    path = write_tiff((np.zeros((1, 3), np.uint8), {258: 1, 266: 2, 339: None, "data": bytes([0b00000001])}))
    assert read_mask(path).tolist() == [[1, 0, 0]]


@row("TIFF", "317 Predictor")
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_predictors(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 200, (8, 9)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", predictor=True)
    assert np.array_equal(read_image(tmp_path / "a.tif")[0], values)


@row("TIFF", "274 Orientation")
def test_orientation(write_tiff):
    assert np.array_equal(read_image(write_tiff(GREY, t274=6))[0], np.rot90(GREY, -1))
    assert np.array_equal(read_mask(write_tiff(GREY, t274=3)), GREY[::-1, ::-1])


# What is no channel, no value or no page


@row("TIFF", "338 ExtraSamples = 0, further samples")
def test_further_samples_are_channels(write_tiff):
    values = np.dstack([RGB, RGB[..., :2]])
    assert np.array_equal(read_image(write_tiff(values, t262=2, t338=[0, 0])), values.transpose(2, 0, 1))
    assert len(read_image(write_tiff(values[..., :4], t262=2))) == 4  # nothing says that it is alpha
    assert len(read_image(write_tiff(values, t262=1, t338=[0, 0, 0, 0]))) == 5


@row("TIFF", "338 ExtraSamples = 2, alpha")
@pytest.mark.parametrize("planar", [False, True])
def test_alpha_is_no_channel_and_says_what_is_missing_on_a_map(write_tiff, tmp_path, planar):
    alpha = np.full((4, 5, 1), 255, np.uint8)
    alpha[1, 2], alpha[1, 3] = 0, 1
    rgba = np.concatenate([RGB, alpha], axis=-1)
    path = write_tiff(rgba, t262=2, t338=2)
    if planar:
        tifffile.imwrite(path, rgba.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(path), RGB.transpose(2, 0, 1)) and holds(path, RGB.transpose(2, 0, 1))
    assert np.array_equal(read_image(write_tiff(rgba[..., 2:], t262=1, t338=2))[0], RGB[..., 2])  # grey and alpha
    assert len(read_image(write_tiff(np.dstack([RGB[..., :1], rgba]), t262=2, t338=[0, 2]))) == 4  # a band and alpha
    on_map = read_image(write_tiff((rgba, {262: 2, 338: 2, **PLACE})))
    assert on_map.dtype == np.float32 and np.isnan(on_map[:, 1, 2]).all() and np.isnan(on_map).sum() == 3
    opaque = rgba.copy()
    opaque[..., 3] = 9
    assert read_image(write_tiff((opaque, {262: 2, 338: 2, **PLACE}))).dtype == np.uint8


@row("TIFF", "338 ExtraSamples = 1, associated alpha")
def test_colours_that_are_mixed_with_alpha_are_taken_apart(write_tiff):
    values = np.array([[[100, 50, 0, 100], [200, 100, 50, 255], [0, 0, 0, 0]]], np.uint8)
    assert read_image(write_tiff(values, t262=2, t338=1))[:, 0].T.tolist() == [[255, 128, 0], [200, 100, 50], [0, 0, 0]]
    floats = np.array([[[0.25, 0.5, 0.0, 0.5]]], np.float32)
    assert read_image(write_tiff(floats, t262=2, t338=1))[:, 0, 0].tolist() == [0.5, 1, 0]


@row("TIFF", "42113 GDAL_NODATA")
@pytest.mark.parametrize(
    ("dtype", "stored", "tag"),
    [
        ("f4", -9999, "-9999"), ("f4", -9999, "-9999.000000 "), ("f4", -9999, "-9999,0"), ("i2", -9999, "-9999.0"),
        ("u1", 0, "0"), ("f4", np.finfo("f4").min, "-3.40282346638529e+38"), ("f4", -3.40282306074e38, "-3.40282306074e+38"),
        ("f4", np.inf, "inf"), ("f8", np.nan, "nan"), ("f4", np.nan, "-1.#IND"),
        ("u1", 255, "255"), ("u2", 65535, "65535"), ("i4", -(2**31), "-2147483648"), ("u8", 2**64 - 1, "18446744073709551615"),
    ],
)  # fmt: skip
def test_what_gdal_calls_nodata_is_nan(tmp_path, dtype, stored, tag):
    values = np.arange(1, 13).reshape(3, 4).astype(dtype)
    values[1, 2] = stored
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, tag, True)])
    read = read_image(tmp_path / "a.tif")
    assert read.dtype == (np.float64 if dtype == "f8" else np.float32)
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
    colors = np.array([[[0, 0, 0], [255, 0, 0]]])
    tifffile.imwrite(tmp_path / "rgb.tif", colors.astype(np.uint8), photometric="rgb", extratags=tag)
    assert np.isnan(read_image(tmp_path / "rgb.tif"))[:, 0].tolist() == [[True, False]] * 3
    tifffile.imwrite(tmp_path / "rgb.tif", colors.astype(np.float32), photometric="rgb", extratags=tag)
    assert np.isnan(read_image(tmp_path / "rgb.tif"))[:, 0].tolist() == [[True, False], [True, True], [True, True]]


@pytest.mark.parametrize(
    ("dtype", "tag", "fill"), [("f4", "-3.4028234663852886e+38", np.nan), ("u1", "7", np.nan), ("u1", "300", 0)]
)
def test_tiles_that_are_left_out_are_missing(tmp_path, dtype, tag, fill):
    values = np.ones((32, 16), dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(16, 16), extratags=[(42113, "s", 0, tag, True)])
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for code in (324, 325):
            file.pages[0].tags[code].overwrite([file.pages[0].tags[code].value[0], 0])
    read = read_image(tmp_path / "a.tif")
    assert np.array_equal(read[0, 16:], np.full((16, 16), fill), equal_nan=True) and (read[0, :16] == 1).all()


@pytest.mark.parametrize(
    ("dtype", "tag", "stored", "void"),
    [("u1", "99", 99, 255), ("i2", "-9999", -9999, 65535), ("f4", "nan", np.nan, 255), ("u1", "0", 0, 0)],
)
def test_missing_pixels_of_masks_are_void_but_for_0(write_tiff, dtype, tag, stored, void):
    values = np.array([[0, 1, 2], [1, 1, 1]], dtype)
    values[0, 0] = stored
    expected = [[void, 1, 2], [1, 1, 1]]
    assert read_mask(write_tiff(values, t42113=tag)).tolist() == expected


@row("TIFF", "42112 GDAL_METADATA, 42113 GDAL_NODATA, no number")
def test_numbers_of_gdal_that_are_none_are_named(write_tiff):
    with pytest.raises(FormatError, match=r"a.tif: its GDAL_NODATA \(tag 42113\) is 'none'; .*: correct or remove it"):
        read_image(write_tiff(GREY, t42113="none"))
    item = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">x</Item></GDALMetadata>'
    with pytest.raises(FormatError, match=r"GDAL_METADATA \(tag 42112\) has the scale 'x'; .*: correct or remove it"):
        read_image(write_tiff(GREY, t42112=item))
    assert np.array_equal(read_image(write_tiff(GREY))[0], GREY)


@row("TIFF", "254 NewSubfileType = 4, page of a mask")
@pytest.mark.parametrize("bits", [1, 8])
def test_a_page_of_a_mask_says_what_is_missing(write_tiff, bits):
    hidden = np.array([[1, 1, 1], [1, 0, 1]], np.uint8)
    mask = {254: 4, 262: 4, 258: bits, "data": np.packbits(hidden, axis=1).tobytes() if bits == 1 else (hidden * 255).tobytes()}
    overview = (GREY[:1, :2], {254: 1})
    path = write_tiff((GREY, {}), (hidden, dict(mask)), overview, (hidden[:1, :2], {254: 5, 262: 4}))
    read = read_image(path)
    assert np.isnan(read).sum() == 1 and np.isnan(read[0, 1, 1]) and read[0, 0, 2] == 200
    assert read_mask(path)[1, 1] == 255  # void
    assert holds(path, read)
    assert read_image(write_tiff((GREY, {}), (hidden * 0 + 255, {254: 4, 262: 4}))).dtype == np.uint8


@row("TIFF", "254 NewSubfileType = 4, of another size")
def test_a_mask_of_another_size(write_tiff):
    with pytest.raises(
        FormatError, match=r"NewSubfileType, tag 254, is 4. is \(1, 3\), the image \(2, 3\).*: remove this page"
    ):
        read_image(write_tiff((GREY, {}), (GREY[:1], {254: 4, 262: 4})))


@row("TIFF", "254 NewSubfileType = 1, smaller copy")
@pytest.mark.parametrize("tags", [{254: 1}, {254: None, 255: 2}])
def test_smaller_copies_are_passed_over(write_tiff, tags):
    large = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for pages in ([(large, {}), (large[::2, ::2], tags)], [(large[::2, ::2], tags), (large, {})]):
        assert np.array_equal(read_image(write_tiff(*((values, dict(changes)) for values, changes in pages)))[0], large)


def test_levels_of_a_pyramid_in_sub_directories_are_passed_over(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for ome in (False, True):
        with tifffile.TiffWriter(tmp_path / "a.tif", ome=ome) as file:
            file.write(values, subifds=2)
            file.write(values[::2, ::2], subfiletype=1)
            file.write(values[::4, ::4], subfiletype=1)
        assert np.array_equal(read_image(tmp_path / "a.tif")[0], values)


@row("TIFF", "further pages")
@pytest.mark.parametrize("side", [4, 2, 3])  # the same size, half of it as if it were a smaller copy, and any
def test_further_pages_are_never_ignored(write_tiff, tmp_path, side):
    first, second = RGB[:4, :4], RGB[:side, :side]
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(first, photometric="rgb")
        file.write(second, photometric="rgb")
    message = (
        r"it holds 2 pages with images of their own; this is not read: save each as a file of its own, or all as one stack"
    )
    with pytest.raises(FormatError, match=message):
        read_image(tmp_path / "b.tif")
    plain = write_tiff((first, {}), (second, {}))
    with pytest.raises(FormatError, match=message if side != 4 else "holds axes .*one file per time point or page"):
        read_image(plain)
    tifffile.imwrite(tmp_path / "c.tif", np.stack([GREY, GREY]), metadata={"axes": "ZYX"})  # what the message says
    assert read_image(tmp_path / "c.tif").shape == (1, 2, 2, 3)


def test_ome_files_of_several_images(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(GREY)
        file.write(GREY[:1])
    with pytest.raises(FormatError, match="it holds 2 pages with images of their own"):
        read_image(tmp_path / "a.ome.tif")


@row("TIFF", "42112 GDAL_METADATA, scale and offset")
def test_scale_and_offset(write_tiff):
    def items(*lines):
        return "<GDALMetadata>\n" + "\n".join(lines) + "\n</GDALMetadata>"

    scale, offset = (
        '<Item name="{}" sample="0" role="{}">{}</Item>'.format(*item)
        for item in (("SCALE", "scale", 0.5), ("OFFSET", "offset", -1))
    )
    path = write_tiff(GREY, t42112=items(scale, offset), t42113="255")
    read = read_image(path)
    assert read.dtype == np.float32 and read[0, 0].tolist() == [-1, -0.5, 99] and np.isnan(read[0, 1, 2])
    assert read_image(write_tiff(GREY, t42112=items('<Item name="STATISTICS_MEAN" sample="0">7</Item>'))).dtype == np.uint8
    bands = np.dstack([GREY, GREY])
    read = read_image(write_tiff(bands, t262=1, t338=0, t42112=items('<Item name="SCALE" sample="1" role="scale">2</Item>')))
    assert read[:, 0, 2].tolist() == [200, 400]
    classes = write_tiff(np.array([[0, 10, 20]], np.uint8), t42112=items('<Item name="S" sample="0" role="scale">0.1</Item>'))
    assert read_mask(classes).tolist() == [[0, 1, 2]]


@row("TIFF", "270 ImageDescription, calibration of ImageJ")
def test_negative_numbers_of_imagej(tmp_path):
    info = {"cf": 0, "c0": -32768.0, "c1": 1.0}
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 32768, 65535]], np.uint16), imagej=True, metadata=info)
    assert read_image(tmp_path / "a.tif").tolist() == [[[-32768, 0, 32767]]]


@row("TIFF", "270 ImageDescription, other calibrations of ImageJ")
def test_other_calibrations_of_imagej(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3), np.uint16), imagej=True, metadata={"cf": 4, "c0": 1.0, "c1": 2.0})
    with pytest.raises(FormatError, match=r"calibration of ImageJ \(tag 270\) is of kind 4; .*save the image as 32-bit"):
        read_image(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3), np.float32), imagej=True)
    assert read_image(tmp_path / "a.tif").shape == (1, 2, 3)


@row("TIFF", "270 ImageDescription, OME planes elsewhere")
def test_planes_of_ome_in_other_files(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.stack([GREY] * 3), metadata={"axes": "ZYX"}, photometric="minisblack")
    assert read_image(tmp_path / "a.ome.tif").shape == (1, 3, 2, 3)
    data = (tmp_path / "a.ome.tif").read_bytes()
    assert b'SizeZ="3"' in data
    (tmp_path / "a.ome.tif").write_bytes(data.replace(b'SizeZ="3"', b'SizeZ="5"'))
    with pytest.raises(FormatError, match="2 of the 5 planes that its description .tag 270. announces .*into one file"):
        read_image(tmp_path / "a.ome.tif")


DISPLAY = [
    ("34675 ICC, 301, 318, 319, colours of a screen", {301: [*range(768)], 318: [0.3, 0.3], 319: [0.6, 0.3] * 3}),
    ("280, 281, 340, 341, lowest and highest", {280: 3, 281: 200, 340: 3.0, 341: 200.0}),
    ("290, 291 GrayResponseCurve", {290: 2, 291: [*range(256)]}),
]


@pytest.mark.parametrize(("tag", "tags"), [pytest.param(*one, marks=row("TIFF", one[0])) for one in DISPLAY])
def test_what_only_concerns_the_display_changes_no_value(write_tiff, tag, tags):
    assert np.array_equal(read_image(write_tiff((GREY, dict(tags))))[0], GREY)


# Layers of masks, and the rest


def test_layers_of_a_mask_stay_layers(tmp_path):
    layers = np.stack([GREY, GREY.T.reshape(2, 3)])
    tifffile.imwrite(tmp_path / "stack.tif", layers, photometric="minisblack", metadata={"axes": "CYX"})
    Image.fromarray(layers[0]).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(layers[1])])
    for name in ("stack.tif", "pages.tif"):
        assert np.array_equal(read_mask_channels(tmp_path / name, FLAT), layers)


def test_without_a_file(write_tiff):
    path = write_tiff(GREY)
    assert np.array_equal(decode_tiff(path.read_bytes(), path).values[0], GREY)


def test_samples_that_make_no_colour_are_damage(write_tiff):
    for channels, tags in ((3, {262: 5}), (2, {262: 6, 530: [1, 1]}), (1, {262: 1, 338: 2}), (1, {262: 3})):
        with pytest.raises(FormatError, match="is damaged or cut short"):
            read_image(write_tiff((RGB[..., :channels].squeeze(), dict(tags))))


def test_all_four_inks_are_black():
    assert cmyk_to_rgb(np.full((4, 1, 1), 255, np.uint8), 255).ravel().tolist() == [0, 0, 0]


# Axes


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
    values = np.random.default_rng(0).integers(0, 65535, shape, dtype=np.uint16)
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


# By its messages


@pytest.mark.parametrize("pages", [1, 3])
def test_pages_in_a_circle(write_tiff, pages):
    path = write_tiff((GREY, {}), *[(GREY[:1], {254: 1})] * (pages - 1))
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        places = [page.offset for page in file.pages]
        end = places[-1] + 2 + 12 * len(file.pages[-1].tags)
    path.write_bytes(content[:end] + struct.pack("<I", places[0]) + content[end + 4 :])
    with pytest.raises(FormatError, match="is damaged or cut short .its pages lead in a circle.; copy it again"):
        read_image(path)
    path.write_bytes(content[:end] + struct.pack("<I", 10**6) + content[end + 4 :])  # as some programs end a file
    assert np.array_equal(read_image(path)[0], GREY)


def test_a_tiff_without_its_pixels(write_tiff):
    path = write_tiff((GREY, {278: 1, 279: [3, 3], "data": bytes(6)}))
    for read in (read_image, read_mask):
        with pytest.raises(FormatError, match="a.tif is damaged or cut short .*; copy it again or remove it"):
            read(path)


def test_time_and_stacks_of_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "time.tif", np.zeros((4, 6, 7), np.uint8), photometric="minisblack", metadata={"axes": "TYX"})
    with pytest.raises(FormatError, match="time.tif holds axes TYX .*save one file per time point"):
        read_image(tmp_path / "time.tif")
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((4, 6, 7, 3), np.uint8), photometric="rgb", planarconfig="contig")
    with pytest.raises(FormatError, match="one image is needed"):
        read_image(tmp_path / "pages.tif")


def test_a_codec_that_is_not_installed(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 7), np.uint8))
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", refuse)
    with pytest.raises(FormatError, match="a.tif: .*: pip install imagecodecs, or save the file uncompressed"):
        read_image(tmp_path / "a.tif")

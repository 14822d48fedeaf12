"""TIFF files to what they hold: which page, what its numbers mean, where they are missing. tag_table.py has the rules.

Axes: C channels, *S spatial axes, (H, W), or (D, H, W) for a TIFF with a depth axis; tiff_axes.py tells which is which.
"""

import logging
import re
import struct
from contextlib import suppress
from functools import reduce
from io import BytesIO
from math import prod
from mmap import mmap
from pathlib import Path

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage, TiffPageSeries

from segwright.codecs.stored_image import EXIF_ORIENTATION, MAX_PIXELS, StoredImage, bomb
from segwright.codecs.stored_values import cmyk_to_rgb, rescaled, ycbcr_to_rgb
from segwright.codecs.tag_table import refused
from segwright.codecs.tiff_axes import FLAT, Axes, channels_first, named_by_a_person, told_letters

GDAL_METADATA, GDAL_NODATA = 42112, 42113
PLACE_TAGS = (33550, 33922, 34264)  # scale, tie points and matrix: of an image that lies on a map
REDUCED, MASK = 1, 4  # bits of NewSubfileType, 254
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha among the extra samples
CCITT = (COMPRESSION.CCITTRLE, COMPRESSION.CCITT_T4, COMPRESSION.CCITT_T6)
JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG, 34892, 33007)  # the two last: older numbers of lossy and of other JPEG
SLIDES = ("svs", "scn", "ndpi", "bif", "qpi", "philips", "avs")  # scanners that add pictures of the label and of the glass
COLORS: dict[int, int] = {PHOTOMETRIC.RGB: 3, PHOTOMETRIC.SEPARATED: 4, PHOTOMETRIC.YCBCR: 3}  # samples that make one colour
UNREAD = {  # interpretations, by their row in the table
    "262 Photometric = 4, mask alone": (PHOTOMETRIC.MASK,),
    "262 Photometric = 8, 9, 10, CIELab": (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB, PHOTOMETRIC.ITULAB),
    "262 Photometric = 32803, 34892, raw camera": (PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW),
    "262 Photometric = 32844, 32845, LogL, LogLuv": (PHOTOMETRIC.LOGL, PHOTOMETRIC.LOGLUV),
}
BT_601 = (0.299, 0.587, 0.114)
FULL_RANGE = (0, 255, 128, 255, 128, 255)
SCALE_ITEM = re.compile(r'<Item\b([^>]*\brole="(scale|offset)"[^>]*)>([^<]*)</Item>')
SAMPLE_OF_ITEM = re.compile(r'\bsample="(\d+)"')

# tifffile logs that it gives up on some spellings of nodata that GDAL writes; nodata_of understands them
logging.getLogger("tifffile").addFilter(lambda record: "GDAL_NODATA" not in record.getMessage())


def decode_tiff(data: bytes, path: Path, axes: Axes = FLAT) -> StoredImage:
    """What the bytes of a TIFF hold; `path` is for the messages. Damage raises whatever it does.

    Raises:
        FormatError: tag_table.py refuses a tag, the axes are not those of one image, or it would unpack to too many pixels.
    """
    with TiffFile(BytesIO(data)) as tiff:
        check_chain(tiff, data)
        series, mask = image_and_mask(tiff, path)
        page = series.keyframe
        meaning = _photometric(page)
        _check(page, meaning, path)
        packed = series.size * page.bitspersample // 8 if isinstance(page.bitspersample, int) else series.nbytes
        if page.compression == COMPRESSION.NONE and packed > len(data):
            raise ValueError(f"{packed} bytes of pixels are announced, the whole file has {len(data)}")
        if page.compression != COMPRESSION.NONE and series.size // page.samplesperpixel > MAX_PIXELS:
            raise bomb(path, " x ".join(map(str, series.shape)), len(data))
        check_pages(series, path)
        nodata = nodata_of(page, path)
        array = series.asarray()
        if array.shape != series.shape or not array.size:  # tifffile only logs that pixels are missing
            raise ValueError(f"{array.size} values are there, {series.size} are announced")
        values = channels_first(array, series.axes, path, axes)
        values = values.astype(np.uint8 if values.dtype == bool else values.dtype.newbyteorder("="), copy=False)
        values, alpha = _without_alpha(values, page)
        missing = [] if mask is None else [mask.keyframe.asarray()[None] == 0]
        if nodata is not None:
            is_nodata = equals_nodata(values, nodata)
            is_color = meaning in COLORS and values.dtype.kind == "u"  # where 0 is no value, pure red still is a colour
            missing.append(is_nodata.all(axis=0, keepdims=True) if is_color else is_nodata)
        if alpha is not None and _lies_on_map(page):
            missing.append(alpha == 0)
        values, palette, white = _meant(values, page, meaning)
        if palette is None:
            scaled = _scaled(values, tiff, page, path)
            values, white = scaled, white if scaled is values else None
        somewhere = reduce(np.logical_or, missing) if any(one.any() for one in missing) else None
        return StoredImage(
            values,
            palette,
            int(page.tags.valueof(EXIF_ORIENTATION, 1)),
            white,
            somewhere,
            page.compression in JPEG,
            transparent=0 if alpha is None else _transparent(alpha, page),
            hidden=None if alpha is None or alpha.all() else alpha[0] == 0,
            is_turned=calls_white_zero(page),
        )


def calls_white_zero(page: TiffPage) -> bool:
    """Whether a page says by tag 262 that white is 0, so that its numbers are turned, which a program may not have meant.

    Fax packings have no other way, and who packs so has turned them.
    """
    return page.photometric == PHOTOMETRIC.MINISWHITE and page.compression not in CCITT


def has_alpha(page: TiffPage) -> bool:
    """Whether one of the samples of a page is alpha."""
    return any(kind in (ASSOCIATED, UNASSOCIATED) for kind in page.extrasamples)


def told_axes(path: Path, shape: tuple[int, ...]) -> str | None:
    """The names of a TIFF's axes as its mask of this shape tells them; None where the file or a person does, or in damage."""
    try:
        data = path.read_bytes()
        with TiffFile(BytesIO(data)) as tiff:
            check_chain(tiff, data)
            sides = [(letter, side) for letter, side in zip(tiff.series[0].axes, tiff.series[0].shape, strict=True)]
    except Exception:  # damaged files fail in any way; reading them says how
        return None
    kept = [(letter, side) for letter, side in sides if letter in "YX" or side > 1]
    letters = "".join(letter for letter, _ in kept)
    if named_by_a_person(path) or len(kept) < 3:
        return None
    told = told_letters([side for _, side in kept], letters, path, Axes(shape))
    return None if told == letters else told


def check_chain(tiff: TiffFile, data: bytes | mmap) -> None:
    """Refuse a file whose pages lead back to one before: tifffile would follow them for ever."""
    layout, place, seen = tiff.tiff, tiff.pages.first.offset, set()
    while place:
        if place in seen:
            raise ValueError("its pages lead in a circle")
        seen.add(place)
        try:
            count = struct.unpack_from(layout.tagnoformat, data, place)[0]
            place = struct.unpack_from(layout.offsetformat, data, place + layout.tagnosize + count * layout.tagsize)[0]
        except struct.error:  # outside of the file: tifffile, too, takes this for the end
            return


def image_and_mask(tiff: TiffFile, path: Path) -> tuple[TiffPageSeries, TiffPageSeries | None]:
    """The pages that are the image, and GDAL's page of a mask that is 0 where the image has no value, if there is one.

    Raises:
        FormatError: there are pages of another image, or the mask has another size.
    """
    series = list(tiff.series)
    for one in tiff.series:  # smaller pages that nothing calls a copy of the larger
        series += [] if one.kind != "generic" else [level for level in one.levels[1:] if not level.keyframe.is_subifd]
    images = [one for one in series if not one.keyframe.subfiletype & (REDUCED | MASK)] or series[:1]
    image, *others = images
    if others and image.kind not in SLIDES:
        found = f"it holds {sum(len(one.pages) for one in images)} pages with images of their own"
        raise refused(path, "TIFF", "further pages", found)
    masks = [one for one in series if one.keyframe.subfiletype & (REDUCED | MASK) == MASK and one is not image]
    if not masks:
        return image, None
    size = (image.keyframe.imagelength, image.keyframe.imagewidth)
    if masks[0].keyframe.shape != size:
        found = f"the page of its mask (NewSubfileType, tag 254, is 4) is {masks[0].keyframe.shape}, the image {size}"
        raise refused(path, "TIFF", "254 NewSubfileType = 4, of another size", found)
    check_pages(masks[0], path)
    return image, masks[0]


def check_pages(series: TiffPageSeries, path: Path) -> None:
    """Refuse an image of which pages, or strips or tiles of one, are not in the file: tifffile would fill in zeros."""
    page, pages = series.keyframe, list(series.pages)
    if None in pages:
        found = f"{pages.count(None)} of the {len(pages)} planes that its description (tag 270) announces are not in it"
        raise refused(path, "TIFF", "270 ImageDescription, OME planes elsewhere", found)
    sides = (page.imagedepth, page.imagelength, page.imagewidth)
    steps = (page.tiledepth, page.tilelength, page.tilewidth) if page.is_tiled else (1, page.rowsperstrip or sides[1], sides[2])
    pieces = prod(-(-side // step) for side, step in zip(sides, steps, strict=True))
    pieces *= page.samplesperpixel if page.planarconfig == PLANARCONFIG.SEPARATE else 1
    if any(one is not None and len(one.dataoffsets) < pieces for one in pages):
        raise ValueError(f"fewer strips or tiles are there than the {pieces} of a page")


def _photometric(page: TiffPage) -> int:
    """What tag 262 says, or what libtiff takes a file without it for."""
    if page.tags.get(262) is not None or page.compression == COMPRESSION.OJPEG:
        return int(page.photometric)
    if page.compression in CCITT:
        return PHOTOMETRIC.MINISWHITE
    return PHOTOMETRIC.RGB if page.samplesperpixel - len(page.extrasamples) == 3 else PHOTOMETRIC.MINISBLACK


def _check(page: TiffPage, meaning: int, path: Path) -> None:
    """Refuse what the table refuses."""
    dtype, bits, tags = page.dtype, page.bitspersample, page.tags
    said = f"its PhotometricInterpretation (tag 262) is {meaning}"
    for row, numbers in UNREAD.items():
        if meaning in numbers:
            raise refused(path, "TIFF", row, f"{said} ({PHOTOMETRIC(meaning).name})")
    if meaning not in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.PALETTE, *COLORS):
        raise refused(path, "TIFF", "262 Photometric, another number", said)
    formats = f"its BitsPerSample (tag 258) is {bits} and its SampleFormat (tag 339) {tags.valueof(339, 1)}"
    if dtype is not None and dtype.kind == "c":
        raise refused(path, "TIFF", "339 SampleFormat = 5, 6, complex numbers", f"{formats}: complex numbers")
    if dtype is None or meaning == PHOTOMETRIC.PALETTE and dtype.kind not in "ub":
        raise refused(path, "TIFF", "258 BitsPerSample, 339 SampleFormat, differing or odd", formats)
    if meaning == PHOTOMETRIC.MINISWHITE and dtype.kind not in "ub":
        found = f"{said} (white is zero) and its values are {dtype}"
        raise refused(path, "TIFF", "262 Photometric = 0 with signed numbers or floats", found)
    if tags.valueof(346, 0) != 0:
        raise refused(path, "TIFF", "346 Indexed", f"its Indexed (tag 346) is {tags.valueof(346)}")
    if tags.get(433) is not None:
        raise refused(path, "TIFF", "433 Decode", f"its Decode (tag 433) is {tags.valueof(433)}")
    if meaning == PHOTOMETRIC.SEPARATED:
        _check_inks(page, said, path)
    if meaning == PHOTOMETRIC.YCBCR:
        _check_ycbcr(page, said, path)


def _check_inks(page: TiffPage, said: str, path: Path) -> None:
    bits, tags = page.bitspersample, page.tags
    if bits not in (8, 16) or page.dtype not in (np.uint8, np.uint16):
        found = f"{said} (inks) and its values are {page.dtype} of {bits} bits"
        raise refused(path, "TIFF", "262 Photometric = 5 or 6 with other bits", found)
    ink_set, count = tags.valueof(332, 1), tags.valueof(334, 4)
    if (ink_set, count) != (1, 4):
        found = f"its InkSet (tag 332) is {ink_set} and its NumberOfInks (tag 334) {count}"
        raise refused(path, "TIFF", "332 InkSet, 334 NumberOfInks, other than CMYK", found)
    dots = tags.valueof(336)
    if dots is not None and set(zip(dots[::2], dots[1::2], strict=True)) != {(0, 2**bits - 1)}:
        raise refused(path, "TIFF", "336 DotRange, other than the whole", f"its DotRange (tag 336) is {dots}")


def _check_ycbcr(page: TiffPage, said: str, path: Path) -> None:
    tags = page.tags
    if page.bitspersample != 8 or page.dtype != np.uint8:
        found = f"{said} (YCbCr) and its values are {page.dtype} of {page.bitspersample} bits"
        raise refused(path, "TIFF", "262 Photometric = 5 or 6 with other bits", found)
    if page.compression not in JPEG and tags.valueof(530, (2, 2)) != (1, 1):
        found = f"its YCbCrSubSampling (tag 530) is {tags.valueof(530, (2, 2))} without JPEG"
        raise refused(path, "TIFF", "530 YCbCrSubSampling without JPEG", found)
    for code, name, usual in ((529, "YCbCrCoefficients", BT_601), (532, "ReferenceBlackWhite", FULL_RANGE)):
        value = tags.valueof(code)
        if value is None:
            continue
        numbers = np.array(value, np.float64).reshape(-1, 2)  # numerators and denominators
        if numbers.shape[0] != len(usual) or (np.abs(numbers[:, 0] - numbers[:, 1] * usual) > numbers[:, 1] * 0.01).any():
            found = f"its {name} (tag {code}) is {value}"
            raise refused(path, "TIFF", "529 YCbCrCoefficients, 532 ReferenceBlackWhite, unusual", found)


def nodata_of(page: TiffPage, path: Path) -> float | None:
    """The number that stands for missing values by GDAL's tag, an int where it is whole; None where there is no tag.

    The page is told, too, as tifffile fills it in where a file leaves out tiles, and does not understand all that GDAL writes.
    """
    tag = page.tags.get(GDAL_NODATA)
    if tag is None:
        return None
    text = str(tag.value).strip("\0 ").replace(",", ".").lower()
    number: float | None = np.nan if "nan" in text or "#ind" in text else None  # 1.#QNAN, -1.#IND: of old programs on Windows
    for kind in (float, int):
        with suppress(ValueError):
            number = kind(text)
    if number is None:
        found = f"its GDAL_NODATA (tag {GDAL_NODATA}) is {tag.value!r:.80}"
        raise refused(path, "TIFF", "42112 GDAL_METADATA, 42113 GDAL_NODATA, no number", found)
    dtype = np.dtype(page.dtype)
    if dtype.kind == "f" or dtype.kind in "iu" and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
        page.nodata = number if dtype.kind == "f" else int(number)
    return number


def equals_nodata(values: np.ndarray, number: float) -> np.ndarray:
    """Where values are a number that was written as text, bool; GDAL too forgives the last digits of floats."""
    if np.isnan(number):
        return np.isnan(values)
    if values.dtype.kind in "iu":
        return np.asarray(values == number)
    slack = float(4 * np.finfo(values.dtype).eps)
    low, high = sorted((float(number) * (1 - slack), float(number) * (1 + slack)))
    with np.errstate(over="ignore"):  # beyond what the dtype holds
        return (values >= low) & (values <= high)


def _without_alpha(values: np.ndarray, page: TiffPage) -> tuple[np.ndarray, np.ndarray | None]:
    """The channels that are no alpha, and alpha (1, *S), if there is one; colours mixed with it are taken apart again."""
    extras = page.extrasamples if len(values) == page.samplesperpixel else ()
    kinds = {len(values) - len(extras) + index: kind for index, kind in enumerate(extras) if kind in (ASSOCIATED, UNASSOCIATED)}
    if not kinds:
        return values, None
    if min(kinds) < 1:
        raise ValueError(f"all of its {len(values)} samples are extra samples")
    first, kind = next(iter(kinds.items()))
    alpha, colors = values[first : first + 1], np.delete(values, [*kinds], axis=0)
    if kind == UNASSOCIATED or colors.dtype.kind == "i":
        return colors, alpha
    top = 1.0 if colors.dtype.kind == "f" else 2.0**page.bitspersample - 1
    whole = np.divide(colors * top, alpha, out=colors.astype(np.float64), where=alpha > 0).clip(0, top)
    return (whole if colors.dtype.kind == "f" else np.rint(whole)).astype(colors.dtype), alpha


def _lies_on_map(page: TiffPage) -> bool:
    return any(page.tags.get(code) is not None for code in PLACE_TAGS)


def _transparent(alpha: np.ndarray, page: TiffPage) -> int:
    """How many pixels alpha (1, *S) hides, or half hides, that are not missing for that."""
    hidden = alpha < (1 if alpha.dtype.kind == "f" else 2**page.bitspersample - 1)
    return int(np.count_nonzero(hidden & (alpha > 0) if _lies_on_map(page) else hidden))


def _meant(values: np.ndarray, page: TiffPage, meaning: int) -> tuple[np.ndarray, np.ndarray | None, int | None]:
    """Values (C, *S) as tag 262 means them, their palette and what is white, as in StoredImage."""
    bits = page.bitspersample
    white = 2**bits - 1 if isinstance(bits, int) and bits < 8 else None
    if meaning == PHOTOMETRIC.PALETTE and len(values) == 1:
        colors = page.colormap  # uint16 (3, N)
        if colors is None:
            raise ValueError("its palette, tag 320, is missing")
        palette = np.full((256**values.dtype.itemsize, 3), 255, np.uint8)
        is_wide = colors.max() > 255  # colours have 16 bits, but some programs write 8, and all viewers know it
        palette[: colors.shape[1]] = (colors >> 8 if is_wide else colors).T[: len(palette)]
        return values, palette, None
    if meaning == PHOTOMETRIC.MINISWHITE:
        count = page.samplesperpixel - len(page.extrasamples) if len(page.extrasamples) else len(values)
        values = np.concatenate([values.dtype.type(2**bits - 1) - values[:count], values[count:]])
    if meaning in COLORS and meaning != PHOTOMETRIC.RGB and len(values) < COLORS[meaning]:
        raise ValueError(f"{len(values)} samples make no colour of {COLORS[meaning]}")
    if meaning == PHOTOMETRIC.SEPARATED:
        values = np.concatenate([cmyk_to_rgb(values[:4], 2**bits - 1), values[4:]])
    is_done = page.compression in JPEG and page.planarconfig == PLANARCONFIG.CONTIG and not page.extrasamples  # by the decoder
    if meaning == PHOTOMETRIC.YCBCR and not is_done:
        values = np.concatenate([ycbcr_to_rgb(values[:3]), values[3:]])
    return values, None, white


def _scaled(values: np.ndarray, tiff: TiffFile, page: TiffPage, path: Path) -> np.ndarray:
    """Values (C, *S) times the scale plus the offset of GDAL, or as ImageJ calibrates them."""
    slopes, offsets = [1.0] * len(values), [0.0] * len(values)
    for attributes, role, text in SCALE_ITEM.findall(str(page.tags.valueof(GDAL_METADATA, ""))):
        sample, number = SAMPLE_OF_ITEM.search(attributes), _number(text)
        if number is None:
            found = f"its GDAL_METADATA (tag {GDAL_METADATA}) has the {role} {text!r:.80}"
            raise refused(path, "TIFF", "42112 GDAL_METADATA, 42113 GDAL_NODATA, no number", found)
        if sample is not None and int(sample[1]) < len(values):
            (slopes if role == "scale" else offsets)[int(sample[1])] = number
    told = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    if "cf" in told:
        slope, offset = _number(told.get("c1")), _number(told.get("c0"))
        if told["cf"] != 0 or slope is None or offset is None:
            found = f"its calibration of ImageJ (tag 270) is of kind {told['cf']}"
            raise refused(path, "TIFF", "270 ImageDescription, other calibrations of ImageJ", found)
        slopes, offsets = [slope] * len(values), [offset] * len(values)
    if set(slopes) == {1} and set(offsets) == {0}:
        return values
    ends = (0, 0) if values.dtype.kind == "f" else (int(np.iinfo(values.dtype).min), int(np.iinfo(values.dtype).max))
    return np.stack([rescaled(*line, ends) for line in zip(values, slopes, offsets, strict=True)])


def _number(text: object) -> float | None:
    try:
        number = float(str(text))
    except ValueError:
        return None
    return number if np.isfinite(number) else None

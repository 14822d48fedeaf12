"""Image files to arrays: PNG, JPEG, BMP, WebP, GIF, PNM and TIFF. Axes: C channels, *S spatial axes, (H, W) or (D, H, W).

How values are read, tag by tag, stands in tag_table.py; what is special to TIFF, in tiff_image.py.
"""

import logging
import struct
import warnings
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageFile
from tifffile import TiffFile

from segwright.codecs.stored_image import EXIF_ORIENTATION, MAX_PIXELS, StoredImage, bomb, upright
from segwright.codecs.tag_table import refused
from segwright.codecs.tiff_axes import FLAT, MASK, Axes
from segwright.codecs.tiff_image import decode_tiff, has_alpha
from segwright.core.errors import FormatError, SegwrightError
from segwright.core.warn_once import warn_once

log = logging.getLogger(__name__)

TIFF_SUFFIXES = (".tif", ".tiff")
JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
SUFFIXES = (".png", *JPEG_SUFFIXES, ".bmp", ".webp", ".gif", ".pgm", ".ppm", ".pnm", *TIFF_SUFFIXES)
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")  # no EPS or PDF: those run other programs
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_MAGIC = b"\xff\xd8\xff"
BMP_DEPTH = 28  # place of the byte that says how many bits a pixel has
BLACK_IS_ZERO = (
    """python -c "import tifffile; t = tifffile.TiffFile('FILE.tif', mode='r+'); """
    """[p.tags[262].overwrite(1) for p in t.pages]; t.close()\""""
)
WEBP_HEAD = 4096  # bytes; before the picture stand at most a colour profile and settings
TURNED = range(2, 9)  # EXIF orientations that ask for a turn or a mirror image

# Pillow warns from half of MAX_PIXELS on; _decode refuses at MAX_PIXELS, with a remedy, so the warning would only be noise
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_image(path: Path | str, axes: Axes = FLAT) -> np.ndarray:
    """An image (C, *S) in the dtype of its file, upright as its EXIF orientation says, the first frame of an animation.

    Colours are RGB, whatever the file has; alpha is no channel; 1-bit pixels are 0 and 255. Where the file says that values
    are missing, the image is float and NaN there. tag_table.py has the rules. `axes` tells what stacks without names hold.

    Raises:
        FormatError: the file is missing, empty, damaged, no image, larger than MAX_PIXELS, or has a tag that is not read.
    """
    return stored_image(Path(path), axes).image()


def decode_image(data: bytes, place: Path | str) -> np.ndarray:
    """The image (C, *S), as `read_image` gives it, in the bytes of an image file; `place` is for the messages.

    Raises:
        FormatError: as `read_image`.
    """
    return _decode_bytes(data, Path(place)).image()


def holds(path: Path | str, image: np.ndarray) -> bool:
    """Whether a file holds exactly this image (C, *S), for every program: as it is seen, not to be turned as its EXIF says.

    Raises:
        FormatError: as `read_image`.
    """
    stored = stored_image(Path(path), Axes(shape=image.shape[1:]))
    if stored.orientation in TURNED:
        return False
    seen = stored.image()
    return seen.dtype == image.dtype and np.array_equal(seen, image, equal_nan=True)


def read_mask(path: Path | str) -> np.ndarray:
    """The numbers in a mask file, integer (*S): indices of a palette file, else grey values; 0 and 1 for 1-bit pixels.

    Raises:
        FormatError: as in `read_image`; or its channels differ, or its values are no integers.
    """
    stored = stored_image(Path(path), MASK)
    if stored.is_turned:
        say_turned(Path(path))
    values = stored.mask(Path(path))
    if are_colors(values):
        raise FormatError(
            f"{path}: the mask has {len(values)} channels that differ (a picture of colours?), one number per pixel is needed; "
            "save class numbers as 8 or 16-bit greyscale or as a palette PNG; "
            'if its pages are the slices of a volume, write axes = "ZYX" into dataset.toml beside the data'
        )
    return values[0]


def read_mask_channels(path: Path | str, axes: Axes = MASK) -> np.ndarray:
    """The integers in a mask file (C, *S): one channel of indices or grey values, or several as stored, without alpha.

    Numbers other than 0 that the file says are missing become 255, or 65535 in more than 8 bits.

    Raises:
        FormatError: as in `read_image`; or its values are no integers.
    """
    return stored_image(Path(path), axes).mask(Path(path))


def say_turned(path: Path) -> None:
    """Say, once for all masks of a folder, that the numbers of one were turned."""
    warn_once(
        log,
        "%s: masks say that white is 0 (tag 262), so that their numbers are turned, as every viewer shows them; where a "
        "program wrote that tag and did not turn them, as tifffile does with masks of True and False, background and objects "
        "are swapped: then say that black is 0, which changes no pixel: %s",
        *(path.parent, BLACK_IS_ZERO),
    )


def transparent_pixels(path: Path) -> int:
    """How many pixels of an image file alpha hides, or half hides, though they are read as values; 0 where it is no image."""
    try:
        if path.suffix.lower() in TIFF_SUFFIXES:
            with TiffFile(path) as tiff:
                may_be = has_alpha(tiff.pages.first)
        elif path.suffix.lower() in JPEG_SUFFIXES:
            may_be = False
        else:
            with Image.open(path, formats=PILLOW_FORMATS) as picture:
                may_be = picture.has_transparency_data
        return stored_image(path).transparent if may_be else 0
    except Exception:  # damaged files fail in any way; the reader of the image says how, with a remedy
        return 0


def are_colors(values: np.ndarray) -> bool:
    """Whether the channels of a mask (C, *S) differ, so that they are colours and no numbers."""
    return len(values) > 1 and bool((values[1:] != values[:1]).any())


def fit_mask(mask: np.ndarray, shape: tuple[int, ...], image_path: Path) -> np.ndarray | None:
    """The mask turned to the shape of the upright image, or None when no turn that the image's EXIF asks for makes it fit.

    A mask of the upright size is taken as it is. One of the size before the EXIF rotation was drawn by a tool that does not
    know EXIF, and is turned as the image was. Where both sizes are equal (square images), it is taken as upright.
    """
    if mask.shape == shape:
        return mask
    turned = upright(mask, stored_image(image_path).orientation)
    return np.ascontiguousarray(turned) if turned.shape == shape else None


def stored_image(path: Path, axes: Axes = FLAT) -> StoredImage:
    """What any supported file holds; every way in which opening it can fail ends as a FormatError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist; check the spelling") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error
    _check_beside(path)
    return _decode_bytes(data, path, axes)


def _check_beside(path: Path) -> None:
    """Refuse an image of which GDAL keeps in a file beside it where values are missing."""
    for suffix, sign in ((".msk", b""), (".aux.xml", b"<NoDataValue")):
        with suppress(OSError):  # mostly, there is no such file
            if sign in path.with_name(path.name + suffix).read_bytes():
                found = f"{path.name}{suffix} beside it says where values are missing"
                raise refused(path, "any", "NAME.msk, NAME.aux.xml with NoDataValue", found)


def _decode_bytes(data: bytes, path: Path, axes: Axes = FLAT) -> StoredImage:
    if not data:
        raise FormatError(f"{path} is empty (0 bytes); copy it again or remove it")
    try:
        if data.startswith(TIFF_MAGIC):
            return decode_tiff(data, path, axes)
        return replace(_decode_with_pillow(data, path), is_lossy=data.startswith(JPEG_MAGIC) or _is_lossy_webp(data))
    except SegwrightError:
        raise
    except Image.DecompressionBombError as error:
        raise bomb(path, f"over {MAX_PIXELS:,}", len(data)) from error
    except Exception as error:  # damaged files make the decoders fail in any way, from struct.error to IndexError
        if "requires the 'imagecodecs' package" in str(error):
            raise FormatError(f"{path}: {error}: pip install imagecodecs, or save the file uncompressed") from error
        raise FormatError(
            f"{path} is damaged or cut short ({error or type(error).__name__}); copy it again or remove it"
        ) from error


def _is_lossy_webp(data: bytes) -> bool:
    """Whether a WebP has a lossy picture in one of its first blocks; the lossless kind is called VP8L."""
    return data[8:12] == b"WEBP" and b"VP8 " in data[12:WEBP_HEAD]


def _decode_with_pillow(data: bytes, path: Path) -> StoredImage:
    try:
        picture = Image.open(BytesIO(data), formats=PILLOW_FORMATS)
    except Image.UnidentifiedImageError as error:
        bits = _jpeg_precision(data)
        if bits != 8:
            raise refused(path, "JPEG", "precision other than 8 bits", f"it has samples of {bits} bits") from error
        kinds = ", ".join(PILLOW_FORMATS)
        raise FormatError(f"{path} is not an image ({len(data)} bytes); {kinds} and TIFF can be read: convert it") from error
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise bomb(path, f"{picture.width} x {picture.height}", len(data))
        maxval = _pnm_maxval(picture)
        picture.load()  # checks the whole file, and the EXIF block of a PNG may follow the pixels
        orientation = _orientation(picture)
        bit_depth, color_type = (data[24], data[25]) if picture.format == "PNG" else (8, 0)  # bytes of the IHDR block
        if bit_depth == 16 and color_type != 0 or picture.mode == "RGB" and maxval > 255:  # Pillow makes 8 bits of such colours
            channels = 1 if color_type == 4 else 3  # 4: grey and alpha
            stored = StoredImage(_16_bit_colors(data)[:channels], None, orientation, maxval or None)
            return _with_alpha(stored, picture)
        if picture.mode == "P":
            palette = np.zeros((256, 3), np.uint8)
            colors = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            palette[: len(colors)] = colors
            return _with_alpha(StoredImage(np.array(picture)[None], palette, orientation), picture)
        if picture.mode == "1" and picture.format == "BMP" and data[BMP_DEPTH] > 1:  # Pillow takes these bytes for bits
            values = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
            return StoredImage(values[None] // 255, None, orientation, white=1)
        if picture.mode == "1":
            return StoredImage(np.array(picture, np.uint8)[None], None, orientation, white=1)
        values = _colors(picture)
        white = maxval or (2**bit_depth - 1 if bit_depth < 8 else None)
        if white:  # Pillow has spread them
            values = np.rint(values * (white / np.iinfo(values.dtype).max)).astype(values.dtype)
        stored = StoredImage(values, None, orientation, white, is_alpha_alone=_is_alpha_alone(picture, values))
        return _with_alpha(stored, picture)


def _with_alpha(stored: StoredImage, picture: Image.Image) -> StoredImage:
    """What a file holds, and what of it the alpha of its picture hides."""
    if not picture.has_transparency_data:
        return stored
    alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
    return replace(stored, transparent=int(np.count_nonzero(alpha < 255)), hidden=None if alpha.all() else alpha == 0)


def _is_alpha_alone(picture: Image.Image, values: np.ndarray) -> bool:
    """Whether a picture of values (C, H, W) has one colour everywhere, and more than one alpha."""
    if picture.mode not in ("LA", "RGBA") or (values != values[:, :1, :1]).any():
        return False
    low, high = picture.getchannel("A").getextrema()
    return low != high


def _colors(picture: Image.Image) -> np.ndarray:
    """The grey or RGB values (C, H, W) of a picture without a palette."""
    if picture.mode not in ("L", "LA", "RGB", "RGBA", "I", "F") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    values = np.moveaxis(np.atleast_3d(np.array(picture)), -1, 0)
    values = values[: {"LA": 1, "RGBA": 3}.get(picture.mode)]
    dtype = np.dtype(np.uint16) if picture.mode == "I" else values.dtype.newbyteorder("=")  # I: 16-bit PNM
    return values.astype(dtype, copy=False)


def _pnm_maxval(picture: ImageFile.ImageFile) -> int:
    """The number that a PNM file, not yet loaded, says is white, if it is not the highest of its bits; else 0."""
    arguments = picture.tile[0].args if picture.format == "PPM" and picture.tile else None
    return int(arguments[1]) if isinstance(arguments, tuple) and len(arguments) > 1 and picture.mode != "F" else 0


def _16_bit_colors(data: bytes) -> np.ndarray:
    """Colours uint16 (3, H, W) as they are stored."""
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("the 16-bit colours cannot be decoded")
    return np.moveaxis(values[..., [2, 1, 0]], -1, 0)  # BGR and perhaps alpha


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):  # damaged EXIF, whole pixels
        return 1


def _jpeg_precision(data: bytes) -> int:
    """The bits of a sample that the frame of a JPEG announces; 8 for what is none, or has no frame."""
    place = 2
    while data.startswith(JPEG_MAGIC) and place + 5 <= len(data):
        marker, length, precision = struct.unpack(">2sHB", data[place : place + 5])
        if b"\xff\xc0" <= marker <= b"\xff\xcf" and marker[1] not in (0xC4, 0xC8, 0xCC):  # tables, of no frame
            return int(precision)
        place += 2 + length
    return 8

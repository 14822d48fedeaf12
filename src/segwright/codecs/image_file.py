"""Image files to arrays and back: PNG, JPEG, BMP, WebP, GIF, PNM and TIFF.

Axes: C channels, *S spatial axes, (H, W), or (D, H, W) for a TIFF with a depth axis.

Which axis of a TIFF is which: Y and X are rows and columns, Z is depth (a volume), C and S are channels, axes of length 1
are dropped. The names come from the file (ImageJ, OME, tifffile's own, samples per pixel). A stack of three axes without
names, as plain `tifffile.imwrite(path, array)` makes it, holds its channels in the shorter of the first and the last axis.
"""

import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from segwright.core import VOID, Classes
from segwright.core.atomic_files import replace_file
from segwright.core.errors import FormatError, OutputError, SegwrightError
from segwright.core.visualise import VOID_COLOR

TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".pgm", ".ppm", ".pnm", *TIFF_SUFFIXES)
JPEG_SUFFIXES = (".jpg", ".jpeg")
PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM")  # no EPS or PDF: those run other programs
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_MAGIC = b"\xff\xd8\xff"
BMP_DEPTH = 28  # place of the byte that says how many bits a pixel has
WEBP_HEAD = 4096  # bytes; before the picture stand at most a colour profile and settings
TIFF_JPEG = (6, 7)  # TIFF's numbers of JPEG compression
MAX_PIXELS = 178_956_970  # Pillow's own limit, 13377 x 13377: a PNG of a few kB can claim more than any memory holds
MAX_8_BIT_CLASSES = 255  # 0..254, and 255 for void
EXIF_ORIENTATION = 274  # number of the tag, in EXIF and in TIFF
TURNED = range(2, 9)  # its values that ask for a turn or a mirror image
LABEL_PNG = [  # the smallest and fastest of all filters and strategies for label maps: rows resemble the row above
    cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
]  # fmt: skip
JPEG_QUALITY = 92  # no visible loss on overlays at a sixth of the PNG's size

# Pillow warns from half of MAX_PIXELS on; _decode refuses at MAX_PIXELS, with a remedy, so the warning would only be noise
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file holds: `values` (C, *S) before any rotation, and how to show them.

    `palette` is uint8 (N, 4), the RGBA colours that the values stand for, or None. `orientation` is the EXIF number 1..8.
    `grey_step` is what one step of a 1, 2 or 4-bit grey value became when it was spread over 0..255 (255, 85, 17), else 1.
    `is_lossy`: the file keeps no exact values, as JPEG and most WebP.
    """

    values: np.ndarray
    palette: np.ndarray | None = None
    orientation: int = 1
    has_alpha: bool = False
    grey_step: int = 1
    is_lossy: bool = False


def read_image(path: Path | str) -> np.ndarray:
    """An image (C, *S) in the dtype of its file, upright as its EXIF orientation says, the first frame of an animation.

    Palettes become RGB, CMYK becomes RGB, 1-bit pixels 0 and 255; an alpha channel that is opaque everywhere is left out.

    Raises:
        FormatError: the file is missing, empty, damaged, no image, or larger than MAX_PIXELS.
    """
    return _seen(stored_image(Path(path)))


def decode_image(data: bytes, place: Path | str) -> np.ndarray:
    """The image (C, *S), as `read_image` gives it, in the bytes of an image file; `place` is for the messages.

    Raises:
        FormatError: as `read_image`.
    """
    return _seen(_decode_bytes(data, Path(place)))


def holds(path: Path | str, image: np.ndarray) -> bool:
    """Whether a file holds exactly this image (C, *S), for every program: as it is seen, not to be turned as its EXIF says.

    Raises:
        FormatError: as `read_image`.
    """
    stored = stored_image(Path(path))
    if stored.orientation in TURNED:
        return False
    seen = _seen(stored)
    return seen.dtype == image.dtype and np.array_equal(seen, image)


def _seen(stored: Stored) -> np.ndarray:
    values, has_alpha = stored.values, stored.has_alpha
    if stored.palette is not None:
        values, has_alpha = np.moveaxis(stored.palette[values[0]], -1, 0), True
    if has_alpha and (values[-1] == np.iinfo(values.dtype).max).all():
        values = values[:-1]
    return np.ascontiguousarray(upright(values, stored.orientation))


def read_mask(path: Path | str) -> np.ndarray:
    """The numbers in a mask file, integer (*S): indices of a palette file, else grey values; 0 and 1 for 1-bit pixels.

    Raises:
        FormatError: as in `read_image`; or its channels differ, or its values are no integers.
    """
    values = read_mask_channels(path)
    if are_colors(values):
        raise FormatError(
            f"{path}: the mask has {len(values)} channels that differ (a picture of colours?), one number per pixel is needed; "
            "save class numbers as 8 or 16-bit greyscale or as a palette PNG; "
            "if its pages are the slices of a volume, name the axes ZYX in the TIFF"
        )
    return values[0]


def read_mask_channels(path: Path | str) -> np.ndarray:
    """The integers in a mask file (C, *S): one channel of indices or grey values, or several as stored, without alpha.

    Raises:
        FormatError: as in `read_image`; or its values are no integers.
    """
    return mask_channels(stored_image(Path(path)), Path(path))


def mask_channels(stored: Stored, path: Path) -> np.ndarray:
    """What `read_mask_channels` gives of what a file holds; `path` is for the messages.

    Raises:
        FormatError: its values are no integers.
    """
    values = stored.values[:-1] if stored.has_alpha else stored.values
    if not np.issubdtype(values.dtype, np.integer):
        with np.errstate(invalid="ignore"):  # NaN becomes some number, and is refused as it equals none
            whole = values.astype(np.int32)
        if not (whole == values).all():
            raise FormatError(
                f"{path}: the mask holds fractions (dtype {values.dtype}), whole class numbers are needed; "
                "if these are probabilities, threshold them or take the argmax first"
            )
        values = whole
    if stored.grey_step > 1:
        values = values // stored.grey_step
    return np.ascontiguousarray(upright(values, stored.orientation))


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


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array (..., H, W) turned and mirrored to how it is meant to be seen; `orientation` is the EXIF number 1..8."""
    if orientation in (2, 3):
        array = array[..., ::-1]
    if orientation in (3, 4):
        array = array[..., ::-1, :]
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(-1, -2)
    if orientation in (6, 7):
        array = array[..., ::-1]
    if orientation in (7, 8):
        array = array[..., ::-1, :]
    return array


def write_class_map(path: Path | str, class_map: np.ndarray, classes: Classes, *, palette: bool) -> None:
    """Write a class map (*S), void -1, as PNG or, for a name ending in .tif, as TIFF.

    Up to 255 classes are stored in 8 bits with 255 for void, more in 16 bits with 65535. `palette` adds the colours of the
    classes, void black; the numbers stay. Volumes need TIFF.

    Raises:
        OutputError: the place is not writable, the name ends otherwise, or the map does not fit the file.
    """
    path = Path(path)
    low, high = int(class_map.min(initial=0)), int(class_map.max(initial=0))
    if low < VOID or high >= len(classes):
        raise OutputError(
            f"{path}: the class map holds {low}..{high}, but there are {len(classes)} classes; "
            f"allowed are 0..{len(classes) - 1} and {VOID} for void"
        )
    if palette and len(classes) > MAX_8_BIT_CLASSES:
        raise OutputError(
            f"{path}: a palette holds {MAX_8_BIT_CLASSES} classes and void, there are {len(classes)}; write without a palette"
        )
    stored = class_map.astype(np.uint8 if len(classes) <= MAX_8_BIT_CLASSES else np.uint16)  # -1 wraps to 255 or 65535
    write_values(path, stored, colormap_of(classes) if palette else None)


def write_values(path: Path | str, values: np.ndarray, colormap: np.ndarray | None = None) -> None:
    """Write an integer map (*S), uint8 or uint16, bit by bit as PNG or, for a name ending in .tif, as TIFF (uint32 too).

    `colormap` uint8 (256, 3) gives the values of an uint8 map their colours; the values stay.

    Raises:
        OutputError: the place is not writable, the name ends otherwise, or the map does not fit a PNG.
    """
    path = Path(path)
    if path.suffix.lower() in TIFF_SUFFIXES:
        replace_file(path, _tiff(values, colormap=None if colormap is None else colormap.T.astype(np.uint16) * 257))  # 16 bits
        return
    _check_png(path, values)
    if colormap is None:
        replace_file(path, cv2.imencode(".png", values, LABEL_PNG)[1].tobytes())
        return
    picture = Image.fromarray(values)
    picture.putpalette(colormap.tobytes())
    buffer = BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    replace_file(path, buffer.getvalue())


def write_image(path: Path | str, image: np.ndarray) -> Path:
    """Write an image (C, *S) without loss and return the path with its suffix, .png or .tif, added.

    PNG for one 8 or 16-bit channel and for 8-bit RGB, else TIFF with the axes named.
    """
    path = Path(path)
    channels, *shape = image.shape
    is_png = len(shape) == 2 and (image.dtype == np.uint8 and channels in (1, 3) or image.dtype == np.uint16 and channels == 1)
    target = path.with_name(path.name + (".png" if is_png else ".tif"))
    if not is_png:
        replace_file(target, _tiff(image, axes="CZYX" if len(shape) == 3 else "CYX"))
    elif channels == 3:
        write_picture(target, np.moveaxis(image, 0, -1))
    else:
        write_values(target, image[0])
    return target


def write_picture(path: Path | str, rgb: np.ndarray) -> None:
    """Write an RGB picture uint8 (H, W, 3) for people as PNG or, by its name, as JPEG.

    Raises:
        OutputError: the place is not writable or the name ends otherwise.
    """
    path = Path(path)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    if path.suffix.lower() in JPEG_SUFFIXES:
        replace_file(path, cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    else:
        _check_png(path, bgr[..., 0])
        replace_file(path, cv2.imencode(".png", bgr, LABEL_PNG)[1].tobytes())


def _check_png(path: Path, values: np.ndarray) -> None:
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path}: '{path.suffix}' keeps no exact numbers here; name the file .png or .tif")
    if values.ndim != 2:
        raise OutputError(f"{path}: a PNG holds (H, W), the map is {values.shape}; name the file .tif")


def colormap_of(classes: Classes) -> np.ndarray:
    """RGB colours of the values 0..255 of a class map of up to 255 classes, uint8 (256, 3); void is black."""
    colormap = np.full((256, 3), VOID_COLOR, dtype=np.uint8)
    colormap[: len(classes)] = classes.palette
    return colormap


def _tiff(values: np.ndarray, *, axes: str | None = None, colormap: np.ndarray | None = None) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        values,
        photometric="minisblack" if colormap is None else "palette",
        colormap=colormap,
        compression="zlib",
        metadata={"axes": axes or "ZYX"[-values.ndim :]},
    )
    return buffer.getvalue()


def stored_image(path: Path) -> Stored:
    """Open any supported file; every way in which that can fail ends as a FormatError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist; check the spelling") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error
    return _decode_bytes(data, path)


def _decode_bytes(data: bytes, path: Path) -> Stored:
    if not data:
        raise FormatError(f"{path} is empty (0 bytes); copy it again or remove it")
    decode: Callable[[bytes, Path], Stored] = _decode_tiff if data.startswith(TIFF_MAGIC) else _decode_with_pillow
    try:
        stored = decode(data, path)
        return replace(stored, is_lossy=True) if data.startswith(JPEG_MAGIC) or _is_lossy_webp(data) else stored
    except SegwrightError:
        raise
    except Image.UnidentifiedImageError as error:
        kinds = ", ".join(PILLOW_FORMATS)
        raise FormatError(f"{path} is not an image ({len(data)} bytes); {kinds} and TIFF can be read: convert it") from error
    except Image.DecompressionBombError as error:
        raise _bomb(path, f"over {MAX_PIXELS:,}", len(data)) from error
    except Exception as error:  # damaged files make the decoders fail in any way, from struct.error to IndexError
        if "requires the 'imagecodecs' package" in str(error):
            raise FormatError(f"{path}: {error}: pip install imagecodecs, or save the file uncompressed") from error
        raise FormatError(
            f"{path} is damaged or cut short ({error or type(error).__name__}); copy it again or remove it"
        ) from error


def _is_lossy_webp(data: bytes) -> bool:
    """Whether a WebP has a lossy picture in one of its first blocks; the lossless kind is called VP8L."""
    return data[8:12] == b"WEBP" and b"VP8 " in data[12:WEBP_HEAD]


def _bomb(path: Path, pixels: str, size: int) -> FormatError:
    return FormatError(
        f"{path} claims {pixels} pixels in a file of {size:,} bytes; compressed files above {MAX_PIXELS:,} pixels are refused, "
        "because unpacking them could fill the memory; if you trust it, cut it into tiles or save it as an uncompressed TIFF"
    )


def _decode_with_pillow(data: bytes, path: Path) -> Stored:
    with Image.open(BytesIO(data), formats=PILLOW_FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise _bomb(path, f"{picture.width} x {picture.height}", len(data))
        picture.load()  # checks the whole file, and the EXIF block of a PNG may follow the pixels
        orientation = _orientation(picture)
        bit_depth, color_type = (data[24], data[25]) if picture.format == "PNG" else (8, 0)  # bytes of the IHDR block
        if bit_depth == 16 and color_type != 0:  # Pillow reduces 16-bit colours to 8 bits
            return _decode_16_bit_colors(data, orientation, is_grey=color_type == 4)  # 4: grey with alpha
        if picture.mode == "P":
            picture.apply_transparency()
            palette = np.zeros((256, 4), dtype=np.uint8)
            colors = np.array(picture.getpalette("RGBA"), dtype=np.uint8).reshape(-1, 4)
            palette[: len(colors)] = colors
            return Stored(np.array(picture)[None], palette, orientation)
        if picture.mode == "1" and picture.format == "BMP" and data[BMP_DEPTH] > 1:  # Pillow takes these bytes for bits
            values = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))
            return Stored(values[None], None, orientation, grey_step=255)
        if picture.mode == "1":
            return Stored(np.array(picture, dtype=np.uint8)[None] * np.uint8(255), None, orientation, grey_step=255)
        if picture.mode not in ("L", "LA", "RGB", "RGBA", "I", "F") and not picture.mode.startswith("I;16"):
            return _decoded(picture.convert("RGBA" if picture.has_transparency_data else "RGB"), orientation)
        return _decoded(picture, orientation, {2: 85, 4: 17}.get(bit_depth, 1))  # 255 / 3 and 255 / 15


def _decoded(picture: Image.Image, orientation: int, grey_step: int = 1) -> Stored:
    values = np.atleast_3d(np.array(picture))  # (H, W, C)
    values = values.astype(np.uint16 if picture.mode == "I" else values.dtype.newbyteorder("="), copy=False)  # I: 16-bit PNM
    return Stored(np.moveaxis(values, -1, 0), None, orientation, picture.mode in ("LA", "RGBA"), grey_step)


def _decode_16_bit_colors(data: bytes, orientation: int, *, is_grey: bool) -> Stored:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise ValueError("the 16-bit colours cannot be decoded")
    values = values[..., [2, 1, 0, 3][: values.shape[-1]]]  # BGR(A) to RGB(A)
    if is_grey:
        values = values[..., [0, -1]]
    return Stored(np.moveaxis(values, -1, 0), None, orientation, values.shape[-1] in (2, 4))


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):  # damaged EXIF, whole pixels
        return 1


def _decode_tiff(data: bytes, path: Path) -> Stored:
    with tifffile.TiffFile(BytesIO(data)) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        pixels = series.size // page.samplesperpixel
        if page.compression == tifffile.COMPRESSION.NONE and series.nbytes > len(data) and page.dtype != bool:
            raise ValueError(f"{series.nbytes} bytes of pixels are announced, the whole file has {len(data)}")
        if page.compression != tifffile.COMPRESSION.NONE and pixels > MAX_PIXELS:
            raise _bomb(path, " x ".join(map(str, series.shape)), len(data))
        array, axes = series.asarray(), series.axes
        if array.shape != series.shape or not array.size:  # tifffile only logs that pixels are missing
            raise ValueError(f"{array.size} values are there, {series.size} are announced")
        tag = page.tags.get(EXIF_ORIENTATION)
        orientation = int(tag.value) if tag is not None else 1
        colors = page.colormap if page.photometric == tifffile.PHOTOMETRIC.PALETTE else None  # uint16 (3, N)
        is_lossy = page.compression in TIFF_JPEG
        alpha = page.photometric == tifffile.PHOTOMETRIC.RGB and len(page.extrasamples) == 1 and page.extrasamples[0] in (1, 2)
    values = _channels_first(array, axes, path)
    if np.iscomplexobj(values):
        raise FormatError(f"{path} holds complex numbers, real ones are needed; save real and imaginary part as two channels")
    if values.dtype == bool:
        return Stored(values.astype(np.uint8) * np.uint8(255), None, orientation, grey_step=255)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if colors is not None and len(values) == 1:
        palette = np.full((max(colors.shape[1], 256), 4), 255, dtype=np.uint8)
        palette[: colors.shape[1], :3] = (colors >> 8).T  # 16 bits per colour to 8
        return Stored(values, palette, orientation)
    return Stored(values, None, orientation, alpha and np.issubdtype(values.dtype, np.integer), is_lossy=is_lossy)


def _channels_first(array: np.ndarray, axes: str, path: Path) -> np.ndarray:
    """An array (C, *S) from one whose axes are named by letters as tifffile does; the rule is in the module's docstring."""
    keep = [axis for axis, letter in enumerate(axes) if letter in "YX" or array.shape[axis] > 1]
    array, axes = array.reshape([array.shape[axis] for axis in keep]), "".join(axes[axis] for axis in keep)
    channel = [letter for letter in axes if letter not in "ZYX"]
    if len(axes) == 3 and channel and channel[0] not in "CST" and array.shape[-1] < array.shape[0]:
        axes, channel = "YXC", ["C"]  # written as (H, W, C): the names that the file guessed are off by one
    spatial = [letter for letter in "ZYX" if letter in axes]
    if len(channel) > 1 or channel == ["T"] or len(channel) + len(spatial) < len(axes) or spatial[-2:] != ["Y", "X"]:
        raise FormatError(
            f"{path} holds axes {axes} of shape {array.shape}; one image is needed, with axes YX, CYX, YXC, ZYX or CZYX: "
            "save one file per time point or page, or name the axes when writing, as in metadata={'axes': 'ZYX'} of tifffile"
        )
    array = array.transpose([axes.index(letter) for letter in channel + spatial])
    return array if channel else array[None]

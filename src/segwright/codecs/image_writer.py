"""Arrays to image files: class maps, numbers, images and pictures as PNG, TIFF or JPEG. Axes: C channels, *S spatial axes."""

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from segwright.codecs.image_file import JPEG_SUFFIXES, TIFF_SUFFIXES
from segwright.core import VOID, Classes
from segwright.core.atomic_files import replace_file
from segwright.core.errors import OutputError
from segwright.core.visualise import VOID_COLOR

MAX_8_BIT_CLASSES = 255  # 0..254, and 255 for void
LABEL_PNG = [  # the smallest and fastest of all filters and strategies for label maps: rows resemble the row above
    cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
]  # fmt: skip
JPEG_QUALITY = 92  # no visible loss on overlays at a sixth of the PNG's size


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
    """RGB colours of the values 0..255 of a class map of up to 255 classes, uint8 (256, 3); void is black.

    Of regions, a number has the colour of the last one that it lies in.
    """
    colormap = np.full((256, 3), VOID_COLOR, dtype=np.uint8)
    for color, numbers in zip(classes.palette, classes.regions, strict=False):
        colormap[[number for number in numbers if number < MAX_8_BIT_CLASSES]] = color
    if not classes.regions:
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

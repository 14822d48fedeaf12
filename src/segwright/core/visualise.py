"""Pictures of masks for people: paint, lay over the image, show in a notebook. Axes: H, W, C channels, K classes."""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from io import BytesIO

import numpy as np

from segwright.core.classes import Classes

VOID_COLOR = (0, 0, 0)


def paint(class_map: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """RGB picture uint8 (H, W, 3) of a class map (H, W) in the colours uint8 (K, 3); void is black."""
    return np.vstack([palette, VOID_COLOR]).astype(np.uint8)[class_map]  # index -1 is the last row


def as_rgb(image: np.ndarray) -> np.ndarray:
    """RGB picture uint8 (H, W, 3) of an image (C, *S): the first three channels, the middle slice of a volume.

    8-bit values stay as they are; others are stretched between their 1st and 99th percentile, NaN is black.
    """
    while image.ndim > 3:
        image = image[:, image.shape[1] // 2]
    image = image[:3] if image.shape[0] >= 3 else image[:1]
    if image.dtype != np.uint8:
        with np.errstate(over="ignore"):  # beyond float32 counts as missing, as elsewhere
            image = image.astype(np.float32)
        known = image[np.isfinite(image)]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        image = np.nan_to_num(np.clip((image - low) / max(high - low, 1e-12), 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(np.moveaxis(image, 0, -1), (*image.shape[1:], 3)))


def overlay(image: np.ndarray, class_map: np.ndarray, palette: np.ndarray, strength: float = 0.5) -> np.ndarray:
    """RGB picture uint8 (H, W, 3): an image (C, *S) with its class map (*S) in colour over it and class borders drawn.

    `strength` from 0 (image alone) to 1 (colours alone); void pixels show the image.
    """
    while class_map.ndim > 2:
        class_map = class_map[class_map.shape[0] // 2]
    picture = as_rgb(image).astype(np.float32)
    known = class_map >= 0
    picture[known] = (1 - strength) * picture[known] + strength * paint(class_map, palette)[known]
    border = np.zeros_like(known)
    border[1:] |= class_map[1:] != class_map[:-1]
    border[:, 1:] |= class_map[:, 1:] != class_map[:, :-1]
    picture[border] = picture[border] * 0.4 + 255 * 0.6  # a light line separates neighbours of similar colour
    return picture.astype(np.uint8)


def html_picture(picture: np.ndarray, classes: Classes, shown: Iterable[int]) -> str:
    """An HTML fragment with an RGB picture (H, W, 3) and a legend of the classes shown."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    legend = "".join(
        '<span style="display:inline-block;margin-right:1em">'
        f'<span style="display:inline-block;width:.9em;height:.9em;margin-right:.3em;background:rgb{classes.colors[k]}"></span>'
        f"{escape(classes.names[k])}</span>"
        for k in shown
    )
    data = b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="margin:0"><img style="max-width:100%" src="data:image/png;base64,{data}"><div>{legend}</div></figure>'
    )

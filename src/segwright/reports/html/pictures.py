"""Pictures of images and masks inside a page. Axes: C channels, *S spatial axes, H, W."""

from base64 import b64encode
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

from segwright.core import VOID
from segwright.core.visualise import as_rgb

WIDTH = 480  # pixels: sharp in four columns on a large screen and in two on a phone, some 40 KB each
JPEG_QUALITY = 85  # class borders stay clean, as colours keep their full resolution (subsampling 0)
DARK, LIGHT, MOST_LIGHT = 110, 200, 6.0  # levels that 99 % lie below, before and after; more than 6 times would show noise
WRONG = (226, 74, 22)  # an orange that is rare in photographs, and plain to colour-blind eyes beside grey
NOT_SCORED = (150, 160, 170)


def figure(picture: np.ndarray, caption: str) -> str:
    """HTML of an RGB picture uint8 (H, W, 3), shrunk to WIDTH; a click or the tab key makes it large."""
    image = Image.fromarray(picture)
    if image.width > WIDTH:
        image = image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))), Image.Resampling.LANCZOS)
    caption = escape(caption)
    return (
        f'<figure><div style="--shape:{image.width}/{image.height}">{embedded(jpeg(np.asarray(image)), caption)}</div>'
        f'<figcaption title="{caption}">{caption}</figcaption></figure>'
    )


def lightened(picture: np.ndarray) -> np.ndarray:
    """An RGB picture uint8 (H, W, 3), brighter where nearly all of it is dark, as under a microscope; else as it is."""
    bright = float(np.percentile(picture, 99)) if picture.size else 255.0
    if bright >= DARK or bright < 1:  # bright enough, or nothing to be seen
        return picture
    return np.minimum(picture * min(MOST_LIGHT, LIGHT / bright), 255).astype(np.uint8)


def jpeg(picture: np.ndarray) -> bytes:
    """A JPEG file of an RGB picture uint8 (H, W, 3)."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return buffer.getvalue()


def embedded(data: bytes, name: str) -> str:
    """HTML of a JPEG; `name` is HTML text that stands for it. A click or the tab key makes it large."""
    return f'<img tabindex="0" alt="{name}" src="data:image/jpeg;base64,{b64encode(data).decode()}">'


def drawable(image: np.ndarray, *class_maps: np.ndarray) -> tuple[np.ndarray, ...]:
    """An image (C, *S) as (C, H, W) and its class maps (*S) as (H, W): a volume's middle slice, every n-th pixel if large."""
    while image.ndim > 3:
        middle = image.shape[1] // 2
        image, class_maps = image[:, middle], tuple(each[middle] for each in class_maps)
    step = max(1, image.shape[2] // (2 * WIDTH))  # leaves twice what is shown: the rest is left to a good filter
    return image[:, ::step, ::step], *(each[::step, ::step] for each in class_maps)


def disagreement(image: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """RGB picture uint8 (H, W, 3) of an image (C, H, W) turned pale, its wrong pixels in colour and the void ones hatched."""
    pale = 128 + 0.45 * as_rgb(image).mean(axis=2, keepdims=True)  # 128..243: the errors stand out, the scene is still seen
    picture = np.repeat(pale, 3, axis=2).astype(np.uint8)
    picture[(truth != guess) & (truth != VOID)] = WRONG
    rows, columns = np.indices(truth.shape)
    picture[(truth == VOID) & ((rows + columns) // 3 % 2 == 0)] = NOT_SCORED  # stripes of 3 pixels, 3 apart
    return picture

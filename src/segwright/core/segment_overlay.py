"""Pictures of segments for people: class colours over the image, a line around each segment, the number of each object on it.

Axes: C channels, P planes, N segments, *S spatial axes, H, W.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from segwright.core.segmentation import VOID, Segmentation
from segwright.core.visualise import overlay

SMALLEST_PX, LARGEST_PX = 8, 28  # height of digits that can be read, and beyond which they hide what they are about
HEIGHT_SHARE = 0.9  # of the radius of the largest disc in an object: two digits then stay inside of it
STROKE_SHARE = 12  # heights of digits to one pixel of dark around them: white is then read on any colour
LOOKED_AT = 64  # pixels along the longer side of an object of which its middle is found; of larger ones every n-th
INK, STROKE = (255, 255, 255), (0, 0, 0)


def overlay_segments(image: np.ndarray, segmentation: Segmentation, strength: float = 0.5) -> np.ndarray:
    """RGB picture uint8 (H, W, 3): an image (C, *S) with the segments on it (*S) in their classes' colours, lines between them.

    Neighbours of one class are parted too, and each object bears its `instance_ids` where that can be read: at the centre of
    the largest disc inside of it. A later plane covers an earlier one, void and nothing show the image, a volume its middle
    slice. `strength` is as in `overlay`.
    """
    planes = segmentation.planes
    while planes.ndim > 3:
        planes = planes[:, planes.shape[1] // 2]
    segment_map = flat(planes)
    picture = overlay(image, segment_map, segmentation.classes.palette[segmentation.class_ids], strength)
    return _numbered(picture, replace(segmentation, planes=segment_map[None] + 1))


def flat(planes: np.ndarray) -> np.ndarray:
    """The index of the segment at each pixel of planes (P, *S), int32 (*S), VOID where there is none; later planes cover."""
    segment_map = np.where(planes[0] > 0, planes[0] - 1, VOID).astype(np.int32)
    for plane in planes[1:]:
        segment_map = np.where(plane > 0, plane - 1, segment_map)
    return segment_map


def _numbered(picture: np.ndarray, shown: Segmentation) -> np.ndarray:
    """The picture (H, W, 3) with the numbers of the objects of one plane, where they are large enough for it."""
    from PIL import Image, ImageDraw, ImageFont  # loading them takes longer than most pictures of a test

    drawn = Image.fromarray(picture)
    pen = ImageDraw.Draw(drawn)
    for number, row, column, radius in _places_of_numbers(shown):
        size = min(LARGEST_PX, round(HEIGHT_SHARE * radius))
        if size < SMALLEST_PX:
            continue
        font, place = ImageFont.load_default(size), (column + 0.5, row + 0.5)
        pen.text(place, str(number), INK, font, anchor="mm", stroke_width=max(1, size // STROKE_SHARE), stroke_fill=STROKE)
    return np.array(drawn)


def _places_of_numbers(shown: Segmentation) -> Iterator[tuple[int, int, int, float]]:
    """Number, row and column of the middle, and radius in pixels of the largest disc in each object of one plane."""
    for index, (left, top, right, bottom) in enumerate(shown.boxes_xyxy().astype(int).tolist()):
        if shown.instance_ids[index] and right > left:
            step = -(-max(bottom - top, right - left) // LOOKED_AT)
            row, column, radius = innermost(shown.planes[0, top:bottom:step, left:right:step] == index + 1)
            yield int(shown.instance_ids[index]), top + step * row, left + step * column, step * radius


def innermost(mask: np.ndarray) -> tuple[int, int, float]:
    """Row and column of a pixel that is farthest from the edge of a mask bool (H, W) with a pixel, and how far that is.

    The mask loses a rim of pixels again and again, by turns over edges and over corners too, as a disc nearly does.
    """
    left, rims = np.pad(mask, 1), 0
    while True:
        smaller = left.copy()
        smaller[1:] &= left[:-1]
        smaller[:-1] &= left[1:]
        beside = smaller.copy() if rims % 2 else left
        smaller[:, 1:] &= beside[:, :-1]
        smaller[:, :-1] &= beside[:, 1:]
        if not smaller.any():
            break
        left, rims = smaller, rims + 1
    places = np.argwhere(left) - 1  # without the pad
    row, column = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()].tolist()
    return row, column, rims + 0.5

"""A small picture of one place: the image, and beside it the outlines of truth and prediction. Axes: C channels, *S, H, W."""

from collections.abc import Sequence

import cv2
import numpy as np

from segwright.core import Segmentation
from segwright.core.visualise import as_rgb
from segwright.reports.html.pictures import jpeg, lightened

SIDE = 200  # pixels of each half: an outline is told apart, and a page of twenty stays below half a megabyte
SMALLEST = 32  # pixels of the image that are shown, at least: less would be blur
MARGIN = 0.6  # of the box on each side: what an object is, its surroundings tell
TRUE_COLOR, PREDICTED_COLOR = (64, 224, 255), (255, 112, 32)  # cyan and orange: apart for colour-blind eyes, rare in images
BOTH_COLOR = (240, 240, 240)  # where they agree


def cutout(image: np.ndarray, prediction: Segmentation, truth: Segmentation, box: Sequence[tuple[int, int]]) -> bytes:
    """JPEG of what lies in and around a box (first and end index per axis) of an image (C, *S): bare, and with outlines.

    Of volumes, the middle slice of the box.
    """
    index: list[int | slice] = [(low + high) // 2 for low, high in box[:-2]]
    window = square(box[-2:], image.shape[-2:])
    index += [slice(*ends) for ends in window]
    bare = lightened(as_rgb(image[(slice(None), *index)]))
    scale = SIDE / max(bare.shape[:2])
    height, width = (max(1, round(side * scale)) for side in bare.shape[:2])
    bare = cv2.resize(bare, (width, height), interpolation=cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA)
    drawn = bare.copy()
    edges = [
        np.any([outline(cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)) for plane in planes], axis=0)
        for planes in (each.planes[(slice(None), *index)] for each in (truth, prediction))
    ]
    drawn[edges[0]], drawn[edges[1]], drawn[edges[0] & edges[1]] = TRUE_COLOR, PREDICTED_COLOR, BOTH_COLOR
    gap = np.full((height, 4, 3), 128, np.uint8)
    return jpeg(np.concatenate([bare, gap, drawn], axis=1))


def square(box: Sequence[tuple[int, int]], sides: Sequence[int]) -> list[tuple[int, int]]:
    """First and end row and column of a square window around a box with its MARGIN, inside an image of these sides."""
    size = max(SMALLEST, round((1 + 2 * MARGIN) * max(high - low for low, high in box)))
    window = []
    for (low, high), side in zip(box, sides, strict=True):
        first = min(max((low + high - size) // 2, 0), max(side - size, 0))
        window.append((first, min(first + size, side)))
    return window


def outline(plane: np.ndarray) -> np.ndarray:
    """Pixels of segments in a plane (H, W) that touch another value, bool (H, W)."""
    edge = np.zeros(plane.shape, bool)
    rows, columns = plane[1:] != plane[:-1], plane[:, 1:] != plane[:, :-1]
    edge[1:] |= rows
    edge[:-1] |= rows
    edge[:, 1:] |= columns
    edge[:, :-1] |= columns
    return edge & (plane > 0)

"""Pictures of objects in the colours of what became of them. Axes: C channels, N segments, P planes, *S spatial axes, H, W."""

from collections.abc import Mapping, Sequence

import numpy as np

from segwright.core.visualise import as_rgb
from segwright.evaluation.tide_errors import MATCHED
from segwright.reports.html.cutout import outline
from segwright.reports.html.pictures import lightened

FILL, CALM_FILL = 0.62, 0.22  # of a colour over the paled image: of what went wrong, and of what was matched
PALE = 0.6  # of the image; the rest is grey


def fate_picture(image: np.ndarray, planes: np.ndarray, fates: np.ndarray, colors: Mapping[int, Sequence[int]]) -> np.ndarray:
    """RGB picture uint8 (H, W, 3) of an image (C, H, W) turned pale, with the segments of planes (P, H, W) in colours.

    `fates` (N,) are keys of `colors`; a segment with another fate is left out. Outlines are solid, so that neighbours part.
    """
    grey = lightened(as_rgb(image)).mean(axis=2, keepdims=True)
    picture = np.repeat(PALE * grey + (1 - PALE) * 128, 3, axis=2)
    palette = np.array([colors.get(int(fate), (0, 0, 0)) for fate in fates], np.float64).reshape(-1, 3)
    is_shown = np.array([int(fate) in colors for fate in fates], bool)
    fill = np.where(np.asarray(fates) == MATCHED, CALM_FILL, FILL)
    for plane in planes:
        segment = np.maximum(plane - 1, 0)
        shown = (plane > 0) & np.append(is_shown, False)[np.where(plane > 0, segment, -1)]
        inside = palette[segment[shown]]
        strength = np.where(outline(plane)[shown], 1.0, fill[segment[shown]])[:, None]
        picture[shown] = (1 - strength) * picture[shown] + strength * inside
    return picture.astype(np.uint8)

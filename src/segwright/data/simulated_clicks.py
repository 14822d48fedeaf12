"""What a person would say next of an object: clicks where a mask is wrong, and boxes drawn by hand. Axes: H, W.

A click goes to what is missed, or to what is wrong, where that is deepest: to the pixel farthest from the border, as in RITM
(Sofiiuk et al. 2022, doi 10.1109/ICIP46576.2022.9897365) and all tables of NoC since. People seldom hit that centre, and score
worse for it (Antonov et al. 2024, arXiv 2410.11722): with a generator, a click is a random pixel of the same connected region,
drawn in proportion to the distance to its border.
"""

import cv2
import numpy as np

BOX_NOISE = 0.1  # standard deviation of an edge of a box, in sides of the box, as Segment Anything was trained
MOST_BOX_NOISE = 20.0  # pixels, the same

Click = tuple[tuple[float, float], bool]  # (x, y) in pixels, centres at +0.5, and whether it says "on the object"


def next_click(
    mask: np.ndarray, truth: np.ndarray, is_known: np.ndarray, generator: np.random.Generator | None = None
) -> Click | None:
    """The next click of somebody who sees a mask and wants the truth, all bool (H, W); None where they are the same.

    Errors count where `is_known`. Without a generator the click is the centre of the deepest error, else a pixel about it.
    """
    missed, wrong = truth & ~mask & is_known, mask & ~truth & is_known
    depths = _depth(missed), _depth(wrong)
    deepest = [float(depth.max()) for depth in depths]
    is_foreground = deepest[0] >= deepest[1]
    depth = depths[0] if is_foreground else depths[1]
    if not max(deepest):
        return None
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    if generator is not None:
        _, pieces = cv2.connectedComponents((depth > 0).astype(np.uint8))
        around = np.flatnonzero(pieces == pieces[row, column])
        chances = depth.reshape(-1)[around].astype(np.float64)
        row, column = np.unravel_index(generator.choice(around, p=chances / chances.sum()), depth.shape)
    return (float(column) + 0.5, float(row) + 0.5), is_foreground


def drawn_box(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The box float32 (4,), x1, y1, x2, y2, that somebody draws around a mask bool (H, W) with at least a pixel.

    Each edge is off by a normal deviate of a tenth of the side, 20 pixels at most; the box stays in the image and is not empty.
    """
    height, width = mask.shape
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    sides = np.tile(box[2:] - box[:2], 2)
    noise = np.clip(generator.normal(size=4) * BOX_NOISE * sides, -MOST_BOX_NOISE, MOST_BOX_NOISE)
    drawn = np.clip(box + noise, 0, (width, height) * 2)
    is_thin = (drawn[2:] - drawn[:2] < 1).any()  # two edges have passed each other
    return (box if is_thin else drawn).astype(np.float32)


def _depth(region: np.ndarray) -> np.ndarray:
    """How far each pixel of a region bool (H, W) is from the nearest outside it, or outside the image, float32 (H, W).

    Only the smallest box around it is looked at: a pixel beyond is never nearer than one at its rim.
    """
    depth = np.zeros(region.shape, np.float32)
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    if len(rows):
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        padded = np.pad(region[box].astype(np.uint8), 1)
        depth[box] = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return depth

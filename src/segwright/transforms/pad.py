"""Room at the end of each axis, so that a network's sides fit. Axes: C channels, *S spatial axes."""

import math

import numpy as np


def pad(image: np.ndarray, divisor: int, at_least: tuple[int, ...] | None = None) -> np.ndarray:
    """An image (C, *T) that starts with the image (C, *S) and goes on with its mirror image.

    Each side is the next multiple of `divisor` that reaches S and, where given, `at_least`. An axis that is too short to be
    mirrored repeats its last pixel. To undo it on a result of the same size: `result[..., :H, :W]`. An image that fits is
    returned as it is.
    """
    shape = image.shape[1:]
    needed = [divisor * math.ceil(max(pair) / divisor) for pair in zip(shape, at_least or shape, strict=True)]
    for axis, (side, wanted) in enumerate(zip(shape, needed, strict=True), start=1):
        if wanted > side:
            widths = [(0, wanted - side if a == axis else 0) for a in range(image.ndim)]
            image = np.pad(image, widths, mode="reflect" if wanted - side < side else "edge")
    return image

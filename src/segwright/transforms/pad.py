"""Room at the end of each axis, so that a network's sides fit. Axes: C channels, *S spatial axes."""

import numpy as np


def pad(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An image (C, *T) of a spatial shape *T that starts with the image (C, *S) and goes on with its mirror image.

    An axis that is too short to be mirrored repeats its last pixel. To undo it on a result of the same size:
    `result[..., :H, :W]`. An image that reaches the shape is returned as it is.
    """
    for axis, (side, wanted) in enumerate(zip(image.shape[1:], shape, strict=True), start=1):
        if wanted > side:
            widths = [(0, wanted - side if a == axis else 0) for a in range(image.ndim)]
            image = np.pad(image, widths, mode="reflect" if wanted - side < side else "edge")
    return image


def padded_indices(start: int, stop: int, side: int, wanted: int) -> np.ndarray:
    """The pixels int64 (stop - start,) of an axis of `side` pixels that `pad` puts at some of the `wanted` places."""
    places = np.arange(start, stop)
    return np.minimum(places, 2 * (side - 1) - places) if wanted - side < side else np.minimum(places, side - 1)

"""The number of channels that a network expects. Axes: C channels, *S spatial axes."""

import numpy as np

from segwright.core.errors import ShapeError

LUMINANCE = (0.299, 0.587, 0.114)  # brightness of red, green and blue to the eye, ITU-R BT.601


def match_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """An image (channels, *S) of the same dtype from an image (C, *S).

    Grey is repeated, RGB becomes grey by luminance; an image that fits is returned as it is. Alpha is no channel: the readers
    leave it out.

    Raises:
        ShapeError: no such rule leads from C to `channels`.
    """
    given = len(image)
    if given == channels:
        return image
    if given == 1:
        return np.repeat(image, channels, axis=0)
    if (given, channels) == (3, 1):
        grey = np.tensordot(np.array(LUMINANCE, np.float32), image.astype(np.float32), axes=1)[None]
        return (np.rint(grey) if image.dtype.kind in "iu" else grey).astype(image.dtype)
    if not given:
        raise ShapeError("there is no image, only the mask; add the image where the annotations say that it is")
    pick = f"pick the channels that are meant, such as image[:{channels}], or " if given > channels else ""
    raise ShapeError(
        f"the image has {given} channels, {channels} are needed, and only grey and RGB are turned into each other; "
        f"{pick}plan and train with {given} channels"
    )

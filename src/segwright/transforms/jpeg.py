"""What an image loses in a JPEG file. Axes: C channels, N slices, *S spatial axes, (H, W)."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from segwright.core import Sample
from segwright.core.missing import where_measured
from segwright.transforms.normalise import channel_statistics
from segwright.transforms.random_settings import check_probability, check_range, happens

RGB = 3  # channels that are stored as colours; of any other number each is a grey picture
BRIGHTEST = 255  # of 8 bits


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """With `probability`, the image goes through a JPEG file of a `quality` drawn from the range, from 1 (coarse) to 100.

    For images that were 8-bit photographs: the values between the darkest and the brightest become 256 levels. Three channels
    are taken as red, green and blue, whose colour is stored at half the resolution; any others one by one, and volumes slice
    by slice. The range goes from what websites and messengers make of photographs to what cameras write.
    """

    probability: float = 0.0
    quality: tuple[int, int] = (50, 95)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("quality", self.quality, 1, 100, (50, 95))

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The sample as it is, or with an image float32 (C, *S) after compression; missing values stay missing.

        An image of one value stays as it is.
        """
        if not happens(self.probability, generator):
            return sample
        quality = int(generator.integers(*self.quality, endpoint=True))
        image = np.ascontiguousarray(sample.image, np.float32)
        mean, _, low, high = channel_statistics(image)
        known = where_measured(image)
        if known is not None:
            image = np.where(known, image, mean.reshape(-1, *[1] * (image.ndim - 1)).astype(np.float32))
        darkest, span = low.min(), high.max() - low.min()
        if span > 0:
            image = _through_file(image, float(darkest), float(span) / BRIGHTEST, quality)
        if known is not None:
            image[~known] = np.nan
        return replace(sample, image=image)


def _through_file(image: np.ndarray, darkest: float, step: float, quality: int) -> np.ndarray:
    """An image float32 (C, *S) whose levels, `step` apart from the `darkest` on, went through JPEG files in memory."""
    slices = image.reshape(len(image), -1, *image.shape[-2:])  # (C, N, H, W), with N = 1 in 2D
    result = np.empty_like(slices)
    each = [range(RGB)] if len(image) == RGB else [range(c, c + 1) for c in range(len(image))]
    for n in range(slices.shape[1]):
        for channels in each:
            planes = [cv2.convertScaleAbs(slices[c, n], alpha=1 / step, beta=-darkest / step) for c in reversed(channels)]
            levels = cv2.merge(planes) if len(planes) > 1 else planes[0]  # (H, W, 3) in the order of cv2: blue, green, red
            written = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            read = np.asarray(cv2.imdecode(written, cv2.IMREAD_UNCHANGED)).reshape(*levels.shape[:2], -1)
            for place, c in enumerate(reversed(channels)):
                np.multiply(read[..., place], np.float32(step), out=result[c, n])
                result[c, n] += np.float32(darkest)
    return result.reshape(image.shape)

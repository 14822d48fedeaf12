"""The shadow of something outside the picture. Axes: C channels, n spatial axes, *S spatial axes."""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Sample
from segwright.transforms.normalise import channel_statistics
from segwright.transforms.random_settings import check_probability, check_range, happens

EDGES = 2  # straight ones, which most buildings, cars and poles throw; what lies behind both is in the shadow: a corner
PENUMBRA = 0.02  # of the longest side: how wide light fades into shadow


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """With `probability`, a corner of random place and direction is darkened to a share of its `light`, drawn from the range.

    The share is one of values above the darkest of each channel, as files hold them: outdoors, shadows keep 0.2 to 0.6 of
    the light, and files hold about its root of 2.2. The truth stays, since a thing in the shadow is the same thing.
    """

    probability: float = 0.0
    light: tuple[float, float] = (0.5, 0.8)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("light", self.light, 0.0, 1.0, (0.5, 0.8))

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The sample as it is, or with an image float32 (C, *S) in part darker; missing values stay missing."""
        if not happens(self.probability, generator):
            return sample
        shape = sample.grid.shape
        light = generator.uniform(*self.light)
        corner = generator.uniform(0, shape)  # (n,)
        normals = generator.standard_normal((EDGES, len(shape)))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        reach = PENUMBRA * max(shape)
        depth = np.full(shape, np.inf, np.float32)  # of each pixel behind the edges, 0 to 1
        for normal in normals:
            steps = [part * (np.arange(side) + 0.5 - at) / reach for part, side, at in zip(normal, shape, corner, strict=True)]
            depth = np.minimum(depth, sum(np.ix_(*(step.astype(np.float32) for step in steps))))
        shade = 1 - np.float32(1 - light) * np.clip(depth + np.float32(0.5), 0, 1)
        low = channel_statistics(sample.image)[2].astype(np.float32).reshape(-1, *[1] * len(shape))
        return replace(sample, image=low + shade * (np.asarray(sample.image, np.float32) - low))

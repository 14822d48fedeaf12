"""A camera or scanner of fewer pixels: the image is made smaller and brought back to its size.

Axes: C channels, *S spatial axes.
"""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Sample
from segwright.core.missing import filter_measured
from segwright.transforms.random_settings import check_probability, check_range, happens
from segwright.transforms.resize import resize_image, scaled

SMALLEST = 0.05  # of a side: with less, nothing that a mask is drawn around is left


@dataclass(frozen=True, kw_only=True)
class LowResolution:
    """With `probability`, the image keeps the detail of `zoom` times as many pixels along each axis, drawn uniformly.

    Of the finest axis: where the spacing is known, an axis whose pixels are coarser already loses only what makes them as
    large as those, so that thick slices stay. The range is that of nnU-Net's default, which asks with probability 0.25 and
    then does it to each channel with probability 0.5. It picks the nearest pixels; here they are averaged, so that no structure
    moves against the truth.

    Source: Isensee et al. 2021, doi 10.1038/s41592-020-01008-z, and their code (Apache-2.0).
    """

    probability: float = 0.0
    zoom: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("zoom", self.zoom, SMALLEST, 1.0, (0.5, 1.0))

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The sample as it is, or with an image float32 (C, *S) of less detail; missing values stay missing."""
        if not happens(self.probability, generator):
            return sample
        zoom, shape = generator.uniform(*self.zoom), sample.grid.shape
        spacing = sample.grid.spacing_mm or (1.0,) * len(shape)
        small = scaled(shape, tuple(min(1.0, zoom * step / min(spacing)) for step in spacing))
        image = np.asarray(sample.image, np.float32)
        return replace(sample, image=filter_measured(image, lambda values: resize_image(resize_image(values, small), shape)))

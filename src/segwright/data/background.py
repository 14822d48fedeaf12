"""The class "background" for pixels of no object, which dense scores and networks need. Axes: P planes, *S spatial axes."""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.classes import BACKGROUND, background_of
from segwright.core.visualise import VOID_COLOR


@dataclass(frozen=True)
class Background:
    """Which class fills the pixels of no segment: number `index` of `classes`, in which the others moved up by `shift`."""

    classes: Classes
    index: int
    shift: int

    @classmethod
    def of(cls, classes: Classes, *, of_regions: bool = False) -> "Background | None":
        """The background of data with these classes: the one so called, or a new number 0 where all classes are things.

        Classes that name stuff and no background have none: there, nobody knows what a pixel of no segment is. With
        `of_regions`, where classes are regions, it is what lies in none, and those of the result exclude each other.
        """
        index = background_of(classes)
        if index is not None:
            return cls(classes, index, 0)
        if not all(classes.is_thing) and not (of_regions and classes.regions):
            return None
        own, colors = (BACKGROUND, *classes.names), (VOID_COLOR, *classes.colors)
        return cls(Classes(own, colors, (False, *classes.is_thing)), 0, 1)

    def fill(self, segmentation: Segmentation) -> Segmentation:
        """The segmentation with its pixels of no segment as a further segment, in the first plane; void stays void."""
        is_nothing = (segmentation.planes == 0).all(axis=0)
        if not self.shift and not is_nothing.any():
            return segmentation
        planes = segmentation.planes.copy()
        planes[0][is_nothing] = len(segmentation) + 1
        return Segmentation(
            planes,
            np.append(segmentation.class_ids + self.shift, self.index).astype(np.int32),
            np.append(segmentation.instance_ids, 0).astype(np.int32),
            np.append(segmentation.scores, 1).astype(np.float32),
            self.classes,
        )


def with_background(data: Dataset, *, of_regions: bool = False) -> Dataset:
    """The data set with its `Background` filled in; as it is where it has none, as pixels of no class teach nothing there."""
    background = Background.of(data.classes, of_regions=of_regions)
    if background is None:
        return data
    return replace(data, classes=background.classes, load=_WithBackground(data, background))


@dataclass(frozen=True, eq=False)
class _WithBackground:
    """Loads samples where pixels of no segment are background."""

    data: Dataset
    background: Background

    def __call__(self, key: str) -> Sample:
        return self._filled(self.data.load(key))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return self._filled(self.data.without_images().load(key))

    def _filled(self, sample: Sample) -> Sample:
        if sample.truth is None:
            return sample
        truth = self.background.fill(sample.truth)
        return sample if truth is sample.truth else replace(sample, truth=truth)

"""Data sets of which all classes are stuff, as nothing tells one thing from the next."""

from dataclasses import dataclass, replace

from segwright.core import Classes, Dataset, Sample


def stuff_alone(data: Dataset) -> Dataset:
    """The data set with the same segments and with no class of things."""
    classes = replace(data.classes, is_thing=(False,) * len(data.classes))
    return replace(data, classes=classes, load=_StuffAlone(data, classes))


@dataclass(frozen=True, eq=False)
class _StuffAlone:
    """Loads samples whose truth has other `classes`."""

    data: Dataset
    classes: Classes

    def __call__(self, key: str) -> Sample:
        return self._named(self.data.load(key))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return self._named(self.data.without_images().load(key))

    def _named(self, sample: Sample) -> Sample:
        return sample if sample.truth is None else replace(sample, truth=replace(sample.truth, classes=self.classes))

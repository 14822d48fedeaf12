"""The truth is void where the image lacks values: nobody can learn from what was not seen, or be measured by it."""

from dataclasses import dataclass, replace
from pathlib import Path

from segwright.codecs.image_file import TIFF_SUFFIXES
from segwright.core import Dataset, Sample
from segwright.core.missing import missing_pixels


def void_where_missing(data: Dataset) -> Dataset:
    """The data set as training and scores see it. What converts or inspects reads the whole truth, as it is in the files."""
    return replace(data, load=_VoidWhereMissing(data))


@dataclass(frozen=True, eq=False)
class _VoidWhereMissing:
    """Loads samples whose truth is void where `missing_pixels` are."""

    data: Dataset

    def __call__(self, key: str) -> Sample:
        return self._marked(self.data.load(key))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out and its file cannot lack values."""
        is_tiff = self.data.image_files.get(key, Path()).suffix.lower() in TIFF_SUFFIXES
        return self._marked((self.data if is_tiff else self.data.without_images()).load(key))

    def _marked(self, sample: Sample) -> Sample:
        missing = missing_pixels(sample.image)
        if sample.truth is None or missing is None:
            return sample
        return replace(sample, truth=sample.truth.with_void(missing))

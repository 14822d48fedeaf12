"""One look at the samples before training: their fingerprint, and whether each can be used."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from segwright.core import Dataset, Sample
from segwright.core.errors import UsageError, naming
from segwright.data.fingerprint import Fingerprint, fingerprint
from segwright.data.undeclared_nodata import undeclared_nodata
from segwright.transforms.channels import match_channels

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Checked:
    """Loads samples, sees that each can be learned from, and keeps one pixel of its image by its key, and undeclared nodata."""

    data: Dataset
    seen: dict[str, Sample]
    nodata: dict[str, float]

    def __call__(self, key: str) -> Sample:
        sample = self.data.load(key)
        if sample.truth is None:
            raise UsageError(f"sample {key!r} has no mask to learn from; add it, or take the image out")
        if (number := undeclared_nodata(sample.image)) is not None:
            self.nodata[key] = number
        self.seen[key] = Sample.of(key, sample.image[(slice(None), *[slice(1)] * (sample.image.ndim - 1))].copy())
        return sample


@dataclass(frozen=True, eq=False)
class Survey:
    """The fingerprint of the training samples; samples that were decoded for it are not decoded again for the check."""

    found: Fingerprint
    datasets: Sequence[Dataset]
    seen: Sequence[dict[str, Sample]]

    @classmethod
    def of(cls, train: Dataset, val: Dataset) -> "Survey":
        """The fingerprint of `train`; whatever is decoded is checked.

        Raises:
            UsageError: there is nothing to learn, or a sample cannot be used; the message names its file.
        """
        seen: tuple[dict[str, Sample], dict[str, Sample]] = ({}, {})
        nodata: dict[str, float] = {}
        datasets = [replace(data, load=_Checked(data, keys, nodata)) for data, keys in zip((train, val), seen, strict=True)]
        found = fingerprint(datasets[0])
        if nodata:
            key, number = next(iter(nodata.items()))
            log.warning(
                "%d of %d images have areas of one number far off all their others, such as %g in %s: missing values that no "
                "file declares? They are learned as measurements; segwright inspect says what to do",
                *(len(nodata), found.looked_at, number, key),
            )
        _check_truth(found, train.source)
        return cls(found, datasets, seen)

    def check(self, channels: int, seconds: float) -> None:
        """See that samples can become images of so many channels, so that one that cannot is named now; as time allows.

        Those held out must have as many axes as those to train with, besides.

        Raises:
            UsageError: a sample cannot be used; the message names its file.
        """
        end, total, done = time.monotonic() + seconds, sum(map(len, self.datasets)), 0
        for data, seen in zip(self.datasets, self.seen, strict=True):
            for key in data.keys:
                if key not in seen:
                    if time.monotonic() > end:
                        continue
                    data.load(key)
                done += 1
                with naming(f"sample {key!r}"):
                    self._check_axes(seen[key])
                    match_channels(seen[key].image, channels)
        if done < total:
            log.info("looked through %d of %d samples for damage; the others are read while training", done, total)

    def _check_axes(self, sample: Sample) -> None:
        """See that a sample is an image where those to train with are, or a volume.

        Raises:
            UsageError: it is not.
        """
        axes = len(sample.grid.shape)
        if axes != self.found.axes:
            kinds = {2: "an image", 3: "a volume"}
            raise UsageError(
                f"it is {kinds[axes]}, and those to train with are {self.found.axes}D; one kind is needed: put images and "
                "volumes into two data sets"
            )


def _check_truth(found: Fingerprint, source: str) -> None:
    """See that there is something to learn.

    Raises:
        UsageError: the masks do not hold two classes.
    """
    present = [name for name, share in zip(found.class_names, found.class_fractions, strict=True) if share > 0]
    has_objects_on_nothing = found.has_instances and found.nothing_fraction > 0  # objects are told from what is no object
    if len(present) + has_objects_on_nothing < 2:
        raise UsageError(
            f"the masks in {source} hold {f'only the class {present[0]!r}' if present else 'void alone'}; "
            "two classes are needed to tell apart: look at the masks with segwright inspect"
        )

"""Samples that are read when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segwright.core.classes import Classes
from segwright.core.errors import UsageError
from segwright.core.sample import Sample


@dataclass(frozen=True, eq=False)
class Dataset:
    """A sequence of samples with one meaning of the classes. `load(key)` reads one sample; `source` says where they lie.

    `image_files` names the file of an image where one file holds it, so that a writer may copy it. What loads may also have a
    method `without_image(key)`, which gives the same sample but for its image, of which no pixel is read (`without_images`).
    `left_out` counts annotations of images that are no sample, by the reason; those of samples are in `Sample.left_out`.
    """

    source: str
    classes: Classes
    keys: tuple[str, ...]
    load: Callable[[str], Sample]
    image_files: Mapping[str, Path] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sample:
        return self.load(self.keys[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self.load, self.keys)

    def subset(self, keys: Sequence[str]) -> "Dataset":
        """The samples with these keys, in this order.

        Raises:
            UsageError: a key is not in the data set.
        """
        missing = sorted(set(keys) - set(self.keys))
        if missing:
            raise UsageError(f"{self.source} has no sample {missing[0]!r}; its keys are {', '.join(self.keys[:5])}, ...")
        return replace(self, keys=tuple(keys))

    def without_images(self) -> "Dataset":
        """The same samples, with images of no channels (0, *S) where the truth can be read without them.

        Where it cannot, the samples are whole. An image that is missing or of another size than its truth is still an error.
        """
        return replace(self, load=getattr(self.load, "without_image", self.load))

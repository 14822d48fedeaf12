"""Which samples are trained with and which are held out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from segwright.core import Dataset, Sample
from segwright.core.errors import FormatError, SettingError
from segwright.data.missing import void_where_missing
from segwright.formats import alike, dataset_file, open_dataset
from segwright.formats.image_index import TRAIN_NAMES, VAL_NAMES, split_of

HELD_OUT = 6  # the last sixth: enough to see a trend in 24 images, without losing much of them
CACHE_BYTES = 1 << 30  # of decoded samples that planning, training and scoring share

Fold = tuple[int, int]  # which one, counted from 0, of how many


class Splits(NamedTuple):
    """Samples of the same classes to train with and to validate with, opened once for all that a run does with them."""

    train: Dataset
    val: Dataset


def open_splits(
    path: Path | str, val: Path | str | None = None, *, format: str | None = None, fold: Fold | None = None
) -> Splits:
    """The samples to train with and to validate with.

    From `val` where it is given; else from the parts that the data set has, such as train/ and val/; else the last sixth of
    the samples in name order is held out, in one piece: neighbours in a stack or a video are alike, so that a random choice
    would validate on what was trained. With `fold` (i, n) it is instead the piece i of n over all samples. Groups of a
    dataset.toml stay together then.

    Raises:
        FormatError: as `open_dataset`; or there is one sample only, or the classes of both differ.
        SettingError: there is no such fold.
    """
    data = void_where_missing(open_dataset(path, format))
    if val is not None:
        if fold is not None:
            raise SettingError("val and a fold are given; a fold is cut from one data set: leave one of them out")
        return Splits(*alike(data, void_where_missing(open_dataset(val, format))))
    in_train, in_val = keys_of(data.keys, TRAIN_NAMES), keys_of(data.keys, VAL_NAMES)
    if fold is None and in_train and in_val:
        return Splits(data.subset(in_train), data.subset(in_val))
    if len(data) < 2:
        raise FormatError(f"{data.source} holds {len(data)} sample, two are needed to train and to validate; add more")
    known = dataset_file.read(path)
    train_keys, val_keys = cut(data.keys, known.groups if known else (), fold)
    return Splits(data.subset(train_keys), data.subset(val_keys))


def cut(keys: Sequence[str], groups: Sequence[Sequence[str]], fold: Fold | None = None) -> tuple[list[str], list[str]]:
    """The keys to train with and those held out: the last sixth, or a fold; groups stay together.

    Raises:
        SettingError: there is no such fold.
    """
    first, last = len(keys) - max(1, len(keys) // HELD_OUT), len(keys)
    if fold is not None:
        number, count = fold
        if not 0 <= number < count or not 2 <= count <= len(keys):
            raise SettingError(
                f"fold {number} of {count} was asked for, and there are {len(keys)} samples; "
                f"give a number from 0 to {count - 1} and 2 to {len(keys)} folds"
            )
        first, last = number * len(keys) // count, (number + 1) * len(keys) // count
    train, val = dataset_file.keep_together((*keys[:first], *keys[last:]), keys[first:last], groups)
    return list(train), list(val)


def keys_of(keys: Sequence[str], options: Sequence[str]) -> list[str]:
    """The keys of the first part, of those options, that a data set has."""
    parts = {name: [key for key in keys if split_of(key)[0].lower() == name] for name in options}
    return next((found for found in parts.values() if found), [])


def remembered(splits: Splits) -> Splits:
    """The same samples, with one memory of CACHE_BYTES for what was decoded: for a run, which reads them often."""
    memory = _Memory()
    return Splits(*(replace(data, load=_Remembered(data, memory)) for data in splits))


@dataclass(eq=False)
class _Memory:
    """Decoded samples by data set and key, as many as CACHE_BYTES hold: those that came first."""

    samples: dict[tuple[int, str], Sample] = field(default_factory=dict)
    bytes: int = 0


@dataclass(frozen=True, eq=False)
class _Remembered:
    """Loads the samples of a data set, from memory where it has room."""

    data: Dataset
    memory: _Memory

    def __call__(self, key: str) -> Sample:
        place = (id(self.data), key)
        if (known := self.memory.samples.get(place)) is not None:
            return known
        sample = self.data.load(key)
        size = sample.image.nbytes + (sample.truth.planes.nbytes if sample.truth else 0)
        if self.memory.bytes + size <= CACHE_BYTES:
            self.memory.samples[place] = sample
            self.memory.bytes += size
        return sample

"""Which samples are trained with and which are held out."""

import logging
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

log = logging.getLogger(__name__)

Fold = tuple[int, int]  # which one, counted from 0, of how many


class Splits(NamedTuple):
    """Samples of the same classes to train with and to validate with, opened once for all that a run does with them."""

    train: Dataset
    val: Dataset


def open_splits(
    path: Path | str,
    val: Path | str | None = None,
    *,
    format: str | None = None,
    fold: Fold | None = None,
    skip: Sequence[str] = (),
) -> Splits:
    """The samples to train with and to validate with.

    From `val` where it is given; else from the parts that the data set has, such as train/ and val/; else the last sixth of
    the samples in name order is held out, in one piece: neighbours in a stack or a video are alike, so that a random choice
    would validate on what was trained. With `fold` (i, n) it is instead the piece i of n over all samples. Groups of a
    dataset.toml stay together then. Samples with a key in `skip` are left out first, of `val` too.

    Raises:
        FormatError: as `open_dataset`; or there is one sample only, or the classes of both differ.
        SettingError: there is no such fold, or all images of `val` are among those to train with.
    """
    data = _without(void_where_missing(open_dataset(path, format)), skip)
    if val is not None:
        if fold is not None:
            raise SettingError("val and a fold are given; a fold is cut from one data set: leave one of them out")
        splits = Splits(*alike(data, _without(void_where_missing(open_dataset(val, format)), skip)))
        _check_apart(splits)
        return splits
    in_train, in_val = keys_of(data.keys, TRAIN_NAMES), keys_of(data.keys, VAL_NAMES)
    if fold is None and in_train and in_val:
        return Splits(data.subset(in_train), data.subset(in_val))
    if len(data) < 2:
        raise FormatError(f"{data.source} holds {len(data)} sample, two are needed to train and to validate; add more")
    known = dataset_file.read(path)
    train_keys, val_keys = cut(data.keys, known.groups if known else (), fold)
    return Splits(data.subset(train_keys), data.subset(val_keys))


def _check_apart(splits: Splits) -> None:
    """See that images to validate with are others than those to train with; some that are both are told.

    Raises:
        SettingError: all are both, as where val is a part of the data.
    """
    trained = {file.resolve() for file in splits.train.image_files.values()}
    both = [key for key, file in splits.val.image_files.items() if file.resolve() in trained]
    if both and len(both) == len(splits.val):
        raise SettingError(
            f"all {len(both)} images of {splits.val.source}, to validate with, are among those of {splits.train.source}, to "
            "train with; give other images as val, or leave it out: a part of the data called val, or else the last sixth, is "
            "held out then"
        )
    if both:
        log.warning(
            "%d of %d images to validate with, such as %r, are trained with too: scores will be too good; take them out of one",
            *(len(both), len(splits.val), both[0]),
        )


def open_folds(path: Path | str, count: int, *, skip: Sequence[str] = ()) -> list[Splits]:
    """All folds of a data set, which is opened once; what was decoded is remembered for all of them. `skip` is left out.

    Raises:
        FormatError: as `open_dataset`.
        SettingError: there are too few samples, or groups of them, for so many folds.
    """
    data, known = _without(void_where_missing(open_dataset(path)), skip), dataset_file.read(path)
    _check_count(count, len(data))
    data = replace(data, load=_Remembered(data, _Memory()))
    parts = [cut(data.keys, known.groups if known else (), (number, count)) for number in range(count)]
    return [Splits(data.subset(train), data.subset(val)) for train, val in parts]


def _without(data: Dataset, skip: Sequence[str]) -> Dataset:
    """The samples of a data set but for those with some keys."""
    return data.subset([key for key in data.keys if key not in skip]) if skip else data


def cut(keys: Sequence[str], groups: Sequence[Sequence[str]], fold: Fold | None = None) -> tuple[list[str], list[str]]:
    """The keys to train with and those held out: the last sixth, or a fold; groups stay together.

    All folds together hold out each key once.

    Raises:
        SettingError: there is no such fold, or it is empty.
    """
    if fold is not None:
        own = _pieces(keys, groups, fold)[fold[0]]
        return [key for key in keys if key not in own], [key for key in keys if key in own]
    first = len(keys) - max(1, len(keys) // HELD_OUT)
    train, val = dataset_file.keep_together(keys[:first], keys[first:], groups)
    return list(train), list(val)


def _pieces(keys: Sequence[str], groups: Sequence[Sequence[str]], fold: Fold) -> list[set[str]]:
    """The keys cut into as many pieces as a fold is of, each key in one; a group is in that with the most of it, or the first.

    Raises:
        SettingError: there is no such fold, or it is empty.
    """
    number, count = fold
    _check_count(count, len(keys))
    if not 0 <= number < count:
        raise SettingError(f"fold {number} of {count} was asked for; folds are counted from 0: give 0 to {count - 1}")
    piece = {key: n for n in range(count) for key in keys[n * len(keys) // count : (n + 1) * len(keys) // count]}
    for group in groups:
        here = [piece[key] for key in group if key in piece]
        if here:
            most = min(here, key=lambda n: (-here.count(n), n))
            piece |= {key: most for key in group if key in piece}
    pieces = [{key for key in keys if piece[key] == n} for n in range(count)]
    if not all(pieces):
        raise SettingError(
            f"of {count} folds {sum(not each for each in pieces)} would be empty, as groups of dataset.toml stay together; "
            f"ask for fewer folds, at most {sum(map(bool, pieces))}"
        )
    return pieces


def _check_count(count: int, samples: int) -> None:
    """See that so many samples can be cut into so many folds.

    Raises:
        SettingError: they cannot.
    """
    if not 2 <= count <= samples:
        more = f"ask for 2 to {samples} folds" if samples > 1 else "two samples are needed at least: add more"
        raise SettingError(f"{count} folds were asked for, of {samples} sample{'s' * (samples != 1)}; {more}")


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

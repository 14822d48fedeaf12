"""A prediction beside its truth, image by image: which belongs to which, and which class of one is which of the other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.classes import BACKGROUND, plain
from segwright.core.errors import UsageError, naming
from segwright.core.grid import Grid
from segwright.core.lookup import did_you_mean
from segwright.formats.image_index import SHOWN, split_of

NOTHING, UNKNOWN = -1, -2  # what a class of a prediction is, where it is none of the truth's
GUESSED = ("foreground", "object")  # what masks without a word on their classes hold beside background
NO_MASK = "Predictions without a mask count as missed"
OTHER_PLACE = "Predictions with another voxel size or place than their truth are compared voxel by voxel all the same"
UNTOLD = "Predicted things without object numbers find no object"
UNRANKED = "Objects whose scores are all equal are ranked in the order of images, which average precision depends on"
APART = 0.5  # of a voxel, between grids that are taken for two: less is rounding


@dataclass(frozen=True, eq=False)
class Pair:
    """A sample with its truth, and a prediction with the same classes. `remarks` say what one must know of it."""

    sample: Sample
    prediction: Segmentation
    remarks: tuple[str, ...] = ()

    @property
    def truth(self) -> Segmentation:
        """The truth of the sample.

        Raises:
            UsageError: nobody drew one.
        """
        if self.sample.truth is None:
            raise UsageError("there is no truth to compare with; add its mask, or drop it in dataset.toml")
        return self.sample.truth


@dataclass(frozen=True, eq=False)
class Pairs:
    """The images of a truth, each with its prediction. Nothing is read before `load`.

    `missing` are the keys without a prediction: they count as if nothing had been found there. `notes` say in plain words
    what was left out and why. `groups` are keys that belong together, such as slices of one person.
    """

    prediction: Dataset
    truth: Dataset
    key_of: dict[str, str]
    class_of: tuple[int, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the truth, in its order."""
        return self.truth.keys

    @property
    def classes(self) -> Classes:
        """The classes of the truth, which the scores speak of."""
        return self.truth.classes

    def load(self, key: str) -> Pair:
        """Read both sides of one image, that of the truth only; without a prediction, an empty one.

        Raises:
            UsageError: a class is unknown or a score is not a number.
        """
        sample, other = self.truth.load(key), self.key_of.get(key)
        found = self.prediction.without_images().load(other) if other is not None else None
        if found is None or found.truth is None:
            nothing = Segmentation.panoptic(np.zeros(sample.grid.shape, np.int32), [], classes=self.classes)
            return Pair(sample, nothing, (NO_MASK,) if found else ())
        with naming(f"{self.prediction.source}: sample {other!r}"):
            guess = self._translated(found.truth)
        is_thing, is_object = np.array(self.classes.is_thing)[guess.class_ids], guess.instance_ids > 0
        remarks = {
            OTHER_PLACE: _are_apart(found.grid, sample.grid),
            UNTOLD: (is_thing & ~is_object).any(),
            UNRANKED: is_object.sum() > 1 and np.ptp(guess.scores[is_object]) == 0,
        }
        left_out = (f"Predictions are left out, as they are {reason}" for reason in found.left_out)
        return Pair(sample, guess, (*(remark for remark, is_so in remarks.items() if is_so), *left_out))

    def without_images(self) -> "Pairs":
        """The same pairs, whose samples have images of no channels where the truth can be read without them."""
        return replace(self, truth=self.truth.without_images())

    def _translated(self, guess: Segmentation) -> Segmentation:
        """A prediction in the classes of the truth; its background becomes nothing where the truth has no such class."""
        if not np.isfinite(guess.scores).all():
            raise UsageError("a segment has a score that is not a number; predict again, or remove the segment")
        class_of = np.array(self.class_of, np.int32)[guess.class_ids]
        if (class_of == UNKNOWN).any():
            name = guess.classes.names[guess.class_ids[class_of == UNKNOWN][0]]
            raise UsageError(
                f"the prediction has the class {name!r}, which {self.truth.source} does not know"
                f"{did_you_mean(name, list(self.classes.names))}; its classes are {', '.join(self.classes.names[:10])}: "
                "give both the same names, for example in a classes.json beside the masks"
            )
        is_kept = class_of != NOTHING
        if is_kept.all():
            return replace(guess, class_ids=class_of, classes=self.classes)
        number = np.concatenate([[-1, 0], np.where(is_kept, np.cumsum(is_kept), 0)]).astype(np.int32)
        return Segmentation(
            number[guess.planes + 1], class_of[is_kept], guess.instance_ids[is_kept], guess.scores[is_kept], self.classes
        )


def pair(prediction: Dataset, truth: Dataset, groups: tuple[tuple[str, ...], ...] = ()) -> Pairs:
    """Predictions by the keys of their truths: equal keys, or equal but for the part ("val__a" and "a").

    Images of the truth without a prediction count as missed. Parts of the truth (train, val) for which nothing at all was
    predicted are left out, and so are predictions for images that the truth does not have; notes say so. Classes match by
    name; where one side has numbers only ("class_0"), by number.

    Raises:
        UsageError: nothing matches, or two predictions are for one image.
    """
    by_rest = _group(truth.keys)
    key_of: dict[str, str] = {}
    without_truth = []
    for key in prediction.keys:
        rest = split_of(key)[1]
        own = key if key in by_rest.get(rest, ()) else next(iter(by_rest.get(rest, ())), None)
        if own is None or (own != key and len(by_rest[rest]) > 1):
            without_truth.append(key)
        elif own in key_of:
            raise UsageError(
                f"{prediction.source}: {key_of[own]!r} and {key!r} are both predictions for {own!r}; remove or rename one"
            )
        else:
            key_of[own] = key
    if not key_of:
        raise UsageError(
            f"no prediction in {prediction.source} is for an image of {truth.source}: keys such as {a_few(prediction.keys)} "
            f"and {a_few(truth.keys)} have nothing in common; name each prediction as its image"
        )
    parts = {split_of(key)[0] for key in key_of}
    kept = [key for key in truth.keys if split_of(key)[0] in parts]
    missing = tuple(key for key in kept if key not in key_of)
    notes = []
    if len(kept) < len(truth):
        notes.append(f"{len(truth) - len(kept)} images of other parts than {', '.join(sorted(parts))} are left out.")
    if missing:
        notes.append(f"{len(missing)} of {len(kept)} images have no prediction and count as missed: {a_few(missing)}.")
    if without_truth:
        are = "prediction is" if len(without_truth) == 1 else "predictions are"
        notes.append(f"{len(without_truth)} {are} for no image of the truth and left out: {a_few(without_truth)}.")
    class_of = class_numbers(prediction.classes, truth.classes)
    notes += _class_notes(class_of, prediction.classes, truth.classes)
    return Pairs(prediction, truth.subset(kept), key_of, class_of, missing, tuple(notes), groups)


def _are_apart(one: Grid, other: Grid) -> bool:
    """Whether two grids of one shape place their corners differently, or have other voxel sizes, as far as both are known."""
    if one.shape != other.shape:
        return False  # an error of its own
    if one.spacing_mm is not None and other.spacing_mm is not None:
        size = np.array(other.spacing_mm)
        if (np.abs(np.array(one.spacing_mm) - size) * one.shape > APART * size).any():
            return True
    if one.affine is None or other.affine is None:
        return False
    corners = np.array([[0.0] * len(one.shape) + [1.0], [*one.shape, 1.0]]).T
    apart = np.linalg.norm(((one.affine - other.affine) @ corners)[:-1], axis=0)
    return bool((apart > APART * np.linalg.norm(other.affine[:-1, :-1], axis=0).min()).any())


def _group(keys: Sequence[str]) -> dict[str, list[str]]:
    """The keys that are equal but for their part, by what is equal."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(split_of(key)[1], []).append(key)
    return groups


def a_few(keys: Sequence[str]) -> str:
    """The first keys, for a message."""
    return ", ".join(map(repr, keys[:SHOWN])) + (", ..." if len(keys) > SHOWN else "")


def _class_notes(class_of: Sequence[int], prediction: Classes, truth: Classes) -> list[str]:
    """What one must know of how classes were matched, other than by their names."""
    pairs = [(name, truth.names[k]) for name, k in zip(prediction.names, class_of, strict=True) if k >= 0]
    renamed = [f"{name!r} is taken for {other!r}" for name, other in pairs if plain(name) != plain(other)]
    nothing = [name for name, k in zip(prediction.names, class_of, strict=True) if k == NOTHING and not all(truth.is_thing)]
    notes = [f"Of the predicted classes, {', '.join(renamed[:SHOWN])}{', ...' * (len(renamed) > SHOWN)}."] if renamed else []
    return notes + [f"The truth has no class {name!r}: pixels predicted so count as given no class." for name in nothing]


def class_numbers(prediction: Classes, truth: Classes) -> tuple[int, ...]:
    """For each class of a prediction its number in the truth, NOTHING for a background that the truth lacks, else UNKNOWN.

    Where each has one class beside background, and one of them is a guess ("foreground"), these two are the same.
    """
    if any(classes.names == tuple(f"class_{k}" for k in range(len(classes))) for classes in (prediction, truth)):
        return tuple(k if k < len(truth) else UNKNOWN for k in range(len(prediction)))
    others = [[k for k, name in enumerate(each.names) if plain(name) != BACKGROUND] for each in (prediction, truth)]
    if [len(found) for found in others] == [1, 1] and any(
        plain(each.names[found[0]]) in GUESSED for each, found in zip((prediction, truth), others, strict=True)
    ):
        there = next((k for k, name in enumerate(truth.names) if plain(name) == BACKGROUND), NOTHING)
        return tuple(others[1][0] if k == others[0][0] else there for k in range(len(prediction)))
    simple = [plain(name) for name in truth.names]
    unique = {name: simple.index(name) for name, count in Counter(simple).items() if count == 1}
    exact = {name: k for k, name in enumerate(truth.names)}
    return tuple(
        exact.get(name, unique.get(plain(name), NOTHING if plain(name) == BACKGROUND else UNKNOWN)) for name in prediction.names
    )

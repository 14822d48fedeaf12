"""One file per meaning of a network's outputs: what a sample teaches, how far outputs are from it, what they say.

Everything that differs between semantic, instance, panoptic or promptable work stands behind `Task`; the training loop, the
planner, the engines, the predictor, the writers and the reports know nothing else.

Axes: B batch, C channels, *S spatial axes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import SegwrightError
from segwright.data.fingerprint import Fingerprint
from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.run import Outputs, Run
from segwright.transforms.prepare import View

if TYPE_CHECKING:
    import torch
    from torch import nn


DEFAULT = "semantic"  # unless a person names another, or the data or the network ask for one
OVERLAPPING = "regions"  # where that is to be learned of classes that overlap
LOOKED_AT = 8  # samples that tell what data are of, evenly spread: some images may hold no object


class Batch(NamedTuple):
    """Crops for one step: `image` float32 (B, C, *S), and `target` in whatever tensors the task's loss compares with."""

    keys: list[str]
    image: "torch.Tensor"
    target: Any


@runtime_checkable
class Task(Protocol):
    """What every file of this folder offers: a frozen dataclass, `[task]` in a plan, that owns its loss."""

    @property
    def score(self) -> str:
        """The name of the score that the best checkpoint is chosen by; more is better."""

    @property
    def metrics(self) -> Sequence[str]:
        """What is reported: names of scores, or of files of metrics/."""

    @classmethod
    def planned(cls, found: Fingerprint) -> "tuple[Task, dict[str, str]]":
        """The task as it suits a data set, with the reasons of its settings, by their paths in the plan."""

    def candidates(self, found: Fingerprint, *, from_scratch: bool) -> Sequence[Any]:
        """Configs of the networks to choose from for a data set, in growing order of cost.

        Unless training is to start `from_scratch`, those whose trained weights lie on this machine, if there are any.
        """

    def fitted(self, network: Any, channels: int, classes: Classes) -> Any:
        """A network's config for images of so many channels and for these classes."""

    def dataset(self, data: Dataset) -> Dataset:
        """How the task sees a data set: with a background, with things alone, and so on."""

    def target(self, crop: Sample) -> Any:
        """What a crop teaches, in numpy. Raises UsageError where it teaches nothing."""

    def collate(self, crops: Sequence[tuple[str, np.ndarray, Any]]) -> Batch:
        """Keys, images float32 (C, *S) of one shape and targets as a batch."""

    def loss(self, network: Any, batch: Batch, generator: "torch.Generator") -> "Mapping[str, torch.Tensor]":
        """The terms of the loss by name, of which the sum is minimised. It calls the network itself; draws use `generator`."""

    def decode(self, run: Run, view: View) -> Segmentation:
        """The segmentation on the original grid of what the network says to a view; tiles, mirrors and merging are its own."""

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """How far outputs say the same as those of another engine for images of a shape *P, from 0 to 1."""


@runtime_checkable
class WeighsClasses(Protocol):
    """What a task may offer besides, where its loss compares classes: planner and loop then tell how classes fare."""

    @property
    def recall(self) -> str:
        """The name of the score that is 0 for a class of which nothing is found, such as "recall" of "recall/road"."""

    def against_collapse(self, fractions: Sequence[float]) -> Sequence[str]:
        """Settings of the task, as path=value, with which a class that is never found weighs more; none where they are set.

        `fractions` (K,) are the shares of the known pixels that classes have.
        """

    def charges(self, crops: Sequence[Sample], num_classes: int) -> np.ndarray:
        """By how much the loss of a batch of crops grows if a class is missed and all else is right, float64 (K,)."""


@runtime_checkable
class Averages(Protocol):
    """What a task may offer besides, where the answers of several networks of one kind, such as those of folds, have a mean."""

    def averaged(self, networks: "Sequence[nn.Module]", *, temperature: float = 1.0) -> "nn.Module":
        """A network that gives the mean of what these give. Raises SettingError where there is none.

        Where that is a mean of probabilities, their logits are divided by the `temperature`.
        """


@runtime_checkable
class KeepsEncoder(Protocol):
    """What a task may offer besides, where a part of its networks may stay as it is while few images tune trained weights."""

    @property
    def stays(self) -> str:
        """The part, which is asked once for each image: what comes after it learns."""


@runtime_checkable
class TellsUncertainty(Protocol):
    """What a task may offer besides, where it knows how sure a network is of each pixel."""

    def with_uncertainty(
        self, run: Run, view: View, missing: np.ndarray | None = None
    ) -> tuple[Segmentation, Mapping[str, np.ndarray], OverlapSums]:
        """What `decode` gives, maps float32 (*S) by name on the original grid, from 0, sure, to 1, and sums.

        These tell what Dice to expect; pixels `missing`, bool (*S), are not among them.
        """


@runtime_checkable
class TellsProbabilities(Protocol):
    """What a task may offer besides, where each class has a probability at each pixel."""

    def probability_rows(self, run: Run, view: View) -> Iterator[tuple[int, np.ndarray]]:
        """Probabilities float32 (K, n, ...) of rows on the original grid, and the first of them, from the top to the bottom."""

    def decided(self, rows: Iterable[np.ndarray], classes: Classes) -> Segmentation:
        """The segmentation (*S) that follows from the probabilities (K, n, ...) of all rows, from the top to the bottom."""


def task_for(data: Dataset) -> str:
    """The task that a data set asks for: "regions" where it declares them, "instance" where images hold nothing but objects on
    a background, else the default.

    Some samples tell. Those that cannot be read tell nothing here: whoever uses them names them.
    """
    if data.classes.regions:
        return OVERLAPPING
    background = background_of(data.classes)
    truths = (truth for truth in _some_truths(data) if len(truth.shape) == 2)
    found = [np.where(truth.class_ids == background, -1, truth.instance_ids) for truth in truths]
    numbers = np.concatenate([np.empty(0, int), *found])
    return "instance" if (numbers > 0).any() and not (numbers == 0).any() else DEFAULT


def has_numbers(data: Dataset) -> bool:
    """Whether segments of things have numbers, as far as some samples tell."""
    return any((truth.instance_ids > 0).any() for truth in _some_truths(data))


def _some_truths(data: Dataset) -> Iterator[Segmentation]:
    """The truths of some samples that can be read and have one."""
    masks = data.without_images()
    for key in masks.keys[:: -(-len(masks) // LOOKED_AT) or 1]:
        try:
            truth = masks.load(key).truth
        except SegwrightError:
            continue
        if truth is not None:
            yield truth

"""Regions that overlap, as parts of a tumour do: for each class by itself, whether a pixel is in it.

The networks are those for semantic segmentation; a logit is there for each region, and its sigmoid is the probability.

Source: the region-based training of nnU-Net (Isensee et al. 2021, "nnU-Net for Brain Tumor Segmentation", arXiv 2011.00848),
which learns the regions that BraTS scores and not the exclusive classes that its files hold.

Axes: B batch, C channels, K classes, *S spatial axes, *s those of the logits.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import nn

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UsageError
from segwright.core.lookup import Kind
from segwright.data.fingerprint import Fingerprint
from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import tiled_maps
from segwright.decoding.uncertainty import region_rows_and_uncertainty, rows_of, whole_of
from segwright.layers.ensemble import RegionEnsemble
from segwright.layers.point_sampling import WithPoints
from segwright.losses import Loss
from segwright.losses.binary_cross_entropy import BinaryCrossEntropy
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import tasks_of
from segwright.tasks import DEFAULT, Batch
from segwright.tasks.semantic import MISSED, NEVER, Semantic, asked_in_tiles
from segwright.transforms.prepare import View

OF_REGIONS = WeightedSum(terms=(BinaryCrossEntropy(), Dice()), weights=(1.0, 1.0))  # as nnU-Net's


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Dense networks that give logits (B, K, *s), one for each class; those above 0 are in it.

    Losses take a truth for each class: `binary_cross_entropy`, `sigmoid_focal`, and those of overlap such as `dice`.
    `deep_supervision` is as for semantic segmentation.
    """

    score: ClassVar[str] = "mIoU"
    metrics: ClassVar[tuple[str, ...]] = ("confusion",)
    recall: ClassVar[str] = "recall"

    criterion: Annotated[Loss, Kind("losses")] = OF_REGIONS
    deep_supervision: bool = False

    def __post_init__(self) -> None:
        if any(isinstance(term, CrossEntropy) for term in (self.criterion, *getattr(self.criterion, "terms", ()))):
            raise SettingError(
                "task.criterion has cross_entropy, for which classes exclude each other, and regions overlap; take "
                "binary_cross_entropy in its place, or train with --task semantic"
            )

    @classmethod
    def planned(cls, found: Fingerprint) -> "tuple[Regions, dict[str, str]]":
        """Binary cross-entropy plus Dice."""
        names = ", ".join(found.class_names[:3]) + (", ..." if len(found.class_names) > 3 else "")
        return cls(), {
            "task": f"classes overlap ({names}): each is learned by itself, with a sigmoid",
            "task.criterion": "as nnU-Net's for regions: Dice counts each region as it is scored, whatever its size",
        }

    def candidates(self, found: Fingerprint, *, from_scratch: bool) -> list[Any]:
        """Those for semantic segmentation."""
        return Semantic().candidates(found, from_scratch=from_scratch)

    def fitted(self, network: Any, channels: int, classes: Classes) -> Any:
        """The config with as many channels in, and a logit for each class.

        Raises:
            SettingError: the network is not for semantic segmentation, or gives queries.
        """
        if tasks_of(network)[0] != DEFAULT:
            raise _not_dense()
        return Semantic().fitted(network, channels, classes)

    def dataset(self, data: Dataset) -> Dataset:
        """The data set itself: what lies in no region is no class."""
        return data

    def target(self, crop: Sample) -> np.ndarray:
        """Whether each pixel is in each class, int8 (K, *S) of 1, 0 and VOID (-1) where nobody knows.

        Raises:
            UsageError: the sample has no truth.
        """
        truth = crop.truth
        if truth is None:
            raise UsageError(f"sample {crop.key!r} has no truth to learn from; add its mask, or take it out of the data set")
        planes = np.zeros((len(truth.classes), *truth.shape), np.int8)
        for index, k in enumerate(truth.class_ids):
            planes[k][truth.mask(index)] = 1
        planes[:, truth.planes[0] == VOID] = VOID
        return planes

    def collate(self, crops: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Batch:
        """Images float32 (B, C, *S) and the truths of each class int8 (B, K, *S)."""
        return Semantic().collate(crops)

    def loss(self, network: Any, batch: Batch, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """The terms of the criterion for the network's logits (B, K, *s) and truths (B, K, *S); auxiliary heads add one.

        Raises:
            SettingError: the network gives no logits for each pixel; or as of semantic segmentation.
        """

        def dense(image: torch.Tensor) -> Any:
            if getattr(network, "OUTPUT", ""):
                raise _not_dense()
            outputs = network(image)
            if isinstance(outputs, WithPoints):
                raise _not_dense()
            return outputs

        return Semantic(criterion=self.criterion, deep_supervision=self.deep_supervision).loss(dense, batch, generator)

    def against_collapse(self, fractions: Sequence[float]) -> tuple[str, ...]:
        """Nothing: Dice counts a region whatever its size, and weights of cross-entropy are for classes that compete."""
        return ()

    def charges(self, crops: Sequence[Sample], num_classes: int) -> np.ndarray:
        """By how much the loss of a batch of crops grows if a class is missed and all else is right, float64 (K,)."""
        target = torch.from_numpy(np.stack([self.target(crop) for crop in crops]))  # (B, K, *S)
        sure, missed = (math.log(part) - math.log(1 - part) for part in (1 - NEVER, MISSED))
        right = torch.where(target == 1, sure, -sure)
        least, found = float(self.criterion(right, target)), np.zeros(num_classes)
        for k in range(num_classes):
            wrong = right.clone()
            wrong[:, k][target[:, k] == 1] = missed
            found[k] = float(self.criterion(wrong, target)) - least
        return found

    def decode(self, run: Run, view: View) -> Segmentation:
        """Each class where its logit is above 0, at each pixel (*S) of the original; tiles and mirrors are blended as logits.

        Raises:
            ShapeError: the network has another number of classes than it should, or the image other axes.
        """
        is_inside = np.empty((len(run.classes), *view.source.shape), bool)
        for first, logits in tiled_maps(*asked_in_tiles(run, view)):
            is_inside[:, first : first + logits.shape[1]] = logits > 0
        return Segmentation.regions(is_inside, run.classes)

    def probabilities(self, run: Run, view: View) -> np.ndarray:
        """The probability that each pixel of the original is in each class, float32 (K, *S); they do not add up to 1.

        Raises:
            ShapeError: as in `decode`.
        """
        found = np.empty((len(run.classes), *view.source.shape), np.float32)
        for first, probs in self.probability_rows(run, view):
            found[:, first : first + probs.shape[1]] = probs
        return found

    def probability_rows(self, run: Run, view: View) -> Iterator[tuple[int, np.ndarray]]:
        """The same of rows (K, n, ...) as they come, and the first of them.

        Raises:
            ShapeError: as in `decode`.
        """
        for first, logits in tiled_maps(*asked_in_tiles(run, view)):
            yield first, 0.5 + 0.5 * np.tanh(logits / 2)  # a sigmoid that does not overflow

    def decided(self, rows: Iterable[np.ndarray], classes: Classes) -> Segmentation:
        """Each class where its probability, of (K, n, ...) of rows, is above one half, at each pixel (*S)."""
        return Segmentation.regions(np.concatenate([probs > 0.5 for probs in rows], axis=1), classes)

    def averaged(self, networks: Sequence[nn.Module], *, temperature: float = 1.0) -> nn.Module:
        """A network that gives the mean of the probabilities of these, whose logits are first divided by the `temperature`."""
        return RegionEnsemble(networks, temperature=temperature)

    def with_uncertainty(
        self, run: Run, view: View, missing: np.ndarray | None = None
    ) -> tuple[Segmentation, Mapping[str, np.ndarray], OverlapSums]:
        """The regions, as `decode` finds them, how uncertain they are (see `decoding/uncertainty.py`), and sums.

        Raises:
            ShapeError: as in `decode`.
        """
        parts = tiled_maps(*asked_in_tiles(run, view, with_entropy=True))
        sums = OverlapSums.of_none(len(run.classes))
        rows = region_rows_and_uncertainty(parts, len(run.classes), sums, rows_of(missing))
        is_inside, maps = whole_of(rows, view.source.shape)
        return Segmentation.regions(is_inside, run.classes), maps, sums

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """The part of all classes at all pixels that logits say the same of."""
        return float(np.mean((outputs[0] > 0) == (reference[0] > 0)))


def _not_dense() -> SettingError:
    """The error to raise for a network that finds objects or segments, or looks at points."""
    return SettingError(
        "regions are learned by networks for semantic segmentation that give a logit for each class at each pixel, and this "
        "one finds objects or segments, or looks at points besides; leave --model out to have one chosen for the data"
    )

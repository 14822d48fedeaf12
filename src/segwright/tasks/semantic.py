"""Semantic segmentation: one class per pixel. Axes: B batch, C channels, K classes, *S spatial axes, *s those of the logits."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.core.lookup import Kind
from segwright.data.background import with_background
from segwright.data.class_weights import class_weights
from segwright.data.fingerprint import Fingerprint, has_up
from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.queries import decode_classes, queries_agree, query_probabilities
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import (
    Ask,
    tiled_label_rows,
    tiled_labels,
    tiled_maps,
    tiled_prob_rows,
    tiled_probs,
)
from segwright.decoding.tta import mirrored
from segwright.decoding.uncertainty import Missing, Row, label_rows_and_uncertainty, rows_of, whole_of
from segwright.decoding.upsample_argmax import label_dtype, upsample_argmax
from segwright.encoders import timm
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.class_segments import class_segments
from segwright.layers.ensemble import Ensemble, QueryEnsemble
from segwright.layers.point_sampling import WithPoints, classes_at_points
from segwright.losses import Loss
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import check_task, encoder_unet, nnunet, segformer, unet
from segwright.tasks import Batch
from segwright.transforms.prepare import PixelSource, View

ENCODERS = tuple(f"regnetx_{size}" for size in ("002", "004", "008", "016", "032"))  # of timm: half a ResNet-18's time at 004
TRAINED = tuple(timm.PACKAGES)  # encoders whose weights can be installed, so that most machines have them or could
DECODER_WIDTHS = (128, 64, 32, 16, 16)  # half of the published ones: small encoders need no more
RGB = 3  # channels
# With root weights the hippocampus (2.5 %) came to a Dice of 0.83 in 320 steps, without to 0.87, for 0.02 of
# recall and more precision; CamVid (0.2 %) came to 0.24 of mIoU in 250 steps with them, without to 0.20.
TINY = 0.01  # of the pixels: below, classes are weighted; without, 0.6 % were not found in a minute, while 2.5 % need none
UNET_WIDTHS = (16, 32, 64)
VOLUME_WIDTHS = (16, 32)  # channels at full resolution, doubled at each stage; nnU-Net's own has 32
MOST_WIDTH = 320  # as in nnU-Net
VOLUME_SIDE = 256  # voxels: nnU-Net halves no more often than this allows
MISSED = 0.1  # probability of the true class where it is missed; a pixel then costs about what it does before training
NEVER = 1e-6  # of all classes that are not meant: so little that the pixels of a large one count nothing for a small one
CHARGED_LOGITS = 1_000_000  # of a batch: what the loss charges for a class then takes some milliseconds

OVERLAP = 0.001  # of the pixels in several segments: fewer are borders that drawn outlines share

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Semantic:
    """Dense networks that give logits (B, K, *s), brought to the size of the image, which the authors of all models do.

    `deep_supervision` is for networks whose auxiliary outputs are coarser and coarser maps of a decoder, such as a U-Net with
    heads on them. It compares each with the truth at its own size, by weights of its own, as nnU-Net (arXiv 1809.10486) does.
    Without it auxiliary logits are brought to the size of the image too, and count as much as the network says.

    Networks of queries learn one segment for each class that an image holds; their loss is their own.
    """

    score: ClassVar[str] = "mIoU"
    metrics: ClassVar[tuple[str, ...]] = ("confusion",)
    recall: ClassVar[str] = "recall"

    criterion: Annotated[Loss, Kind("losses")] = WeightedSum()
    deep_supervision: bool = False

    @classmethod
    def planned(cls, found: Fingerprint) -> "tuple[Semantic, dict[str, str]]":
        """Cross-entropy plus Dice; where some class is tiny, classes weigh in the first by the root of how rare they are.

        Dice counts a class whatever its size, but begins to pull once something of the class is found.
        """
        shared = sum(found.class_fractions) + found.nothing_fraction - 1
        if shared > OVERLAP:
            log.warning(
                "segments share %.1f %% of the pixels, and a pixel learns one class, that of the last of them: predicted outer "
                "regions will have holes where inner ones lie; to learn each class by itself, train with --task regions",
                100 * shared,
            )
        rarest = min((share for share in found.class_fractions if share > 0), default=1.0)
        weights = class_weights(found.class_fractions, found.class_images, "root") if rarest < TINY else None
        criterion = WeightedSum(terms=(CrossEntropy(class_weights=weights), Dice()), weights=(1.0, 1.0))
        why = f"the rarest class has {rarest:.2%} of the pixels; " + (
            "cross-entropy without weights takes long to find the first of it"
            if weights
            else f"Dice counts it as much as others, and class weights, which cost precision, are for less than {TINY:.1%}"
        )
        return cls(criterion=criterion), {"task.criterion": why}

    def candidates(self, found: Fingerprint, *, from_scratch: bool) -> list[Any]:
        """nnU-Nets for volumes, U-Nets for textures, SegFormer's decoder for scenes; on trained encoders where these help."""
        if found.axes == 3:
            return _volume_networks(found)
        trained = [timm.Config(name=name) for name in TRAINED if timm.source(name) is not None and not from_scratch]
        if has_up(found):  # scenes: what a thing is depends on what is far around it
            encoders = trained or [timm.Config(name=name) for name in ENCODERS]
            return [segformer.Config(encoder=encoder, decoder_width=128) for encoder in encoders]
        # Sections and smears: texture and thin borders, so full resolution. What photographs teach helps with colours alone,
        # and where time is short: nuclei came to 0.81 of mIoU in 50 s, a U-Net to 0.71, and both to 0.898 in four minutes;
        # grey membranes came to 0.75, and a U-Net to 0.77.
        if trained and RGB in found.channels:
            return [encoder_unet.Config(encoder=encoder, decoder_widths=DECODER_WIDTHS) for encoder in trained]
        return [unet.Config(max_width=512, width=width) for width in UNET_WIDTHS]

    def fitted(self, network: Any, channels: int, classes: Classes) -> Any:
        """The config with as many channels in, and a class of logits for each class.

        Raises:
            SettingError: the network is for another task.
        """
        check_task(network, "semantic")
        return replace(network, in_channels=channels, num_classes=len(classes))

    def dataset(self, data: Dataset) -> Dataset:
        """The data set with pixels of no object as background, where its classes are objects alone, or regions."""
        return with_background(data, of_regions=True)

    def target(self, crop: Sample) -> np.ndarray:
        """The class map int64 (*S) to learn, VOID (-1) where nobody knows.

        Raises:
            UsageError: the sample has no truth.
        """
        if crop.truth is None:
            raise UsageError(f"sample {crop.key!r} has no truth to learn from; add its mask, or take it out of the data set")
        return crop.truth.class_map().astype(np.int64)

    def collate(self, crops: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Batch:
        """Images float32 (B, C, *S) and class maps int64 (B, *S)."""
        keys, images, targets = zip(*crops, strict=True)
        return Batch(list(keys), torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets)))

    def loss(self, network: Any, batch: Batch, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """The terms of the criterion for the network's logits (B, K, *s) and class maps (B, *S); auxiliary heads add one.

        Where the criterion takes a truth for each class, (B, K, *S), the target may be that.

        So do points, whose term is cross-entropy, as in PointRend: they have no shape, which other losses count. Classes weigh
        in it as in that of the criterion, where it has one.

        Raises:
            SettingError: the network has no auxiliary heads, and deep supervision is for them.
        """
        if getattr(network, "OUTPUT", "") == "queries":
            return network(batch.image, [class_segments(class_map) for class_map in batch.target], generator)
        outputs, target = network(batch.image), batch.target
        if self.deep_supervision:
            return self._deep_terms(outputs, target)
        if isinstance(outputs, WithPoints):
            at_points = classes_at_points(target, outputs.points)
            return {**self._terms(outputs.logits, target), "points": self._cross_entropy()(outputs.point_logits, at_points)}
        if not isinstance(outputs, WithAuxiliary):
            return self._terms(outputs, target)
        terms = dict(self._terms(outputs.logits, target))
        pairs = zip(outputs.auxiliary, outputs.weights, strict=True)
        first, *others = [weight * term for logits, weight in pairs for term in self._terms(logits, target).values()]
        return terms | {"auxiliary": sum(others, first)}

    def _cross_entropy(self) -> CrossEntropy:
        """The cross-entropy among the terms of the criterion, or a plain one."""
        terms = self.criterion.terms if isinstance(self.criterion, WeightedSum) else (self.criterion,)
        return next((term for term in terms if isinstance(term, CrossEntropy)), CrossEntropy())

    def _deep_terms(self, outputs: torch.Tensor | WithAuxiliary, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """The terms under deep supervision, where "auxiliary" is one: all of them times weights of which the sum is 1.

        Raises:
            SettingError: there are no auxiliary outputs.
        """
        if not isinstance(outputs, WithAuxiliary):
            raise SettingError(
                "task.deep_supervision is true, but the network gives one output in training; give it heads on earlier maps, "
                "for a U-Net with --set model.deep_supervision=2, or leave it out with --set task.deep_supervision=false"
            )
        first, *others = _halving_weights(1 + len(outputs.auxiliary))
        terms = {name: first * term for name, term in self._terms(outputs.logits, target).items()}
        targets = {target.shape[2 - outputs.logits.ndim :]: target}
        parts = []
        for weight, logits in zip(others, outputs.auxiliary, strict=True):
            size = logits.shape[2:]
            if not weight:
                parts.append(logits[:0].sum())  # 0, through which the parameters of the head get a gradient of 0, and not none
                continue
            targets[size] = targets[size] if size in targets else _nearest(target, size)
            parts += [weight * term for term in self._terms(logits, targets[size]).values()]
        return terms | {"auxiliary": sum(parts[1:], parts[0])}

    def _terms(self, logits: torch.Tensor, target: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The terms of the criterion for logits (B, K, *s), brought to the size of the target (B, *S) or (B, K, *S)."""
        size = target.shape[2 - logits.ndim :]
        if logits.shape[2:] != size:
            mode = "bilinear" if len(size) == 2 else "trilinear"
            logits = F.interpolate(logits, size=size, mode=mode, align_corners=False)
        if isinstance(self.criterion, WeightedSum):
            return self.criterion.terms_of(logits, target)
        return {"loss": self.criterion(logits, target)}

    def against_collapse(self, fractions: Sequence[float]) -> tuple[str, ...]:
        """The loss for tiny classes, as `planned` says, where no classes are weighted yet."""
        if any(getattr(term, "class_weights", None) for term in getattr(self.criterion, "terms", ())):
            return ()
        weights = list(class_weights(fractions, [1] * len(fractions), "root"))
        terms = f'[{{kind = "cross_entropy", class_weights = {weights}}}, {{kind = "dice"}}]'
        return ("task.criterion.kind=weighted_sum", f"task.criterion.terms={terms}")

    def charges(self, crops: Sequence[Sample], num_classes: int) -> np.ndarray:
        """By how much the loss of a batch of crops grows if all of a class is taken for another one, float64 (K,).

        Every pixel is right otherwise; what is missed is taken for the class with the most pixels. Of large crops, one pixel in
        some along each axis stands for all.
        """
        targets = np.stack([self.target(crop) for crop in crops])  # (B, *S)
        axes = targets.ndim - 1
        step = max(1, round((targets.size * num_classes / CHARGED_LOGITS) ** (1 / axes)))
        target = torch.from_numpy(targets[(slice(None), *[slice(None, None, step)] * axes)].copy())
        counts = torch.bincount(target[target >= 0], minlength=num_classes)
        first, second = counts.argsort(descending=True, stable=True)[:2].tolist()

        true, found = target.clamp(min=0)[:, None], np.zeros(num_classes)  # (B, 1, *s)

        def loss_if(is_missed: torch.Tensor, other: int) -> float:
            logits = torch.full((len(true), num_classes, *true.shape[2:]), math.log(NEVER))
            logits[:, other : other + 1][is_missed] = math.log(1 - MISSED)
            logits.scatter_(1, true, torch.where(is_missed, math.log(MISSED), 0.0))
            return float(self.criterion(logits, target))

        least = loss_if(torch.zeros_like(true, dtype=torch.bool), first)
        for k in counts.nonzero().flatten().tolist():
            found[k] = loss_if(true == k, second if k == first else first) - least
        return found

    def decode(self, run: Run, view: View) -> Segmentation:
        """The class with the highest logit at each pixel (*S) of the original; tiles and mirrors are blended as logits.

        Raises:
            ShapeError: the network has another number of classes than it should, or the image other axes.
        """
        if run.output == "queries":
            return decode_classes(run, view)
        return Segmentation.semantic(tiled_labels(*asked_in_tiles(run, view)), run.classes)

    def label_rows(self, run: Run, view: View) -> Iterator[tuple[int, np.ndarray]]:
        """What `decode` finds as classes (n, ...) of some rows, and the first of them, row after row; none of queries.

        Raises:
            ShapeError: as in `decode`.
        """
        return tiled_label_rows(*asked_in_tiles(run, view))

    def probabilities(self, run: Run, view: View) -> np.ndarray:
        """The probability of each class at each pixel of the original, float32 (K, *S): the softmax of what `decode` compares.

        Raises:
            ShapeError: as in `decode`.
        """
        return query_probabilities(run, view) if run.output == "queries" else tiled_probs(*asked_in_tiles(run, view))

    def probability_rows(self, run: Run, view: View) -> Iterator[tuple[int, np.ndarray]]:
        """The same of rows (K, n, ...) as they come, and the first of them; of queries all at once.

        Raises:
            ShapeError: as in `decode`.
        """
        if run.output == "queries":
            return iter([(0, query_probabilities(run, view))])
        return tiled_prob_rows(*asked_in_tiles(run, view))

    def decided(self, rows: Iterable[np.ndarray], classes: Classes) -> Segmentation:
        """The class with the highest of the probabilities (K, n, ...) of rows at each pixel (*S)."""
        labels = [probs.argmax(axis=0).astype(label_dtype(len(probs))) for probs in rows]
        return Segmentation.semantic(np.concatenate(labels), classes)

    def averaged(self, networks: Sequence[nn.Module], *, temperature: float = 1.0) -> nn.Module:
        """A network that gives the mean of the probabilities of these, whose logits are first divided by the `temperature`.

        Those of queries are no logits of classes, and stay as they are.
        """
        if getattr(networks[0], "OUTPUT", "") == "queries":
            return QueryEnsemble(networks)
        return Ensemble(networks, temperature=temperature)

    def with_uncertainty(
        self, run: Run, view: View, missing: np.ndarray | None = None
    ) -> tuple[Segmentation, Mapping[str, np.ndarray], OverlapSums]:
        """The class at each pixel, as `decode` finds it, how uncertain that is (see `decoding/uncertainty.py`), and sums.

        Of several networks, such as those of folds, also how far they disagree; of networks of queries not.

        Raises:
            ShapeError: as in `decode`.
        """
        shape, sums = view.source.shape, OverlapSums.of_none(len(run.classes))
        if run.output == "queries":
            probs = query_probabilities(run, view)
            logs = np.log(np.maximum(probs, np.finfo(np.float32).tiny))
            _, maps = whole_of(label_rows_and_uncertainty([(0, logs)], len(probs), sums, rows_of(missing)), shape)
            return self.decode(run, view), maps, sums
        labels, maps = whole_of(self.uncertainty_rows(run, view, sums, rows_of(missing)), shape)
        return Segmentation.semantic(labels, run.classes), maps, sums

    def uncertainty_rows(self, run: Run, view: View, sums: OverlapSums, missing: Missing) -> Iterator[Row]:
        """The same as rows on the original grid, from the top to the bottom; what they say is added to the sums."""
        parts = tiled_maps(*asked_in_tiles(run, view, with_entropy=True))
        return label_rows_and_uncertainty(parts, len(run.classes), sums, missing)

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """The part of the pixels of the images that get the same class; of queries, also what `queries_agree` says."""
        if outputs[0].ndim == 3:  # the classes of queries, which lie nowhere
            return queries_agree(outputs, reference)
        pairs = zip(outputs[0], reference[0], strict=True)
        return float(
            np.mean([np.mean(upsample_argmax(ours, shape) == upsample_argmax(theirs, shape)) for ours, theirs in pairs])
        )


def _volume_networks(found: Fingerprint) -> list[Any]:
    """nnU-Nets whose stages follow from the spacing and the usual shape.

    Their first stage and all of their decoder have one convolution instead of two: a step then takes two thirds of the time
    (0.17 instead of 0.26 s for a crop of 40 x 56 x 40 on one core with 32 channels, 0.075 instead of 0.106 s with 16).
    """
    shape = found.size_median
    spacing = found.spacing_mm or (1.0,) * len(shape)
    spacing = tuple(
        step if side > 1 else math.inf for step, side in zip(spacing, shape, strict=True)
    )  # one slice: no neighbours
    (strides, kernels, _), _ = nnunet.stages(spacing, [min(side, VOLUME_SIDE) for side in shape])
    if not strides:  # smaller than nnU-Net's networks are for
        strides, kernels = (tuple(2 if side > 1 else 1 for side in shape),), ((3,) * len(shape),) * 2
    count = len(kernels)
    return [
        nnunet.Config(
            features=tuple(min(width * 2**stage, MOST_WIDTH) for stage in range(count)),
            strides=strides,
            kernels=kernels,
            encoder_depths=(1, *(2,) * (count - 1)),
            decoder_depths=(1,) * (count - 1),
        )
        for width in VOLUME_WIDTHS
    ]


def _halving_weights(count: int) -> tuple[float, ...]:
    """What each of `count` outputs weighs under deep supervision, from the finest on: half of the one before, 1 in sum.

    The last of three or more, where a pixel covers too much to have one class, weighs 0.
    """
    raw = [0.5**index for index in range(count)]
    if count > 2:
        raw[-1] = 0.0
    return tuple(weight / sum(raw) for weight in raw)


def _nearest(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Targets (..., *s) of another `size` *s from some (..., *S): of the pixels nearest to a centre the first, void or not."""
    for axis, side in enumerate(size, start=-len(size)):
        twice_centres = (2 * torch.arange(side, device=target.device) + 1) * target.shape[axis]  # in units of 1 / side
        target = target.index_select(axis, (twice_centres - 1) // (2 * side))  # pixel i lies from i to i + 1
    return target


def asked_in_tiles(
    run: Run, view: View, *, with_entropy: bool = False
) -> tuple[PixelSource, Ask, tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """What the functions of `sliding_window` need: the padded image of a view, what answers for it, and the sizes.

    What answers gives logits (B, K, *s) over the temperature. `with_entropy` the mean entropy of several networks follows them,
    where the network is these.

    Raises:
        ShapeError: the network has another number of classes than it should, or the image other axes.
    """
    shape = view.source.shape
    if any(-axis > len(shape) for axis in run.flip_axes) or len(run.divisors) != len(shape):
        raise ShapeError(
            f"the image has {len(shape)} spatial axes, but the network sees {len(run.divisors)} and flip_axes is "
            f"{run.flip_axes}; give an image with as many axes, and flip only axes that it has"
        )
    tile, padded = run.sizes(view.covered)

    def ask(images: np.ndarray) -> np.ndarray:
        logits, *entropies = run(images)
        if logits.shape[1] != len(run.classes):
            raise ShapeError(
                f"the network gives {logits.shape[1]} classes, but there are names for {len(run.classes)}; "
                "build it with num_classes equal to the number of classes"
            )
        logits = logits if run.temperature == 1 else logits / np.float32(run.temperature)
        return np.concatenate([logits, *entropies], axis=1) if with_entropy else logits

    mean = mirrored(ask, run.flip_axes, run.at_once)
    return view.padded(padded).image, mean, tile, shape, view.covered, run.at_once

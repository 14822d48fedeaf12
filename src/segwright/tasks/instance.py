"""Instance segmentation: each object its own mask. Axes: B batch, C channels, N objects, P planes, H, W sides of an image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UsageError
from segwright.data.fingerprint import Fingerprint, has_up
from segwright.data.objects_alone import objects_alone
from segwright.decoding.detections import decode_detections, detections_agree
from segwright.decoding.flows import decode_flows, flows_agree
from segwright.decoding.queries import decode_objects, queries_agree
from segwright.decoding.run import Outputs, Run
from segwright.layers.ensemble import MapEnsemble
from segwright.layers.object_truth import ObjectTruth
from segwright.models import cellpose, check_task, mask_rcnn, unet
from segwright.tasks import Batch
from segwright.transforms.prepare import View

# Of U-Nets for flows, from random weights: after 8 minutes on one core nuclei came to an AP of 0.546 with the first, and with a
# decoder on an EfficientNet-Lite0 that was trained on ImageNet to 0.403.
FLOW_WIDTHS = (16, 32)
LEVELS = 5  # of anchors: each twice as large as those before
LEAST_SMALLEST, MOST_SMALLEST = 8.0, 32.0  # pixels of the smallest anchors: two steps of the finest map, and the published ones
ROOM = 4  # times the mean number of objects in an image: some hold many
HUNDRED, MOST_OBJECTS = 100, 1000  # places for objects come in hundreds; more cost time at each image


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Networks that find objects: from images and their `ObjectTruth`s they give the terms of their loss.

    Without a truth they give `Detections`, flow fields (one map, as `models/cellpose.py` says) or `QueryMasks`, whose kind a
    network states by its OUTPUT.
    """

    score: ClassVar[str] = "AP"
    metrics: ClassVar[tuple[str, ...]] = ("average_precision", "instance_accuracy")

    @classmethod
    def planned(cls, found: Fingerprint) -> "tuple[Instance, dict[str, str]]":
        """The task, which has nothing to choose."""
        return cls(), {}

    def candidates(self, found: Fingerprint, *, from_scratch: bool) -> list[Any]:
        """Flow fields where images have no up, as of cells; else Mask R-CNN, with anchors from the size of the smallest on."""
        if not has_up(found):
            return [cellpose.Config(trunk=unet.Config(width=width, max_width=512)) for width in FLOW_WIDTHS]
        smallest = min((sizes.extent_5th for sizes in found.objects if sizes.count), default=MOST_SMALLEST)
        first = min(max(2.0 ** round(math.log2(max(smallest, 1))), LEAST_SMALLEST), MOST_SMALLEST)
        mean = sum(sizes.count for sizes in found.objects) / max(found.with_truth, 1)
        room = min(max(math.ceil(ROOM * mean / HUNDRED), 1) * HUNDRED, MOST_OBJECTS)
        small = mask_rcnn.PRESETS["mask_rcnn_small"]
        return [replace(small, anchor_sizes=tuple(first * 2**level for level in range(LEVELS)), max_objects=room)]

    def fitted(self, network: Any, channels: int, classes: Classes) -> Any:
        """The config with as many channels in, and with these classes, of which none is the background.

        Raises:
            SettingError: the network is for another task.
        """
        check_task(network, "instance")
        return replace(network, in_channels=channels, num_classes=len(classes))

    def dataset(self, data: Dataset) -> Dataset:
        """The data set with its objects alone."""
        return objects_alone(data)

    def target(self, crop: Sample) -> ObjectTruth:
        """The objects of a crop, in numpy; one of which the crop shows no pixel is not among them.

        Raises:
            UsageError: the sample has no truth, or is a volume.
        """
        truth = crop.truth
        if truth is None:
            raise UsageError(f"sample {crop.key!r} has no truth to learn from; add its objects, or take it out of the data set")
        if len(truth.shape) != 2:
            raise UsageError(
                f"sample {crop.key!r} is a volume {truth.shape}, and networks that find objects see images; learn the class of "
                "each voxel with --task semantic"
            )
        is_seen = truth.areas() > 0
        number = np.concatenate([[-1, 0], np.cumsum(is_seen)]).astype(np.int32)  # of void, nothing, the objects
        return ObjectTruth(
            truth.boxes_xyxy()[is_seen],  # type: ignore[arg-type]  # tensors once they are a batch
            truth.class_ids[is_seen].astype(np.int64),  # type: ignore[arg-type]
            number[truth.planes + 1],
        )

    def collate(self, crops: Sequence[tuple[str, np.ndarray, ObjectTruth]]) -> Batch:
        """Images float32 (B, C, H, W) and the objects of each."""
        return batch_of_truths(crops)

    def loss(self, network: Any, batch: Batch, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """The terms of the network's loss, which is part of its definition: what it samples from decides them."""
        return network(batch.image, batch.target, generator)

    def decode(self, run: Run, view: View) -> Segmentation:
        """The objects on the original grid, of the things among the classes; those that tiles cut are put together."""
        if run.output == "queries":
            return decode_objects(run, view)
        return decode_flows(run, view) if run.output == "flows" else decode_detections(run, view)

    def averaged(self, networks: Sequence[nn.Module], *, temperature: float = 1.0) -> nn.Module:
        """A network whose flow fields are the mean of those of these.

        Raises:
            SettingError: these give lists of objects, of which there is no mean.
        """
        if getattr(networks[0], "OUTPUT", "") != "flows":
            raise SettingError(
                f"{type(networks[0]).__name__} gives lists of objects, and those of {len(networks)} networks have no mean; "
                "open one of them, such as the folder fold-0, or fit networks of flows: segwright fit DATA --model cellpose"
            )
        return MapEnsemble(networks)

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """The part of the pixels of the images that get the same class, or no object."""
        if len(outputs) == 2:  # those of queries
            return queries_agree(outputs, reference)
        agree = flows_agree if len(outputs) == 1 else detections_agree  # flows are one map, detections several arrays
        return agree(outputs, reference, shape)


def batch_of_truths(crops: Sequence[tuple[str, np.ndarray, ObjectTruth]]) -> Batch:
    """Keys, images float32 (C, H, W) and truths in numpy as a batch, whose truths are tensors."""
    keys, images, targets = zip(*crops, strict=True)
    truths = [ObjectTruth(*map(torch.from_numpy, target)) for target in targets]
    return Batch(list(keys), torch.from_numpy(np.stack(images)), truths)

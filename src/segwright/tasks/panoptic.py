"""Panoptic segmentation: each pixel a class, and each thing a number. Axes: B batch, C channels, N segments, P planes, H, W."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import UsageError
from segwright.data.background import with_background
from segwright.data.fingerprint import Fingerprint
from segwright.data.stuff_alone import stuff_alone
from segwright.decoding.panoptic_merge import decode_objects_and_stuff, objects_and_stuff_agree
from segwright.decoding.queries import decode_panoptic, queries_agree
from segwright.decoding.run import Outputs, Run
from segwright.layers.object_truth import ObjectTruth
from segwright.models import check_task, preset
from segwright.tasks import Batch, has_numbers
from segwright.tasks.instance import batch_of_truths
from segwright.transforms.prepare import View

OF_BOTH = ("panoptic_fpn_small",)  # networks that need things and stuff to learn from
OF_ANY = ("mask2former_small",)
NUMBER_BITS = 32  # of a key of segments: the class lies above, the instance id (31 bits) below


@dataclass(frozen=True, kw_only=True)
class Panoptic:
    """Networks that find all segments of an image, things and stuff: from images and `ObjectTruth`s the terms of their loss.

    Without a truth they give `QueryMasks` or `ObjectsAndStuff`, as they state by their OUTPUT.
    """

    score: ClassVar[str] = "PQ"
    metrics: ClassVar[tuple[str, ...]] = ("panoptic_quality", "confusion", "average_precision")

    @classmethod
    def planned(cls, found: Fingerprint) -> "tuple[Panoptic, dict[str, str]]":
        """The task, which has nothing to choose."""
        return cls(), {}

    def candidates(self, found: Fingerprint, *, from_scratch: bool) -> list[Any]:
        """Networks on small encoders; where all classes are things, or none is, those that need not have both."""
        names = (*OF_BOTH, *OF_ANY) if len({*found.is_thing}) == 2 else OF_ANY
        return [preset(name) for name in names]

    def fitted(self, network: Any, channels: int, classes: Classes) -> Any:
        """The config with as many channels in, and with these classes, of which it is told the things where it asks for them.

        Raises:
            SettingError: the network is for another task.
        """
        check_task(network, "panoptic")
        things = {"things": tuple(np.flatnonzero(classes.is_thing).tolist())} if hasattr(network, "things") else {}
        return replace(network, in_channels=channels, num_classes=len(classes), **things)

    def dataset(self, data: Dataset) -> Dataset:
        """The data set, whose pixels of no segment belong to its background where it has such a class.

        Where no thing has a number, which some samples tell, all classes are stuff.
        """
        numbered = data if not any(data.classes.is_thing) or not len(data) or has_numbers(data) else stuff_alone(data)
        return with_background(numbered) if background_of(numbered.classes) is not None else numbered

    def target(self, crop: Sample) -> ObjectTruth:
        """The segments of which a crop shows a pixel, in numpy: each thing with a number, and one for each class of stuff.

        Things without a number, which may be several, are void.

        Raises:
            UsageError: the sample has no truth, or is a volume.
        """
        truth = crop.truth
        if truth is None:
            raise UsageError(
                f"sample {crop.key!r} has no truth to learn from; add its segments, or take it out of the data set"
            )
        if len(truth.shape) != 2:
            raise UsageError(
                f"sample {crop.key!r} is a volume {truth.shape}, and networks that find segments see images; learn the class "
                "of each voxel with --task semantic"
            )
        is_crowd = np.array(truth.classes.is_thing)[truth.class_ids] & (truth.instance_ids == 0)
        is_seen = (truth.areas() > 0) & ~is_crowd
        keys = (truth.class_ids.astype(np.int64) << NUMBER_BITS) + truth.instance_ids
        kept, index = np.unique(keys[is_seen], return_inverse=True)
        number = np.where(is_crowd, -1, 0)
        number[is_seen] = index + 1
        planes = np.concatenate([[-1, 0], number]).astype(np.int32)[truth.planes + 1]  # of void, nothing, the segments
        class_ids = kept >> NUMBER_BITS
        joined = Segmentation(planes, class_ids, class_ids, class_ids, truth.classes)  # of which the boxes alone are asked
        return ObjectTruth(joined.boxes_xyxy(), class_ids, planes)  # type: ignore[arg-type]  # tensors once they are a batch

    def collate(self, crops: Sequence[tuple[str, np.ndarray, ObjectTruth]]) -> Batch:
        """Images float32 (B, C, H, W) and the segments of each."""
        return batch_of_truths(crops)

    def loss(self, network: Any, batch: Batch, generator: torch.Generator) -> Mapping[str, torch.Tensor]:
        """The terms of the network's loss, which is part of its definition."""
        return network(batch.image, batch.target, generator)

    def decode(self, run: Run, view: View) -> Segmentation:
        """The segments on the original grid; things that tiles cut are put together."""
        return decode_panoptic(run, view) if run.output == "queries" else decode_objects_and_stuff(run, view)

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """How far outputs say the same of segments that are sure, and of the classes of pixels."""
        if len(outputs) == 2:  # those of queries; objects and stuff are several arrays
            return queries_agree(outputs, reference)
        return objects_and_stuff_agree(outputs, reference, shape)

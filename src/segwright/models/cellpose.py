"""Cellpose: A Generalist Algorithm for Cellular Segmentation (Stringer et al. 2021, doi 10.1038/s41592-020-01018-x).

A dense network says for each pixel whether it is of an object, and which way leads to the middle of that object
(layers/flow_targets.py). Pixels that follow the ways and meet are one object (decoding/flows.py). So objects of any number and
size need no boxes, anchors or queries, and those that touch are told apart by ways that part at their border.

What is different here: any dense network of this folder learns the flows, in place of the authors' U-Net with residual blocks,
sums instead of concatenations, and a style vector. Flows are learnt inside of objects alone, where the authors want none
outside too, and objects by Dice besides cross-entropy: after 60 steps on nuclei, that came to an AP of 0.41, and the authors'
loss to 0.38. Where there are several classes, each pixel says which. Images are not resized to objects of one diameter.

The authors' code is BSD-3, their weights are for non-commercial use. Nothing of either is used here.

Axes: B batch, C channels, K classes, F = 3 or 3 + K maps, H, W sides of the image, h, w sides of the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core import VOID
from segwright.core.errors import SettingError
from segwright.core.lookup import Kind
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.flow_targets import flow_targets, uppermost
from segwright.layers.object_truth import ObjectTruth
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import unet

TASKS = ("instance",)
FLOW_LENGTH = 5.0  # of a step of one pixel in the maps, as the authors': a fresh network then begins with hardly any flow


@dataclass(frozen=True, kw_only=True)
class Config:
    """Flow fields by a dense network, the `trunk`, whose channels and classes follow from those here.

    The default is a U-Net of the paper's sizes.
    """

    in_channels: int = 3
    num_classes: int = 1
    trunk: Annotated[Any, Kind("models")] = field(default_factory=lambda: unet.Config(width=32, depth=4))

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise SettingError(f"num_classes is {self.num_classes}; it must be 1 or more")
        if not hasattr(self.trunk, "num_classes") or getattr(self.trunk, "axes", 2) != 2 or isinstance(self.trunk, Config):
            raise SettingError(
                f"trunk is {self.trunk}; flows are learnt by networks that give logits for the pixels of images, such as "
                "--set model.trunk.kind=unet"
            )
        maps = 3 + (self.num_classes if self.num_classes > 1 else 0)
        object.__setattr__(self, "trunk", replace(self.trunk, in_channels=self.in_channels, num_classes=maps))

    @property
    def encoder(self) -> Any:
        """The config of the trunk's encoder, None where it has none."""
        return getattr(self.trunk, "encoder", None)

    def build(self) -> "Cellpose":
        """The network, its weights drawn from torch's global generator."""
        return Cellpose(self)


class Cellpose(nn.Module):
    """Image (B, C, H, W) to maps (B, F, h, w); the sides must be multiples of `divisors`.

    The maps are `FLOW_LENGTH` times the flow down and to the right, the logit of an object, and the logits of its class where
    there are several. They have the size of the image, or of a whole fraction of it, as the trunk's logits.
    """

    OUTPUT = "flows"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.trunk = config.trunk.build()
        self.divisors = self.trunk.divisors

    @property
    def encoder(self) -> nn.Module | None:
        """The trunk's encoder, which may start from weights of its own; None where it has none."""
        return getattr(self.trunk, "encoder", None)

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> Tensor | dict[str, Tensor]:
        """Maps (B, F, h, w) of an image (B, C, H, W); with the truth of each image the terms of the loss. Nothing is drawn."""
        outputs = self.trunk(image)
        if truth is None:
            return outputs.logits if isinstance(outputs, WithAuxiliary) else outputs
        targets = _targets(truth, image.device)
        if not isinstance(outputs, WithAuxiliary):
            return _terms(outputs, *targets)
        terms = _terms(outputs.logits, *targets)
        for weight, maps in zip(outputs.weights, outputs.auxiliary, strict=True):
            for name, term in _terms(maps, *targets).items():
                terms[name] = terms[name] + weight * term
        return terms


def _targets(truth: Sequence[ObjectTruth], device: torch.device) -> tuple[Tensor, Tensor]:
    """Flows float32 (B, 2, H, W) and the class of the object at each pixel int64 (B, H, W), -1 for none, -2 for void."""
    flows, classes = [], []
    for each in truth:
        objects = uppermost(each.planes.cpu().numpy())
        class_of = np.concatenate([[VOID - 1, VOID], each.class_ids.cpu().numpy()])  # of void, nothing, the objects
        flows.append(torch.from_numpy(flow_targets(objects)))
        classes.append(torch.from_numpy(class_of[objects + 1]))
    return torch.stack(flows).to(device), torch.stack(classes).to(device)


def _terms(maps: Tensor, flows: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """The terms of the loss of maps (B, F, h, w), brought to the size of the targets (B, H, W).

    Flows and classes count in objects alone, objects themselves by cross-entropy plus Dice.
    """
    if maps.shape[2:] != classes.shape[1:]:
        maps = F.interpolate(maps, size=classes.shape[1:], mode="bilinear", align_corners=False)
    maps, is_object = maps.float(), classes > VOID
    count = is_object.sum().clamp(min=1)
    errors = (maps[:, :2] / FLOW_LENGTH - flows).square().sum(dim=1)  # (B, H, W)
    logits = torch.cat([-maps[:, 2:3], maps[:, 2:3]], dim=1) / 2  # of none and of one, whose softmax is the sigmoid
    terms = {
        "flow": (errors * is_object).sum() / count,
        "object": WeightedSum()(logits, torch.where(classes < VOID, VOID, is_object.long())),
    }
    if maps.shape[1] > 3:
        kinds = classes.where(is_object, VOID)
        terms["class"] = F.cross_entropy(maps[:, 3:], kinds, ignore_index=VOID, reduction="sum") / count
    return terms


PRESETS = {
    "cellpose": Config(),
    "cellpose_tiny": Config(trunk=unet.Config(width=16, depth=4)),
}

"""What Faster R-CNN and its successors begin with: an encoder, its pyramid, and a network that proposes regions on it.

Also what published implementations of all that do in different ways, side by side.

Axes: B batch, C channels, E channels of the pyramid, N objects, R regions, H, W sides of an image.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import SettingError
from segwright.encoders import STRIDES, resnet
from segwright.layers.anchors import cell_anchors, map_anchors
from segwright.layers.feature_pyramid import FeaturePyramid
from segwright.layers.norms import EncoderNorm, HeadNorm, freeze_batch_norms, hold_batch_norms, use_group_norms
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.region_proposals import AnchorScores, RegionProposalHead, proposal_losses, propose_regions
from segwright.layers.roi_pool import roi_pool_cut
from segwright.layers.roi_pooling import Cut, pool_regions, roi_align_cut

LEVELS = len(STRIDES)
RATIOS = (0.5, 1.0, 2.0)  # of height to width of anchors, in all published forms
CANDIDATES, CANDIDATES_IN_TRAINING = 1000, 2000  # anchors of a map that may become proposals, in all published forms


@dataclass(frozen=True, kw_only=True)
class _Conventions:
    """What implementations do in different ways. None of it is a setting of its own: weights were trained with all of it.

    With `has_rounded_anchors`, strides too are whole: sides of the batch by those of a map. `cut` cuts out features of regions,
    `adds_to_level` as `region_levels` says. Boxes are learnt by smooth L1, linear from `beta` on; `divides_by_count` as
    `proposal_losses` says. Targets of masks are aligned as RoIAlign's points are, and 0 or 1 if `has_binary_masks`.
    """

    has_rounded_anchors: bool = False
    cut: Cut = partial(roi_align_cut, is_aligned=True, samples=2)
    adds_to_level: bool = False
    beta: float = 0.0
    divides_by_count: bool = False
    has_aligned_masks: bool = True
    has_binary_masks: bool = False


ConventionName = Literal["segwright", "detectron2", "torchvision", "roi_pool"]
CONVENTIONS: dict[ConventionName, _Conventions] = {
    "segwright": _Conventions(),
    "detectron2": _Conventions(
        cut=partial(roi_align_cut, is_aligned=True, samples=None), divides_by_count=True, has_binary_masks=True
    ),
    "torchvision": _Conventions(
        has_rounded_anchors=True,
        cut=partial(roi_align_cut, is_aligned=False, samples=2),
        adds_to_level=True,
        beta=1 / 9,
        has_aligned_masks=False,
    ),
    "roi_pool": _Conventions(cut=roi_pool_cut),  # as before Mask R-CNN, to be compared with
}


def check_counts(config: Any) -> None:
    """Refuse a network's config with counts, or with anchors, that cannot be meant.

    Raises:
        SettingError: a count is below 1, though there may be no convolution before linear layers; or there are no anchors.
    """
    for name, value in vars(config).items():
        least = 0 if name == "box_convolutions" else 1
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            raise SettingError(f"{name} is {value}; it must be {least} or more")
    if not config.anchor_sizes or min(config.anchor_sizes) <= 0:
        raise SettingError(
            f"anchor_sizes is {list(config.anchor_sizes)}; give a size in pixels for each map of the pyramid, such as "
            "[32, 64, 128, 256, 512]"
        )


class ProposalPyramid(nn.Module):
    """Image (B, C, H, W) to the maps of a pyramid, and these to regions that may hold objects.

    There is a map for each of the `anchor_sizes`, and at least those of the encoder's strides; a coarser one has every second
    pixel of the one before. `depth` is that of the network that proposes regions.
    """

    def __init__(
        self,
        encoder: Any,
        width: int,
        anchor_sizes: Sequence[float],
        *,
        depth: int,
        norm: HeadNorm,
        encoder_norm: EncoderNorm,
        conventions: _Conventions,
    ) -> None:
        super().__init__()
        self.encoder, self.conventions = encoder, conventions
        self.holds_norms = encoder_norm == "frozen"
        if encoder_norm == "group":
            use_group_norms(encoder)
        elif encoder_norm == "frozen":
            freeze_batch_norms(encoder)
        self.pyramid = FeaturePyramid(tuple(encoder.channels[-LEVELS:]), width, norm=norm)
        self.head = RegionProposalHead(width, len(RATIOS), depth)
        deepest = encoder.strides[-1]
        self.strides = [*encoder.strides[-LEVELS:], *[deepest << number for number in range(1, len(anchor_sizes))]]
        self.anchor_sizes = tuple(anchor_sizes)

    def train(self, mode: bool = True) -> "ProposalPyramid":
        """Set whether it learns; the statistics of frozen norms do not."""
        super().train(mode)
        if self.holds_norms:
            hold_batch_norms(self.encoder)
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps (B, E, H / strides[i], W / strides[i]), rounded up, the finest first."""
        maps = self.pyramid(self.encoder(image)[-LEVELS:])
        while len(maps) < len(self.anchor_sizes):
            maps.append(F.max_pool2d(maps[-1], 1, stride=2))
        return maps

    def pool(self, maps: Sequence[Tensor], regions: Sequence[Tensor], side: int) -> Tensor:
        """The features (R, E, side, side) of the regions (R_i, 4) of each image, one image after the other."""
        rule = self.conventions
        strides = self.strides[:LEVELS]
        return pool_regions(maps[:LEVELS], regions, strides, side, rule.cut, adds_to_level=rule.adds_to_level)

    def scores(self, maps: Sequence[Tensor]) -> list[AnchorScores]:
        """What it says of the anchors of each map that has any."""
        return self.head(maps[: len(self.anchor_sizes)])

    def anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The anchors (n, 4) of each map that has any."""
        height, width = (side * self.strides[0] for side in maps[0].shape[2:])  # of the batch
        found = []
        is_rounded = self.conventions.has_rounded_anchors
        for level, stride, size in zip(maps, self.strides, self.anchor_sizes, strict=False):
            h, w = level.shape[2:]
            strides = (height // h, width // w) if is_rounded else (stride, stride)
            found.append(map_anchors(cell_anchors(size, RATIOS, is_rounded=is_rounded), (h, w), strides, level))
        return found

    def propose(
        self,
        maps: Sequence[Tensor],
        scores: list[AnchorScores],
        sides: Sequence[tuple[int, int]],
        count: int,
        *,
        candidates: int = CANDIDATES,
    ) -> list[Tensor]:
        """Up to `count` boxes (m, 4) in each image of some sides (H, W), the surest first, of so many `candidates` of a map."""
        return propose_regions(scores, self.anchors(maps), sides, candidates=candidates, count=count)

    def losses(
        self,
        maps: Sequence[Tensor],
        scores: list[AnchorScores],
        truth: Sequence[ObjectTruth],
        generator: torch.Generator | None,
        count: int,
    ) -> dict[str, Tensor]:
        """How far it is from the objects of each image, as `proposal_losses` says, for `count` anchors of an image."""
        rule = self.conventions
        return proposal_losses(
            scores, self.anchors(maps), truth, generator, count=count, beta=rule.beta, divides_by_count=rule.divides_by_count
        )


ENCODERS = ("backbone.body.", "backbone.bottom_up.")  # what torchvision and detectron2 call it
STEM = "stem.conv1.weight"  # of detectron2's, which sees images as blue, green, red
UNUSED = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")  # how images are normalised, and anchors
PYRAMID = {"inner": "lateral", "layer": "output"}
HEAD = {  # of torchvision and detectron2
    **{"rpn.head.conv": "convolutions.0", "rpn.head.cls_logits": "objectness", "rpn.head.bbox_pred": "deltas"},
    "proposal_generator.rpn_head.conv": "convolutions.0",
    "proposal_generator.rpn_head.objectness_logits": "objectness",
    "proposal_generator.rpn_head.anchor_deltas": "deltas",
}


def rename_proposal_pyramid(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of torchvision's or detectron2's networks under the names of a `ProposalPyramid`; and those it does not have.

    The first convolution of detectron2's is turned to take red, green, blue.

    Raises:
        FormatError: a tensor has no place in a ResNet; the message names it.
    """
    encoder, ours, others = {}, {}, {}
    has_norms = "backbone.fpn.inner_blocks.0.1.weight" in state_dict
    for key, tensor in state_dict.items():
        module, _, kind = key.rpartition(".")
        if key.startswith(ENCODERS):
            name = key.split(".", maxsplit=2)[2]
            encoder[name] = tensor.flip(1) if name == STEM else tensor
        elif place := _name_in_pyramid(module, has_norms=has_norms):
            ours[f"{place}.{kind}"] = tensor
        elif not key.startswith(UNUSED):
            others[key] = tensor
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | ours, others


def _name_in_pyramid(module: str, *, has_norms: bool) -> str | None:
    """What a module behind the encoder is called here, if it is of the pyramid or proposes regions; p2 is the finest map."""
    if found := re.fullmatch(r"backbone\.fpn_(lateral|output)([2-5])", module):
        return f"pyramid.{found[1]}.{int(found[2]) - 2}"
    if found := re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.([0-3])(\.[01])?", module):
        return f"pyramid.{PYRAMID[found[1]]}.{found[2]}{found[3] if has_norms else ''}"
    if found := re.fullmatch(r"rpn\.head\.conv\.(\d)\.0", module):
        return f"head.convolutions.{found[1]}"
    return f"head.{HEAD[module]}" if module in HEAD else None

"""Cascade Mask R-CNN: boxes are moved thrice, each time by a stricter head (Cai and Vasconcelos 2017, arXiv 1712.00726).

A head that learns from regions which overlap an object by half moves such boxes well, and spoils better ones. So its boxes are
the regions of a second head, which learns from overlaps of 0.6 or more, and its boxes those of a third, from 0.7. Scores are
the mean of what all three say; the mask branch is that of Mask R-CNN (arXiv 1703.06870).

The paper puts this at 2 to 4 points of box AP on COCO above the same network with one head; one head that learns from overlaps
of 0.7 alone is worse than one that learns from 0.5, for want of examples.

Deviations from the paper, shared with detectron2's weights: all classes share a box, the mask branch learns from the first
regions, and the gradient of each head into the pyramid counts a third.

detectron2's code is Apache-2.0, its weights are CC BY-SA 3.0. Nothing of its code is used here.

Axes: B batch, C channels, K classes, N objects, R regions, H, W sides of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from segwright.core.lookup import Kind
from segwright.core.weights import Intake, Weights
from segwright.encoders import Encoder, resnet
from segwright.layers.box_coding import clip_boxes, decode_boxes
from segwright.layers.box_detection import FoundBoxes, as_detections, detect_boxes
from segwright.layers.box_head import SIDE as BOX_SIDE
from segwright.layers.box_head import BoxHead
from segwright.layers.detections import Detections
from segwright.layers.image_check import check_image
from segwright.layers.mask_head import SIDE as MASK_SIDE
from segwright.layers.mask_head import MaskHead
from segwright.layers.norms import EncoderNorm, HeadNorm
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.region_sampling import box_head_losses, label_regions, sample_regions
from segwright.models._proposal_pyramid import (
    CANDIDATES_IN_TRAINING,
    CONVENTIONS,
    ConventionName,
    ProposalPyramid,
    check_counts,
    rename_proposal_pyramid,
)
from segwright.models.mask_rcnn import MASK_DEPTH, MASK_PARTS, mask_loss, rename_heads

TASKS = ("instance",)
OVERLAPS = (0.5, 0.6, 0.7)  # (IoU) with an object from which a region of a stage has it
WEIGHTS_OF_STAGES = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))  # boxes move less each time
STAGES = len(OVERLAPS)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Cascade Mask R-CNN on any encoder; what its settings mean, `mask_rcnn.Config` says."""

    in_channels: int = 3
    num_classes: int = 80
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=resnet.Config)
    encoder_norm: EncoderNorm = "group"
    norm: HeadNorm = "group"
    conventions: ConventionName = "segwright"
    pyramid_width: int = 256
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    proposals: int = 1000
    proposals_in_training: int = 2000
    sampled_anchors: int = 256
    sampled_regions: int = 512
    box_convolutions: int = 4
    box_linears: int = 1
    box_width: int = 1024
    mask_width: int = 256
    max_objects: int = 100

    def __post_init__(self) -> None:
        check_counts(self)

    def build(self) -> "CascadeMaskRCNN":
        """The network, its weights drawn from torch's global generator."""
        return CascadeMaskRCNN(self)


class CascadeMaskRCNN(nn.Module):
    """Image (B, C, H, W) to `Detections`, or, with the truth of each image, to the terms of the loss, by name.

    The sides must be multiples of `divisors`; what lies beyond the planes of a truth is padding.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        encoder = config.encoder.build(config.in_channels)
        self.divisors = (encoder.strides[-1],) * 2
        self.regions = ProposalPyramid(
            encoder,
            config.pyramid_width,
            config.anchor_sizes,
            depth=1,
            norm=config.norm,
            encoder_norm=config.encoder_norm,
            conventions=CONVENTIONS[config.conventions],
        )
        self.box_heads = nn.ModuleList(
            BoxHead(
                config.pyramid_width,
                config.box_width,
                config.num_classes,
                convolutions=config.box_convolutions,
                linears=config.box_linears,
                norm=config.norm,
                has_class_boxes=False,
            )
            for _ in range(STAGES)
        )
        self.mask_head = MaskHead(
            config.pyramid_width, config.mask_width, config.num_classes, depth=MASK_DEPTH, norm=config.norm
        )

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> Detections | dict[str, Tensor]:
        """`Detections`, or the terms of the loss, for which regions are drawn with the generator, by default torch's own."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.regions(image)
        if truth is not None:
            return self._losses(maps, truth, generator)
        height, width = image.shape[2:]
        found = self.find_boxes(maps, [(height, width)] * len(image))
        return as_detections(found, self.find_masks(maps, found), self.config.max_objects)

    def stages(
        self, maps: list[Tensor], regions: list[Tensor], sides: Sequence[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
        """What each stage says of its regions, first those (R_i, 4) of each image: logits, deltas, and the regions."""
        said = []
        for stage, head in enumerate(self.box_heads):
            logits, deltas = head(self.regions.pool(maps, regions, BOX_SIDE))
            said.append((logits, deltas, regions))
            regions = _moved(deltas, regions, sides, stage)
        return said

    def find_boxes(self, maps: list[Tensor], sides: Sequence[tuple[int, int]]) -> list[FoundBoxes]:
        """The objects of each image of some sides (H, W), without their masks."""
        config = self.config
        said = self.stages(maps, self.regions.propose(maps, self.regions.scores(maps), sides, config.proposals), sides)
        probs = torch.stack([logits.softmax(1)[:, : config.num_classes] for logits, _, _ in said]).mean(0)
        _, deltas, regions = said[-1]
        counts = [len(each) for each in regions]
        each_image = zip(probs.split(counts), deltas.split(counts), regions, sides, strict=True)
        return [detect_boxes(*each, weights=WEIGHTS_OF_STAGES[-1], count=config.max_objects) for each in each_image]

    def find_masks(self, maps: list[Tensor], found: list[FoundBoxes]) -> Tensor:
        """The probabilities (n, 28, 28) of the masks of the objects of all images."""
        class_ids = torch.cat([each.class_ids for each in found])
        return self.mask_head(self.regions.pool(maps, [each.boxes for each in found], MASK_SIDE), class_ids).sigmoid()

    def _losses(self, maps: list[Tensor], truth: Sequence[ObjectTruth], generator: torch.Generator | None) -> dict[str, Tensor]:
        """The terms of the loss: of proposals, of the classes and boxes of each stage, and of masks."""
        config, beta = self.config, self.regions.conventions.beta
        scores = self.regions.scores(maps)
        terms = self.regions.losses(maps, scores, truth, generator, config.sampled_anchors)
        sides = [(each.planes.shape[1], each.planes.shape[2]) for each in truth]
        count = config.proposals_in_training
        regions = self.regions.propose(maps, scores, sides, count, candidates=CANDIDATES_IN_TRAINING)
        given = {"num_classes": config.num_classes}
        samples = first = sample_regions(regions, truth, generator, count=config.sampled_regions, overlap=OVERLAPS[0], **given)
        for stage, (head, weights) in enumerate(zip(self.box_heads, WEIGHTS_OF_STAGES, strict=True)):
            if stage:
                samples = label_regions(_without_empty(regions), truth, overlap=OVERLAPS[stage], **given)
            regions = [each.regions for each in samples]
            pooled = self.regions.pool(maps, regions, BOX_SIDE)
            if pooled.requires_grad:
                pooled.register_hook(lambda gradient: gradient / STAGES)
            logits, deltas = head(pooled)
            classes, boxes = box_head_losses(logits, deltas, samples, truth, weights=weights, beta=beta)
            terms |= {f"classes_{stage + 1}": classes, f"boxes_{stage + 1}": boxes}
            regions = _moved(deltas, regions, sides, stage)
        return terms | {"masks": mask_loss(self.mask_head, self.regions, maps, first, truth)}


def _moved(deltas: Tensor, regions: Sequence[Tensor], sides: Sequence[tuple[int, int]], stage: int) -> list[Tensor]:
    """The regions (R_i, 4) of each image of some sides, moved by the deltas (R, 1, 4) of a stage; no gradient flows."""
    each_image = zip(deltas.detach().flatten(0, 1).split([len(each) for each in regions]), regions, sides, strict=True)
    return [clip_boxes(decode_boxes(moves, each, WEIGHTS_OF_STAGES[stage]), limits) for moves, each, limits in each_image]


def _without_empty(regions: Sequence[Tensor]) -> list[Tensor]:
    """The regions that hold anything, of those (R_i, 4) of each image."""
    return [each[(each[:, 2:] > each[:, :2]).all(1)] for each in regions]


PRESETS = {
    "cascade_mask_rcnn_resnet50": Config(),
    "cascade_mask_rcnn_small": Config(  # for minutes on a CPU
        encoder=resnet.PRESETS["resnet18"],
        pyramid_width=64,
        anchor_sizes=(16, 32, 64, 128, 256),
        proposals=300,
        proposals_in_training=500,
        sampled_regions=128,
        box_convolutions=0,
        box_linears=2,
        box_width=256,
        mask_width=64,
    ),
    "cascade_mask_rcnn_r_50_fpn": Config(
        encoder=resnet.Config(stride_on="1x1"),
        encoder_norm="frozen",
        norm="none",
        conventions="detectron2",
        box_convolutions=0,
        box_linears=2,
    ),
}

WEIGHTS = {
    "cascade_mask_rcnn_r_50_fpn_coco": Weights(
        preset="cascade_mask_rcnn_r_50_fpn",
        address="https://dl.fbaipublicfiles.com/detectron2/Misc/cascade_mask_rcnn_R_50_FPN_3x/144998488/model_final_480dd8.pkl",
        licence="CC-BY-SA-3.0",
        trained_on="MS COCO train2017",
        classes=80,
        intake=Intake(std=(1.0, 1.0, 1.0)),  # the mean of ImageNet alone is taken off
        score="44.3 box AP and 38.5 mask AP on COCO val2017",
    )
}

BOX_PARTS = {  # what is called how in detectron2's files, and here
    r"box_head\.([0-2])\.fc1": r"box_heads.\1.linears.0",
    r"box_head\.([0-2])\.fc2": r"box_heads.\1.linears.1",
    r"box_predictor\.([0-2])\.cls_score": r"box_heads.\1.classify",
    r"box_predictor\.([0-2])\.bbox_pred": r"box_heads.\1.deltas",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of detectron2's Cascade Mask R-CNN under our names, to be loaded strictly.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    regions, others = rename_proposal_pyramid(state_dict)
    return {f"regions.{name}": tensor for name, tensor in regions.items()} | rename_heads(others, BOX_PARTS | MASK_PARTS)

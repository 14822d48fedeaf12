"""Mask R-CNN: each region that may hold an object gets a class, a box and a mask (He et al. 2017, arXiv 1703.06870).

On the maps of an encoder's pyramid (arXiv 1612.03144), a small network proposes regions (Faster R-CNN, arXiv 1506.01497). Their
features are cut out without rounding (RoIAlign); one head tells their class and moves their box, another draws the mask of an
object in its box: a mask for each class, so that classes do not compete for pixels. Without masks it is Faster R-CNN.

Presets of torchvision and detectron2 keep what their weights were trained with (`conventions`). What is best today is the
default here: aligned regions, group norms (arXiv 1803.08494), which do not need many images at a time, a box head of four
convolutions. The paper's table 2c puts what RoIAlign is worth over RoIPool at 3 points of mask AP on COCO (conventions
"roi_pool").

Deviations from the paper, shared with all published weights: smooth L1 with another bend, proposals by map and not by image.
Here, of the masks of all classes only that of a region's own is computed; and objects have classes from 0, none is the last.

torchvision's code is BSD, the licence of its weights is not stated; detectron2's code is Apache-2.0, its weights are
CC BY-SA 3.0. Nothing of their code is used here.

Axes: B batch, C channels, K classes, N objects, R regions, H, W sides of the image.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError
from segwright.core.lookup import Kind
from segwright.core.weights import Intake, Weights
from segwright.encoders import Encoder, resnet
from segwright.layers.box_detection import FoundBoxes, as_detections, detect_boxes
from segwright.layers.box_head import SIDE as BOX_SIDE
from segwright.layers.box_head import BoxHead
from segwright.layers.detections import Detections
from segwright.layers.image_check import check_image
from segwright.layers.mask_head import SIDE as MASK_SIDE
from segwright.layers.mask_head import MaskHead
from segwright.layers.mask_targets import mask_targets
from segwright.layers.norms import EncoderNorm, HeadNorm
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.region_sampling import RegionSample, box_head_losses, sample_regions
from segwright.models._proposal_pyramid import (
    CANDIDATES_IN_TRAINING,
    CONVENTIONS,
    ConventionName,
    ProposalPyramid,
    check_counts,
    rename_proposal_pyramid,
)

TASKS = ("instance",)
OVERLAP = 0.5  # (IoU) with an object from which a region has it
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of deltas, in all published forms
MASK_DEPTH = 4  # convolutions of the mask branch, in all published forms


@dataclass(frozen=True, kw_only=True)
class Config:
    """Mask R-CNN on any encoder, or Faster R-CNN without masks; the defaults are what is best today, trained from scratch.

    Each map of the pyramid has anchors of one size (pixels), the finest first. `encoder_norm` says whether an encoder's batch
    norms learn, are frozen as they were trained, or are replaced by group norms; `norm` is that of pyramid and heads. Of an
    image, a training step looks at `sampled_anchors` and `sampled_regions`. `conventions` are those of an implementation.
    """

    in_channels: int = 3
    num_classes: int = 80
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=resnet.Config)
    encoder_norm: EncoderNorm = "group"
    norm: HeadNorm = "group"
    conventions: ConventionName = "segwright"
    pyramid_width: int = 256
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    proposal_depth: int = 1  # convolutions of the network that proposes regions
    proposals: int = 1000  # of an image
    proposals_in_training: int = 1000
    sampled_anchors: int = 256
    sampled_regions: int = 512
    box_convolutions: int = 4
    box_linears: int = 1
    box_width: int = 1024
    has_masks: bool = True
    mask_width: int = 256
    max_objects: int = 100  # of an image

    def __post_init__(self) -> None:
        check_counts(self)

    def build(self) -> "MaskRCNN":
        """The network, its weights drawn from torch's global generator."""
        return MaskRCNN(self)


class MaskRCNN(nn.Module):
    """Image (B, C, H, W) to `Detections`, or, with the truth of each image, to the terms of the loss, by name.

    The sides must be multiples of `divisors`; what lies beyond the planes of a truth is padding.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.conventions = CONVENTIONS[config.conventions]
        encoder = config.encoder.build(config.in_channels)
        self.divisors = (encoder.strides[-1],) * 2
        self.regions = ProposalPyramid(
            encoder,
            config.pyramid_width,
            config.anchor_sizes,
            depth=config.proposal_depth,
            norm=config.norm,
            encoder_norm=config.encoder_norm,
            conventions=self.conventions,
        )
        self.box_head = BoxHead(
            config.pyramid_width,
            config.box_width,
            config.num_classes,
            convolutions=config.box_convolutions,
            linears=config.box_linears,
            norm=config.norm,
        )
        self.mask_head = None
        if config.has_masks:
            self.mask_head = MaskHead(
                config.pyramid_width, config.mask_width, config.num_classes, depth=MASK_DEPTH, norm=config.norm
            )

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> Detections | dict[str, Tensor]:
        """`Detections`, or the terms of the loss, for which regions are drawn with the generator, by default torch's own."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.regions(image)
        return self.found(maps, (image.shape[2], image.shape[3])) if truth is None else self.losses(maps, truth, generator)

    def found(self, maps: list[Tensor], sides: tuple[int, int]) -> Detections:
        """What there is in images of some sides (H, W), of which these are the maps of the pyramid."""
        found = self.find_boxes(maps, [sides] * len(maps[0]))
        return as_detections(found, self.find_masks(maps, found), self.config.max_objects)

    def losses(self, maps: list[Tensor], truth: Sequence[ObjectTruth], generator: torch.Generator | None) -> dict[str, Tensor]:
        """The terms of the loss, by name, of images of which these are the maps of the pyramid."""
        terms, samples, _ = self.box_losses(maps, truth, generator)
        if self.mask_head is not None:
            terms["masks"] = mask_loss(self.mask_head, self.regions, maps, samples, truth)
        return terms

    def find_boxes(self, maps: list[Tensor], sides: Sequence[tuple[int, int]]) -> list[FoundBoxes]:
        """The objects of each image of some sides (H, W), without their masks."""
        config = self.config
        regions = self.regions.propose(maps, self.regions.scores(maps), sides, config.proposals)
        logits, deltas = self.box_head(self.regions.pool(maps, regions, BOX_SIDE))
        probs = logits.softmax(1)[:, : config.num_classes]
        counts = [len(each) for each in regions]
        each_image = zip(probs.split(counts), deltas.split(counts), regions, sides, strict=True)
        return [detect_boxes(*each, weights=BOX_WEIGHTS, count=config.max_objects) for each in each_image]

    def box_losses(
        self, maps: list[Tensor], truth: Sequence[ObjectTruth], generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], list[RegionSample], Tensor]:
        """The terms of the loss but that of masks, the regions of each image that heads learn from, their deltas (R, K, 4)."""
        config = self.config
        scores = self.regions.scores(maps)
        terms = self.regions.losses(maps, scores, truth, generator, config.sampled_anchors)
        sides = [(each.planes.shape[1], each.planes.shape[2]) for each in truth]
        count = config.proposals_in_training
        regions = self.regions.propose(maps, scores, sides, count, candidates=CANDIDATES_IN_TRAINING)
        samples = sample_regions(
            regions, truth, generator, count=config.sampled_regions, overlap=OVERLAP, num_classes=config.num_classes
        )
        logits, deltas = self.box_head(self.regions.pool(maps, [each.regions for each in samples], BOX_SIDE))
        classes, boxes = box_head_losses(logits, deltas, samples, truth, weights=BOX_WEIGHTS, beta=self.conventions.beta)
        return terms | {"classes": classes, "boxes": boxes}, samples, deltas

    def find_masks(self, maps: list[Tensor], found: list[FoundBoxes]) -> Tensor | None:
        """The probabilities (n, 28, 28) of the masks of the objects of all images, if the network has masks."""
        if self.mask_head is None:
            return None
        class_ids = torch.cat([each.class_ids for each in found])
        return self.mask_head(self.regions.pool(maps, [each.boxes for each in found], MASK_SIDE), class_ids).sigmoid()


def mask_loss(
    head: MaskHead,
    pyramid: ProposalPyramid,
    maps: list[Tensor],
    samples: Sequence[RegionSample],
    truth: Sequence[ObjectTruth],
) -> Tensor:
    """How far a mask branch is from the masks of the objects in the regions of a sample: binary cross-entropy, a scalar."""
    regions = [each.positives for each in samples]
    if not any(map(len, regions)):  # no object, but each parameter must get a gradient, of 0
        logits = head(pyramid.pool(maps, [samples[0].regions[:1]], MASK_SIDE), 0 * samples[0].class_ids[:1])
        return 0 * logits.sum()
    class_ids = torch.cat([each.class_ids[: len(each.objects)] for each in samples])
    logits = head(pyramid.pool(maps, regions, MASK_SIDE), class_ids)
    is_aligned = pyramid.conventions.has_aligned_masks
    targets = torch.cat(
        [
            mask_targets(each.planes, sample.objects, sample.positives, 2 * MASK_SIDE, is_aligned=is_aligned)
            for sample, each in zip(samples, truth, strict=True)
        ]
    )
    if pyramid.conventions.has_binary_masks:
        targets = (targets >= 0.5).to(targets)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits))


_DETECTRON2 = Config(
    encoder=resnet.Config(stride_on="1x1"),
    encoder_norm="frozen",
    norm="none",
    conventions="detectron2",
    box_convolutions=0,
    box_linears=2,
)
_TORCHVISION = Config(
    num_classes=90,
    encoder=resnet.Config(norm_eps=0.0),
    encoder_norm="frozen",
    norm="none",
    conventions="torchvision",
    proposals_in_training=2000,
    box_convolutions=0,
    box_linears=2,
)
_TORCHVISION_V2 = replace(
    _TORCHVISION,
    encoder=resnet.Config(),
    encoder_norm="batch",
    norm="batch",
    proposal_depth=2,
    box_convolutions=4,
    box_linears=1,
)
_SMALL = Config(
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
)
PRESETS = {
    "mask_rcnn_resnet50": Config(),
    "mask_rcnn_small": _SMALL,  # for minutes on a CPU
    "faster_rcnn_small": replace(_SMALL, has_masks=False),
    "maskrcnn_resnet50_fpn": _TORCHVISION,
    "maskrcnn_resnet50_fpn_v2": _TORCHVISION_V2,
    "fasterrcnn_resnet50_fpn": replace(_TORCHVISION, has_masks=False),
    "fasterrcnn_resnet50_fpn_v2": replace(_TORCHVISION_V2, has_masks=False),
    "mask_rcnn_r_50_fpn": _DETECTRON2,
    "mask_rcnn_r_101_fpn": replace(_DETECTRON2, encoder=resnet.Config(depths=(3, 4, 23, 3), stride_on="1x1")),
    "faster_rcnn_r_50_fpn": replace(_DETECTRON2, has_masks=False),
}

TORCHVISION, DETECTRON2 = "https://download.pytorch.org/models", "https://dl.fbaipublicfiles.com/detectron2"
DETECTRON2_INTAKE = Intake(std=(1.0, 1.0, 1.0))  # the mean of ImageNet alone is taken off
WEIGHTS = {
    f"{preset}_coco": Weights(
        preset=preset,
        address=f"{TORCHVISION}/{preset}_coco-{digits}.pth",
        sha256=digits,
        licence="unstated (code BSD)",
        trained_on="MS COCO train2017",
        classes=90,  # COCO's 80 by the ids of its files, of which 10 are not used
        score=score,
    )
    for preset, digits, score in (
        ("maskrcnn_resnet50_fpn", "bf2d0c1e", "37.9 box AP and 34.6 mask AP on COCO val2017"),
        ("maskrcnn_resnet50_fpn_v2", "73cbd019", "47.4 box AP and 41.8 mask AP on COCO val2017"),
        ("fasterrcnn_resnet50_fpn", "258fb6c6", "37.0 box AP on COCO val2017"),
        ("fasterrcnn_resnet50_fpn_v2", "dd69338a", "46.7 box AP on COCO val2017"),
    )
} | {
    f"{preset}_coco": Weights(
        preset=preset,
        address=f"{DETECTRON2}/{folder}/{preset.replace('_r_', '_R_').replace('fpn', 'FPN')}_3x/{file}",
        licence="CC-BY-SA-3.0",
        trained_on="MS COCO train2017",
        classes=80,
        intake=DETECTRON2_INTAKE,
        score=score,
    )
    for preset, folder, file, score in (
        (
            "mask_rcnn_r_50_fpn",
            "COCO-InstanceSegmentation",
            "137849600/model_final_f10217.pkl",
            "41.0 box AP and 37.2 mask AP on COCO val2017",
        ),
        (
            "mask_rcnn_r_101_fpn",
            "COCO-InstanceSegmentation",
            "138205316/model_final_a3ec72.pkl",
            "42.9 box AP and 38.6 mask AP on COCO val2017",
        ),
        ("faster_rcnn_r_50_fpn", "COCO-Detection", "137849458/model_final_280758.pkl", "40.2 box AP on COCO val2017"),
    )
}

HEAD_PARTS = {  # what is called how in torchvision's files and modules and in detectron2's, and here
    r"box_head\.(?:fc6|fc1|5)": "box_head.linears.0",
    r"box_head\.(?:fc7|fc2)": "box_head.linears.1",
    r"box_head\.([0-3])\.([01])": r"box_head.convolutions.\1.\2",
    r"box_predictor\.cls_score": "box_head.classify",
    r"box_predictor\.bbox_pred": "box_head.deltas",
}
MASK_PARTS = {
    **{rf"mask_head\.mask_fcn{number + 1}": f"mask_head.convolutions.{number}.0" for number in range(MASK_DEPTH)},
    r"mask_head\.([0-3])\.([01])": r"mask_head.convolutions.\1.\2",
    r"mask_predictor\.conv5_mask|mask_head\.deconv": "mask_head.enlarge",
    r"mask_predictor\.mask_fcn_logits|mask_head\.predictor": "mask_head.classes",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision's or detectron2's Mask R-CNN or Faster R-CNN under our names, to be loaded strictly.

    torchvision's class 0, which is none, becomes the last, and has no boxes and no masks; nothing asked for these.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    regions, others = rename_proposal_pyramid(state_dict)
    heads = rename_heads(others, HEAD_PARTS | MASK_PARTS)
    if any(key.startswith("rpn.") for key in state_dict):
        for name, tensor in heads.items():
            if name.startswith("box_head.classify"):
                heads[name] = tensor.roll(-1, 0)
            elif name.startswith("box_head.deltas"):
                heads[name] = tensor[4:]
            elif name.startswith("mask_head.classes"):
                heads[name] = tensor[1:]
    return {f"regions.{name}": tensor for name, tensor in regions.items()} | heads


def rename_heads(state_dict: dict[str, Tensor], parts: dict[str, str]) -> dict[str, Tensor]:
    """Weights of heads for regions under our names, by patterns of what parts are called.

    Raises:
        FormatError: a tensor has no place in one; the message names it.
    """
    ours = {}
    for key, tensor in state_dict.items():
        module, _, kind = key.removeprefix("roi_heads.").rpartition(".")
        names = [found.expand(name) for pattern, name in parts.items() if (found := re.fullmatch(pattern, module))]
        if not names:
            raise FormatError(
                f"the weights hold {key!r}, which no such network has; names that start with 'backbone.', 'rpn.', "
                "'proposal_generator.' and 'roi_heads.' are expected: check that the file is torchvision's or detectron2's"
            )
        ours[f"{names[0]}.{kind}"] = tensor
    return ours

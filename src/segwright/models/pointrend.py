"""PointRend: Image Segmentation as Rendering, for objects (Kirillov et al. 2019, arXiv 1912.08193).

Mask R-CNN (`mask_rcnn.py`, arXiv 1703.06870) with another mask head. Linear layers draw a coarse mask of 7 x 7 from points of
the finest map. A small network that looks at one point, its features there and the coarse mask, draws one of 28 x 28; this is
doubled to 224 x 224 as a renderer refines a picture: interpolated, but for the 784 pixels nearest to the border of the object,
which are asked for anew. In training it is asked at 196 points of each object, most of them where its coarse mask is unsure.

What the paper found on COCO, with ResNet-50: 36.3 mask AP against the 35.2 of the head of four convolutions at 28 x 28, and
39.7 against 37.6 where truth is LVIS's, which is drawn more carefully; on Cityscapes 35.8 against 33.0. As large masks cost the
old head 30 times the work. AP no longer grows beyond 112 x 112, though what is seen does. Points drawn only where masks are
unsure are worse than points drawn anywhere.

Masks learn from the boxes that the box head makes of its regions, as detectron2's, since it is such boxes that get masks
later. What is different here: these are cut off at the image, as later, and one that leaves it stays where it was. Defaults
are those of `mask_rcnn.py`; detectron2's are presets. Of the masks of all classes only that of a region's own is computed.

detectron2's code is Apache-2.0, its weights are CC BY-SA 3.0. Nothing of its code is used here.

Axes: B batch, C channels, K classes, R regions, P of them with an object, H, W sides of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, resnet
from segwright.layers.box_coding import clip_boxes, decode_boxes
from segwright.layers.box_detection import as_detections
from segwright.layers.detections import Detections
from segwright.layers.image_check import check_image
from segwright.layers.mask_targets import mask_targets
from segwright.layers.norms import EncoderNorm, HeadNorm
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_head import LAYERS
from segwright.layers.point_mask_head import COARSE_SIDE, PointMaskHead, check_mask_side
from segwright.layers.region_sampling import RegionSample
from segwright.models import mask_rcnn
from segwright.models._proposal_pyramid import CONVENTIONS, ConventionName, check_counts, rename_proposal_pyramid

TASKS = ("instance",)
SMALLEST_SIDE = 1.0  # pixels of a box that a mask is learnt in; what is smaller has left the image


@dataclass(frozen=True, kw_only=True)
class Config:
    """PointRend on Mask R-CNN on any encoder; the settings are those of `mask_rcnn.Config`, and of its own masks.

    `coarse_width` channels and two linear layers of `linear_width` make the coarse masks, `point_width` channels look at
    points. Masks have `mask_side` pixels along each axis of their box: 28, 56, 112, 224 and so on.
    """

    in_channels: int = 3
    num_classes: int = 80
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=resnet.Config)
    encoder_norm: EncoderNorm = "group"
    norm: HeadNorm = "group"
    conventions: ConventionName = "segwright"
    pyramid_width: int = 256
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    proposals: int = 1000  # of an image
    proposals_in_training: int = 1000
    sampled_anchors: int = 256
    sampled_regions: int = 512
    box_convolutions: int = 4
    box_linears: int = 1
    box_width: int = 1024
    coarse_width: int = 256
    linear_width: int = 1024
    point_width: int = 256
    mask_side: int = 224
    max_objects: int = 100  # of an image

    def __post_init__(self) -> None:
        check_counts(self)
        check_mask_side(self.mask_side)

    def detector(self) -> mask_rcnn.Config:
        """What finds the objects, without masks."""
        return mask_rcnn.Config(
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            encoder=self.encoder,
            encoder_norm=self.encoder_norm,
            norm=self.norm,
            conventions=self.conventions,
            pyramid_width=self.pyramid_width,
            anchor_sizes=self.anchor_sizes,
            proposals=self.proposals,
            proposals_in_training=self.proposals_in_training,
            sampled_anchors=self.sampled_anchors,
            sampled_regions=self.sampled_regions,
            box_convolutions=self.box_convolutions,
            box_linears=self.box_linears,
            box_width=self.box_width,
            has_masks=False,
            max_objects=self.max_objects,
        )

    def build(self) -> "PointRend":
        """The network, its weights drawn from torch's global generator."""
        return PointRend(self)


class PointRend(nn.Module):
    """Image (B, C, H, W) to `Detections`, or, with the truth of each image, to the terms of the loss, by name.

    The sides must be multiples of `divisors`; what lies beyond the planes of a truth is padding.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.conventions = CONVENTIONS[config.conventions]
        self.boxes = mask_rcnn.MaskRCNN(config.detector())
        self.divisors = self.boxes.divisors
        self.masks = PointMaskHead(
            config.pyramid_width,
            config.num_classes,
            coarse_width=config.coarse_width,
            linear_width=config.linear_width,
            point_width=config.point_width,
            side=config.mask_side,
        )

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> Detections | dict[str, Tensor]:
        """`Detections`, or the terms of the loss, for which regions and points are drawn with the generator, or torch's own."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.boxes.regions(image)
        if truth is not None:
            terms, samples, deltas = self.boxes.box_losses(maps, truth, generator)
            return terms | self._mask_losses(maps[0], moved_regions(samples, deltas, truth), samples, truth, generator)
        height, width = image.shape[2:]
        found = self.boxes.find_boxes(maps, [(height, width)] * len(image))
        logits = self.masks(maps[0], [each.boxes for each in found], torch.cat([each.class_ids for each in found]))
        return as_detections(found, logits.sigmoid(), self.config.max_objects)

    def _mask_losses(
        self,
        fine: Tensor,
        regions: Sequence[Tensor],
        samples: Sequence[RegionSample],
        truth: Sequence[ObjectTruth],
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """How far coarse masks and points are from the masks of the objects in regions (P_i, 4): binary cross-entropy."""
        rule, objects = self.conventions, [each.objects for each in samples]
        coarse = self.masks.coarse(fine, regions)  # (P, K, 7, 7)
        class_ids = torch.cat([each.class_ids[: len(each.objects)] for each in samples])
        own = coarse[torch.arange(len(class_ids), device=coarse.device), class_ids]
        wanted = torch.cat(
            [
                mask_targets(each.planes, index, boxes, COARSE_SIDE, is_aligned=rule.has_aligned_masks)
                for each, index, boxes in zip(truth, objects, regions, strict=True)
            ]
        )
        if rule.has_binary_masks:
            wanted = (wanted >= 0.5).to(wanted)
        loss = F.binary_cross_entropy_with_logits(own.to(wanted), wanted, reduction="sum") / max(own.numel(), 1)
        return {"masks": loss, "points": self.masks.point_loss(fine, coarse, regions, objects, truth, generator)}


def moved_regions(samples: Sequence[RegionSample], deltas: Tensor, truth: Sequence[ObjectTruth]) -> list[Tensor]:
    """The regions (P_i, 4) of each image that have an object, where deltas (R, K, 4) move them for its class, in the image."""
    moved = []
    counts = [len(sample.regions) for sample in samples]
    for sample, moves, each in zip(samples, deltas.detach().split(counts), truth, strict=True):
        index = torch.arange(len(sample.objects), device=moves.device)
        own = moves[index, sample.class_ids[: len(index)]]
        sides = (each.planes.shape[1], each.planes.shape[2])
        boxes = clip_boxes(decode_boxes(own, sample.positives, mask_rcnn.BOX_WEIGHTS), sides)
        is_inside = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= SMALLEST_SIDE
        moved.append(torch.where(is_inside[:, None], boxes, sample.positives))
    return moved


_DETECTRON2 = Config(
    encoder=resnet.Config(stride_on="1x1"),
    encoder_norm="frozen",
    norm="none",
    conventions="detectron2",
    box_convolutions=0,
    box_linears=2,
)
PRESETS = {
    "pointrend_resnet50": Config(),
    "pointrend_small": Config(  # for minutes on a CPU
        encoder=resnet.PRESETS["resnet18"],
        pyramid_width=64,
        anchor_sizes=(16, 32, 64, 128, 256),
        proposals=300,
        proposals_in_training=500,
        sampled_regions=128,
        box_convolutions=0,
        box_linears=2,
        box_width=256,
        coarse_width=64,
        linear_width=256,
        point_width=64,
        mask_side=56,
    ),
    "pointrend_rcnn_r_50_fpn": _DETECTRON2,
    "pointrend_rcnn_r_101_fpn": replace(_DETECTRON2, encoder=resnet.Config(depths=(3, 4, 23, 3), stride_on="1x1")),
}

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/PointRend/InstanceSegmentation"
WEIGHTS = {
    f"{preset}_coco": Weights(
        preset=preset,
        address=f"{DETECTRON2}/{file}",
        licence="CC-BY-SA-3.0",
        trained_on="MS COCO train2017",
        classes=80,
        intake=mask_rcnn.DETECTRON2_INTAKE,
        score=score,
    )
    for preset, file, score in (
        (
            "pointrend_rcnn_r_50_fpn",
            "pointrend_rcnn_R_50_FPN_3x_coco/164955410/model_final_edd263.pkl",
            "38.3 mask AP on COCO val2017",
        ),
        (
            "pointrend_rcnn_r_101_fpn",
            "pointrend_rcnn_R_101_FPN_3x_coco/28119983/model_final_3f4d2a.pkl",
            "40.1 mask AP on COCO val2017",
        ),
    )
}

MASK_PARTS = {  # what is called how in detectron2's files, those before 2021 too, and here
    r"mask_(?:head\.)?coarse_head\.reduce_channel_dim_conv": "masks.narrow",
    r"mask_(?:head\.)?coarse_head\.reduce_spatial_dim_conv": "masks.halve",
    r"mask_(?:head\.)?coarse_head\.(?:coarse_mask_)?fc1": "masks.linears.0",
    r"mask_(?:head\.)?coarse_head\.(?:coarse_mask_)?fc2": "masks.linears.1",
    r"mask_(?:head\.)?coarse_head\.prediction": "masks.classes",
    **{rf"mask_(?:head\.)?point_head\.fc{number + 1}": f"masks.points.hidden.{number}" for number in range(LAYERS)},
    r"mask_(?:head\.)?point_head\.predictor": "masks.points.classify",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of detectron2's PointRend for objects under our names; load them with `load_state_dict`, strictly.

    The first convolution is turned to take red, green, blue.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    regions, others = rename_proposal_pyramid(state_dict)
    parts = {pattern: f"boxes.{name}" for pattern, name in mask_rcnn.HEAD_PARTS.items()} | MASK_PARTS
    return {f"boxes.regions.{name}": tensor for name, tensor in regions.items()} | mask_rcnn.rename_heads(others, parts)

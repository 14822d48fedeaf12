"""Panoptic FPN: objects and stuff from one feature pyramid (Kirillov et al. 2019, arXiv 1901.02446).

Mask R-CNN (`mask_rcnn.py`) finds the things; the branch of Semantic FPN (`semantic_fpn.py`), on the same maps, tells the stuff
of each pixel. The branch sees all things as one class, so that it need not tell apart what the regions do. Nothing of the two
is joined in the network: `decoding/panoptic_merge.py` makes one segmentation of them.

The paper found the one network about as good at both as a network for each, if the term of the branch counts half or so.

Presets of detectron2 keep what their weights were trained with (`conventions`); defaults are those of `mask_rcnn.py`. What is
different here: levels of the branch that double for the last time are summed before they do, the same at a third of the cost.
detectron2's panoptic truth has things without a mask, its crowds, as things for the branch; here crowds are void.

detectron2's code is Apache-2.0, its weights are CC BY-SA 3.0. Nothing of its code is used here.

Axes: B batch, C channels, K classes, T of them things, S of them stuff, H, W sides of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Intake, Weights
from segwright.encoders import STRIDES, Encoder, resnet, timm
from segwright.layers.image_check import check_image
from segwright.layers.norms import EncoderNorm, HeadNorm
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.objects_and_stuff import ObjectsAndStuff
from segwright.layers.segment_truth import VOID, stuff_map, things_alone
from segwright.layers.semantic_branch import SemanticBranch, check_widths
from segwright.losses.cross_entropy import CrossEntropy
from segwright.models import mask_rcnn
from segwright.models._proposal_pyramid import ConventionName, check_counts
from segwright.models.semantic_fpn import name_in_branch

TASKS = ("panoptic",)
LEVELS = len(STRIDES)
STUFF_WEIGHT = 0.5  # of the branch's term beside those of the objects, as the paper found best and in all published forms
COCO_THINGS, COCO_CLASSES = 80, 133


@dataclass(frozen=True, kw_only=True)
class Config:
    """Panoptic FPN on any encoder; `things` are the ids of the classes of which objects are counted, in rising order.

    All other classes are stuff; there is at least one of each. `branch_width` channels, a multiple of 32, tell stuff. The other
    settings are those of `mask_rcnn.Config`.
    """

    in_channels: int = 3
    num_classes: int = COCO_CLASSES
    things: tuple[int, ...] = tuple(range(COCO_THINGS))
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
    mask_width: int = 256
    branch_width: int = 128
    max_objects: int = 100  # of an image

    def __post_init__(self) -> None:
        check_counts(self)
        check_widths(self.branch_width)
        known = range(self.num_classes)
        if tuple(sorted({*self.things} & {*known})) != tuple(self.things) or not 0 < len(self.things) < self.num_classes:
            raise SettingError(
                f"things is {list(self.things)} and num_classes {self.num_classes}; give the ids of the classes that are "
                f"things, from 0 to {self.num_classes - 1} in rising order, at least one and not all. Where all classes are "
                "things, mask_rcnn finds them; where none is, semantic_fpn tells them"
            )

    def detector(self) -> mask_rcnn.Config:
        """What finds the things."""
        return mask_rcnn.Config(
            in_channels=self.in_channels,
            num_classes=len(self.things),
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
            mask_width=self.mask_width,
            max_objects=self.max_objects,
        )

    def build(self) -> "PanopticFPN":
        """The network, its weights drawn from torch's global generator."""
        return PanopticFPN(self)


class PanopticFPN(nn.Module):
    """Image (B, C, H, W) to `ObjectsAndStuff`, or, with the truth of all segments of each image, to the terms of the loss.

    The sides must be multiples of `divisors`; what lies beyond the planes of a truth is padding.
    """

    OUTPUT = "objects_and_stuff"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.detector = mask_rcnn.MaskRCNN(config.detector())
        self.divisors = self.detector.divisors
        strides = tuple(self.detector.regions.strides[:LEVELS])
        self.branch = SemanticBranch(strides, config.pyramid_width, config.branch_width, align_corners=False)
        self.classify = nn.Conv2d(config.branch_width, 1 + config.num_classes - len(config.things), 1)
        nn.init.kaiming_normal_(self.classify.weight, mode="fan_out", nonlinearity="relu")  # as detectron2
        nn.init.zeros_(self.classify.get_parameter("bias"))

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> ObjectsAndStuff | dict[str, Tensor]:
        """`ObjectsAndStuff`, or the terms of the loss, for which regions are drawn with the generator, or with torch's own."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.detector.regions(image)
        logits = self.semantic_logits(maps)
        if truth is not None:
            things = [things_alone(each, self.config.things) for each in truth]
            return self.detector.losses(maps, things, generator) | {"stuff": self.stuff_loss(logits, image.shape[2:], truth)}
        found = self.detector.found(maps, (image.shape[2], image.shape[3]))
        thing_ids = torch.tensor(self.config.things, device=image.device)
        return ObjectsAndStuff(*found._replace(class_ids=thing_ids[found.class_ids]), logits)

    def semantic_logits(self, maps: list[Tensor]) -> Tensor:
        """The logits (B, 1 + S, H/4, W/4) of things as one and of the classes of stuff."""
        return self.classify(self.branch(maps[:LEVELS]))

    def stuff_loss(self, logits: Tensor, sides: torch.Size, truth: Sequence[ObjectTruth]) -> Tensor:
        """How far logits are from the truth of images of some sides (H, W), cross-entropy times its weight, a scalar."""
        targets = [
            F.pad(one, (0, sides[1] - one.shape[1], 0, sides[0] - one.shape[0]), value=VOID)
            for one in (stuff_map(each, self.config.things, self.config.num_classes) for each in truth)
        ]
        logits = F.interpolate(logits, size=sides, mode="bilinear", align_corners=False)
        return STUFF_WEIGHT * CrossEntropy()(logits, torch.stack(targets))


_DETECTRON2 = Config(
    encoder=resnet.Config(stride_on="1x1"),
    encoder_norm="frozen",
    norm="none",
    conventions="detectron2",
    box_convolutions=0,
    box_linears=2,
)
PRESETS = {
    "panoptic_fpn_resnet50": Config(),
    "panoptic_fpn_small": Config(  # ours, for minutes on two cores
        encoder=timm.Config(name="regnetx_004"),
        pyramid_width=64,
        anchor_sizes=(16, 32, 64, 128, 256),
        proposals=300,
        proposals_in_training=500,
        sampled_regions=128,
        box_convolutions=0,
        box_linears=2,
        box_width=256,
        mask_width=64,
        branch_width=64,
    ),
    "panoptic_fpn_r_50_3x": _DETECTRON2,
    "panoptic_fpn_r_101_3x": replace(_DETECTRON2, encoder=resnet.Config(depths=(3, 4, 23, 3), stride_on="1x1")),
}

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/COCO-PanopticSegmentation"
DETECTRON2_INTAKE = Intake(std=(1.0, 1.0, 1.0))  # the mean of ImageNet alone is taken off
WEIGHTS = {
    f"{preset}_coco": Weights(
        preset=preset,
        address=f"{DETECTRON2}/{preset.replace('_r_', '_R_')}/{file}",
        licence="CC-BY-SA-3.0",
        trained_on="MS COCO train2017 with its panoptic truth",
        classes=COCO_CLASSES,  # in the order of COCO's ids, things before stuff
        intake=DETECTRON2_INTAKE,
        score=f"{score} PQ on COCO val2017",
    )
    for preset, file, score in (
        ("panoptic_fpn_r_50_3x", "139514569/model_final_c10459.pkl", "41.5"),
        ("panoptic_fpn_r_101_3x", "139514519/model_final_cafdb1.pkl", "43.0"),
    )
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of detectron2's Panoptic FPN under our names; load them with `load_state_dict`, strictly.

    The first convolution is turned to take red, green, blue.

    Raises:
        FormatError: there is no branch for stuff, or a tensor has no place in a Panoptic FPN; the message names it.
    """
    branch = {key: name for key in state_dict if (name := name_in_branch(key)) is not None}
    if not branch:
        raise FormatError(
            "the weights hold no name that starts with 'sem_seg_head.', as the branch of a Panoptic FPN has that tells stuff; "
            "check that the file is detectron2's Panoptic FPN, or choose mask_rcnn for one that finds objects alone"
        )
    objects = mask_rcnn.rename({key: tensor for key, tensor in state_dict.items() if key not in branch})
    return {f"detector.{name}": tensor for name, tensor in objects.items()} | {
        name: state_dict[key] for key, name in branch.items()
    }

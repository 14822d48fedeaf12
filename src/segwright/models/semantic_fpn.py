"""Semantic FPN: Panoptic Feature Pyramid Networks without objects (Kirillov et al. 2019, arXiv 1901.02446).

A feature pyramid (arXiv 1612.03144) hands what an encoder's deep maps know down to its finer ones; a light branch convolves and
doubles each map of it to stride 4, sums them, and classifies the sum.

The presets are detectron2's: ResNets that stride in the first convolution of a bottleneck. Its networks see images as blue,
green, red; `rename` turns the first convolution round, so that these weights take red, green, blue as all networks here.

What is different here: levels that double for the last time are summed before they do, the same at a third of the cost.
The paper's 128 channels, 256 in the pyramid and norms in 32 groups are detectron2's too; no other published network differs.

detectron2's code is Apache-2.0, its weights are CC BY-SA 3.0. It publishes none of this network alone; those of Panoptic FPN
hold it whole, and what they hold for objects is left out. Nothing of its code is used here.

Axes: B batch, C channels, K classes, E channels of the branch, H, W sides of the image.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated

from torch import Tensor, nn

from segwright.core.errors import FormatError
from segwright.core.lookup import Kind
from segwright.core.weights import Intake, Weights
from segwright.encoders import STRIDES, Encoder, resnet
from segwright.layers.feature_pyramid import FeaturePyramid
from segwright.layers.image_check import check_image
from segwright.layers.semantic_branch import SemanticBranch, check_widths

LEVELS = len(STRIDES)
CAFFE_RESNET50 = replace(resnet.PRESETS["resnet50"], stride_on="1x1")
CAFFE_RESNET101 = replace(resnet.PRESETS["resnet101"], stride_on="1x1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Semantic FPN on any encoder; the defaults are detectron2's on ResNet-50, for 53 kinds of stuff and things as one."""

    in_channels: int = 3
    num_classes: int = 54
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: CAFFE_RESNET50)
    pyramid_width: int = 256
    branch_width: int = 128

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("in_channels", "num_classes", "pyramid_width")}
        check_widths(self.branch_width, **counts)

    def build(self) -> "SemanticFPN":
        """The network, its weights drawn from torch's global generator."""
        return SemanticFPN(self)


class SemanticFPN(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H/4, W/4); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        self.pyramid = FeaturePyramid(self.encoder.channels[-LEVELS:], config.pyramid_width)
        strides = self.encoder.strides[-LEVELS:]
        self.branch = SemanticBranch(strides, config.pyramid_width, config.branch_width, align_corners=False)
        self.classify = nn.Conv2d(config.branch_width, config.num_classes, 1)
        nn.init.kaiming_normal_(self.classify.weight, mode="fan_out", nonlinearity="relu")  # as detectron2
        nn.init.zeros_(self.classify.get_parameter("bias"))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H/4, W/4) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.classify(self.branch(self.pyramid(self.encoder(image)[-LEVELS:])))


PRESETS = {
    "semantic_fpn_resnet50": Config(),
    "semantic_fpn_resnet101": Config(encoder=CAFFE_RESNET101),
}

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/COCO-PanopticSegmentation"
DETECTRON2_INTAKE = Intake(std=(1.0, 1.0, 1.0))  # the mean of ImageNet alone is taken off
WEIGHTS = {
    "semantic_fpn_resnet50_coco": Weights(
        preset="semantic_fpn_resnet50",
        address=f"{DETECTRON2}/panoptic_fpn_R_50_3x/139514569/model_final_c10459.pkl",
        licence="CC-BY-SA-3.0",
        trained_on="MS COCO train2017 with its panoptic truth, all things as one class",
        classes=54,
        intake=DETECTRON2_INTAKE,
    ),
    "semantic_fpn_resnet101_coco": Weights(
        preset="semantic_fpn_resnet101",
        address=f"{DETECTRON2}/panoptic_fpn_R_101_3x/139514519/model_final_cafdb1.pkl",
        licence="CC-BY-SA-3.0",
        trained_on="MS COCO train2017 with its panoptic truth, all things as one class",
        classes=54,
        intake=DETECTRON2_INTAKE,
    ),
}

UNUSED = ("proposal_generator.", "roi_heads.", "pixel_mean", "pixel_std")  # what finds objects, and how images are normalised
STEM = "stem.conv1.weight"


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of detectron2's Semantic FPN or Panoptic FPN under our names; load them with `load_state_dict`, strictly.

    The first convolution is turned to take red, green, blue.

    Raises:
        FormatError: a tensor has no place in a Panoptic FPN; the message names it.
    """
    encoder, ours = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith("backbone.bottom_up."):
            name = key.removeprefix("backbone.bottom_up.")
            encoder[name] = tensor.flip(1) if name == STEM else tensor
        elif not key.startswith(UNUSED):
            ours[_our_name(key)] = tensor
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | ours


def _our_name(key: str) -> str:
    """The name here of a tensor behind the encoder; p2 is the finest level.

    Raises:
        FormatError: a Semantic FPN holds no such tensor.
    """
    if found := re.fullmatch(r"backbone\.fpn_(lateral|output)([2-5])(\.\w+)", key):
        return f"pyramid.{found[1]}.{int(found[2]) - 2}{found[3]}"
    if name := name_in_branch(key):
        return name
    raise FormatError(
        f"the weights hold {key!r}, which no Semantic FPN has; names that start with 'backbone.bottom_up.', 'backbone.fpn_' "
        "and 'sem_seg_head.' are expected: check that the file holds detectron2's Semantic FPN or Panoptic FPN"
    )


def name_in_branch(key: str) -> str | None:
    """What a tensor is called here, if it is of detectron2's branch, in which each doubling has a number too."""
    if found := re.fullmatch(r"sem_seg_head\.p([2-5])\.([024])(\.norm)?(\.\w+)", key):
        return f"branch.levels.{int(found[1]) - 2}.{int(found[2]) // 2}.{1 if found[3] else 0}{found[4]}"
    found = re.fullmatch(r"sem_seg_head\.predictor(\.\w+)", key)
    return f"classify{found[1]}" if found else None

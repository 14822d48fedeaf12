"""FPN: Feature Pyramid Networks, for segmentation (Lin et al. 2016, arXiv 1612.03144).

A feature pyramid hands what an encoder's deep maps know down to its finer ones, and the semantic branch of Panoptic FPN
(arXiv 1901.02446) convolves and doubles each map of it to stride 4, sums them, and classifies the sum.

The form here is that of segmentation_models_pytorch. It differs from the papers, and from `semantic_fpn`, in three points: no
3x3 convolution follows the sums of the pyramid; corners of both grids are in one place whenever it interpolates; and part of
the channels are left out in training. The network brings the logits to the size of the image itself, for its corners' sake.

What is different here: levels that double for the last time are summed before they do, the same at a third of the cost.

segmentation_models_pytorch is MIT licensed and publishes no weights of this network; nothing of its code is used here.

Axes: B batch, C channels, K classes, E channels of the pyramid, H, W sides of the image.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError
from segwright.core.lookup import Kind
from segwright.encoders import STRIDES, Encoder, resnet
from segwright.layers.feature_pyramid import FeaturePyramid
from segwright.layers.image_check import check_image
from segwright.layers.semantic_branch import SemanticBranch, check_widths

LEVELS = len(STRIDES)


@dataclass(frozen=True, kw_only=True)
class Config:
    """An FPN on any encoder; the defaults are segmentation_models_pytorch's, on ResNet-34.

    `dropout` is the share of channels that the classifier does not see in training.
    """

    in_channels: int = 3
    num_classes: int = 2
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: resnet.PRESETS["resnet34"])
    pyramid_width: int = 256
    branch_width: int = 128
    dropout: float = 0.2

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("in_channels", "num_classes", "pyramid_width")}
        check_widths(self.branch_width, **counts)

    def build(self) -> "FPN":
        """The network, its weights drawn from torch's global generator."""
        return FPN(self)


class FPN(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H, W); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        self.pyramid = FeaturePyramid(self.encoder.channels[-LEVELS:], config.pyramid_width, smooth=False)
        strides = self.encoder.strides[-LEVELS:]
        self.branch = SemanticBranch(strides, config.pyramid_width, config.branch_width, align_corners=True)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classify = nn.Conv2d(config.branch_width, config.num_classes, 1)
        nn.init.xavier_uniform_(self.classify.weight)
        nn.init.zeros_(self.classify.get_parameter("bias"))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        levels = self.pyramid(self.encoder(image)[-LEVELS:])
        logits = self.classify(self.dropout(self.branch(levels)))  # (B, K, H/4, W/4)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)


PRESETS = {
    "fpn_resnet18": Config(encoder=resnet.PRESETS["resnet18"]),
    "fpn_resnet34": Config(),
    "fpn_resnet50": Config(encoder=resnet.PRESETS["resnet50"]),
}

DEEPEST = LEVELS + 1  # the level called p5 there; the branch's blocks are numbered from it


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in segmentation_models_pytorch's layout under our names; load them with `load_state_dict`, strictly.

    The encoder may be a ResNet, or any of timm's, whose names there start with "tu-".

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    encoder, ours = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith("encoder.model."):
            ours[key.replace(".model.", ".network.", 1)] = tensor
        elif key.startswith("encoder."):
            encoder[key.removeprefix("encoder.")] = tensor
        else:
            ours[_our_name(key)] = tensor
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | ours


def _our_name(key: str) -> str:
    """The name here of a tensor behind the encoder.

    Raises:
        FormatError: an FPN holds no such tensor.
    """
    if found := re.fullmatch(r"decoder\.p(?:(5)|([2-4])\.skip_conv)(\.\w+)", key):
        return f"pyramid.lateral.{int(found[1] or found[2]) - 2}{found[3]}"  # p2 is the finest
    if found := re.fullmatch(r"decoder\.seg_blocks\.(\d)\.block\.(\d)\.block(\.[01]\.\w+)", key):
        return f"branch.levels.{DEEPEST - 2 - int(found[1])}.{found[2]}{found[3]}"
    if found := re.fullmatch(r"segmentation_head\.0(\.\w+)", key):
        return f"classify{found[1]}"
    raise FormatError(
        f"the weights hold {key!r}, which no FPN has; names that start with 'encoder.', 'decoder.p', 'decoder.seg_blocks.' and "
        "'segmentation_head.0.' are expected: check that the file holds an FPN"
    )

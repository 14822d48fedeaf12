"""PointRend: Image Segmentation as Rendering, for classes (Kirillov et al. 2019, arXiv 1912.08193).

A Semantic FPN (`semantic_fpn.py`, arXiv 1901.02446) gives coarse logits at stride 4. They are doubled twice, up to the size of
the image, as a renderer refines a picture: most new pixels are interpolated, and those where the best class leads the second
by least, which lie at borders, are asked for anew. A small network answers for each such point by itself, from the finest map
of the pyramid and the coarse logits there. In training it is asked at random points, three quarters of them uncertain ones.

What the paper found on Cityscapes, with ResNet-101: 78.6 mIoU against the 77.7 of the Semantic FPN alone, and as much again
from maps of stride 8. That is little, for mIoU counts the insides of things; it is at borders and thin poles that both differ.
Finer training at more uncertain points alone is worse than none: the points drawn evenly are needed.

What is different here: the network draws its points from torch's global generator, as dropout does, which training seeds at
each step; the task compares them with the class map, void left out. A map of fewer pixels than points is asked for as a whole.
The 256 channels of the pyramid and of the small network are detectron2's, and no other published network differs.

detectron2's code is Apache-2.0, its weights are CC BY-SA 3.0. Nothing of its code is used here.

Axes: B batch, C channels, K classes, E channels of the branch, P points, H, W sides of the image.
"""

import re
from dataclasses import dataclass, field
from functools import partial
from math import log2
from typing import Annotated

from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import STRIDES, Encoder
from segwright.layers.feature_pyramid import FeaturePyramid
from segwright.layers.image_check import check_image
from segwright.layers.point_head import PointHead
from segwright.layers.point_sampling import (
    WithPoints,
    channels_together,
    sample_at_points,
    subdivided,
    uncertain_points,
)
from segwright.layers.semantic_branch import SemanticBranch, check_widths
from segwright.models import semantic_fpn

LEVELS = len(STRIDES)


@dataclass(frozen=True, kw_only=True)
class Config:
    """PointRend on a Semantic FPN on any encoder; the defaults are detectron2's on ResNet-101, for Cityscapes."""

    in_channels: int = 3
    num_classes: int = 19
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: semantic_fpn.CAFFE_RESNET101)
    pyramid_width: int = 256
    branch_width: int = 128
    point_width: int = 256
    training_points: int = 2048  # per image and step
    refined_points: int = 8192  # per image and doubling, 1 % of the pixels of the larger one at 1024 x 2048

    def __post_init__(self) -> None:
        names = ("in_channels", "pyramid_width", "point_width", "training_points", "refined_points")
        check_widths(self.branch_width, **{name: getattr(self, name) for name in names})
        if self.num_classes < 2:
            raise SettingError(
                f"num_classes is {self.num_classes}; a point is uncertain where two classes are close, so give 2 or more: "
                "background is a class too"
            )

    def build(self) -> "PointRendSemantic":
        """The network, its weights drawn from torch's global generator."""
        return PointRendSemantic(self)


class PointRendSemantic(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H, W), in training to coarse ones (B, K, H/4, W/4) and those of some points.

    The sides must be multiples of `divisors`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        self.pyramid = FeaturePyramid(self.encoder.channels[-LEVELS:], config.pyramid_width)
        strides = self.encoder.strides[-LEVELS:]
        self.doublings = round(log2(strides[0]))
        self.branch = SemanticBranch(strides, config.pyramid_width, config.branch_width, align_corners=False)
        self.classify = nn.Conv2d(config.branch_width, config.num_classes, 1)
        nn.init.kaiming_normal_(self.classify.weight, mode="fan_out", nonlinearity="relu")  # as detectron2
        nn.init.zeros_(self.classify.get_parameter("bias"))
        self.points = PointHead(config.pyramid_width, config.point_width, config.num_classes, coarse_each_layer=False)

    def forward(self, image: Tensor) -> Tensor | WithPoints:
        """Logits of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.pyramid(self.encoder(image)[-LEVELS:])
        fine, coarse = maps[0], self.classify(self.branch(maps))  # (B, E, H/4, W/4) and (B, K, H/4, W/4)
        if self.training:
            points = uncertain_points(coarse, _uncertainty, self.config.training_points, None)  # (B, P, 2)
            return WithPoints(coarse, self._ask(fine, coarse, points), points)
        fine, coarse = channels_together(fine), channels_together(coarse)
        logits = coarse
        for _ in range(self.doublings):
            logits = subdivided(logits, _uncertainty, self.config.refined_points, partial(self._ask, fine, coarse))
        return logits

    def _ask(self, fine: Tensor, coarse: Tensor, points: Tensor) -> Tensor:
        """Logits (B, K, P) at points (B, P, 2) of two maps."""
        return self.points(sample_at_points(fine, points), sample_at_points(coarse, points))


def _uncertainty(logits: Tensor) -> Tensor:
    """By how much the second best class falls short of the best (B, *), 0 at most, from logits (B, K, *)."""
    best, second = logits.topk(2, dim=1).values.unbind(1)
    return second - best


PRESETS = {
    "pointrend_semantic_resnet50": Config(encoder=semantic_fpn.CAFFE_RESNET50),
    "pointrend_semantic_resnet101": Config(),
}

WEIGHTS = {
    "pointrend_semantic_resnet101_cityscapes": Weights(
        preset="pointrend_semantic_resnet101",
        address="https://dl.fbaipublicfiles.com/detectron2/PointRend/SemanticSegmentation/"
        "pointrend_semantic_R_101_FPN_1x_cityscapes/202576688/model_final_cf6ac1.pkl",
        licence="CC-BY-SA-3.0",
        trained_on="Cityscapes, fine annotations",
        classes=19,
        intake=semantic_fpn.DETECTRON2_INTAKE,
        score="78.9 mIoU on Cityscapes val, single scale",
    ),
}

POINT_HEAD, COARSE_HEAD = "sem_seg_head.point_head.", "sem_seg_head.coarse_sem_seg_head."


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of detectron2's PointRend for classes under our names; load them with `load_state_dict`, strictly.

    The first convolution is turned to take red, green, blue.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    points, others = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith(POINT_HEAD):
            points[f"points.{_point_name(key.removeprefix(POINT_HEAD), key)}"] = tensor
        elif key.startswith(COARSE_HEAD):
            others["sem_seg_head." + key.removeprefix(COARSE_HEAD)] = tensor
        elif key.startswith("sem_seg_head."):
            raise FormatError(
                f"the weights hold {key!r}, which no PointRend has; its heads start with {COARSE_HEAD!r} and {POINT_HEAD!r}: "
                "check that the file holds detectron2's PointRend, or load it as a Semantic FPN"
            )
        else:
            others[key] = tensor
    return semantic_fpn.rename(others) | points


def _point_name(part: str, key: str) -> str:
    """The name in `PointHead` of a `part` of detectron2's point head, such as "fc1.weight"; `key` is its whole name.

    Raises:
        FormatError: no point head holds such a tensor.
    """
    if found := re.fullmatch(r"fc([1-3])(\.\w+)", part):
        return f"hidden.{int(found[1]) - 1}{found[2]}"
    if found := re.fullmatch(r"predictor(\.\w+)", part):
        return f"classify{found[1]}"
    raise FormatError(
        f"the weights hold {key!r}, which no PointRend has; its point head has the layers fc1 to fc3 and predictor: check that "
        "the file holds detectron2's PointRend"
    )

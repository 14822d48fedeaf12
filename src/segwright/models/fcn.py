"""FCN on a dilated ResNet, after Fully Convolutional Networks for Semantic Segmentation (Long et al. 2014, arXiv 1411.4038).

The form that torchvision and mmsegmentation call FCN: a ResNet that keeps an output stride of 8, and a head of 3x3 convolutions
and a classifier on its last map. A second, smaller head on the map before it helps training. The authors' own networks, which
add the scores of several strides, are in fcn_vgg.py. Any encoder of this library can take the ResNet's place.

What differs between the two, and is a setting here: torchvision's head has one 3x3 convolution; mmsegmentation's has two, and a
third that sees what came in beside what they put out. Its ResNets begin with three 3x3 convolutions.

Deviations: mmsegmentation leaves out whole channels in training, torchvision single values; here it is single values in both.
torchvision's recipe weighs the second head by 0.5; here it is mmsegmentation's 0.4.

torchvision's code is BSD, mmsegmentation's Apache-2.0; neither states the licence of its weights. Nothing of either is used
here.

Axes: B batch, C channels, K classes, H, W sides of the image, h, w those of a map.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from segwright.core.class_names import CITYSCAPES, VOC
from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, resnet
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image

NARROWING = 4  # channels that come in for each that the heads work with
AUXILIARY_WEIGHT = 0.4  # of the second head's loss, in mmsegmentation
DROPOUT = 0.1  # share of the values before the classifier that are left out in training


def _dilated(name: str, *, stem: Literal["7x7", "3x3"] = "7x7") -> resnet.Config:
    """A ResNet that keeps an output stride of 8; the first two convolutions of a stem of three have half its channels."""
    return replace(resnet.PRESETS[name], output_stride=8, stem=stem, stem_width=64 if stem == "7x7" else 32)


@dataclass(frozen=True, kw_only=True)
class Config:
    """An FCN on any encoder; the defaults are torchvision's on ResNet-50, for the 21 classes of Pascal VOC."""

    in_channels: int = 3
    num_classes: int = 21
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: _dilated("resnet50"))
    head: Literal["single", "concatenated"] = "single"

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "Fcn":
        """The network, its weights drawn from torch's global generator."""
        return Fcn(self)


class Fcn(nn.Module):
    """Image (B, C, H, W) to logits (B, K, h, w) at the encoder's output stride; sides must be multiples of `divisors`.

    In training, the logits of the second head come along.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        before_last, last = self.encoder.channels[-2:]
        self.head = FcnHead(last, config.num_classes, config.head)
        self.auxiliary = FcnHead(before_last, config.num_classes, "single")

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits (B, K, h, w) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.encoder(image)
        logits = self.head(maps[-1])
        if not self.training:
            return logits
        return WithAuxiliary(logits, (self.auxiliary(maps[-2]),), (AUXILIARY_WEIGHT,))


class FcnHead(nn.Module):
    """A map (B, channels, h, w) to logits (B, K, h, w)."""

    def __init__(self, channels: int, num_classes: int, form: Literal["single", "concatenated"]) -> None:
        super().__init__()
        width = max(channels // NARROWING, 1)
        self.convs = nn.Sequential(ConvNormRelu(channels, width))
        self.concatenate = None
        if form == "concatenated":
            self.convs.append(ConvNormRelu(width, width))
            self.concatenate = ConvNormRelu(channels + width, width)
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        found = self.convs(x)
        if self.concatenate is not None:
            found = self.concatenate(torch.cat([x, found], dim=1))
        return self.classify(self.dropout(found))


_MMSEGMENTATION = Config(num_classes=19, encoder=_dilated("resnet50", stem="3x3"), head="concatenated")
PRESETS = {
    "fcn_resnet50": Config(),
    "fcn_resnet101": Config(encoder=_dilated("resnet101")),
    "fcn_r50_d8": _MMSEGMENTATION,
    "fcn_r101_d8": replace(_MMSEGMENTATION, encoder=_dilated("resnet101", stem="3x3")),
}

VOC_ON_COCO = "MS COCO train2017, its images with the 20 classes of Pascal VOC"
TORCHVISION = "https://download.pytorch.org/models"
OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5/fcn"
WEIGHTS = {
    "fcn_resnet50_voc": Weights(
        preset="fcn_resnet50",
        address=f"{TORCHVISION}/fcn_resnet50_coco-1167a1af.pth",
        sha256="1167a1af",
        licence="unstated (code BSD)",
        trained_on=VOC_ON_COCO,
        classes=VOC,
        score="60.5 mIoU on MS COCO val2017 with the classes of Pascal VOC",
    ),
    "fcn_resnet101_voc": Weights(
        preset="fcn_resnet101",
        address=f"{TORCHVISION}/fcn_resnet101_coco-7ecb50ca.pth",
        sha256="7ecb50ca",
        licence="unstated (code BSD)",
        trained_on=VOC_ON_COCO,
        classes=VOC,
        score="63.7 mIoU on MS COCO val2017 with the classes of Pascal VOC",
    ),
    "fcn_r50_d8_cityscapes": Weights(
        preset="fcn_r50_d8",
        address=(
            f"{OPENMMLAB}/fcn_r50-d8_512x1024_40k_cityscapes/fcn_r50-d8_512x1024_40k_cityscapes_20200604_192608-efe53f0d.pth"
        ),
        sha256="efe53f0d",
        licence="unstated",
        trained_on="Cityscapes train",
        classes=CITYSCAPES,
        score="72.25 mIoU on Cityscapes val",
    ),
    "fcn_r101_d8_cityscapes": Weights(
        preset="fcn_r101_d8",
        address=(
            f"{OPENMMLAB}/fcn_r101-d8_512x1024_40k_cityscapes/fcn_r101-d8_512x1024_40k_cityscapes_20200604_181852-a883d3a1.pth"
        ),
        sha256="a883d3a1",
        licence="unstated",
        trained_on="Cityscapes train",
        classes=CITYSCAPES,
        score="75.45 mIoU on Cityscapes val",
    ),
}

HEAD_PARTS = {  # what it is called there (torchvision, then mmsegmentation), and here
    "classifier.0": "head.convs.0.0",
    "classifier.1": "head.convs.0.1",
    "classifier.4": "head.classify",
    "aux_classifier.0": "auxiliary.convs.0.0",
    "aux_classifier.1": "auxiliary.convs.0.1",
    "aux_classifier.4": "auxiliary.classify",
    "decode_head.convs.0.conv": "head.convs.0.0",
    "decode_head.convs.0.bn": "head.convs.0.1",
    "decode_head.convs.1.conv": "head.convs.1.0",
    "decode_head.convs.1.bn": "head.convs.1.1",
    "decode_head.conv_cat.conv": "head.concatenate.0",
    "decode_head.conv_cat.bn": "head.concatenate.1",
    "decode_head.conv_seg": "head.classify",
    "auxiliary_head.convs.0.conv": "auxiliary.convs.0.0",
    "auxiliary_head.convs.0.bn": "auxiliary.convs.0.1",
    "auxiliary_head.conv_seg": "auxiliary.classify",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of torchvision or of mmsegmentation, on a ResNet, under our names.

    Raises:
        FormatError: a tensor has no place in an FCN; the message names it.
    """
    encoder, heads = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith("backbone."):
            encoder[key.removeprefix("backbone.")] = tensor
            continue
        module, _, kind = key.rpartition(".")
        if module not in HEAD_PARTS:
            raise FormatError(
                f"the weights hold {key!r}, which no FCN has; names that start with 'backbone.', 'classifier.' and "
                "'aux_classifier.', or with 'backbone.', 'decode_head.' and 'auxiliary_head.' are expected: check that the "
                "file holds an FCN"
            )
        heads[f"{HEAD_PARTS[module]}.{kind}"] = tensor
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | heads

"""DeepLab v2: Semantic Image Segmentation with Deep Nets, Atrous Convolution and CRFs (Chen et al. 2016, arXiv 1606.00915).

An encoder of output stride 8, and atrous spatial pyramid pooling: classifiers that look at its last map at dilations of 6, 12,
18 and 24, whose logits are summed. On ResNet-101 each is one 3x3 convolution; on VGG-16 (ASPP-L) each has two layers of 1024
channels before it. Any encoder of this library can be taken. The fully connected CRF of the title is a step after the network:
inference/dense_crf.

The ResNet is that of Caffe: a bottleneck strides in its first 1x1 convolution, and the blocks of a dilated stage dilate alike.

Logits have the size of the image. The authors' encoders put cell (i, j) on pixel (8i, 8j), their images have sides of 8n + 1,
and they upsample such that the corners agree. So does this network, which adds a row and a column of zeros to the image and
takes them away from the logits. Of an encoder whose cells lie elsewhere, logits are a little off near the border.

Deviations: the authors run three sizes of an image and take the highest logits; here it is one. They compare logits in training
with labels at every eighth pixel, and keep batch norms as they are; here labels keep their size, and norms learn.

The authors' code is a fork of Caffe, which is BSD; the licence of their weights is not stated, as is that of the weights of
deeplab-pytorch (Nakashima; its code is MIT), which are listed here. Nothing of their code is used here.

Axes: B batch, C channels, K classes, H, W sides of the image, h, w those of a map.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.class_names import VOC
from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Intake, Weights
from segwright.encoders import Encoder, resnet, vgg
from segwright.layers.atrous_conv import AtrousConv
from segwright.layers.image_check import check_image

RATES = (6, 12, 18, 24)  # dilations of the classifiers
WIDTH = 1024  # channels of fc6 and fc7, as in DeepLab-LargeFOV
DROPOUT = 0.5  # share of the values of fc6 and fc7 that are left out in training
SCORE_STD = 0.01  # of new classifiers: training starts at nearly equal probabilities


def _caffes(name: str) -> resnet.Config:
    """A ResNet that keeps an output stride of 8, in the authors' form."""
    return replace(resnet.PRESETS[name], output_stride=8, stride_on="1x1", dilate_first=True)


@dataclass(frozen=True, kw_only=True)
class Config:
    """DeepLab v2 on any encoder; the defaults are the authors' on ResNet-101, for the 21 classes of Pascal VOC.

    `branch` says what classifies at each dilation: a convolution, or the layers of DeepLab-LargeFOV.
    """

    in_channels: int = 3
    num_classes: int = 21
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: _caffes("resnet101"))
    branch: Literal["convolution", "layers"] = "convolution"

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "DeepLabV2":
        """The network, its weights drawn from torch's global generator."""
        return DeepLabV2(self)


class DeepLabV2(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H, W); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        branch = _convolution if config.branch == "convolution" else _layers
        self.branches = nn.ModuleList(branch(self.encoder.channels[-1], config.num_classes, rate) for rate in RATES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        height, width = image.shape[2:]
        logits = self.classify(self.encoder(F.pad(image, (0, 1, 0, 1)))[-1])  # (B, K, H/8 + 1, W/8 + 1)
        whole = F.interpolate(logits, size=(height + 1, width + 1), mode="bilinear", align_corners=True)
        return whole[:, :, :height, :width]

    def classify(self, last: Tensor) -> Tensor:
        """Logits (B, K, h, w) of the encoder's last map (B, C, h, w)."""
        first, *others = [branch(last) for branch in self.branches]
        return sum(others, first)


def _convolution(channels: int, num_classes: int, rate: int) -> nn.Module:
    """A classifier that is one dilated convolution."""
    layer = AtrousConv(channels, num_classes, rate)
    nn.init.normal_(layer.weight, std=SCORE_STD)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _layers(channels: int, num_classes: int, rate: int) -> nn.Module:
    """A classifier of three layers, of which the first is dilated: parts 0, 3 and 6 are fc6, fc7 and fc8."""
    fc6 = AtrousConv(channels, WIDTH, rate)
    fc7, fc8 = nn.Conv2d(WIDTH, WIDTH, 1), nn.Conv2d(WIDTH, num_classes, 1)
    for layer in (fc6, fc7):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")  # no norm keeps values in range
    nn.init.normal_(fc8.weight, std=SCORE_STD)
    for layer in (fc6, fc7, fc8):
        nn.init.zeros_(layer.get_parameter("bias"))
    return nn.Sequential(
        *(fc6, nn.ReLU(inplace=True), nn.Dropout(DROPOUT)), *(fc7, nn.ReLU(inplace=True), nn.Dropout(DROPOUT)), fc8
    )


PRESETS = {
    "deeplab_v2_resnet101": Config(),
    "deeplab_v2_vgg16": Config(encoder=vgg.Config(output_stride=8, pool=3), branch="layers"),
}

CAFFES_INTAKE = Intake(mean=(122.675, 116.669, 104.008), std=(1.0, 1.0, 1.0))
WEIGHTS = {
    "deeplab_v2_resnet101_voc": Weights(
        preset="deeplab_v2_resnet101",
        address=(
            "https://github.com/kazuto1011/deeplab-pytorch/releases/download/v1.0/deeplabv2_resnet101_msc-vocaug-20000.pth"
        ),
        licence="unstated (code MIT)",
        trained_on="MS COCO, then Pascal VOC 2012 trainaug",
        classes=VOC,
        intake=CAFFES_INTAKE,
        score="76.65 mIoU on Pascal VOC 2012 val, of three sizes of each image",
    ),
}

STAGE = re.compile(r"layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|shortcut)\.(conv|bn)")  # of deeplab-pytorch
PLACES = {"reduce": "1", "conv3x3": "2", "increase": "3"}  # in a bottleneck
STEM = {"layer1.conv1.conv": "conv1", "layer1.conv1.bn": "bn1"}
CLASSIFIER = re.compile(r"aspp\.c([0-3])|fc([678])(?:_\w+)?_([1-4])")  # of deeplab-pytorch; of the authors' Caffe, on VGG


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of deeplab-pytorch on ResNet, or of the authors' Caffe on VGG, under our names.

    The first convolution of both sees blue before green before red; its channels are turned around.

    Raises:
        FormatError: a tensor has no place in a DeepLab v2; the message names it.
    """
    of_resnet, of_vgg, branches = {}, {}, {}
    for key, tensor in state_dict.items():
        module, _, kind = key.removeprefix("base.").rpartition(".")
        if vgg.CAFFE.fullmatch(key):
            of_vgg[key] = tensor
        elif found := STAGE.fullmatch(module):
            of_resnet[f"{_block_part(found)}.{kind}"] = tensor
        elif module in STEM:
            is_first = module == "layer1.conv1.conv" and tensor.shape[1] == 3
            of_resnet[f"{STEM[module]}.{kind}"] = tensor.flip(1) if is_first else tensor
        elif (found := CLASSIFIER.fullmatch(module)) and found[1]:
            branches[f"branches.{found[1]}.{kind}"] = tensor
        elif found:
            layer = 3 * (int(found[2]) - 6)  # fc6, fc7 and fc8 have a ReLU and a dropout between them
            branches[f"branches.{int(found[3]) - 1}.{layer}.{kind}"] = tensor
        else:
            raise FormatError(
                f"the weights hold {key!r}, which no DeepLab v2 has; names like 'base.layer2.block1.reduce.conv.weight' and "
                "'base.aspp.c0.weight', or 'conv1_1.weight' and 'fc6_1.weight', are expected: check the file"
            )
    encoder = resnet.rename(of_resnet) | vgg.rename(of_vgg)
    return {f"encoder.{name}": tensor for name, tensor in encoder.items()} | branches


def _block_part(found: re.Match[str]) -> str:
    """The name in an encoder of a convolution or a norm of deeplab-pytorch's blocks."""
    stage, block, place, kind = found.groups()
    home = f"layer{int(stage) - 1}.{int(block) - 1}"
    if place == "shortcut":
        return f"{home}.downsample.{0 if kind == 'conv' else 1}"
    return f"{home}.{kind}{PLACES[place]}"

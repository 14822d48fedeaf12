"""DeepLab v1: Semantic Image Segmentation with Deep Convolutional Nets and CRFs (Chen et al. 2014, arXiv 1412.7062).

The form called LargeFOV. VGG-16 whose last two poolings keep the size, and whose last stage dilates its convolutions by 2
instead, so that maps stay at stride 8. The fully connected layers become convolutions: fc6 a 3x3 of dilation 12, which makes
the large field of view, fc7 a 1x1, and a classifier. Any encoder of this library can take VGG's place. The fully connected CRF
of the title is a step after the network: inference/dense_crf.

Logits have the size of the image. The authors' poolings of kernel 3 put cell (i, j) on pixel (8i, 8j), their images have sides
of 8n + 1, and they upsample such that the corners agree. So does this network, which adds a row and a column of zeros to the
image and takes them away from the logits. Of an encoder whose cells lie elsewhere, logits are a little off near the border.

Deviations: the authors compare logits in training with labels at every eighth pixel; here labels keep their size. Variants
with scores of earlier layers (MSc), and with a fc6 of 4x4 or 7x7, are left out.

The authors' code is a fork of Caffe, which is BSD; the licence of their weights is not stated. Nothing of either is used here.

Axes: B batch, C channels, K classes, H, W sides of the image, h, w those of a map.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.encoders import Encoder, vgg
from segwright.layers.atrous_conv import AtrousConv
from segwright.layers.image_check import check_image

WIDTH = 1024  # channels of fc6 and fc7, a quarter of VGG's, to which the authors found scores indifferent
RATE = 12  # dilation of fc6: a field of view of 224 pixels
DROPOUT = 0.5  # share of the values of fc6 and fc7 that are left out in training
SCORE_STD = 0.01  # of a new classifier: training starts at nearly equal probabilities


@dataclass(frozen=True, kw_only=True)
class Config:
    """DeepLab-LargeFOV on any encoder; the defaults are the authors', for the 21 classes of Pascal VOC."""

    in_channels: int = 3
    num_classes: int = 21
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: vgg.Config(output_stride=8, pool=3))

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "DeepLabV1":
        """The network, its weights drawn from torch's global generator."""
        return DeepLabV1(self)


class DeepLabV1(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H, W); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        self.head = _Head(self.encoder.channels[-1], config.num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        height, width = image.shape[2:]
        logits = self.head(self.encoder(F.pad(image, (0, 1, 0, 1)))[-1])  # (B, K, H/8 + 1, W/8 + 1)
        whole = F.interpolate(logits, size=(height + 1, width + 1), mode="bilinear", align_corners=True)
        return whole[:, :, :height, :width]


class _Head(nn.Module):
    """A map (B, channels, h, w) to logits (B, K, h, w)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.fc6 = AtrousConv(channels, WIDTH, RATE)
        self.fc7 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(DROPOUT)
        self.classify = nn.Conv2d(WIDTH, num_classes, 1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")  # no norm keeps values in range
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.normal_(self.classify.weight, std=SCORE_STD)
        nn.init.zeros_(self.classify.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        x = F.avg_pool2d(x, 3, stride=1, padding=1)  # the authors' pool5a, with which they smooth pool5
        x = self.dropout(F.relu(self.fc6(x), inplace=True))
        return self.classify(self.dropout(F.relu(self.fc7(x), inplace=True)))


PRESETS = {"deeplab_v1_vgg16": Config()}

HEAD_PARTS = re.compile(r"(fc6|fc7|fc8_\w+)\.(weight|bias)")  # Caffe's names; fc8 bears the name of the data set


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout, under the names that their layers have in Caffe, under our names.

    Their first convolution sees blue before green before red; its channels are turned around.

    Raises:
        FormatError: a tensor has no place in a DeepLab-LargeFOV; the message names it.
    """
    encoder, head = {}, {}
    for key, tensor in state_dict.items():
        if vgg.CAFFE.fullmatch(key):
            encoder[key] = tensor
        elif found := HEAD_PARTS.fullmatch(key):
            part = "classify" if found[1].startswith("fc8") else found[1]
            head[f"head.{part}.{found[2]}"] = tensor
        else:
            raise FormatError(
                f"the weights hold {key!r}, which no DeepLab-LargeFOV has; names like 'conv1_1.weight', 'fc6.weight' and "
                "'fc8_voc12.weight' are expected: check the file"
            )
    return {f"encoder.{name}": tensor for name, tensor in vgg.rename(encoder).items()} | head

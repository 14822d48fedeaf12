"""LR-ASPP: the segmentation head of Searching for MobileNetV3 (Howard et al. 2019, arXiv 1905.02244).

"Lite reduced atrous spatial pyramid pooling": the last map, each channel times a gate that sees the whole of it, and the map of
stride 8 are classified apart, and their logits summed. Any encoder of this library can be taken.

What is different here: classification and upsampling commute, so the deep map is classified at its own size. Upsampling its
128 channels first, as is usual, is the same function at a multiple of the cost. As in torchvision's network, the gate sees the
mean of the whole map, where the paper takes means of 49 x 49 pixels at strides of 16 and 20; and the last stage of the encoder
keeps all of its channels, of which the paper takes half.

torchvision's code is BSD; the licence of its weights is not stated. Nothing of either is used here.

Axes: B batch, C channels, K classes, H, W sides of the image.
"""

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.class_names import VOC
from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, mobilenet_v3
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image

LOW = -3  # the place of the map of stride 8 among an encoder's maps
WIDTH = 128  # channels of the head (the paper's figure 10)


@dataclass(frozen=True, kw_only=True)
class Config:
    """LR-ASPP on any encoder; the defaults are torchvision's on MobileNetV3-Large, for the 21 classes of Pascal VOC."""

    in_channels: int = 3
    num_classes: int = len(VOC)
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: mobilenet_v3.Config(output_stride=16))

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "LRASPP":
        """The network, its weights drawn from torch's global generator."""
        return LRASPP(self)


class LRASPP(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H/8, W/8); the sides must be multiples of `divisors`.

    `encoder` and `decode` alone take any size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (max(self.encoder.strides),) * 2
        before = self.encoder.channels[-1]
        self.project = ConvNormRelu(before, WIDTH, 1)
        self.gate = nn.Conv2d(before, WIDTH, 1, bias=False)
        self.classify_low = nn.Conv2d(self.encoder.channels[LOW], config.num_classes, 1)
        self.classify_high = nn.Conv2d(WIDTH, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H/8, W/8) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.decode(self.encoder(image))

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Logits at the size of the encoder's map of stride 8."""
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(maps[-1], 1)))
        high = self.classify_high(self.project(maps[-1]) * gate)
        low = self.classify_low(maps[LOW])
        return low + F.interpolate(high, size=low.shape[2:], mode="bilinear", align_corners=False)


PRESETS = {"lraspp_mobilenet_v3_large": Config()}

WEIGHTS = {
    "lraspp_mobilenet_v3_large_voc": Weights(
        preset="lraspp_mobilenet_v3_large",
        address="https://download.pytorch.org/models/lraspp_mobilenet_v3_large-d234d4ea.pth",
        sha256="d234d4ea",
        licence="unstated (code BSD)",
        trained_on="MS COCO train2017, its images with the 20 classes of Pascal VOC",
        classes=VOC,
        score="57.9 mIoU on MS COCO val2017 with the classes of Pascal VOC",
    ),
}

HEAD_PARTS = {  # what it is called in torchvision's files, and here
    "classifier.cbr.0": "project.0",
    "classifier.cbr.1": "project.1",
    "classifier.scale.1": "gate",
    "classifier.low_classifier": "classify_low",
    "classifier.high_classifier": "classify_high",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in torchvision's layout under our names; load them with `load_state_dict`, strictly.

    Raises:
        FormatError: a tensor has no place in an LR-ASPP; the message names it.
    """
    encoder, head = {}, {}
    for key, tensor in state_dict.items():
        module, _, kind = key.rpartition(".")
        if key.startswith("backbone."):
            encoder[key.removeprefix("backbone.")] = tensor
        elif module in HEAD_PARTS:
            head[f"{HEAD_PARTS[module]}.{kind}"] = tensor
        else:
            raise FormatError(
                f"the weights hold {key!r}, which no LR-ASPP has; names that start with 'backbone.' or 'classifier.' are "
                "expected: check the file"
            )
    return {f"encoder.{name}": tensor for name, tensor in mobilenet_v3.rename(encoder).items()} | head

"""FCN-32s, -16s and -8s: Fully Convolutional Networks for Semantic Segmentation (Long et al. 2014, arXiv 1411.4038).

VGG-16 with its three fully connected layers turned into convolutions: fc6 looks at 7x7 cells, fc7 at one, and the last gives a
score for each class. FCN-16s doubles these scores and adds those of pool4; FCN-8s doubles the sum and adds those of pool3. The
doubling is a transposed convolution that begins as bilinear interpolation and is learned. Any encoder of this library can take
VGG's place. The form on a dilated ResNet is in fcn.py.

Deviations: the authors pad the image by 100 pixels, leave fc6 unpadded, and crop each map to the next; here fc6 is padded, so
that cells lie on the pixels that they are made of. Interior scores are the authors' on a grid that is shifted by 3 pixels. The
last upsampling, which the paper keeps bilinear, is the task's; near the border it repeats scores, where the authors' fall to 0.
Scores of pool3 and pool4 begin at 0, as the paper has it; so do those of fc7 in the authors' code, but here they do not, lest
the layers below learn nothing from the first step.

The authors' code is BSD; their weights are for unrestricted use (the BVLC model licence). Nothing of either is used here.

Axes: B batch, C channels, K classes, E channels of fc6 and fc7, H, W sides of the image, h, w those of a map.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.encoders import STRIDES, Encoder, vgg
from segwright.layers.image_check import check_image

WIDTH = 4096  # channels of fc6 and fc7, as in VGG
KERNEL = 7  # of fc6: VGG's last map of a 224 x 224 image
DROPOUT = 0.5  # share of the values of fc6 and fc7 that are left out in training
SCORE_STD = 0.01  # of new scores: training starts at nearly equal probabilities


@dataclass(frozen=True, kw_only=True)
class Config:
    """An FCN that scores maps down to `stride`; the defaults are FCN-8s, for the 21 classes of Pascal VOC."""

    in_channels: int = 3
    num_classes: int = 21
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=vgg.Config)
    stride: Literal[8, 16, 32] = 8

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "FcnVgg":
        """The network, its weights drawn from torch's global generator.

        Raises:
            SettingError: the encoder keeps an output stride below 32, so that there is nothing to double.
        """
        return FcnVgg(self)


class FcnVgg(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H / stride, W / stride); the sides must be multiples of `divisors`."""

    divisors = (STRIDES[-1],) * 2

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        if self.encoder.strides[-1] != STRIDES[-1]:
            raise SettingError(
                f"the encoder has an output stride of {self.encoder.strides[-1]}, but this network doubles maps of stride 32 "
                "itself; leave out output_stride, or take fcn, which is made for it"
            )
        self.head = _Head(self.encoder.channels[-3:], config.num_classes, config.stride)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H / stride, W / stride) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.head(self.encoder(image)[-3:])


class _Head(nn.Module):
    """Maps (B, channels[i], h, w) at strides 8, 16 and 32 to logits (B, K, h, w) at one of these."""

    def __init__(self, channels: tuple[int, int, int], num_classes: int, stride: int) -> None:
        super().__init__()
        pool3, pool4, pool5 = channels
        self.fc6 = nn.Conv2d(pool5, WIDTH, KERNEL, padding=KERNEL // 2)
        self.fc7 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.dropout = nn.Dropout(DROPOUT)
        self.score = nn.Conv2d(WIDTH, num_classes, 1)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")  # no norm keeps values in range
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.normal_(self.score.weight, std=SCORE_STD)
        nn.init.zeros_(self.score.get_parameter("bias"))
        skipped = {8: (pool4, pool3), 16: (pool4,), 32: ()}[stride]
        self.skips = nn.ModuleList(_skip(count, num_classes) for count in skipped)
        self.doubles = nn.ModuleList(_doubling(num_classes) for _ in skipped)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The logits."""
        x = self.dropout(F.relu(self.fc6(maps[-1]), inplace=True))
        x = self.dropout(F.relu(self.fc7(x), inplace=True))
        scores = self.score(x)  # (B, K, H/32, W/32)
        for level, skip, double in zip(maps[-2::-1], self.skips, self.doubles, strict=False):
            scores = double(scores)[:, :, : level.shape[2], : level.shape[3]] + skip(level)  # cut where sides were rounded up
        return scores


def _skip(channels: int, num_classes: int) -> nn.Conv2d:
    """Scores of a finer map, which change nothing at first."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _doubling(num_classes: int) -> nn.ConvTranspose2d:
    """A transposed convolution (B, K, h, w) to (B, K, 2h, 2w) that begins as bilinear interpolation, class by class."""
    layer = nn.ConvTranspose2d(num_classes, num_classes, 4, stride=2, padding=1, bias=False)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])  # what a cell is worth to the pixels 1.5, 0.5, 0.5 and 1.5 away
    with torch.no_grad():
        layer.weight.copy_(torch.eye(num_classes)[:, :, None, None] * torch.outer(line, line))
    return layer


PRESETS = {"fcn_32s": Config(stride=32), "fcn_16s": Config(stride=16), "fcn_8s": Config(stride=8)}

HEAD_PARTS = {  # what it is called in the authors' files, and here
    "fc6": "fc6",
    "fc7": "fc7",
    "score_fr": "score",
    "score_pool4": "skips.0",
    "score_pool3": "skips.1",
    "upscore2": "doubles.0",
    "upscore_pool4": "doubles.1",
}
FIXED = ("upscore.weight", "upscore16.weight", "upscore8.weight")  # the last upsampling, which is bilinear and nobody trains


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout, under the names that their layers have in Caffe, under our names.

    Their first convolution sees blue before green before red; its channels are turned around.

    Raises:
        FormatError: a tensor has no place in such an FCN; the message names it.
    """
    encoder, head = {}, {}
    for key, tensor in state_dict.items():
        module, _, kind = key.rpartition(".")
        if module in HEAD_PARTS:
            head[f"head.{HEAD_PARTS[module]}.{kind}"] = tensor
        elif vgg.CAFFE.fullmatch(key):
            encoder[key] = tensor
        elif key not in FIXED:
            raise FormatError(
                f"the weights hold {key!r}, which no FCN on VGG has; names like 'conv1_1.weight', 'fc6.weight' and "
                "'score_pool4.weight' are expected: check the file"
            )
    return {f"encoder.{name}": tensor for name, tensor in vgg.rename(encoder).items()} | head

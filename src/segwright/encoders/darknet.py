"""Darknet-53: YOLOv3, An Incremental Improvement (Redmon, Farhadi 2018, arXiv 1804.02767), as YOLACT uses it.

A 3x3 convolution, then five stages, each opened by one that strides; the blocks behind it halve the channels by a 1x1
convolution, restore them by one of 3x3, and add what came in. A batch norm and a leaky ReLU follow each convolution.

It is trained on RGB values of 0 to 1, without a mean taken off. Darknet's code and weights are in the public domain; YOLACT's
code, whose layout `rename` reads, is MIT, and nothing of it is used here. The weights of the encoder alone are published in
Darknet's own format, which is not read here; YOLACT's files hold them with the rest. timm's darknet53 has a slope of 0.01.

Axes: B batch, C channels, H, W sides of the image.
"""

import re
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import STRIDES

STEM_WIDTH = 32
WIDTHS = (64, 128, 256, 512, 1024)  # of the stages
SLOPE = 0.1  # of Darknet's leaky ReLU below 0


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Darknet without its classifier; the defaults are Darknet-53, whose 53rd layer that is."""

    depths: tuple[int, int, int, int, int] = (1, 2, 8, 8, 4)

    def __post_init__(self) -> None:
        if min(self.depths) < 0:
            raise SettingError(
                f"depths is {list(self.depths)}; give the blocks of each stage, 0 or more, as [1, 2, 8, 8, 4] for Darknet-53"
            )

    def build(self, in_channels: int = 3) -> "Darknet":
        """The encoder, its weights drawn from torch's global generator."""
        return Darknet(self, in_channels)


class Darknet(nn.Module):
    """Image (B, C, H, W) to the maps of the stages (B, channels[i], H / strides[i], W / strides[i]), rounded up."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.channels, self.strides = WIDTHS, (2, *STRIDES)
        self.stem = _Unit(in_channels, STEM_WIDTH, 3)
        before, stages = STEM_WIDTH, []
        for width, depth in zip(WIDTHS, config.depths, strict=True):
            stages.append(nn.Sequential(_Unit(before, width, 3, stride=2), *(_Block(width) for _ in range(depth))))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps at strides 2, 4 and so on."""
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _Unit(nn.Module):
    """Convolution, batch norm and leaky ReLU."""

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(after)
        nn.init.kaiming_normal_(self.conv.weight, a=SLOPE, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.conv(x)), SLOPE, inplace=True)


class _Block(nn.Module):
    """To half the channels and back, beside a shortcut; no ReLU follows the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _Unit(width, width // 2, 1)
        self.conv2 = _Unit(width // 2, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


PRESETS = {"darknet53": Config()}

KINDS = {"0": "conv", "1": "bn"}  # places of a convolution and its norm in YOLACT's sequences
THEIRS = re.compile(r"(?:(_preconv)|layers\.(\d)\.(\d+)(?:\.(conv[12]))?)\.([01])\.(\w+)")


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of YOLACT under our names.

    Raises:
        FormatError: a tensor has no place in a Darknet; the message names it.
    """
    ours = {}
    for key, tensor in state_dict.items():
        if not (found := THEIRS.fullmatch(key)):
            raise FormatError(
                f"the weights hold {key!r}, which no Darknet has; names like '_preconv.0.weight' or 'layers.0.1.conv1.0.weight'"
                " are expected: check the file"
            )
        stem, stage, place, conv, kind, name = found.groups()
        module = "stem" if stem else ".".join(["stages", stage, place, *([conv] if conv else [])])
        ours[f"{module}.{KINDS[kind]}.{name}"] = tensor
    return ours

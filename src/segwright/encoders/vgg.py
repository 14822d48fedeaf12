"""VGG: Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan, Zisserman 2014, arXiv 1409.1556).

Five stages of 3x3 convolutions, each ended by a max pooling, whose maps the encoder gives: pool1 to pool5 of the literature, at
strides 2 to 32. Poolings past the output stride keep the size, and the convolutions behind them dilate instead, as in DeepLab.

Poolings round up, as Caffe's do, in which the networks on VGG were made; torchvision's round down, which differs at odd sizes
only. Parameters have the names of torchvision's files; rename also reads Caffe's (conv1_1 to conv5_3).

torchvision's code is BSD; the licence of its weights is not stated. The authors' weights are CC BY 4.0. Nothing of the code of
either is used here.

Axes: B batch, C channels, H, W sides of the image.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.weights import Weights
from segwright.encoders import STRIDES

WIDTHS = (64, 128, 256, 512, 512)  # of the stages


@dataclass(frozen=True, kw_only=True)
class Config:
    """A VGG without its classifier; the defaults are VGG-16.

    `pool` is the kernel of the poolings that halve the sides: the authors' 2, or DeepLab's 3, which centres each cell on a
    pixel. Those that keep the size have one of 3, since 2 would shift the map.
    """

    depths: tuple[int, int, int, int, int] = (2, 2, 3, 3, 3)
    norm: Literal["none", "batch"] = "none"
    output_stride: Literal[8, 16, 32] = 32
    pool: Literal[2, 3] = 2

    def __post_init__(self) -> None:
        if min(self.depths) < 1:
            raise SettingError(
                f"depths is {list(self.depths)}; each stage needs a convolution, such as [2, 2, 3, 3, 3] for VGG-16"
            )

    def build(self, in_channels: int = 3) -> "Vgg":
        """The encoder, its weights drawn from torch's global generator."""
        return Vgg(self, in_channels)


class Vgg(nn.Module):
    """Image (B, C, H, W) to the maps of the poolings (B, channels[i], H / strides[i], W / strides[i]), rounded up."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, stride = in_channels, 1
        strides: list[int] = []
        for depth, width, nominal in zip(config.depths, WIDTHS, (2, *STRIDES), strict=True):
            dilation = nominal // 2 // stride  # how much finer the map is than it would be
            for _ in range(depth):
                layers.append(nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation))
                layers += [nn.BatchNorm2d(width)] if config.norm == "batch" else []
                layers.append(nn.ReLU(inplace=True))
                before = width
            step = min(nominal, config.output_stride) // stride
            layers.append(_Pool(config.pool if step > 1 else 3, step))
            stride *= step
            strides.append(stride)
        self.features = nn.Sequential(*layers)
        self.channels, self.strides = WIDTHS, tuple(strides)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps at strides 2, 4 and so on."""
        maps, x = [], image
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, _Pool):
                maps.append(x)
        return maps


class _Pool(nn.Module):
    """Map (B, C, H, W) to the maxima around every cell or every second one, its sides rounded up."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel == 2:
            return F.max_pool2d(x, 2, self.stride, ceil_mode=True)
        return F.max_pool2d(x, 3, self.stride, padding=1)


def _initialise(module: nn.Module) -> None:
    """He's normal weights by what a convolution puts out, which a network without norms needs to learn at all."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(module.get_parameter("bias"))


PRESETS = {
    "vgg11": Config(depths=(1, 1, 2, 2, 2)),
    "vgg13": Config(depths=(2, 2, 2, 2, 2)),
    "vgg16": Config(),
    "vgg19": Config(depths=(2, 2, 4, 4, 4)),
    "vgg11_bn": Config(depths=(1, 1, 2, 2, 2), norm="batch"),
    "vgg13_bn": Config(depths=(2, 2, 2, 2, 2), norm="batch"),
    "vgg16_bn": Config(norm="batch"),
    "vgg19_bn": Config(depths=(2, 2, 4, 4, 4), norm="batch"),
}

WEIGHTS = {  # torchvision's; the authors' own lie in Caffe files
    f"{preset}_imagenet": Weights(
        preset=preset,
        address=f"https://download.pytorch.org/models/{preset}-{digits}.pth",
        sha256=digits,
        licence="unstated (code BSD)",
        trained_on="ImageNet-1k",
        classes=0,
        score=f"{accuracy} % top-1 on ImageNet-1k val",
    )
    for preset, digits, accuracy in (
        ("vgg11", "8a719046", 69.02),
        ("vgg13", "19584684", 69.928),
        ("vgg16", "397923af", 71.592),
        ("vgg19", "dcbb9e9d", 72.376),
        ("vgg11_bn", "6002323d", 70.37),
        ("vgg13_bn", "abd245e5", 71.586),
        ("vgg16_bn", "6c64b313", 73.36),
        ("vgg19_bn", "c79401a0", 74.218),
    )
}

OURS = re.compile(r"features\.\d+\.(weight|bias|running_mean|running_var|num_batches_tracked)")
CLASSIFIER = re.compile(r"classifier\.\d+\.(weight|bias)|fc[678]\.(weight|bias)")  # of ImageNet files; not used here
CAFFE = re.compile(r"conv(\d)_(\d)\.(weight|bias)")


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of torchvision or of Caffe under our names; the classifier is left out.

    Caffe's networks see blue before green before red; the channels of the first convolution are turned around.

    Raises:
        FormatError: a tensor has no place in a VGG; the message names it.
    """
    first = _first_layers(state_dict)
    ours = {}
    for key, tensor in state_dict.items():
        if found := CAFFE.fullmatch(key):
            name = f"features.{first[int(found[1])] + 2 * int(found[2]) - 2}.{found[3]}"  # 2: a convolution and its ReLU
            is_first = key == "conv1_1.weight" and tensor.shape[1] == 3
            ours[name] = tensor.flip(1) if is_first else tensor
        elif OURS.fullmatch(key):
            ours[key] = tensor
        elif not CLASSIFIER.fullmatch(key):
            raise FormatError(
                f"the weights hold {key!r}, which no VGG has; names like 'features.0.weight' or 'conv1_1.weight' are expected: "
                "check the file"
            )
    return ours


def _first_layers(keys: Iterable[str]) -> dict[int, int]:
    """Where in `features` each stage of Caffe's names begins."""
    depths: dict[int, int] = {}
    for key in keys:
        if found := CAFFE.fullmatch(key):
            depths[int(found[1])] = max(depths.get(int(found[1]), 0), int(found[2]))
    first, layer = {}, 0
    for stage in sorted(depths):
        first[stage] = layer
        layer += 2 * depths[stage] + 1  # convolutions with their ReLUs, and a pooling
    return first

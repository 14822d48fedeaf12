"""ResNet: Deep Residual Learning for Image Recognition (He et al. 2015, arXiv 1512.03385), as segmentation uses it.

Four stages of residual blocks behind a stem; each block adds what its convolutions find to what came in. Stages past the output
stride keep their size and dilate their convolutions instead (DeepLab, arXiv 1706.05587), so that the deepest maps stay fine.

What differs between the published forms, and is a setting here: the stem (one 7x7 convolution, or three of 3x3), the
convolution of a bottleneck that strides (the 3x3 in torchvision's, called v1.5; the first 1x1 in the paper, in Caffe's files
and in detectron2's), how dilation begins, and whether some 3x3 convolutions are deformable, as in YOLACT++ (arXiv 1912.06218).
Parameters have the names of torchvision's files (a stem of three: timm's).

torchvision's code is BSD; the licence of its weights is not stated. Nothing of either is used here.

Axes: B batch, C channels, H, W sides of the image.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.weights import Weights
from segwright.encoders import STRIDES
from segwright.layers.deformable_conv import DeformableConv

WIDTHS = (64, 128, 256, 512)  # of the 3x3 convolutions of the stages
EXPANSION = {"basic": 1, "bottleneck": 4}  # of these in what a block puts out


@dataclass(frozen=True, kw_only=True)
class Config:
    """A ResNet without its classifier; the defaults are ResNet-50.

    `stages` leaves out the last ones. `dilate_first` says whether the block that opens a dilated stage has the dilation of its
    stage already, as in detectron2 and smp, or still that of the stage before, as in torchvision. `multi_grid` multiplies the
    dilations of the blocks of the last stage. `deformable_every` makes the 3x3 convolution of each so-manieth bottleneck of the
    last three stages deformable, from the first one on.
    """

    block: Literal["basic", "bottleneck"] = "bottleneck"
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    stages: Literal[1, 2, 3, 4] = 4
    output_stride: Literal[8, 16, 32] = 32
    dilate_first: bool = False
    multi_grid: tuple[int, ...] = ()
    stem: Literal["7x7", "3x3"] = "7x7"
    stem_width: int = 64
    stride_on: Literal["1x1", "3x3"] = "3x3"  # of a bottleneck
    deformable_every: int | None = None
    norm_eps: float = 1e-5  # added to variances; torchvision's first networks for objects were trained with 0

    def __post_init__(self) -> None:
        if min(self.depths) < 1:
            raise SettingError(f"depths is {list(self.depths)}; each stage needs a block, such as [3, 4, 6, 3] for ResNet-50")
        if self.multi_grid and len(self.multi_grid) != self.depths[-1]:
            raise SettingError(
                f"multi_grid is {list(self.multi_grid)}; give one factor for each of the {self.depths[-1]} blocks of the last "
                "stage, or none"
            )
        if self.deformable_every is not None and (self.deformable_every < 1 or self.block == "basic"):
            raise SettingError(
                f"deformable_every is {self.deformable_every} and the blocks are of kind {self.block!r}; deformable "
                "convolutions are in every n-th bottleneck: give n of 1 or more and block='bottleneck', or leave it out"
            )

    def build(self, in_channels: int = 3) -> "ResNet":
        """The encoder, its weights drawn from torch's global generator."""
        return ResNet(self, in_channels)


class ResNet(nn.Module):
    """Image (B, C, H, W) to the maps of stem and stages (B, channels[i], H / strides[i], W / strides[i]), rounded up."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        width = config.stem_width
        self.conv1 = _stem(config.stem, in_channels, width)
        before = width if config.stem == "7x7" else 2 * width
        self.bn1 = nn.BatchNorm2d(before)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, strides, dilation = [before], [2], 1
        for index in range(config.stages):
            stride = min(STRIDES[index], config.output_stride)
            step = 1 if index == 0 else stride // strides[-1]
            first, dilation = dilation, STRIDES[index] // stride
            grid = config.multi_grid if index == len(STRIDES) - 1 and config.multi_grid else (1,) * config.depths[index]
            dilations = [dilation * factor for factor in grid]
            if not config.dilate_first:
                dilations[0] = first
            stage = _stage(config, index, before, step, dilations)
            self.add_module(f"layer{index + 1}", stage)
            before = WIDTHS[index] * EXPANSION[config.block]
            channels.append(before)
            strides.append(stride)
        self.channels, self.strides = tuple(channels), tuple(strides)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = config.norm_eps
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps at strides 2, 4 and so on."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        maps = [x]
        x = self.maxpool(x)
        for index in range(1, len(self.strides)):
            x = self.get_submodule(f"layer{index}")(x)
            maps.append(x)
        return maps


def _stem(kind: str, in_channels: int, width: int) -> nn.Module:
    """One 7x7 convolution of stride 2, or three of 3x3, the last of them twice as wide."""
    if kind == "7x7":
        return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    layers: list[nn.Module] = []
    for before, after, stride in ((in_channels, width, 2), (width, width, 1)):
        convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, 2 * width, 3, padding=1, bias=False))


def _stage(config: Config, index: int, before: int, stride: int, dilations: list[int]) -> nn.Sequential:
    """Blocks of one width, of which the first strides."""
    width, after = WIDTHS[index], WIDTHS[index] * EXPANSION[config.block]
    blocks: list[nn.Module] = []
    for number, dilation in enumerate(dilations):
        inner = (before if number == 0 else after, width, stride if number == 0 else 1, dilation)
        is_deformable = config.deformable_every is not None and index > 0 and number % config.deformable_every == 0
        blocks.append(_Basic(*inner) if config.block == "basic" else _Bottleneck(*inner, config.stride_on, is_deformable))
    return nn.Sequential(*blocks)


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(before, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class _Bottleneck(nn.Module):
    """1x1 to a quarter of the channels, 3x3, and 1x1 back, beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int, dilation: int, stride_on: str, is_deformable: bool) -> None:
        super().__init__()
        after = width * EXPANSION["bottleneck"]
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(before, width, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        if is_deformable:
            self.conv2: nn.Module = DeformableConv(width, width, stride=second, dilation=dilation)
        else:
            self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.downsample = _shortcut(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


def _shortcut(before: int, after: int, stride: int) -> nn.Module | None:
    """A 1x1 convolution where shapes change, else nothing."""
    if before == after and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))


def _initialise(module: nn.Module) -> None:
    """He's normal weights by what a convolution puts out, which keep gradients from growing or vanishing."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, DeformableConv):  # behind its own parts
        module.leave_taps_in_place()


PRESETS = {
    "resnet18": Config(block="basic", depths=(2, 2, 2, 2)),
    "resnet34": Config(block="basic"),
    "resnet50": Config(),
    "resnet101": Config(depths=(3, 4, 23, 3)),
    "resnet152": Config(depths=(3, 8, 36, 3)),
}

WEIGHTS = {  # torchvision's; v2 are trained longer, with stronger augmentation
    name: Weights(
        preset=name.split("_")[0],
        address=f"https://download.pytorch.org/models/{name.split('_')[0]}-{digits}.pth",
        sha256=digits,
        licence="unstated (code BSD)",
        trained_on="ImageNet-1k",
        classes=0,
        score=f"{accuracy} % top-1 on ImageNet-1k val",
    )
    for name, digits, accuracy in (
        ("resnet18_imagenet", "f37072fd", 69.758),
        ("resnet34_imagenet", "b627a593", 73.314),
        ("resnet50_imagenet", "0676ba61", 76.13),
        ("resnet50_imagenet_v2", "11ad3fa6", 80.858),
        ("resnet101_imagenet", "63fe2227", 77.374),
        ("resnet101_imagenet_v2", "cd907fc2", 81.886),
        ("resnet152_imagenet", "394f9c45", 78.312),
        ("resnet152_imagenet_v2", "f82ba261", 82.284),
    )
}

CLASSIFIER = ("fc.weight", "fc.bias")  # of ImageNet files; not used here
OURS = re.compile(
    r"(conv1(\.\d)?|bn1|layer[1-4]\.\d+\.((conv|bn)[1-3]|conv2\.offset_mask|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
DETECTRON2_STEMS = {  # one convolution, or three
    "7x7": {"conv1.norm": "bn1", "conv1": "conv1"},
    "3x3": {
        **{"conv1.norm": "conv1.1", "conv1": "conv1.0", "conv2.norm": "conv1.4", "conv2": "conv1.3"},
        **{"conv3.norm": "bn1", "conv3": "conv1.6"},
    },
}
HUGGING_FACE_STEM = {"embedder.embedder.convolution": "conv1", "embedder.embedder.normalization": "bn1"}
HUGGING_FACE = re.compile(
    r"encoder\.stages\.([0-3])\.layers\.(\d+)\.(?:layer\.([0-2])|shortcut)\.(?:(convolution)|normalization)"
)
MMSEGMENTATION_STEM = {  # of three convolutions, with their norms
    **{"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4"},
    **{"6": "conv1.6", "7": "bn1"},
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of torchvision, timm, detectron2, mmsegmentation or transformers under our names.

    The classifier is left out. A norm whose file does not count its batches, as detectron2's frozen ones, gets a count of 0.

    Raises:
        FormatError: a tensor has no place in a ResNet; the message names it.
    """
    stem = DETECTRON2_STEMS["3x3" if "stem.conv3.weight" in state_dict else "7x7"] | MMSEGMENTATION_STEM
    ours = {_our_name(key, stem): tensor for key, tensor in state_dict.items() if key not in CLASSIFIER}
    for name in [name for name in ours if name.endswith(".running_mean")]:
        ours.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.zeros((), dtype=torch.int64))
    return ours


def _our_name(key: str, stem: dict[str, str]) -> str:
    """The name here of a tensor of torchvision's, timm's, detectron2's, mmsegmentation's or transformers' files.

    Raises:
        FormatError: a ResNet holds no such tensor.
    """
    module, _, kind = key.rpartition(".")
    if module.startswith("stem."):
        name = f"{stem.get(module.removeprefix('stem.'))}.{kind}"
    elif module.startswith(("embedder.", "encoder.")):
        name = f"{_of_hugging_face(module)}.{kind}"
    else:
        name = re.sub(r"^res(\d)\.", lambda found: f"layer{int(found[1]) - 1}.", key)
        name = re.sub(r"\bconv(\d)\.norm\b", r"bn\1", name)
        name = name.replace(".shortcut.norm.", ".downsample.1.").replace(".shortcut.", ".downsample.0.")
    if OURS.fullmatch(name):
        return name
    raise FormatError(
        f"the weights hold {key!r}, which no ResNet has; names like 'layer1.0.conv1.weight' or 'res2.0.conv1.weight' are "
        "expected: check the file"
    )


def _of_hugging_face(module: str) -> str | None:
    """The name here of a module of transformers' ResNet, which counts from 0; None of any other."""
    found = HUGGING_FACE.fullmatch(module)
    if not found:
        return HUGGING_FACE_STEM.get(module)
    stage, block, number, is_convolution = found.groups()
    if number is None:
        return f"layer{int(stage) + 1}.{block}.downsample.{0 if is_convolution else 1}"
    return f"layer{int(stage) + 1}.{block}.{'conv' if is_convolution else 'bn'}{int(number) + 1}"

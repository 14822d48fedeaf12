"""MobileNetV3-Large: Searching for MobileNetV3 (Howard et al. 2019, arXiv 1905.02244, table 1), as segmentation uses it.

Inverted residuals: a 1x1 convolution widens, a depthwise one looks around, a gate weighs channels by what the whole map holds
(squeeze and excitation), and a 1x1 convolution narrows again. Of an output stride of 16, as in the paper's section 6.4, the
last stage keeps its size and its depthwise convolutions are dilated, the opening one included.

Parameters have the names of torchvision's files. The paper's segmentation halves the channels of the last stage, torchvision's
published networks do not, and neither does this. torchvision's code is BSD; the licence of its weights is not stated. Nothing
of either is used here.

Axes: B batch, C channels, H, W sides of the image.
"""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError
from segwright.encoders import STRIDES

STEM_WIDTH = 16
LAST_FACTOR = 6  # the closing 1x1 convolution widens what the last block puts out
GATE_SHARE = 4  # a gate works in a quarter of the block's channels, rounded to a multiple of 8
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01  # in torchvision's; the usual are 1e-5 and 0.1


class _Row(NamedTuple):
    """A row of the paper's table 1: kernel, inner and outer channels, whether it has a gate, hard-swish or ReLU, stride."""

    kernel: int
    inner: int
    outer: int
    has_gate: bool
    is_hard_swish: bool
    stride: int


ROWS = (
    _Row(3, 16, 16, False, False, 1),
    _Row(3, 64, 24, False, False, 2),
    _Row(3, 72, 24, False, False, 1),
    _Row(5, 72, 40, True, False, 2),
    _Row(5, 120, 40, True, False, 1),
    _Row(5, 120, 40, True, False, 1),
    _Row(3, 240, 80, False, True, 2),
    _Row(3, 200, 80, False, True, 1),
    _Row(3, 184, 80, False, True, 1),
    _Row(3, 184, 80, False, True, 1),
    _Row(3, 480, 112, True, True, 1),
    _Row(3, 672, 112, True, True, 1),
    _Row(5, 672, 160, True, True, 2),
    _Row(5, 960, 160, True, True, 1),
    _Row(5, 960, 160, True, True, 1),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """MobileNetV3-Large without its classifier; torchvision's segmentation takes it at an output stride of 16."""

    output_stride: Literal[16, 32] = 32

    def build(self, in_channels: int = 3) -> "MobileNetV3":
        """The encoder, its weights drawn from torch's global generator."""
        return MobileNetV3(self, in_channels)


class MobileNetV3(nn.Module):
    """Image (B, C, H, W) to maps at strides 2, 4, 8, 16 and 32 (or 16 again), rounded up.

    Those at strides 4 and 8 and the first at 16 come out of the blocks that stride, as torchvision takes them; the last comes
    out of the closing 1x1 convolution.
    """

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(in_channels, STEM_WIDTH, 3, stride=2, activation=nn.Hardswish)]
        before, stride, opening = STEM_WIDTH, 2, []
        for row in ROWS:
            stride *= row.stride
            dilation = max(1, stride // config.output_stride)
            if row.stride > 1:
                opening.append(len(layers))
            layers.append(_InvertedResidual(before, row, 1 if dilation > 1 else row.stride, dilation))
            before = row.outer
        layers.append(_convolution(before, LAST_FACTOR * before, 1, activation=nn.Hardswish))
        self.features = nn.ModuleList(layers)
        self.taps = (1, *opening[:-1], len(ROWS) + 1)  # the last stage: its end, behind the closing convolution
        self.channels = (STEM_WIDTH, *(ROWS[tap - 1].outer for tap in opening[:-1]), LAST_FACTOR * before)
        self.strides = (2, *(min(level, config.output_stride) for level in STRIDES))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps, the finest first."""
        maps = []
        x = image
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.taps:
                maps.append(x)
        return maps


def _convolution(
    before: int,
    after: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = None,
) -> nn.Sequential:
    """A convolution that keeps the size but for its stride, its norm, and an activation."""
    padding = dilation * (kernel // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(after, eps=NORM_EPS, momentum=NORM_MOMENTUM),
    ]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


class _InvertedResidual(nn.Module):
    """Widen, look around, weigh channels, narrow: (B, before, H, W) to (B, row.outer, H / stride, W / stride)."""

    def __init__(self, before: int, row: _Row, stride: int, dilation: int) -> None:
        super().__init__()
        activation = nn.Hardswish if row.is_hard_swish else nn.ReLU
        block: list[nn.Module] = []
        if row.inner != before:
            block.append(_convolution(before, row.inner, 1, activation=activation))
        around = {"stride": stride, "dilation": dilation, "groups": row.inner}
        block.append(_convolution(row.inner, row.inner, row.kernel, activation=activation, **around))
        if row.has_gate:
            block.append(_Gate(row.inner))
        block.append(_convolution(row.inner, row.outer, 1))
        self.block = nn.Sequential(*block)
        self.has_shortcut = row.stride == 1 and before == row.outer

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x if self.has_shortcut else self.block(x)


class _Gate(nn.Module):
    """Squeeze and excitation (arXiv 1709.01507): each channel times 0 to 1, by the means of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = _rounded(width / GATE_SHARE)
        self.fc1 = nn.Conv2d(width, narrow, 1)
        self.fc2 = nn.Conv2d(narrow, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = F.adaptive_avg_pool2d(x, 1)
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(means), inplace=True)))


def _rounded(width: float) -> int:
    """The nearest multiple of 8, or the next one where that would take away more than a tenth."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


def _initialise(module: nn.Module) -> None:
    """He's normal weights by what a convolution puts out, which keep gradients from growing or vanishing."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


PRESETS = {"mobilenet_v3_large": Config()}

CLASSIFIER = re.compile(r"classifier\.[03]\.(weight|bias)")  # of ImageNet files; not used here
OURS = re.compile(
    r"features\.\d+\.(block\.\d\.)?(fc[12]\.(weight|bias)"
    r"|0\.weight|1\.(weight|bias|running_mean|running_var|num_batches_tracked))"
)


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in torchvision's layout, of its classifier or of its segmentation networks' backbone, under our names.

    Raises:
        FormatError: a tensor has no place in a MobileNetV3; the message names it.
    """
    ours = {}
    for key, tensor in state_dict.items():
        name = key if key.startswith("features.") else f"features.{key}"
        if OURS.fullmatch(name):
            ours[name] = tensor
        elif not CLASSIFIER.fullmatch(key):
            raise FormatError(
                f"the weights hold {key!r}, which no MobileNetV3 has; names like 'features.4.block.0.0.weight' or "
                "'4.block.0.0.weight' are expected: check the file"
            )
    return ours

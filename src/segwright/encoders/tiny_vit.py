"""TinyViT: Fast Pretraining Distillation for Small Vision Transformers (Wu et al. 2022, arXiv 2207.10666).

Convolutions at first, then three stages of attention within windows of 7, 14 and 7 pixels, each window by itself: what passes
from one to the next passes through a depthwise convolution between attention and MLP. A learned bias says how much a pixel
heeds another by how many rows and columns lie between them, whichever way.

MobileSAM (Zhang et al. 2023, arXiv 2306.14289) takes it for the encoder of Segment Anything, and leaves out the last halving:
that is `output_stride` 16. Windows that a map does not fill are padded with zeros before the norm, and these are attended to,
as the authors do; any image size will do.

The code and the weights of TinyViT are MIT, those of MobileSAM and of timm Apache-2.0; nothing of their code is used here.

Axes: B batch, C channels, h, w rows and columns of a map, G windows of it, N pixels of a window, A heads, D channels of a head.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import STRIDES
from segwright.layers.attention import attend
from segwright.layers.drop_path import DropPath

DEPTHS = (2, 2, 6, 2)  # blocks of each stage, in all published sizes
WINDOWS = (7, 14, 7)  # pixels along each side, of the stages that attend
WIDER = 4  # times, blocks are inside


@dataclass(frozen=True, kw_only=True)
class Config:
    """A TinyViT; the defaults are the smallest, of 5 million parameters. `num_heads` are of the stages that attend."""

    widths: tuple[int, int, int, int] = (64, 128, 160, 320)
    num_heads: tuple[int, int, int] = (4, 5, 10)
    drop_path: float = 0.0  # of the last block; it grows evenly from 0 at the first
    output_stride: Literal[16, 32] = 32

    def __post_init__(self) -> None:
        for stage, (width, heads) in enumerate(zip(self.widths[1:], self.num_heads, strict=True), start=2):
            if heads < 1 or width % heads:
                raise SettingError(
                    f"the {width} channels of stage {stage} do not divide among {heads} heads; give heads that divide them, "
                    "such as one for each 32 channels"
                )

    def build(self, in_channels: int = 3) -> "TinyViT":
        """The encoder, its weights drawn from torch's global generator."""
        return TinyViT(self, in_channels)


class TinyViT(nn.Module):
    """Image (B, C, H, W) to four maps (B, channels[i], H / strides[i], W / strides[i]), rounded up."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.channels, self.strides = config.widths, tuple(min(stride, config.output_stride) for stride in STRIDES)
        first = config.widths[0]
        self.embed = nn.Sequential(
            _conv_norm(in_channels, first // 2, 3, stride=2), nn.GELU(), _conv_norm(first // 2, first, 3, stride=2)
        )
        rates = torch.linspace(0, config.drop_path, sum(DEPTHS), device="cpu").split(DEPTHS)
        stages: list[nn.Module] = [nn.Sequential(*(_ConvBlock(first, rate) for rate in rates[0].tolist()))]
        steps = (after // before for before, after in pairwise(self.strides))
        for stage, step in enumerate(steps, start=1):
            stages.append(_Stage(config, stage, step, rates[stage].tolist()))
        self.stages = nn.ModuleList(stages)
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of the four stages."""
        x, maps = self.embed(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _conv_norm(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, but for its stride, and a batch norm."""
    conv = nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class _ConvBlock(nn.Module):
    """MBConv: a map (B, C, h, w) widened, mixed by a depthwise convolution and narrowed, beside a shortcut."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        inside = WIDER * width
        self.widen = _conv_norm(width, inside, 1)
        self.mix = _conv_norm(inside, inside, 3, groups=inside)
        self.narrow = _conv_norm(inside, width, 1)
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.narrow(F.gelu(self.mix(F.gelu(self.widen(x)))))
        return F.gelu(x + self.drop_path(branch))


class _Stage(nn.Module):
    """A map (B, C, h, w) of the stage before to this stage's, with its width, and 1 / `step` of its sides."""

    def __init__(self, config: Config, stage: int, step: int, rates: list[float]) -> None:
        super().__init__()
        before, width = config.widths[stage - 1 : stage + 1]
        self.merge = nn.Sequential(
            _conv_norm(before, width, 1),
            nn.GELU(),
            _conv_norm(width, width, 3, stride=step, groups=width),
            nn.GELU(),
            _conv_norm(width, width, 1),
        )
        heads, window = config.num_heads[stage - 1], WINDOWS[stage - 1]
        self.blocks = nn.ModuleList(_Block(width, heads, window, rate) for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        x = self.merge(x)
        for block in self.blocks:
            x = block(x)
        return x


class _Block(nn.Module):
    """A map (B, C, h, w) by attention within windows, a depthwise convolution without a shortcut, and an MLP."""

    def __init__(self, width: int, num_heads: int, window: int, rate: float) -> None:
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.bias_table = nn.Parameter(torch.zeros(num_heads, window * window))  # by rows, then columns, between two pixels
        self.output = nn.Linear(width, width)
        self.local = _conv_norm(width, width, 3, groups=width)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, WIDER * width)
        self.narrow = nn.Linear(WIDER * width, width)
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.permute(0, 2, 3, 1)  # (B, h, w, C)
        pixels = pixels + self.drop_path(self._attention(pixels))
        pixels = self.local(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        pixels = pixels + self.drop_path(self.narrow(F.gelu(self.widen(self.mlp_norm(pixels)))))
        return pixels.permute(0, 3, 1, 2)

    def _attention(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, C), window by window."""
        B, h, w = (int(side) for side in x.shape[:3])  # whole numbers for an exporter too
        side = self.window
        below, right = -h % side, -w % side
        x = F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x
        x = x.unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3)  # (B, down, across, side, side, C)
        down, across = int(x.shape[1]), int(x.shape[2])
        x = x.reshape(B * down * across, side * side, -1)  # (G, N, C)
        parts = self.query_key_value(self.attention_norm(x)).unflatten(2, (self.num_heads, 3, -1))  # (G, N, A, 3, D)
        query, key, value = parts.permute(3, 0, 2, 1, 4)  # each (G, A, N, D)
        bias = self.bias_table[:, _apart(side, x.device)]  # (A, N, N)
        x = self.output(attend(query, key, value, bias).transpose(1, 2).flatten(2))
        x = x.unflatten(0, (B, down, across)).unflatten(3, (side, side)).transpose(2, 3)
        return x.reshape(B, down * side, across * side, -1)[:, :h, :w]


def _apart(side: int, device: torch.device) -> Tensor:
    """Which column of a table of biases is for two pixels of a window of so many along each side, int64 (N, N)."""
    line = torch.arange(side, device=device)
    row, column = line.repeat_interleave(side), line.repeat(side)
    return (row[:, None] - row).abs() * side + (column[:, None] - column).abs()


def _initialise(module: nn.Module) -> None:
    """The authors' rule: linear layers at 0.02, biases at 0, and convolutional blocks that begin as their shortcut."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.get_parameter("bias"))
    if isinstance(module, _ConvBlock):
        nn.init.zeros_(module.narrow[1].get_parameter("weight"))


PRESETS = {
    "tiny_vit_5m": Config(),
    "tiny_vit_11m": Config(widths=(64, 128, 256, 448), num_heads=(4, 8, 14), drop_path=0.1),
    "tiny_vit_21m": Config(widths=(96, 192, 384, 576), num_heads=(6, 12, 18), drop_path=0.2),
}

# The authors' and MobileSAM's layout, and timm's, in which a stage begins with what here is called merge
STEM = re.compile(r"patch_embed\.(?:seq\.([02])|conv([12]))\.(c|conv|bn)\.(\w+)")
MERGE = re.compile(r"(layers|stages)\.(\d)\.downsample\.conv([123])\.(c|conv|bn)\.(\w+)")
BLOCK = re.compile(r"(?:layers|stages)\.(\d)\.blocks\.(\d+)\.(.+)")
CONV = re.compile(r"(conv1|conv2|conv3|local_conv)\.(c|conv|bn)\.(\w+)")
CONV_PARTS = {"conv1": "widen", "conv2": "mix", "conv3": "narrow", "local_conv": "local"}
BLOCK_PARTS = {
    "attn.norm": "attention_norm",
    "attn.qkv": "query_key_value",
    "attn.proj": "output",
    "mlp.norm": "mlp_norm",
    "mlp.fc1": "widen",
    "mlp.fc2": "narrow",
}
LEFT_OUT = re.compile(r"(norm_head|head|neck)\..+|.+\.attention_bias_idxs")  # a classifier, Segment Anything's, and numbers


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an encoder in its authors' layout, MobileSAM's or timm's under our names; classifiers are left out.

    Raises:
        FormatError: a tensor has no place in the encoder; the message names it.
    """
    inner = {key.removeprefix("image_encoder."): tensor for key, tensor in state_dict.items()}
    return {_our_name(key): tensor for key, tensor in inner.items() if not LEFT_OUT.fullmatch(key)}


def _our_name(key: str) -> str:
    """The name here of a tensor of the encoder.

    Raises:
        FormatError: it holds no such tensor.
    """
    if found := STEM.fullmatch(key):
        return f"embed.{found[1] or 2 * int(found[2]) - 2}.{int(found[3] == 'bn')}.{found[4]}"
    if found := MERGE.fullmatch(key):
        stage = int(found[2]) + (found[1] == "layers")
        return f"stages.{stage}.merge.{2 * int(found[3]) - 2}.{int(found[4] == 'bn')}.{found[5]}"
    if found := BLOCK.fullmatch(key):
        block = f"stages.{found[1]}.{'' if found[1] == '0' else 'blocks.'}{found[2]}"
        if conv := CONV.fullmatch(found[3]):
            return f"{block}.{CONV_PARTS[conv[1]]}.{int(conv[2] == 'bn')}.{conv[3]}"
        if found[3] == "attn.attention_biases":
            return f"{block}.bias_table"
        module, _, kind = found[3].rpartition(".")
        if module in BLOCK_PARTS:
            return f"{block}.{BLOCK_PARTS[module]}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no TinyViT has; names like 'layers.1.blocks.0.attn.qkv.weight' or "
        "'stages.1.blocks.0.attn.qkv.weight' are expected: check the file"
    )

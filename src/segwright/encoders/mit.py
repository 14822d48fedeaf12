"""Mix Transformer (MiT): the backbone of SegFormer (Xie et al. 2021, arXiv 2105.15203, sections 3.1 and A).

What is different from other transformers: four stages of growing stride, each opened by an overlapping strided convolution;
keys and values come from a map shrunk by `sr_ratios`; a 3x3 depthwise convolution inside the MLP tells positions apart, so
there are no position embeddings and any image size will do.

Deviation from the paper, shared with all published weights: MLPs widen by 4 in each stage, where table 6 says 8, 8, 4, 4.
The authors' code and weights are for non-commercial use only; nothing of their code is used here.

Axes: B batch, C channels, H, W rows and columns of the stage's map, S those of the shrunk map, A heads, D channels of a head.
Maps are kept as (B, H, W, C): for linear layers they are tokens, for convolutions the same memory is a channels_last image, so
no step copies from one layout to the other.
"""

import re
from dataclasses import dataclass
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.weights import Weights
from segwright.encoders import STRIDES
from segwright.layers.attention import attend
from segwright.layers.drop_path import DropPath

PATCH_SIZES = (7, 3, 3, 3)  # kernel of the convolution that opens a stage; its neighbours overlap
EMBED_EPS = 1e-5  # of the norms after a strided convolution, in the authors' code and everywhere else


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Mix Transformer; each tuple has one value per stage. The defaults are MiT-B0."""

    hidden_sizes: tuple[int, int, int, int] = (32, 64, 160, 256)
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_heads: tuple[int, int, int, int] = (1, 2, 5, 8)
    sr_ratios: tuple[int, int, int, int] = (8, 4, 2, 1)
    mlp_ratios: tuple[int, int, int, int] = (4, 4, 4, 4)
    drop_path: float = 0.1  # of the last block; it grows evenly from 0 at the first
    norm_eps: float = 1e-6  # of block and stage norms: 1e-6 in the authors' code, 1e-5 in Hugging Face transformers

    def __post_init__(self) -> None:
        for size, heads in zip(self.hidden_sizes, self.num_heads, strict=True):
            if size % heads:
                raise SettingError(
                    f"{size} channels do not divide among {heads} heads; give each stage a multiple of its heads"
                )

    def build(self, in_channels: int = 3) -> "MixTransformer":
        """The encoder, its weights drawn from torch's global generator."""
        return MixTransformer(self, in_channels)


class MixTransformer(nn.Module):
    """Image (B, C, H, W) to four maps (B, channels[i], H / strides[i], W / strides[i]), rounded up, channels_last in memory."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.channels = config.hidden_sizes
        self.strides = STRIDES
        before = (in_channels, *config.hidden_sizes[:-1])
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").split(config.depths)
        self.stages = nn.ModuleList(_Stage(config, i, before[i], rates[i].tolist()) for i in range(len(STRIDES)))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of the four stages, strides 4, 8, 16 and 32."""
        maps = []
        x = image
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _Stage(nn.Module):
    """A map of the last stage (B, C, H, W), or the image, to this stage's map at 1/2 (first stage: 1/4) of its sides."""

    def __init__(self, config: Config, index: int, before: int, rates: list[float]) -> None:
        super().__init__()
        width, kernel = config.hidden_sizes[index], PATCH_SIZES[index]
        self.embed = nn.Conv2d(before, width, kernel, stride=4 if index == 0 else 2, padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(width, eps=EMBED_EPS)
        self.blocks = nn.ModuleList(_Block(config, index, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed_norm(self.embed(x).permute(0, 2, 3, 1))  # (B, H, W, C)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a shortcut; training leaves each out at random (stochastic depth)."""

    def __init__(self, config: Config, index: int, rate: float) -> None:
        super().__init__()
        width = config.hidden_sizes[index]
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.attention = _Attention(width, config.num_heads[index], config.sr_ratios[index])
        self.mlp_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.mlp = _MixMLP(width, width * config.mlp_ratios[index])
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


class _Attention(nn.Module):
    """Every pixel attends to a map shrunk `ratio` times along each side: tokens (B, H, W, C) to tokens (B, H, W, C)."""

    def __init__(self, width: int, num_heads: int, ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.shrink = nn.Conv2d(width, width, ratio, stride=ratio) if ratio > 1 else None  # leaves out rows that do not fill it
        self.shrink_norm = nn.LayerNorm(width, eps=EMBED_EPS) if ratio > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        B, H, W, C = x.shape
        A = self.num_heads
        source = x
        if self.shrink is not None and self.shrink_norm is not None:
            source = self.shrink_norm(self.shrink(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # (B, S, S, C)
        query = self.query(x).view(B, H * W, A, C // A).transpose(1, 2)  # (B, A, H*W, D)
        key, value = self.key_value(source).view(B, -1, 2, A, C // A).permute(2, 0, 3, 1, 4)  # each (B, A, S*S, D)
        return self.output(attend(query, key, value).transpose(1, 2).reshape(B, H, W, C))


class _MixMLP(nn.Module):
    """Linear, 3x3 depthwise convolution, GELU, linear: tokens (B, H, W, C) to tokens (B, H, W, C)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.narrow = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.widen(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.narrow(F.gelu(x))


def _initialise(module: nn.Module) -> None:
    """The authors' rule: linear layers at 0.02 as in ViT, convolutions by the variance of what they put out; biases at 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Conv2d):
        fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


WIDE = (64, 128, 320, 512)  # channels of B1 to B5
PRESETS = {
    "mit_b0": Config(),
    "mit_b1": Config(hidden_sizes=WIDE),
    "mit_b2": Config(hidden_sizes=WIDE, depths=(3, 4, 6, 3)),
    "mit_b3": Config(hidden_sizes=WIDE, depths=(3, 4, 18, 3)),
    "mit_b4": Config(hidden_sizes=WIDE, depths=(3, 8, 27, 3)),
    "mit_b5": Config(hidden_sizes=WIDE, depths=(3, 6, 40, 3)),
}

LICENCE = "NVIDIA Source Code License (non-commercial)"  # of all weights of MiT and SegFormer


def _weights(size: str, score: float) -> Weights:
    """A file of the authors' ImageNet weights that NVIDIA publishes on the Hugging Face hub, with the paper's score."""
    return Weights(
        preset=f"mit_{size}",
        address=f"hf://nvidia/mit-{size}/pytorch_model.bin",
        licence=LICENCE,
        trained_on="ImageNet-1k",
        classes=0,
        score=f"{score} % top-1 on ImageNet-1k val",
    )


WEIGHTS = {
    "mit_b0_imagenet": _weights("b0", 70.5),
    "mit_b1_imagenet": _weights("b1", 78.7),
    "mit_b2_imagenet": _weights("b2", 81.6),
    "mit_b3_imagenet": _weights("b3", 83.1),
    "mit_b4_imagenet": _weights("b4", 83.6),
    "mit_b5_imagenet": _weights("b5", 83.8),
}

ADDRESSES = (  # where a tensor lies: Hugging Face counts stages from 0, the authors from 1
    (r"encoder\.patch_embeddings\.(?P<stage>\d)\.(?P<part>.+)", 0),
    (r"encoder\.(?P<part>layer_norm)\.(?P<stage>\d)", 0),
    (r"encoder\.block\.(?P<stage>\d)\.(?P<block>\d+)\.(?P<part>.+)", 0),
    (r"patch_embed(?P<stage>\d)\.(?P<part>.+)", 1),
    (r"(?P<part>norm)(?P<stage>\d)", 1),
    (r"block(?P<stage>\d)\.(?P<block>\d+)\.(?P<part>.+)", 1),
)
EMBED_PARTS = {"proj": "embed", "layer_norm": "embed_norm", "norm": "embed_norm"}
NORM_PARTS = {"layer_norm": "norm", "norm": "norm"}
BLOCK_PARTS = {  # what it is called there (Hugging Face, then the authors), and here
    "layer_norm_1": "attention_norm",
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.self.sr": "attention.shrink",
    "attention.self.layer_norm": "attention.shrink_norm",
    "attention.output.dense": "attention.output",
    "layer_norm_2": "mlp_norm",
    "mlp.dense1": "mlp.widen",
    "mlp.dwconv.dwconv": "mlp.depthwise",
    "mlp.dense2": "mlp.narrow",
    "norm1": "attention_norm",
    "attn.q": "attention.query",
    "attn.kv": "attention.key_value",
    "attn.sr": "attention.shrink",
    "attn.norm": "attention.shrink_norm",
    "attn.proj": "attention.output",
    "norm2": "mlp_norm",
    "mlp.fc1": "mlp.widen",
    "mlp.fc2": "mlp.narrow",
}
CLASSIFIERS = ("head.weight", "head.bias", "classifier.weight", "classifier.bias")  # of ImageNet files; not used here


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of the authors' or Hugging Face's ImageNet files under our names; the classifier is left out.

    Raises:
        FormatError: a tensor has no place in a Mix Transformer, or one of a pair is missing; the message names it.
    """
    ours = {_our_name(key): tensor for key, tensor in state_dict.items() if key not in CLASSIFIERS}
    for name in [name for name in ours if ".attention.key." in name]:
        partner = name.replace(".key.", ".value.")
        if partner not in ours:
            raise FormatError(f"the weights hold {name} but not {partner}; take the whole file")
        ours[name.replace(".key.", ".key_value.")] = torch.cat([ours.pop(name), ours.pop(partner)])
    return ours


def _our_name(key: str) -> str:
    """The name here of a tensor of the authors' or Hugging Face's files.

    Raises:
        FormatError: a Mix Transformer holds no such tensor.
    """
    module, _, kind = key.removeprefix("segformer.").rpartition(".")
    for pattern, first in ADDRESSES:
        found = re.fullmatch(pattern, module)
        if found is None:
            continue
        place, part = found.groupdict(), found["part"]
        parts = BLOCK_PARTS if "block" in place else EMBED_PARTS if "embed" in pattern else NORM_PARTS
        if part in parts:
            block = f"blocks.{place['block']}." if "block" in place else ""
            return f"stages.{int(place['stage']) - first}.{block}{parts[part]}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no Mix Transformer has; "
        "names like 'block1.0.attn.q.weight' or 'encoder.block.0.0.attention.self.query.weight' are expected: check the file"
    )

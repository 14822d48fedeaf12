"""Vision Transformer, as DINOv2 and DINOv3 have it (Dosovitskiy et al. 2021, arXiv 2010.11929).

Pieces of 16 x 16 pixels are tokens, each attends to all others, and nothing else is known of an image: a plain transformer, of
one width and one stride. What both families add: four registers beside the class token, where attention keeps what belongs to
no place (Darcet et al. 2024, arXiv 2309.16588), and a learned scale on each branch (LayerScale, arXiv 2103.17239).

"dinov2" (Oquab et al. 2023, arXiv 2304.07193) adds a learned position to each patch. "dinov3" (Siméoni et al. 2025, arXiv
2508.10104) turns queries and keys of patches by where they lie (rotary positions, arXiv 2104.09864); places run from -1 to 1
along each axis, and in training all are scaled by one random number, so that other sizes of images do not surprise it. Its keys
have no bias.

As an encoder of other networks it gives its last map brought bilinearly to strides 4, 8, 16 and 32: the pyramid of ViTDet (Li
et al. 2022, arXiv 2203.16527) without the convolutions in it, which would have no weights.

Deviations: learned positions are brought to other sizes of images bicubically, which timm does once and this network as images
come. DINOv2's weights are for patches of 14 x 14; `rename` brings them to 16 x 16, as the authors of EoMT do, such that a patch
that is enlarged gives what it gave (FlexiViT, Beyer et al. 2023, arXiv 2212.08013). `mask_token`, for training without labels,
is left out.

DINOv2's code and weights are Apache-2.0. DINOv3's are under a licence of their own, so that no weights of it are listed here;
nothing of their code is used.

Axes: B batch, C channels, H, W sides of the image in pixels, h, w in patches, N tokens (the class token, four registers, h*w
patches), Q rows of a mask, A heads, D channels of a head.
"""

import re
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, isqrt, pi
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.weights import Weights
from segwright.encoders import STRIDES

PATCH = 16  # pixels along each side
REGISTERS = 4
HEAD = 64  # channels of a head, in all published sizes
MLP_RATIO = 4  # how much wider an MLP is inside; one with a gate has two thirds of that, which makes as many weights
EPS = {"dinov2": 1e-6, "dinov3": 1e-5}  # of norms, in the authors' code
BASE = 100.0  # the slowest of the rotary frequencies is nearly this much slower than the fastest
RESCALE = 2.0  # by which DINOv3 enlarges or shrinks places at most in training


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Vision Transformer; the defaults are ViT-L of DINOv2, for images of 518 x 518 with patches of 14 x 14.

    `grid` is how many patches along each side learned positions are for; images may have any other number.
    """

    form: Literal["dinov2", "dinov3"] = "dinov2"
    width: int = 1024
    depth: int = 24
    has_gated_mlp: bool = False
    grid: int = 37

    def __post_init__(self) -> None:
        if self.width < HEAD or self.width % HEAD:
            raise SettingError(f"width is {self.width}; heads have {HEAD} channels, so give a multiple of {HEAD}, such as 384")
        for name in ("depth", "grid"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; give 1 or more")

    def build(self, in_channels: int = 3) -> "VisionTransformer":
        """The encoder, its weights drawn from torch's global generator."""
        return VisionTransformer(self, in_channels)


class Rotation(NamedTuple):
    """By how much each token is turned: cosines and sines (N, D/2); tokens that lie nowhere are not."""

    cos: Tensor
    sin: Tensor

    def after(self, count: int) -> "Rotation":
        """The same for tokens with so many before them that lie nowhere."""
        return Rotation(F.pad(self.cos, (0, 0, count, 0), value=1.0), F.pad(self.sin, (0, 0, count, 0)))


class VisionTransformer(nn.Module):
    """Image (B, C, H, W) to four maps (B, width, H / strides[i], W / strides[i]), rounded up, channels_last in memory."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.channels, self.strides = (config.width,) * len(STRIDES), STRIDES
        self.embed_patches = nn.Conv2d(in_channels, config.width, PATCH, stride=PATCH)
        self.prefix = nn.Parameter(torch.empty(1 + REGISTERS, config.width))  # the class token, then registers
        self.positions = nn.Parameter(torch.empty(config.grid**2, config.width)) if config.form == "dinov2" else None
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=EPS[config.form])
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps at strides 4, 8, 16 and 32, all of the last block's tokens."""
        below, right = (-side % PATCH for side in image.shape[2:])
        tokens, rotation = self.embed(F.pad(image, (0, right, 0, below)) if below or right else image)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        height, width = (ceil(side / PATCH) for side in image.shape[2:])
        level = self.norm(tokens[:, 1 + REGISTERS :]).unflatten(1, (height, width)).permute(0, 3, 1, 2)
        sizes = [tuple(ceil(side / stride) for side in image.shape[2:]) for stride in STRIDES]
        return [F.interpolate(level, size, mode="bilinear", align_corners=False) for size in sizes]

    def embed(self, image: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Rotation | None]:
        """The tokens (B, N, C) before the first block, and by how much blocks turn them, if they do.

        The sides are multiples of 16. In training, "dinov3" draws how much places are scaled.
        """
        patches = self.embed_patches(image)
        h, w = (int(side) for side in patches.shape[2:])  # whole numbers for an exporter too
        patches = patches.flatten(2).transpose(1, 2)  # (B, h*w, C)
        if self.positions is not None:
            patches = patches + resampled_positions(self.positions, h, w).to(patches.dtype)
        tokens = torch.cat([self.prefix.to(patches.dtype).expand(len(image), -1, -1), patches], dim=1)
        if self.positions is not None:
            return tokens, None
        scale = drawn_scale(generator, image.device) if self.training else 1.0
        return tokens, patch_rotation(h, w, scale, self.prefix).after(1 + REGISTERS)


class _Block(nn.Module):
    """Tokens (B, N, C) by attention and an MLP, each behind a norm, scaled, and beside a shortcut."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inside = config.width, MLP_RATIO * config.width
        if config.has_gated_mlp:
            inside = 8 * ceil(inside * 2 // 3 / 8)  # the authors' rounding
        self.has_gate, self.has_key_bias = config.has_gated_mlp, config.form == "dinov2"
        self.attention_norm = nn.LayerNorm(width, eps=EPS[config.form])
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.attention_scale = nn.Parameter(torch.ones(width))
        self.mlp_norm = nn.LayerNorm(width, eps=EPS[config.form])
        self.widen = nn.Linear(width, inside * (2 if self.has_gate else 1))  # the gate first
        self.narrow = nn.Linear(inside, width)
        self.mlp_scale = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor, rotation: Rotation | None = None, visible: Tensor | None = None) -> Tensor:
        """The first Q tokens see only what is `visible` (B, Q, N) to them, if it is given; all others see all."""
        tokens = torch.addcmul(tokens, self.attention_scale, self._attention(self.attention_norm(tokens), rotation, visible))
        hidden = self.widen(self.mlp_norm(tokens))
        if self.has_gate:
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * hidden
        else:
            hidden = F.gelu(hidden)
        return torch.addcmul(tokens, self.mlp_scale, self.narrow(hidden))

    def _attention(self, tokens: Tensor, rotation: Rotation | None, visible: Tensor | None) -> Tensor:
        bias: Tensor = self.query_key_value.bias
        if not self.has_key_bias:
            of_query, _, of_value = bias.chunk(3)
            bias = torch.cat([of_query, torch.zeros_like(of_query), of_value])
        parts = F.linear(tokens, self.query_key_value.weight, bias).unflatten(-1, (3, -1, HEAD))  # (B, N, 3, A, D)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, A, N, D)
        if rotation is not None:
            query, key = turned(query, rotation), turned(key, rotation)
        if visible is None:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:  # apart, so that no mask (N, N) is needed
            rows = visible.shape[1]
            first = F.scaled_dot_product_attention(query[:, :, :rows], key, value, attn_mask=visible[:, None])
            mixed = torch.cat([first, F.scaled_dot_product_attention(query[:, :, rows:], key, value)], dim=2)
        return self.output(mixed.transpose(1, 2).flatten(2))


def patch_rotation(h: int, w: int, scale: float | Tensor, like: Tensor) -> Rotation:
    """By how much the patches of an image of h x w are turned, (h*w, D/2): half of the channels by row, half by column.

    Places are those of the patches' centres, from -1 to 1 between the edges of the image, times `scale`.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    y, x = (2 * (torch.arange(side, device=like.device) + 0.5).to(wide) / side - 1 for side in (h, w))
    frequencies = BASE ** -torch.arange(0, 1, 4 / HEAD, device=like.device, dtype=wide)  # (D/4,)
    rows, columns = (2 * pi * scale * place[:, None] * frequencies for place in (y, x))
    angles = torch.cat([rows[:, None].expand(h, w, -1), columns.expand(h, w, -1)], dim=-1).flatten(0, 1)
    return Rotation(angles.cos(), angles.sin())


def turned(heads: Tensor, rotation: Rotation) -> Tensor:
    """Channels (B, A, N, D) in pairs, one of each half, turned by the angle of their token and pair."""
    cos, sin = (part.to(heads.dtype) for part in rotation)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def drawn_scale(generator: torch.Generator | None, device: torch.device) -> Tensor:
    """A number from 1 / RESCALE to RESCALE, as likely above 1 as below; without a generator, torch's global one draws."""
    drawn = torch.rand((), generator=generator, device=device if generator is None else generator.device)
    return RESCALE ** (2 * drawn.to(device) - 1)


def resampled_positions(positions: Tensor, h: int, w: int) -> Tensor:
    """Learned positions (n * n, C) for h x w patches, (h * w, C): the same where h and w are n."""
    side = isqrt(len(positions))
    if (h, w) == (side, side):
        return positions
    rows, columns = (torch.from_numpy(resampling(side, new)).to(positions) for new in (h, w))
    square = positions.unflatten(0, (side, side)).permute(2, 0, 1)  # (C, n, n)
    return (rows @ square @ columns.T).flatten(1).T


@cache
def resampling(old: int, new: int) -> np.ndarray:
    """What each of `new` places along an axis takes from each of `old`, bicubically, float64 (new, old).

    It equals torch's bicubic interpolation with antialias, and is a constant to an exporter, which has no such step.
    """
    reach = max(old / new, 1.0)  # of one old place: what shrinks is smoothed
    apart = abs((np.arange(old) + 0.5) - (np.arange(new)[:, None] + 0.5) * old / new) / reach
    near = 1.5 * apart**3 - 2.5 * apart**2 + 1  # Keys' cubic with a = -0.5
    far = -0.5 * apart**3 + 2.5 * apart**2 - 4 * apart + 2
    weights = np.where(apart < 1, near, np.where(apart < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def _initialise(module: nn.Module) -> None:
    """ViT's rule: linear layers and what is added to tokens at 0.02, biases at 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.get_parameter("bias"))
    if isinstance(module, VisionTransformer):
        nn.init.trunc_normal_(module.prefix, std=0.02)
        if module.positions is not None:
            nn.init.trunc_normal_(module.positions, std=0.02)


_DINOV3 = Config(form="dinov3")
PRESETS = {
    "vit_small_dinov2": Config(width=384, depth=12),
    "vit_base_dinov2": Config(width=768, depth=12),
    "vit_large_dinov2": Config(),
    "vit_giant_dinov2": Config(width=1536, depth=40, has_gated_mlp=True),
    "vit_small_dinov3": replace(_DINOV3, width=384, depth=12),
    "vit_base_dinov3": replace(_DINOV3, width=768, depth=12),
    "vit_large_dinov3": _DINOV3,
}
WEIGHTS = {
    f"dinov2_{size}": Weights(
        preset=f"vit_{size}_dinov2",
        address=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/dinov2_vit{letter}14_reg4_pretrain.pth",
        licence="Apache-2.0",
        trained_on="LVD-142M, without labels",
        classes=0,
    )
    for size, letter in (("small", "s"), ("base", "b"), ("large", "l"), ("giant", "g"))
}

BLOCK = re.compile(r"(?:blocks|layers?)\.(\d+)\.(.+)\.(weight|bias|gamma|lambda1)")
UNUSED = re.compile(r".*mask_token|rope_embed.*|.+\.bias_mask|.*position_ids")
PARTS = {  # what it is called there (the authors and timm, Hugging Face, the authors of EoMT), and here
    "cls_token": "prefix.class",
    "reg_token": "prefix.registers",
    "register_tokens": "prefix.registers",
    "storage_tokens": "prefix.registers",
    "pos_embed": "positions",
    "position_embeddings": "positions",
    "position_embeddings.weight": "positions",
    "proj.weight": "embed_patches.weight",
    "proj.bias": "embed_patches.bias",
    "patch_embeddings.weight": "embed_patches.weight",
    "patch_embeddings.bias": "embed_patches.bias",
    "patch_embeddings.projection.weight": "embed_patches.weight",
    "patch_embeddings.projection.bias": "embed_patches.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
BLOCK_PARTS = {
    "norm1": "attention_norm",
    "attn.qkv": "query_key_value",
    "attn.proj": "output",
    "ls1": "attention_scale",
    "norm2": "mlp_norm",
    "mlp.fc1": "widen",
    "mlp.w12": "widen",
    "mlp.fc2": "narrow",
    "mlp.w3": "narrow",
    "ls2": "mlp_scale",
    "attention.q_proj": "query_key_value.query",
    "attention.k_proj": "query_key_value.key",
    "attention.v_proj": "query_key_value.value",
    "attention.attention.query": "query_key_value.query",
    "attention.attention.key": "query_key_value.key",
    "attention.attention.value": "query_key_value.value",
    "attention.out_proj": "output",
    "attention.o_proj": "output",
    "attention.output.dense": "output",
    "layer_scale1": "attention_scale",
    "layer_scale2": "mlp_scale",
    "mlp.gate_proj": "widen.gate",
    "mlp.up_proj": "widen.hidden",
    "mlp.weights_in": "widen",
    "mlp.down_proj": "narrow",
    "mlp.weights_out": "narrow",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of the authors, timm or Hugging Face under our names, to be loaded strictly.

    Patches of another size are brought to 16 x 16, and a position of the class token is added to it.

    Raises:
        FormatError: a tensor has no place in a Vision Transformer, or a part of one is missing; the message names it.
    """
    ours, pieces = dict[str, Tensor](), dict[str, dict[str, Tensor]]()
    for key, tensor in state_dict.items():
        if not UNUSED.fullmatch(key):
            name, piece = _our_name(key)
            if piece is None:
                ours[name] = tensor
            else:
                pieces.setdefault(name, {})[piece] = tensor
    for name, given in pieces.items():
        ours[name] = _joined(name, given)
    if "positions" in ours:
        positions = ours["positions"].flatten(0, -2)
        if isqrt(len(positions)) ** 2 != len(positions):
            ours["prefix"] = torch.cat([ours["prefix"][:1] + positions[:1], ours["prefix"][1:]])
            positions = positions[1:]
        ours["positions"] = positions
    weight = ours.get("embed_patches.weight")
    if weight is not None and weight.ndim == 4 and weight.shape[-1] != PATCH:
        ours["embed_patches.weight"] = _resampled_patches(weight)
    return ours


def _our_name(key: str) -> tuple[str, str | None]:
    """The name here of a tensor that a file calls `key`, and which piece of it the tensor is where it is not all.

    Raises:
        FormatError: a Vision Transformer holds no such tensor.
    """
    inner = re.sub(r"^((model|encoder|embeddings|patch_embed)\.)*", "", key)
    name = PARTS.get(inner)
    if found := BLOCK.fullmatch(inner):
        part = BLOCK_PARTS.get(found[2])
        if part is not None:
            part, _, piece = part.partition(".")
            kind = "" if part.endswith("_scale") else f".{found[3]}"
            return f"blocks.{found[1]}.{part}{kind}", piece or None
    if name is None:
        raise FormatError(
            f"the weights hold {key!r}, which no Vision Transformer has; names like 'blocks.0.attn.qkv.weight' or "
            "'layer.0.attention.q_proj.weight' are expected: check the file"
        )
    if name.startswith("prefix."):
        return "prefix", name.removeprefix("prefix.")
    return name, None


def _joined(name: str, given: dict[str, Tensor]) -> Tensor:
    """One tensor of its pieces; keys may be without a bias, which is 0 then.

    Raises:
        FormatError: another piece is missing.
    """
    if name == "prefix":
        given = {piece: tensor.flatten(0, -2) for piece, tensor in given.items()}
        wanted = ["class", "registers"]
    elif name.endswith(("query_key_value.weight", "query_key_value.bias")):
        wanted = ["query", "key", "value"]
        if name.endswith("bias") and "query" in given:
            given = {"key": torch.zeros_like(given["query"])} | given
    else:
        wanted = ["gate", "hidden"] if "gate" in given else ["hidden"]
    for piece in wanted:
        if piece not in given:
            raise FormatError(f"the weights of {name} have {' and '.join(given)} but no {piece}; take the whole file")
    return torch.cat([given[piece] for piece in wanted])


def _resampled_patches(weight: Tensor) -> Tensor:
    """What tells of patches of 16 x 16, as (C, 3, n, n) told of smaller ones: of an enlarged patch it says what that said."""
    spread = torch.from_numpy(np.linalg.pinv(resampling(weight.shape[-1], PATCH).T)).to(weight)  # (16, n)
    return spread @ weight @ spread.T

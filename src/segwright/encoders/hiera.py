"""Hiera as SAM 2 has it: a hierarchical vision transformer without the bells (Ryali et al. 2023, arXiv 2306.00989).

Patches of 7 x 7 pixels every 4 become tokens; four stages of blocks of attention and an MLP follow. The first block of each
later stage halves the map and doubles channels and heads: it pools queries, so that every new pixel heeds all of its window.
Attention stays within windows, but for three blocks of the third stage, in which all attend to all. Positions are the sum of
a coarse map, stretched over the image, and of one window's, repeated (Bolya et al. 2023, arXiv 2311.05613).

Windows that a map does not fill are padded with zeros behind the norm, and these are attended to, as the authors do. Images
of any sides are taken: they are padded to multiples of 32, and maps are cut to them, of which the authors' code knows nothing.

The authors' code and weights (of SAM 2, whose masks trained them) are Apache-2.0; nothing of their code is used here.

Axes: B batch, C channels, H, W sides of the image in pixels, h, w of a map, G groups (images, windows), A heads, D channels of
a head. Maps are kept as (B, h, w, C), which convolutions read as channels_last images.
"""

import re
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import STRIDES
from segwright.layers.attention import attend

PATCH, PATCH_STRIDE = 7, 4  # pixels along each side, and from one patch to the next
STAGES = 4
MLP_RATIO = 4  # how much wider an MLP is inside
EPS = 1e-6  # of norms, in the authors' code


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Hiera; the defaults are SAM 2's tiny one.

    `width` and `num_heads` are of the first stage. In `global_blocks`, by number, all attend to all; elsewhere `windows`, one a
    stage, are the sides within which pixels attend. `position_side` is that of the coarse map of positions.
    """

    width: int = 96
    num_heads: int = 1
    depths: tuple[int, ...] = (1, 2, 7, 2)
    global_blocks: tuple[int, ...] = (5, 7, 9)
    windows: tuple[int, ...] = (8, 4, 14, 7)
    position_side: int = 7

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.position_side < 1 or self.width < 1 or self.width % self.num_heads:
            raise SettingError(
                f"width is {self.width}, num_heads {self.num_heads} and position_side {self.position_side}; give numbers of 1 "
                "or more, and heads that divide the width, such as 1 for 96"
            )
        if len(self.depths) != STAGES or len(self.windows) != STAGES or min(*self.depths, *self.windows) < 1:
            raise SettingError(
                f"depths are {list(self.depths)} and windows {list(self.windows)}; give {STAGES} of each, 1 or more, such as "
                "1, 2, 7, 2 and 8, 4, 14, 7"
            )
        if any(window % 2 for window in self.windows[:-1]):
            raise SettingError(
                f"windows are {list(self.windows)}, and all but the last are halved by the block behind their stage; give even "
                "ones, such as 8, 4, 14, 7"
            )
        first = self.first_blocks
        wrong = [block for block in self.global_blocks if block in first[1:] or not 0 <= block < sum(self.depths)]
        if wrong:
            raise SettingError(
                f"global_blocks are {list(self.global_blocks)}; there are blocks 0 to {sum(self.depths) - 1}, and "
                f"{', '.join(map(str, first[1:]))} halve the map window by window: leave out {wrong[0]}"
            )

    @property
    def first_blocks(self) -> tuple[int, ...]:
        """The number of the first block of each stage."""
        return tuple(sum(self.depths[:stage]) for stage in range(STAGES))

    def build(self, in_channels: int = 3) -> "Hiera":
        """The encoder, its weights drawn from torch's global generator."""
        return Hiera(self, in_channels)


class Hiera(nn.Module):
    """Image (B, C, H, W) to maps (B, channels[i], H / strides[i], W / strides[i]), rounded up, channels_last in memory."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.channels = tuple(config.width * 2**stage for stage in range(STAGES))
        self.strides, self.last_blocks = STRIDES, [first - 1 for first in (*config.first_blocks[1:], sum(config.depths))]
        self.embed = nn.Conv2d(in_channels, config.width, PATCH, stride=PATCH_STRIDE, padding=PATCH // 2)
        self.positions = nn.Parameter(torch.empty(config.width, config.position_side, config.position_side))
        self.window_positions = nn.Parameter(torch.empty(config.width, config.windows[0], config.windows[0]))
        self.blocks = nn.ModuleList()
        for stage, depth in enumerate(config.depths):
            for number in range(depth):
                pools = bool(stage and not number)  # and has the windows of the stage before it
                window = 0 if len(self.blocks) in config.global_blocks else config.windows[stage - pools]
                channels = self.channels[stage - pools], self.channels[stage]
                self.blocks.append(_Block(*channels, config.num_heads * 2**stage, window, pools=pools))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of the four stages, at strides 4, 8, 16 and 32."""
        H, W = (int(side) for side in image.shape[2:])
        below, right = -H % STRIDES[-1], -W % STRIDES[-1]
        x = self.embed(F.pad(image, (0, right, 0, below)) if below or right else image)
        x = x.permute(0, 2, 3, 1) + self._places(int(x.shape[2]), int(x.shape[3])).to(x.dtype)  # (B, h, w, C), as it stays
        maps = list[Tensor]()
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.last_blocks:
                stride = STRIDES[len(maps)]
                maps.append(x[:, : ceil(H / stride), : ceil(W / stride)].permute(0, 3, 1, 2))
        return maps

    def _places(self, h: int, w: int) -> Tensor:
        """Positions of the patches (h, w, C): the coarse ones stretched, and those within a window repeated."""
        coarse = F.interpolate(self.positions[None], (h, w), mode="bicubic", align_corners=False)[0]
        side = self.window_positions.shape[1]
        fine = self.window_positions.repeat(1, ceil(h / side), ceil(w / side))[:, :h, :w]
        return (coarse + fine).permute(1, 2, 0)


class _Block(nn.Module):
    """A map (B, h, w, C) by attention, within windows of so many pixels or, if 0, to all, and an MLP; it may halve the map."""

    def __init__(self, before: int, width: int, num_heads: int, window: int, *, pools: bool) -> None:
        super().__init__()
        self.num_heads, self.window, self.pools = num_heads, window, pools
        self.attention_norm = nn.LayerNorm(before, eps=EPS)
        self.query_key_value = nn.Linear(before, 3 * width)
        self.output = nn.Linear(width, width)
        self.shortcut = nn.Linear(before, width) if pools else None
        self.mlp_norm = nn.LayerNorm(width, eps=EPS)
        self.widen = nn.Linear(width, MLP_RATIO * width)
        self.narrow = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.attention_norm(x)
        if self.shortcut is not None:
            x = pool_largest(self.shortcut(normed))
        x = x + self._attention(normed)
        return x + self.narrow(F.gelu(self.widen(self.mlp_norm(x))))

    def _attention(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, C'), or to half the sides."""
        B, h, w = (int(side) for side in x.shape[:3])  # whole numbers for an exporter too
        rows, columns = (self.window, self.window) if self.window else (h, w)
        below, right = -h % rows, -w % columns
        parts = self.query_key_value(F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x)
        parts = parts.unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).unflatten(5, (3, self.num_heads, -1))
        parts = parts.permute(5, 0, 1, 3, 6, 2, 4, 7)  # (3, B, down, across, A, rows, columns, D)
        down, across = int(parts.shape[2]), int(parts.shape[3])
        query, key, value = parts
        if self.pools:
            query, rows, columns, h, w = pool_largest(query), rows // 2, columns // 2, h // 2, w // 2
        query, key, value = (part.flatten(4, 5).flatten(0, 2) for part in (query, key, value))  # each (G, A, pixels, D)
        mixed = attend(query, key, value).view(B, down, across, self.num_heads, rows, columns, -1)
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(B, down * rows, across * columns, -1)
        return self.output(mixed[:, :h, :w] if below or right else mixed)


def pool_largest(x: Tensor) -> Tensor:
    """The largest of each 2 x 2 pixels (*, h, w, C), of even sides: (*, h / 2, w / 2, C)."""
    return x.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2)).amax(dim=(-4, -2))


def _initialise(module: nn.Module) -> None:
    """ViT's rule: linear layers and positions at 0.02, biases at 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.get_parameter("bias"))
    if isinstance(module, Hiera):
        nn.init.trunc_normal_(module.positions, std=0.02)
        nn.init.trunc_normal_(module.window_positions, std=0.02)


PRESETS = {
    "hiera_tiny": Config(),
    "hiera_small": Config(depths=(1, 2, 11, 2), global_blocks=(7, 10, 13)),
    "hiera_base_plus": Config(width=112, num_heads=2, depths=(2, 3, 16, 3), global_blocks=(12, 16, 20), position_side=14),
    "hiera_large": Config(width=144, num_heads=2, depths=(2, 6, 36, 4), global_blocks=(23, 33, 43), windows=(8, 4, 16, 8)),
}

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
BLOCK_PARTS = {  # what it is called there (the authors, then Hugging Face), and here
    "norm1": "attention_norm",
    "layer_norm1": "attention_norm",
    "attn.qkv": "query_key_value",
    "attn.proj": "output",
    "proj": "shortcut",
    "norm2": "mlp_norm",
    "layer_norm2": "mlp_norm",
    "mlp.layers.0": "widen",
    "mlp.layers.1": "narrow",
    "mlp.proj_in": "widen",
    "mlp.proj_out": "narrow",
}
PARTS = {
    "pos_embed": "positions",
    "pos_embed_window": "window_positions",
    "patch_embed.proj.weight": "embed.weight",
    "patch_embed.proj.bias": "embed.bias",
    "patch_embed.projection.weight": "embed.weight",
    "patch_embed.projection.bias": "embed.bias",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an encoder in the layout of SAM 2's authors or in Hugging Face's under our names.

    Raises:
        FormatError: a tensor has no place in the encoder; the message names it.
    """
    ours = {}
    for key, tensor in state_dict.items():
        name = _our_name(key.removeprefix("image_encoder.trunk.").removeprefix("vision_encoder.backbone."))
        ours[name] = tensor[0] if name.endswith("positions") else tensor
    return ours


def _our_name(key: str) -> str:
    """The name here of a tensor of the encoder.

    Raises:
        FormatError: it holds no such tensor.
    """
    if key in PARTS:
        return PARTS[key]
    found = BLOCK.fullmatch(key)
    if found and found[2] in BLOCK_PARTS:
        return f"blocks.{found[1]}.{BLOCK_PARTS[found[2]]}.{found[3]}"
    raise FormatError(
        f"the weights hold {key!r}, which no Hiera of SAM 2 has; names like 'blocks.0.attn.qkv.weight' are expected: check the "
        "file"
    )

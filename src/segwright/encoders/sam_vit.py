"""The Vision Transformer of Segment Anything: ViTDet (Li et al. 2022, arXiv 2203.16527).

A plain transformer on patches of 16 x 16 pixels, made affordable for large images: patches attend within windows of 14 x 14,
but for four blocks, evenly spread, in which all attend to all. Positions are learned, once for each patch of an image of
1024 x 1024, and in each block for how far two patches lie apart along rows and along columns.

Windows that an image does not fill are padded with zeros behind the norm, and these are attended to, as the authors do. For
images of other sizes positions are brought to the size of the image bicubically, of which the authors' code knows nothing;
relative positions are brought to it linearly, as theirs are.

As an encoder of other networks it gives its last map brought bilinearly to strides 4, 8, 16 and 32: the pyramid of ViTDet
without the convolutions in it, which would have no weights.

The authors' code and weights are Apache-2.0; nothing of their code is used here.

Axes: B batch, C channels, H, W sides of the image in pixels, h, w in patches, G groups (images, windows and heads), A heads,
D channels of a head. Maps are kept as (B, h, w, C), which convolutions read as channels_last images.
"""

import re
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import STRIDES
from segwright.layers.decomposed_attention import attend_decomposed

PATCH = 16  # pixels along each side
GRID = 64  # patches along each side that positions are learned for: those of an image of 1024
WINDOW = 14  # patches along each side
MLP_RATIO = 4  # how much wider an MLP is inside
EPS = 1e-6  # of norms, in the authors' code


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Vision Transformer with windows; the defaults are ViT-B. In `global_blocks`, by number, all attend to all."""

    width: int = 768
    depth: int = 12
    num_heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)

    def __post_init__(self) -> None:
        if self.depth < 1 or self.num_heads < 1 or self.width % self.num_heads:
            raise SettingError(
                f"width is {self.width}, depth {self.depth} and num_heads {self.num_heads}; give a depth of 1 or more and "
                "heads that divide the width, such as 12 for 768"
            )
        if any(not 0 <= block < self.depth for block in self.global_blocks):
            raise SettingError(
                f"global_blocks are {list(self.global_blocks)}, and there are {self.depth} blocks; give numbers from 0 to "
                f"{self.depth - 1}"
            )

    def build(self, in_channels: int = 3) -> "WindowedTransformer":
        """The encoder, its weights drawn from torch's global generator."""
        return WindowedTransformer(self, in_channels)


class WindowedTransformer(nn.Module):
    """Image (B, C, H, W) to four maps (B, width, H / strides[i], W / strides[i]), rounded up, channels_last in memory."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.channels, self.strides = (config.width,) * len(STRIDES), STRIDES
        self.embed = nn.Conv2d(in_channels, config.width, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.empty(GRID, GRID, config.width))
        self.blocks = nn.ModuleList(
            _Block(config, 0 if index in config.global_blocks else WINDOW) for index in range(config.depth)
        )
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps at strides 4, 8, 16 and 32, all of the last block's patches."""
        level = self.last_map(image)
        sizes = [tuple(ceil(side / stride) for side in image.shape[2:]) for stride in STRIDES]
        return [F.interpolate(level, size, mode="bilinear", align_corners=False) for size in sizes]

    def last_map(self, image: Tensor) -> Tensor:
        """What the last block makes of each patch (B, width, H / 16, W / 16), rounded up, channels_last in memory."""
        below, right = (-side % PATCH for side in image.shape[2:])
        x = self.embed(F.pad(image, (0, right, 0, below)) if below or right else image)
        x = x.permute(0, 2, 3, 1).contiguous()  # (B, h, w, C), as all that follows then stays
        x = x + _resized(self.positions, int(x.shape[1]), int(x.shape[2])).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Patches (B, h, w, C) by attention, within windows of so many patches or, if 0, to all, and an MLP."""

    def __init__(self, config: Config, window: int) -> None:
        super().__init__()
        width, inside = config.width, int(MLP_RATIO * config.width)
        self.window, self.num_heads = window, config.num_heads
        self.attention_norm = nn.LayerNorm(width, eps=EPS)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.row_table = nn.Parameter(torch.empty(2 * (window or GRID) - 1, width // config.num_heads))
        self.column_table = nn.Parameter(torch.empty(2 * (window or GRID) - 1, width // config.num_heads))
        self.mlp_norm = nn.LayerNorm(width, eps=EPS)
        self.widen = nn.Linear(width, inside)
        self.narrow = nn.Linear(inside, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.attention_norm(x))
        return x + self.narrow(F.gelu(self.widen(self.mlp_norm(x))))

    def _attention(self, x: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h, w, C)."""
        B, h, w = (int(side) for side in x.shape[:3])  # whole numbers for an exporter too
        rows, columns = (self.window, self.window) if self.window else (h, w)
        below, right = -h % rows, -w % columns
        parts = self.query_key_value(F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x)
        parts = parts.unflatten(1, (-1, rows)).unflatten(3, (-1, columns)).unflatten(5, (3, self.num_heads, -1))
        parts = parts.permute(5, 0, 1, 3, 6, 2, 4, 7)  # (3, B, down, across, A, rows, columns, D)
        down, across = int(parts.shape[2]), int(parts.shape[3])
        query, key, value = parts.flatten(5, 6).flatten(1, 4)  # each (G, rows * columns, D)
        square = query.unflatten(1, (rows, columns))
        of_rows = torch.einsum("grcd,rkd->grck", square, _apart(self.row_table, rows).to(query.dtype)).flatten(1, 2)
        of_columns = torch.einsum("grcd,ckd->grck", square, _apart(self.column_table, columns).to(query.dtype)).flatten(1, 2)
        mixed = attend_decomposed(query, key, value, of_rows, of_columns)
        mixed = mixed.view(B, down, across, self.num_heads, rows, columns, -1).permute(0, 1, 4, 2, 5, 3, 6)
        mixed = mixed.reshape(B, down * rows, across * columns, -1)
        return self.output(mixed[:, :h, :w] if below or right else mixed)


def _apart(table: Tensor, side: int) -> Tensor:
    """Rows of a table (T, D) for how far each of so many queries lies from each of as many keys, (side, side, D).

    A table for another number of patches is resampled linearly.
    """
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.transpose(-2, -1)[None], 2 * side - 1, mode="linear", align_corners=False)[0].transpose(
            -2, -1
        )
    line = torch.arange(side, device=table.device)
    return table[line[:, None] - line + (side - 1)]


def _resized(positions: Tensor, h: int, w: int) -> Tensor:
    """Positions (GRID, GRID, C) for an image of h x w patches, (h, w, C)."""
    if tuple(positions.shape[:2]) == (h, w):
        return positions
    square = positions.permute(2, 0, 1)[None]
    return F.interpolate(square, (h, w), mode="bicubic", antialias=True, align_corners=False)[0].permute(1, 2, 0)


def _initialise(module: nn.Module) -> None:
    """ViT's rule: linear layers and positions at 0.02, biases at 0; relative positions begin at 0, as the authors' do."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.get_parameter("bias"))
    if isinstance(module, WindowedTransformer):
        nn.init.trunc_normal_(module.positions, std=0.02)
    if isinstance(module, _Block):
        nn.init.zeros_(module.row_table)
        nn.init.zeros_(module.column_table)


PRESETS = {
    "sam_encoder_b": Config(),
    "sam_encoder_l": Config(width=1024, depth=24, num_heads=16, global_blocks=(5, 11, 17, 23)),
    "sam_encoder_h": Config(width=1280, depth=32, num_heads=16, global_blocks=(7, 15, 23, 31)),
}

BLOCK = re.compile(r"(?:blocks|layers)\.(\d+)\.(.+)")
PARTS = {  # what it is called there (the authors, then Hugging Face), and here
    "pos_embed": "positions",
    "patch_embed.proj.weight": "embed.weight",
    "patch_embed.proj.bias": "embed.bias",
    "patch_embed.projection.weight": "embed.weight",
    "patch_embed.projection.bias": "embed.bias",
}
BLOCK_PARTS = {
    "norm1": "attention_norm",
    "layer_norm1": "attention_norm",
    "attn.qkv": "query_key_value",
    "attn.proj": "output",
    "norm2": "mlp_norm",
    "layer_norm2": "mlp_norm",
    "mlp.lin1": "widen",
    "mlp.lin2": "narrow",
}
TABLES = {"attn.rel_pos_h": "row_table", "attn.rel_pos_w": "column_table"}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an encoder in the authors' layout or Hugging Face's under our names; what follows its blocks is left out.

    Raises:
        FormatError: a tensor has no place in the encoder; the message names it.
    """
    ours = {}
    for key, tensor in state_dict.items():
        inner = key.removeprefix("image_encoder.").removeprefix("vision_encoder.")
        if not inner.startswith("neck."):
            name = _our_name(inner)
            ours[name] = tensor[0] if name == "positions" else tensor
    return ours


def _our_name(key: str) -> str:
    """The name here of a tensor of the encoder.

    Raises:
        FormatError: it holds no such tensor.
    """
    found = BLOCK.fullmatch(key)
    if found and found[2] in TABLES:
        return f"blocks.{found[1]}.{TABLES[found[2]]}"
    module, _, kind = (found[2] if found else "").rpartition(".")
    name = f"blocks.{found[1]}.{BLOCK_PARTS[module]}.{kind}" if found and module in BLOCK_PARTS else PARTS.get(key)
    if name is None:
        raise FormatError(
            f"the weights hold {key!r}, which no encoder of Segment Anything has; names like 'blocks.0.attn.qkv.weight' or "
            "'layers.0.attn.qkv.weight' are expected: check the file"
        )
    return name

"""Swin Transformer: Hierarchical Vision Transformer using Shifted Windows (Liu et al. 2021, arXiv 2103.14030).

What is different from other transformers: a pixel attends to the window around it alone, 7 or 12 pixels wide; every second
block shifts the windows by half, so that what one has seen reaches the next; a learned bias says how much a pixel heeds another
by where it lies. Between stages, 2x2 pixels are merged into one of twice the channels. Each map is given out behind a norm.

Maps that windows do not fill are padded inside the blocks with zeros, which are attended to, as in the authors' segmentation
code: any image size will do. The authors' ImageNet code has no norms of maps but the last; these then start as they do there.
The authors' code and weights are MIT; nothing of their code is used here.

Axes: B batch, C channels, H, W rows and columns of the stage's map, G windows of it, N pixels of a window, A heads, D channels
of a head. Maps are kept as (B, H, W, C), which convolutions read as channels_last images.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import STRIDES
from segwright.layers.attention import attend
from segwright.layers.drop_path import DropPath

PATCH = STRIDES[0]  # sides of the pieces of the image that the first stage's pixels are made of
APART = -100.0  # what the authors add to a product of two pixels that only the shift has made neighbours
MLP_RATIO = 4  # how much wider an MLP is inside


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Swin Transformer; each tuple has one value per stage. The defaults are Swin-T."""

    width: int = 96  # channels of the first stage; each other has twice those of the one before
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    num_heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    window: int = 7  # pixels along each side
    drop_path: float = 0.3  # of the last block; it grows evenly from 0 at the first; 0.3 is the authors' in segmentation

    def __post_init__(self) -> None:
        for stage, heads in enumerate(self.num_heads):
            if self.width * 2**stage % heads:
                raise SettingError(
                    f"the {self.width * 2**stage} channels of stage {stage + 1} do not divide among {heads} heads; give each "
                    f"stage heads that divide {self.width} times 1, 2, 4 and 8"
                )
        if self.window < 2:
            raise SettingError(f"window is {self.window}; a pixel needs others to attend to, so give 2 or more, such as 7")

    def build(self, in_channels: int = 3) -> "SwinTransformer":
        """The encoder, its weights drawn from torch's global generator."""
        return SwinTransformer(self, in_channels)


class SwinTransformer(nn.Module):
    """Image (B, C, H, W) to four maps (B, channels[i], H / strides[i], W / strides[i]), rounded up, channels_last in memory."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.channels = tuple(config.width * 2**stage for stage in range(len(STRIDES)))
        self.strides = STRIDES
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").split(config.depths)
        self.embed = nn.Conv2d(in_channels, config.width, PATCH, stride=PATCH)
        self.embed_norm = nn.LayerNorm(config.width)
        self.stages = nn.ModuleList(_Stage(config, stage, rates[stage].tolist()) for stage in range(len(STRIDES)))
        self.apply(_initialise)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of the four stages, strides 4, 8, 16 and 32."""
        x = self.embed_norm(self.embed(_padded(image)).permute(0, 2, 3, 1))  # (B, H, W, C)
        maps = []
        for stage in self.stages:
            x, normed = stage(x)
            maps.append(normed.permute(0, 3, 1, 2))
        return maps


def _padded(image: Tensor) -> Tensor:
    """An image (B, C, H, W) with zeros to the right and below, up to a whole number of patches."""
    below, right = (-side % PATCH for side in image.shape[2:])
    return F.pad(image, (0, right, 0, below)) if below or right else image


class _Stage(nn.Module):
    """A map (B, H, W, C) of the stage before to this stage's, for the next stage and normed; the first merges no pixels."""

    def __init__(self, config: Config, stage: int, rates: list[float]) -> None:
        super().__init__()
        width = config.width * 2**stage
        self.window = config.window
        self.merge = _Merge(width // 2) if stage else None
        self.blocks = nn.ModuleList(_Block(width, config.num_heads[stage], config.window, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)  # of the map that is given out; the next stage goes on without it

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.merge is not None:
            x = self.merge(x)
        height, width = int(x.shape[1]), int(x.shape[2])  # whole numbers for an exporter too, which then folds what follows
        straight = _windows(height, width, self.window, 0, x.device)
        shifted = _windows(height, width, self.window, self.window // 2, x.device) if len(self.blocks) > 1 else straight
        for index, block in enumerate(self.blocks):
            x = block(x, shifted if index % 2 else straight)
        return x, self.norm(x)


class _Merge(nn.Module):
    """Each 2x2 pixels (B, H, W, C) to one of twice the channels (B, H/2, W/2, 2C), rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        _, H, W, _ = x.shape
        if H % 2 or W % 2:
            x = F.pad(x, (0, 0, 0, W % 2, 0, H % 2))
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))  # (B, H/2, 2, W/2, 2, C)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # (B, H/2, W/2, 4C): upper left, lower left, upper right, lower right
        return self.reduce(self.norm(x))


class _Block(nn.Module):
    """Attention within windows, and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, num_heads: int, window: int, rate: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _WindowAttention(width, num_heads, window)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, MLP_RATIO * width)
        self.narrow = nn.Linear(MLP_RATIO * width, width)
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor, windows: "_Windows") -> Tensor:
        x = x + self.drop_path(self.attention(self.attention_norm(x), windows))
        return x + self.drop_path(self.narrow(F.gelu(self.widen(self.mlp_norm(x)))))


class _WindowAttention(nn.Module):
    """Every pixel attends to those of its window: (B, H, W, C) to (B, H, W, C)."""

    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))  # one row for each way to lie apart
        nn.init.trunc_normal_(self.bias_table, std=0.02)  # as the authors draw everything

    def forward(self, x: Tensor, windows: "_Windows") -> Tensor:
        B, H, W, C = x.shape
        tokens = _moved(x.flatten(1, 2), windows.into, windows.out_of)  # (B, G*N, C)
        G, N = windows.count, windows.apart.shape[0]
        parts = self.query_key_value(tokens).view(B, G, N, 3, self.num_heads, C // self.num_heads)
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5)  # each (B, G, A, N, D)
        bias = self.bias_table[windows.apart].permute(2, 0, 1)[None]  # (1, A, N, N)
        if windows.mask is not None:
            bias = bias + windows.mask  # (G, A, N, N)
        tokens = attend(query, key, value, bias).transpose(2, 3).reshape(B, G * N, C)
        return self.output(_moved(tokens, windows.out_of, windows.into)).view(B, H, W, C)


@dataclass(frozen=True)
class _Move:
    """Where each row of what is made comes from, and which rows of it come from nowhere and are zero."""

    source: Tensor
    empty: Tensor | None


@dataclass(frozen=True)
class _Windows:
    """How a map is cut into windows: `into` them, back `out_of` them, and which pixels only the shift has made neighbours."""

    count: int
    into: _Move
    out_of: _Move
    apart: Tensor  # (N, N) which row of the table of biases holds for two pixels of a window
    mask: Tensor | None  # (G, 1, N, N) to add to products; none is needed without a shift


def _windows(height: int, width: int, window: int, shift: int, device: torch.device) -> _Windows:
    """The windows of a map, which begins at row and column `shift` and goes round: what leaves above comes in below."""
    rows, columns = -(-height // window), -(-width // window)
    grid = torch.arange(rows * columns * window**2, dtype=torch.int64, device=device)
    places = grid.view(rows, columns, window, window).transpose(1, 2).reshape(rows * window, columns * window)
    places = torch.roll(places, (shift, shift), (0, 1))  # where among the windows each pixel of the padded map goes
    empty = torch.cat([places[height:].flatten(), places[:height, width:].flatten()])
    down, across = (torch.arange(count * window, dtype=torch.int64, device=device) for count in (rows, columns))
    pixels = (down[:, None] * width + across).clamp(max=height * width - 1)  # of padding: some that exists, to be overwritten
    pixels = _cut(torch.roll(pixels, (-shift, -shift), (0, 1)), window).flatten()
    mask = None
    if shift:
        bands = [
            (line >= count * window - window).long() + (line >= count * window - shift).long()
            for line, count in ((down, rows), (across, columns))
        ]
        regions = _cut(3 * bands[0][:, None] + bands[1], window)  # (G, N): 3 bands along each axis
        mask = APART * (regions[:, None] != regions[:, :, None]).float()[:, None]
    return _Windows(
        rows * columns,
        _Move(pixels, empty if len(empty) else None),
        _Move(places[:height, :width].flatten(), None),
        _apart(window, device),
        mask,
    )


def _cut(grid: Tensor, window: int) -> Tensor:
    """A map (H, W), whose sides are multiples of the window's, to its windows (G, N)."""
    return grid.unflatten(0, (-1, window)).unflatten(2, (-1, window)).transpose(1, 2).flatten(2).flatten(0, 1)


def _apart(window: int, device: torch.device) -> Tensor:
    """How two pixels of a window lie apart, as a number (N, N): rows, from the lowest negative on, then columns."""
    line = torch.arange(window, dtype=torch.int64, device=device)
    steps = line[:, None] - line + window - 1  # (window, window), 0 to 2 * window - 2
    return (steps[:, None, :, None] * (2 * window - 1) + steps[None, :, None, :]).flatten(2).flatten(0, 1)


def _moved(x: Tensor, move: _Move, back: _Move) -> Tensor:
    """Rows (B, R, C) in another order; going `back` undoes it, which is what the gradient does."""
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # by an exporter, which knows torch's own steps alone
    if torch.is_grad_enabled() and x.requires_grad and not is_traced:
        return _Moved.apply(x, move, back)
    return _taken(x, move)


def _taken(x: Tensor, move: _Move) -> Tensor:
    taken = x.index_select(1, move.source)
    if move.empty is not None:
        taken[:, move.empty] = 0.0  # a whole number would be of another type to an exporter
    return taken


class _Moved(torch.autograd.Function):
    """A copy of rows each way: torch's own gradient of such a copy adds them up one by one, at 2 to 4 times the cost."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, move: _Move, back: _Move) -> Tensor:
        ctx.moves = move, back
        return _taken(x, move)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        move, back = ctx.moves
        return _moved(gradient, back, move), None, None


def _initialise(module: nn.Module) -> None:
    """The authors' rule: linear layers at 0.02 as in ViT; biases at 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


LARGE_WINDOW = 12  # of the sizes whose published weights come from images of 384 x 384
PRESETS = {
    "swin_tiny": Config(),
    "swin_small": Config(depths=(2, 2, 18, 2)),
    "swin_base": Config(width=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window=LARGE_WINDOW),
    "swin_large": Config(width=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window=LARGE_WINDOW),
}

BLOCK = re.compile(r"(?:encoder\.)?(?:layers|stages)\.(\d)\.blocks\.(\d+)\.(.+)")
MERGE = re.compile(r"(?:encoder\.)?(layers|stages)\.(\d)\.downsample\.(norm|reduction)")
NORM = re.compile(r"norm([0-3])|hidden_states_norms\.(?:stage([1-4])|([0-3]))")
EMBED_PARTS = {
    "embeddings.patch_embeddings.projection": "embed",
    "embeddings.norm": "embed_norm",
    "patch_embed.proj": "embed",
    "patch_embed.projection": "embed",
    "patch_embed.norm": "embed_norm",
}
BLOCK_PARTS = {  # what it is called there (Hugging Face, then the authors, then mmsegmentation), and here
    "layernorm_before": "attention_norm",
    "attention.self": "attention",  # whose table of biases it holds
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "layernorm_after": "mlp_norm",
    "intermediate.dense": "widen",
    "output.dense": "narrow",
    "norm1": "attention_norm",
    "attn": "attention",
    "attn.qkv": "attention.query_key_value",
    "attn.proj": "attention.output",
    "norm2": "mlp_norm",
    "mlp.fc1": "widen",
    "mlp.fc2": "narrow",
    "attn.w_msa": "attention",
    "attn.w_msa.qkv": "attention.query_key_value",
    "attn.w_msa.proj": "attention.output",
    "ffn.layers.0.0": "widen",
    "ffn.layers.1": "narrow",
}
UNUSED = ("norm", "layernorm", "head", "head.fc", "classifier")  # of ImageNet files: the last norm and the classifier
COUNTED = ("relative_position_index", "attn_mask")  # buffers that follow from the window


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of the authors, timm, mmsegmentation or Hugging Face under our names; a classifier is left out.

    A file of ImageNet has no norms of maps; they are added as the authors' segmentation code has them begin.

    Raises:
        FormatError: a tensor has no place in a Swin Transformer, or one of three is missing; the message names it.
    """
    is_timm = any(".3.downsample." in key for key in state_dict)  # which merges when a stage begins, not when one ends
    ours = {}
    for key, tensor in state_dict.items():
        module, _, kind = key.removeprefix("model.").removeprefix("swin.").rpartition(".")
        if kind not in COUNTED and module not in UNUSED:
            is_unfolded = bool(re.match(r"stages\.\d\.downsample", module))
            ours[_our_name(key, module, kind, is_timm)] = _refolded(tensor) if is_unfolded else tensor
    for name in [name for name in ours if ".attention.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        for partner in parts:
            if partner not in ours:
                raise FormatError(f"the weights hold {name} but not {partner}; take the whole file")
        ours[name.replace(".query.", ".query_key_value.")] = torch.cat([ours.pop(part) for part in parts])
    if not any(re.match(r"stages\.\d\.norm\.", name) for name in ours):
        for stage in range(len(STRIDES)):
            beside = ours.get(f"stages.{stage}.blocks.0.mlp_norm.weight")
            if beside is not None:
                ours[f"stages.{stage}.norm.weight"] = torch.ones_like(beside)
                ours[f"stages.{stage}.norm.bias"] = torch.zeros_like(beside)
    return ours


def _our_name(key: str, module: str, kind: str, is_timm: bool) -> str:
    """The name here of a tensor that a file calls `key`, in `module` and of `kind`.

    Raises:
        FormatError: a Swin Transformer holds no such tensor.
    """
    if module in EMBED_PARTS:
        return f"{EMBED_PARTS[module]}.{kind}"
    if found := NORM.fullmatch(module):
        here, counted, there = found.groups()
        return f"stages.{int(counted) - 1 if counted else here or there}.norm.{kind}"
    if found := MERGE.fullmatch(module):
        of_merge = {"norm": "norm", "reduction": "reduce"}[found[3]]
        return f"stages.{int(found[2]) + (0 if is_timm else 1)}.merge.{of_merge}.{kind}"
    found = BLOCK.fullmatch(module)
    part = BLOCK_PARTS.get(found[3]) if found else None
    if found and part and (part == "attention") == (kind == "relative_position_bias_table"):
        return f"stages.{found[1]}.blocks.{found[2]}.{part}." + ("bias_table" if part == "attention" else kind)
    raise FormatError(
        f"the weights hold {key!r}, which no Swin Transformer has; names like 'layers.0.blocks.0.attn.qkv.weight' or "
        "'encoder.layers.0.blocks.0.attention.self.query.weight' are expected: check the file"
    )


def _refolded(tensor: Tensor) -> Tensor:
    """What mmsegmentation merges pixels with (*, 4C), in our order: it counts pixels last, and rows before columns."""
    return tensor.unflatten(-1, (-1, 2, 2)).transpose(-1, -2).movedim(-3, -1).flatten(-3)

"""Segment Anything (Kirillov et al. 2023, arXiv 2304.02643).

A heavy encoder looks at an image once; what it says, the embedding, then answers any number of prompts, each in milliseconds:
points on an object or beside it, a box around it, an earlier mask to refine, or several of these at once. Each prompt is a few
tokens. A decoder of two blocks lets these and the patches of the image heed each other in turn, enlarges the patches fourfold,
and multiplies them with what became of three tokens, which gives three masks (the whole, a part, a part of that), and of a
fourth, which gives one where a prompt tells clearly what is meant. One more token says how well it expects each to fit.

What is different here: prompts of one embedding neither repeat it nor project it anew for each. Where tokens are few, products
of tokens, weights and patches are made in the other order, tokens with weights first: the same function of the same weights at
less than half the cost. Networks take images of any sides that patches fill; the authors' take 1024 x 1024 alone. Any encoder
of output stride 16 can take the place of the Vision Transformer, by its last map.

Deviations: points and corners count in pixels whose centres lie at +0.5, where the authors' are numbers of pixels, to which
their code adds 0.5. Hugging Face's code runs the decoder's norms at 1e-6, the authors' at 1e-5, as here.

The authors' code and weights are Apache-2.0, as are Hugging Face's copies and MobileSAM's; nothing of their code is used here.

Axes: B batch, P prompts of an image, T tokens of a prompt, M masks, C channels, E channels of the embedding, H, W sides of the
image, h, w of its embedding, N = h * w patches, S maps of patches of an image (1 while all prompts share it, else P).
"""

import re
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, sam_vit, timm, tiny_vit
from segwright.layers.image_check import check_image
from segwright.layers.norms import ChannelNorm
from segwright.layers.patch_pixels import enlarge_patches, lay_out_patches
from segwright.layers.prompt_encoder import PromptEncoder
from segwright.layers.prompts import PromptedMasks, Prompts, count_prompts
from segwright.layers.two_way_transformer import NARROWER, CrossAttention, TwoWayBlock

TASKS = ("promptable",)
STRIDE = 16  # pixels of the image for one of the embedding
BLOCKS = 2  # of the decoder
HEADS = 8  # of its attention
MASKS = 4  # tokens of masks: one where the prompt tells what is meant, then three
SCORE_WIDTH = 256  # of the MLP that says how well masks fit
EPS = 1e-6  # of norms beside convolutions, in the authors' code


@dataclass(frozen=True, kw_only=True)
class Config:
    """Segment Anything on any encoder; the defaults are those on ViT-B."""

    in_channels: int = 3
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=sam_vit.Config)
    width: int = 256  # of the embedding and of tokens
    mlp_width: int = 2048  # inside the decoder's blocks

    def __post_init__(self) -> None:
        for name in ("in_channels", "mlp_width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.width < 1 or self.width % (HEADS * NARROWER):
            raise SettingError(
                f"width is {self.width}; give a multiple of {HEADS * NARROWER}, such as 256, which heads can share"
            )

    def build(self) -> "Sam":
        """The network, its weights drawn from torch's global generator."""
        return Sam(self)


class Sam(nn.Module):
    """Image (B, C, H, W) and prompts to masks (B, P, M, H/4, W/4) and their scores; sides must be multiples of `divisors`."""

    OUTPUT = "prompted_masks"
    divisors = (STRIDE,) * 2

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        is_windowed = isinstance(self.encoder, sam_vit.WindowedTransformer)  # whose last map is made of that of stride 16
        if not is_windowed and self.encoder.strides[-1] != STRIDE:
            raise SettingError(
                f"the encoder's maps have strides {', '.join(map(str, self.encoder.strides))}, and the last must have "
                f"{STRIDE}; give an encoder of output_stride {STRIDE}"
            )
        self.neck = _Neck(self.encoder.channels[-1], config.width)
        self.prompts = PromptEncoder(config.width, ends_boxes=False)
        self.decoder = _MaskDecoder(config.width, config.mlp_width)

    def forward(self, image: Tensor, prompts: Prompts | None = None) -> PromptedMasks:
        """Three answers to each prompt for images; without prompts, to one that says nothing."""
        return self.decode(self.encode(image), prompts)

    def encode(self, image: Tensor) -> Tensor:
        """The embedding (B, E, H/16, W/16) of an image (B, C, H, W), which all prompts for it share.

        Raises:
            ShapeError: the image has other channels or sides than the network takes.
        """
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        if isinstance(self.encoder, sam_vit.WindowedTransformer):
            return self.neck(self.encoder.last_map(image))
        return self.neck(self.encoder(image)[-1])

    def decode(self, embedding: Tensor, prompts: Prompts | None = None, *, multimask: bool = True) -> PromptedMasks:
        """The answers to prompts for an embedding (B, E, h, w): three masks each or, without `multimask`, one.

        A prompt may leave out any of its parts, and all of them.

        Raises:
            ShapeError: the parts of the prompts do not go with each other or with the embedding.
        """
        prompts = Prompts() if prompts is None else prompts
        B, h, w = len(embedding), int(embedding.shape[2]), int(embedding.shape[3])
        P = count_prompts(prompts, B, (4 * h, 4 * w))
        tokens = self.prompts.tokens(prompts, (B, P), (w * self.divisors[1], h * self.divisors[0]))  # (B, P, T, E)
        image = embedding.flatten(2).transpose(-2, -1)[:, None]  # (B, 1, N, E)
        image = image + self.prompts.dense(prompts, embedding.dtype)  # (B, S, N, E)
        masks, scores = self.decoder(image, self.prompts.grid(h, w), tokens, first=1 if multimask else 0)
        return PromptedMasks(lay_out_patches(masks, h, w), scores)


class _Neck(nn.Module):
    """A map (B, C, h, w) of the encoder to the embedding (B, E, h, w)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.reduce_norm = ChannelNorm(width, eps=EPS)
        self.mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.mix_norm = ChannelNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix_norm(self.mix(self.reduce_norm(self.reduce(x))))


class _MaskDecoder(nn.Module):
    """Patches (B, S, N, E) with their places (N, E) and tokens of prompts (B, P, T, E) to masks (B, P, M, 16 * N)."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1 + MASKS, width))  # of the scores, then of each mask
        self.blocks = nn.ModuleList(TwoWayBlock(width, mlp_width, HEADS, is_first=not index) for index in range(BLOCKS))
        self.last = CrossAttention(width, HEADS)
        self.last_norm = nn.LayerNorm(width)
        self.enlarge = nn.ConvTranspose2d(width, width // 4, 2, stride=2)
        self.enlarge_norm = nn.LayerNorm(width // 4, eps=EPS)
        self.enlarge_again = nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2)
        self.masks = nn.ModuleList(_mlp(width, width, width // 8) for _ in range(MASKS))
        self.scores = _mlp(width, SCORE_WIDTH, MASKS)

    def forward(self, image: Tensor, places: Tensor, prompts: Tensor, *, first: int) -> tuple[Tensor, Tensor]:
        """Masks (B, P, M, N * 16), 4 x 4 pixels for each patch, and scores (B, P, M): the first mask alone, or all others."""
        queries = self.queries.expand(*prompts.shape[:2], -1, -1)
        parts = [queries, prompts] if prompts.shape[2] else [queries]  # engines know no empty part
        begun = tokens = torch.cat(parts, dim=2)
        for block in self.blocks:
            tokens, image = block(tokens, begun, image, places)
        tokens = self.last_norm(tokens + self.last.of_tokens(tokens + begun, image + places, image))
        wanted = range(first, MASKS) if first else range(1)
        pixels = F.gelu(enlarge_patches(self.enlarge_again, F.gelu(self.enlarge_norm(enlarge_patches(self.enlarge, image)))))
        weights = torch.stack([self.masks[index](tokens[:, :, 1 + index]) for index in wanted], dim=2)  # (B, P, M, E/8)
        masks = pixels.flatten(2, 4) @ weights.transpose(-2, -1)  # (B, P, N * 16, M)
        return masks.transpose(-2, -1), self.scores(tokens[:, :, 0])[:, :, wanted.start : wanted.stop]


def _mlp(channels: int, inside: int, out: int) -> nn.Sequential:
    """Three linear layers with ReLU between them."""
    return nn.Sequential(nn.Linear(channels, inside), nn.ReLU(), nn.Linear(inside, inside), nn.ReLU(), nn.Linear(inside, out))


PRESETS = {
    "sam_vit_b": Config(),
    "sam_vit_l": Config(encoder=sam_vit.PRESETS["sam_encoder_l"]),
    "sam_vit_h": Config(encoder=sam_vit.PRESETS["sam_encoder_h"]),
    "mobile_sam": Config(encoder=tiny_vit.Config(output_stride=16)),  # Zhang et al. 2023, arXiv 2306.14289
    "sam_small": Config(encoder=timm.Config(name="regnetx_004", output_stride=16), width=128, mlp_width=512),  # for a CPU
}


def _weights(size: str, code: str, sha256: str) -> Weights:
    """A file that the authors publish."""
    return Weights(
        preset=f"sam_vit_{size}",
        address=f"https://dl.fbaipublicfiles.com/segment_anything/sam_vit_{size}_{code}.pth",
        sha256=sha256,
        licence="Apache-2.0",
        trained_on="SA-1B",
        classes=0,
    )


def _hub_weights(size: str, name: str) -> Weights:
    """The same weights on the Hugging Face hub, under its names, as a file that holds no code."""
    return Weights(
        preset=f"sam_vit_{size}",
        address=f"hf://facebook/sam-vit-{name}/model.safetensors",
        licence="Apache-2.0",
        trained_on="SA-1B",
        classes=0,
    )


WEIGHTS = {
    "sam_vit_b_sa1b": _weights("b", "01ec64", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
    "sam_vit_l_sa1b": _weights("l", "0b3195", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
    "sam_vit_h_sa1b": _weights("h", "4b8939", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
    "mobile_sam_sa1b": Weights(
        preset="mobile_sam",
        address="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        licence="Apache-2.0",
        trained_on="SA-1B (1 % of it)",
        classes=0,
    ),
    "sam_vit_b_sa1b_hub": _hub_weights("b", "base"),
    "sam_vit_l_sa1b_hub": _hub_weights("l", "large"),
    "sam_vit_h_sa1b_hub": _hub_weights("h", "huge"),
}

ENCODERS = ("image_encoder.", "vision_encoder.")  # of the authors, of Hugging Face
PARTS = {  # what it is called there (the authors, then Hugging Face), and here
    "neck.0": "neck.reduce",
    "neck.1": "neck.reduce_norm",
    "neck.2": "neck.mix",
    "neck.3": "neck.mix_norm",
    "neck.conv1": "neck.reduce",
    "neck.layer_norm1": "neck.reduce_norm",
    "neck.conv2": "neck.mix",
    "neck.layer_norm2": "neck.mix_norm",
    "prompt_encoder.mask_embed.conv1": "prompts.shrink.0",
    "prompt_encoder.mask_embed.layer_norm1": "prompts.shrink.1",
    "prompt_encoder.mask_embed.conv2": "prompts.shrink.3",
    "prompt_encoder.mask_embed.layer_norm2": "prompts.shrink.4",
    "prompt_encoder.mask_embed.conv3": "prompts.shrink.6",
    "mask_decoder.output_upscaling.0": "decoder.enlarge",
    "mask_decoder.output_upscaling.1": "decoder.enlarge_norm",
    "mask_decoder.output_upscaling.3": "decoder.enlarge_again",
    "mask_decoder.upscale_conv1": "decoder.enlarge",
    "mask_decoder.upscale_layer_norm": "decoder.enlarge_norm",
    "mask_decoder.upscale_conv2": "decoder.enlarge_again",
    "mask_decoder.transformer.norm_final_attn": "decoder.last_norm",
    "mask_decoder.transformer.layer_norm_final_attn": "decoder.last_norm",
}
WHOLE = {  # tensors that are not of a layer
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": "prompts.directions",
    "prompt_encoder.shared_embedding.positional_embedding": "prompts.directions",
    "shared_image_embedding.positional_embedding": "prompts.directions",  # the same again
    "prompt_encoder.no_mask_embed.weight": "prompts.no_mask",
}
PIECES = {  # rows of one of our tensors, in order; the authors call points "embeddings", Hugging Face "embed"
    "prompts.kinds": (
        r"prompt_encoder\.not_a_point_embed\.weight",
        *(rf"prompt_encoder\.point_embed(?:dings)?\.{kind}\.weight" for kind in range(4)),
    ),
    "decoder.queries": (r"mask_decoder\.iou_token\.weight", r"mask_decoder\.mask_tokens\.weight"),
}
BLOCK = re.compile(r"mask_decoder\.transformer\.layers\.(\d+)\.(.+)\.(weight|bias)")
ATTENTION = re.compile(r"(self_attn|cross_attn_token_to_image|cross_attn_image_to_token)\.([qkv]|out)_proj")
BLOCK_PARTS = {
    "self_attn": "attention",
    "norm1": "attention_norm",
    "cross_attn_token_to_image": "to_image",
    "norm2": "to_image_norm",
    "mlp.lin1": "widen",
    "mlp.lin2": "narrow",
    "norm3": "mlp_norm",
    "cross_attn_image_to_token": "to_tokens",
    "norm4": "to_tokens_norm",
}
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "out": "output"}
LAST = re.compile(r"mask_decoder\.transformer\.final_attn_token_to_image\.([qkv]|out)_proj\.(weight|bias)")
SHRUNK = re.compile(r"prompt_encoder\.mask_downscaling\.([01346])\.(weight|bias)")
MLP = re.compile(
    r"mask_decoder\.(output_hypernetworks_mlps\.[0-3]|iou_prediction_head)\.(layers\.[0-2]|proj_in|proj_out)\.(weight|bias)"
)


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout, MobileSAM's or Hugging Face's under our names; load them strictly.

    Raises:
        FormatError: a tensor has no place in Segment Anything, or one of several that are one here is missing; the message
            names it.
    """
    is_hub = any(key.startswith(ENCODERS[1]) for key in state_dict)
    ours, encoder, pieces = dict[str, Tensor](), dict[str, Tensor](), dict[str, dict[int, Tensor]]()
    for key, tensor in state_dict.items():
        inner = next((key.removeprefix(prefix) for prefix in ENCODERS if key.startswith(prefix)), None)
        if inner is not None and not inner.startswith("neck."):
            encoder[inner] = tensor
            continue
        row = _row_of(key)
        if row is not None:
            pieces.setdefault(row[0], {})[row[1]] = tensor
        else:
            name = _our_name(key if inner is None else inner, key, is_hub=is_hub)
            ours[name] = tensor[0] if name == "prompts.no_mask" else tensor
    for name, rows in pieces.items():
        missing = [row + 1 for row in range(len(PIECES[name])) if row not in rows]
        if missing:
            raise FormatError(f"the weights lack part {missing[0]} of {len(PIECES[name])} of {name}; take the whole file")
        ours[name] = torch.cat([rows[row] for row in range(len(rows))])
    is_tiny = any(key.startswith("patch_embed.seq.") for key in encoder)  # MobileSAM's
    renamed = (tiny_vit.rename if is_tiny else sam_vit.rename)(encoder)
    return {f"encoder.{name}": tensor for name, tensor in renamed.items()} | ours


def _row_of(key: str) -> tuple[str, int] | None:
    """Of which of our tensors a tensor is some rows, and which in order; None where it is whole."""
    for name, patterns in PIECES.items():
        for row, pattern in enumerate(patterns):
            if re.fullmatch(pattern, key):
                return name, row
    return None


def _our_name(inner: str, key: str, *, is_hub: bool) -> str:
    """The name here of a tensor, without its encoder's prefix, that a file calls `key`.

    Raises:
        FormatError: there is no such tensor.
    """
    module, _, kind = inner.rpartition(".")
    if module in PARTS:
        return f"{PARTS[module]}.{kind}"
    if key in WHOLE:
        return WHOLE[key]
    if found := SHRUNK.fullmatch(key):
        return f"prompts.shrink.{found[1]}.{found[2]}"
    if found := LAST.fullmatch(key):
        return f"decoder.last.{PROJECTIONS[found[1]]}.{found[2]}"
    if found := BLOCK.fullmatch(key):
        attention, part = ATTENTION.fullmatch(found[2]), found[2].replace("layer_norm", "norm")
        if attention:
            return f"decoder.blocks.{found[1]}.{BLOCK_PARTS[attention[1]]}.{PROJECTIONS[attention[2]]}.{found[3]}"
        if part in BLOCK_PARTS and "attn" not in part:
            return f"decoder.blocks.{found[1]}.{BLOCK_PARTS[part]}.{found[3]}"
    if found := MLP.fullmatch(key):
        owner = "scores" if found[1].startswith("iou") else f"masks.{found[1][-1]}"
        return f"decoder.{owner}.{_layer_of(found[2], is_hub=is_hub)}.{found[3]}"
    raise FormatError(
        f"the weights hold {key!r}, which Segment Anything does not; names that start with 'image_encoder.' or "
        "'vision_encoder.', 'prompt_encoder.' and 'mask_decoder.' are expected: check that the file holds it"
    )


def _layer_of(name: str, *, is_hub: bool) -> int:
    """Where a linear layer of an MLP stands among layers and ReLUs: Hugging Face counts those alone that are between two."""
    if name.startswith("proj"):
        return 0 if name == "proj_in" else 4  # the last of three layers with two ReLUs between
    return 2 * int(name[-1]) + (2 if is_hub else 0)

"""MaskFormer: Per-Pixel Classification is Not All You Need for Semantic Segmentation (Cheng et al. 2021, arXiv 2107.06278).

A fixed number of queries each answer for one segment, of a thing or of stuff: which class it has, or that there is none, and an
embedding, whose product with the features of each pixel is its mask. So one network, one loss and one training do semantic,
instance and panoptic work. Three parts:

- an encoder and a pixel decoder, a feature pyramid that smooths at each step what it hands on, give features to pixels at
  stride 4; the authors' panoptic networks on ResNets let the pixels of the deepest map heed each other first, in six layers of
  DETR's encoder (arXiv 2005.12872);
- DETR's decoder: queries, zeros beside learned positions at first, heed each other and the deepest map, layer by layer;
- in training every layer answers, and each answer is paired with the segments anew (`_maskformer_loss.py`).

Deviations from the authors' networks: dropout falls on what attention and MLPs add, as in transformers, and not within them. In
transformers' loss the first of the auxiliary terms is of queries before any layer, and the others leave out the norm behind the
decoder; here, as the authors do, each layer answers through that norm.

The authors' code and weights are CC BY-NC 4.0; transformers' code is Apache-2.0, and Mask2Former's, which has this network's
parts too, MIT. Nothing of their code is used here.

Axes: B batch, C channels, K classes, Q queries, E decoder width, M channels of pixels, L layers, N pixels of the deepest map,
H, W sides of the image, h, w sides of the masks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import STRIDES, Encoder, resnet, swin
from segwright.layers.detr_layers import DetrDecoderLayer, DetrEncoderLayer
from segwright.layers.image_check import check_image
from segwright.layers.norms import EncoderNorm, freeze_batch_norms, head_norm, hold_batch_norms, use_group_norms
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.query_masks import QueryMasks
from segwright.layers.sine_positions import sine_positions
from segwright.models._maskformer_loss import maskformer_losses

TASKS = ("panoptic", "instance", "semantic")
LEVELS = len(STRIDES)
MLP_DEPTH = 3  # linear layers that turn a query into its embedding


@dataclass(frozen=True, kw_only=True)
class Config:
    """MaskFormer on any encoder; the defaults are those of Swin-T for the 150 classes of ADE20K.

    `encoder_norm` says whether an encoder's batch norms learn, are frozen as they were trained, or are replaced by group norms.
    `encoder_layers` are those on the deepest map; with none the decoder heeds the encoder's own map.
    """

    in_channels: int = 3
    num_classes: int = 150
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=swin.Config)
    encoder_norm: EncoderNorm = "batch"
    width: int = 256  # channels of pyramid and decoder
    mask_width: int = 256  # channels of pixels and embeddings
    mlp_width: int = 2048  # channels inside the MLPs of layers
    num_heads: int = 8
    encoder_layers: int = 0
    decoder_layers: int = 6
    num_queries: int = 100
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "encoder_layers" else 1
            if isinstance(value, int) and value < least:
                raise SettingError(f"{name} is {value}; it must be {least} or more")
        if self.width % self.num_heads or self.width % 4:
            raise SettingError(
                f"the width of {self.width} does not divide among {self.num_heads} heads, and into sines and cosines along two "
                "axes; give a multiple of 4 and of the heads, such as width=256 and num_heads=8"
            )

    def build(self) -> "MaskFormer":
        """The network, its weights drawn from torch's global generator."""
        return MaskFormer(self)


class MaskFormer(nn.Module):
    """Image (B, C, H, W) to `QueryMasks` at a quarter of its sides, or, with the truth of each image, to the terms of the loss.

    The sides must be multiples of `divisors`; what lies beyond the planes of a truth is padding.
    """

    OUTPUT = "queries"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        if config.encoder_norm == "group":
            use_group_norms(self.encoder)
        elif config.encoder_norm == "frozen":
            freeze_batch_norms(self.encoder)
        self.divisors = (self.encoder.strides[-1],) * 2
        channels = tuple(self.encoder.channels[-LEVELS:])
        self.pixel_decoder = _PixelDecoder(config, channels)
        self.decoder = _Decoder(config, config.width if config.encoder_layers else channels[-1])
        self.classify = nn.Linear(config.width, config.num_classes + 1)
        sides = (*[config.width] * MLP_DEPTH, config.mask_width)
        self.embed = nn.ModuleList(nn.Linear(*pair) for pair in zip(sides[:-1], sides[1:], strict=True))

    def train(self, mode: bool = True) -> "MaskFormer":
        """Set whether it learns; the statistics of frozen norms do not."""
        super().train(mode)
        if self.config.encoder_norm == "frozen":
            hold_batch_norms(self.encoder)
        return self

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> QueryMasks | dict[str, Tensor]:
        """`QueryMasks`, or the terms of the loss, which draws nothing from the generator."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        pixels, deepest = self.pixel_decoder(self.encoder(image)[-LEVELS:])
        queries = self.decoder(deepest)
        if truth is None:
            class_logits, embeddings = self.answers(queries[-1])
            return QueryMasks(class_logits, (embeddings @ pixels.flatten(2)).unflatten(2, pixels.shape[2:]))
        height, width = image.shape[2:]
        return maskformer_losses(*self.answers(torch.stack(queries)), pixels, truth, (height, width))

    def answers(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """The class logits (*, Q, K + 1) and embeddings (*, Q, M) of queries (*, Q, E)."""
        embeddings = queries
        for number, linear in enumerate(self.embed):
            embeddings = linear(F.relu(embeddings) if number else embeddings)
        return self.classify(queries), embeddings


class _PixelDecoder(nn.Module):
    """Four maps, the finest first, to features of pixels (B, M, h, w) and the deepest map as the decoder sees it."""

    def __init__(self, config: Config, channels: tuple[int, ...]) -> None:
        super().__init__()
        *finer, deepest = channels
        width = config.width
        self.project = nn.Conv2d(deepest, width, 1) if config.encoder_layers else None
        settings = (width, config.num_heads, config.mlp_width, config.dropout)
        self.layers = nn.ModuleList(DetrEncoderLayer(*settings) for _ in range(config.encoder_layers))
        self.lateral = nn.ModuleList(_convolution(before, width, 1) for before in finer)
        inputs = [*[width] * len(finer), width if config.encoder_layers else deepest]
        self.output = nn.ModuleList(nn.Sequential(*_convolution(before, width, 3), nn.ReLU(inplace=True)) for before in inputs)
        self.pixels = nn.Conv2d(width, config.mask_width, 3, padding=1)
        _initialise(self)

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The features of pixels, and the deepest map (B, C, H/32, W/32)."""
        *finer, deepest = maps
        if self.project is not None:
            deepest = self.attended(self.project(deepest))
        x = self.output[-1](deepest)
        for level, lateral, output in zip(finer[::-1], self.lateral[::-1], self.output[-2::-1], strict=True):
            here = lateral(level)
            x = output(here + F.interpolate(x, size=here.shape[2:], mode="nearest"))
        return self.pixels(x), deepest

    def attended(self, deepest: Tensor) -> Tensor:
        """A map (B, E, *) whose pixels have heeded each other."""
        tokens, positions = _tokens(deepest), _positions(deepest)
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return tokens.unflatten(1, deepest.shape[2:]).permute(0, 3, 1, 2)


class _Decoder(nn.Module):
    """A map (B, C, *) to what queries are after each layer, normed: L times (B, Q, E)."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        width = config.width
        self.project = nn.Conv2d(channels, width, 1) if channels != width else None
        self.positions = nn.Parameter(torch.randn(config.num_queries, width))  # of the queries, learned
        settings = (width, config.num_heads, config.mlp_width, config.dropout)
        self.layers = nn.ModuleList(DetrDecoderLayer(*settings) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        _initialise(self)

    def forward(self, deepest: Tensor) -> list[Tensor]:
        """The queries after each layer."""
        return [self.norm(queries) for queries in self.raw(deepest)]

    def raw(self, deepest: Tensor) -> list[Tensor]:
        """The queries after each layer, without the norm."""
        if self.project is not None:
            deepest = self.project(deepest)
        tokens = _tokens(deepest)
        places = tokens + _positions(deepest)  # what queries look for; they take in tokens without positions
        queries = torch.zeros_like(self.positions).expand(len(tokens), -1, -1)
        states = []
        for layer in self.layers:
            queries = layer(queries, self.positions, tokens, places)
            states.append(queries)
        return states


def _tokens(level: Tensor) -> Tensor:
    """A map (B, E, *) as tokens (B, N, E)."""
    return level.flatten(2).transpose(1, 2)


def _positions(level: Tensor) -> Tensor:
    """The positions (N, E) of the pixels of a map (B, E, *)."""
    height, width = level.shape[2:]
    return sine_positions((int(height), int(width)), level.shape[1], level)  # whole numbers for an exporter too


def _convolution(before: int, after: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the size, and its group norm."""
    return nn.Sequential(nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False), head_norm("group", after))


def _initialise(part: nn.Module) -> None:
    """Caffe2's weights in convolutions, as the authors."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_RESNET50 = Config(encoder=resnet.PRESETS["resnet50"], encoder_norm="frozen")
_RESNET101C = resnet.Config(depths=(3, 4, 23, 3), stem="3x3", dilate_first=True, multi_grid=(1, 2, 4))  # detectron2's "R-103"
PRESETS = {
    "maskformer_swin_tiny": Config(),
    "maskformer_swin_small": Config(encoder=swin.PRESETS["swin_small"]),
    "maskformer_swin_base": Config(encoder=swin.PRESETS["swin_base"]),
    "maskformer_swin_large": Config(encoder=swin.PRESETS["swin_large"]),
    "maskformer_r50": _RESNET50,
    "maskformer_r101": replace(_RESNET50, encoder=resnet.PRESETS["resnet101"]),
    "maskformer_r101c": replace(_RESNET50, encoder=_RESNET101C),
    "maskformer_panoptic_r50": replace(_RESNET50, num_classes=133, encoder_layers=6),
    "maskformer_panoptic_r101": replace(_RESNET50, num_classes=133, encoder=resnet.PRESETS["resnet101"], encoder_layers=6),
    "maskformer_small": Config(  # ours, for minutes on a CPU
        encoder=resnet.PRESETS["resnet18"],
        encoder_norm="group",
        width=128,
        mask_width=64,
        mlp_width=512,
        num_heads=4,
        decoder_layers=3,
        num_queries=50,
        dropout=0.0,
    ),
}

AUTHORS = "https://dl.fbaipublicfiles.com/maskformer"
KINDS = {  # of weights, by the folder that they lie in: their name here, what taught them, how many classes, and their score
    "semantic-ade20k": ("ade20k_semantic", "ADE20K", 150, "mIoU on ADE20K val, single scale"),
    "semantic-cityscapes": ("cityscapes_semantic", "Cityscapes", 19, "mIoU on Cityscapes val, single scale"),
    "semantic-mapillary-vistas": ("mapillary_semantic", "Mapillary Vistas", 65, "mIoU on Mapillary Vistas val, single scale"),
    "panoptic-coco": ("coco_panoptic", "MS COCO train2017 with its panoptic truth", 133, "PQ on COCO val2017"),
    "panoptic-ade20k": ("ade20k_panoptic", "ADE20K with its panoptic truth", 150, "PQ on ADE20K val"),
}


def _weights(preset: str, kind: str, file: str, score: float) -> Weights:
    """A file of the authors' model zoo, with the score that it states there."""
    _, trained_on, classes, what = KINDS[kind]
    return Weights(
        preset=preset,
        address=f"{AUTHORS}/{kind}/{file}.pkl",
        licence="CC-BY-NC-4.0",
        trained_on=trained_on,
        classes=classes,
        score=f"{score} {what}",
    )


_RESNET_FILES = (  # preset, kind, file, score
    ("r50", "semantic-ade20k", "maskformer_R50_bs16_160k/model_final_d8dbeb", 44.5),
    ("r101", "semantic-ade20k", "maskformer_R101_bs16_160k/model_final_1aeb94", 45.5),
    ("r101c", "semantic-ade20k", "maskformer_R101c_bs16_160k/model_final_b432ea", 46.0),
    ("r101", "semantic-cityscapes", "maskformer_R101_bs16_90k/model_final_38c00c", 78.5),
    ("r101c", "semantic-cityscapes", "maskformer_R101c_bs16_90k/model_final_4f8ff9", 79.7),
    ("r50", "semantic-mapillary-vistas", "maskformer_R50_bs16_300k/model_final_f3fc73", 53.1),
    ("panoptic_r50", "panoptic-coco", "maskformer_panoptic_R50_bs64_554k/model_final_6f60dc", 46.5),
    ("panoptic_r101", "panoptic-coco", "maskformer_panoptic_R101_bs64_554k/model_final_57b049", 47.6),
    ("panoptic_r50", "panoptic-ade20k", "maskformer_panoptic_R50_bs16_720k/model_final_7aa977", 34.7),
    ("panoptic_r101", "panoptic-ade20k", "maskformer_panoptic_R101_bs16_720k/model_final_0b3cc8", 35.7),
)
_SWIN_FILES = (
    ("swin_tiny", "semantic-ade20k", "maskformer_swin_tiny_bs16_160k/model_final_8657a5", 46.7),
    ("swin_small", "semantic-ade20k", "maskformer_swin_small_bs16_160k/model_final_528157", 49.8),
    ("swin_base", "semantic-ade20k", "maskformer_swin_base_IN21k_384_bs16_160k_res640/model_final_45388b", 52.7),
    ("swin_large", "semantic-ade20k", "maskformer_swin_large_IN21k_384_bs16_160k_res640/model_final_aefa3b", 54.1),
    ("swin_tiny", "panoptic-coco", "maskformer_panoptic_swin_tiny_bs64_554k/model_final_539394", 47.7),
    ("swin_small", "panoptic-coco", "maskformer_panoptic_swin_small_bs64_554k/model_final_5bf6b1", 49.7),
    ("swin_base", "panoptic-coco", "maskformer_panoptic_swin_base_IN21k_384_bs64_554k/model_final_4b7f49", 51.8),
    ("swin_large", "panoptic-coco", "maskformer_panoptic_swin_large_IN21k_384_bs64_554k/model_final_7505c4", 52.7),
)
WEIGHTS = {  # the hub has them in transformers' layout too, such as hf:facebook/maskformer-swin-tiny-coco
    f"maskformer_{name.removeprefix('panoptic_')}_{KINDS[kind][0]}": _weights(f"maskformer_{name}", kind, file, score)
    for name, kind, file, score in (*_SWIN_FILES, *_RESNET_FILES)
}

ENCODERS = ("backbone.", "model.pixel_level_module.encoder.")  # of the authors' files, and of transformers'
UNUSED = ("criterion.", "pixel_mean", "pixel_std")  # weights of classes, and how images are normalised
PARTS = {  # what modules are called there (the authors', then transformers'), and here
    **{f"pixel_decoder.adapter_{number + 1}": f"pixel_decoder.lateral.{number}.0" for number in range(LEVELS - 1)},
    **{f"pixel_decoder.adapter_{number + 1}.norm": f"pixel_decoder.lateral.{number}.1" for number in range(LEVELS - 1)},
    **{f"pixel_decoder.layer_{number + 1}": f"pixel_decoder.output.{number}.0" for number in range(LEVELS)},
    **{f"pixel_decoder.layer_{number + 1}.norm": f"pixel_decoder.output.{number}.1" for number in range(LEVELS)},
    "pixel_decoder.input_proj": "pixel_decoder.project",
    "pixel_decoder.mask_features": "pixel_decoder.pixels",
    "predictor.query_embed": "decoder",
    "predictor.input_proj": "decoder.project",
    "predictor.transformer.decoder.norm": "decoder.norm",
    "predictor.class_embed": "classify",
    **{f"predictor.mask_embed.layers.{number}": f"embed.{number}" for number in range(MLP_DEPTH)},
    **{f"pixel_level_module.decoder.fpn.stem.{part}": f"pixel_decoder.output.{LEVELS - 1}.{part}" for part in range(2)},
    **{  # which counts from the deepest
        f"pixel_level_module.decoder.fpn.layers.{LEVELS - 2 - number}.{theirs}.{part}": f"pixel_decoder.{ours}.{number}.{part}"
        for number in range(LEVELS - 1)
        for theirs, ours in (("proj", "lateral"), ("block", "output"))
        for part in range(2)
    },
    "pixel_level_module.decoder.mask_projection": "pixel_decoder.pixels",
    "transformer_module.queries_embedder": "decoder",
    "transformer_module.input_projection": "decoder.project",
    "transformer_module.decoder.layernorm": "decoder.norm",
    "class_predictor": "classify",
    **{f"mask_embedder.{number}.0": f"embed.{number}" for number in range(MLP_DEPTH)},
}
LAYER = re.compile(
    r"(?:(pixel_decoder\.transformer\.encoder)|predictor\.transformer\.decoder|transformer_module\.decoder)"
    r"\.layers\.(\d+)\.(.+)"
)
LAYER_PARTS = {
    "self_attn": "attention",
    "multihead_attn": "cross_attention",
    "encoder_attn": "cross_attention",
    "norm1": "attention_norm",
    "self_attn_layer_norm": "attention_norm",
    "norm2": "cross_norm",
    "encoder_attn_layer_norm": "cross_norm",
    "linear1": "mlp.widen",
    "fc1": "mlp.widen",
    "linear2": "mlp.narrow",
    "fc2": "mlp.narrow",
    "norm3": "mlp.norm",
    "final_layer_norm": "mlp.norm",
}
PROJECTIONS = {"out_proj": "output", "q_proj": "query", "k_proj": "key", "v_proj": "value"}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout, or in transformers', on a Swin Transformer or a ResNet, under our names.

    The authors' oldest files do not say which parts are the pixel decoder's.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    encoder: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        prefix = next((prefix for prefix in ENCODERS if key.startswith(prefix)), None)
        if prefix:
            encoder[key.removeprefix(prefix)] = tensor
        elif not key.startswith(UNUSED):
            ours[_our_name(key)] = tensor
    for name in [name for name in ours if "attention.query." in name]:  # transformers holds in three what is one here
        parts = [ours.pop(name.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        ours[name.replace(".query.", ".query_key_value.")] = torch.cat(parts)
    is_swin = any(key.removeprefix("model.").startswith(("patch_embed.", "embeddings.")) for key in encoder)
    renamed = (swin if is_swin else resnet).rename(encoder)
    return {f"encoder.{name}": tensor for name, tensor in renamed.items()} | ours


def _our_name(key: str) -> str:
    """The name here of a tensor behind the encoder.

    Raises:
        FormatError: a MaskFormer holds no such tensor.
    """
    module, _, kind = key.removeprefix("model.").rpartition(".")
    if module.startswith("sem_seg_head."):
        module = module.removeprefix("sem_seg_head.")
        module = module if module.startswith(("pixel_decoder.", "predictor.")) else f"pixel_decoder.{module}"
    if (part := PARTS.get(module)) is not None:
        return f"{part}.{'positions' if part == 'decoder' else kind}"
    if found := LAYER.fullmatch(module):
        of_encoder, number, part = found.groups()
        layer = f"{'pixel_decoder' if of_encoder else 'decoder'}.layers.{number}"
        part, _, projection = part.partition(".")
        if of_encoder and part == "norm2":  # it has no other attention
            return f"{layer}.mlp.norm.{kind}"
        if part in LAYER_PARTS and kind.startswith("in_proj_"):
            return f"{layer}.{LAYER_PARTS[part]}.query_key_value.{kind.removeprefix('in_proj_')}"
        if part in LAYER_PARTS and projection in ("", *PROJECTIONS):
            name = f".{PROJECTIONS[projection]}" if projection else ""
            return f"{layer}.{LAYER_PARTS[part]}{name}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no MaskFormer has; names that start with 'backbone.' and 'sem_seg_head.', or with "
        "'model.', 'class_predictor.' and 'mask_embedder.', are expected: check that the file holds a MaskFormer"
    )

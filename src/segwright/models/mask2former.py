"""Mask2Former: masked attention for universal segmentation (Cheng et al. 2021, arXiv 2112.01527).

A set of queries asks the image what segments it has: each answers with a class, or that it is none, and a mask. The pixels of
three maps look at each other (`_deformable_pixel_decoder.py`); layer by layer, queries read one of these maps, the coarsest
first, but only where their own mask of the layer before is; and learn from all layers, at points (`set_criterion.py`). What
is a thing and what is stuff is not known here: the same network is read as semantic, instance or panoptic segmentation.

What the paper found on COCO with ResNet-50: masked attention is worth 5.9 AP, learning at points as good as on whole masks with
a third of the memory, reading three maps in turn better than the finest alone.

What is different here: a mask is the product of a query and the features of pixels. A smaller mask, as attention needs, is the
product with smaller features, which is the same and costs less; and masks of the full size are made of those queries alone that
have a segment to learn, and of the last layer. The number of layers is that of layers, where the authors' count their first
answer too.

The authors' code is MIT, their weights are CC BY-NC 4.0. Nothing of their code is used here.

Axes: B batch, C channels, K classes, Q queries, E channels of queries, S pixels of a map, H, W sides of the image.
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
from segwright.encoders import STRIDES, Encoder, resnet, swin, timm
from segwright.layers.image_check import check_image
from segwright.layers.masked_attention import MaskedDecoderLayer, outside
from segwright.layers.norms import EncoderNorm, freeze_batch_norms, hold_batch_norms, use_group_norms
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.query_masks import QueryMasks
from segwright.layers.set_criterion import QueryProducts, set_losses
from segwright.models._deformable_pixel_decoder import LEVELS, DeformablePixelDecoder, Pixels

TASKS = ("panoptic", "instance", "semantic")
MAPS = len(STRIDES)  # of the encoder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Mask2Former on any encoder; the defaults are the authors' on ResNet-50, for the 133 classes of COCO panoptic.

    `encoder_norm` says whether an encoder's batch norms learn, are frozen as they were trained, or are replaced by group norms.
    A training step compares masks at `points` points of each.
    """

    in_channels: int = 3
    num_classes: int = 133
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=resnet.Config)
    encoder_norm: EncoderNorm = "frozen"
    width: int = 256
    num_heads: int = 8
    encoder_layers: int = 6
    encoder_mlp_width: int = 1024
    decoder_layers: int = 9
    mlp_width: int = 2048
    num_queries: int = 100
    points: int = 12544

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise SettingError(f"{name} is {value}; it must be 1 or more")
        if self.width % self.num_heads or self.width % 4:
            raise SettingError(
                f"width is {self.width} and num_heads is {self.num_heads}; each head has as many channels, and rows and "
                "columns have sines and cosines: give a width that is a multiple of both num_heads and 4, such as 256"
            )

    def build(self) -> "Mask2Former":
        """The network, its weights drawn from torch's global generator."""
        return Mask2Former(self)


class Mask2Former(nn.Module):
    """Image (B, C, H, W) to `QueryMasks` at stride 4, or, with the truth of each image, to the terms of the loss, by name.

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
        width, num_heads = config.width, config.num_heads
        self.pixels = DeformablePixelDecoder(
            self.encoder.channels[-MAPS:],
            width,
            depth=config.encoder_layers,
            num_heads=num_heads,
            mlp_width=config.encoder_mlp_width,
        )
        self.query_features = nn.Parameter(torch.randn(config.num_queries, width))
        self.query_positions = nn.Parameter(torch.randn(config.num_queries, width))
        self.level_embed = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(
            MaskedDecoderLayer(width, num_heads=num_heads, mlp_width=config.mlp_width) for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, config.num_classes + 1)
        hidden = [part for _ in range(2) for part in (nn.Linear(width, width), nn.ReLU())]
        self.mask = nn.Sequential(*hidden, nn.Linear(width, width))

    def train(self, mode: bool = True) -> "Mask2Former":
        """Set whether it learns; the statistics of frozen norms do not."""
        super().train(mode)
        if self.config.encoder_norm == "frozen":
            hold_batch_norms(self.encoder)
        return self

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> QueryMasks | dict[str, Tensor]:
        """`QueryMasks`, or the terms of the loss, for which points are drawn with the generator, by default torch's own."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        pixels = self.pixels(self.encoder(image)[-MAPS:])
        answers = self.answers(pixels)
        if truth is None:
            *_, last = answers
            return QueryMasks(self.classify(last), products(self.mask(last), pixels.features))
        normed = torch.stack([*answers])  # (L, B, Q, E)
        given = QueryProducts(self.classify(normed), self.mask(normed), pixels.features)
        sides = (image.shape[2], image.shape[3])
        return set_losses(given, truth, sides, points=self.config.points, generator=generator)

    def answers(self, pixels: Pixels) -> list[Tensor]:
        """What queries know (B, Q, E), behind the norm, before the first layer and after each."""
        features = pixels.features.detach()
        small = [F.interpolate(features, size=side, mode="bilinear", align_corners=False).flatten(2) for side in pixels.sides]
        levels = [level + embed for level, embed in zip(pixels.levels, self.level_embed, strict=True)]
        x = self.query_features.expand(len(features), -1, -1)
        known = [self.norm(x)]
        for number, layer in enumerate(self.layers):
            level = number % LEVELS
            with torch.no_grad():
                bias = outside(self.mask(known[-1]) @ small[level])
            x = layer(x, self.query_positions, levels[level], pixels.positions[level], bias)
            known.append(self.norm(x))
        return known


def products(queries: Tensor, features: Tensor) -> Tensor:
    """The logits (B, Q, h, w) of masks, from queries (B, Q, E) and the features of pixels (B, E, h, w)."""
    return (queries @ features.flatten(2)).unflatten(2, features.shape[2:])


_SWIN_LARGE = Config(encoder=swin.PRESETS["swin_large"], num_queries=200)
PRESETS = {
    "mask2former_r50": Config(),
    "mask2former_r101": Config(encoder=resnet.PRESETS["resnet101"]),
    "mask2former_swin_tiny": Config(encoder=swin.PRESETS["swin_tiny"]),
    "mask2former_swin_small": Config(encoder=swin.PRESETS["swin_small"]),
    "mask2former_swin_base": Config(encoder=swin.PRESETS["swin_base"]),
    "mask2former_swin_large": _SWIN_LARGE,
    "mask2former_swin_large_semantic": replace(_SWIN_LARGE, num_classes=150, num_queries=100),
    "mask2former_small": Config(  # ours, for minutes on a CPU
        encoder=timm.Config(name="regnetx_004"),
        encoder_norm="batch",
        width=128,
        num_heads=4,
        encoder_layers=2,
        encoder_mlp_width=256,
        decoder_layers=3,
        mlp_width=256,
        num_queries=50,
        points=2048,
    ),
}

OFFICIAL = "https://dl.fbaipublicfiles.com/maskformer/mask2former"
_DATA = {  # of published weights: what they were trained on, classes, the metric and the data of the score, the authors' folder
    "coco_panoptic": ("MS COCO train2017, panoptic", 133, "PQ on COCO panoptic val2017", "coco/panoptic"),
    "coco_instance": ("MS COCO train2017", 80, "mask AP on COCO val2017", "coco/instance"),
    "ade20k_semantic": ("ADE20K", 150, "mIoU on ADE20K val, single scale", "ade20k/semantic"),
    "cityscapes_semantic": ("Cityscapes, fine annotations", 19, "mIoU on Cityscapes val, single scale", "cityscapes/semantic"),
}
_PUBLISHED = (  # preset and data, the score, and the authors' file
    ("r50_coco_panoptic", 51.9, "maskformer2_R50_bs16_50ep/model_final_94dc52"),
    ("r101_coco_panoptic", 52.6, "maskformer2_R101_bs16_50ep/model_final_b807bd"),
    ("swin_tiny_coco_panoptic", 53.2, "maskformer2_swin_tiny_bs16_50ep/model_final_9fd0ae"),
    ("swin_small_coco_panoptic", 54.6, "maskformer2_swin_small_bs16_50ep/model_final_a407fd"),
    ("swin_base_coco_panoptic", 56.4, "maskformer2_swin_base_IN21k_384_bs16_50ep/model_final_54b88a"),
    ("swin_large_coco_panoptic", 57.8, "maskformer2_swin_large_IN21k_384_bs16_100ep/model_final_f07440"),
    ("r50_coco_instance", 43.7, "maskformer2_R50_bs16_50ep/model_final_3c8ec9"),
    ("r101_coco_instance", 44.2, "maskformer2_R101_bs16_50ep/model_final_eba159"),
    ("swin_tiny_coco_instance", 45.0, "maskformer2_swin_tiny_bs16_50ep/model_final_86143f"),
    ("swin_small_coco_instance", 46.3, "maskformer2_swin_small_bs16_50ep/model_final_1e7f22"),
    ("swin_base_coco_instance", 48.1, "maskformer2_swin_base_IN21k_384_bs16_50ep/model_final_83d103"),
    ("swin_large_coco_instance", 50.1, "maskformer2_swin_large_IN21k_384_bs16_100ep/model_final_e5f453"),
    ("r50_ade20k_semantic", 47.2, "maskformer2_R50_bs16_160k/model_final_500878"),
    ("r101_ade20k_semantic", 47.8, "maskformer2_R101_bs16_90k/model_final_0d68be"),
    ("swin_tiny_ade20k_semantic", 47.7, "maskformer2_swin_tiny_bs16_160k/model_final_5274a6"),
    ("swin_small_ade20k_semantic", 51.3, "maskformer2_swin_small_bs16_160k/model_final_011c6d"),
    ("swin_base_ade20k_semantic", 53.9, "maskformer2_swin_base_IN21k_384_bs16_160k_res640/model_final_7e47bf"),
    ("swin_large_semantic_ade20k_semantic", 56.1, "maskformer2_swin_large_IN21k_384_bs16_160k_res640/model_final_6b4a3a"),
    ("r50_cityscapes_semantic", 79.4, "maskformer2_R50_bs16_90k/model_final_cc1b1f"),
    ("r101_cityscapes_semantic", 80.1, "maskformer2_R101_bs16_90k/model_final_257ce8"),
    ("swin_tiny_cityscapes_semantic", 82.1, "maskformer2_swin_tiny_bs16_90k/model_final_2d58d4"),
    ("swin_small_cityscapes_semantic", 82.6, "maskformer2_swin_small_bs16_90k/model_final_fa26ae"),
    ("swin_base_cityscapes_semantic", 83.3, "maskformer2_swin_base_IN21k_384_bs16_90k/model_final_1c6b65"),
    ("swin_large_semantic_cityscapes_semantic", 83.3, "maskformer2_swin_large_IN21k_384_bs16_90k/model_final_17c1ee"),
)


def _weights(name: str, score: float, file: str) -> Weights:
    """One of the published weights; the digits in the authors' names are of MD5."""
    data = next(data for data in _DATA if name.endswith(data))
    trained_on, classes, metric, folder = _DATA[data]
    return Weights(
        preset=f"mask2former_{name.removesuffix('_' + data)}",
        address=f"{OFFICIAL}/{folder}/{file}.pkl",
        licence="CC-BY-NC-4.0",
        trained_on=trained_on,
        classes=classes,
        score=f"{score} {metric}",
    )


WEIGHTS = {
    f"mask2former_{name.replace('_semantic_', '_')}": _weights(name, score, file) for name, score, file in _PUBLISHED
} | {  # the same in the layout of transformers
    f"mask2former_swin_tiny_{ours}_hub": replace(
        _weights(*next(each for each in _PUBLISHED if each[0] == f"swin_tiny_{ours}")),
        address=f"hf://facebook/mask2former-swin-tiny-{theirs}/model.safetensors",
    )
    for ours, theirs in (
        ("coco_panoptic", "coco-panoptic"),
        ("coco_instance", "coco-instance"),
        ("ade20k_semantic", "ade-semantic"),
    )
}

_PREFIXES = {  # of the authors' names and of the hub's, the longest first: the part of the network
    "backbone.": "encoder.",
    "model.pixel_level_module.encoder.": "encoder.",
    "sem_seg_head.pixel_decoder.": "pixels.",
    "model.pixel_level_module.decoder.": "pixels.",
    "sem_seg_head.predictor.": "",
    "model.transformer_module.": "",
    "sem_seg_head.": "pixels.",  # of the authors' first files
    "class_predictor.": "class_embed.",
}
_UNUSED = ("criterion.empty_weight",)  # the weights of classes in the loss
_LAYERS = (  # what layers are called: of the pixel decoder, of the decoder, and of the authors' decoder, in three lists
    (r"pixels\.(?:transformer\.)?encoder\.layers\.(\d+)\.(.+)", r"pixels.layers.\1.", r"\2"),
    (r"decoder\.layers\.(\d+)\.(.+)", r"layers.\1.", r"\2"),
    (r"transformer_(self|cross)_attention_layers\.(\d+)\.(.+)", r"layers.\2.", r"\1.\3"),
    (r"transformer_ffn_layers\.(\d+)\.(.+)", r"layers.\1.", r"ffn.\2"),
)
_PIXEL_LAYER_PARTS = {  # in a layer of the pixel decoder: the authors' name, the hub's, and ours
    "self_attn.sampling_offsets": "attention.offsets",
    "self_attn.attention_weights": "attention.weights",
    "self_attn.value_proj": "attention.value",
    "self_attn.output_proj": "attention.output",
    **dict.fromkeys(("norm1", "self_attn_layer_norm"), "attention_norm"),
    **dict.fromkeys(("linear1", "fc1"), "widen"),
    **dict.fromkeys(("linear2", "fc2"), "narrow"),
    **dict.fromkeys(("norm2", "final_layer_norm"), "mlp_norm"),
}
_LAYER_PARTS = {  # likewise in one of the decoder
    **dict.fromkeys(("cross.multihead_attn.in_proj", "cross_attn.in_proj"), "pixels.query_key_value"),
    **dict.fromkeys(("cross.multihead_attn.out_proj", "cross_attn.out_proj"), "pixels.output"),
    **dict.fromkeys(("cross.norm", "cross_attn_layer_norm"), "pixels_norm"),
    "self.self_attn.in_proj": "queries.query_key_value",
    **{f"self_attn.{letter}_proj": f"queries.{letter}" for letter in "qkv"},
    **dict.fromkeys(("self.self_attn.out_proj", "self_attn.out_proj"), "queries.output"),
    **dict.fromkeys(("self.norm", "self_attn_layer_norm"), "queries_norm"),
    **dict.fromkeys(("ffn.linear1", "fc1"), "widen"),
    **dict.fromkeys(("ffn.linear2", "fc2"), "narrow"),
    **dict.fromkeys(("ffn.norm", "final_layer_norm"), "mlp_norm"),
}
_PARTS = {  # all else
    **{
        f"pixels.{theirs}.{number}.{part}": f"pixels.project.{number}.{part}"
        for theirs in ("input_proj", "input_projections")
        for number in range(LEVELS)
        for part in (0, 1)
    },
    **dict.fromkeys(("pixels.adapter_1", "pixels.adapter_1.0"), "pixels.lateral.0"),
    **dict.fromkeys(("pixels.adapter_1.norm", "pixels.adapter_1.1"), "pixels.lateral.1"),
    **dict.fromkeys(("pixels.layer_1", "pixels.layer_1.0"), "pixels.smooth.0"),
    **dict.fromkeys(("pixels.layer_1.norm", "pixels.layer_1.1"), "pixels.smooth.1"),
    **dict.fromkeys(("pixels.mask_features", "pixels.mask_projection"), "pixels.join"),
    **dict.fromkeys(("decoder_norm", "decoder.layernorm"), "norm"),
    "class_embed": "classify",
    **{f"mask_embed.layers.{n}": f"mask.{2 * n}" for n in range(3)},
    **{f"decoder.mask_predictor.mask_embedder.{n}.0": f"mask.{2 * n}" for n in range(3)},
}
_TABLES = {  # tensors alone
    **dict.fromkeys(("pixels.transformer.level_embed", "pixels.level_embed"), "pixels.level_embed"),
    **dict.fromkeys(("query_feat.weight", "static_query.weight", "queries_features.weight"), "query_features"),
    **dict.fromkeys(("query_embed.weight", "queries_embedder.weight"), "query_positions"),
    "level_embed.weight": "level_embed",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the authors' Mask2Former or of transformers', on a ResNet or a Swin Transformer, under our names.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    encoder, ours = {}, {}
    for key, tensor in state_dict.items():
        if key in _UNUSED:
            continue
        prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None)
        name = key if prefix is None else _PREFIXES[prefix] + key.removeprefix(prefix)
        if name.startswith("encoder."):
            encoder[name.removeprefix("encoder.")] = tensor
        else:
            ours[_our_name(key, name)] = tensor
    is_resnet = any(key.startswith(("stem.", "res2.")) for key in encoder)
    encoder = resnet.rename(encoder) if is_resnet else swin.rename(encoder)
    return {f"encoder.{name}": tensor for name, tensor in encoder.items()} | _joined(ours)


def _our_name(key: str, name: str) -> str:
    """The name here of what a file calls `key`, and its part of the network `name`.

    Raises:
        FormatError: no Mask2Former holds such a tensor.
    """
    if name in _TABLES:
        return _TABLES[name]
    name = re.sub(r"in_proj_(weight|bias)$", r"in_proj.\1", name)
    module, _, kind = name.rpartition(".")
    if module in _PARTS:
        return f"{_PARTS[module]}.{kind}"
    for pattern, layer, part in _LAYERS:
        if found := re.fullmatch(pattern, module):
            parts = _PIXEL_LAYER_PARTS if layer.startswith("pixels.") else _LAYER_PARTS
            if found.expand(part) in parts:
                return f"{found.expand(layer)}{parts[found.expand(part)]}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no Mask2Former has; names that start with 'backbone.' and 'sem_seg_head.', or with "
        "'model.pixel_level_module.' and 'model.transformer_module.', are expected: check that the file holds a Mask2Former"
    )


def _joined(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights, where what is apart there and one here is joined, in the order of ours."""
    joined = dict(ours)
    for name in ours:
        if ".queries.q." in name:
            parts = [joined.pop(name.replace(".q.", f".{letter}.")) for letter in "qkv"]
            joined[name.replace(".q.", ".query_key_value.")] = torch.cat(parts)
        elif ".attention.offsets." in name:  # of heads, levels and places: x and y
            offsets = joined.pop(name).unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)
            weights = joined.pop(name.replace(".offsets.", ".weights."))
            joined[name.replace(".offsets.", ".sample.")] = torch.cat([offsets, weights])
    return joined

"""UPerNet: Unified Perceptual Parsing for Scene Understanding (Xiao et al. 2018, arXiv 1807.10221).

The deepest map of an encoder is pooled to 1x1, 2x2, 3x3 and 6x6 pieces (pyramid pooling, arXiv 1612.01105), so that each of its
pixels knows the whole scene; a feature pyramid (arXiv 1612.03144) hands this down to the finer maps; all four are joined at
stride 4. In training, a small convolutional head on the third map is asked too. Any encoder of this library will do.

Deviations from the paper, shared with all published weights: of the heads for scenes, objects, parts, materials and textures
only one is left, on the joined maps, as in mmsegmentation; a dropout precedes it, which Hugging Face's code leaves out.

The paper's code is for non-commercial use. mmsegmentation's is Apache-2.0, as is Hugging Face's; OpenMMLab's weights on the hub
are MIT, as their cards state. Nothing of their code is used here.

Axes: B batch, C channels, K classes, E decoder width, H, W sides of the image.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import STRIDES, Encoder, resnet, swin
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image

LEVELS = len(STRIDES)
POOLED_SIDES = (1, 2, 3, 6)  # of pyramid pooling, as in PSPNet
AUXILIARY_WEIGHT = 0.4  # of the second head's loss, as in PSPNet


@dataclass(frozen=True, kw_only=True)
class Config:
    """UPerNet on any encoder; the defaults are those of Swin-T for the 150 classes of ADE20K."""

    in_channels: int = 3
    num_classes: int = 150
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=swin.Config)
    decoder_width: int = 512  # the auxiliary head has half as many channels
    dropout: float = 0.1  # share of the channels that either classifier does not see in training

    def __post_init__(self) -> None:
        for name, least in {"in_channels": 1, "num_classes": 1, "decoder_width": 2}.items():
            if getattr(self, name) < least:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be {least} or more")

    def build(self) -> "UPerNet":
        """The network, its weights drawn from torch's global generator."""
        return UPerNet(self)


class UPerNet(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H/4, W/4), in training with those of the auxiliary head (B, K, H/16, W/16).

    The sides must be multiples of `divisors`. `encoder` and `head` alone take any size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        channels = tuple(self.encoder.channels[-LEVELS:])
        self.head = _Head(channels, config.decoder_width, config.num_classes, config.dropout)
        self.auxiliary = _Auxiliary(channels[-2], config.decoder_width // 2, config.num_classes, config.dropout)

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.encoder(image)[-LEVELS:]
        if not self.training:
            return self.head(maps)
        return WithAuxiliary(self.head(maps), (self.auxiliary(maps[-2]),), (AUXILIARY_WEIGHT,))


class _Head(nn.Module):
    """Four maps (B, channels[i], H / strides[i], W / strides[i]) to logits at the size of the first."""

    def __init__(self, channels: tuple[int, ...], width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        *finer, deepest = channels
        self.pooled = nn.ModuleList(ConvNormRelu(deepest, width, 1) for _ in POOLED_SIDES)
        self.context = ConvNormRelu(deepest + len(POOLED_SIDES) * width, width)
        self.lateral = nn.ModuleList(ConvNormRelu(count, width, 1) for count in finer)
        self.smooth = nn.ModuleList(ConvNormRelu(width, width) for _ in finer)
        self.join = ConvNormRelu(LEVELS * width, width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)
        _initialise(self)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits (B, K, H/4, W/4)."""
        *finer, deepest = maps
        if self.training and len(deepest) == 1:
            raise ShapeError(
                "one image leaves UPerNet one value per channel where it pools to 1 x 1, and it normalises by their spread; "
                "train with two images or more at a time, such as --set training.batch_size=2"
            )
        above = self._seen_as_a_whole(deepest)
        levels = [above]  # the deepest first
        for level, lateral, smooth in zip(finer[::-1], self.lateral[::-1], self.smooth[::-1], strict=True):
            above = lateral(level) + _resized(above, level)
            levels.append(smooth(above))
        joined = torch.cat([_resized(level, maps[0]) for level in levels[::-1]], dim=1)
        return self.classify(self.dropout(self.join(joined)))

    def _seen_as_a_whole(self, deepest: Tensor) -> Tensor:
        """The deepest map (B, E, H/32, W/32), mixed with means over pieces of it."""
        parts = [deepest]
        for side, convolution in zip(POOLED_SIDES, self.pooled, strict=True):
            parts.append(_resized(convolution(F.adaptive_avg_pool2d(deepest, side)), deepest))
        is_last = deepest.is_contiguous(memory_format=torch.channels_last)  # one pixel has no layout, so joining may lose it
        layout = torch.channels_last if is_last else torch.contiguous_format
        return self.context(torch.cat(parts, dim=1).contiguous(memory_format=layout))


class _Auxiliary(nn.Sequential):
    """A map (B, C, H/16, W/16) to logits of its size; parts 0, 1 and 2."""

    def __init__(self, before: int, width: int, num_classes: int, dropout: float) -> None:
        super().__init__(ConvNormRelu(before, width), nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
        _initialise(self)


def _resized(level: Tensor, like: Tensor) -> Tensor:
    """A map (B, C, *) brought to the sides of another."""
    if level.shape[2:] == like.shape[2:]:
        return level
    return F.interpolate(level, size=like.shape[2:], mode="bilinear", align_corners=False)


def _initialise(head: nn.Module) -> None:
    """As mmsegmentation: He's normal weights before each ReLU, small ones in the classifier, so that classes start level."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.get_parameter("bias"))


PRESETS = {
    "upernet_swin_tiny": Config(),
    "upernet_swin_small": Config(encoder=swin.PRESETS["swin_small"]),
    "upernet_swin_base": Config(encoder=swin.PRESETS["swin_base"]),
    "upernet_swin_large": Config(encoder=swin.PRESETS["swin_large"]),
    "upernet_resnet50": Config(encoder=resnet.Config(stem="3x3", stem_width=32)),  # mmsegmentation's, "ResNetV1c"
}

WEIGHTS = {  # converted from mmsegmentation's files, whose scores these are
    "upernet_swin_tiny_ade20k": Weights(
        preset="upernet_swin_tiny",
        address="hf://openmmlab/upernet-swin-tiny/pytorch_model.bin",  # the one of the four without a safetensors file
        licence="MIT",
        trained_on="ImageNet-1k, then ADE20K",
        classes=150,
        score="44.41 mIoU on ADE20K val, single scale",
    ),
    "upernet_swin_small_ade20k": Weights(
        preset="upernet_swin_small",
        address="hf://openmmlab/upernet-swin-small/model.safetensors",
        licence="MIT",
        trained_on="ImageNet-1k, then ADE20K",
        classes=150,
        score="47.72 mIoU on ADE20K val, single scale",
    ),
    "upernet_swin_base_ade20k": Weights(
        preset="upernet_swin_base",
        address="hf://openmmlab/upernet-swin-base/model.safetensors",
        licence="MIT",
        trained_on="ImageNet-22k, then ADE20K",
        classes=150,
        score="50.76 mIoU on ADE20K val, single scale",
    ),
    "upernet_swin_large_ade20k": Weights(
        preset="upernet_swin_large",
        address="hf://openmmlab/upernet-swin-large/model.safetensors",
        licence="MIT",
        trained_on="ImageNet-22k, then ADE20K",
        classes=150,
    ),
}

HEAD_PARTS = (  # what it is called there (in Hugging Face's files and mmsegmentation's), and here
    (r"decode_head\.psp_modules\.([0-3])\.1", r"head.pooled.\1"),
    (r"decode_head\.bottleneck", "head.context"),
    (r"decode_head\.lateral_convs\.([0-2])", r"head.lateral.\1"),
    (r"decode_head\.fpn_convs\.([0-2])", r"head.smooth.\1"),
    (r"decode_head\.fpn_bottleneck", "head.join"),
    (r"auxiliary_head\.convs\.0", "auxiliary.0"),
)
CLASSIFIERS = {"decode_head": "head.classify", "auxiliary_head": "auxiliary.2"}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of Hugging Face or mmsegmentation, on a Swin Transformer or a ResNet, under our names.

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    encoder, heads = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith("backbone."):
            encoder[key.removeprefix("backbone.")] = tensor
        else:
            heads[_head_name(key)] = tensor
    if any(key.startswith("layer1.") for key in encoder):
        stems = ((r"^stem\.7\.", "bn1."), (r"^stem\.(\d)\.", r"conv1.\1."))  # of mmsegmentation's ResNetV1c
        for pattern, name in stems:
            encoder = {re.sub(pattern, name, key): tensor for key, tensor in encoder.items()}
        encoder = resnet.rename(encoder)
    else:
        encoder = swin.rename(encoder)
    return {f"encoder.{name}": tensor for name, tensor in encoder.items()} | heads


def _head_name(key: str) -> str:
    """The name here of a tensor of either head.

    Raises:
        FormatError: no head holds such a tensor.
    """
    module, _, kind = key.rpartition(".")
    head, _, part = module.partition(".")
    if head in CLASSIFIERS and part in ("classifier", "conv_seg"):
        return f"{CLASSIFIERS[head]}.{kind}"
    block, _, layer = module.rpartition(".")
    place = {"conv": 0, "batch_norm": 1, "bn": 1}.get(layer)
    for pattern, name in HEAD_PARTS:
        if place is not None and (found := re.fullmatch(pattern, block)):
            return f"{found.expand(name)}.{place}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no UPerNet has; names that start with 'backbone.', 'decode_head.' and "
        "'auxiliary_head.' are expected: check that the file holds a UPerNet"
    )

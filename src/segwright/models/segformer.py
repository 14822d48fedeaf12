"""SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers (Xie et al. 2021, arXiv 2105.15203).

A Mix Transformer gives maps at strides 4 to 32; an all-MLP decoder brings each to one width and to stride 4, and mixes them.
Any encoder of this library can take the transformer's place.

What is different here: the decoder's two linear layers and its upsampling commute, so each level is mixed at its own size by
the product of both layers' weights, then upsampled and summed. The authors upsample first, concatenate and mix at the largest
size: the same function of the same weights, at a multiple of the cost.

The authors' code and weights are for non-commercial use only, as are Hugging Face's copies of the weights; nothing of their
code is used here. All weights were trained with norms at 1e-6 (`mit.Config.norm_eps`); Hugging Face's code runs them at 1e-5.

Axes: B batch, C channels, K classes, E decoder width, H, W sides of the image.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import STRIDES, Encoder, mit
from segwright.layers.image_check import check_image

LEVELS = len(STRIDES)


@dataclass(frozen=True, kw_only=True)
class Config:
    """SegFormer on any encoder; the defaults are SegFormer-B0 for the 150 classes of ADE20K."""

    in_channels: int = 3
    num_classes: int = 150
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=mit.Config)
    decoder_width: int = 256
    dropout: float = 0.1  # share of the decoder's channels left out in training

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "decoder_width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "SegFormer":
        """The network, its weights drawn from torch's global generator."""
        return SegFormer(self)


class SegFormer(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H/4, W/4); the sides must be multiples of `divisors`.

    `encoder` and `decoder` alone take any size; the maps are then rounded up, which shifts them against each other a little.
    """

    divisors = (STRIDES[-1],) * 2

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.decoder = Decoder(self.encoder.channels[-LEVELS:], config.decoder_width, config.num_classes, config.dropout)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H/4, W/4) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.decoder(self.encoder(image)[-LEVELS:])


class Decoder(nn.Module):
    """Four maps (B, channels[i], H / strides[i], W / strides[i]) to logits at the size of the first."""

    def __init__(self, channels: tuple[int, ...], width: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(count, width) for count in channels)
        self.fuse = nn.Conv2d(LEVELS * width, width, 1, bias=False)  # its input channels: the deepest level first
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, num_classes, 1)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")  # as the authors: a ReLU follows
        nn.init.normal_(self.classify.weight, std=0.01)  # the authors' choice: training starts at equal probabilities
        nn.init.zeros_(self.classify.get_parameter("bias"))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits (B, K, H/4, W/4)."""
        weights, bias = self.level_weights(maps[0].device.type)
        mixed = F.linear(maps[0].permute(0, 2, 3, 1), weights[0], bias).permute(0, 3, 1, 2)  # (B, E, H/4, W/4)
        for level, weight in zip(maps[1:], weights[1:], strict=True):
            small = F.linear(level.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
            mixed = mixed + F.interpolate(small, size=mixed.shape[2:], mode="bilinear", align_corners=False)
        return self.classify(self.dropout(F.relu(self.norm(mixed))))

    def level_weights(self, device: str) -> tuple[list[Tensor], Tensor]:
        """What projection and fusion are together: one weight (E, channels[i]) per level and one bias (E,) for their sum.

        Interpolation weights add up to one, so a bias may be added after it. The products are kept in full precision.
        """
        with torch.autocast("cpu" if device == "meta" else device, enabled=False):  # the meta device knows no autocast
            parts = self.fuse.weight.flatten(1).chunk(LEVELS, dim=1)[::-1]  # each (E, E)
            layers: Any = self.project
            weights = [part @ layer.weight for part, layer in zip(parts, layers, strict=True)]
            biases = [part @ layer.bias for part, layer in zip(parts, layers, strict=True)]
            return weights, torch.stack(biases).sum(dim=0)


WIDE_DECODER = 768  # of B2 to B5
PRESETS = {
    "segformer_b0": Config(),
    "segformer_b1": Config(encoder=mit.PRESETS["mit_b1"]),
    "segformer_b2": Config(encoder=mit.PRESETS["mit_b2"], decoder_width=WIDE_DECODER),
    "segformer_b3": Config(encoder=mit.PRESETS["mit_b3"], decoder_width=WIDE_DECODER),
    "segformer_b4": Config(encoder=mit.PRESETS["mit_b4"], decoder_width=WIDE_DECODER),
    "segformer_b5": Config(encoder=mit.PRESETS["mit_b5"], decoder_width=WIDE_DECODER),
}


def _weights(size: str, data: str, crop: str, score: float) -> Weights:
    """A file of the authors' weights that NVIDIA publishes on the Hugging Face hub, with the paper's score (tables 1 and 2)."""
    return Weights(
        preset=f"segformer_{size}",
        address=f"hf://nvidia/segformer-{size}-finetuned-{data}-{crop}/pytorch_model.bin",
        licence=mit.LICENCE,
        trained_on={"ade": "ADE20K", "cityscapes": "Cityscapes"}[data],
        classes={"ade": 150, "cityscapes": 19}[data],
        score=f"{score} mIoU on {'ADE20K' if data == 'ade' else 'Cityscapes'} val, single scale",
    )


WEIGHTS = {
    "segformer_b0_ade20k": _weights("b0", "ade", "512-512", 37.4),
    "segformer_b1_ade20k": _weights("b1", "ade", "512-512", 42.2),
    "segformer_b2_ade20k": _weights("b2", "ade", "512-512", 46.5),
    "segformer_b3_ade20k": _weights("b3", "ade", "512-512", 49.4),
    "segformer_b4_ade20k": _weights("b4", "ade", "512-512", 50.3),
    "segformer_b5_ade20k": _weights("b5", "ade", "640-640", 51.0),
    "segformer_b0_cityscapes": _weights("b0", "cityscapes", "1024-1024", 76.2),
    "segformer_b1_cityscapes": _weights("b1", "cityscapes", "1024-1024", 78.5),
    "segformer_b2_cityscapes": _weights("b2", "cityscapes", "1024-1024", 81.0),
    "segformer_b3_cityscapes": _weights("b3", "cityscapes", "1024-1024", 81.7),
    "segformer_b4_cityscapes": _weights("b4", "cityscapes", "1024-1024", 82.3),
    "segformer_b5_cityscapes": _weights("b5", "cityscapes", "1024-1024", 82.4),
}

DECODER_PARTS = {  # what it is called there (Hugging Face, then the authors), and here
    "linear_c.0.proj": "project.0",
    "linear_c.1.proj": "project.1",
    "linear_c.2.proj": "project.2",
    "linear_c.3.proj": "project.3",
    "linear_fuse": "fuse",
    "batch_norm": "norm",
    "classifier": "classify",
    "linear_c1.proj": "project.0",
    "linear_c2.proj": "project.1",
    "linear_c3.proj": "project.2",
    "linear_c4.proj": "project.3",
    "linear_fuse.conv": "fuse",
    "linear_fuse.bn": "norm",
    "linear_pred": "classify",
}
UNUSED = ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")  # lie in the authors' files, no forward pass reads them


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the authors' layout or in Hugging Face's under our names; load them with `load_state_dict`, strictly.

    Raises:
        FormatError: a tensor has no place in a SegFormer; the message names it.
    """
    encoder, decoder = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith(("backbone.", "segformer.")):
            encoder[key.split(".", 1)[1]] = tensor
        elif key not in UNUSED:
            decoder[_decoder_name(key)] = tensor
    return {f"encoder.{name}": tensor for name, tensor in mit.rename(encoder).items()} | decoder


def _decoder_name(key: str) -> str:
    """The name here of a tensor of the decoder in the authors' or Hugging Face's files.

    Raises:
        FormatError: the decoder holds no such tensor.
    """
    module, _, kind = key.rpartition(".")
    part = DECODER_PARTS.get(module.removeprefix("decode_head."))
    if part is None or not key.startswith("decode_head."):
        raise FormatError(
            f"the weights hold {key!r}, which no SegFormer has; names that start with 'backbone.' or 'segformer.' and "
            "with 'decode_head.' are expected: check that the file holds a SegFormer"
        )
    return f"decoder.{part}.{kind}"

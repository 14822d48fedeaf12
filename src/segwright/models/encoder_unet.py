"""TernausNet: U-Net with VGG11 Encoder Pre-Trained on ImageNet (Iglovikov, Shvets 2018, arXiv 1801.05746).

A U-Net whose encoder is a classifier that was trained before. The decoder doubles the deepest map until it has the size of the
image; at each size it takes the encoder's map of that size beside its own, where the encoder has one, and mixes both.

The form here is that of segmentation_models_pytorch, which most people train: the maps double by repeating each pixel, two
convolutions with norms follow, and no block stands between encoder and decoder. The authors' network, on VGG, doubles by a
transposed convolution instead, has no norms, and starts from the encoder's last map pooled once more.

What is different here: the convolution that mixes the two maps is the sum of one on each, by the two parts of the same weights,
so that no map is copied to lie beside another. The names of all weights are those of one convolution.

The authors' code and segmentation_models_pytorch are MIT licensed; neither publishes weights of whole networks.

Axes: B batch, C channels, K classes, H, W sides of the image, h, w sides of a map.
"""

import re
from dataclasses import dataclass, field
from math import log2
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.encoders import Encoder, resnet
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image


@dataclass(frozen=True, kw_only=True)
class Config:
    """A U-Net on any encoder; the defaults are segmentation_models_pytorch's, on ResNet-34."""

    in_channels: int = 3
    num_classes: int = 2
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: resnet.PRESETS["resnet34"])
    decoder_widths: tuple[int, ...] = (256, 128, 64, 32, 16)  # one for each stage, the deepest first

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.decoder_widths or min(self.decoder_widths) < 1:
            raise SettingError(
                f"decoder_widths is {list(self.decoder_widths)}; each stage needs a channel, such as [256, 128, 64, 32, 16]"
            )

    def build(self) -> "EncoderUNet":
        """The network, its weights drawn from torch's global generator.

        Raises:
            SettingError: the encoder needs another number of stages than `decoder_widths` has.
        """
        return EncoderUNet(self)


class EncoderUNet(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H, W); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.decoder = Decoder(self.encoder.channels, self.encoder.strides, config.decoder_widths)
        self.head = nn.Conv2d(config.decoder_widths[-1], config.num_classes, 3, padding=1)
        self.divisors = (self.encoder.strides[-1],) * 2
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.get_parameter("bias"))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, H, W) of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.head(self.decoder(self.encoder(image)))


class Decoder(nn.ModuleList):
    """Maps (B, channels[i], h / strides[i], w / strides[i]) to one (B, widths[-1], h, w), stage by stage."""

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], widths: tuple[int, ...]) -> None:
        plain = round(log2(strides[0]))  # stages past the encoder's finest map, each of which doubles the sides
        skips = (*channels[-2::-1], *[0] * plain)
        if len(skips) != len(widths):
            raise SettingError(
                f"decoder_widths is {list(widths)}, {len(widths)} stages, but this encoder's maps at strides {list(strides)} "
                f"need {len(skips)}; give {len(skips)} widths, the deepest first"
            )
        before = (channels[-1], *widths)
        super().__init__(_Stage(below, skip, width) for below, skip, width in zip(before, skips, widths, strict=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The finest map of the decoder (B, widths[-1], h, w)."""
        x, *skips = maps[::-1]
        for number, stage in enumerate(self):
            x = stage(x, skips[number] if number < len(skips) else None)
        return x


class _Stage(nn.Module):
    """A map (B, below, h, w), brought to the size of the encoder's map (B, skip, 2h, 2w), and both mixed."""

    def __init__(self, below: int, skip: int, width: int) -> None:
        super().__init__()
        self.parts = [below, skip] if skip else [below]
        self.conv1 = ConvNormRelu(below + skip, width)
        self.conv2 = ConvNormRelu(width, width)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """The mix (B, width, 2h, 2w). An encoder of a small output stride has maps of one size, which stay as they are."""
        convolution, norm, relu = self.conv1.children()
        weights = convolution.get_parameter("weight").split(self.parts, dim=1)
        size = [2 * side for side in x.shape[2:]] if skip is None else list(skip.shape[2:])
        if size != list(x.shape[2:]):
            x = F.interpolate(x, size=size, mode="nearest")
        x = F.conv2d(x, weights[0], padding=1)
        if skip is not None:
            x = x + F.conv2d(skip, weights[1], padding=1)
        return self.conv2(relu(norm(x)))


PRESETS = {
    "unet_resnet18": Config(encoder=resnet.PRESETS["resnet18"]),
    "unet_resnet34": Config(),
    "unet_resnet50": Config(encoder=resnet.PRESETS["resnet50"]),
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in segmentation_models_pytorch's layout under our names; load them with `load_state_dict`, strictly.

    The encoder may be a ResNet, or any of timm's, whose names there start with "tu-".

    Raises:
        FormatError: a tensor has no place in such a network; the message names it.
    """
    encoder, ours = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith("encoder.model."):
            ours[key.replace(".model.", ".network.", 1)] = tensor
        elif key.startswith("encoder."):
            encoder[key.removeprefix("encoder.")] = tensor
        elif found := re.fullmatch(r"decoder\.blocks(\.\d+\.conv[12]\.[01]\.\w+)", key):
            ours[f"decoder{found[1]}"] = tensor
        elif found := re.fullmatch(r"segmentation_head\.0(\.\w+)", key):
            ours[f"head{found[1]}"] = tensor
        else:
            raise FormatError(
                f"the weights hold {key!r}, which no U-Net on an encoder has; names that start with 'encoder.', "
                "'decoder.blocks.' and 'segmentation_head.0.' are expected: check that the file holds a U-Net without "
                "attention"
            )
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | ours

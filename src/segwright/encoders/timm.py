"""Any network of timm (PyTorch Image Models, Wightman 2019) that gives maps at strides 4, 8, 16 and 32, as an encoder.

A map at stride 2 comes before these where the network has one.

timm is imported when a network is built: it takes a second, and plans that only name an encoder do not need it.

Axes: B batch, C channels, H, W sides of the image.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segwright.core.errors import SettingError, ShapeError, UnknownNameError
from segwright.core.lookup import did_you_mean
from segwright.encoders import STRIDES

PROBE_SIDES = (96, 160)  # multiples of 32 but of no power of two above it, and unequal: what works here works at any multiple


@dataclass(frozen=True, kw_only=True)
class Config:
    """A network by timm's name for it, such as "resnet18" or "convnext_tiny.in12k".

    Of an output stride below 32, which most convolutional networks of timm can have, the last maps keep that stride.
    """

    name: str = "resnet18"
    output_stride: Literal[8, 16, 32] = 32

    def build(self, in_channels: int = 3) -> "TimmEncoder":
        """The encoder, its weights drawn from torch's global generator.

        Raises:
            UnknownNameError: timm has no network of that name.
            SettingError: the network gives no maps at strides 4, 8, 16 and 32, or works at one image size only.
        """
        import timm

        if not timm.is_model(self.name):
            raise UnknownNameError(
                f"timm has no network '{self.name}'{did_you_mean(self.name, timm.list_models())}; "
                "timm.list_models() lists all that it has"
            )
        return TimmEncoder(self, in_channels)


class TimmEncoder(nn.Module):
    """Image (B, C, H, W) to maps (B, channels[i], H / strides[i], W / strides[i]), of which the last four are all encoders'."""

    def __init__(self, config: Config, in_channels: int) -> None:
        super().__init__()
        self.name, self.in_channels = config.name, in_channels
        options = {"output_stride": config.output_stride} if config.output_stride < STRIDES[-1] else {}
        self.strides, self.channels, self.levels, self.is_channels_last = _probe(config, in_channels, options)
        self.network = create(config.name, in_channels, out_indices=self.levels, **options)
        self.has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in self.network.modules())

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps, the finest first.

        Raises:
            ShapeError: in training, batch normalisation would have one value per channel, which has no spread.
        """
        height, width = image.shape[2:]
        if self.training and self.has_batch_norm and len(image) == 1 and max(height, width) <= self.strides[-1]:
            raise ShapeError(
                f"one image of {height} x {width} leaves {self.name} one value per channel, and it normalises by their spread; "
                f"train with larger crops, such as --set training.crop=[{2 * height},{2 * width}], or with two at a time"
            )
        maps = self.network(image)
        return [level.permute(0, 3, 1, 2) for level in maps] if self.is_channels_last else list(maps)


def fetch(encoder: TimmEncoder) -> dict[str, Tensor]:
    """The weights that timm publishes for an encoder, under the encoder's own names; the only place that asks the internet.

    Raises:
        SettingError: they cannot be fetched.
    """
    try:
        network = create(encoder.name, encoder.in_channels, pretrained=True, out_indices=encoder.levels)
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"the weights of timm's '{encoder.name}' could not be fetched ({error}); "
            'connect to the internet, or leave out init.weights = "timm"'
        ) from error
    return {f"network.{name}": tensor for name, tensor in network.state_dict().items()}


def create(name: str, in_channels: int, **options: Any) -> nn.Module:
    """timm's network, reduced to what its maps need."""
    import timm

    if name.startswith("swin"):
        options["strict_img_size"] = False  # Swin can take any size, but refuses all but one by default
    return timm.create_model(name, features_only=True, in_chans=in_channels, **options)


def _probe(
    config: Config, in_channels: int, options: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """What a network puts out: strides and channels of its maps, timm's indices of them, and whether channels are last.

    It runs on the meta device, which knows shapes and computes nothing.

    Raises:
        SettingError: it lacks one of the maps, or cannot run on an image of any size.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            network = create(config.name, in_channels, **options).eval()
            maps = network(torch.zeros(1, in_channels, *PROBE_SIDES))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        stride = f" with an output stride of {config.output_stride}" if options else ""
        raise SettingError(
            f"timm's '{config.name}' does not work as an encoder of images of any size{stride} ({error}); "
            "take a network that does, such as 'resnet18' or 'convnext_tiny'"
        ) from error
    info: Any = network.feature_info
    reductions, chosen = info.reduction(), []
    for number, stride in enumerate(reductions):  # of two maps at one stride, the later, unless the output stride makes them so
        is_last = stride not in reductions[number + 1 :]
        if stride in (2, *STRIDES) and (is_last or stride == config.output_stride):
            chosen.append(number)
    strides = tuple(reductions[number] for number in chosen)
    for channels_axis in (1, -1):
        shapes = [tuple(maps[number].movedim(channels_axis, 1).shape[2:]) for number in chosen]
        wanted = [tuple(side // stride for side in PROBE_SIDES) for stride in strides]
        if shapes == wanted and strides[-len(STRIDES) :] == tuple(min(stride, config.output_stride) for stride in STRIDES):
            channels = tuple(maps[number].shape[channels_axis] for number in chosen)
            return strides, channels, tuple(info.out_indices[number] for number in chosen), channels_axis == -1
    raise SettingError(
        f"timm's '{config.name}' turns an image {_shown(1, in_channels, *PROBE_SIDES)} into maps "
        f"{', '.join(_shown(*level.shape) for level in maps)}, but sides of exactly 1/4, 1/8, 1/16 and 1/32 are needed; "
        "take a network of four stages, such as 'resnet18' or 'convnext_tiny'"
    )


def _shown(*sides: int) -> str:
    """A shape as people write it: 1 x 3 x 96 x 160."""
    return " x ".join(map(str, sides))

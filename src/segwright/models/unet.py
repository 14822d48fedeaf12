"""U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer, Brox 2015, arXiv 1505.04597).

An encoder of 3x3 convolutions and 2x2 max pooling, a decoder that doubles the sides again, and at each size a skip that hands
the encoder's map to the decoder by concatenation. The same file serves 2D and 3D (3D U-Net, arXiv 1606.06650).

Volumes of thick slices have few pixels along one axis, and neighbours there are far apart: nnU-Net (arXiv 1809.10486) halves
such an axis fewer times, and convolves along it only once pixels are as far apart along the others. Its deep supervision
(arXiv 1409.5185) classifies coarser maps of the decoder too, each counted half as much as the one before; here their logits are
compared with the truth at full size, where nnU-Net shrinks the truth.

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
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.image_check import check_image
from segwright.layers.upsample import CONVOLUTION, SubpixelConvolution, UpsamplingWay, upsampling

BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A U-Net of `depth` sizes; stage i has min(width * 2**i, max_width) channels.

    `strides` say how much each stage but the first shrinks each axis, `kernels` how far the convolutions of each stage reach
    along each; where they are empty, 2 and 3. `upsampling` is one of the ways of `layers.upsample`. In training,
    `deep_supervision` maps of the decoder have heads of their own beside the last.
    """

    in_channels: int = 3
    num_classes: int = 2
    width: int = 64
    depth: int = 5
    max_width: int = 1024
    norm: Literal["batch", "instance"] = "batch"
    upsampling: UpsamplingWay = "transposed"
    axes: Literal[2, 3] = 2
    strides: tuple[tuple[int, ...], ...] = ()
    kernels: tuple[tuple[int, ...], ...] = ()
    deep_supervision: int = 0

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "width", "depth", "max_width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name, stages in (("strides", self.depth - 1), ("kernels", self.depth)):
            given = getattr(self, name)
            fits = len(given) == stages and all(len(stage) == self.axes and min(stage) > 0 for stage in given)
            if given and not fits:
                raise SettingError(
                    f"{name} is {[list(stage) for stage in given]}; a U-Net of {self.depth} stages on {self.axes} axes needs "
                    f"{stages} times {self.axes} numbers above 0, or none at all"
                )
        if any(side % 2 == 0 for stage in self.kernels for side in stage):
            raise SettingError(
                f"kernels is {[list(stage) for stage in self.kernels]}; each must be odd, as only an odd one has a middle"
            )
        if not 0 <= self.deep_supervision <= max(self.depth - 2, 0):
            raise SettingError(
                f"deep_supervision is {self.deep_supervision}; a U-Net of {self.depth} stages has "
                f"{max(self.depth - 2, 0)} maps in its decoder besides the last, so give 0 to {max(self.depth - 2, 0)}"
            )

    def build(self) -> "UNet":
        """The network, its weights drawn from torch's global generator."""
        return UNet(self)


class UNet(nn.Module):
    """Image (B, C, *S) to logits (B, K, *S); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        axes = config.axes
        strides = config.strides or ((2,) * axes,) * (config.depth - 1)
        kernels = config.kernels or ((3,) * axes,) * config.depth
        self.divisors = tuple(prod(stage[axis] for stage in strides) for axis in range(axes))
        widths = [min(config.width * 2**stage, config.max_width) for stage in range(config.depth)]
        self.encoder = nn.ModuleList(
            _double_convolution(before, width, kernel, config)
            for before, width, kernel in zip([config.in_channels, *widths], widths, kernels, strict=False)
        )
        self.pool = nn.ModuleList(POOL[axes](stride) for stride in strides)
        self.up = nn.ModuleList(
            upsampling(config.upsampling, below, width, stride)
            for width, below, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.decoder = nn.ModuleList(
            _double_convolution(2 * width, width, kernel, config) for width, kernel in zip(widths[:-1], kernels, strict=False)
        )
        self.head = CONVOLUTION[axes](widths[0], config.num_classes, 1)
        self.auxiliary = nn.ModuleList(
            CONVOLUTION[axes](width, config.num_classes, 1) for width in widths[1 : 1 + config.deep_supervision]
        )
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits (B, K, *S) of an image (B, C, *S); in training with those of the coarser maps under deep supervision."""
        check_image(image, channels=self.config.in_channels, axes=self.config.axes, divisors=self.divisors)
        self.check_statistics(image)
        x = self.encoder[0](image)
        skips = [x]
        for pool, block in zip(self.pool, self.encoder[1:], strict=True):
            x = block(pool(x))  # (B, width * 2**stage, *S / 2**stage) if strides are 2
            skips.append(x)
        auxiliary: list[Tensor] = []
        for stage in reversed(range(len(self.decoder))):
            x = self.decoder[stage](torch.cat([skips[stage], self.up[stage](x)], dim=1))
            if self.training and 0 < stage <= len(self.auxiliary):
                auxiliary.insert(0, self.auxiliary[stage - 1](x))
        if not auxiliary:
            return self.head(x)
        weights = tuple(0.5**stage for stage in range(1, len(auxiliary) + 1))  # as nnU-Net: half for each stage
        return WithAuxiliary(self.head(x), tuple(auxiliary), weights)

    def check_statistics(self, image: Tensor) -> None:
        """Refuse an image whose deepest map leaves a norm one single value to normalise, which would always give 0."""
        is_batch = self.config.norm == "batch"
        values = prod(image.shape[2:]) // prod(self.divisors) * (image.shape[0] if is_batch else 1)
        if values == 1 and (self.training or not is_batch):
            raise ShapeError(
                f"images of {' x '.join(map(str, image.shape[2:]))} leave one pixel at the deepest of {self.config.depth} "
                f"stages, which a norm cannot work on; pad the last side to {2 * self.divisors[-1]} or build it with a smaller "
                "depth"
            )


def _double_convolution(before: int, width: int, kernel: tuple[int, ...], config: Config) -> nn.Sequential:
    """Twice convolution (3x3 if not said otherwise), norm, ReLU: (B, before, *S) to (B, width, *S)."""
    layers: list[nn.Module] = []
    padding = tuple(side // 2 for side in kernel)
    for channels in (before, width):
        convolution = CONVOLUTION[config.axes](
            channels, width, kernel, padding=padding, bias=False
        )  # the norm takes a bias out again
        layers += [convolution, _norm(width, config), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _norm(width: int, config: Config) -> nn.Module:
    """Batch or instance norm with a learned scale and shift."""
    if config.norm == "batch":
        return BATCH_NORM[config.axes](width)
    return INSTANCE_NORM[config.axes](width, affine=True)  # the equal GroupNorm has a backward pass half as fast on CPU


def _initialise(network: UNet) -> None:
    """He's normal weights, as in the paper: they keep the variance through convolution and ReLU. Biases start at 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            is_head = module is network.head or module in network.auxiliary  # no ReLU follows it
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if is_head else "relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.up:
        if isinstance(module, SubpixelConvolution):
            module.make_pixels_equal()


PRESETS = {
    "unet": Config(),  # the paper's widths 64 to 1024
    "unet_small": Config(width=32, max_width=512),
    "unet_tiny": Config(width=16, max_width=256),
    # 32 to 320 channels and instance norm are what nnU-Net found best for volumes, of which few fit into a batch
    "unet_3d": Config(in_channels=1, width=32, max_width=320, norm="instance", axes=3),
    # the kind of plan that nnU-Net makes for slices a few times as thick as their pixels are wide
    "unet_3d_anisotropic": Config(
        in_channels=1,
        width=32,
        max_width=320,
        norm="instance",
        axes=3,
        strides=((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        deep_supervision=2,
    ),
}

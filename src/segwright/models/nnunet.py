"""nnU-Net: a self-configuring method for biomedical image segmentation (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

The networks of nnU-Net: the plain U-Net, and the one with a residual encoder (nnU-Net Revisited, arXiv 2404.09556), in 2D and
3D. How many stages they have, and how far each shrinks and joins pixels along each axis, `stages` derives from the spacing and
the patch, which `planning/nnunet_topology.py` derives from the data. In training every map of the decoder has logits (deep
supervision, arXiv 1409.5185), each counted half as much as the one above it.

What is different from models/unet.py, so that neither can hold the weights of the other: the first convolution of a stage
shrinks the map, where the U-Net has max pooling; LeakyReLU follows norms, where it has ReLU; the decoder puts what comes from
below before the skip; widths are capped and need not double; stages of the encoder may be residual blocks. In such a block the
shortcut is the mean of what the stride covers, and behind it a 1x1 convolution where the number of channels changes (ResNet-D,
arXiv 1812.01187).

Deviations from the authors' code: convolutions before a norm have no bias, since an instance norm takes out what it adds, so
that outputs stay the same; no residual branch begins at 0; there is no dropout, as in all of their plans. Code and method are
under Apache-2.0. Trained weights belong to data sets and come as model folders, which `segwright.load` opens.

Axes: B batch, C channels, K classes, *S spatial axes, (H, W) or (D, H, W).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

import torch
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.image_check import check_image
from segwright.layers.norms import InstanceNorm
from segwright.layers.upsample import CONVOLUTION, TRANSPOSED

MEAN_POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
SLOPE = 0.01  # of LeakyReLU below 0, torch's default
PLAIN_DEPTH, PLAIN_DECODER_DEPTH = 2, 2  # convolutions of a stage
NEAR = 2  # spacings that differ by less are shrunk and convolved together
_SMALLEST_MAP = 4  # pixels of a side that the deepest stage keeps
_BOTTLENECK_KERNEL = 3
RESIDUAL_DEPTHS, RESIDUAL_DECODER_DEPTH = (1, 3, 4, 6), 1  # residual blocks of the first stages; the last number goes on


@dataclass(frozen=True, kw_only=True)
class Config:
    """An nnU-Net with a stage for each of `features`, the channels of its maps.

    `strides` say how much each stage but the first shrinks each axis, `kernels` how far the convolutions of each stage reach
    along each; where they are empty, 2 and 3. `encoder_depths` are the convolutions of each stage of the encoder, its residual
    blocks if it `is_residual`, and `decoder_depths` the convolutions of each stage of the decoder, from the finest on; where
    they are empty, those of nnU-Net's own plans.
    """

    in_channels: int = 1
    num_classes: int = 2
    axes: Literal[2, 3] = 3
    features: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    strides: tuple[tuple[int, ...], ...] = ()
    kernels: tuple[tuple[int, ...], ...] = ()
    is_residual: bool = False
    encoder_depths: tuple[int, ...] = ()
    decoder_depths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        stages = len(self.features)
        if stages < 2 or min(self.features) < 1:
            raise SettingError(f"features is {list(self.features)}; give the channels, 1 or more, of at least two stages")
        for name, count in (("strides", stages - 1), ("kernels", stages)):
            given = getattr(self, name)
            fits = len(given) == count and all(len(stage) == self.axes and min(stage) > 0 for stage in given)
            if given and not fits:
                raise SettingError(
                    f"{name} is {[list(stage) for stage in given]}; an nnU-Net of {stages} stages on {self.axes} axes needs "
                    f"{count} times {self.axes} numbers above 0, or none at all"
                )
        if any(side % 2 == 0 for stage in self.kernels for side in stage):
            raise SettingError(
                f"kernels is {[list(stage) for stage in self.kernels]}; each must be odd, as only an odd one has a middle"
            )
        for name, count in (("encoder_depths", stages), ("decoder_depths", stages - 1)):
            depths = getattr(self, name)
            if depths and (len(depths) != count or min(depths) < 1):
                raise SettingError(
                    f"{name} is {list(depths)}; an nnU-Net of {stages} stages needs {count} numbers above 0, or none at all"
                )

    @property
    def encoder_blocks(self) -> tuple[int, ...]:
        """The convolutions or residual blocks of each stage of the encoder."""
        stages = len(self.features)
        if self.encoder_depths or not self.is_residual:
            return self.encoder_depths or (PLAIN_DEPTH,) * stages
        return (RESIDUAL_DEPTHS + RESIDUAL_DEPTHS[-1:] * stages)[:stages]

    @property
    def decoder_blocks(self) -> tuple[int, ...]:
        """The convolutions of each stage of the decoder, from the finest on."""
        depth = RESIDUAL_DECODER_DEPTH if self.is_residual else PLAIN_DECODER_DEPTH
        return self.decoder_depths or (depth,) * (len(self.features) - 1)

    def build(self) -> "NnUNet":
        """The network, its weights drawn from torch's global generator."""
        return NnUNet(self)


def stages(
    spacing_mm: Sequence[float], patch: Sequence[float]
) -> tuple[tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...], tuple[int, ...]], str]:
    """The strides of each stage but the first, the kernels of each, and the patch made to fit, for a patch (n,).

    Axes are halved while they keep pixels enough, those of the smallest spacings first. Once an axis is about as fine as the
    finest, kernels join its pixels.
    """
    axes = range(len(spacing_mm))
    spacing, sides, halvings = list(spacing_mm), list(patch), [0 for _ in axes]
    kernel, strides, kernels = [1 for _ in axes], list[tuple[int, ...]](), list[tuple[int, ...]]()
    while True:
        large = [axis for axis in axes if sides[axis] >= 2 * _SMALLEST_MAP]
        halved = [axis for axis in large if spacing[axis] / min(spacing[other] for other in large) < NEAR]
        if not halved or (len(halved) == 1 and sides[halved[0]] < 3 * _SMALLEST_MAP):
            break
        kernel = [3 if kernel[axis] == 3 or spacing[axis] / min(spacing) < NEAR else 1 for axis in axes]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            halvings[axis] += 1
            spacing[axis] *= 2
            sides[axis] = ceil(sides[axis] / 2)
    kernels.append((_BOTTLENECK_KERNEL,) * len(axes))
    fitting = tuple(ceil(side / 2**count) * 2**count for side, count in zip(patch, halvings, strict=True))
    reason = f"axes are halved {', '.join(map(str, halvings))} times, while {_SMALLEST_MAP} pixels or more are left"
    return (tuple(strides), tuple(kernels), fitting), reason


class NnUNet(nn.Module):
    """Image (B, C, *S) to logits (B, K, *S); the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        axes, features = config.axes, config.features
        strides = config.strides or ((2,) * axes,) * (len(features) - 1)
        kernels = config.kernels or ((3,) * axes,) * len(features)
        self.divisors = tuple(prod(stage[axis] for stage in strides) for axis in range(axes))
        self.encoder, before = nn.ModuleList(), config.in_channels
        stages = zip(features, kernels, ((1,) * axes, *strides), config.encoder_blocks, strict=True)
        for width, kernel, stride, depth in stages:
            if config.is_residual:
                stem = [] if self.encoder else [_convolution(before, width, kernel, stride)]
                self.encoder.append(nn.Sequential(*stem, *_residuals(width if stem else before, width, kernel, stride, depth)))
            else:
                self.encoder.append(_convolutions(before, width, kernel, stride, depth))
            before = width
        self.up = nn.ModuleList(
            TRANSPOSED[axes](below, width, stride, stride)
            for width, below, stride in zip(features, features[1:], strides, strict=False)
        )
        self.decoder = nn.ModuleList(
            _convolutions(2 * width, width, kernel, (1,) * axes, depth)
            for width, kernel, depth in zip(features[:-1], kernels, config.decoder_blocks, strict=False)
        )
        self.heads = nn.ModuleList(CONVOLUTION[axes](width, config.num_classes, 1) for width in features[:-1])
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits (B, K, *S) of an image (B, C, *S); in training with those of all coarser maps of the decoder."""
        check_image(image, channels=self.config.in_channels, axes=self.config.axes, divisors=self.divisors)
        self.check_statistics(image)
        skips, x = [], image
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        skips.pop()
        auxiliary: list[Tensor] = []
        for stage in reversed(range(len(self.decoder))):
            x = self.decoder[stage](torch.cat([self.up[stage](x), skips.pop()], dim=1))
            if self.training and stage:
                auxiliary.insert(0, self.heads[stage](x))
        logits = self.heads[0](x)
        if not auxiliary:
            return logits
        return WithAuxiliary(logits, tuple(auxiliary), tuple(0.5**stage for stage in range(1, len(self.heads))))

    def check_statistics(self, image: Tensor) -> None:
        """Refuse an image whose deepest map leaves an instance norm one single value, which it always makes 0."""
        if prod(image.shape[2:]) == prod(self.divisors):
            raise ShapeError(
                f"images of {' x '.join(map(str, image.shape[2:]))} leave one pixel at the deepest of "
                f"{len(self.config.features)} stages, which a norm cannot work on; pad the last side to "
                f"{2 * self.divisors[-1]} or build it with fewer stages"
            )


class _ResidualBlock(nn.Module):
    """Two convolutions with a shortcut around them: (B, before, *S) to (B, width, *S / stride)."""

    def __init__(self, before: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        axes, is_smaller = len(kernel), max(stride) > 1
        once = (1,) * axes
        self.branch = nn.Sequential(
            *_convolution(before, width, kernel, stride), *_convolution(width, width, kernel, once)[:-1]
        )
        match = [*_convolution(before, width, once, once)[:-1]] if before != width else []
        pool: type[nn.Module] = MEAN_POOL[axes]
        self.shortcut = nn.Sequential(pool(stride, stride) if is_smaller else nn.Identity(), *match)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


def _residuals(before: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...], depth: int) -> list[_ResidualBlock]:
    """`depth` residual blocks, of which the first shrinks the map."""
    once = (1,) * len(kernel)
    first = _ResidualBlock(before, width, kernel, stride)
    return [first, *(_ResidualBlock(width, width, kernel, once) for _ in range(depth - 1))]


def _convolutions(before: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...], depth: int) -> nn.Sequential:
    """`depth` convolutions with norm and activation, of which the first shrinks the map."""
    once = (1,) * len(kernel)
    return nn.Sequential(
        _convolution(before, width, kernel, stride), *(_convolution(width, width, kernel, once) for _ in range(depth - 1))
    )


def _convolution(before: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Sequential:
    """Convolution, instance norm, LeakyReLU: (B, before, *S) to (B, width, *S / stride)."""
    axes, padding = len(kernel), tuple(side // 2 for side in kernel)
    return nn.Sequential(
        CONVOLUTION[axes](before, width, kernel, stride, padding, bias=False),
        InstanceNorm(width),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def _initialise(network: NnUNet) -> None:
    """He's normal weights, as the authors': they keep the variance through convolution and LeakyReLU. Biases start at 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_FEATURES_2D = (32, 64, 128, 256, 512, 512, 512, 512)
PRESETS = {
    # what nnU-Net plans for slices of about 512 x 512, and for volumes of about 128 x 128 x 128 in voxels of equal sides
    "nnunet_2d": Config(axes=2, features=_FEATURES_2D),
    "nnunet_3d_fullres": Config(),
    # with more memory, L and XL take larger patches and batches; their networks are the same for such images
    **{f"nnunet_resenc_{size}_2d": Config(axes=2, features=_FEATURES_2D, is_residual=True) for size in ("m", "l", "xl")},
    **{f"nnunet_resenc_{size}_3d_fullres": Config(is_residual=True) for size in ("m", "l", "xl")},
    # half of the channels and of the stages, for images on two cores
    "nnunet_2d_small": Config(axes=2, features=(16, 32, 64, 128)),
}


ALIASES = re.compile(r"decoder\.encoder\.|.*\.all_modules\.")  # tensors that files of nnU-Net hold under other names too
PARTS = {"conv": 0, "norm": 1}
BRANCHES = {"conv1": ("branch", 0), "conv2": ("branch", 3), "skip.0": ("shortcut", 1), "skip.1": ("shortcut", 1)}
VAIN_BIAS = re.compile(r".*\.conv\.bias")  # of convolutions before a norm, which takes it out


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of nnU-Net under our names; load them with `load_state_dict`, strictly.

    Tensors that such files hold twice are taken once, and biases that do nothing are left out.

    Raises:
        FormatError: a tensor has no place in an nnU-Net; the message names it.
    """
    kept = {key: tensor for key, tensor in state_dict.items() if not ALIASES.match(key)}
    stages = sum(bool(re.fullmatch(r"decoder\.transpconvs\.\d+\.weight", key)) for key in kept)
    return {_our_name(key, stages): tensor for key, tensor in kept.items() if not VAIN_BIAS.fullmatch(key)}


def _our_name(key: str, stages: int) -> str:
    """The name here of one of the authors' tensors; their decoder of so many stages begins with the deepest.

    Raises:
        FormatError: an nnU-Net holds no such tensor.
    """
    if found := re.fullmatch(r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)(\.\w+)", key):
        return f"encoder.{found[1]}.{found[2]}.{PARTS[found[3]]}{found[4]}"
    if found := re.fullmatch(r"encoder\.stem\.convs\.0\.(conv|norm)(\.\w+)", key):
        return f"encoder.0.0.{PARTS[found[1]]}{found[2]}"
    if found := re.fullmatch(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.(conv[12]|skip\.[01])\.(conv|norm)(\.\w+)", key):
        block = int(found[2]) + (found[1] == "0")  # behind the stem
        branch, offset = BRANCHES[found[3]]
        return f"encoder.{found[1]}.{block}.{branch}.{offset + PARTS[found[4]]}{found[5]}"
    if found := re.fullmatch(r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)(\.\w+)", key):
        return f"decoder.{stages - 1 - int(found[1])}.{found[2]}.{PARTS[found[3]]}{found[4]}"
    if found := re.fullmatch(r"decoder\.(transpconvs|seg_layers)\.(\d+)(\.\w+)", key):
        return f"{'up' if found[1] == 'transpconvs' else 'heads'}.{stages - 1 - int(found[2])}{found[3]}"
    raise FormatError(
        f"the weights hold {key!r}, which no nnU-Net has; names that start with 'encoder.stages.', 'encoder.stem.', "
        "'decoder.stages.', 'decoder.transpconvs.' and 'decoder.seg_layers.' are expected: check that the file is a checkpoint "
        "of nnU-Net with a PlainConvUNet or a ResidualEncoderUNet"
    )

"""Atrous spatial pyramid pooling (DeepLab v2, arXiv 1606.00915; with image pooling: v3, arXiv 1706.05587, section 3.3).

What a pixel is depends on what lies around it, near and far: convolutions of several dilations (rates) see one map at several
scales at once, and the mean of all of it stands beside them.

One step costs less here than as the papers draw it, and gives the same numbers: the 1x1 convolution that mixes the branches is
applied to the means before these are spread out.

Axes: B batch, C channels, E channels of each branch, H, W sides of the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import ShapeError
from segwright.layers.atrous_conv import AtrousConv
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.separable_conv import SeparableConvNormRelu


class ASPP(nn.Module):
    """Map (B, before, H, W) to (B, width, H, W): a 1x1 convolution, one 3x3 of each of the `rates`, and the mean, mixed.

    `separable` 3x3 convolutions look at one channel each, and a 1x1 convolution mixes channels. The means are normalised over
    the batch, unless `pool_norm` is off. With a `pool_window` in pixels of the map, a mean is taken at each place of a window
    of that size, or of the map where that is smaller, instead of over all of the map.
    """

    def __init__(
        self,
        before: int,
        width: int,
        rates: tuple[int, ...],
        *,
        dropout: float,
        separable: bool = False,
        pool_norm: bool = True,
        pool_window: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.pool_window = pool_window
        self.pointwise = ConvNormRelu(before, width, 1)
        block = SeparableConvNormRelu if separable else _Atrous
        self.atrous = nn.ModuleList(block(before, width, rate) for rate in rates)
        self.pool = _Pool(before, width, has_norm=pool_norm)
        self.project = nn.Conv2d((len(rates) + 2) * width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.pointwise(x), *(branch(x) for branch in self.atrous)]
        joined = torch.cat(branches, dim=1)
        near, far = self.project.weight.split([joined.shape[1], branches[0].shape[1]], dim=1)
        means = F.conv2d(self.pool(self.means(x)), far)  # (B, E, 1, 1), or a map where there is a window
        if means.shape[2:] != (1, 1):
            means = F.interpolate(means, size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.dropout(F.relu(self.norm(F.conv2d(joined, near) + means), inplace=True))

    def means(self, x: Tensor) -> Tensor:
        """The mean of each channel: (B, C, 1, 1), or at each place of the window."""
        if self.pool_window is None and not self.training:
            return F.adaptive_avg_pool2d(x, 1)  # the same for any size, also in a traced network
        # the gradient of this one is channels_last, as the encoder's backward pass then is; that of the other is not
        window = self.pool_window or x.shape[2:]
        return F.avg_pool2d(x, [min(side, given) for side, given in zip(window, x.shape[2:], strict=True)], stride=1)


class _Atrous(nn.Module):
    """A dilated 3x3 convolution with its norm and ReLU: (B, before, H, W) to (B, after, H, W)."""

    def __init__(self, before: int, after: int, rate: int) -> None:
        super().__init__()
        self.conv = AtrousConv(before, after, rate, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class _Pool(nn.Module):
    """What is made of the means of a map: a 1x1 convolution, a norm or a bias, and ReLU."""

    def __init__(self, before: int, after: int, *, has_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, bias=not has_norm)
        self.norm = nn.BatchNorm2d(after) if has_norm else None

    def forward(self, means: Tensor) -> Tensor:
        x = self.conv(means)
        if self.norm is None:
            return F.relu(x, inplace=True)
        if self.training and x.numel() == x.shape[1]:
            raise ShapeError(
                "one image has one mean per channel, and image pooling normalises by the spread of several; "
                "train with two images at a time or more, such as with --set training.batch_size=2"
            )
        return F.relu(self.norm(x), inplace=True)


ASPP_PARTS = {  # what it is called in the files of torchvision and segmentation_models.pytorch, or of detectron2, and here
    **{"convs.0.0": "pointwise.0", "convs.0.1": "pointwise.1", "convs.4.1": "pool.conv", "convs.4.2": "pool.norm"},
    **{"project.0": "project", "project.1": "norm"},
    **{f"convs.{number}.0": f"atrous.{number - 1}.conv" for number in (1, 2, 3)},
    **{f"convs.{number}.1": f"atrous.{number - 1}.norm" for number in (1, 2, 3)},
    **{f"convs.{number}.0.0": f"atrous.{number - 1}.depthwise" for number in (1, 2, 3)},
    **{f"convs.{number}.0.1": f"atrous.{number - 1}.conv" for number in (1, 2, 3)},
    **{"convs.0": "pointwise.0", "convs.0.norm": "pointwise.1", "project": "project", "project.norm": "norm"},
    **{f"convs.{number}": f"atrous.{number - 1}.conv" for number in (1, 2, 3)},
    **{f"convs.{number}.norm": f"atrous.{number - 1}.norm" for number in (1, 2, 3)},
}

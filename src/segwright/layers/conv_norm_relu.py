"""Convolution, batch normalisation and ReLU, which most heads are made of. Axes: B batch, C channels, H, W sides of a map."""

from torch import nn


class ConvNormRelu(nn.Sequential):
    """Map (B, before, H, W) to (B, after, H, W), or to a fraction of its sides with a `stride`; parts 0, 1 and 2.

    The convolution is padded to keep the size, and has no bias, which the norm would take out again.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        eps: float = 1e-5,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(before, after, kernel, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(after, eps=eps),
            nn.ReLU(inplace=True),
        )

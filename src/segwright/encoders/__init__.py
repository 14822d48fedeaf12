"""One file per backbone. Each offers Config, whose network turns an image into maps of growing stride, the finest first.

The last four maps have the strides 4, 8, 16 and 32; an encoder of a smaller output stride keeps its last maps at that stride,
and dilates its convolutions instead. What comes before them, such as a map at stride 2, differs from encoder to encoder.

Axes: B batch, C channels, H, W sides of the image.
"""

from typing import Any, Protocol, runtime_checkable

STRIDES = (4, 8, 16, 32)  # of the last four maps, unless the output stride is smaller


@runtime_checkable
class Encoder(Protocol):
    """What the Config of every file of this folder offers."""

    def build(self, in_channels: int = 3) -> Any:
        """The network: image (B, C, H, W) to a list of maps (B, channels[i], H / strides[i], W / strides[i]), rounded up.

        It says its `channels` and `strides`. Weights are drawn from torch's global generator; nothing is fetched.
        """

"""DeepLabV3+: Encoder-Decoder with Atrous Separable Convolution (Chen et al. 2018, arXiv 1802.02611).

DeepLabV3 with a decoder: what the atrous spatial pyramid pooling (ASPP) found is brought to stride 4 and joined there with the
encoder's map of that stride, reduced to few channels, so that borders are drawn where they are seen. Any encoder of this
library can be taken, of any output stride.

What differs between the published forms, and is a setting here:
- detectron2's have full convolutions, two of 3x3 in the decoder, on a ResNet-101 with a stem of three convolutions ("R103") and
  a multi-grid of 1, 2, 4. Their image pooling has a bias in the norm's place, and looks at windows of the size of the training
  crops, 512 x 1024 pixels. The paper's own networks have an Xception as their encoder, which this library takes from timm.
- segmentation_models.pytorch's have separable convolutions, one behind the ASPP and one in the decoder, rates of 12, 24, 36 at
  either output stride, and both upsamplings have the corners of both grids in one place; the network itself does the last.
  They join the deep map before the low one, here the low one comes first: `rename` puts the weights in order.

detectron2's code is Apache-2.0, its weights are CC BY-SA 3.0; segmentation_models.pytorch is MIT and publishes no weights.
Nothing of their code is used here.

Axes: B batch, C channels, K classes, H, W sides of the image, h, w those of the encoder's last map.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.class_names import CITYSCAPES
from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, resnet
from segwright.layers.aspp import ASPP, ASPP_PARTS
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image
from segwright.layers.separable_conv import SeparableConvNormRelu

LOW = -4  # the place of the map of stride 4 among an encoder's maps
LOW_WIDTH = 48  # channels left of it: the best of the paper's table 1; more would outweigh the deep map


def _r103() -> resnet.Config:
    """detectron2's encoder."""
    return replace(resnet.PRESETS["resnet101"], stem="3x3", output_stride=16, dilate_first=True, multi_grid=(1, 2, 4))


@dataclass(frozen=True, kw_only=True)
class Config:
    """DeepLabV3+ on any encoder; the defaults are detectron2's on R103, for the 19 classes of Cityscapes.

    `convolutions` says of what kind those of 3x3 are, in ASPP and decoder. `pool_window` is in pixels of the encoder's last map
    (see `layers.aspp`). With `upsampling` "corners" the logits have the image's size.
    """

    in_channels: int = 3
    num_classes: int = len(CITYSCAPES)
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=_r103)
    rates: tuple[int, ...] = (6, 12, 18)
    width: int = 256
    dropout: float = 0.1  # share of the ASPP's channels left out in training
    convolutions: Literal["full", "separable"] = "full"
    pool_norm: bool = False
    pool_window: tuple[int, int] | None = (32, 64)  # training crops of 512 x 1024 at a stride of 16
    upsampling: Literal["none", "corners"] = "none"

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.rates or min(self.rates) < 1:
            raise SettingError(f"rates is {list(self.rates)}; give at least one dilation, each 1 or more, such as [6, 12, 18]")

    def build(self) -> "DeepLabV3Plus":
        """The network, its weights drawn from torch's global generator."""
        return DeepLabV3Plus(self)


class DeepLabV3Plus(nn.Module):
    """Image (B, C, H, W) to logits (B, K, H/4, W/4), or (B, K, H, W) with `upsampling`.

    The sides must be multiples of `divisors`. `encoder` and `decode` alone take any size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (max(self.encoder.strides),) * 2
        is_separable, width = config.convolutions == "separable", config.width
        self.aspp = ASPP(
            self.encoder.channels[-1],
            width,
            config.rates,
            dropout=config.dropout,
            separable=is_separable,
            pool_norm=config.pool_norm,
            pool_window=config.pool_window,
        )
        self.refine = SeparableConvNormRelu(width, width) if is_separable else nn.Identity()
        self.low = ConvNormRelu(self.encoder.channels[LOW], LOW_WIDTH, 1)
        if is_separable:
            self.fuse = nn.Sequential(SeparableConvNormRelu(LOW_WIDTH + width, width))
        else:
            self.fuse = nn.Sequential(ConvNormRelu(LOW_WIDTH + width, width), ConvNormRelu(width, width))
        self.classify = nn.Conv2d(width, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        logits = self.decode(self.encoder(image))
        return self._upsampled(logits, image) if self.config.upsampling == "corners" else logits

    def decode(self, maps: list[Tensor]) -> Tensor:
        """Logits at the size of the encoder's map of stride 4."""
        low = self.low(maps[LOW])
        deep = self._upsampled(self.refine(self.aspp(maps[-1])), low)
        return self.classify(self.fuse(torch.cat([low, deep], dim=1)))

    def _upsampled(self, x: Tensor, to: Tensor) -> Tensor:
        """A map at the size of another, by the rule of the published form."""
        return F.interpolate(x, size=to.shape[2:], mode="bilinear", align_corners=self.config.upsampling == "corners")


SMP = Config(  # what all networks of segmentation_models.pytorch have by default, on its default encoder
    num_classes=21,
    encoder=resnet.Config(block="basic", output_stride=16, dilate_first=True),
    rates=(12, 24, 36),
    dropout=0.5,
    convolutions="separable",
    pool_norm=True,
    pool_window=None,
    upsampling="corners",
)
PRESETS = {
    "deeplab_v3_plus_r103": Config(),
    "smp_deeplab_v3_plus_resnet34": SMP,
    "smp_deeplab_v3_plus_resnet101": replace(
        SMP, encoder=replace(resnet.PRESETS["resnet101"], output_stride=16, dilate_first=True)
    ),
}

WEIGHTS = {
    "deeplab_v3_plus_r103_cityscapes": Weights(
        preset="deeplab_v3_plus_r103",
        address=(
            "https://dl.fbaipublicfiles.com/detectron2/DeepLab/Cityscapes-SemanticSegmentation/"
            "deeplab_v3_plus_R_103_os16_mg124_poly_90k_bs16/28054032/model_final_a8a355.pkl"
        ),
        licence="CC BY-SA 3.0",
        trained_on="Cityscapes train, from an encoder of ImageNet-1k",
        classes=CITYSCAPES,
        score="80.0 mIoU on Cityscapes val",
    ),
}

SMP_LOW, SMP_FUSE = "decoder.block1.0.weight", ("decoder.block2.0.0.weight", "decoder.block2.0.1.weight")
HEAD_PARTS = {  # what it is called in the files of detectron2 and segmentation_models.pytorch, and here
    "sem_seg_head.decoder.res2.project_conv": "low.0",
    "sem_seg_head.decoder.res2.project_conv.norm": "low.1",
    "sem_seg_head.decoder.res2.fuse_conv.0": "fuse.0.0",
    "sem_seg_head.decoder.res2.fuse_conv.0.norm": "fuse.0.1",
    "sem_seg_head.decoder.res2.fuse_conv.1": "fuse.1.0",
    "sem_seg_head.decoder.res2.fuse_conv.1.norm": "fuse.1.1",
    "sem_seg_head.predictor": "classify",
    "decoder.aspp.1.0": "refine.depthwise",
    "decoder.aspp.1.1": "refine.conv",
    "decoder.aspp.2": "refine.norm",
    "decoder.block1.0": "low.0",
    "decoder.block1.1": "low.1",
    "decoder.block2.0.0": "fuse.0.depthwise",
    "decoder.block2.0.1": "fuse.0.conv",
    "decoder.block2.1": "fuse.0.norm",
    "segmentation_head.0": "classify",
    **{
        f"{home}.{part}": f"aspp.{name}"
        for home in ("sem_seg_head.decoder.res5.project_conv", "decoder.aspp.0")
        for part, name in ASPP_PARTS.items()
    },
}
UNUSED = ("pixel_mean", "pixel_std")  # of detectron2's older files: what its images were normalised with


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of detectron2 or segmentation_models.pytorch under our names; load them strictly.

    Raises:
        FormatError: a tensor has no place in a DeepLabV3+; the message names it.
    """
    encoder, head = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith(("backbone.", "encoder.")):
            encoder[key.split(".", 1)[1]] = tensor
        elif key in SMP_FUSE and SMP_LOW in state_dict:
            head[_head_name(key)] = _low_first(tensor, len(state_dict[SMP_LOW]), axis=SMP_FUSE.index(key))
        elif key not in UNUSED:
            head[_head_name(key)] = tensor
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | head


def _low_first(weight: Tensor, low: int, *, axis: int) -> Tensor:
    """The channels of a weight along an axis, the last `low` of them first."""
    deep = weight.shape[axis] - low
    return torch.cat([weight.narrow(axis, deep, low), weight.narrow(axis, 0, deep)], dim=axis)


def _head_name(key: str) -> str:
    """The name here of a tensor of the head.

    Raises:
        FormatError: the head holds no such tensor.
    """
    module, _, kind = key.rpartition(".")
    if module in HEAD_PARTS:
        return f"{HEAD_PARTS[module]}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no DeepLabV3+ has; names that start with 'backbone.' or 'encoder.', and with "
        "'sem_seg_head.' or 'decoder.' are expected: check the file"
    )

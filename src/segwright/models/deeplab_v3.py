"""DeepLabV3: Rethinking Atrous Convolution for Semantic Image Segmentation (Chen et al. 2017, arXiv 1706.05587).

An encoder that keeps its last maps fine by dilation, atrous spatial pyramid pooling (ASPP) with image pooling on the last map,
and a classifier. Any encoder of this library can be taken, of any output stride.

What differs between the published forms, and is a setting here:
- torchvision's classify after one more 3x3 convolution, leave out half of the ASPP's channels in training where the paper names
  no share, use rates 12, 24, 36 at either output stride (the paper: 6, 12, 18 at 16 and twice as much at 8), and train with an
  auxiliary head. Their recipe weighs that head by 0.5; here it is 0.4, as in PSPNet, for all networks that have one.
- detectron2's follow the paper, on a ResNet-101 with a stem of three convolutions ("R103") and a multi-grid of 1, 2, 4. Their
  image pooling has a bias in the norm's place, and looks at windows of the size of the training crops, 512 x 1024 pixels.
- segmentation_models.pytorch's are torchvision's but for the auxiliary head, their first dilated blocks, and the upsampling of
  the logits, which has the corners of both grids in one place; the network does it itself there.

torchvision's code is BSD, the licence of its weights is not stated; detectron2's code is Apache-2.0, its weights are CC BY-SA
3.0; segmentation_models.pytorch is MIT and publishes no weights. Nothing of their code is used here.

Axes: B batch, C channels, K classes, E channels of the head, H, W sides of the image, h, w those of the encoder's last map.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.class_names import CITYSCAPES, VOC
from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, mobilenet_v3, resnet
from segwright.layers.aspp import ASPP, ASPP_PARTS
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image

AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss (PSPNet, arXiv 1612.01105)
AUXILIARY_SHARE = 4  # the auxiliary head works in a quarter of its map's channels, in torchvision's networks
AUXILIARY_DROPOUT = 0.1  # there too


@dataclass(frozen=True, kw_only=True)
class Config:
    """DeepLabV3 on any encoder; the defaults are torchvision's on ResNet-50, for the 21 classes of Pascal VOC.

    `head` says what classifies: a 1x1 convolution behind the ASPP, or one behind another 3x3 convolution. `auxiliary` is the
    place among the encoder's maps, counted from the last, of the map that an auxiliary head reads in training. `pool_window`
    is in pixels of the encoder's last map (see `layers.aspp`). With `upsampling` "corners" the logits have the image's size.
    """

    in_channels: int = 3
    num_classes: int = 21
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: resnet.Config(output_stride=8))
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    dropout: float = 0.5  # share of the ASPP's channels left out in training
    head: Literal["1x1", "3x3"] = "3x3"
    auxiliary: Literal[-2, -3] | None = -2
    pool_norm: bool = True
    pool_window: tuple[int, int] | None = None
    upsampling: Literal["none", "corners"] = "none"

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.rates or min(self.rates) < 1:
            raise SettingError(f"rates is {list(self.rates)}; give at least one dilation, each 1 or more, such as [6, 12, 18]")

    def build(self) -> "DeepLabV3":
        """The network, its weights drawn from torch's global generator."""
        return DeepLabV3(self)


class DeepLabV3(nn.Module):
    """Image (B, C, H, W) to logits (B, K, h, w) at the encoder's output stride, or (B, K, H, W) with `upsampling`.

    The sides must be multiples of `divisors`. In training an auxiliary head adds its logits. `encoder` and `decode` alone take
    any size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (max(self.encoder.strides),) * 2
        self.aspp = ASPP(
            self.encoder.channels[-1],
            config.width,
            config.rates,
            dropout=config.dropout,
            pool_norm=config.pool_norm,
            pool_window=config.pool_window,
        )
        self.refine = ConvNormRelu(config.width, config.width) if config.head == "3x3" else nn.Identity()
        self.classify = nn.Conv2d(config.width, config.num_classes, 1)
        self.auxiliary = None
        if config.auxiliary is not None:
            self.auxiliary = _auxiliary_head(self.encoder.channels[config.auxiliary], config.num_classes)

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        maps = self.encoder(image)
        logits = self.decode(maps[-1])
        if self.config.upsampling == "corners":
            logits = F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)
        if self.auxiliary is None or self.config.auxiliary is None or not self.training:
            return logits
        return WithAuxiliary(logits, (self.auxiliary(maps[self.config.auxiliary]),), (AUXILIARY_WEIGHT,))

    def decode(self, last: Tensor) -> Tensor:
        """Logits (B, K, h, w) of the encoder's last map (B, C, h, w)."""
        return self.classify(self.refine(self.aspp(last)))


def _auxiliary_head(before: int, num_classes: int) -> nn.Sequential:
    """A map to logits of its size."""
    width = before // AUXILIARY_SHARE
    return nn.Sequential(ConvNormRelu(before, width), nn.Dropout(AUXILIARY_DROPOUT), nn.Conv2d(width, num_classes, 1))


PRESETS = {
    "deeplab_v3_resnet50": Config(),
    "deeplab_v3_resnet101": Config(encoder=replace(resnet.PRESETS["resnet101"], output_stride=8)),
    "deeplab_v3_mobilenet_v3_large": Config(encoder=mobilenet_v3.Config(output_stride=16), auxiliary=-3),
    "deeplab_v3_r103": Config(
        num_classes=len(CITYSCAPES),
        encoder=resnet.Config(
            depths=(3, 4, 23, 3), output_stride=16, dilate_first=True, multi_grid=(1, 2, 4), stem="3x3", stem_width=64
        ),
        rates=(6, 12, 18),
        dropout=0.1,
        head="1x1",
        auxiliary=None,
        pool_norm=False,
        pool_window=(32, 64),  # training crops of 512 x 1024 at a stride of 16
    ),
    "smp_deeplab_v3_resnet34": Config(
        encoder=resnet.Config(block="basic", output_stride=8, dilate_first=True), auxiliary=None, upsampling="corners"
    ),
}

VOC_ON_COCO = "MS COCO train2017, its images with the 20 classes of Pascal VOC"
WEIGHTS = {
    "deeplab_v3_resnet50_voc": Weights(
        preset="deeplab_v3_resnet50",
        address="https://download.pytorch.org/models/deeplabv3_resnet50_coco-cd0a2569.pth",
        sha256="cd0a2569",
        licence="unstated (code BSD)",
        trained_on=VOC_ON_COCO,
        classes=VOC,
        score="66.4 mIoU on MS COCO val2017 with the classes of Pascal VOC",
    ),
    "deeplab_v3_resnet101_voc": Weights(
        preset="deeplab_v3_resnet101",
        address="https://download.pytorch.org/models/deeplabv3_resnet101_coco-586e9e4e.pth",
        sha256="586e9e4e",
        licence="unstated (code BSD)",
        trained_on=VOC_ON_COCO,
        classes=VOC,
        score="67.4 mIoU on MS COCO val2017 with the classes of Pascal VOC",
    ),
    "deeplab_v3_mobilenet_v3_large_voc": Weights(
        preset="deeplab_v3_mobilenet_v3_large",
        address="https://download.pytorch.org/models/deeplabv3_mobilenet_v3_large-fc3c493d.pth",
        sha256="fc3c493d",
        licence="unstated (code BSD)",
        trained_on=VOC_ON_COCO,
        classes=VOC,
        score="60.3 mIoU on MS COCO val2017 with the classes of Pascal VOC",
    ),
    "deeplab_v3_r103_cityscapes": Weights(
        preset="deeplab_v3_r103",
        address=(
            "https://dl.fbaipublicfiles.com/detectron2/DeepLab/Cityscapes-SemanticSegmentation/"
            "deeplab_v3_R_103_os16_mg124_poly_90k_bs16/28041665/model_final_0dff1b.pkl"
        ),
        licence="CC BY-SA 3.0",
        trained_on="Cityscapes train, from an encoder of ImageNet-1k",
        classes=CITYSCAPES,
        score="78.5 mIoU on Cityscapes val",
    ),
}

HEAD_PARTS = {  # what it is called in the files of torchvision, segmentation_models.pytorch and detectron2, and here
    "classifier.1": "refine.0",
    "classifier.2": "refine.1",
    "classifier.4": "classify",
    "aux_classifier.0": "auxiliary.0.0",
    "aux_classifier.1": "auxiliary.0.1",
    "aux_classifier.4": "auxiliary.2",
    "decoder.conv": "refine.0",
    "decoder.bn": "refine.1",
    "segmentation_head.0": "classify",
    "sem_seg_head.predictor": "classify",
    **{
        f"{home}.{part}": f"aspp.{name}"
        for home in ("classifier.0", "decoder.aspp", "sem_seg_head.aspp")
        for part, name in ASPP_PARTS.items()
    },
}
UNUSED = ("pixel_mean", "pixel_std")  # of detectron2's older files: what its images were normalised with


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of torchvision, segmentation_models.pytorch or detectron2 under our names; load them strictly.

    Raises:
        FormatError: a tensor has no place in a DeepLabV3; the message names it.
    """
    encoder, head = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith(("backbone.", "encoder.")):
            encoder[key.split(".", 1)[1]] = tensor
        elif key not in UNUSED:
            head[_head_name(key)] = tensor
    kind = mobilenet_v3 if any(key[0].isdigit() for key in encoder) else resnet
    return {f"encoder.{name}": tensor for name, tensor in kind.rename(encoder).items()} | head


def _head_name(key: str) -> str:
    """The name here of a tensor of the head.

    Raises:
        FormatError: the head holds no such tensor.
    """
    module, _, kind = key.rpartition(".")
    if module in HEAD_PARTS:
        return f"{HEAD_PARTS[module]}.{kind}"
    raise FormatError(
        f"the weights hold {key!r}, which no DeepLabV3 has; names that start with 'backbone.' or 'encoder.', and with "
        f"{', '.join(repr(name) for name in ('classifier.', 'decoder.', 'sem_seg_head.'))} are expected: check the file"
    )

"""PSPNet: Pyramid Scene Parsing Network (Zhao et al. 2016, arXiv 1612.01105).

The encoder's last map is averaged over its whole, its halves, thirds and sixths, so that each of its pixels knows what scene it
lies in; each of these small maps is squeezed to fewer channels, brought back to the size of the map, and mixed with it.

What differs between the published forms, and is the setting `form` here:
- "paper": on a dilated ResNet of output stride 8, mixed by a 3x3 convolution, with an auxiliary head on the map before the last
  in training. It is as mmsegmentation trains it: its ResNets open with three convolutions of 32, 32 and 64 channels (the
  authors': 64, 64, 128), and it interpolates between pixel centres, where the authors' code lays corners upon each other.
- "smp", of segmentation_models_pytorch: on an encoder that ends at stride 8, mixed by a 1x1 convolution and classified by a 3x3
  one; the branch of one single pixel has no norm; corners of both grids are in one place whenever it interpolates. The network
  brings the logits to the size of the image itself there.

The authors' code for PyTorch and segmentation_models_pytorch's are MIT licensed, mmsegmentation's is Apache-2.0; the licence of
its weights is not stated. Nothing of their code is used here.

Axes: B batch, C channels, K classes, E channels of the mix, H, W sides of the image, h, w those of the encoder's last map.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, resnet
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.conv_norm_relu import ConvNormRelu
from segwright.layers.image_check import check_image

BINS = (1, 2, 3, 6)  # pieces per side that the last map is averaged over
AUXILIARY_WEIGHT = 0.4  # of the auxiliary head's loss
AUXILIARY_SHARE = 4  # the auxiliary head works in a quarter of its map's channels


@dataclass(frozen=True, kw_only=True)
class Config:
    """PSPNet on any encoder; the defaults are those on ResNet-50 for the 19 classes of Cityscapes.

    `dropout` is the share of channels that the classifiers do not see in training.
    """

    in_channels: int = 3
    num_classes: int = 19
    encoder: Annotated[Encoder, Kind("encoders")] = field(
        default_factory=lambda: resnet.Config(stem="3x3", stem_width=32, output_stride=8)
    )
    form: Literal["paper", "smp"] = "paper"
    width: int = 512
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "width"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def build(self) -> "PSPNet":
        """The network, its weights drawn from torch's global generator."""
        return PSPNet(self)


class PSPNet(nn.Module):
    """Image (B, C, H, W) to logits (B, K, h, w) at the encoder's output stride, or (B, K, H, W) in smp's form.

    The sides must be multiples of `divisors`. In training an auxiliary head adds its logits in the paper's form. `encoder` and
    `decode` alone take any size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (self.encoder.strides[-1],) * 2
        before, last = self.encoder.channels[-2:]
        is_paper = config.form == "paper"
        narrow = config.width if is_paper else last // len(BINS)
        self.pooled = nn.ModuleList(ConvNormRelu(last, narrow, 1) for _ in BINS)
        if not is_paper:
            self.pooled[0] = nn.Sequential(nn.Conv2d(last, narrow, 1), nn.ReLU(inplace=True))
        self.mix = ConvNormRelu(last + len(BINS) * narrow, config.width, 3 if is_paper else 1)
        self.dropout = nn.Dropout2d(config.dropout)
        kernel = 1 if is_paper else 3
        self.classify = nn.Conv2d(config.width, config.num_classes, kernel, padding=kernel // 2)
        self.auxiliary = _auxiliary_head(before, config) if is_paper else None

    def forward(self, image: Tensor) -> Tensor | WithAuxiliary:
        """Logits of an image (B, C, H, W)."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        if self.training and len(image) == 1 and self.config.form == "paper":
            raise ShapeError(
                "one image leaves PSPNet one value per channel where it averages the whole map, and it normalises by their "
                "spread; train with two images or more at a time, such as --set training.batch_size=2"
            )
        maps = self.encoder(image)
        logits = self.decode(maps[-1])
        if self.config.form == "smp":
            return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)
        if self.auxiliary is None or not self.training:
            return logits
        return WithAuxiliary(logits, (self.auxiliary(maps[-2]),), (AUXILIARY_WEIGHT,))

    def decode(self, last: Tensor) -> Tensor:
        """Logits (B, K, h, w) of the encoder's last map (B, C, h, w)."""
        parts = []
        for side, squeeze in zip(BINS, self.pooled, strict=True):
            small = squeeze(F.adaptive_avg_pool2d(last, side))  # (B, *, side, side)
            corners = self.config.form == "smp"
            parts.append(F.interpolate(small, size=last.shape[2:], mode="bilinear", align_corners=corners))
        first, *others = parts
        joined = [last, first, *others] if self.config.form == "paper" else [first, *others, last]
        return self.classify(self.dropout(self.mix(torch.cat(joined, dim=1))))


def _auxiliary_head(before: int, config: Config) -> nn.Sequential:
    """A map to logits of its size."""
    width = before // AUXILIARY_SHARE
    return nn.Sequential(ConvNormRelu(before, width), nn.Dropout2d(config.dropout), nn.Conv2d(width, config.num_classes, 1))


RESNET101 = replace(resnet.PRESETS["resnet101"], stem="3x3", stem_width=32, output_stride=8)
PRESETS = {
    "pspnet_resnet50": Config(),
    "pspnet_resnet101": Config(encoder=RESNET101),
    "smp_pspnet_resnet34": Config(encoder=replace(resnet.PRESETS["resnet34"], stages=2), form="smp", dropout=0.2),
}

MMSEGMENTATION = "https://download.openmmlab.com/mmsegmentation/v0.5/pspnet"
WEIGHTS = {
    "pspnet_resnet50_cityscapes": Weights(
        preset="pspnet_resnet50",
        address=f"{MMSEGMENTATION}/pspnet_r50-d8_512x1024_80k_cityscapes/"
        "pspnet_r50-d8_512x1024_80k_cityscapes_20200606_112131-2376f12b.pth",
        sha256="2376f12b",
        licence="unstated (code Apache-2.0)",
        trained_on="Cityscapes train",
        classes=19,
        score="78.55 mIoU on Cityscapes val",
    ),
    "pspnet_resnet101_cityscapes": Weights(
        preset="pspnet_resnet101",
        address=f"{MMSEGMENTATION}/pspnet_r101-d8_512x1024_80k_cityscapes/"
        "pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth",
        sha256="e1e1100f",
        licence="unstated (code Apache-2.0)",
        trained_on="Cityscapes train",
        classes=19,
        score="79.76 mIoU on Cityscapes val",
    ),
}

HEAD_PARTS = {  # what it is called in the files of mmsegmentation and of segmentation_models_pytorch, and here
    **{f"decode_head.psp_modules.{number}.1.conv": f"pooled.{number}.0" for number in range(len(BINS))},
    **{f"decode_head.psp_modules.{number}.1.bn": f"pooled.{number}.1" for number in range(len(BINS))},
    "decode_head.bottleneck.conv": "mix.0",
    "decode_head.bottleneck.bn": "mix.1",
    "decode_head.conv_seg": "classify",
    "auxiliary_head.convs.0.conv": "auxiliary.0.0",
    "auxiliary_head.convs.0.bn": "auxiliary.0.1",
    "auxiliary_head.conv_seg": "auxiliary.2",
    **{f"decoder.psp.blocks.{number}.pool.1.0": f"pooled.{number}.0" for number in range(len(BINS))},
    **{f"decoder.psp.blocks.{number}.pool.1.1": f"pooled.{number}.1" for number in range(1, len(BINS))},
    "decoder.conv.0": "mix.0",
    "decoder.conv.1": "mix.1",
    "segmentation_head.0": "classify",
}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights on a ResNet in mmsegmentation's layout or segmentation_models_pytorch's under our names; load them strictly.

    Files of the second hold the whole ResNet; stages past the one that the pyramid stands on, which no forward pass reads, are
    left out.

    Raises:
        FormatError: a tensor has no place in a PSPNet; the message names it.
    """
    encoder, head = {}, {}
    for key, tensor in state_dict.items():
        if key.startswith(("backbone.", "encoder.")):
            encoder[key.split(".", 1)[1]] = tensor
            continue
        module, _, kind = key.rpartition(".")
        if module not in HEAD_PARTS:
            raise FormatError(
                f"the weights hold {key!r}, which no PSPNet has; names that start with 'backbone.', 'decode_head.' and "
                "'auxiliary_head.', or with 'encoder.', 'decoder.' and 'segmentation_head.', are expected: check that the "
                "file holds a PSPNet"
            )
        head[f"{HEAD_PARTS[module]}.{kind}"] = tensor
    unread = _unread_stages(encoder, state_dict.get("decoder.psp.blocks.0.pool.1.0.weight"))
    ours = {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()}
    return {name: tensor for name, tensor in ours.items() if not name.startswith(unread)} | head


def _unread_stages(encoder: dict[str, Tensor], squeeze: Tensor | None) -> tuple[str, ...]:
    """The names that stages of a ResNet start with if they are wider than what the pyramid takes in."""
    if squeeze is None:
        return ()
    block = "bottleneck" if any(re.search(r"\.conv3\.", name) for name in encoder) else "basic"
    widths = [width * resnet.EXPANSION[block] for width in resnet.WIDTHS]
    return tuple(f"encoder.layer{stage}." for stage, width in enumerate(widths, start=1) if width > squeeze.shape[1])

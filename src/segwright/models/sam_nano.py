"""A click network for small machines, after FocalClick and Segment Anything (Chen et al. 2022, arXiv 2204.02574).

A small encoder looks at an image once; what it says, the embedding, then answers any number of prompts. Where these point is
drawn into maps: how near the next click on the object is and the next one beside it, at three ranges, the inside of a box, and
the earlier mask. A light convolutional decoder reads them beside the embedding, with how much each pixel looks like the places
that were clicked, and gives four masks, as Segment Anything (Kirillov et al. 2023, arXiv 2304.02643) does: one where the prompt
tells what is meant, and three where it may mean a thing, a part of it, or a part of that; and how well it expects each to fit.

What is different here: the embedding holds maps of strides 4, 8 and 16 of the encoder, folded to the sides of the coarsest, so
that borders come from where they are seen. Prompts are maps and not tokens: a network that reads them is local from the start,
and learns in minutes what attention learns from a billion masks. No batch norm stands in the decoder, as one image has many
prompts or one.

It is a network of this package: nobody else's code or weights are in it but ImageNet's in its encoder (encoders/timm.py).

Axes: B batch, P prompts of an image, N points of a prompt, M masks, C channels, E channels of the embedding, F those of prompt
maps, H, W sides of the image, h, w those of the embedding, a 16th.
"""

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import SettingError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import Encoder, timm
from segwright.layers.image_check import check_image
from segwright.layers.norms import TracedGroupNorm
from segwright.layers.prompts import PromptedMasks, Prompts, check_labels, count_prompts

TASKS = ("promptable",)
STRIDE = 16  # pixels of the image for one of the embedding
STRIDES = (4, 8, 16)  # of the maps in it
FINE, MIDDLE, COARSE = 16, 32, 96  # channels of these maps
SIMILAR = 16  # channels that say what pixels look like, for their likeness to the places of clicks
RANGES = (4.0, 16.0, 64.0)  # pixels: a click is sharp in the first map, and in the last it says where about the object lies
MAPS = 2 * len(RANGES) + 4  # of prompts: clicks on and beside the object, in and around a box, an earlier mask, is there one
MASKS = 4  # one where the prompt tells what is meant, then three
BLOCKS = 3  # at the coarsest stride
KERNEL = 7  # of their depthwise convolutions: two of them see a quarter of an image of 512 pixels
GROUPS = 8  # of norms


@dataclass(frozen=True, kw_only=True)
class Config:
    """A click network on any encoder; the defaults are on EfficientNet-Lite0."""

    in_channels: int = 3
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: timm.Config(name="tf_efficientnet_lite0"))

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise SettingError(f"in_channels is {self.in_channels}; it must be 1 or more")

    def build(self) -> "SamNano":
        """The network, its weights drawn from torch's global generator."""
        return SamNano(self)


class SamNano(nn.Module):
    """Image (B, C, H, W) and prompts to masks (B, P, M, H/4, W/4) and their scores; sides must be multiples of `divisors`."""

    OUTPUT = "prompted_masks"
    side = 512  # pixels of the longer side of images, unless a run was trained at another scale
    knows_all_sides = True  # up to that one, and not squares alone

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (max(STRIDE, self.encoder.strides[-1]),) * 2
        self.neck = _Neck(self.encoder.channels[-4:])
        self.decoder = _Decoder()

    def forward(self, image: Tensor, prompts: Prompts | None = None) -> PromptedMasks:
        """Three answers to each prompt for images; without prompts, to one that says nothing."""
        return self.decode(self.encode(image), prompts)

    def encode(self, image: Tensor) -> Tensor:
        """The embedding (B, E, H/16, W/16) of an image (B, C, H, W), which all prompts for it share.

        Raises:
            ShapeError: the image has other channels or sides than the network takes.
        """
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        return self.neck(self.encoder(image)[-4:])

    def decode(self, embedding: Tensor, prompts: Prompts | None = None, *, multimask: bool = True) -> PromptedMasks:
        """The answers to prompts for an embedding (B, E, h, w): three masks each or, without `multimask`, one.

        Raises:
            ShapeError: the parts of the prompts do not go with each other or with the embedding.
        """
        prompts = Prompts() if prompts is None else prompts
        B, h, w = len(embedding), int(embedding.shape[2]), int(embedding.shape[3])
        P = count_prompts(prompts, B, (4 * h, 4 * w))
        if prompts.labels is not None:
            check_labels(prompts.labels)
        maps = prompt_maps(prompts, (B, P, 4 * h, 4 * w), embedding)  # (B * P, F, 4h, 4w)
        masks, scores = self.decoder(unfolded(embedding), maps, prompts, P)
        wanted = slice(1, MASKS) if multimask else slice(0, 1)
        return PromptedMasks(masks.unflatten(0, (B, P))[:, :, wanted], scores.unflatten(0, (B, P))[:, :, wanted])


class _Neck(nn.Module):
    """Maps of strides 4, 8, 16 and 16 or 32 (B, channels[i], ...) to the embedding (B, E, h, w)."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.fine, self.middle = (
            nn.Conv2d(before, after, 1) for before, after in zip(channels[:2], (FINE, MIDDLE), strict=True)
        )
        self.coarse, self.deep = nn.Conv2d(channels[2], COARSE, 1), nn.Conv2d(channels[3], COARSE, 1)
        self.norms = nn.ModuleList(TracedGroupNorm(GROUPS, count) for count in (FINE, MIDDLE, COARSE))

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, middle, coarse, deep = maps
        coarse = self.coarse(coarse) + F.interpolate(self.deep(deep), size=coarse.shape[2:], mode="bilinear")
        levels = (self.fine(fine), self.middle(middle), coarse)
        return folded([norm(level) for norm, level in zip(self.norms, levels, strict=True)])


class _Decoder(nn.Module):
    """Maps of the image and of prompts to masks (B * P, M, 4h, 4w) and scores (B * P, M)."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(MIDDLE + COARSE, SIMILAR, 1)
        self.sharpness = nn.Parameter(torch.tensor(5.0))  # of likeness: pixels as alike as 0.8 then count a third
        self.fine_in = nn.Conv2d(FINE + MAPS, FINE, 3, padding=1)
        self.middle_in = nn.Conv2d(MAPS + FINE, MIDDLE, 3, stride=2, padding=1)
        self.middle_mix = nn.Conv2d(2 * MIDDLE + 2, MIDDLE, 1)
        self.coarse_in = nn.Conv2d(MIDDLE, COARSE, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(COARSE) for _ in range(BLOCKS))
        self.middle_up = nn.Conv2d(COARSE, MIDDLE, 1)
        self.middle_block = _Block(MIDDLE)
        self.fine_up = nn.Conv2d(MIDDLE, FINE, 1)
        self.fine_mix = nn.Conv2d(FINE, 2 * FINE, 3, padding=1)
        self.masks = nn.Conv2d(2 * FINE, MASKS, 3, padding=1)
        self.scores = nn.Sequential(nn.Linear(COARSE + 1, COARSE), nn.ReLU(), nn.Linear(COARSE, 1))

    def forward(self, levels: list[Tensor], maps: Tensor, prompts: Prompts, count: int) -> tuple[Tensor, Tensor]:
        alike = self.likeness(levels, prompts, count)  # (B * P, 2, 2h, 2w)
        fine, middle, coarse = (_repeated(level, count) for level in levels)
        fine = F.relu(self.fine_in(_beside(fine, maps)))
        x = F.relu(self.middle_in(_beside(fine, maps)))
        middle = F.relu(self.middle_mix(_beside(middle, x, alike)))
        x = coarse + self.coarse_in(middle)
        for block in self.blocks:
            x = block(x)
        middle = self.middle_block(middle + _twice(self.middle_up(x)))
        fine = fine + _twice(self.fine_up(middle))
        masks = self.masks(F.relu(self.fine_mix(fine)))
        return masks, self._expected(masks.detach(), x)

    def _expected(self, masks: Tensor, x: Tensor) -> Tensor:
        """How well masks (B * P, M, 4h, 4w) fit, 0 to 1, by what lies in them (B * P, C, h, w) and by how sharp they are."""
        probs = masks.to(x.dtype).sigmoid()
        small = F.avg_pool2d(probs, STRIDE // STRIDES[0]).flatten(2)  # (B * P, M, h * w)
        area = small.sum(dim=2, keepdim=True) + 1 / STRIDE**2  # of a pixel of the embedding: an empty mask has none
        inside = (small @ x.flatten(2).transpose(1, 2)) / area  # (B * P, M, C)
        sharp = (probs * (2 * probs - 1).abs()).sum(dim=(2, 3)) / (probs.sum(dim=(2, 3)) + 1)
        return self.scores(torch.cat([inside, sharp[..., None]], dim=2))[..., 0].sigmoid()

    def likeness(self, levels: list[Tensor], prompts: Prompts, count: int) -> Tensor:
        """How much each pixel looks like places on the object, and like places beside it, 0 to 1, (B * P, 2, 2h, 2w)."""
        _, middle, coarse = levels
        B, _, rows, columns = middle.shape
        looks = self.look(_beside(middle, _twice(coarse)))
        seen = F.normalize(looks.to(torch.promote_types(looks.dtype, torch.float32)), dim=1)  # (B, SIMILAR, 2h, 2w)
        if prompts.points_xy is None or prompts.labels is None or not prompts.points_xy.shape[2]:
            return middle.new_zeros(B * count, 2, rows, columns)
        sides = prompts.points_xy.new_tensor([8.0 * columns, 8.0 * rows])
        at = F.grid_sample(seen, (2 * prompts.points_xy / sides - 1).to(seen.dtype), align_corners=False)  # (B, SIMILAR, P, N)
        alike = torch.einsum("bcpn,bcyx->bpnyx", F.normalize(at, dim=1), seen)
        near = torch.exp(self.sharpness * (alike - 1))
        kinds = [near * (prompts.labels == kind)[..., None, None] for kind in (1, 0)]
        return torch.stack([kind.amax(dim=2) for kind in kinds], dim=2).flatten(0, 1).to(middle.dtype)


class _Block(nn.Module):
    """A residual block (B, C, h, w) as in ConvNeXt: a wide convolution of each channel alone, a norm, a mix of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = TracedGroupNorm(GROUPS, channels)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.narrow = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.relu(self.widen(self.norm(self.depthwise(x)))))


def prompt_maps(prompts: Prompts, shape: tuple[int, int, int, int], like: Tensor) -> Tensor:
    """The maps (B * P, F, rows, columns) of prompts for masks of a shape (B, P, rows, columns)."""
    B, P, rows, columns = shape
    y, x = (4 * (torch.arange(side, device=like.device) + 0.5) for side in (rows, columns))  # centres, in pixels of the image
    maps = [torch.zeros(B, P, len(RANGES) * 2, rows, columns, device=like.device)]
    if prompts.points_xy is not None and prompts.labels is not None and prompts.points_xy.shape[2]:
        points = prompts.points_xy.float()[..., None, None, :]  # (B, P, N, 1, 1, 2)
        square = (points[..., 0] - x).square() + (points[..., 1] - y[:, None]).square()  # (B, P, N, rows, columns)
        near = [square.where((prompts.labels == kind)[..., None, None], torch.inf).amin(dim=2).sqrt() for kind in (1, 0)]
        maps = [torch.stack([torch.exp(-distance / reach) for distance in near for reach in RANGES], dim=2)]
    box = torch.zeros(B, P, 2, rows, columns, device=like.device)
    if prompts.boxes_xyxy is not None:
        x1, y1, x2, y2 = prompts.boxes_xyxy.float()[..., None, None].unbind(2)  # (B, P, 1, 1) each
        inside = torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y[:, None] - y1, y2 - y[:, None]))
        box = torch.stack([(inside / RANGES[0]).sigmoid(), (-inside / RANGES[0]).sigmoid()], dim=2)
    mask = torch.zeros(B, P, 2, rows, columns, device=like.device)
    if prompts.mask_logits is not None:
        probs = prompts.mask_logits.float().sigmoid()
        mask = torch.stack([probs, 1 - probs], dim=2)
    return torch.cat([*maps, box, mask], dim=2).flatten(0, 1).to(like.dtype).contiguous(memory_format=torch.channels_last)


def folded(levels: list[Tensor]) -> Tensor:
    """Maps of strides 4, 8 and 16 as one (B, E, h, w): squares of pixels become channels."""
    h, w = (int(side) for side in levels[-1].shape[2:])
    parts = list[Tensor]()
    for level in levels:
        step = STRIDE // STRIDES[len(parts)]
        squares = level.permute(0, 2, 3, 1).unflatten(1, (h, step)).unflatten(3, (w, step))  # (B, h, step, w, step, C)
        parts.append(squares.transpose(2, 3).flatten(3))
    return torch.cat(parts, dim=3).permute(0, 3, 1, 2)


def unfolded(embedding: Tensor) -> list[Tensor]:
    """The maps (B, C, ...) of strides 4, 8 and 16 of an embedding (B, E, h, w)."""
    steps = [STRIDE // stride for stride in STRIDES]
    widths = [step**2 * count for step, count in zip(steps, (FINE, MIDDLE, COARSE), strict=True)]
    levels = []
    for part, step in zip(embedding.permute(0, 2, 3, 1).split(widths, dim=3), steps, strict=True):
        squares = part.unflatten(3, (step, step, -1)).transpose(2, 3)  # (B, h, step, w, step, C)
        levels.append(squares.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2))
    return levels


def _beside(*maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) of one size beside each other, channels innermost in memory."""
    return torch.cat([each.permute(0, 2, 3, 1) for each in maps], dim=3).permute(0, 3, 1, 2)


def _repeated(x: Tensor, count: int) -> Tensor:
    """Maps (B, C, h, w) so many times each (B * count, C, h, w), channels innermost in memory."""
    return x.permute(0, 2, 3, 1).repeat_interleave(count, dim=0).permute(0, 3, 1, 2)


def _twice(x: Tensor) -> Tensor:
    """A map (B, C, h, w) at twice its sides."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


PRESETS = {"sam_nano": Config()}
WEIGHTS = {
    "sam_nano_drawn": Weights(  # benchmarks/fit_sam_nano.py
        preset="sam_nano",
        address="package://models/sam_nano.safetensors",
        sha256="31597278e6bd9f93e7a217589abfa95acc51bddbc2181ff29e1789de3b6e39a3",
        licence="Apache-2.0",
        trained_on="drawn shapes, streets and cells; nuclei (CC0)",
        classes=0,
        intake=timm.LITE_INTAKE,
    ),
}

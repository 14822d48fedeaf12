"""YOLACT: Real-time Instance Segmentation (Bolya et al. 2019, arXiv 1904.02689).

With it YOLACT++: Better Real-time Instance Segmentation (Bolya et al. 2019, arXiv 1912.06218).

A branch on the finest map of a pyramid makes prototypes for the whole image; one head that all levels share says for each prior
box its class, its place and a coefficient for each prototype; a mask is the sigmoid of the sum of prototypes so weighted. Masks
are as sharp as the prototypes, however large the object, and cost one product of matrices. While training, the finest map also
learns the classes of pixels. YOLACT++ has deformable convolutions in the encoder, three sizes of priors a level instead of one,
and a small network that says how well a mask will overlap with the truth, which the score is multiplied by.

What the papers find: 29.8 mask AP on COCO test-dev at 33 images/s of a Titan Xp where Mask R-CNN has 35.7 at 8.6, and 34.6 at
27 images/s for YOLACT++, all on ResNet-101; masks of large objects are better than Mask R-CNN's, and boxes are what is missing.

The authors cut masks at their boxes before they are enlarged. Here masks are whole, and `boxes` say where pixels may be: those
found, each side moved out by a share of the box, at most by one cell of the prototypes. Theirs leave a cell whatever the box.
Of 618 nuclei, 16 pixels wide, whose boxes err by a tenth of their sides, 90 % of the pixels are inside the box, 97 % with a
margin of a tenth, and all with a cell; where masks also show the neighbours, as prototypes may, overlaps with the truth are
0.85, 0.89 and 0.81. So it is a tenth here, and a cell in the presets.

Their networks see images stretched to 550 or 700 pixels a side, and have priors that are squares where width and height were
meant; the presets keep both. Where their loss differs is said in _yolact_loss.py.

The authors' code is MIT; the licence of their weights is not stated. Nothing of their code is used here.

Axes: B batch, C channels, K classes, N priors, Q prototypes, M places for objects, H, W sides of the image, h, w of a map.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.core.lookup import Kind
from segwright.core.weights import Intake, Weights
from segwright.encoders import Encoder, darknet, resnet, timm
from segwright.layers.box_coding import decode_boxes
from segwright.layers.detections import Detections
from segwright.layers.fast_nms import fast_nms
from segwright.layers.image_check import check_image
from segwright.layers.object_truth import ObjectTruth
from segwright.models._yolact_loss import BOX_WEIGHTS, PriorPredictions, crop_mask, yolact_losses

TASKS = ("instance",)
FROM_ENCODER = 3  # maps of strides 8, 16 and 32
LEVELS = FROM_ENCODER + 2  # of the pyramid: strides 64 and 128 are made of the last one
PROTOTYPES = 32  # with more, the paper finds no better masks
RATIOS = (1.0, 0.5, 2.0)  # of a prior's width to its height
SURE = 0.05  # score of its surest class from which a prior is looked at
OVERLAP = 0.5  # from which two boxes of a class are one object
LOOKED_AT = 200  # surest priors of a class, of which several may be of one object
FOR_EACH = 8  # of these at least for each object that a class may fill places with, where there are few classes
RESCORED_SIDE = 63  # cells of the smallest mask that five convolutions of stride 2 leave one of


@dataclass(frozen=True, kw_only=True)
class Config:
    """YOLACT on any encoder; the defaults are the authors' on ResNet-50, but with priors of three shapes and aligned maps.

    `prior_sizes` are those of the levels in pixels, the finest first; `sizes_per_level` of them, growing by equal factors, make
    one level reach the next. `has_square_priors` keeps the authors' slip of the ratio changing both sides. `divisor` is what
    the sides of images must be multiples of: that of the encoder's deepest map keeps maps and pixels aligned, and the authors'
    networks, which saw images of 550 or 700 pixels alone, have learned to do without. `margin` is the share of its sides by
    which a box grows on each side, up to a cell of the prototypes. `is_one_per_place` lets objects of different classes
    suppress each other. `rescores` adds YOLACT++'s network for that. The surest `max_objects` are kept.
    """

    in_channels: int = 3
    num_classes: int = 80
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: resnet.PRESETS["resnet50"])
    width: int = 256
    prior_sizes: tuple[float, float, float, float, float] = (24.0, 48.0, 96.0, 192.0, 384.0)
    sizes_per_level: int = 1
    has_square_priors: bool = False
    divisor: int = 32
    masks_to_train: int = 100
    margin: float = 0.1
    is_one_per_place: bool = False
    rescores: bool = False
    max_objects: int = 100

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_classes", "width", "sizes_per_level", "divisor", "masks_to_train", "max_objects"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; give a whole number of 1 or more")
        if len(self.prior_sizes) != LEVELS or min(self.prior_sizes) <= 0:
            raise SettingError(
                f"prior_sizes is {list(self.prior_sizes)}; give the side in pixels of priors of each of the {LEVELS} levels, "
                "such as [24, 48, 96, 192, 384]"
            )
        if self.margin < 0:
            raise SettingError(f"margin is {self.margin}; give a share of a box's sides, 0 or more, such as 0.1")

    def build(self) -> "Yolact":
        """The network, its weights drawn from torch's global generator."""
        return Yolact(self)


class Yolact(nn.Module):
    """Image (B, C, H, W) to `Detections` of up to M objects, or to the terms of its loss where their truth is given.

    The sides must be multiples of `divisors`; what lies beyond the planes of a truth is padding. Masks lie over the whole
    image, at a quarter of its sides. `predict` takes any size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        self.divisors = (config.divisor,) * 2
        self.pyramid = _Pyramid(self.encoder.channels[-FROM_ENCODER:], config.width)
        self.prototypes = _prototypes(config.width)
        self.head = _Head(config.width, config.num_classes, len(RATIOS) * config.sizes_per_level)
        self.semantic = nn.Conv2d(config.width, config.num_classes, 1)
        self.rescore = _Rescore(config.num_classes) if config.rescores else None
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("encoder."):
                nn.init.xavier_uniform_(module.weight)  # as the authors
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> Detections | dict[str, Tensor]:
        """Objects in an image (B, C, H, W); with the truth of each image, what is wrong, its draws from `generator`.

        Raises:
            ShapeError: the image does not fit, or not each has its truth.
        """
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        found, finest = self.predict(image)
        if truth is None:
            return self._detections(found, image)
        if len(truth) != len(image):
            raise ShapeError(
                f"there are {len(image)} images and the truths of {len(truth)}; give one ObjectTruth for each image"
            )
        return yolact_losses(
            found,
            self.semantic(finest),
            truth,
            masks_to_train=self.config.masks_to_train,
            rescore=self.rescore,
            generator=generator,
        )

    def predict(self, image: Tensor) -> tuple[PriorPredictions, Tensor]:
        """What is said of each prior of an image (B, C, H, W), and the finest map of the pyramid (B, width, H/8, W/8)."""
        levels = self.pyramid(self.encoder(image)[-FROM_ENCODER:])
        prototypes = self.prototypes(levels[0])
        heads = [self.head(level) for level in levels]
        deltas, logits, coefficients = (torch.cat(each, dim=1) for each in zip(*heads, strict=True))
        priors = torch.cat([self._priors(image, level, size) for level, size in zip(levels, self._sizes(), strict=True)])
        return PriorPredictions(deltas, logits, coefficients, prototypes, priors), levels[0]

    def _sizes(self) -> list[list[tuple[float, float]]]:
        """Width and height in pixels of the priors of a place, level by level."""
        config = self.config
        return [
            [
                (side * ratio**0.5, side * (ratio if config.has_square_priors else 1 / ratio) ** 0.5)
                for side in (size * 2 ** (step / config.sizes_per_level) for step in range(config.sizes_per_level))
                for ratio in RATIOS
            ]
            for size in config.prior_sizes
        ]

    def _priors(self, image: Tensor, level: Tensor, sizes: list[tuple[float, float]]) -> Tensor:
        """The priors of a level, (h * w * len(sizes), 4), in pixels; their centres are spread evenly over the image."""
        dtype = torch.promote_types(image.dtype, torch.float32)
        y, x = (
            (torch.arange(level.shape[axis], dtype=dtype, device=image.device) + 0.5) * (image.shape[axis] / level.shape[axis])
            for axis in (2, 3)
        )
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)  # (h, w, 2)
        halves = torch.tensor(sizes, dtype=dtype, device=image.device) / 2  # (A, 2)
        return torch.cat([centres[:, :, None] - halves, centres[:, :, None] + halves], dim=-1).flatten(0, 2)

    def _detections(self, found: PriorPredictions, image: Tensor) -> Detections:
        """The surest objects of each image; where a network is traced, by operations whose shapes no image decides."""
        exact = torch.promote_types(image.dtype, torch.float32)
        boxes = decode_boxes(found.deltas.to(exact), found.priors, BOX_WEIGHTS)
        scores = found.logits.to(exact).softmax(2)[..., 1:].transpose(1, 2)  # (B, K, N)
        scores = torch.where(scores.amax(1, keepdim=True) > SURE, scores, 0.0)
        size = _sides(image, boxes)
        if torch.jit.is_tracing() or image.is_meta:
            return self._chosen(found, boxes, scores, size, self.config.max_objects)
        images = []
        for number in range(len(image)):
            (priors,) = torch.where(scores[number].any(0))
            priors = priors if len(priors) else priors.new_zeros(1)  # one of score 0
            one = found._replace(
                coefficients=found.coefficients[number, priors][None], prototypes=found.prototypes[number, None]
            )
            images.append(self._chosen(one, boxes[number, priors][None], scores[number, :, priors][None], size, None))
        return Detections(*(torch.cat(parts) for parts in zip(*images, strict=True)))

    def _chosen(self, found: PriorPredictions, boxes: Tensor, scores: Tensor, size: Tensor, filled: int | None) -> Detections:
        """Up to M objects of boxes (B, N, 4) with scores (B, K, N) in images of `size`, (W, H, W, H).

        Masks are made for the first `filled` places, or, where that is None, for those that objects fill.
        """
        places, classes = self.config.max_objects, None
        if self.config.is_one_per_place:
            scores, classes = scores.max(1, keepdim=True)
        looked_at = max(LOOKED_AT, FOR_EACH * places // self.config.num_classes)
        kept = fast_nms(boxes, scores, overlap=OVERLAP, looked_at=looked_at, places=places)
        count = int((kept.scores > 0).sum(1).max()) if filled is None else filled
        scores, ids, candidates = (each[:, :count] for each in kept)
        ids = ids if classes is None else classes[:, 0].gather(1, candidates)
        boxes = _taken(boxes, candidates)
        masks = torch.einsum("bmq,bqhw->bmhw", _taken(found.coefficients, candidates), found.prototypes)
        masks = masks.to(boxes.dtype).sigmoid()
        cell = size / _sides(found.prototypes, size)
        if self.rescore is not None:
            cut = masks * crop_mask(boxes / cell, (masks.shape[2], masks.shape[3]))
            expected = self.rescore(cut.flatten(0, 1)[:, None]).unflatten(0, cut.shape[:2]).gather(2, ids[..., None])[..., 0]
            scores, order = (scores * expected.clamp(max=1)).sort(1, descending=True)
            ids, boxes, masks = (_taken(each, order) for each in (ids, boxes, masks))
        margin = torch.minimum(self.config.margin * (boxes[..., 2:] - boxes[..., :2]), cell[2:])
        grown = torch.cat([boxes[..., :2] - margin, boxes[..., 2:] + margin], dim=-1)
        is_filled = (scores > 0)[..., None]
        grown = torch.where(is_filled, torch.minimum(grown.clamp(min=0), size), 0.0)
        free = places - count
        return Detections(
            F.pad(grown, (0, 0, 0, free)),
            F.pad(scores, (0, free)),
            F.pad(torch.where(is_filled[..., 0], ids, 0), (0, free)),
            F.pad(torch.where(is_filled[..., None], masks, 0.0), (0, 0, 0, 0, 0, free)),
            torch.cat([torch.zeros_like(size[:2]), size[:2]]).expand(len(scores), places, 4),
        )


def _sides(x: Tensor, like: Tensor) -> Tensor:
    """Width, height, width and height of a map (B, C, H, W), in the kind of another tensor; not fixed by tracing."""
    return torch.stack([like.new_ones(()) * x.shape[axis] for axis in (3, 2, 3, 2)])


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Of values (B, N, ...) those at places (B, M), (B, M, ...)."""
    trailing = values.shape[2:]
    index = places.reshape(*places.shape, *(1 for _ in trailing)).expand(-1, -1, *trailing)
    return values.gather(1, index)


class _Pyramid(nn.Module):
    """Maps (B, channels[i], H / 8, W / 8) and coarser to LEVELS maps (B, width, ...), the finest first.

    What comes from deeper is enlarged bilinearly, a ReLU follows the 3x3 convolutions, and strided convolutions make the two
    deepest maps of the last: so it is in the authors' network alone.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(before, width, 1) for before in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(LEVELS - FROM_ENCODER))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        sums: list[Tensor] = []
        for level, lateral in zip(maps[::-1], self.lateral[::-1], strict=True):
            here = lateral(level)
            if sums:
                here = here + F.interpolate(sums[-1], size=here.shape[2:], mode="bilinear", align_corners=False)
            sums.append(here)
        levels = [F.relu(output(each)) for output, each in zip(self.output, sums[::-1], strict=True)]
        for down in self.down:
            levels.append(down(levels[-1]))
        return levels


def _prototypes(width: int) -> nn.Sequential:
    """Map (B, width, h, w) to the prototypes (B, Q, 2h, 2w), which are 0 or more."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, PROTOTYPES, 1), nn.ReLU(inplace=True))


class _Head(nn.Module):
    """Map (B, width, h, w) to deltas (B, h*w*A, 4), logits (B, h*w*A, K + 1) and coefficients (B, h*w*A, Q) of its priors."""

    def __init__(self, width: int, num_classes: int, priors: int) -> None:
        super().__init__()
        self.shared = nn.Conv2d(width, width, 3, padding=1)
        self.box = nn.Conv2d(width, 4 * priors, 3, padding=1)
        self.classify = nn.Conv2d(width, (num_classes + 1) * priors, 3, padding=1)
        self.coefficients = nn.Conv2d(width, PROTOTYPES * priors, 3, padding=1)
        self.num_classes = num_classes

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.shared(level))
        each = ((self.box(x), 4), (self.classify(x), self.num_classes + 1), (self.coefficients(x), PROTOTYPES))
        deltas, logits, coefficients = (y.permute(0, 2, 3, 1).reshape(len(y), -1, values) for y, values in each)
        return deltas, logits, coefficients.tanh()


class _Rescore(nn.Sequential):
    """Masks (n, 1, h, w), cut at their boxes, to the overlap with the truth that each would have by its class, (n, K)."""

    def __init__(self, num_classes: int) -> None:
        widths = (1, 8, 16, 32, 64, 128)
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(widths[-1], num_classes, 1), nn.ReLU(inplace=True))

    def forward(self, masks: Tensor) -> Tensor:
        missing = [max(RESCORED_SIDE - int(side), 0) for side in masks.shape[2:]]  # nothing is outside an image
        return super().forward(F.pad(masks, (0, missing[1], 0, missing[0]))).amax((2, 3))


AUTHORS = Config(has_square_priors=True, divisor=2, margin=1.0)  # 2: of 550 and 700
RESNET50, RESNET101 = (resnet.PRESETS[name] for name in ("resnet50", "resnet101"))
PLUS = replace(AUTHORS, sizes_per_level=3, has_square_priors=False, rescores=True)
PASCAL_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
PRESETS = {
    "yolact_resnet50": AUTHORS,
    "yolact_darknet53": replace(AUTHORS, encoder=darknet.PRESETS["darknet53"]),
    "yolact_base": replace(AUTHORS, encoder=RESNET101),
    "yolact_im700": replace(AUTHORS, encoder=RESNET101, prior_sizes=(30.0, 61.0, 122.0, 244.0, 488.0), masks_to_train=300),
    "yolact_resnet50_pascal": replace(AUTHORS, num_classes=20, prior_sizes=PASCAL_SIZES, has_square_priors=False),
    "yolact_plus_resnet50": replace(PLUS, encoder=replace(RESNET50, deformable_every=1)),
    "yolact_plus_base": replace(PLUS, encoder=replace(RESNET101, deformable_every=3)),
    "yolact_regnetx_004": Config(  # ours, for minutes on a processor
        encoder=timm.Config(name="regnetx_004"), width=128, prior_sizes=(16.0, 32.0, 64.0, 128.0, 256.0), is_one_per_place=True
    ),
}

INTAKE = Intake(mean=(123.68, 116.78, 103.94), std=(58.40, 57.12, 57.38))
UNIT_INTAKE = Intake(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))  # Darknet's, values of 0 to 1
WEIGHTS = {  # the addresses are those of the authors' page of 2025, where the files of 2019 lie again
    f"{preset}_coco": Weights(
        preset=preset,
        address=f"hf://dbolya/{preset.replace('_', '-')}/{preset}_54_800000.pth",
        licence="unstated (code MIT)",
        trained_on="MS COCO train2017",
        classes=80,
        intake=UNIT_INTAKE if preset == "yolact_darknet53" else INTAKE,
        score=f"{score} mask AP on COCO test-dev",
    )
    for preset, score in (
        ("yolact_resnet50", 28.2),
        ("yolact_darknet53", 28.7),
        ("yolact_base", 29.8),
        ("yolact_im700", 31.2),
        ("yolact_plus_resnet50", 34.1),
        ("yolact_plus_base", 34.6),
    )
}

UNUSED = re.compile(r"backbone\.layer\d\..*|fpn\.downsample_layers\.([2-9]|\d\d+)\..*")  # dead copies in files of version 1.0
HEADS = {"upfeature.0": "shared", "bbox_layer": "box", "conf_layer": "classify", "mask_layer": "coefficients"}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the authors' YOLACT or YOLACT++ under our names; load them with `load_state_dict`, strictly.

    Raises:
        FormatError: a tensor has no place in a YOLACT; the message names it.
    """
    encoder, ours = {}, {}
    for key, tensor in state_dict.items():
        if UNUSED.fullmatch(key):
            continue
        if key.startswith("backbone."):
            encoder[key.removeprefix("backbone.").replace(".conv_offset_mask.", ".offset_mask.")] = tensor
        else:
            ours[_our_name(key)] = tensor
    if any(key.startswith("_preconv.") for key in encoder):
        encoder = darknet.rename(encoder)
    else:
        stages = {
            re.sub(r"^layers\.(\d)\.", lambda found: f"layer{int(found[1]) + 1}.", key): each for key, each in encoder.items()
        }
        encoder = resnet.rename(stages)
    return {f"encoder.{name}": tensor for name, tensor in encoder.items()} | ours


def _our_name(key: str) -> str:
    """The name here of a tensor behind the encoder; the authors number the pyramid from the deepest map on.

    Raises:
        FormatError: a YOLACT holds no such tensor.
    """
    if found := re.fullmatch(r"fpn\.(lat|pred)_layers\.([0-2])(\.\w+)", key):
        return f"pyramid.{'lateral' if found[1] == 'lat' else 'output'}.{FROM_ENCODER - 1 - int(found[2])}{found[3]}"
    if found := re.fullmatch(r"fpn\.downsample_layers\.([01])(\.\w+)", key):
        return f"pyramid.down.{found[1]}{found[2]}"
    if found := re.fullmatch(r"prediction_layers\.0\.(upfeature\.0|bbox_layer|conf_layer|mask_layer)(\.\w+)", key):
        return f"head.{HEADS[found[1]]}{found[2]}"
    if found := re.fullmatch(r"(proto_net|maskiou_net\.maskiou_net)\.(\d+\.\w+)", key):
        return f"{'prototypes' if found[1] == 'proto_net' else 'rescore'}.{found[2]}"
    if found := re.fullmatch(r"semantic_seg_conv(\.\w+)", key):
        return f"semantic{found[1]}"
    raise FormatError(
        f"the weights hold {key!r}, which no YOLACT has; names that start with 'backbone.', 'fpn.', 'proto_net.' and "
        "'prediction_layers.0.' are expected: check that the file holds the authors' YOLACT"
    )

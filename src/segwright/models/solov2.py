"""SOLOv2: Dynamic and Fast Instance Segmentation (Wang et al. 2020, arXiv 2003.10152).

Objects are told apart by where they are (SOLO, arXiv 1912.04488): the image is a grid of cells, finer for smaller objects, and
the cell in which the middle of an object lies says of which class it is. There are no boxes and no anchors. In SOLO each cell
had a map of its own for its mask; here a cell says the kernel of a 1x1 convolution instead, and all kernels work on one map at
stride 4, the sum of all levels of a feature pyramid. Only the kernels of cells that found something are ever used.

What the paper found: one map for all levels is better than one for each, and convolutions know places only when they are told
them as coordinates, by more than one AP on COCO; kernels of 1x1 are as good as of 3x3. Matrix NMS, which lowers the scores of
all masks in one go, takes under a millisecond and is better than greedy NMS (layers/matrix_nms.py). ResNet-101 with deformable
convolutions reaches 41.7 AP; light variants reach 37.1 at 31 images a second. Masks are finer than Mask R-CNN's, which are
28 x 28 however large an object is: large objects gain most, small ones lose a little.

The presets `_caffe` are AdelaiDet's, on ResNets that stride in the first convolution of a bottleneck and see images as blue,
green, red; `rename` turns the first convolution round. The others are those of SOLO's own files, on torchvision's ResNets. The
light ones are for images whose shorter side is 448. `solov2_small` is ours, for small images and minutes on a CPU.

Deviations: masks are made for the 500 surest cells of an image alone. Where several objects claim a cell, it finds one of
them (layers/grid_targets.py). Objects smaller than a cell of stride 4 are learned as one cell, and void is not learned at all.
Where the sigmoid is flat, a hundredth of Dice's gradient is kept, or masks that come out empty early in training stay so
(layers/dynamic_masks.py). The light variant with deformable convolutions is left out.

The authors' code and weights are for non-commercial use alone. Nothing of the code is used here.

Axes: B batch, C channels, K classes, G cells of all grids, S cells along a side of one, E channels of kernels, H, W sides of
the image.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.core.lookup import Kind
from segwright.core.weights import Weights
from segwright.encoders import STRIDES, Encoder, resnet
from segwright.layers.detections import Detections
from segwright.layers.dynamic_masks import dynamic_dice, dynamic_masks
from segwright.layers.feature_pyramid import FeaturePyramid
from segwright.layers.grid_targets import cells_of_objects, sampled_masks
from segwright.layers.image_check import check_image
from segwright.layers.mask_boxes import HALF, boxes_of_masks
from segwright.layers.matrix_nms import matrix_nms
from segwright.layers.norms import GROUPS
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.semantic_branch import ConvGroupNormRelu, SemanticBranch, check_widths
from segwright.losses.sigmoid_focal import SigmoidFocal

TASKS = ("instance",)
LEVELS = len(STRIDES)
COORDINATES = 2  # x and y
PRIOR = 0.01  # the probability of each class at the start, so that the many cells without an object cost little (RetinaNet)
FOCAL = SigmoidFocal(gamma=2.0, alpha=0.25)  # as in RetinaNet and the paper
DICE_WEIGHT = 3  # of the masks' loss beside the classes', as in the paper
CANDIDATES = 500  # cells whose masks are looked at
LEAST_SCORE = 0.1  # of a cell whose mask is looked at
LEAST_LEFT = 0.05  # of a score after matrix NMS


@dataclass(frozen=True, kw_only=True)
class Config:
    """SOLOv2 on any encoder; the defaults are the authors' for the 80 classes of COCO, on ResNet-50.

    Level by level, the finest grid first: `grids` are the cells along a side, `scale_ranges` the sizes of objects that they
    find, as the root of the area of a box in pixels, and `least_areas` the cells of stride 4 that a mask must have more than.
    """

    in_channels: int = 3
    num_classes: int = 80
    encoder: Annotated[Encoder, Kind("encoders")] = field(default_factory=lambda: resnet.PRESETS["resnet50"])
    pyramid_width: int = 256
    head_width: int = 512
    head_depth: int = 4  # convolutions of either head before its last
    branch_width: int = 128
    kernel_width: int = 256
    grids: tuple[int, int, int, int, int] = (40, 36, 24, 16, 12)
    scale_ranges: tuple[tuple[float, float], ...] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
    least_areas: tuple[int, int, int, int, int] = (8, 8, 16, 32, 32)
    max_objects: int = 100

    def __post_init__(self) -> None:
        counts = ("in_channels", "num_classes", "pyramid_width", "head_depth", "max_objects")
        check_widths(self.branch_width, **{name: getattr(self, name) for name in counts})
        for name in ("head_width", "kernel_width"):
            if (width := getattr(self, name)) < 1 or width % GROUPS:
                raise SettingError(
                    f"{name} is {width}; its channels are normalised in {GROUPS} groups, so give a multiple of {GROUPS}, "
                    "such as 256"
                )
        if len({len(self.grids), len(self.scale_ranges), len(self.least_areas), LEVELS + 1}) > 1 or min(self.grids) < 1:
            raise SettingError(
                f"grids is {list(self.grids)} for {len(self.scale_ranges)} scale_ranges and {len(self.least_areas)} "
                f"least_areas; each of the {LEVELS + 1} levels needs one of each, and a cell or more along a side"
            )

    def build(self) -> "SOLOv2":
        """The network, its weights drawn from torch's global generator."""
        return SOLOv2(self)


class SOLOv2(nn.Module):
    """Image (B, C, H, W) to detections, or with the truth to losses; the sides must be multiples of `divisors`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(config.in_channels)
        strides = self.encoder.strides[-LEVELS:]
        self.divisors = (strides[-1],) * 2
        self.stride = strides[0]  # of masks
        self.pyramid = FeaturePyramid(self.encoder.channels[-LEVELS:], config.pyramid_width)
        shape = (config.pyramid_width, config.branch_width)
        self.branch = SemanticBranch(strides, *shape, align_corners=False, extra=COORDINATES)
        self.join = ConvGroupNormRelu(config.branch_width, config.kernel_width, 1)
        self.class_head = _Head(config.pyramid_width, config.head_width, config.head_depth, config.num_classes)
        self.kernel_head = _Head(config.pyramid_width + COORDINATES, config.head_width, config.head_depth, config.kernel_width)
        nn.init.constant_(self.class_head.last.get_parameter("bias"), -log(1 / PRIOR - 1))

    def forward(
        self, image: Tensor, truth: Sequence[ObjectTruth] | None = None, generator: torch.Generator | None = None
    ) -> dict[str, Tensor] | Detections:
        """Detections of an image (B, C, H, W); with the truth of each, the losses "class" and "mask". Nothing is drawn."""
        check_image(image, channels=self.config.in_channels, axes=2, divisors=self.divisors)
        levels = self.pyramid(self.encoder(image)[-LEVELS:])
        features = self._features(levels)  # (B, E, H/4, W/4)
        logits, kernels = self._cells(levels)  # lists of (B, K, S, S) and (B, E, S, S)
        if truth is not None:
            _check_truth(truth, image)
            return self._losses(_joined(logits), _joined(kernels), features, truth)
        probs = _joined([point_nms(level.float().sigmoid()) for level in logits])
        found = [self._found(*each) for each in zip(probs, _joined(kernels), features, strict=True)]
        return Detections(*map(torch.stack, zip(*found, strict=True)))

    def _features(self, levels: list[Tensor]) -> Tensor:
        """What all kernels work on, (B, E, H/4, W/4), from the maps of the pyramid, the finest first."""
        *finer, deepest = levels
        return self.join(self.branch([*finer, _beside(deepest, _coordinates(deepest))]))

    def _cells(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, K, S, S) and kernels (B, E, S, S) of each grid of S x S cells, from the maps of the pyramid.

        The finest map is halved, and one deeper than all is made as RetinaNet's, of each other pixel, and brought back to the
        size of the deepest: so the authors have it.
        """
        finest, *others = levels
        finest = F.interpolate(finest, scale_factor=0.5, mode="bilinear", align_corners=False, recompute_scale_factor=True)
        deepest = F.interpolate(levels[-1][:, :, ::2, ::2], size=levels[-1].shape[2:], mode="bilinear", align_corners=False)
        logits, kernels = [], []
        for level, side in zip([finest, *others, deepest], self.config.grids, strict=True):
            places = _coordinates(level)
            grid, places = (F.interpolate(x, (side, side), mode="bilinear", align_corners=False) for x in (level, places))
            logits.append(self.class_head(grid))
            kernels.append(self.kernel_head(_beside(grid, places)))
        return logits, kernels

    def _losses(self, logits: Tensor, kernels: Tensor, features: Tensor, truth: Sequence[ObjectTruth]) -> dict[str, Tensor]:
        """The focal loss of the classes of cells (B, G, K), and Dice's of the masks that their kernels (B, G, E) give.

        The classes' is a sum over all cells, divided by the cells that find an object; the masks' is a mean over these.
        """
        wanted, cost = torch.zeros_like(logits, dtype=torch.int64), features.new_zeros((), dtype=torch.float32)
        count = 0
        for index, one in enumerate(truth):
            cells = cells_of_objects(one, self.config.grids, self.config.scale_ranges)  # (G,)
            places = (cells > 0).nonzero()[:, 0]
            objects = cells[places] - 1
            wanted[index, places, one.class_ids[objects]] = 1
            wanted[index, cells < 0] = -1
            cost = cost + dynamic_dice(kernels[index, places], features[index], objects, sampled_masks(one, self.stride))
            count += len(places)
        known = (wanted >= 0).sum()
        of_classes = FOCAL(logits.mT, wanted.mT) * known / (count + 1)  # 1 as the authors do, for images without an object
        return {"class": of_classes, "mask": DICE_WEIGHT * cost / max(count, 1)}

    def _found(self, probs: Tensor, kernels: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        """Boxes, scores, class ids, masks and regions of one image, from cells (G, K) and (G, E) and the map (E, H/4, W/4).

        A score is that of the class, times the mean probability inside the mask, lowered by matrix NMS.
        """
        sides = features.shape[1:]
        scores, index = probs.flatten().topk(min(CANDIDATES, probs.numel()))
        scores, index = _filled(scores > LEAST_SCORE, scores, index)
        cells, class_ids = torch.div(index, probs.shape[1], rounding_mode="floor"), index % probs.shape[1]
        masks = dynamic_masks(kernels[cells], features).float().sigmoid()  # (candidates, H/4, W/4)
        is_inside = (masks > HALF).flatten(1)
        levels = zip(self.config.grids, self.config.least_areas, strict=True)
        least = torch.cat([torch.full((side**2,), area, device=probs.device) for side, area in levels])  # (G,)
        area = is_inside.sum(dim=1)
        sureness = (masks.flatten(1) * is_inside).sum(dim=1) / area.clamp(min=1)
        scores = scores * sureness * ((area > least[cells]) & (scores > LEAST_SCORE))
        scores, order = scores.topk(len(scores))
        scores = matrix_nms(is_inside[order], scores, class_ids[order])
        scores, best = (scores * (scores >= LEAST_LEFT)).topk(min(self.config.max_objects, len(scores)))
        scores, best = _filled(scores > 0, scores, order[best])
        found = masks[best]
        region = torch.tensor([0, 0, sides[1], sides[0]], device=probs.device) * float(self.stride)
        boxes = boxes_of_masks(found, self.stride) * (scores > 0)[:, None]
        return tuple(
            F.pad(part, (0, 0) * (part.ndim - 1) + (0, self.config.max_objects - len(part)))
            for part in (boxes, scores, class_ids[best], found, region.expand(len(scores), -1))
        )


class _Head(nn.Module):
    """Map (B, before, S, S) to (B, after, S, S) by convolutions of 3x3."""

    def __init__(self, before: int, width: int, depth: int, after: int) -> None:
        super().__init__()
        self.tower = nn.Sequential(*(ConvGroupNormRelu(width if number else before, width) for number in range(depth)))
        self.last = nn.Conv2d(width, after, 3, padding=1)
        nn.init.normal_(self.last.weight, std=0.01)  # as RetinaNet
        nn.init.zeros_(self.last.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.tower(x))


def _coordinates(level: Tensor) -> Tensor:
    """The places x and y of the pixels of a map (B, C, h, w), (B, 2, h, w), from -1 to 1 between the outermost."""
    B, _, h, w = level.shape
    x, y = (torch.linspace(-1, 1, side, dtype=level.dtype, device=level.device) for side in (w, h))
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).expand(B, -1, -1, -1)


def _beside(level: Tensor, places: Tensor) -> Tensor:
    """A map (B, C, h, w) with the places of its pixels behind its channels, in its own layout, which joining may lose."""
    is_last = level.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if is_last else torch.contiguous_format
    return torch.cat([level, places], dim=1).contiguous(memory_format=layout)


def _joined(grids: list[Tensor]) -> Tensor:
    """Values (B, C, S, S) of grids as those of all cells (B, G, C)."""
    return torch.cat([grid.flatten(2) for grid in grids], dim=2).transpose(1, 2)


def point_nms(probs: Tensor) -> Tensor:
    """Probabilities (B, K, S, S) with 0 where a neighbour above, to the left or between both is larger: NMS of points."""
    highest = F.max_pool2d(probs, 2, stride=1, padding=1)[:, :, :-1, :-1]
    return probs * (highest == probs)


def _filled(is_filled: Tensor, *values: Tensor) -> list[Tensor]:
    """Values (n,) of the places that are filled, which come first; all of them where the number of places must not depend on
    values: for an exporter, which records each step, and where there are no values."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or is_filled.device.type == "meta":
        return list(values)
    count = int(is_filled.sum())
    return [value[:count] for value in values]


def _check_truth(truth: Sequence[ObjectTruth], image: Tensor) -> None:
    """Refuse truths that are not one for each image, with its sides.

    Raises:
        ShapeError: says which of these it is, and what to do.
    """
    if len(truth) != len(image):
        raise ShapeError(f"there are {len(image)} images and truths of {len(truth)}; give one ObjectTruth for each image")
    for one in truth:
        if one.planes.shape[1:] != image.shape[2:]:
            given, wanted = (" x ".join(map(str, sides)) for sides in (one.planes.shape[1:], image.shape[2:]))
            raise ShapeError(f"the truth is {given} and the images are {wanted}; pad the planes as the images, with 0")


CAFFE_RESNET50 = replace(resnet.PRESETS["resnet50"], stride_on="1x1")
CAFFE_RESNET101 = replace(resnet.PRESETS["resnet101"], stride_on="1x1")
LIGHT = Config(
    head_width=256,
    head_depth=2,
    kernel_width=128,
    scale_ranges=((1, 56), (28, 112), (56, 224), (112, 448), (224, 896)),
)
PRESETS = {
    "solov2_resnet50": Config(),
    "solov2_resnet101": Config(encoder=resnet.PRESETS["resnet101"]),
    "solov2_resnet50_caffe": Config(encoder=CAFFE_RESNET50),
    "solov2_resnet101_caffe": Config(encoder=CAFFE_RESNET101),
    "solov2_light_448_resnet18": replace(LIGHT, encoder=resnet.PRESETS["resnet18"]),
    "solov2_light_448_resnet34": replace(LIGHT, encoder=resnet.PRESETS["resnet34"]),
    "solov2_light_448_resnet50": LIGHT,
    "solov2_small": Config(
        encoder=resnet.PRESETS["resnet18"],
        pyramid_width=64,
        head_width=64,
        head_depth=2,
        branch_width=64,
        kernel_width=64,
        scale_ranges=((1, 32), (16, 64), (32, 128), (64, 256), (128, 2048)),
        least_areas=(0, 0, 0, 0, 0),
    ),
}

AUTHORS = "hf://xinlongwang/SOLO"
WEIGHTS = {
    f"{preset}_coco": Weights(
        preset=preset,
        address=f"{AUTHORS}/{file}_3x.pth",
        sha256=digits,
        licence="non-commercial",
        trained_on="MS COCO train2017",
        classes=80,
    )
    for preset, file, digits in (
        ("solov2_resnet50", "SOLOv2_R50", "659975203266ca2d00167790796fde961d09930c01124377d3ee3a8be3a3a660"),
        ("solov2_resnet101", "SOLOv2_R101", "7126c25eee6575ef405fc689b46510493b4dc991ebf758a12645109ed906c55f"),
        (
            "solov2_light_448_resnet18",
            "SOLOv2_LIGHT_448_R18",
            "4f89669be79143566e02bdc51428fc10c83a3974a53326fcae1cf7e336dc6997",
        ),
        (
            "solov2_light_448_resnet34",
            "SOLOv2_LIGHT_448_R34",
            "9243f7b9e64e4ae0a77517fed392a7f170ab3e5cad7028caa7b062c34d87d3c5",
        ),
        ("solov2_light_448_resnet50", "SOLOv2_LIGHT_448_R50", None),
    )
}


UNUSED = ("pixel_mean", "pixel_std")  # how images are normalised
ENCODERS = ("backbone.bottom_up.", "backbone.")  # of AdelaiDet's files, and of SOLO's
STEM = "stem.conv1.weight"  # of AdelaiDet's, which see blue first
HEADS = {"cate": "class_head", "kernel": "kernel_head"}
PARTS = {"conv": "0", "gn": "1"}


def rename(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the layout of AdelaiDet or of SOLO's own files under our names; load them with `load_state_dict`, strictly.

    The first convolution of AdelaiDet's is turned to take red, green, blue.

    Raises:
        FormatError: a tensor has no place in a SOLOv2; the message names it.
    """
    encoder, ours = {}, {}
    for key, tensor in state_dict.items():
        prefix = next((prefix for prefix in ENCODERS if key.startswith(prefix)), None)
        if prefix and not key.startswith("backbone.fpn_"):
            name = key.removeprefix(prefix)
            encoder[name] = tensor.flip(1) if name == STEM else tensor
        elif not key.startswith(UNUSED):
            ours[_our_name(key)] = tensor
    return {f"encoder.{name}": tensor for name, tensor in resnet.rename(encoder).items()} | ours


def _our_name(key: str) -> str:
    """The name here of a tensor behind the encoder. AdelaiDet numbers convolution, norm and ReLU of a tower one after another.

    Raises:
        FormatError: a SOLOv2 holds no such tensor.
    """
    if found := re.fullmatch(r"backbone\.fpn_(lateral|output)([2-5])(\.\w+)", key):
        return f"pyramid.{found[1]}.{int(found[2]) - 2}{found[3]}"
    if found := re.fullmatch(r"neck\.(lateral|fpn)_convs\.([0-3])\.conv(\.\w+)", key):
        return f"pyramid.{'lateral' if found[1] == 'lateral' else 'output'}.{found[2]}{found[3]}"
    if found := re.fullmatch(r"ins_head\.(cate|kernel)_tower\.(\d+)(\.\w+)", key):
        return f"{HEADS[found[1]]}.tower.{int(found[2]) // 3}.{int(found[2]) % 3}{found[3]}"
    if found := re.fullmatch(r"bbox_head\.(cate|kernel)_convs\.(\d+)\.(conv|gn)(\.\w+)", key):
        return f"{HEADS[found[1]]}.tower.{found[2]}.{PARTS[found[3]]}{found[4]}"
    if found := re.fullmatch(r"(?:ins_head\.(cate|kernel)_pred|bbox_head\.solo_(cate|kernel))(\.\w+)", key):
        return f"{HEADS[found[1] or found[2]]}.last{found[3]}"
    if found := re.fullmatch(r"mask_(?:feat_)?head\.convs_all_levels\.([0-3])\.conv([0-2])\.(conv|gn|0|1)(\.\w+)", key):
        return f"branch.levels.{found[1]}.{found[2]}.{PARTS.get(found[3], found[3])}{found[4]}"
    if found := re.fullmatch(r"mask_(?:feat_)?head\.conv_pred\.(?:0\.)?(conv|gn|0|1)(\.\w+)", key):
        return f"join.{PARTS.get(found[1], found[1])}{found[2]}"
    raise FormatError(
        f"the weights hold {key!r}, which no SOLOv2 has; names that start with 'backbone.', 'ins_head.' and 'mask_head.', or "
        "with 'neck.', 'bbox_head.' and 'mask_feat_head.', are expected: check that the file holds AdelaiDet's or SOLO's SOLOv2"
    )

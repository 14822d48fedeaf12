"""PointRend's masks of objects: coarse, and asked for anew at points (Kirillov et al. 2019, arXiv 1912.08193, section 4).

Axes: B batch, R regions, E channels of the pyramid, K classes, P points, h, w sides of the finest map. Regions are (x1, y1, x2,
y2) in pixels of the image, a tensor (R_i, 4) for each image of the batch; what is told of all R comes image after image.
"""

from collections.abc import Sequence
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import SettingError
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_head import PointHead
from segwright.layers.point_sampling import (
    cell_centres,
    channels_together,
    objects_at_points,
    points_in_boxes,
    sample_at_points,
    subdivided,
    uncertain_points,
)

SAMPLED_SIDE = 14  # of what the coarse masks are made from, in all published networks
COARSE_SIDE = 7
FIRST_SIDE = 28  # of the first mask that points make: all of its 784, as many as each doubling asks for anew
REFINED_POINTS = FIRST_SIDE**2  # the paper's choice
TRAINING_POINTS = 14**2  # of an object, the paper's choice: 49 do as well on average, but not each time
CELL_SIDE = 4  # pixels of the image, of a cell of the finest map


class PointMaskHead(nn.Module):
    """The finest map of a pyramid (B, E, h, w), regions and their classes to logits of masks (R, side, side).

    Linear layers make coarse masks (R, K, 7, 7) of a grid of 14 x 14 points of the map. The point network then makes a mask of
    28 x 28, which is doubled up to `side`; each doubling asks it again for the 784 pixels nearest to the border of the object.
    """

    def __init__(
        self, before: int, num_classes: int, *, coarse_width: int, linear_width: int, point_width: int, side: int
    ) -> None:
        super().__init__()
        self.side = side
        self.narrow = nn.Conv2d(before, coarse_width, 1) if coarse_width != before else None
        self.halve = nn.Conv2d(coarse_width, coarse_width, 2, stride=2)
        self.linears = nn.ModuleList(nn.Linear(count, linear_width) for count in (coarse_width * COARSE_SIDE**2, linear_width))
        self.classes = nn.Linear(linear_width, num_classes * COARSE_SIDE**2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # all as detectron2
                nn.init.zeros_(module.get_parameter("bias"))
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.classes.weight, std=0.001)  # masks start undecided
        self.points = PointHead(before, point_width, num_classes, coarse_each_layer=True)

    def coarse(self, fine: Tensor, regions: Sequence[Tensor]) -> Tensor:
        """Logits of all classes (R, K, 7, 7) of the regions."""
        grid = cell_centres(SAMPLED_SIDE, regions[0])
        x = _features(fine, regions, [grid.expand(len(each), -1, -1) for each in regions])
        x = x.unflatten(2, (SAMPLED_SIDE, SAMPLED_SIDE))  # (R, E, 14, 14)
        if fine.is_contiguous(memory_format=torch.channels_last):  # as the convolutions want it then
            x = channels_together(x)
        if self.narrow is not None:
            x = self.narrow(x).relu()
        x = self.halve(x).relu().flatten(1)
        for linear in self.linears:
            x = linear(x).relu()
        return self.classes(x).unflatten(1, (-1, COARSE_SIDE, COARSE_SIDE))

    def forward(self, fine: Tensor, regions: Sequence[Tensor], class_ids: Tensor) -> Tensor:
        """Logits (R, side, side) of the masks of regions with these classes, int64 (R,)."""
        fine = channels_together(fine)
        coarse = self.coarse(fine, regions)
        counts = [len(each) for each in regions]

        def ask(points: Tensor) -> Tensor:
            found = _features(fine, regions, points.split(counts))
            logits = self.points.of_classes(found, sample_at_points(coarse, points), class_ids)[:, None]  # (R, 1, P)
            return logits.float() if logits.dtype.itemsize < 4 else logits  # doubled thrice, rounding would add up

        grid = cell_centres(FIRST_SIDE, regions[0])
        masks = ask(grid.expand(len(class_ids), -1, -1)).unflatten(2, (FIRST_SIDE, FIRST_SIDE))
        for _ in range(round(log2(self.side / FIRST_SIDE))):
            masks = subdivided(masks, _nearness, REFINED_POINTS, ask)
        return masks[:, 0]

    def point_loss(
        self,
        fine: Tensor,
        coarse: Tensor,
        regions: Sequence[Tensor],
        objects: Sequence[Tensor],
        truth: Sequence[ObjectTruth],
        generator: torch.Generator | None,
    ) -> Tensor:
        """How far the point network is from the masks, at 196 points of each region: binary cross-entropy, a scalar.

        `coarse` (R, K, 7, 7) are the logits of `coarse`, `objects` int64 (R_i,) say which object of an image each region holds.
        What lies beyond the planes of a truth is padding. Without regions it is 0, with gradients of 0.
        """
        class_ids = torch.cat([each.class_ids[index] for each, index in zip(truth, objects, strict=True)])
        own = coarse[torch.arange(len(class_ids), device=coarse.device), class_ids][:, None]  # (R, 1, 7, 7)
        points = uncertain_points(own, _nearness, TRAINING_POINTS, generator)  # (R, P, 2)
        parts = points.split([len(each) for each in regions])
        found = _features(fine, regions, parts)
        logits = self.points.of_classes(found, sample_at_points(coarse, points), class_ids)
        wanted = [
            objects_at_points(planes, index, points_in_boxes(part, boxes, (planes.shape[1], planes.shape[2])))
            for (_, _, planes), index, part, boxes in zip(truth, objects, parts, regions, strict=True)
        ]
        loss = F.binary_cross_entropy_with_logits(logits.to(points.dtype), torch.cat(wanted), reduction="sum")
        return loss / max(logits.numel(), 1)


def check_mask_side(side: int) -> None:
    """Refuse a side of masks that doubling does not come to.

    Raises:
        SettingError: it is not 28, 56, 112, 224 and so on.
    """
    if side < FIRST_SIDE or side % FIRST_SIDE or (side // FIRST_SIDE).bit_count() > 1:
        raise SettingError(
            f"mask_side is {side}; masks of {FIRST_SIDE} x {FIRST_SIDE} are doubled, so give 28, 56, 112, 224 or 448"
        )


def _nearness(logits: Tensor) -> Tensor:
    """How near to the border of an object it is (B, *), 0 at most, from the logits of its class (B, 1, *)."""
    return -logits[:, 0].abs()


def _sides(fine: Tensor) -> tuple[int, int]:
    """Height and width in pixels of the image that the finest map belongs to."""
    height, width = fine.shape[2:]
    return CELL_SIDE * height, CELL_SIDE * width


def _features(fine: Tensor, regions: Sequence[Tensor], points: Sequence[Tensor]) -> Tensor:
    """The finest map (B, E, h, w) at points (R_i, P, 2) of regions (R_i, 4) of each image: (R, E, P)."""
    found = []
    for level, boxes, part in zip(fine.split(1), regions, points, strict=True):
        places = points_in_boxes(part, boxes, _sides(fine))
        values = sample_at_points(level, places.flatten(0, 1)[None])[0]  # (E, R_i * P)
        found.append(values.unflatten(1, part.shape[:2]).movedim(0, 1))
    return torch.cat(found)

"""Maps at single points, and which points are worth a look: PointRend (Kirillov et al. 2019, arXiv 1912.08193).

Points are (x, y) from 0 to 1 of a map, or of a box: edge to edge, so that pixel i of a side of n has its centre at
(i + 0.5) / n. What lies between centres is mixed bilinearly, and beyond the edge all is 0.

Axes: B batch, C channels, K classes, N objects, P points, D planes, H, W sides of a map, h, w sides of logits.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

OVERSAMPLING = 3  # points drawn for each that is kept, the paper's k
IMPORTANT = 0.75  # the share of points taken for being uncertain, the paper's beta; the others lie anywhere


class WithPoints(NamedTuple):
    """What a dense network that looks at single points gives in training: `logits` (B, K, h, w) of all, coarse.

    `point_logits` (B, K, P) are the finer ones at `points` (B, P, 2), where a loss compares them with the class map. In
    evaluation such a network puts them into its logits, and returns these alone.
    """

    logits: Tensor
    point_logits: Tensor
    points: Tensor


def sample_at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (B, C, H, W) at points (B, P, 2): (B, C, P) of the dtype of the maps, mixed in the wider one of both."""
    wide = torch.promote_types(maps.dtype, points.dtype)
    grid = 2 * points.to(wide)[:, :, None] - 1  # (B, P, 1, 2), from -1 to 1 as torch counts
    return F.grid_sample(maps.to(wide), grid, mode="bilinear", align_corners=False)[..., 0].to(maps.dtype)


def channels_together(maps: Tensor) -> Tensor:
    """The same maps (B, C, H, W), channels of a pixel side by side in memory: 8192 points are then read four times as fast."""
    return maps.contiguous(memory_format=torch.channels_last)


def classes_at_points(class_map: Tensor, points: Tensor) -> Tensor:
    """The class (B, P) of the pixel that each point (B, P, 2) of a class map (B, H, W) lies in."""
    _, height, width = class_map.shape
    column = (points[..., 0] * width).long().clamp(0, width - 1)  # 1 itself is the right edge of the last pixel
    row = (points[..., 1] * height).long().clamp(0, height - 1)
    return class_map.flatten(1).gather(1, row * width + column)


def objects_at_points(planes: Tensor, index: Tensor, points: Tensor) -> Tensor:
    """How much of each object `index` (N,) is at points (N, P, 2) of its image: (N, P), 0 to 1, from planes int32 (D, H, W).

    It equals `sample_at_points` of the masks (N, H, W), which never exist: only the four pixels around a point are looked up.
    """
    _, height, width = planes.shape
    place = points * points.new_tensor((width, height)) - 0.5  # (N, P, 2), 0 at the first centre
    corner = place.floor()
    share, corner = place - corner, corner.long()
    flat, marks = planes.flatten(1), index[:, None, None] + 1  # as planes mark object i
    found = torch.zeros_like(points[..., 0])
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        column, row = corner[..., 0] + right, corner[..., 1] + down
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        is_object = (flat[:, pixel].movedim(0, -1) == marks).any(dim=-1) & inside  # (N, P)
        weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
        found += weight * is_object
    return found


def points_in_boxes(points: Tensor, boxes: Tensor, sides: tuple[int, int]) -> Tensor:
    """Points (..., P, 2) of boxes as points of the image, of which `sides` are height and width in pixels.

    Boxes (..., 4) are (x1, y1, x2, y2) in pixels.
    """
    corner, size = boxes[..., None, :2], boxes[..., None, 2:] - boxes[..., None, :2]
    return (corner + points * size) / boxes.new_tensor(sides[::-1])


def cell_centres(side: int, like: Tensor) -> Tensor:
    """The centres of a regular grid of `side` cells along each axis, row by row, (side * side, 2) of the dtype of `like`."""
    index = torch.arange(side * side, device=like.device)
    return _centres(index, side, side, like.dtype)


def uncertain_points(
    logits: Tensor, uncertainty: Callable[[Tensor], Tensor], count: int, generator: torch.Generator | None
) -> Tensor:
    """`count` random points (B, count, 2) to learn from, most of them where coarse logits (B, K, h, w) are least certain.

    Three times as many are drawn evenly; three quarters are the most uncertain of them, and the rest is drawn anew.
    `uncertainty` turns logits (B, K, P) into numbers (B, P), the greatest where they are least certain. Without a generator,
    torch's global one draws, as for dropout. No gradient flows through the choice.
    """
    logits = logits.detach()
    kind = logits.dtype if logits.dtype == torch.float64 else torch.float32  # half precision has no 256 places in a row

    def drawn(number: int) -> Tensor:
        device = logits.device if generator is None else generator.device
        return torch.rand(len(logits), number, 2, dtype=kind, device=device, generator=generator).to(logits.device)

    points, important = drawn(OVERSAMPLING * count), int(IMPORTANT * count)
    _, index = uncertainty(sample_at_points(logits, points)).topk(important, dim=1)
    chosen = points.gather(1, index[..., None].expand(-1, -1, 2))
    return torch.cat([chosen, drawn(count - important)], dim=1)


def most_uncertain_cells(uncertainty: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` cells of a map (B, H, W) that are least certain: their index in H * W (B, P), and their centres (B, P, 2).

    Of a map of fewer cells, all. Centres are at least float32.
    """
    _, height, width = uncertainty.shape
    _, index = uncertainty.flatten(1).topk(min(count, height * width), dim=1)
    return index, _centres(index, height, width, torch.promote_types(uncertainty.dtype, torch.float32))


def _centres(index: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """The centres (..., 2) of the cells of a grid that have an index (...) in it."""
    column, row = index % width, index.div(width, rounding_mode="floor")
    return torch.stack([(column.to(dtype) + 0.5) / width, (row.to(dtype) + 0.5) / height], dim=-1)


def subdivided(logits: Tensor, uncertainty: Callable[[Tensor], Tensor], count: int, ask: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits (B, K, h, w) at twice their sides: interpolated, but at the `count` least certain cells, where `ask` knows better.

    `uncertainty` turns logits (B, K, H, W) into (B, H, W); `ask` gives the logits (B, K, P) at points (B, P, 2).
    """
    doubled = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
    index, points = most_uncertain_cells(uncertainty(doubled.detach()), count)
    rows = doubled.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, K): the classes of a cell lie together
    new = ask(points).transpose(1, 2).to(rows.dtype)
    rows = rows.scatter_(1, index[..., None].expand_as(new), new)  # `doubled` is ours
    return rows.unflatten(1, doubled.shape[2:]).permute(0, 3, 1, 2)

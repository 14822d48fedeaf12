"""Anchors, boxes of fixed shapes at each pixel of a map: Faster R-CNN (Ren et al. 2015, arXiv 1506.01497, section 3.1.1).

Axes: A anchors of a cell, n all anchors of a map, h, w sides of a map. Boxes are (x1, y1, x2, y2) in pixels of the image.
"""

from math import sqrt

import torch
from torch import Tensor


def cell_anchors(size: float, ratios: tuple[float, ...], *, is_rounded: bool) -> Tensor:
    """Boxes float64 (A, 4) around the origin, of the area `size`² and of these ratios of height to width.

    torchvision's are rounded to whole pixels on either side of the origin, detectron2's are not.
    """
    halves = torch.tensor([(size / sqrt(ratio) / 2, size * sqrt(ratio) / 2) for ratio in ratios], dtype=torch.float64)
    cells = torch.cat([-halves, halves], dim=1)
    return cells.round() if is_rounded else cells


def map_anchors(cells: Tensor, sides: tuple[int, int], strides: tuple[int, int], like: Tensor) -> Tensor:
    """The anchors (n, 4) of a map of some sides (h, w) and strides along them, in place and type of a tensor, float32 at least.

    Row by row, pixel by pixel, cell by cell. A cell lies around the upper left corner of its pixel, as in all published forms.
    """
    rows, columns = (torch.arange(side, device=like.device) * stride for side, stride in zip(sides, strides, strict=True))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)  # (h w, 1, 4)
    exact = torch.promote_types(like.dtype, torch.float32)
    return (corners.to(exact) + cells.to(like.device, exact)).reshape(-1, 4)

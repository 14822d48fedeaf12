"""Boxes told by how another box must move: R-CNN (Girshick et al. 2013, arXiv 1311.2524, appendix C).

Boxes are (x1, y1, x2, y2) in pixels; deltas are (dx, dy, dw, dh): the way of the centre in sides of the other box, and the
logarithm of how often its sides go into the new ones. Each is multiplied by a weight, so that all vary by about 1.
"""

from math import log

import torch
from torch import Tensor

LONGEST = log(1000 / 16)  # of dw and dh, so that exp cannot overflow: sides of 16 pixels grow to 1000, in all published forms


def encode_boxes(boxes: Tensor, others: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Deltas (..., 4) that turn the `others` (..., 4) into `boxes` (..., 4)."""
    centre, sides = _centre_and_sides(boxes)
    other_centre, other_sides = _centre_and_sides(others)
    ways = (centre - other_centre) / other_sides
    return torch.cat([ways, (sides / other_sides).log()], dim=-1) * boxes.new_tensor(weights)


def decode_boxes(deltas: Tensor, others: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Boxes (..., 4) that deltas (..., 4) make of the `others` (..., 4)."""
    centre, sides = _centre_and_sides(others)
    ways, growth = (deltas / deltas.new_tensor(weights)).split(2, dim=-1)
    centre = ways * sides + centre
    half = growth.clamp(max=LONGEST).exp() * sides / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clip_boxes(boxes: Tensor, sides: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut off at the borders of an image of some sides (H, W)."""
    height, width = sides
    return torch.stack([one.clamp(0, limit) for one, limit in zip(boxes.unbind(-1), (width, height) * 2, strict=True)], dim=-1)


def _centre_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (..., 2) and sides (..., 2), x before y."""
    low, high = boxes.split(2, dim=-1)
    sides = high - low
    return low + sides / 2, sides

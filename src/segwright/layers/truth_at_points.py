"""What lies at single points of the planes of a truth, where masks (N, H, W) never exist.

It is what bilinear samples of such masks would be, with 0 beyond the edge. Points are (x, y) from 0 to 1, edge to edge.

Axes: N segments, m some of them, P points, D planes, H, W sides of the planes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from segwright.layers.object_truth import ObjectTruth


def in_planes(points: Tensor, truth: ObjectTruth, sides: tuple[int, int]) -> Tensor:
    """Points (*, P, 2) of an image with `sides` as points of the planes of its truth, which may end before its padding."""
    height, width = truth.planes.shape[1:]
    return points * points.new_tensor((sides[1] / width, sides[0] / height))


def _corners(planes: Tensor, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The marks (D, *, P) in planes (D, H, W) of each of the four pixels around points (*, P, 2), and what it counts (*, P).

    A pixel outside the planes counts 0.
    """
    _, height, width = planes.shape
    columns, rows = (_neighbours(points[..., axis], side) for axis, side in ((0, width), (1, height)))
    flat = planes.flatten(1)
    for row, down_share in rows:
        first = row * width
        for column, right_share in columns:
            yield flat[:, first + column], down_share * right_share


def _neighbours(place: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels of a side that lie around places (*) from 0 to 1, and what each counts: 0 for one that does not exist."""
    place = place * side - 0.5  # 0 at the first centre
    below = place.floor()
    share = place - below
    below = below.long()
    found = []
    for index, counts in ((below, 1 - share), (below + 1, share)):
        inside = index.clamp(0, side - 1)
        found.append((inside, counts * (index == inside)))
    return found


def own_segments_at_points(truth: ObjectTruth, segments: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each segment (m,) is at points (m, P, 2) of its own, 0 to 1, and whether all around is known; (m, P) each."""
    wanted, is_known = torch.zeros_like(points[..., 0]), torch.ones_like(points[..., 0], dtype=torch.bool)
    for marks, share in _corners(truth.planes, points):
        wanted += (marks == segments[:, None] + 1).any(0) * share
        is_known &= (marks >= 0).all(0) | (share == 0)
    return wanted * is_known, is_known


def all_segments_at_points(truth: ObjectTruth, points: Tensor) -> tuple[Tensor, Tensor]:
    """How much of every segment (N,) is at points (P, 2), 0 to 1: (N, P); and whether all around a point is known (P,)."""
    wanted = points.new_zeros(len(truth.class_ids) + 1, len(points))  # the first is nothing
    is_known = torch.ones_like(points[:, 0], dtype=torch.bool)
    for marks, share in _corners(truth.planes, points):
        wanted.scatter_add_(0, marks.clamp(min=0).long(), share.expand(len(marks), -1))
        is_known &= (marks >= 0).all(0) | (share == 0)
    return wanted[1:] * is_known, is_known

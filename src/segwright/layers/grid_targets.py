"""Which cells of which grid find which object, and what its mask looks like there (SOLO: Wang et al. 2019, arXiv 1912.04488).

Each level of a pyramid is a square grid of cells over the whole image, and finds objects of its own range of sizes. The cells
around the mass centre of an object find it: those that a box about it touches which is a fifth of the object's own, three
on average in COCO. Its mask is compared on a grid of `stride` pixels.

Where several objects claim a cell, which the papers leave open, it is for the one whose mass centre lies in it before others,
and for the smaller before the larger, which has other cells. Objects smaller or larger than all ranges belong to the first or
the last level.

Axes: N objects, P planes, G cells of all grids, n objects asked for, h, w sides of the grid of masks, H, W sides of the image.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from segwright.core import VOID
from segwright.layers.object_truth import ObjectTruth

CENTRE_SHARE = 0.2  # of the sides of an object: its middle, whose cells find it
MIDDLE = 2  # of the four pixels in the middle of a cell: as many make it the object's


def mass_centres(planes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean place (x, y) of the pixels of each object, float64 (N, 2), and how many it has, int64 (N,); from one pass.

    An object without pixels is at (0, 0).
    """
    P, H, W = planes.shape
    ids = planes.clamp(min=0).flatten()
    pixels, columns, rows = (torch.zeros(count + 1, dtype=torch.int64, device=ids.device) for _ in range(3))
    pixels.index_add_(0, ids, torch.ones_like(ids, dtype=torch.int64))
    columns.index_add_(0, ids, torch.arange(W, device=ids.device).expand(P, H, W).flatten())
    rows.index_add_(0, ids, torch.arange(H, device=ids.device)[:, None].expand(P, H, W).flatten())
    sums, pixels = torch.stack([columns, rows], dim=1)[1:].double(), pixels[1:]
    return (sums / pixels.clamp(min=1)[:, None] + 0.5) * (pixels > 0)[:, None], pixels


def cells_of_objects(truth: ObjectTruth, grids: tuple[int, ...], scale_ranges: tuple[tuple[float, float], ...]) -> Tensor:
    """The object that each cell finds, int64 (G,), row by row and grid by grid: i + 1 for object i, 0 for none, -1 for void.

    `grids` are the cells along a side of each; `scale_ranges` the sizes that it finds, both ends included, as the root of the
    area of a box in pixels. A cell that finds no object is void where nobody knows what its middle is.
    """
    count = len(truth.class_ids)
    centres, pixels = mass_centres(truth.planes, count)
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).double()
    scales = sides.prod(dim=1).sqrt().clamp(scale_ranges[0][0], scale_ranges[-1][1])
    order = pixels.argsort(descending=True, stable=True)  # the smallest last
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, count + 1, device=rank.device)
    levels = []
    for side, (low, high) in zip(grids, scale_ranges, strict=True):
        is_here = (scales >= low) & (scales <= high) & (pixels > 0)
        claims = _claims(truth.planes.shape[1:], side, centres, sides, torch.where(is_here, rank, 0))
        winner = torch.cat([claims.new_zeros(1, side, side), claims]).amax(dim=0)  # (side, side)
        found = order[(winner - 1) % count] + 1 if count else winner
        levels.append(torch.where(winner > 0, found, _void_cells(truth.planes, side)).flatten())
    return torch.cat(levels)


def _claims(shape: torch.Size, side: int, centres: Tensor, sides: Tensor, rank: Tensor) -> Tensor:
    """How much each object is for each cell of a grid, int64 (N, side, side): its rank, its rank + N at its centre, or 0."""
    is_near, is_centre = [], []
    cells = torch.arange(side, device=centres.device)
    for axis, length in enumerate(shape[::-1]):  # x, then y
        low, middle, high = (
            (((centres[:, axis] + sign * CENTRE_SHARE / 2 * sides[:, axis]) * side / length).floor()).clamp(0, side - 1)[
                :, None
            ]
            for sign in (-1, 0, 1)
        )
        is_near.append((cells >= low) & (cells <= high))  # (N, side)
        is_centre.append(cells == middle)
    near, centre = (along_y[:, :, None] & along_x[:, None] for along_x, along_y in (is_near, is_centre))
    return (rank[:, None, None] + len(rank) * centre) * near * (rank > 0)[:, None, None]


def _void_cells(planes: Tensor, side: int) -> Tensor:
    """-1 for the cells of a grid whose middle is void, else 0, int64 (side, side)."""
    H, W = planes.shape[1:]
    middle = (torch.arange(side, device=planes.device) + 0.5) / side
    looked_at = planes[:, (middle * H).long()][:, :, (middle * W).long()]
    return VOID * (looked_at == VOID).any(dim=0).long()


class SampledMasks(NamedTuple):
    """The masks of N objects on a grid of h * w cells, as they lie in the planes, not yet one by one.

    `samples` int32 (4 P, h * w) are the four pixels in the middle of each cell; `places` int64 (N,) the cells of the mass
    centres.
    """

    samples: Tensor
    places: Tensor

    def known(self) -> Tensor:
        """Whether no sample of a cell is void, bool (h * w,)."""
        return (self.samples != VOID).all(dim=0)

    def of(self, objects: Tensor) -> Tensor:
        """Masks bool (n, h * w) of some of the objects, given by their indices int64 (n,).

        A cell belongs to an object that has at least two of its four samples. This is what bilinear interpolation says, at a
        half or more. An object that this leaves without a cell has the one of its mass centre.
        """
        ids = (objects + 1).to(self.samples.dtype)[:, None]
        votes = torch.zeros(len(objects), self.samples.shape[1], dtype=torch.uint8, device=ids.device)
        for sample in self.samples:  # one after the other takes a third of the time of all at once
            votes += (sample == ids).view(torch.uint8)
        masks = votes >= MIDDLE
        places = self.places[objects][:, None]
        return masks.scatter(1, places, masks.gather(1, places) | ~masks.any(dim=1, keepdim=True))


def sampled_masks(truth: ObjectTruth, stride: int) -> SampledMasks:
    """The masks of the objects of an image on a grid of cells of an even `stride` in pixels, of which its sides are
    multiples."""
    H, W = truth.planes.shape[1:]
    middle = (stride // 2 - 1, stride // 2)
    samples = torch.cat([truth.planes[:, y::stride, x::stride].flatten(1) for y in middle for x in middle])
    columns, rows = (mass_centres(truth.planes, len(truth.class_ids))[0] / stride).long().unbind(dim=1)
    return SampledMasks(samples, rows.clamp(max=H // stride - 1) * (W // stride) + columns.clamp(max=W // stride - 1))

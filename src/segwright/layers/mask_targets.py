"""What a mask branch learns: the mask of an object as its region sees it, Mask R-CNN (He et al. 2017, arXiv 1703.06870).

A target is RoIAlign of the mask: each of its pixels is the mean of bilinear samples. A bilinear sample is a weighted mean along
one axis of weighted means along the other; so a target is a product of three matrices, of which the middle is a piece of the
mask as large as its region. Masks of 300 objects, each as large as the image, are never made.

Axes: R regions, P planes, H, W sides of the image, m sides of a target, h, w sides of a piece, t samples along one axis.
"""

import torch
from torch import Tensor

AT_ONCE = 1 << 21  # pixels of pieces that are looked at together, 8 MB as numbers


def mask_targets(
    planes: Tensor, objects: Tensor, regions: Tensor, side: int, *, is_aligned: bool, samples: int | None = None
) -> Tensor:
    """The share of each cell of a region that its object covers (R, side, side), in the type of the regions.

    `planes` int32 (P, H, W) are those of an `ObjectTruth`, `objects` int64 (R,) its objects, `regions` (R, 4) boxes in pixels.
    It equals RoIAlign of the object's mask: with `samples` points along each axis of a cell, or about one for each pixel.
    """
    targets = regions.new_zeros(len(regions), side, side)
    lengths = (regions[:, 2:] - regions[:, :2]).ceil().long() + 2  # a bilinear sample needs a pixel on either side
    order = lengths.amax(1).argsort()  # pieces of about one size together
    for part in _parts(lengths[order].tolist()):
        index = order[part]
        x1, y1, x2, y2 = regions[index].unbind(1)
        rows, row_weights = _axis(y1, y2, planes.shape[1], side, is_aligned=is_aligned, samples=samples)
        columns, column_weights = _axis(x1, x2, planes.shape[2], side, is_aligned=is_aligned, samples=samples)
        pieces = planes[:, rows[:, :, None], columns[:, None, :]]  # (P, r, h, w)
        masks = (pieces == objects[index].to(planes.dtype)[:, None, None] + 1).any(0)
        with torch.autocast(regions.device.type, enabled=False):  # shares of cells need more than 8 bits
            targets[index] = row_weights @ masks.to(regions.dtype) @ column_weights.mT
    return targets


def _parts(lengths: list[list[int]]) -> list[slice]:
    """Neighbours that are looked at together, of regions with pieces of these sides."""
    parts, first, widest, highest = [], 0, 0, 0
    for number, (width, height) in enumerate(lengths):
        widest, highest = max(widest, width), max(highest, height)
        if number > first and (number + 1 - first) * widest * highest > AT_ONCE:
            parts.append(slice(first, number))
            first, widest, highest = number, width, height
    return [*parts, slice(first, len(lengths))] if lengths else []


def _axis(low: Tensor, high: Tensor, limit: int, side: int, *, is_aligned: bool, samples: int | None) -> tuple[Tensor, Tensor]:
    """Pixels int64 (R, h) along one axis of an image of `limit` pixels, and what each counts in each cell (R, side, h).

    Regions reach from `low` to `high` (R,).
    """
    start = low - 0.5 if is_aligned else low  # of the first cell, where pixel 0 has its centre at 0
    length = high - low if is_aligned else (high - low).clamp(min=1)  # as RoIAlign without alignment does
    cell = length / side
    counts = torch.full_like(cell, samples) if samples else cell.ceil()  # of samples in a cell
    most = int(counts.max())
    sample = torch.arange(most, device=low.device)
    places = torch.arange(side, device=low.device)[:, None] + (sample + 0.5) / counts[:, None, None]  # (R, side, t), in cells
    places = start[:, None, None] + places * cell[:, None, None]
    is_used = (sample < counts[:, None, None]) & (places >= -1) & (places <= limit)  # nothing lies outside the image
    share = is_used / counts.clamp(min=1)[:, None, None]
    places = places.clamp(0, limit - 1)
    below = places.floor().long()
    offset = below.flatten(1).amin(1)
    count = int((below.flatten(1).amax(1) - offset).max()) + 2 if len(below) else 0
    weights = low.new_zeros(len(low), side, count)
    towards = places - below
    place = below - offset[:, None, None]
    weights.scatter_add_(2, place, share * (1 - towards)).scatter_add_(2, place + 1, share * towards)
    pixels = (offset[:, None] + torch.arange(count, device=low.device)).clamp(max=limit - 1)
    return pixels, weights

"""Features of regions, cut out of a pyramid: RoIAlign (He et al. 2017, arXiv 1703.06870, section 3).

A region lies between pixels; its features are bilinear samples there, so that nothing is rounded. Large regions are cut out of
deep maps: Feature Pyramid Networks (Lin et al. 2016, arXiv 1612.03144, equation 1).

Axes: B batch, R regions, E channels, s sides of what is cut out, h, w sides of a map. Regions are (x1, y1, x2, y2) in pixels of
the image.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from segwright.layers.suppression import where

CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a region like an image of ImageNet lies on the map of stride 2^4
FINEST_LEVEL = 2  # of stride 4
LEVEL_EPS, SIDE_EPS = 1e-6, 1e-8  # which keep 224 on its level: torchvision adds it to the level, detectron2 to the side

Cut = Callable[[Tensor, Tensor, int, float], Tensor]  # a map, regions with their images, a side and the scale to features


def roi_align_cut(
    features: Tensor, places: Tensor, side: int, scale: float, *, is_aligned: bool, samples: int | None
) -> Tensor:
    """The features (R, E, s, s) of a map (B, E, h, w) in regions (R, 5), the image first, then the box.

    Each cell is the mean of `samples` x `samples` points, or of about one for each pixel of the map, which has this scale. If
    it `is_aligned`, points lie where they should; else half a pixel of the map off, as in the first implementations.
    """
    return roi_align(features, places, side, scale, samples or -1, is_aligned)


def region_levels(regions: Tensor, count: int, *, adds_to_level: bool) -> Tensor:
    """The map that each region (R, 4) is cut out of, int64 (R,), of `count` maps, the finest first."""
    sides = (regions[:, 2:] - regions[:, :2]).prod(1).sqrt() / CANONICAL_SIDE
    exact = sides.log2() + LEVEL_EPS if adds_to_level else (sides + SIDE_EPS).log2()
    levels = (exact + CANONICAL_LEVEL).floor() - FINEST_LEVEL
    return levels.clamp(0, count - 1).long()


def pool_regions(
    maps: Sequence[Tensor], regions: Sequence[Tensor], strides: Sequence[int], side: int, cut: Cut, *, adds_to_level: bool
) -> Tensor:
    """The features (R, E, s, s) of the regions (R_i, 4) of each image, one image after the other, by a way to cut them out.

    Maps in half precision are cut in float32, as in bfloat16 regions beyond 256 pixels would lie on every second one.
    """
    numbers = [torch.full_like(each[:, :1], number) for number, each in enumerate(regions)]
    places = torch.cat([torch.cat(numbers), torch.cat(list(regions))], dim=1)  # (R, 5), the image first
    levels = region_levels(places[:, 1:], len(maps), adds_to_level=adds_to_level)
    pooled = maps[0].new_zeros(len(places), maps[0].shape[1], side, side)
    for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        index = where(levels == level)
        if torch.jit.is_tracing() or len(index):
            exact = features.to(torch.promote_types(features.dtype, torch.float32))
            pooled[index] = cut(exact, places[index].to(exact), side, 1 / stride).to(pooled.dtype)
    is_last = maps[0].is_contiguous(memory_format=torch.channels_last)
    return pooled.contiguous(memory_format=torch.channels_last) if is_last else pooled

"""RoIPool, features of regions that are rounded to whole pixels: Fast R-CNN (Girshick 2015, arXiv 1504.08083, section 2.1).

RoIAlign took its place: the masks found with it were a tenth better (arXiv 1703.06870, table 2c). This is kept to be compared
with.

Axes: R regions, E channels, s sides of what is cut out, h, w sides of the map.
"""

from torch import Tensor
from torchvision.ops import roi_pool


def roi_pool_cut(features: Tensor, places: Tensor, side: int, scale: float) -> Tensor:
    """The greatest features (R, E, s, s) of a map (B, E, h, w) in the cells of regions (R, 5), the image first, then the box.

    `scale` is that of the map. Borders are rounded to pixels, the last of which is in the region; a cell outside the map is 0.
    """
    return roi_pool(features, places, side, scale)

"""How much the classes of a data set weigh in a loss, by how rare they are. Axes: K classes.

Where all pixels count alike, a class of one pixel in a hundred is a hundredth of the loss. Weights give it more of what a score
that counts classes alike expects; they do not know how hard a class is, and where it is rare they cost precision.
"""

import math
from collections.abc import Sequence
from typing import Literal

LEAST_FRACTION = 1e-5  # of the pixels: a class that was not seen, or hardly, gets no endless weight
Rule = Literal["root", "inverse_frequency", "median_frequency"]
DIGITS = 4  # behind the point: a plan is read by people, and a weight need not be more exact


def class_weights(fractions: Sequence[float], images: Sequence[int], rule: Rule) -> tuple[float, ...]:
    """A weight for each class (K,), for the `class_weights` of a loss; the mean weight over all pixels is 1.

    `fractions` (K,) are the shares of the known pixels, as `Fingerprint.class_fractions`, and `images` (K,) count the images
    that hold a class, as `Fingerprint.class_images`. The inverse frequency gives each class the same part of the loss, and the
    root of it something between that and none. The median frequency divides by the part that a class has of the images that
    hold it, which are taken to be of one size: a class that few images show, yet largely, then weighs like a common one. Its
    median, a factor that all classes share, is lost in the mean of 1. A class that was not seen counts as very rare.

    Source of the median frequency: Eigen and Fergus 2015, arXiv 1411.4734.
    """
    rarity = [1 / max(share, LEAST_FRACTION) for share in fractions]
    if rule == "median_frequency":
        raw = [rare * max(count, 1) for rare, count in zip(rarity, images, strict=True)]
    elif rule == "inverse_frequency":
        raw = rarity
    else:
        raw = [math.sqrt(rare) for rare in rarity]
    mean = sum(share * weight for share, weight in zip(fractions, raw, strict=True))
    return tuple(round(weight / mean, DIGITS) if mean else 1.0 for weight in raw)

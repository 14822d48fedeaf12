"""A number that stands for missing values, though no file says so. Axes: C channels, *S spatial axes."""

import numpy as np

from segwright.core.missing import type_of, where_measured

SHARE = 1e-3  # of the pixels: fewer are dead pixels and outliers
TOGETHER = 0.5  # of these pixels lie left of another one: nodata fills areas
DISTINCT = 4  # other values at least; pictures of fewer have gaps between all of them
SAMPLED = 100_000  # values that tell the range of a channel


def undeclared_nodata(image: np.ndarray) -> float | None:
    """The number that fills areas of an image (C, *S) farther off all other values than those from each other; else None.

    Such are -9999 in a height model, the lowest number of a type, 1e20, or 0 where all else is warm. 8 bits, which are float
    where an image has holes, have no room for it.
    """
    if image.dtype.kind not in "iuf" or type_of(image) in ("uint8", "int8"):
        return None
    known = where_measured(image)
    found = (_far_value(channel, known if known is None else known[c]) for c, channel in enumerate(image))
    return next((value for value in found if value is not None), None)


def _far_value(channel: np.ndarray, known: np.ndarray | None) -> float | None:
    """The lowest or highest value of a channel (*S), if it is as `undeclared_nodata` says; `known` are those that it has."""
    values = (channel if known is None else channel[known]).astype(np.float64).ravel()
    if not values.size:
        return None
    low, high = float(values.min()), float(values.max())
    for extreme in (low, high):
        at = channel == extreme
        count = int(np.count_nonzero(at))
        if count < SHARE * at.size or np.count_nonzero(at[..., 1:] & at[..., :-1]) < TOGETHER * count:
            continue
        others = values[values != extreme]
        if len(np.unique(sample := others[:: max(1, len(others) // SAMPLED)])) < DISTINCT:
            continue
        gap = others.min() - low if extreme == low else high - others.max()
        if gap > np.subtract(*np.percentile(sample, (99.5, 0.5))):
            return extreme
    return None

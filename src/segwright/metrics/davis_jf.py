"""How well objects are followed through videos: DAVIS' J (region) and F (contour). Axes: K classes, T frames, P planes, (H, W).

Source: Perazzi et al. 2016, doi 10.1109/CVPR.2016.85; Pont-Tuset et al. 2017, arXiv 1704.00675, the semi-supervised track.
Scores are equal to those of davis2017-evaluation where all objects are in the first frame, except for the decay in videos of
more than 258 frames, whose frame numbers it keeps in 8 bits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from typing import ClassVar

import numpy as np
from numba import njit

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.metrics.accumulators import Sums, ratio
from segwright.metrics.boundary import boundary_f
from segwright.metrics.overlaps import check_pair
from segwright.metrics.panoptic_quality import NUMBER_BITS, identities

TOLERANCE_SHARE = 0.008  # of the diagonal, rounded up to whole pixels: how far contours may lie apart
RECALL = 0.5  # recall is the share of frames above it
QUARTERS = 4  # decay is the mean of the first quarter of the frames less that of the last
STATISTICS = ("J mean", "J recall", "J decay", "F mean", "F recall", "F decay")
Box = tuple[slice, ...]


@dataclass(frozen=True)
class DavisJf:
    """J and F of objects known from their first frame, `Sums` (K, 7): the number of objects, then their summed `STATISTICS`."""

    classes: Classes
    COUNTS_VIDEOS: ClassVar[bool] = True
    SCORES: ClassVar[tuple[str, ...]] = ("J&F", *STATISTICS)
    convention: ClassVar[str] = (
        "DAVIS 2017, semi-supervised: J is the IoU of an object in a frame, F the F1 of its contour with a tolerance of 0.8 % "
        "of the diagonal (rounded up to pixels); both are 1 where an object is in neither. Objects are the same where their "
        "number and class are. Each counts from the frame after its first, which is taken as given, to the last but one of "
        "the video; mean, recall (share of frames above 0.5) and decay (first quarter less last quarter; 0 is best) over its "
        "frames are averaged over the objects of all videos. J&F is the mean of J mean and F mean. Pixels void in the truth "
        "are left out."
    )

    def count(self, frames: Iterable[tuple[Segmentation, Segmentation]]) -> Sums:
        """Objects and their summed statistics (K, 7) of one video, from prediction and truth of each frame in order.

        Raises:
            ShapeError: prediction and truth of a frame differ in size, or it is a volume.
            UsageError: one of them holds a class that this metric does not know.
        """
        values: dict[int, list[tuple[float, float]]] = {}  # J and F of each object, by identity
        for prediction, truth in frames:
            check_pair(prediction, truth, self.classes)
            if len(truth.shape) != 2:
                raise ShapeError(
                    f"a frame is {' x '.join(map(str, truth.shape))}; J and F are of frames of 2 axes: "
                    "give the slices of a volume one by one"
                )
            guesses, objects = _boxes(prediction), _boxes(truth)
            for identity, of_object in values.items():
                of_object.append(_region_and_contour(prediction, truth, identity, guesses, objects))
            for identity in objects.keys() - values.keys():
                values[identity] = []
        sums = np.zeros((len(self.classes), 1 + len(STATISTICS)))
        for identity, of_object in values.items():
            known = np.array(of_object[:-1]).T  # J and F (2, T) without the last frame of the video
            if known.size:
                sums[identity >> NUMBER_BITS] += 1, *statistics(known[0]), *statistics(known[1])
        return Sums(sums)

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """J&F, J and F from 0 to 1 and their decay from -1 to 1: means over all objects, then over those of each class."""
        scores = {}
        groups = [("", state.values.sum(axis=-2))]
        groups += [(f"/{name}", state.values[..., k, :]) for k, name in enumerate(self.classes.names)]
        for suffix, sums in groups:
            means = {title: ratio(sums[..., place], sums[..., 0]) for place, title in enumerate(STATISTICS, start=1)}
            scores[f"J&F{suffix}"] = (means["J mean"] + means["F mean"]) / 2
            scores |= {f"{title}{suffix}": value for title, value in means.items()}
        return scores

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """What decays may also gain."""
        return {"J decay": (-1.0, 1.0), "F decay": (-1.0, 1.0)}


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall and decay of the values (T,) of an object's frames; quarters share the frame where they meet."""
    ends = np.round(np.linspace(1, len(values), QUARTERS + 1) + 1e-10).astype(int) - 1  # one half is rounded up
    decay = values[ends[0] : ends[1] + 1].mean() - values[ends[-2] : ends[-1] + 1].mean()
    return float(values.mean()), float((values > RECALL).mean()), float(decay)


def _boxes(segmentation: Segmentation) -> dict[int, Box]:
    """The smallest box that holds each object of a frame, by identity."""
    ids = identities(segmentation)
    low = np.full((len(ids), 2), max(segmentation.shape))
    high = np.zeros((len(ids), 2), np.int64)
    for plane in segmentation.planes:
        _widen_boxes(plane, low, high)
    result: dict[int, Box] = {}
    for index in np.flatnonzero((segmentation.instance_ids > 0) & (high[:, 0] > 0)).tolist():
        box = tuple(map(slice, low[index].tolist(), high[index].tolist()))
        result[int(ids[index])] = _around(box, result.get(int(ids[index]), box))
    return result


@njit(cache=True, nogil=True)
def _widen_boxes(plane, low, high):
    """Widen the boxes of segments, from low (N, 2) to high (N, 2) exclusive, by the runs of a plane (H, W)."""
    H, W = plane.shape
    for y in range(H):
        start = 0
        for x in range(1, W + 1):
            if x < W and plane[y, x] == plane[y, start]:
                continue
            n = plane[y, start] - 1
            if n >= 0:
                low[n, 0], high[n, 0] = min(low[n, 0], y), max(high[n, 0], y + 1)
                low[n, 1], high[n, 1] = min(low[n, 1], start), max(high[n, 1], x)
            start = x


def _around(one: Box, other: Box) -> Box:
    """The smallest box that holds two."""
    pairs = zip(one, other, strict=True)
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)


def _region_and_contour(
    prediction: Segmentation, truth: Segmentation, identity: int, guesses: dict[int, Box], objects: dict[int, Box]
) -> tuple[float, float]:
    """J and F of one object in one frame, from the boxes of all objects."""
    both = [found[identity] for found in (guesses, objects) if identity in found]
    if len(both) == 0:
        return 1.0, 1.0
    # One pixel wider: a contour lies on the pixels left and above of where a mask begins.
    box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in _around(both[0], both[-1]))
    is_known = truth.planes[0][box] != VOID
    predicted, true = (_mask_of(given, identity, box) & is_known for given in (prediction, truth))
    union = np.count_nonzero(predicted | true)
    region = np.count_nonzero(predicted & true) / union if union else 1.0
    contour, _, _ = boundary_f(contour_of(predicted), contour_of(true), ceil(TOLERANCE_SHARE * hypot(*truth.shape)))
    return region, contour


def _mask_of(segmentation: Segmentation, identity: int, box: Box) -> np.ndarray:
    """The pixels of an object within a box of the frame, bool."""
    planes = segmentation.planes[:, *box]
    mask = np.zeros(planes.shape[1:], bool)
    for index in np.flatnonzero(identities(segmentation) == identity):
        mask |= (planes == index + 1).any(axis=0)
    return mask


def contour_of(mask: np.ndarray) -> np.ndarray:
    """The contour of a bool mask (H, W), bool (H, W): pixels that differ from the one to the right, below, or both.

    The edge of the image is no contour.
    """
    wider = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != wider[:-1, 1:]) | (mask != wider[1:, :-1]) | (mask != wider[1:, 1:])

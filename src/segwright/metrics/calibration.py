"""Whether probabilities mean what they say: calibration error, Brier score, likelihood. Axes: K classes, B bins, N pixels, *S.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599 (expected calibration error); Gupta and
Ramdas 2022, "Top-label Calibration and Multiclass-to-binary Reductions", arXiv:2107.08353 (by predicted class); Brier 1950,
doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from typing import ClassVar

import numpy as np
from numba import njit

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics.accumulators import Sums, ratio
from segwright.metrics.boundary import Boundary
from segwright.metrics.overlaps import check_sizes

FLOOR = 1e-12  # of the probability of the true class: one sure mistake shall not make the mean likelihood infinite
TOLERANCE = 0.01  # of a sum of probabilities: 150 classes in half precision stay well within
BLOCK = 1024  # pixels worked on at once: what is kept of them fits the first cache
EXAMPLE = "for example with torch.softmax(logits, dim=0)"


@dataclass(frozen=True)
class Calibration:
    """Scores of the probabilities of classes, `Sums` (K + 2, B, 3).

    Rows 0..K-1 hold, by predicted class and bin of its probability, how many pixels there are, the sum of that probability, and
    how many are correct; row K holds the same of pixels within `border_pixels` of a border between true classes; the first bin
    of row K + 1 the summed Brier score and negative log likelihood.
    """

    classes: Classes
    bins: int = field(default=15, kw_only=True)  # Guo et al.
    border_pixels: int = field(default=5, kw_only=True)  # as the trimap of the boundary scores
    SCORES: ClassVar[tuple[str, ...]] = ("ECE", "border ECE", "Brier", "NLL")
    NEEDS_PROBABILITIES: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise SettingError(f"{self.bins} bins were given; 1 or more are needed, 15 are usual")
        Boundary(self.classes, trimap_pixels=self.border_pixels)  # refuses a width that it cannot use

    @property
    def convention(self) -> str:
        """What is compared with what, and what is left out."""
        return (
            "ECE: the gap between the probability of the predicted class (the likeliest) and the share of correct pixels, in "
            f"{self.bins} bins of equal width, weighted by pixels; of a class, over the pixels predicted as it; border ECE of "
            f"those within {self.border_pixels} pixels (chessboard) of another true class. Brier: mean over pixels of the "
            f"squared error summed over classes, 0 to 2. NLL: mean of -log p of the true class, p at least {FLOOR:g}, in nats. "
            "For all of them 0 is best. Pixels of all images are added up; those void or of no class in the truth are left out."
        )

    def count(self, probabilities: np.ndarray, truth: Segmentation) -> Sums:
        """The sums of one image, (K + 2, B, 3), from probabilities float (K, *S) that add up to 1 in each pixel.

        Raises:
            ShapeError: the probabilities differ from the truth in size or number of classes, or are no floats.
            UsageError: they are NaN, lie outside of 0..1 or do not add up to 1, or the truth holds an unknown class.
        """
        num_classes = len(self.classes)
        if not np.issubdtype(probabilities.dtype, np.floating) or len(probabilities) != num_classes:
            needed = (num_classes, *truth.shape)
            raise ShapeError(
                f"probabilities are {probabilities.dtype} {probabilities.shape}; float {needed} is needed, one for each of "
                f"{num_classes} classes, {EXAMPLE}"
            )
        check_sizes(probabilities.shape[1:], truth.shape)
        true_classes = truth.class_map()
        if true_classes.max(initial=0) >= num_classes:
            raise UsageError(
                f"the truth holds class {true_classes.max()} ({truth.classes.names[true_classes.max()]}), the metric knows "
                f"{num_classes} classes; give both the same classes, such as those of the data set"
            )
        border = Boundary(self.classes, trimap_pixels=self.border_pixels).trimap(truth)
        if probabilities.dtype == np.float16:  # which the kernel does not know
            probabilities = probabilities.astype(np.float32)
        sums = np.zeros((num_classes + 2, self.bins, 3))
        wrong = _count(probabilities.reshape(num_classes, -1), true_classes.ravel(), border.ravel(), sums)
        if wrong >= 0:
            place = tuple(int(index) for index in np.unravel_index(wrong, truth.shape))
            found = probabilities.reshape(num_classes, -1)[:, wrong]
            raise UsageError(
                f"the probabilities of pixel {place} add up to {found.sum():.4g} and reach from {found.min():.4g} to "
                f"{found.max():.4g}; give probabilities from 0 to 1 that add up to 1, {EXAMPLE}"
            )
        return Sums(sums)

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """Squares add up to 2, and no probability counts as less than FLOOR."""
        return {"Brier": (0.0, 2.0), "NLL": (0.0, -log(FLOOR))}

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores by name, each 0 at best, then `ECE` of each predicted class; NaN where there are no pixels."""
        by_class, border, totals = np.split(state.values, [-2, -1], axis=-3)  # (..., K, B, 3), (..., 1, B, 3) twice
        everywhere = by_class.sum(axis=-3)  # (..., B, 3)
        pixels = everywhere[..., 0].sum(axis=-1)
        scores = {
            "ECE": _calibration_error(everywhere),
            "border ECE": _calibration_error(border[..., 0, :, :]),
            "Brier": ratio(totals[..., 0, 0, 0], pixels),
            "NLL": ratio(totals[..., 0, 0, 1], pixels),
        }
        per_class = _calibration_error(by_class)
        return scores | {f"ECE/{name}": per_class[..., k] for k, name in enumerate(self.classes.names)}

    def reliability(self, state: Sums) -> dict[str, "Reliability"]:
        """The reliability diagram of all pixels as "all", of those near borders as "border", and of each predicted class.

        The state is of one sum, (K + 2, B, 3).
        """
        *by_class, border, _ = state.values
        parts = {"all": np.sum(by_class, axis=0), "border": border} | dict(zip(self.classes.names, by_class, strict=True))
        return {name: Reliability(*sums.T) for name, sums in parts.items()}


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: `pixels`, and the sums of their `confidences` and of `correct` pixels, in bins, float64 (B,)."""

    pixels: np.ndarray
    confidences: np.ndarray
    correct: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Where the bins begin and end, from 0 to 1, (B + 1,)."""
        return np.linspace(0, 1, len(self.pixels) + 1)

    @property
    def confidence(self) -> np.ndarray:
        """Mean probability of the predicted class in each bin, (B,), NaN in empty ones: the x axis of the diagram."""
        return ratio(self.confidences, self.pixels)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of correct pixels in each bin, (B,), NaN in empty ones: the y axis of the diagram."""
        return ratio(self.correct, self.pixels)


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error (...) from pixels, summed confidence and correct pixels in bins (..., B, 3)."""
    pixels, confidences, correct = np.moveaxis(sums, -1, 0)
    return ratio(np.abs(confidences - correct).sum(axis=-1), pixels.sum(axis=-1))


@njit(cache=True, nogil=True)
def _count(probabilities, truth, border, sums):
    """Add pixels (N,) to the sums (K + 2, B, 3); the index of the first whose probabilities (K, N) are none, or -1.

    Class after class is read for a block of pixels, which keeps to the order in memory and lets the compiler work on many.
    """
    K, N = probabilities.shape
    bins = sums.shape[1]
    top, total, squares, lowest = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    guess = np.empty(BLOCK, np.int64)
    for start in range(0, N, BLOCK):
        size = min(BLOCK, N - start)
        for n in range(size):
            p = np.float64(probabilities[0, start + n])
            top[n], total[n], squares[n], lowest[n], guess[n] = p, p, p * p, p, 0
        for k in range(1, K):
            row = probabilities[k, start : start + size]
            for n in range(size):
                p = np.float64(row[n])
                total[n] += p
                squares[n] += p * p
                lowest[n] = min(lowest[n], p)
                guess[n] = k if p > top[n] else guess[n]
                top[n] = max(top[n], p)
        for n in range(size):
            t = truth[start + n]
            if t < 0:
                continue
            if not (abs(total[n] - 1) <= TOLERANCE and lowest[n] >= -TOLERANCE):  # NaN is neither
                return start + n
            k, p = guess[n], np.float64(probabilities[t, start + n])
            place = min(np.int64(top[n] * bins), bins - 1)
            is_correct = 1.0 if k == t else 0.0
            sums[k, place, 0] += 1
            sums[k, place, 1] += top[n]
            sums[k, place, 2] += is_correct
            if border[start + n]:
                sums[K, place, 0] += 1
                sums[K, place, 1] += top[n]
                sums[K, place, 2] += is_correct
            sums[K + 1, 0, 0] += squares[n] - 2 * p + 1
            sums[K + 1, 0, 1] -= np.log(max(p, FLOOR))
    return -1

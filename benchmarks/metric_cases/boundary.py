"""Borders of all classes of an image: boundary F1, boundary IoU and trimap IoU. Axes: K classes, (H, W)."""

from collections.abc import Iterator

import cv2
import numpy as np

from metric_cases.case import Case, Side, kept
from metric_cases.scenes import regions, wobbled

SETS = {"19 classes, 1024 x 2048": (19, (1024, 2048), 1), "150 classes, 512 x 512": (150, (512, 512), 1)}
TOLERANCE, BAND, TRIMAP = 0.0075, 0.02, 5  # share of the diagonal, share of the diagonal, pixels
NEAR = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
SQUARE = np.ones((3, 3), np.uint8)


def cases() -> Iterator[Case]:
    """Few large and many small classes, each by morphology and by distance transforms, class by class."""
    for name, (num_classes, shape, count) in SETS.items():
        yield Case(
            group="boundary",
            name=f"boundary F1, boundary IoU, trimap IoU, {name}",
            make=lambda is_small, n=num_classes, shape=shape, count=count: kept(
                f"borders {n}", lambda: (n, maps(count, shape, n))
            ),
            cores=1,
            amount=count * shape[0] * shape[1] / 1e6,
            sides={
                "segwright": Side(run=ours, prepare=as_segmentations),
                "OpenCV, erode and dilate": Side(run=with_morphology, note="class by class, as the published programs do"),
                "OpenCV, distances": Side(run=with_distances, note="class by class, exact distance transforms"),
            },
        )


def maps(count: int, shape: tuple[int, int], num_classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a prediction and a truth."""
    generator, pairs = np.random.default_rng(0), []
    for _ in range(count):
        truth = regions(generator, shape, num_classes)
        pairs.append((wobbled(generator, truth, 6.0), truth))
    return pairs


def as_segmentations(data: tuple) -> tuple:
    """The pairs as our data type."""
    from segwright.core import Classes, Segmentation

    num_classes, pairs = data
    classes = Classes.of([f"class {k}" for k in range(num_classes)])
    return classes, [tuple(Segmentation.semantic(each, classes) for each in pair) for pair in pairs]


def ours(data: tuple) -> dict[str, float]:
    """Our metric."""
    from segwright.metrics.boundary import Boundary

    classes, pairs = data
    metric = Boundary(classes, tolerance_share=TOLERANCE, band_share=BAND, trimap_pixels=TRIMAP)
    scores = metric.score(sum((metric.count(*pair) for pair in pairs[1:]), metric.count(*pairs[0])))
    return {name: float(scores[name]) for name in ("boundary F1", "boundary IoU", "trimap IoU")}


def with_morphology(data: tuple) -> dict[str, float]:
    """Borders dilated by a disk, bands eroded by a square."""

    def found(border: np.ndarray, other: np.ndarray, radius: float) -> int:
        reach = int(radius)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        disk = (y * y + x * x <= radius * radius).astype(np.uint8)
        return int(np.count_nonzero(cv2.dilate(other, disk) & border))

    def inner(mask: np.ndarray, width: int) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return mask & ~cv2.erode(padded, SQUARE, iterations=width)[1:-1, 1:-1]

    return class_by_class(data, found, inner)


def with_distances(data: tuple) -> dict[str, float]:
    """Borders looked up in a map of distances, bands in a map of chessboard distances."""

    def found(border: np.ndarray, other: np.ndarray, radius: float) -> int:
        if not other.any():
            return 0
        distance = cv2.distanceTransform(1 - other, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return int(np.count_nonzero((distance <= radius) & (border > 0)))

    def inner(mask: np.ndarray, width: int) -> np.ndarray:
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        distance = cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1]
        return mask & (distance <= width).astype(np.uint8)

    return class_by_class(data, found, inner)


def class_by_class(data: tuple, found, inner) -> dict[str, float]:
    """The three scores from two functions on masks uint8 (H, W) of one class."""
    num_classes, pairs = data
    f1, shared, unions = [], np.zeros((2, num_classes)), np.zeros((2, num_classes))
    for prediction, truth in pairs:
        radius = TOLERANCE * np.hypot(*truth.shape)
        width, wide = max(1, round(BAND * np.hypot(*truth.shape))), np.ones((2 * TRIMAP + 1,) * 2, np.uint8)
        trimap, values = cv2.dilate(truth, wide) != cv2.erode(truth, wide), []
        for k in np.union1d(np.unique(prediction), np.unique(truth)).tolist():
            masks = [(each == k).astype(np.uint8) for each in (prediction, truth)]
            borders = [mask & ~cv2.erode(mask, NEAR) for mask in masks]
            sizes = [np.count_nonzero(border) for border in borders]
            hits = [found(borders[0], borders[1], radius), found(borders[1], borders[0], radius)]
            rates = [hit / size if size else 0.0 for hit, size in zip(hits, sizes, strict=True)]
            if any(sizes):
                values.append(2 * rates[0] * rates[1] / sum(rates) if sum(rates) else 0.0)
            for row, (one, two) in enumerate(([inner(mask, width) for mask in masks], [mask & trimap for mask in masks])):
                shared[row, k] += np.count_nonzero(one & two)
                unions[row, k] += np.count_nonzero(one | two)
        f1.append(np.mean(values))
    means = [np.mean(shared[row][unions[row] > 0] / unions[row][unions[row] > 0]) for row in (0, 1)]
    return {"boundary F1": float(np.mean(f1)), "boundary IoU": float(means[0]), "trimap IoU": float(means[1])}

"""What a network finds in several mirror images, averaged. Axes: V views, N objects, h, w sides of masks, H, W of images.

Masks are averaged as the network gives them, each spread over its own region, so they stay probabilities and are drawn once.
"""

from collections.abc import Sequence

import numpy as np

from segwright.decoding.image_detections import ImageDetections
from segwright.decoding.mask_runs import MaskRuns, mask_overlaps
from segwright.decoding.paste import paste_detections

SAME = 0.5  # of the pixels that either has: more are shared by no other of its view, but for objects that overlap


def average_detections(views: Sequence[ImageDetections], shape: tuple[int, ...]) -> ImageDetections:
    """The objects of V views of one image (H, W), mirrored back, the surest first; a single view is returned as it is.

    Objects of two views are the same if they have one class and share more than half of the pixels that either has. Their
    boxes, regions and masks are averaged over the views that show them, and their scores over all views, as each could have
    shown them: what one of two does not show keeps half of its score. Objects without pixels are left out.
    """
    if len(views) == 1:
        return views[0]
    total, pixels = paste_detections(views[0], shape, shape)
    total = ImageDetections(*(part.copy() for part in total))
    counts = np.ones(len(pixels), np.int64)
    for view in views[1:]:
        found, theirs = paste_detections(view, shape, shape)
        both, size = MaskRuns.joined([pixels, theirs]), len(pixels)
        pairs = mask_overlaps(both, both.extents(), range(size), range(size, len(both)), (0, 0, shape[0], shape[1]))
        mine, others = _best_pairs(pairs, np.concatenate([total.class_ids, found.class_ids]))
        is_new = np.ones(len(theirs), bool)
        is_new[others - size] = False
        for sums, part in zip(_sums(total), _sums(found), strict=True):
            sums[mine] += part[others - size]
        counts[mine] += 1
        total = ImageDetections(*(np.concatenate([sums, part[is_new]]) for sums, part in zip(total, found, strict=True)))
        pixels = MaskRuns.joined([pixels, theirs.taken(np.flatnonzero(is_new))])
        counts = np.concatenate([counts, np.ones(is_new.sum(), np.int64)])
    order = np.argsort(-total.scores, kind="stable")
    boxes, masks, regions = (
        (part / counts.reshape(-1, *[1] * (part.ndim - 1))).astype(np.float32)[order]
        for part in (total.boxes, total.masks, total.regions)
    )
    return ImageDetections(boxes, (total.scores / len(views)).astype(np.float32)[order], total.class_ids[order], masks, regions)


def _sums(found: ImageDetections) -> tuple[np.ndarray, ...]:
    """The parts that are added up."""
    return found.boxes, found.scores, found.masks, found.regions


def _best_pairs(pairs: np.ndarray, class_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs int64 (E, 5), as of `mask_overlaps`, those that are the same, the most alike first, and each object once."""
    one, other, shared, in_one, in_other = pairs.T
    alike = shared / (in_one + in_other - shared)
    mine, theirs = dict[int, int](), dict[int, int]()
    for edge in np.argsort(-alike, kind="stable"):
        i, j = int(one[edge]), int(other[edge])
        if alike[edge] > SAME and class_ids[i] == class_ids[j] and i not in mine and j not in theirs:
            mine[i], theirs[j] = j, i
    return np.array([*mine], np.int64), np.array([*mine.values()], np.int64)

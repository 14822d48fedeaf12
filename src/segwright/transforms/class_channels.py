"""What an earlier network found in an image, as further channels of it: 1 where a class is, 0 elsewhere.

So the second network of a cascade sees, beside its crop, what the first made of the whole. In training the channels are made
wrong now and then, as nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z) does, lest the second network copies the
first. Probabilities and sizes are those of its trainer (nnunetv2 2.8), but that balls are smaller in crops below 128 voxels.

Axes: C channels of the image, K channels of classes, *S spatial axes.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from segwright.core import Classes, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.transforms.prepare import PRESENT

RESHAPED, REMOVED, OF_A_CLASS = 0.4, 0.2, 0.5  # probabilities in nnU-Net: that a crop is changed, and each of its classes then
LARGEST_BALL = 8.0  # voxels of its radius, in nnU-Net
BALL_SHARE = 1 / 16  # of the side of a crop, which those are in one of 128 voxels; balls in smaller crops are smaller
LARGEST_PIECE = 0.15  # of the crop: larger pieces are not lost, in nnU-Net


def shown_classes(classes: Classes) -> list[int]:
    """The classes (K,) that get a channel: all but the background, which is where the others are not."""
    background = background_of(classes)
    return [k for k in range(len(classes)) if k != background]


def with_class_channels(sample: Sample, found: Segmentation) -> Sample:
    """The sample with an image (C + K, *S) of the same dtype, whose last channels say where `found` has its classes."""
    planes, channels = found.planes, [sample.image]
    for k in shown_classes(found.classes):
        is_of_class = np.array([False, False, *(found.class_ids == k)])  # void, nothing, segment 0, ...
        channels.append(is_of_class[planes + 1].any(axis=0)[None].astype(sample.image.dtype))
    return replace(sample, image=np.concatenate(channels))


def with_errors(channels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Channels float32 (K, *S) of 0 and 1 from such with any values, in some crops with borders moved and pieces lost.

    Classes grow, shrink, close or open by a ball; where they exclude each other they still do. Or a piece of them is gone.
    """
    masks = channels >= PRESENT
    if generator.random() < RESHAPED:
        is_apart = bool((masks.sum(axis=0) <= 1).all())
        largest = max(1.0, min(LARGEST_BALL, BALL_SHARE * math.prod(masks.shape[1:]) ** (1 / (masks.ndim - 1))))
        for k in _some(len(masks), generator):
            grown = _reshaped(masks[k], int(generator.integers(4)), generator.uniform(1.0, largest))
            if is_apart:
                masks[:, grown & ~masks[k]] = False
            masks[k] = grown
    if generator.random() < REMOVED:
        for k in _some(len(masks), generator):
            _remove_piece(masks[k], generator)
    return masks.astype(np.float32)


def _some(count: int, generator: np.random.Generator) -> Sequence[int]:
    """The numbers of some classes, in any order."""
    return [int(k) for k in generator.permutation(count) if generator.random() < OF_A_CLASS]


def _reshaped(mask: np.ndarray, operation: int, radius: float) -> np.ndarray:
    """A mask bool (*S) grown (0), shrunk (1), closed (2) or opened (3) by a ball; what lies outside of the crop is unknown."""
    places = ndimage.find_objects(mask.astype(np.int8))
    if not places:
        return mask
    margin = math.ceil(radius) + 2  # what grows there is still surrounded
    near = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in places[0])
    steps = ((_grown,), (_shrunk,), (_grown, _shrunk), (_shrunk, _grown))[operation]
    part, result = mask[near], np.zeros_like(mask)
    for step in steps:
        part = step(part, radius)
    result[near] = part
    return result


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask) <= radius if mask.any() else mask


def _shrunk(mask: np.ndarray, radius: float) -> np.ndarray:
    return ~_grown(~mask, radius)


def _remove_piece(mask: np.ndarray, generator: np.random.Generator) -> None:
    """Take a connected piece out of a mask bool (*S), one of those that are no large part of the crop."""
    pieces, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(pieces.ravel())[1:]
    small = np.flatnonzero(sizes < LARGEST_PIECE * mask.size) + 1
    if len(small):
        mask[pieces == generator.choice(small)] = False

"""Objects of one image pasted into another. Axes: C channels, P planes, N segments, *S spatial axes, *B those of a box.

Source: Ghiasi et al. 2021, "Simple copy-paste is a strong data augmentation method for instance segmentation", arXiv
2012.07177: at random places, over whatever is there, and without blending, which changed nothing there. Here it is one piece at
a time, of a class that the caller chooses, and truths without instances give their connected pieces.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segwright.core import Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError


@dataclass(frozen=True, kw_only=True)
class CopyPaste:
    """A share of the crops gets one object of a rare class out of another image, image and truth together."""

    share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise SettingError(f"share is {self.share}; it is a probability, give a number from 0 to 1")

    def is_due(self, generator: np.random.Generator) -> bool:
        """Whether the next crop is one of the share."""
        return generator.random() < self.share


def paste(crop: Sample, donor: Sample, class_id: int, generator: np.random.Generator) -> Sample:
    """The crop with one piece of a class of the donor at a random place, wholly inside; as it is where the donor has none.

    Both are (C, *S). A piece is an instance where there are such, else a connected part (corners count as touching); it covers
    what was there in all planes. The donor's values are taken as they are.

    Raises:
        ShapeError: the two differ in channels or in size, or one has no truth.
    """
    if crop.image.shape != donor.image.shape or crop.truth is None or donor.truth is None:
        raise ShapeError(
            f"a piece of {donor.key!r} {donor.image.shape} cannot be pasted into {crop.key!r} {crop.image.shape}; give two "
            "crops of one shape, both with their truth"
        )
    found = _piece(donor.truth, class_id, generator)
    if found is None:
        return crop
    box, is_piece, is_instance = found
    places = [int(generator.integers(0, side - part + 1)) for side, part in zip(crop.grid.shape, is_piece.shape, strict=True)]
    there = tuple(slice(start, start + part) for start, part in zip(places, is_piece.shape, strict=True))
    image = crop.image.copy()
    image[:, *there] = np.where(is_piece, donor.image[:, *box], image[:, *there])
    return replace(crop, image=image, truth=_with_piece(crop.truth, there, is_piece, class_id, is_instance=is_instance))


def _piece(
    truth: Segmentation, class_id: int, generator: np.random.Generator
) -> tuple[tuple[slice, ...], np.ndarray, bool] | None:
    """The box of a random piece of a class, its pixels in there, bool (*B), and whether it is an instance; None without any."""
    pieces: list[tuple[tuple[slice, ...], np.ndarray, bool]] = []
    for segment in np.flatnonzero(truth.class_ids == class_id):
        mask, is_instance = truth.mask(int(segment)), bool(truth.instance_ids[segment] > 0)
        numbers = mask.astype(np.int32) if is_instance else ndimage.label(mask, np.ones((3,) * mask.ndim))[0]
        pieces += [
            (box, numbers[box] == number, is_instance)
            for number, box in enumerate(ndimage.find_objects(numbers), start=1)
            if box is not None
        ]
    return pieces[int(generator.integers(len(pieces)))] if pieces else None


def _with_piece(
    truth: Segmentation, there: tuple[slice, ...], is_piece: np.ndarray, class_id: int, *, is_instance: bool
) -> Segmentation:
    """The truth with a piece bool (*B) in the box `there`: a new object, or more of what the class has without instances."""
    same = np.flatnonzero((truth.class_ids == class_id) & (truth.instance_ids == 0))
    is_new = is_instance or not len(same)
    number = len(truth) + 1 if is_new else int(same[0]) + 1
    planes = truth.planes.copy()
    planes[:, *there][:, is_piece] = 0
    planes[0][there][is_piece] = number
    if not is_new:
        return replace(truth, planes=planes)
    instance = int(truth.instance_ids.max(initial=0)) + 1 if is_instance else 0
    return Segmentation(
        planes,
        np.append(truth.class_ids, class_id).astype(np.int32),
        np.append(truth.instance_ids, instance).astype(np.int32),
        np.append(truth.scores, 1).astype(np.float32),
        truth.classes,
    )

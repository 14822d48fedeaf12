"""What a person says about one object. Axes: P points, *S spatial axes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segwright.core.errors import ShapeError, UsageError

NUMBERS = "fiu"  # kinds of arrays that places are told in
MAX_OBJECT = 2**31 - 1  # the highest number that a Segmentation holds


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box, an earlier mask or a text that point at one object.

    `points_xy` is float32 (P, 2) in pixels of the original image, pixel centres at +0.5; `is_foreground` bool (P,) says which
    points lie on the object. `box_xyxy` is float32 (4,), `mask` bool (*S) an earlier answer to refine, of bool or of integers
    that are 0 beside the object. `object_id`, from 1 on, tells the objects of a video apart, `frame` is the index of the frame
    that the prompt was given on; in an image it says nothing.

    Raises:
        ShapeError: a part is no array of numbers, or has another shape.
        UsageError: the parts say nothing, or one thing and its contrary.
    """

    points_xy: np.ndarray | None = None
    is_foreground: np.ndarray | None = None
    box_xyxy: np.ndarray | None = None
    mask: np.ndarray | None = None
    text: str | None = None
    object_id: int = 1
    frame: int = 0

    def __post_init__(self) -> None:
        if all(value is None for value in (self.points_xy, self.box_xyxy, self.mask, self.text)):
            raise ShapeError("a prompt is empty; give points, a box, a mask or a text")
        if self.points_xy is not None:
            _check_points(self.points_xy, self.is_foreground)
        if self.box_xyxy is not None:
            _check_box(self.box_xyxy)
        if self.mask is not None:
            _check_mask(self.mask, is_alone=self.points_xy is None and self.box_xyxy is None)
        if self.text is not None and not self.text.strip():
            raise UsageError("the text of a prompt is blank; name what to find, such as 'cat', or leave it out")
        for name, number, least in (("object_id", self.object_id, 1), ("frame", self.frame, 0)):
            if not isinstance(number, int | np.integer) or number < least:
                raise UsageError(f"{name} of a prompt is {number!r}; give a whole number from {least} on")
        if self.object_id > MAX_OBJECT:
            raise UsageError(f"object_id of a prompt is {self.object_id}; give a whole number up to {MAX_OBJECT}")


def _check_points(points_xy: np.ndarray, is_foreground: np.ndarray | None) -> None:
    """See that there are points, each with a flag, and that none contradicts another.

    Raises:
        ShapeError: they have another shape, or are no numbers.
        UsageError: there is none, or a pixel is said to be on the object and beside it.
    """
    _check_numbers(points_xy, "points", "(P, 2): one row (x, y) per point")
    if points_xy.ndim != 2 or points_xy.shape[1] != 2:
        raise ShapeError(f"points are {points_xy.shape}, (P, 2) is needed: one row (x, y) per point")
    if not len(points_xy):
        raise UsageError("there are no points in points_xy; give one at least, or leave points_xy out")
    flags = np.zeros(0) if is_foreground is None else np.asarray(is_foreground)
    if flags.shape != (len(points_xy),):
        raise ShapeError(f"{len(points_xy)} points need {len(points_xy)} foreground flags; give is_foreground")
    if flags.dtype != bool and not np.isin(flags, (0, 1)).all():
        raise UsageError(f"is_foreground is {flags.tolist()}; give True for a point on the object and False for one beside it")
    pixels = np.floor(points_xy)
    on, beside = ({tuple(pixel) for pixel in pixels[flags.astype(bool) == side].tolist()} for side in (True, False))
    if both := sorted(on & beside):
        x, y = both[0]
        raise UsageError(
            f"the pixel in column {x:.0f}, row {y:.0f} is said to be on the object and beside it; leave out one of the two"
        )


def _check_box(box_xyxy: np.ndarray) -> None:
    """See that a box has two corners.

    Raises:
        ShapeError: it has another shape, or they are no numbers.
    """
    _check_numbers(box_xyxy, "a box", "(4,): x1, y1, x2, y2")
    if box_xyxy.shape != (4,):
        raise ShapeError(f"a box is {box_xyxy.shape}, (4,) is needed: x1, y1, x2, y2, of its left upper and right lower corner")


def _check_numbers(given: Any, name: str, needed: str) -> None:
    """See that places are an array of real, finite numbers.

    Raises:
        ShapeError: they are not.
    """
    if not isinstance(given, np.ndarray) or given.dtype.kind not in NUMBERS:
        kind = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else f"a {type(given).__name__}"
        raise ShapeError(f"{name} of a prompt: {kind} was given; give np.array(..., np.float32) {needed}")
    if not np.isfinite(given).all():
        raise ShapeError(f"{name} of a prompt: {given.tolist()} holds what is no number; give finite numbers, in pixels")


def _check_mask(mask: np.ndarray, *, is_alone: bool) -> None:
    """See that a mask tells where an object is.

    Raises:
        ShapeError: it holds neither bool nor integers.
        UsageError: it is given alone, and has no pixel.
    """
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biu":
        kind = f"an array of {mask.dtype}" if isinstance(mask, np.ndarray) else f"a {type(mask).__name__}"
        raise ShapeError(f"the mask of a prompt is {kind}; give a bool array, such as logits > 0")
    if is_alone and not mask.any():
        raise UsageError("the mask of a prompt has no pixel, and nothing else tells where the object is; add a point or a box")


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """See that prompts are one for each object of a frame.

    Raises:
        UsageError: one is something else, or two are about the same object.
    """
    for each in prompts:
        if not isinstance(each, Prompt):
            raise UsageError(f"a {type(each).__name__} was given for a prompt; give each by itself, such as segment(*prompts)")
    count = Counter((each.object_id, each.frame) for each in prompts)
    ((number, frame), most) = count.most_common(1)[0] if count else ((0, 0), 0)
    if most > 1:
        raise UsageError(
            f"{most} prompts are about object {number}" + (f" in frame {frame}" if frame else "") + "; put all that is said "
            "of an object into one prompt, or tell other objects apart with object_id=2 and so on"
        )


def check_within(prompt: Prompt, shape: tuple[int, int], what: str = "the image") -> None:
    """See that the places that a prompt tells lie in an image or a frame (H, W), which messages call `what`.

    Raises:
        ShapeError: a point or a box lies outside, the box has no area, or the mask has another shape.
    """
    height, width = shape
    for name, places in (("points", prompt.points_xy), ("the box", prompt.box_xyxy)):
        if places is None:
            continue
        xy = places.reshape(-1, 2)
        if not ((xy >= 0).all() and (xy <= (width, height)).all()):
            lie = "lie" if name == "points" else "lies"
            raise ShapeError(
                f"{name} {places.tolist()} of object {prompt.object_id} {lie} outside {what}, which is {width} wide and "
                f"{height} high; give x from 0 to {width} and y from 0 to {height}, in its own pixels"
            )
    box = prompt.box_xyxy
    if box is not None and not (box[2:] > box[:2]).all():
        raise ShapeError(f"the box {box.tolist()} is empty; give x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    if prompt.mask is not None and prompt.mask.shape != shape:
        raise ShapeError(f"the mask is {prompt.mask.shape} and {what} {shape}; give a mask of its shape")

"""What a person says about one object. Axes: P points, *S spatial axes."""

from dataclasses import dataclass

import numpy as np

from segwright.core.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Prompt:
    """Points, a box, an earlier mask or a text that point at one object.

    `points_xy` is float32 (P, 2) in pixels of the original image, pixel centres at +0.5; `is_foreground` bool (P,) says which
    points lie on the object. `box_xyxy` is float32 (4,), `mask` bool (*S) an earlier answer to refine. `object_id` tells the
    objects of a video apart, `frame` is the index of the frame that the prompt was given on.
    """

    points_xy: np.ndarray | None = None
    is_foreground: np.ndarray | None = None
    box_xyxy: np.ndarray | None = None
    mask: np.ndarray | None = None
    text: str | None = None
    object_id: int = 1
    frame: int = 0

    def __post_init__(self) -> None:
        if self.points_xy is not None:
            if self.points_xy.ndim != 2 or self.points_xy.shape[1] != 2:
                raise ShapeError(f"points are {self.points_xy.shape}, (P, 2) is needed: one row (x, y) per point")
            if self.is_foreground is None or len(self.is_foreground) != len(self.points_xy):
                raise ShapeError(
                    f"{len(self.points_xy)} points need {len(self.points_xy)} foreground flags; give is_foreground"
                )
        if self.box_xyxy is not None and self.box_xyxy.shape != (4,):
            raise ShapeError(f"a box is {self.box_xyxy.shape}, (4,) is needed: x and y of two opposite corners")
        if all(value is None for value in (self.points_xy, self.box_xyxy, self.mask, self.text)):
            raise ShapeError("a prompt is empty; give points, a box, a mask or a text")

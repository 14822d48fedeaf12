"""One image, frame or volume with what is known about it. Axes: C channels, *S spatial axes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from segwright.core.errors import ShapeError
from segwright.core.grid import Grid
from segwright.core.segment_overlay import overlay_segments
from segwright.core.segmentation import Segmentation
from segwright.core.visualise import as_rgb, html_picture


@dataclass(frozen=True, eq=False)
class Sample:
    """An image (C, *S) in the dtype of its file, where its pixels are, and its truth, or None where nobody drew one.

    `key` is unique in its data set and safe as a file name. Values that the file says are missing (nodata) are NaN, in a float
    image. `left_out` counts the annotations of its file that are no segment of the truth, by the reason, such as
    {"outside the image": 3}. `drawn_xyxy` (N, 4) are the boxes around shapes as they were drawn, in pixels, inside of the image
    or not; None where nothing is drawn but pixels are stored.
    """

    key: str
    image: np.ndarray
    grid: Grid
    truth: Segmentation | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    drawn_xyxy: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.shape[1:] != self.grid.shape:
            raise ShapeError(
                f"sample {self.key!r}: the image is {self.image.shape[1:]} and its grid {self.grid.shape}; make them equal"
            )
        if self.truth is not None and self.truth.shape != self.grid.shape:
            raise ShapeError(
                f"sample {self.key!r}: the image is {self.grid.shape} and its truth {self.truth.shape}; "
                "check that both belong together and were not resized apart"
            )

    @classmethod
    def of(cls, key: str, image: np.ndarray, truth: Segmentation | None = None) -> "Sample":
        """A sample from an image (C, *S) whose pixel size is unknown."""
        return cls(key, image, Grid(image.shape[1:]), truth)

    def _repr_html_(self) -> str:
        """The picture and legend that a notebook shows: the truth over the image."""
        from segwright.core.classes import Classes

        if self.truth is None:
            return html_picture(as_rgb(self.image), Classes.of(["nothing"]), [])
        class_map = self.truth.class_map()
        return html_picture(overlay_segments(self.image, self.truth), self.truth.classes, np.unique(class_map[class_map >= 0]))

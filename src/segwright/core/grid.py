"""Where the pixels are. Axes: *S spatial axes, (H, W) or (D, H, W)."""

from dataclasses import dataclass

import numpy as np

from segwright.core.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Grid:
    """The shape *S of an image, the size of its pixels and its place in the world.

    `spacing_mm` is the distance of neighbouring pixel centres per axis, in the order of `shape`; None where it is unknown.
    `affine` is float64 (n + 1, n + 1) from array index to world position for n spatial axes; None where it is unknown. The
    index (0, 0) or (0, 0, 0) is the centre of the first pixel. Of volumes, the array axes (D, H, W) are the z, y, x of
    SimpleITK, and the world is in mm along LPS, as in DICOM: x grows to the left, y to the back, z to the head of a person.
    Of maps, (row, column, 1) leads to x, y on the map.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None = None
    affine: np.ndarray | None = None

    def __post_init__(self) -> None:
        axes = len(self.shape)
        if axes not in (2, 3):
            raise ShapeError(
                f"a grid has 2 or 3 spatial axes, not {axes} (shape {self.shape}); an image is (C, H, W) or (C, D, H, W)"
            )
        if self.spacing_mm is not None and len(self.spacing_mm) != axes:
            raise ShapeError(f"spacing {self.spacing_mm} has {len(self.spacing_mm)} values for {axes} axes; give one per axis")
        if self.affine is not None and self.affine.shape != (axes + 1, axes + 1):
            raise ShapeError(f"affine is {self.affine.shape}, a grid of {axes} axes needs {(axes + 1, axes + 1)}")

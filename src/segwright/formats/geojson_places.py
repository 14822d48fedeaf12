"""How the coordinates of a GeoJSON become pixels of its image: those of a map, degrees, or pixels themselves.

Where an image lies on a map, its labels are in the system that `crs` names. Without it they are in the system of the image if
they meet the image there, as older programs write; else in pixels, if QuPath wrote them and they then meet the image; else in
degrees, as RFC 7946 demands. What cannot be told is an error that names both systems.

Axes: V corners.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Grid
from segwright.core.errors import FormatError
from segwright.formats.map_systems import DEGREES, MapSystem, moved

MOST_DEGREES = 180.0
FAR = 1e9  # pixels: what has no place on the map of the image is as good as there


@dataclass(frozen=True, eq=False)
class Placement:
    """From places in a file to corners in an image of a `grid`: they are in `source`, the image in `target`, or are pixels.

    `is_swapped` where they only meet the image with x and y swapped.
    """

    grid: Grid
    source: MapSystem | None
    target: MapSystem | None
    place: str
    is_swapped: bool = False

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Corners (x, y) in pixels, float64 (V, 2), of places (V, 2)."""
        if self.source is not None and self.target is not None and self.source != self.target:
            points = moved(points, self.source, self.target, self.place)
        corners = points if self.target is None else _to_pixels(points, self.grid.affine)
        return np.where(np.isfinite(corners), corners, FAR)

    def has_places(self, rings: Sequence[np.ndarray]) -> bool:
        """Whether any of some rings of places is on the map of the image, or on it with x and y swapped."""
        return self.is_swapped or not rings or bool((self.pixels(np.concatenate(rings)) < FAR).all(axis=1).any())

    def meets(self, rings: Sequence[np.ndarray]) -> bool:
        """Whether the box around any of some rings of places meets the image."""
        height, width = self.grid.shape
        if not rings:
            return True
        starts = np.cumsum([0, *(len(ring) for ring in rings[:-1])])
        corners = self.pixels(np.concatenate(rings))
        low, high = np.minimum.reduceat(corners, starts), np.maximum.reduceat(corners, starts)
        return bool(((low < (width, height)) & (high > 0)).all(axis=1).any())


def pixels_of(grid: Grid, crs: MapSystem | None, place: str) -> Placement:
    """The placement of labels in pixels.

    Raises:
        FormatError: they name the system of a map.
    """
    if crs is not None:
        raise FormatError(
            f"{place} has places in {crs}, and its image does not say where it lies; give the GeoTIFF that was labelled, or "
            "labels in pixels, without crs"
        )
    return Placement(grid, None, None, place)


def placed_on(
    grid: Grid, system: MapSystem, crs: MapSystem | None, rings: Sequence[np.ndarray], place: str, *, may_be_pixels: bool
) -> Placement:
    """The placement of labels, outer rings (V, 2), of an image that lies on a map in a `system`.

    Raises:
        FormatError: they do not meet the image in its own system, and what they are in, or what the image is in, is not known;
            or the system that they name has no such places.
    """
    rings = [ring for ring in rings if len(ring)]
    on_map = Placement(grid, system, system, place)
    reach = max((float(np.abs(ring).max()) for ring in rings), default=0.0)
    if crs is not None and system.name is not None:
        named = _perhaps_swapped(replace(on_map, source=crs), rings)
        if named.has_places(rings):
            return named
    elif on_map.meets(rings):
        return on_map
    elif may_be_pixels and (pixels := Placement(grid, None, None, place)).meets(rings):
        return pixels
    elif crs is None and system.name is not None and reach <= MOST_DEGREES:
        return _perhaps_swapped(replace(on_map, source=DEGREES), rings)
    elif (swapped := _perhaps_swapped(on_map, rings)).is_swapped:
        return swapped
    low, high = (function(np.concatenate(rings), axis=0) for function in (np.min, np.max))
    said = f"in {crs}" if crs is not None else "without crs" + (", so in degrees" if reach <= MOST_DEGREES else "")
    raise FormatError(
        f"{place} has places {said}, from {_point(low)} to {_point(high)}, and its image lies in {system} around "
        f"{_point(to_map(np.array([[side / 2 for side in grid.shape[::-1]]]), grid.affine)[0])}: they do not meet, and the way "
        "from one to the other is not known; export both in one system, or with the EPSG number of each"
    )


def _perhaps_swapped(placement: Placement, rings: Sequence[np.ndarray]) -> Placement:
    is_swapped = not placement.meets(rings) and placement.meets([ring[:, ::-1] for ring in rings])
    return replace(placement, is_swapped=is_swapped)


def _point(point: np.ndarray) -> str:
    return f"({point[0]:.7g}, {point[1]:.7g})"


def _to_pixels(points: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    """Corners (x, y) of pixels, float64 (V, 2), from places (V, 2) on the map of an affine (3, 3).

    The affine takes an index (row, column), which is the centre of a pixel, to a place (x, y).
    """
    if affine is None or not len(points):
        return points.reshape(-1, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        rows, columns = np.linalg.inv(affine[:2, :2]) @ (points - affine[:2, 2]).T
    return np.stack([columns, rows], axis=1) + 0.5


def to_map(corners: np.ndarray, affine: np.ndarray | None) -> np.ndarray:
    """Places (V, 2) on the map of an affine of corners (x, y) in pixels; without one, the corners."""
    if affine is None:
        return corners
    return (corners[:, ::-1] - 0.5) @ affine[:2, :2].T + affine[:2, 2]

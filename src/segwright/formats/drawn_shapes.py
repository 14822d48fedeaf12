"""What a drawn shape means, in every format, and the count of the annotations that become no segment, by the reason.

    polygon, also several, or with holes       the pixels whose centres lie inside
    box that somebody drew (labelme, CVAT,     the same, of its four corners; CVAT turns it by degrees clockwise around its
        Label Studio), turned or not           centre, Label Studio around its left upper corner, the others give the corners
    circle, ellipse, turned or not             the pixels whose centres lie inside
    mask, brush, run lengths                   its pixels
    other kinds with three or more corners     the polygon of the corners: rotation and quadrilateral of X-AnyLabeling
    line, polyline, points, skeleton           no pixel: counted
    cuboid                                     no region of the image: counted
    tag, caption, choice, relation             about the image and no object: counted apart, and not as lost
    box that a format keeps beside its masks   no shape, but what is known of one: where there is no mask, counted (COCO,
                                               Datumaro, YOLO; the XML of VOC is not read)

A region is no segment either where it lies outside of the image, has no pixel, fewer than three corners, no label, or a
category of COCO that the file does not list. Each annotation is counted once: in `Sample.left_out`, as a lost segment by
`segwright convert`, as a finding of `segwright inspect`, in the notes of `evaluate` and `metrics`, and in the log of `fit` and
`plan`. Those of images that are no sample are in `Dataset.left_out`. Errors are a name that a classes.json lacks, a number
beyond the list of classes (others may be shifted then), damaged numbers, and an image of another size than its annotations say.

Axes: V corners, N shapes, (H, W) pixels, R runs.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from segwright.codecs import polygons, rle
from segwright.core import Grid, Sample, Segmentation
from segwright.core.errors import FormatError, naming

OUTSIDE = "outside the image"
SWAPPED = "outside the image, inside it with x and y swapped"
NO_PIXEL = "without a pixel"
FEW_CORNERS = "with fewer than three corners"
LINE_OR_POINTS = "drawn as a line or as points"
BOX_ALONE = "given as a box without a mask"
NO_IMAGE = "of images that are not there"
UNLABELLED = "without a label"
ABOUT_IMAGE = "about the image as a whole"
MAX_REASONS = 6  # in a sentence
SHOWN = 30  # characters of a kind or a category in a reason

LINES_AND_POINTS = frozenset(
    ("line", "polyline", "linestrip", "point", "points", "keypoint", "keypoints", "keypointlabels", "skeleton", "vector")
)
CUBOIDS = frozenset(("cuboid", "cuboid_2d", "cuboid_3d"))
TAGS = frozenset(
    ("tag", "label", "caption", "choices", "taxonomy", "rating", "number", "datetime", "textarea", "relation", "hash_key")
)

Ring = Sequence[Sequence[float]] | np.ndarray


def of_kind(kind: str) -> str:
    """The reason of an annotation that is no region by its kind."""
    if kind.lower() in TAGS:
        return ABOUT_IMAGE
    return LINE_OR_POINTS if kind.lower() in LINES_AND_POINTS else f"of the kind {kind[:SHOWN]!r}"


def is_blank(label: str | None) -> bool:
    """Whether a label is none, or nothing that anybody sees."""
    return not (label or "").strip()


def of_category(category: object) -> str:
    """The reason of an annotation whose category the file does not list."""
    return f"of the category {category!s:.{SHOWN}}, which is not listed"


def lost(left_out: Mapping[str, int]) -> int:
    """How many annotations of objects are no segment: what is said of an image is none."""
    return sum(count for reason, count in left_out.items() if reason != ABOUT_IMAGE)


def told(left_out: Mapping[str, int]) -> str:
    """How many annotations are no segment, in words, the most first: "3 outside the image, 1 without a label"."""
    ordered = sorted(left_out.items(), key=lambda entry: -entry[1])
    rest = sum(count for _, count in ordered[MAX_REASONS:])
    return ", ".join([f"{count:,} {reason}" for reason, count in ordered[:MAX_REASONS]] + [f"{rest:,} of others"] * (rest > 0))


def is_polygon(kind: str, corners: int) -> bool:
    """Whether a shape that no format knows by its kind is the polygon of its corners."""
    return corners >= 3 and kind.lower() not in LINES_AND_POINTS | CUBOIDS | TAGS


class Drawing:
    """The shapes drawn on one image (H, W): each becomes run lengths (R,), or None and is counted in `left_out`.

    `boxes` hold left, top, right and bottom of each shape as it was drawn, inside of the image or not.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.left_out: Counter[str] = Counter()
        self.boxes: list[tuple[float, float, float, float]] = []

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count annotations that are no segment."""
        self.left_out[reason] += count

    def areas(self, parts: Sequence[Sequence[Ring]], place: str) -> np.ndarray | None:
        """The union of parts, each a ring of corners (x, y) and those of its holes; `place` is for messages.

        Rings of fewer than three corners enclose nothing. So they are passed over beside others.

        Raises:
            FormatError: a corner is not finite, or there are too many to draw.
        """
        arrays = [[np.asarray(ring, np.float64).reshape(-1, 2) for ring in rings] for rings in parts]
        whole = [[ring for ring in rings if len(ring) >= 3] for rings in arrays if rings and len(rings[0]) >= 3]
        if not whole:
            self.leave_out(FEW_CORNERS)
            return None
        with naming(place):
            drawn = [polygons.rasterise(rings, self.shape) for rings in whole]
        corners = np.concatenate([rings[0] for rings in whole])
        counts = drawn[0] if len(drawn) == 1 else rle.union(drawn, self.shape)
        return self._kept(counts, (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()))

    def polygon(self, corners: Ring, place: str) -> np.ndarray | None:
        """What lies inside of corners (x, y). Raises as `areas`."""
        return self.areas([[corners]], place)

    def box(
        self, xyxy: Sequence[float], place: str, degrees: float = 0.0, pivot_xy: Sequence[float] | None = None
    ) -> np.ndarray | None:
        """A box from corner to corner, turned clockwise around a point, without one around its centre. Raises as `areas`."""
        _check_finite([*xyxy, degrees], place)
        left, top, right, bottom = xyxy
        x, y = ((left + right) / 2, (top + bottom) / 2) if pivot_xy is None else pivot_xy
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - (x, y)
        return self.polygon(corners @ [[cos, sin], [-sin, cos]] + (x, y), place)

    def ellipse(self, center: Sequence[float], radii: Sequence[float], place: str, degrees: float = 0.0) -> np.ndarray | None:
        """An ellipse or circle, turned clockwise.

        Raises:
            FormatError: a number is not finite.
        """
        _check_finite([*center, *radii, degrees], place)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        across, down = math.hypot(radii[0] * cos, radii[1] * sin), math.hypot(radii[0] * sin, radii[1] * cos)
        box = (center[0] - across, center[1] - down, center[0] + across, center[1] + down)
        return self._kept(_ellipse(center, radii, self.shape, degrees), box)

    def mask(self, mask: np.ndarray, corner: tuple[int, int]) -> np.ndarray | None:
        """A mask bool (h, w) whose left upper corner lies at (x, y)."""
        (left, top), (height, width) = corner, mask.shape
        return self._kept(_placed(mask, corner, self.shape), (left, top, left + width, top + height))

    def runs(self, counts: np.ndarray) -> np.ndarray | None:
        """Run lengths (R,) of the whole image, as a file holds them."""
        if rle.area(counts):
            return counts
        self.leave_out(NO_PIXEL)
        return None

    def sample(self, key: str, image: np.ndarray, truth: Segmentation, grid: Grid | None = None) -> Sample:
        """The sample with what was counted here."""
        boxes = np.array(self.boxes, np.float64).reshape(-1, 4)
        place = grid or Grid(image.shape[1:])
        return Sample(key, image, place, truth, left_out=dict(self.left_out), drawn_xyxy=boxes)

    def _kept(self, counts: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray | None:
        self.boxes.append(box)
        if rle.area(counts):
            return counts
        (left, top, right, bottom), (height, width) = box, self.shape
        self.leave_out(OUTSIDE if right <= 0 or bottom <= 0 or left >= width or top >= height else NO_PIXEL)
        return None


def _check_finite(values: Sequence[float], place: str) -> None:
    if not np.isfinite(values).all():
        raise FormatError(f"{place}: a number is not finite ({', '.join(map(str, values))}); correct or remove it")


def _ellipse(center: Sequence[float], radii: Sequence[float], shape: tuple[int, int], degrees: float = 0.0) -> np.ndarray:
    """The run lengths (R,) of the pixels whose centre lies in an ellipse; centre and radii (x, y), turned clockwise."""
    height, width = shape
    if not min(radii) > 0:
        return rle.encode(np.zeros(shape, bool))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    with np.errstate(all="ignore"):  # what is too large or too small to count lies outside
        across, along = np.float64(radii[0]) ** -2, np.float64(radii[1]) ** -2
        dx = np.arange(width) + 0.5 - center[0]
        # Of each column, the rows y between the roots of a y^2 + b y + c
        a, b = sin**2 * across + cos**2 * along, 2 * dx * sin * cos * (across - along)
        c = dx**2 * (cos**2 * across + sin**2 * along) - 1
        root = np.sqrt(b**2 - 4 * a * c)  # NaN beside the ellipse
        first = np.ceil(np.clip((-b - root) / (2 * a) + center[1] - 0.5, 0, height))
        end = np.floor(np.clip((-b + root) / (2 * a) + center[1] - 0.5, -1, height - 1)) + 1
    columns = np.flatnonzero(first < end)
    return _counts(columns * height + first[columns].astype(np.int64), columns * height + end[columns].astype(np.int64), shape)


def _placed(mask: np.ndarray, corner: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """The run lengths (R,) of a mask bool (h, w) in an image, its left upper corner at (x, y); what sticks out is cut off."""
    left, top = corner
    part = mask[max(0, -top) : max(0, shape[0] - top), max(0, -left) : max(0, shape[1] - left)]
    edges = np.diff(np.pad(part.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)  # (w, h + 1), column by column
    starts, ends = (
        (columns + max(0, left)) * shape[0] + rows + max(0, top)
        for columns, rows in (np.nonzero(edges == 1), np.nonzero(edges == -1))
    )
    return _counts(starts, ends, shape)


def _counts(starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Run lengths (R,) from where the runs begin and end, in order; those that touch become one."""
    is_apart = starts[1:] != ends[:-1]
    starts, ends = starts[np.append(True, is_apart)[: len(starts)]], ends[np.append(is_apart, True)[: len(ends)]]
    marks = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], marks, [shape[0] * shape[1]]])).astype(np.uint32)
    return counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts

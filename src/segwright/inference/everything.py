"""All objects of an image, asked for by a grid of points: the automatic masks of Segment Anything (arXiv 2304.02643).

Each point of a grid gets three answers. What stays is what the network expects to fit well, whose border is sharp, and of which
no better mask says about the same. Small things are looked for again in crops of the image, enlarged to what the network sees:
2 x 2 of them, then 4 x 4; there a mask that the border of a crop cuts is dropped.

Deviations: masks are compared pixel by pixel, where the authors compare the boxes around them, so that two thin objects that
cross both stay. Holes and islands are mended before masks are compared, not after. Masks are runs of pixels from the start: no
array (N, H, W) is ever made.

Axes: N masks, P points, H, W sides of the image, h, w of the network's masks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np

from segwright.core import Prompt, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.decoding.logit_runs import runs_of_logits
from segwright.decoding.mask_runs import MaskRuns, surest_masks
from segwright.decoding.query_pixels import Place
from segwright.decoding.small_regions import without_small_holes, without_small_islands
from segwright.inference.prompting import Prompter, PromptSession, check_pixels, objects_of
from segwright.layers.prompts import PromptedMasks

# The numbers of the authors' generator of automatic masks
POINTS_PER_SIDE = 32
LEAST_SCORE = 0.88
LEAST_STABILITY = 0.95
SAME_IOU = 0.7
OVERLAP_SHARE = 512 / 1500  # of the image's shorter side, of two crops that halve it
NEAR_PX = 20  # of the border of a crop: an object that reaches so far may go on beyond it

MOST_LAYERS = 4  # of crops: 256 in the last, each of which is encoded by itself
BATCH = 64  # points at a time: their answers take 50 MB


@dataclass(frozen=True, eq=False)
class FoundMasks:
    """N masks in pixels of the image, with the scores float32 (N,) that the network gave them."""

    masks: MaskRuns
    scores: np.ndarray

    @classmethod
    def joined(cls, parts: "list[FoundMasks]") -> "FoundMasks":
        """The masks of all parts, one part after the other."""
        scores = np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)])
        return cls(MaskRuns.joined([part.masks for part in parts]), scores)

    def taken(self, numbers: np.ndarray) -> "FoundMasks":
        """The masks with these numbers, in their order."""
        return FoundMasks(self.masks.taken(numbers), self.scores[numbers])


def segment_everything(
    prompter: Prompter,
    image: Sample | np.ndarray,
    *,
    points_per_side: int = POINTS_PER_SIDE,
    crop_layers: int = 0,
    min_score: float = LEAST_SCORE,
    min_area: int = 0,
) -> Segmentation:
    """The objects of an image (C, H, W), the largest first, each with the score that the network gives it; they may overlap.

    Points lie `points_per_side` squared over the image and over each crop, or as many as there are pixels; `crop_layers` of
    crops are looked at too, four in the first and four times as many in each that follows. Objects with a score up to
    `min_score` are left out; holes and islands of less than `min_area` pixels are filled or removed, but the largest part of
    an object stays.

    Raises:
        SettingError: there is no point, a number of layers or of pixels is negative, there are too many layers, or the score is
            no number.
        ShapeError: the image has other axes or channels than the network takes.
    """
    if np.isnan(min_score):
        raise SettingError("min_score is no number; give a score from 0 to 1, such as 0.88")
    if points_per_side < 1 or not 0 <= crop_layers <= MOST_LAYERS or min_area < 0:
        raise SettingError(
            f"points_per_side is {points_per_side}, crop_layers {crop_layers} and min_area {min_area}; give at least 1, 0 to "
            f"{MOST_LAYERS} and at least 0, such as {POINTS_PER_SIDE}, 0 and 100"
        )
    pixels = image.image if isinstance(image, Sample) else image
    check_pixels(pixels)
    boxes, _ = crop_boxes((int(pixels.shape[-2]), int(pixels.shape[-1])), crop_layers)
    seen = []
    for left, top, right, bottom in boxes:
        session = prompter.open(np.ascontiguousarray(pixels[..., top:bottom, left:right]))
        batches = list(_batches(session, (left, top), points_per_side, min_score, min_area, pixels.shape[-2:]))
        found = FoundMasks.joined(batches)
        seen.append(found.taken(surest_masks(found.masks, np.argsort(-found.scores, kind="stable"), SAME_IOU)))
    found = FoundMasks.joined(seen)
    if len(seen) > 1:  # of a mask that several crops show, that of the smallest crop, which shows most of it
        sizes = np.repeat((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), [len(each.scores) for each in seen])
        found = found.taken(surest_masks(found.masks, np.argsort(sizes, kind="stable"), SAME_IOU))
    found = found.taken(np.argsort(-found.masks.areas(), kind="stable"))
    shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
    return objects_of(found.masks, found.scores, shape, range(1, 1 + len(found.scores)))


def _batches(
    session: PromptSession,
    corner: tuple[int, int],
    points_per_side: int,
    min_score: float,
    min_area: int,
    shape: tuple[int, ...],
) -> Iterator[FoundMasks]:
    """What is found at the points of a crop, so many at a time, whose left upper pixel is at `corner` (x, y) of the image."""
    height, width = session.shape
    points = point_grid(min(points_per_side, max(height, width))) * (width, height)
    for first in range(0, len(points), BATCH):
        some = points[first : first + BATCH].astype(np.float32)
        prompts = [Prompt(points_xy=point[None], is_foreground=np.ones(1, bool)) for point in some]
        answers = session.ask(prompts, multimask=True)
        yield found_in(answers, session.place, corner, (height, width), shape, min_score=min_score, min_area=min_area)


def found_in(
    answers: PromptedMasks,
    place: Place,
    corner: tuple[int, int],
    crop: tuple[int, int],
    shape: tuple[int, ...],
    *,
    min_score: float = LEAST_SCORE,
    min_area: int = 0,
) -> FoundMasks:
    """The masks among answers (1, P, M, h, w) that are good, stable and not cut by the border of a crop of the image (H, W)."""
    scores = answers.scores[0].flatten().float()
    is_good = scores > min_score
    logits, kept = answers.mask_logits[0].flatten(0, 1)[is_good], scores[is_good].cpu().numpy()
    masks, stability = runs_of_logits(logits.float().cpu().numpy(), Place((corner[1], corner[0]), place.rows, place.columns))
    found = FoundMasks(masks, kept).taken(np.flatnonzero((stability >= LEAST_STABILITY) & (masks.areas() > 0)))
    if min_area:
        whole = (int(shape[0]), int(shape[1]))
        mended = [without_small_holes(found.masks[n], whole, min_area) for n in range(len(found.scores))]
        found = FoundMasks(MaskRuns.of([without_small_islands(runs, min_area) for runs in mended]), found.scores)
    top, left, bottom, right = found.masks.extents().T
    box = (corner[0], corner[1], corner[0] + crop[1], corner[1] + crop[0])
    is_cut = are_cut(np.stack([left, top, right - 1, bottom - 1], axis=1), box, (int(shape[0]), int(shape[1])))
    return found.taken(np.flatnonzero(~is_cut))


def point_grid(count: int) -> np.ndarray:
    """So many points along each side, row by row, as shares of a crop's sides (x, y), float64 (count * count, 2)."""
    line = (np.arange(count) + 0.5) / count
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def crop_boxes(shape: tuple[int, int], layers: int) -> tuple[np.ndarray, np.ndarray]:
    """The crops of an image (H, W), int64 (n, 4): left, top, right, bottom, the last two outside; and the layer of each (n,).

    Layer 0 is the whole image. Layer i has 2^i crops along each side, which overlap by so many pixels in both directions:
    `OVERLAP_SHARE` of the image's shorter side, halved from layer to layer.
    """
    height, width = shape
    boxes, numbers = [(0, 0, width, height)], [0]
    for layer in range(1, 1 + layers):
        count = 2**layer
        overlap = int(OVERLAP_SHARE * min(shape) * 2 / count)
        sides = [ceil((overlap * (count - 1) + side) / count) for side in (width, height)]
        starts = [[(side - overlap) * number for number in range(count)] for side in sides]
        for left, top in product(*starts):
            right, bottom = min(left + sides[0], width), min(top + sides[1], height)
            if right > left and bottom > top:  # in an image of fewer pixels than crops some have none
                boxes.append((left, top, right, bottom))
                numbers.append(layer)
    return np.array(boxes, np.int64), np.array(numbers, np.int64)


def are_cut(boxes: np.ndarray, crop: tuple[int, int, int, int], shape: tuple[int, int]) -> np.ndarray:
    """Whether objects of a crop come near its border, where that is not the image's (H, W) too, bool (N,).

    Boxes int64 (N, 4) are left, top, right, bottom of their outermost pixels; those of the crop and of the image end one after.
    """
    image = np.array([0, 0, shape[1], shape[0]])
    is_near, is_outermost = (np.abs(boxes - np.array(limits)) <= NEAR_PX for limits in (crop, image))
    return (is_near & ~is_outermost).any(axis=1)

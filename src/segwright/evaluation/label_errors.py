"""Labels that a prediction makes doubtful, for people to look at. Axes: N predicted, G true segments, C channels, *S spatial.

    missing label   a certain prediction where the truth has nothing like it
    nothing there   a true object that no prediction comes near, though others in its image, smaller ones among them, are found
    wrong class     a certain prediction that fits a true object of another class closely
    wrong region    in maps of stuff: a large patch of one class predicted as another, far from borders, in an image that is
                    right elsewhere

Each has a strength from 0 to 1, to rank them. They are suspicions: most of them are errors of the model, and the better the
model, the more of them are errors of the labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from segwright.core import VOID, Segmentation
from segwright.evaluation.borders import NEAR
from segwright.evaluation.tide_errors import CLASS, FALSE, MATCHED, MISSED, TOUCHED, MatchOutcomes
from segwright.metrics.connected_components import FACE_NEIGHBOURS, connected_components
from segwright.reports.html.cutout import cutout

KINDS = ("missing label", "nothing there", "wrong class", "wrong region")
MAX_SHOWN = 20
PER_IMAGE = 4  # of all kinds, the strongest: one odd image does not fill the list
CLOSE = 0.75  # IoU at which two outlines mean the same object
MIN_NEIGHBOURS = 2  # other objects found in the image, at least, and most of all the others
MIN_AREA = 32  # pixels of a patch or object: smaller ones say nothing
MIN_SIDE = 2 * NEAR  # pixels: a narrower patch is a shifted border, at the edge of the image far from any other
MIN_RIGHT = 0.8  # share of right pixels outside the patch
WEAKEST = 0.1  # strength below which nothing is shown
LARGE_PATCH = 0.01  # of the image; from there on, a patch is not stronger for being larger

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True, order=True)
class LabelError:
    """One doubtful label: where it is, why it is doubted, and a picture of it.

    `doubt` is 1 minus the strength, so that the strongest come first when sorted. `box` holds first and end index per axis of
    the image. `score` is the prediction's own certainty where it decides, else 1. `picture` is a JPEG, or empty.
    """

    doubt: float
    key: str
    kind: str
    box: Box
    reason: str
    score: float
    picture: bytes = b""


@dataclass(frozen=True)
class _Found:
    """A suspect before it has a picture."""

    strength: float
    kind: str
    box: Box
    reason: str
    score: float = 1.0


def strongest(suspects: Iterable[LabelError]) -> tuple[LabelError, ...]:
    """Of each kind the MAX_SHOWN strongest, in one order whatever the order of coming."""
    ranked = sorted(set(suspects))
    return tuple(one for kind in KINDS for one in [each for each in ranked if each.kind == kind][:MAX_SHOWN])


def shortlist(suspects: Sequence[LabelError], certain: float) -> list[LabelError]:
    """At most MAX_SHOWN to look at, those of different kinds in turn; of predictions, only those with a score of `certain`."""
    queues = [sorted(each for each in suspects if each.kind == kind and each.score >= certain) for kind in KINDS]
    turns = [(turn, one) for queue in queues for turn, one in enumerate(queue)]
    return [one for _, one in sorted(turns, key=lambda item: (item[0], item[1]))][:MAX_SHOWN]


def label_errors(
    key: str,
    prediction: Segmentation,
    truth: Segmentation,
    fates: MatchOutcomes,
    maps: tuple[np.ndarray, np.ndarray, np.ndarray],
    image: np.ndarray | None = None,
) -> tuple[LabelError, ...]:
    """The strongest suspects of an image, at most PER_IMAGE.

    `maps` are the labels of prediction and truth and the distance of each pixel from a border, (*S) each, as borders.py makes
    them. With the image (C, *S), each suspect gets a picture.
    """
    found = [
        *_missing_labels(prediction, truth, fates),
        *_nothing_there(truth, fates),
        *_wrong_classes(prediction, truth, fates),
        *_wrong_regions(prediction, truth, maps),
    ]
    found = [one for one in found if one.strength >= WEAKEST]
    found = sorted(found, key=lambda one: (-one.strength, one.kind, one.box))[:PER_IMAGE]
    return tuple(
        LabelError(
            1 - one.strength, key, one.kind, one.box, one.reason, one.score,
            b"" if image is None else cutout(image, prediction, truth, one.box),
        )
        for one in found
    )  # fmt: skip


def _missing_labels(prediction: Segmentation, truth: Segmentation, fates: MatchOutcomes) -> list[_Found]:
    """Predicted objects with nothing like them in the truth; weaker are parts of a true object, and small ones among large."""
    areas = fates.predicted_areas
    left = np.flatnonzero((fates.predicted == FALSE) & (areas >= MIN_AREA))
    size = np.minimum(areas[left] / _usual_area(fates), 1)
    strengths = prediction.scores[left] * (1 - fates.explained[left]) * size
    result = []
    for one, strength in _top(left, strengths):
        score, name = float(prediction.scores[one]), prediction.classes.names[prediction.class_ids[one]]
        result.append(_Found(strength, KINDS[0], segment_box(prediction, one), f"predicted {name}, score {score:.2f}", score))
    return result


def _nothing_there(truth: Segmentation, fates: MatchOutcomes) -> list[_Found]:
    """True objects that nothing comes near while most others of the image are found, and one no larger among them."""
    objects, found = fates.true >= MATCHED, fates.true == MATCHED
    areas, others = fates.true_areas, int(objects.sum()) - 1
    if found.sum() < MIN_NEIGHBOURS or 2 * found.sum() < others:
        return []
    smallest = max(MIN_AREA, areas[found].min())
    left = np.flatnonzero((fates.true == MISSED) & (fates.touched < TOUCHED) & (areas >= smallest))
    strengths = found.sum() / others * (1 - fates.touched[left]) * np.minimum(areas[left] / _usual_area(fates), 1)
    result = []
    for one, strength in _top(left, strengths):
        name = truth.classes.names[truth.class_ids[one]]
        reason = f"{name} that no prediction comes near; {found.sum()} of {others} other objects here are found"
        result.append(_Found(strength, KINDS[1], segment_box(truth, one), reason))
    return result


def _wrong_classes(prediction: Segmentation, truth: Segmentation, fates: MatchOutcomes) -> list[_Found]:
    """Predicted objects that fit a true one of another class closely."""
    left = np.flatnonzero((fates.predicted == CLASS) & (fates.best >= CLOSE) & (fates.predicted_areas >= MIN_AREA))
    result = []
    for one, strength in _top(left, prediction.scores[left] * fates.best[left]):
        score, true = float(prediction.scores[one]), fates.partner[one]
        here, there = prediction.classes.names[prediction.class_ids[one]], truth.classes.names[truth.class_ids[true]]
        reason = f"labelled {there}, predicted {here}, score {score:.2f}; the outlines agree, IoU {fates.best[one]:.2f}"
        result.append(_Found(strength, KINDS[2], segment_box(truth, true), reason, score))
    return result


def _wrong_regions(
    prediction: Segmentation, truth: Segmentation, maps: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> list[_Found]:
    """Connected patches of one true and one predicted class, neither of objects, most of it farther than NEAR from a border."""
    guess, actual, distance = maps
    names = (*truth.classes.names, "nothing")
    is_known = actual != VOID
    wrong = (guess != actual) & is_known
    errors, known = int(wrong.sum()), int(is_known.sum())
    for each, labels in ((prediction, guess), (truth, actual)):  # objects have suspects of their own
        for k in np.unique(each.class_ids[each.instance_ids > 0]):
            wrong &= labels != k
    code = np.where(wrong, 1 + actual * len(names) + guess, 0)
    patches, count = connected_components(code, FACE_NEIGHBOURS[code.ndim])
    places = np.flatnonzero(wrong)
    patch = patches.ravel()[places]
    areas = np.bincount(patch, minlength=count + 1)
    inner = np.bincount(patch, distance.ravel()[places] > NEAR, count + 1) / np.maximum(areas, 1)
    right = 1 - (errors - areas) / np.maximum(known - areas, 1)
    large = np.flatnonzero((areas >= MIN_AREA) & (inner >= 0.5) & (right >= MIN_RIGHT))  # 0.5: most of it
    boxes = find_objects(patches) if len(large) else []
    result = []
    for one in large:
        box = tuple((part.start, part.stop) for part in boxes[one - 1])
        if min(high - low for low, high in box[-2:]) < MIN_SIDE:
            continue
        inside = tuple(slice(*ends) for ends in box)
        place = tuple(np.argwhere(patches[inside] == one)[0] + [ends[0] for ends in box])
        strength = float(right[one] * inner[one] * min(1.0, areas[one] / (LARGE_PATCH * known)))
        reason = (
            f"{areas[one]} pixels labelled {names[actual[place]]}, predicted {names[guess[place]]}; "
            f"{100 * right[one]:.0f} % of the other pixels are right"
        )
        result.append(_Found(strength, KINDS[3], box, reason))
    return result


def _top(indices: np.ndarray, strengths: np.ndarray) -> list[tuple[int, float]]:
    """The PER_IMAGE indices (M,) of the highest strengths (M,) with these, the strongest first."""
    order = np.argsort(-strengths, kind="stable")[:PER_IMAGE]
    return [(int(indices[place]), float(strengths[place])) for place in order]


def _usual_area(fates: MatchOutcomes) -> float:
    """Median area of the true objects of an image, 1 without any."""
    areas = fates.true_areas[fates.true >= MATCHED]
    return max(1.0, float(np.median(areas))) if len(areas) else 1.0


def segment_box(segmentation: Segmentation, index: int) -> Box:
    """First and end index of a segment per axis; all of the image for an empty one."""
    mask = segmentation.mask(int(index))
    if not mask.any():
        return tuple((0, side) for side in mask.shape)
    ends = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        ends.append((int(filled[0]), int(filled[-1]) + 1))
    return tuple(ends)

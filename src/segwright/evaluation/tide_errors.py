"""Why objects are not found, and what each reason costs. Axes: N predicted, G true segments, M pairs, K classes.

At IoU 0.5, predictions are matched to true objects of their class as in COCO: in falling order of score, each takes the
free true object that it overlaps most. A prediction that is left over has the first cause that holds:

    merged          covers at least half of each of two or more true objects of its class
    split           a piece: at least half of it lies in one true object of its class, as does at least half of another
                    prediction; pieces do not share half of the smaller one, and together they cover half of the object
    mask quality    IoU of 0.1 to 0.5 with a true object of its class, and of no more with any other of its class
    class           IoU of at least 0.5 with a true object of another class
    duplicate       IoU of at least 0.5 with a true object of its class, which another prediction has taken
    class and mask  IoU of at least 0.1 with a true object of another class
    false           none of these: nothing like it is in the truth

A true object that is left over has the cause of the surest prediction that would find it if that cause were mended: of class,
mask quality, split or merged (also by a prediction that is matched to a neighbour). If there is none, it is missed.

What a cause costs is the AP gained by mending it alone: duplicate, false, and class and mask are taken away; class, mask
quality, merged and split find the true objects they are about, unless these are found already; missed objects are not asked
for. As causes hide each other, the gains need not add up to what is lacking from 1.

Source: Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115, to which merged
and split are added.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from segwright.core import Segmentation
from segwright.metrics.accumulators import mean
from segwright.metrics.overlaps import Overlaps, overlaps
from segwright.metrics.precision_recall import average_precision_of

MATCHED, CLASS, MERGED, SPLIT, MASK, BOTH, DUPLICATE, FALSE, MISSED = range(9)
OUTCOMES = ("matched", "class", "merged", "split", "mask quality", "class and mask", "duplicate", "false", "missed")
NO_OBJECT = -1  # fate of stuff, of crowds, and of what lies in a crowd or in void
FOUND = 0.5  # IoU of a match
TOUCHED = 0.1  # IoU below which two have nothing to do with each other, as TIDE has it
HALF = 0.5  # share of an object that is most of it


COLUMNS = ("class_ids", "scores", "causes", "fixed_class_ids", "fixed_scores", "fixed_causes")  # of the table of objects


@dataclass(frozen=True, eq=False)
class MatchOutcomes:
    """What became of the segments of one image.

    `predicted` int8 (N,) and `true` int8 (G,) index FATES, NO_OBJECT (-1) for what is no object. `fixes` holds for each true
    object left over that is not missed (cause, true segment, predicted segment that would find it), int64 (F, 3). `best`
    float64 (N,) is the highest IoU of a predicted object with a true one of any class, `partner` int64 (N,) that true segment,
    -1 for none; `explained` float64 (N,) is the share of a predicted object in void and in the true object that holds most of
    it; `touched` float64 (G,) is the largest share of a true object that one predicted object covers. The areas int64 (N,) and
    (G,) are in pixels.
    """

    predicted: np.ndarray
    true: np.ndarray
    fixes: np.ndarray
    best: np.ndarray
    partner: np.ndarray
    explained: np.ndarray
    touched: np.ndarray
    predicted_areas: np.ndarray
    true_areas: np.ndarray


@dataclass(frozen=True, eq=False)
class ObjectOutcomes:
    """The fates of the objects of some images, as much of them as AP needs.

    `class_ids` int32 (N,), `scores` float32 (N,) and `causes` int8 (N,) are those of the predicted objects, `fixed_*` those of
    the true objects that mending a cause would find, with the score of the prediction. `true` int64 (K, 9) counts the true
    objects of each class by fate.
    """

    class_ids: np.ndarray
    scores: np.ndarray
    causes: np.ndarray
    fixed_class_ids: np.ndarray
    fixed_scores: np.ndarray
    fixed_causes: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, fates: MatchOutcomes, prediction: Segmentation, truth: Segmentation) -> Self:
        """The objects of one image."""
        shown, actual = fates.predicted != NO_OBJECT, fates.true != NO_OBJECT
        counts = np.zeros((len(truth.classes), len(OUTCOMES)), np.int64)
        np.add.at(counts, (truth.class_ids[actual], fates.true[actual]), 1)
        cause, true, predicted = fates.fixes.T
        return cls(
            prediction.class_ids[shown], prediction.scores[shown], fates.predicted[shown],
            truth.class_ids[true], prediction.scores[predicted], cause.astype(np.int8), counts,
        )  # fmt: skip

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """Those of all parts, one or more."""
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS},
            true=np.sum([part.true for part in parts], axis=0),
        )

    def __add__(self, other: Self) -> Self:
        return type(self).total([self, other])

    def predicted(self) -> np.ndarray:
        """Number of predicted objects by fate, int64 (9,)."""
        return np.bincount(self.causes, minlength=len(OUTCOMES))

    def ap(self, mended: Iterable[int] = ()) -> np.ndarray:
        """AP at IoU 0.5 of each class, float64 (K,), with some causes mended; NaN for a class that the truth has not."""
        mended = sorted(mended)
        kept, added = ~np.isin(self.causes, mended), np.isin(self.fixed_causes, mended)
        class_ids = np.concatenate([self.class_ids[kept], self.fixed_class_ids[added]])
        scores = np.concatenate([self.scores[kept], self.fixed_scores[added]])
        right = np.concatenate([self.causes[kept] == MATCHED, np.ones(int(added.sum()), bool)])
        asked = self.true.sum(axis=1) - self.true[:, [cause for cause in mended if cause == MISSED]].sum(axis=1)
        result = np.full(len(asked), np.nan)
        for k in np.flatnonzero(self.true.any(axis=1)):
            own = class_ids == k
            if asked[k]:
                result[k] = average_precision_of(scores[own], right[own], int(asked[k]))
            else:  # all were missed, and mended
                result[k] = 0.0 if own.any() else 1.0
        return result

    def mean_ap(self, mended: Iterable[int] = ()) -> float:
        """Mean AP at IoU 0.5 over the classes of the truth, NaN without any."""
        return float(mean(self.ap(mended)))

    def costs(self) -> dict[str, float]:
        """AP gained by mending each cause alone, the dearest first."""
        whole = self.mean_ap()
        gains = {OUTCOMES[cause]: self.mean_ap([cause]) - whole for cause in range(1, len(OUTCOMES))}
        return dict(sorted(gains.items(), key=lambda item: -item[1]))


def match_outcomes(prediction: Segmentation, truth: Segmentation, pairs: Overlaps | None = None) -> MatchOutcomes:
    """What became of each segment of an image, as the head of this file defines it. `pairs` are their overlaps, if known.

    Raises:
        ShapeError: the two differ in size.
    """
    pairs = overlaps(prediction, truth) if pairs is None else pairs
    is_guess, is_true = prediction.instance_ids > 0, truth.instance_ids > 0
    areas = pairs.predicted_areas - pairs.predicted_void
    both = is_guess[pairs.predicted] & is_true[pairs.true]
    p, t, pixels = pairs.predicted[both], pairs.true[both], pairs.pixels[both]
    iou = pixels / np.maximum(areas[p] + pairs.true_areas[t] - pixels, 1)
    same = prediction.class_ids[p] == truth.class_ids[t]

    match = _matches(p[same], t[same], iou[same], prediction.scores, len(truth))
    guess = np.where(is_guess, FALSE, NO_OBJECT).astype(np.int8)
    pieces = _split_pieces(prediction, p[same], t[same], pixels[same], areas, pairs.true_areas)
    covers = pixels[same] >= HALF * pairs.true_areas[t[same]]
    merges = np.bincount(p[same][covers], minlength=len(prediction)) > 1
    other, own = _highest(p[~same], iou[~same], len(prediction)), _highest(p[same], iou[same], len(prediction))
    for cause, holds in (  # the last that holds stays
        (BOTH, other >= TOUCHED), (DUPLICATE, own >= FOUND), (CLASS, other >= FOUND),
        (MASK, (own >= TOUCHED) & (own < FOUND)), (SPLIT, pieces >= 0), (MERGED, merges), (MATCHED, match >= 0),
    ):  # fmt: skip
        guess[holds & is_guess] = cause
    guess[(guess != MATCHED) & _is_ignored(pairs, prediction, truth)] = NO_OBJECT

    is_found = np.zeros(len(truth), bool)
    is_found[match[match >= 0]] = True
    fixes = _fixes_of(guess, merges, pieces, (p, t, iou, same), covers, is_found)
    fixes = _surest_of(fixes, prediction.scores)
    actual = np.where(is_true, MISSED, NO_OBJECT).astype(np.int8)
    actual[fixes[:, 1]] = fixes[:, 0]
    actual[is_found] = MATCHED
    partner = np.full(len(prediction), -1)
    rising = np.argsort(iou, kind="stable")
    partner[p[rising]] = t[rising]
    sizes = np.maximum(pairs.predicted_areas, 1)
    return MatchOutcomes(
        predicted=guess,
        true=actual,
        fixes=fixes,
        best=np.maximum(own, other),
        partner=partner,
        explained=pairs.predicted_void / sizes + _highest(p, pixels / sizes[p], len(prediction)),
        touched=_highest(t, pixels / pairs.true_areas[t], len(truth)),
        predicted_areas=pairs.predicted_areas,
        true_areas=pairs.true_areas,
    )


def _highest(index: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """The highest of the values (M,) of each index (M,), float64 (count,); 0 where there is none."""
    result = np.zeros(count)
    np.maximum.at(result, index, values)
    return result


def _matches(p: np.ndarray, t: np.ndarray, iou: np.ndarray, scores: np.ndarray, num_true: int) -> np.ndarray:
    """The true segment that each predicted one is matched to, int64 (N,), -1 for none, from pairs (M,) of one class each."""
    result, is_taken = np.full(len(scores), -1), np.zeros(num_true, bool)
    near = np.flatnonzero(iou >= FOUND)
    order = np.lexsort((-t[near], -iou[near], p[near], -scores[p[near]]))  # best score first, then its best overlap
    for pair in near[order]:
        if result[p[pair]] < 0 and not is_taken[t[pair]]:
            result[p[pair]] = t[pair]
            is_taken[t[pair]] = True
    return result


def _split_pieces(
    prediction: Segmentation, p: np.ndarray, t: np.ndarray, pixels: np.ndarray, areas: np.ndarray, true_areas: np.ndarray
) -> np.ndarray:
    """The true segment that each predicted one is a piece of, int64 (N,), -1 for none, from pairs (M,) of one class each."""
    result = np.full(len(prediction), -1)
    inside = (pixels >= HALF * areas[p]) & (areas[p] > 0)
    p, t, pixels = p[inside], t[inside], pixels[inside]
    crowded = np.flatnonzero(np.bincount(t, minlength=1) > 1)
    if not len(crowded):
        return result
    shared = _shared_pixels(prediction)
    for true in crowded:
        mine = np.flatnonzero(t == true)
        kept: list[int] = []
        for pair in mine[np.argsort(-pixels[mine], kind="stable")]:  # the largest piece first
            one = p[pair]
            if all(shared.get((min(one, p[k]), max(one, p[k])), 0) < HALF * min(areas[one], areas[p[k]]) for k in kept):
                kept.append(pair)
        if len(kept) > 1 and pixels[kept].sum() >= HALF * true_areas[true]:
            result[p[kept]] = true
    return result


def _shared_pixels(prediction: Segmentation) -> dict[tuple[int, int], int]:
    """Pixels that two segments of one prediction share, by their numbers, the lower first; none in a single plane."""
    if len(prediction.planes) == 1:
        return {}
    own = overlaps(prediction, prediction)
    return {(int(a), int(b)): int(n) for a, b, n in zip(own.predicted, own.true, own.pixels, strict=True) if a < b}


def _is_ignored(pairs: Overlaps, prediction: Segmentation, truth: Segmentation) -> np.ndarray:
    """Predicted segments wholly in void, or with half of their known pixels in a crowd of their class, bool (N,)."""
    crowd = (truth.instance_ids == 0) & np.array(truth.classes.is_thing, bool)[truth.class_ids]
    known = pairs.predicted_areas - pairs.predicted_void
    inside = crowd[pairs.true] & (prediction.class_ids[pairs.predicted] == truth.class_ids[pairs.true])
    shares = pairs.pixels[inside] / np.maximum(known[pairs.predicted[inside]], 1)
    in_crowd = _highest(pairs.predicted[inside], shares, len(prediction)) >= FOUND
    return in_crowd | ((known == 0) & (pairs.predicted_void > 0))


def _fixes_of(
    guess: np.ndarray, merges: np.ndarray, pieces: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], covers: np.ndarray, is_found: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """(cause, true segment, predicted segment) of all that mending a cause would find and is not found yet, int64 (F, 3)."""
    p, t, iou, same = pairs
    rows = []
    for cause, wanted in ((CLASS, ~same), (MASK, same)):
        rising = np.flatnonzero(wanted & (guess[p] == cause))
        rising = rising[np.lexsort((-t[rising], iou[rising]))]
        nearest = dict(
            zip(p[rising].tolist(), t[rising].tolist(), strict=True)
        )  # the last stays: the best, of equals the first
        rows += [(cause, true, one) for one, true in nearest.items()]
    rows += [(SPLIT, int(pieces[one]), int(one)) for one in np.flatnonzero(guess == SPLIT)]
    swallowed = np.flatnonzero(covers & merges[p[same]] & np.isin(guess[p[same]], (MERGED, MATCHED)))
    rows += [(MERGED, int(t[same][pair]), int(p[same][pair])) for pair in swallowed]
    table = np.array(rows, np.int64).reshape(-1, 3)
    return table[~is_found[table[:, 1]]]


def _surest_of(fixes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of fixes (F, 3) for one true object, only that of the prediction with the highest score."""
    order = np.lexsort((fixes[:, 0], -scores[fixes[:, 2]], fixes[:, 1]))
    _, first = np.unique(fixes[order, 1], return_index=True)
    return fixes[order[first]]

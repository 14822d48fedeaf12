"""Examples as rows of pictures: image, truth, prediction, where they disagree, and what became of objects.

Axes: C channels, P planes, N predicted, G true segments, *S spatial axes, H, W.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.classes import BACKGROUND, plain
from segwright.core.segment_overlay import overlay_segments
from segwright.core.visualise import as_rgb, overlay
from segwright.evaluation.borders import labels_of_both
from segwright.evaluation.scores import Scores, score_text
from segwright.evaluation.tide_errors import NO_OBJECT, MatchOutcomes, match_outcomes
from segwright.reports.atlas_page import FATE_COLORS, fate_chips
from segwright.reports.gallery import Example, goodness, rank
from segwright.reports.html.page import legend, swatch
from segwright.reports.html.pictures import NOT_SCORED, WRONG, disagreement, drawable, figure, lightened
from segwright.reports.object_pictures import fate_picture

STRENGTH = 0.6  # of class colours over the image: classes are told apart, and what they cover is still seen
MAX_LEGEND = 40  # names in a legend; of more classes, only those in the pictures are named
MOST_SCORES = 3  # beside the name of an image
TRUTH, PREDICTION = "Truth", "Prediction"


def image_rows(scores: Scores, examples: Sequence[Example], *, with_objects: bool) -> str:
    """The examples, hardest first, each with its scores and its rank among all images; empty without any.

    `with_objects` adds true and predicted objects in the colours of what became of them.
    """
    if not examples:
        return ""
    classes = examples[0][1].classes  # those of the scores may have a background before them
    values = np.array([goodness(own) for own in scores.per_image.values()])
    named: set[int] = set()
    has_maps = False
    became: set[int] = set()
    rows = []
    for sample, prediction, own in sorted(examples, key=lambda example: np.nan_to_num(rank(example), nan=np.inf)):
        view = RowView.of(sample, prediction, with_objects=with_objects)
        named |= set(np.unique(view.truth).tolist()) | set(np.unique(view.guess).tolist())
        became |= view.shown_fates()
        has_maps |= view.has_maps
        figures = view.figures(classes)
        note = ", ".join(f"{name} {score_text(name, value)}" for name, value in list(own.items())[:MOST_SCORES])
        place = f"rank {1 + int((values > goodness(own)).sum())} of {len(values)}"
        rows.append(
            f'<article class="example"><h3>{escape(sample.key)}<span>{escape(note)}</span><span>{place}</span></h3>'
            f'<div class="row{" three" if len(figures) > 4 else ""}">{"".join(figures)}</div></article>'
        )
    chips = range(len(classes)) if len(classes) <= MAX_LEGEND else sorted(named - {VOID})
    if not has_maps:
        chips = []
    extra = f"<span>{swatch(WRONG)}wrong</span><span>{swatch(NOT_SCORED)}void, not scored</span>"
    objects = f'<div class="chips">{fate_chips(became)}</div>' if became else ""
    return legend(classes, chips, extra) + objects + "".join(rows)


@dataclass(frozen=True, eq=False)
class RowView:
    """What is drawn of one example, in 2D: of a volume the slice with the most wrong pixels, of large images every n-th pixel.

    `truth` and `guess` (H, W) are class maps, `actual` and `answer` (H, W) the labels that are compared, with background;
    the segments are on the same pixels, and `fates` are those of the objects, None where none are shown. `has_stuff` says
    whether there are classes without objects other than background.
    """

    image: np.ndarray
    truth: np.ndarray
    guess: np.ndarray
    actual: np.ndarray
    answer: np.ndarray
    predicted_segments: Segmentation
    true_segments: Segmentation
    fates: MatchOutcomes | None
    has_stuff: bool
    place: str

    @classmethod
    def of(cls, sample: Sample, prediction: Segmentation, *, with_objects: bool) -> "RowView":
        """What is drawn of a sample and its prediction; without a truth, all of it is void."""
        shape = sample.grid.shape
        truth = sample.truth or Segmentation.semantic(np.full(shape, VOID), prediction.classes)
        answer, actual = labels_of_both(prediction, truth)
        image, place = sample.image, ""
        maps = [truth.class_map(), prediction.class_map(), actual, answer, *prediction.planes, *truth.planes]
        if len(shape) == 3:
            depth = int(((actual != answer) & (actual != VOID)).sum(axis=(1, 2)).argmax())
            image, maps, place = image[:, depth], [each[depth] for each in maps], f", slice {depth} of {shape[0]}"
        image, *maps = drawable(image, *maps)
        planes = np.stack(maps[4:])
        return cls(
            image=image,
            truth=maps[0],
            guess=maps[1],
            actual=maps[2],
            answer=maps[3],
            predicted_segments=replace(prediction, planes=planes[: len(prediction.planes)]),
            true_segments=replace(truth, planes=planes[len(prediction.planes) :]),
            fates=match_outcomes(prediction, truth) if with_objects else None,
            has_stuff=has_stuff(prediction) or has_stuff(truth),
            place=place,
        )

    @property
    def has_maps(self) -> bool:
        """Whether class maps are drawn. Where there is nothing but objects, these say more."""
        return self.fates is None or self.has_stuff

    def figures(self, classes: Classes) -> list[str]:
        """The pictures as HTML."""
        plain_image = as_rgb(self.image)
        light = lightened(plain_image)
        drawn = [figure(light, f"Image{self.place}{', lightened' if light is not plain_image else ''}")]
        if self.has_maps:
            drawn += [figure(self._map(classes, which), which) for which in (TRUTH, PREDICTION)]
        if self.fates is not None:
            true, predicted = self.true_segments.planes, self.predicted_segments.planes
            drawn += [
                figure(fate_picture(self.image, true, self.fates.true, FATE_COLORS), "True objects"),
                figure(fate_picture(self.image, predicted, self.fates.predicted, FATE_COLORS), "Predicted objects"),
            ]
        return [*drawn, figure(disagreement(self.image, self.actual, self.answer), "Disagreement")]

    def _map(self, classes: Classes, which: str) -> np.ndarray:
        """RGB picture uint8 (H, W, 3) of the classes of the truth or the prediction; where there are objects, of segments."""
        if self.fates is None:
            return overlay(self.image, self.truth if which == TRUTH else self.guess, classes.palette, STRENGTH)
        segments = self.true_segments if which == TRUTH else self.predicted_segments
        return overlay_segments(self.image, replace(segments, classes=classes), STRENGTH)

    def shown_fates(self) -> set[int]:
        """The fates of the objects of the whole image."""
        if self.fates is None:
            return set()
        return set(np.concatenate([self.fates.predicted, self.fates.true]).tolist()) - {NO_OBJECT}


def has_stuff(segmentation: Segmentation) -> bool:
    """Whether there are segments of no object other than background."""
    names = {segmentation.classes.names[k] for k in segmentation.class_ids[segmentation.instance_ids == 0]}
    return not {plain(name) for name in names} <= {BACKGROUND}

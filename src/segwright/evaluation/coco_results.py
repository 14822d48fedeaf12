"""Average precision of results in COCO's form against a truth in COCO's or LVIS's form, equal to pycocotools and lvis-api.

    truth     {"images": [...], "annotations": [...], "categories": [...]}, a JSON file or the same as objects
    results   [{"image_id", "category_id", "score", "segmentation" or "bbox"}, ...], a JSON file or the same as objects

Segmentations are run lengths, compressed or not, or polygons. As there, images come in the order of their ids; the area of a
true object is its `area`; and the area of a result that of its `bbox` where the first result has one, even if masks are
compared, else that of its mask.

Where pycocotools goes wrong or stops, this differs: an annotation with id 0 is an object as any other (there, who finds it is
wrong); a result of an unknown category, or of boxes alone where masks are compared, is an error (there, it is left out, or its
box is taken for its mask); a missing `area` is that of the mask or box, a missing `iscrowd` 0; without any result scores are 0.

LVIS says of each image which classes are surely absent, and of which not all objects are drawn. Results of a class neither seen
nor surely absent are left out, and those of a class not wholly drawn are not wrong when they match nothing. In an image the 300
results with the highest scores count, of all classes together.

Axes: D results and G annotations of one image, E results of all images.

Source: Gupta et al. 2019, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", arXiv 1908.03195.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core import Classes
from segwright.core.errors import FormatError
from segwright.evaluation.coco_entries import (
    Content,
    Entries,
    Images,
    boxes_of,
    classes_of,
    column,
    content_of,
    grouped,
    images_of,
    numbers,
    runs_of,
)
from segwright.metrics.average_precision import IOU_THRESHOLDS, MAX_DETECTIONS, AveragePrecision
from segwright.metrics.box_average_precision import BoxAveragePrecision
from segwright.metrics.lvis import FREQUENCIES, LIMIT, FederatedAveragePrecision
from segwright.metrics.matching import Matches, Objects

THREADS = 2  # half of a turn with masks is Python's work, which goes in one thread at a time
TOGETHER = 8192  # results and annotations: their runs take some MB, and each turn some hundred microseconds of its own
Truth = Path | str | Mapping[str, Any] | Content
Results = Path | str | Sequence[Mapping[str, Any]] | Content


@dataclass(frozen=True, eq=False)
class CocoResults:
    """A metric, and of each image its key and state, in the order that decides between equal scores."""

    classes: Classes
    keys: tuple[str, ...]
    metric: Any
    states: tuple[Matches, ...]

    def scores(self) -> dict[str, float]:
        """The scores of all images together by name."""
        whole = Matches(tuple(image for state in self.states for image in state.images))
        return {name: float(value) for name, value in self.metric.score(whole).items()}


def coco_results(
    truth: Truth,
    results: Results,
    *,
    is_box: bool = False,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> CocoResults:
    """The matches of each image of a truth, by masks or by boxes, under COCO's rules.

    Raises:
        FormatError: a file is not as this module says, or a result is of an image or category that the truth does not have.
        UsageError: a score is NaN or no number.
        SettingError: the thresholds or the limits cannot be used.
    """
    data = _Data.of(truth, results, is_box=is_box)
    kind: Any = BoxAveragePrecision if is_box else AveragePrecision
    metric = kind(data.classes, iou_thresholds=tuple(iou_thresholds), max_detections=tuple(max_detections))
    is_crowd = np.array([bool(each.get("iscrowd")) for each in data.annotations.entries], bool)

    def turn(ends: tuple[int, int]) -> Matches:
        rows, starts = data.detections.of_images(*ends)
        columns, true_starts = data.annotations.of_images(*ends)
        return data.count(metric, _Chosen(range(*ends), rows, starts, columns, true_starts, is_crowd=is_crowd[columns]))

    with ThreadPoolExecutor(1 if is_box else THREADS) as pool:  # kernels hold no lock
        found = [*pool.map(turn, pairwise(data.ends_of_turns()))]
    states = tuple(Matches((image,)) for matches in found for image in matches.images)
    return CocoResults(data.classes, data.images.keys, metric, states)


def lvis_results(truth: Truth, results: Results, *, is_box: bool = False) -> CocoResults:
    """The matches of each image of a truth, by masks or by boxes, under LVIS's rules.

    Raises:
        FormatError: as for `coco_results`, or the truth does not say what LVIS's does.
        UsageError: a score is NaN or no number.
    """
    data = _Data.of(truth, results, is_box=is_box)
    place = data.annotations.place.removesuffix("annotations")
    frequencies = tuple(column(data.categories, "frequency", f"{place}categories"))
    unknown = set(frequencies) - set(FREQUENCIES)
    if unknown:
        raise FormatError(f"{place}categories: the frequency {min(unknown)!r} is none of {', '.join(FREQUENCIES)}; correct it")
    class_of = {category["id"]: index for index, category in enumerate(data.categories)}
    absent, partly = (
        [[class_of.get(number, -1) for number in given] for given in column(data.images.entries, name, f"{place}images")]
        for name in ("neg_category_ids", "not_exhaustive_category_ids")
    )
    matcher: Any = (BoxAveragePrecision if is_box else AveragePrecision)(data.classes, max_detections=(LIMIT,))
    states = []
    for index, position in enumerate(data.images.positions):
        columns = data.annotations.of_image(index)
        columns = columns[~(data.true_areas[columns] <= 0)]
        is_ignored = np.array([bool(data.annotations.entries[c].get("ignore")) for c in columns], bool)
        rows = data.detections.of_image(index)
        rows = rows[np.argsort(-data.scores[rows], kind="stable")[:LIMIT]]
        class_ids = data.detections.class_ids[rows]
        is_known = np.isin(class_ids, [*data.annotations.class_ids[columns], *absent[position]])
        rows, is_excused = rows[is_known], np.isin(class_ids[is_known], partly[position])
        ends, true_ends = np.array([0, len(rows)]), np.array([0, len(columns)])
        chosen = _Chosen(range(index, index + 1), rows, ends, columns, true_ends, is_ignored=is_ignored, is_excused=is_excused)
        states.append(data.count(matcher, chosen))
    metric = FederatedAveragePrecision(data.classes, frequencies=frequencies)
    return CocoResults(data.classes, data.images.keys, metric, tuple(states))


@dataclass(frozen=True, eq=False)
class _Data:
    """Annotations and results with their numbers. `areas` float64 (E,) are those of the boxes of the results where these have
    boxes, None elsewhere; `true_areas` are NaN where there is none. Boxes float64 (E, 4) are None where masks are compared."""

    images: Images
    classes: Classes
    categories: list[Mapping[str, Any]]
    annotations: Entries
    detections: Entries
    scores: np.ndarray
    areas: np.ndarray | None
    true_areas: np.ndarray
    boxes: np.ndarray | None
    true_boxes: np.ndarray | None

    @classmethod
    def of(cls, truth: Truth, results: Results, *, is_box: bool) -> "_Data":
        table, place = content_of(truth, "truth")
        images = images_of(table, place)
        classes, categories = classes_of(table, place)
        annotations = grouped(table.get("annotations"), images, categories, f"{place}: annotations", is_truth=True)
        found, found_place = content_of(results, "results")
        detections = grouped(found, images, categories, found_place, is_truth=False)
        given, found = annotations.entries, detections.entries
        scores = numbers(column(found, "score", detections.place), "score", detections.place)
        boxes = boxes_of(found, detections.place) if len(found) and found[0].get("bbox") else None
        true_areas = numbers([-1 if (area := each.get("area")) is None else area for each in given], "area", annotations.place)
        true_boxes = boxes_of(given, annotations.place) if is_box else None
        return cls(
            images,
            classes,
            categories,
            annotations,
            detections,
            scores,
            None if boxes is None else boxes[:, 2] * boxes[:, 3],
            np.where(true_areas < 0, np.nan, true_areas),
            boxes if is_box else None,
            true_boxes,
        )

    def ends_of_turns(self) -> list[int]:
        """The first image of each turn, and the end: images counted together, so that what each turn costs is shared by many
        entries. Boxes are paired image by image."""
        if self.true_boxes is not None:
            return [*range(len(self.images.ids) + 1)]
        before = self.detections.starts + self.annotations.starts
        turns = np.searchsorted(before, np.arange(0, before[-1], TOGETHER))
        return np.unique([0, *turns, len(self.images.ids)]).tolist()

    def count(self, metric: Any, chosen: "_Chosen") -> Matches:
        """The matches of each of the chosen images."""
        shapes = [self.images.shapes[index] for index in chosen.images]
        if self.true_boxes is None:
            runs = runs_of(self.detections, chosen.rows, chosen.starts, shapes)
            true_runs = runs_of(self.annotations, chosen.columns, chosen.true_starts, shapes)
            detections, truth = self._objects(chosen, runs.areas, true_runs.areas)
            return metric.count_runs(runs, detections, true_runs, truth)
        if self.boxes is None:
            runs = runs_of(self.detections, chosen.rows, chosen.starts, shapes)
            boxes, areas = runs.boxes_xywh(shapes[0][0]), runs.areas
        else:
            boxes = areas = self.boxes[chosen.rows]
        true_boxes = self.true_boxes[chosen.columns]
        detections, truth = self._objects(chosen, areas, true_boxes[:, 2] * true_boxes[:, 3])
        return metric.count_boxes(boxes, detections, true_boxes, truth)

    def _objects(self, chosen: "_Chosen", areas: np.ndarray, true_areas: np.ndarray) -> tuple[Objects, Objects]:
        """Detections and true objects, with these areas where the files do not say them."""
        rows, columns = chosen.rows, chosen.columns
        areas = areas if self.areas is None else self.areas[rows]
        is_excused = chosen.is_excused
        is_excused = is_excused if is_excused is None else is_excused | (areas == 0)  # LVIS leaves these out
        given = self.true_areas[columns]
        true_areas = np.where(np.isnan(given), true_areas, given)
        if chosen.is_ignored is not None:
            true_areas = np.where(chosen.is_ignored, np.nan, true_areas)  # in no range
        class_ids, true_class_ids = self.detections.class_ids[rows], self.annotations.class_ids[columns]
        return (
            Objects(class_ids, areas, scores=self.scores[rows], is_excused=is_excused, starts=chosen.starts),
            Objects(true_class_ids, true_areas, is_crowd=chosen.is_crowd, starts=chosen.true_starts),
        )


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Images counted together: positions of their results int64 (D,) and annotations int64 (G,), one image after another, where
    each image begins, int64 (N + 1,), and what is special about them, bool each."""

    images: range
    rows: np.ndarray
    starts: np.ndarray
    columns: np.ndarray
    true_starts: np.ndarray
    is_crowd: np.ndarray | None = None
    is_ignored: np.ndarray | None = None
    is_excused: np.ndarray | None = None

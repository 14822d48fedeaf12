"""The table of docs/metrics.md that says how far our scores lie from those of others: computed anew, by what is installed.

Peers that are on PyPI are run. Of the others, tests/golden holds inputs and what they made of them. Axes: K classes, H, W.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from importlib.metadata import PackageNotFoundError, version
from operator import add
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from segwright.core import VOID, Classes, Segmentation
from segwright.metrics.boundary import Boundary
from segwright.metrics.calibration import Calibration
from segwright.metrics.confusion import Confusion
from segwright.metrics.conventions import convention_named
from segwright.metrics.davis_jf import STATISTICS, DavisJf
from segwright.metrics.panoptic_quality import PanopticQuality
from segwright.metrics.video_panoptic import VideoPanoptic

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
sys.path.insert(0, str(ROOT / "benchmarks"))

from metric_cases import average_precision, scenes, surface  # noqa: E402, they lie beside this folder

Scores = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """What was compared with whom; `compare` gives pairs of our scores and theirs. `note` says why they differ, if they do."""

    peer: str
    what: str
    compare: Callable[[], Iterable[tuple[Scores, Scores]]]
    note: str = ""


def rows() -> Iterator[str]:
    """The table."""
    yield "| peer | version | compared | scores | largest difference |"
    yield "|---|---|---|--:|--:|"
    for row in ROWS:
        which = version_of(row.peer)
        if which is None:
            continue
        gaps = [gap for ours, theirs in row.compare() for gap in differences(ours, theirs)]
        note = f" {row.note}" if row.note else ""
        yield f"| {row.peer} | {which} | {row.what} | {len(gaps):,} | {max(gaps):.0e}{note} |"


def version_of(peer: str) -> str | None:
    """The version of an installed peer, the commit of one whose numbers are kept, None of one that is missing."""
    if peer in KEPT:
        return json.loads((GOLDEN / f"metrics_{KEPT[peer]}.json").read_text())["made_by"].split()[-1][:7]
    try:
        return version(peer)
    except PackageNotFoundError:
        return None


KEPT = {
    "panopticapi": "panoptic_quality",
    "davis2017-evaluation": "davis_jf",
    "deeplab2": "segmentation_tracking",
    "boundary-iou-api": "boundary_iou",
}


def differences(ours: Scores, theirs: Scores) -> Iterator[float]:
    """How far apart the scores are that both name; infinite where one alone knows it."""
    for name in ours.keys() & theirs.keys():
        one, other = float(ours[name]), float(theirs[name])
        both = np.isnan(one) and np.isnan(other)
        yield 0.0 if both else np.inf if np.isnan(one) or np.isnan(other) else abs(one - other)


# Objects


def objects(peer: Callable, limits: tuple[int, ...], make: Callable, images: int) -> Iterable[tuple[Scores, Scores]]:
    """COCO's scores and those of each class; one image has no object, another no result, a third neither."""
    data = make(images)
    truth = data["truth"]
    truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] not in (1, 3)]
    data["results"] = [each for each in data["results"] if each["image_id"] not in (2, 3)]
    yield average_precision.ours(limits, average_precision.copied(data)), peer(limits, average_precision.copied(data))


def by_lvis() -> Iterable[tuple[Scores, Scores]]:
    """The nine scores of LVIS, whose images say which classes are surely absent and which not wholly drawn."""
    import lvis

    from segwright.evaluation.coco_results import lvis_results

    generator, data = np.random.default_rng(0), scenes.many_classes(30)
    truth = data["truth"]
    for k, category in enumerate(truth["categories"]):
        category["frequency"] = "rcf"[k % 3]
    for image in truth["images"]:
        drawn = {each["category_id"] for each in truth["annotations"] if each["image_id"] == image["id"]}
        others = [k for k in range(1, 81) if k not in drawn]
        image["neg_category_ids"] = generator.choice(others, 20, replace=False).tolist()
        image["not_exhaustive_category_ids"] = sorted(drawn)[:2]
    for each in truth["annotations"]:
        each["iscrowd"] = 0  # LVIS has none
    found = lvis_results(truth, average_precision.copied(data)["results"]).scores()
    with tempfile.TemporaryDirectory() as folder, patch.object(np, "float", float, create=True):  # older than numpy 1.24
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth))
        peer = lvis.LVIS(str(path))
        evaluation = lvis.LVISEval(peer, lvis.LVISResults(peer, data["results"]), "segm")
        evaluation.run()
    theirs = list(evaluation.get_results().values())
    yield dict(enumerate(list(found.values())[: len(theirs)])), dict(enumerate(theirs))


def by_torchmetrics() -> Iterable[tuple[Scores, Scores]]:
    """Dense masks, with COCO's recalls and thresholds given in float64."""
    data = average_precision.dense(scenes.many_classes, 20, False)
    limits = average_precision.COCO
    yield average_precision.ours_dense(limits, data), average_precision.with_torchmetrics(limits, data)


# Segments and videos, kept


def kept(name: str) -> tuple[dict, Classes, list[int]]:
    """A golden file, and its classes with their ids if it has categories."""
    golden = json.loads((GOLDEN / f"metrics_{name}.json").read_text())
    categories = golden.get("categories", [])
    is_thing = [bool(each["isthing"]) for each in categories]
    ids = [each["id"] for each in categories]
    return golden, Classes.of(list(map(str, ids)) or ["object"], is_thing=is_thing or [True]), ids


def segments(ids: Sequence, entries: Sequence[dict], classes: Classes, categories: list[int]) -> Segmentation:
    """COCO's segments: 0 is void, what is numbered alike in other frames is one object."""
    labels = np.array(ids)
    number = {each["id"]: index for index, each in enumerate(entries, start=1)}
    planes = np.vectorize(lambda label: number.get(label, VOID), otypes=[np.int64])(labels)
    class_ids = [categories.index(each["category_id"]) for each in entries]
    is_object = [classes.is_thing[k] and not each["iscrowd"] for k, each in zip(class_ids, entries, strict=True)]
    numbers = [each["id"] * alone for each, alone in zip(entries, is_object, strict=True)]
    return Segmentation.panoptic(planes, class_ids, numbers, classes=classes)


def pair_of(frame: dict, classes: Classes, categories: list[int]) -> tuple[Segmentation, Segmentation]:
    """Prediction and truth of a golden image or frame."""
    return tuple(  # type: ignore[return-value]
        segments(frame[name], frame[f"{name}_segments"], classes, categories) for name in ("prediction", "truth")
    )


def panoptic_names(results: dict, title: str = "PQ") -> dict[str, float]:
    """panopticapi's means under our names."""
    groups = (("All", ""), ("Things", " things"), ("Stuff", " stuff"))
    scores = (title,) if title != "PQ" else ("PQ", "SQ", "RQ")
    return {f"{score}{ending}": results[group][score[-2:].lower()] for group, ending in groups for score in scores}


def panoptic() -> Iterable[tuple[Scores, Scores]]:
    """Two sets."""
    golden, classes, categories = kept("panoptic_quality")
    metric = PanopticQuality(classes)
    for each in golden["sets"].values():
        state = reduce(add, (metric.count(*pair_of(image, classes, categories)) for image in each["images"]))
        expected = panoptic_names(each["results"])
        for k, counts in each["results"]["per_class"].items():
            expected |= {f"{score}/{k}": counts[score.lower()] for score in ("PQ", "SQ", "RQ")}
        yield metric.score(state), expected


def video_panoptic() -> Iterable[tuple[Scores, Scores]]:
    """VPQ of windows of 1 to 4 frames."""
    golden, classes, categories = kept("video_panoptic")
    metric = VideoPanoptic(classes)
    states = [metric.count(pair_of(frame, classes, categories) for frame in video) for video in golden["videos"]]
    found = metric.score(reduce(add, states))
    yield found, {f"VPQ@{window}": results["All"]["pq"] for window, results in golden["results"].items()}
    means = {name: np.mean([each[name]["pq"] for each in golden["results"].values()]) for name in ("All", "Things", "Stuff")}
    yield found, {"VPQ": means["All"], "VPQ things": means["Things"], "VPQ stuff": means["Stuff"]}


def tracking(kind: str) -> Iterable[tuple[Scores, Scores]]:
    """STQ of each video and of all."""
    golden, _, _ = kept("segmentation_tracking")
    step, void = 2 ** golden["bits"], golden["void_class"]
    is_thing = [k in golden["things"] for k in range(golden["classes"])]
    classes = Classes.of([str(k) for k in range(golden["classes"])], is_thing=is_thing)

    def read(labels: Sequence) -> Segmentation:
        array = np.array(labels)
        known = [int(label) for label in np.unique(array) if label // step != void]
        planes = np.select([array == label for label in known], range(1, len(known) + 1), VOID)
        numbers = [label % step if is_thing[label // step] else 0 for label in known]
        return Segmentation.panoptic(planes, [label // step for label in known], numbers, classes=classes)

    metric = VideoPanoptic(classes, void_counts=True)
    states = [
        metric.count((read(guess), read(truth)) for guess, truth in zip(video["prediction"], video["truth"], strict=True))
        for video in golden["sets"][kind]["videos"]
    ]
    results = golden["sets"][kind]["results"]
    yield metric.score(reduce(add, states)), {"STQ": results["STQ"], "AQ": results["AQ"], "SQ of STQ": results["IoU"]}


def video_objects() -> Iterable[tuple[Scores, Scores]]:
    """J and F of all objects of all videos."""
    golden, classes, _ = kept("davis_jf")
    metric, expected = DavisJf(classes), []

    def read(ids: Sequence) -> Segmentation:
        labels = np.array(ids)
        known = [number for number in range(1, labels.max() + 1) if (labels == number).any()]
        planes = np.select([labels == number for number in known], range(1, len(known) + 1), 0) if known else labels
        return Segmentation.panoptic(planes, [0] * len(known), known, classes=classes)

    states = []
    for video in golden["videos"]:
        states.append(metric.count((read(p), read(t)) for p, t in zip(video["prediction"], video["truth"], strict=True)))
        expected += [each["J_mean_recall_decay"] + each["F_mean_recall_decay"] for each in video["objects"].values()]
    yield metric.score(reduce(add, states)), dict(zip(STATISTICS, np.mean(expected, axis=0), strict=True))


def boundary_iou() -> Iterable[tuple[Scores, Scores]]:
    """Pairs of masks at three widths."""
    golden, classes, _ = kept("boundary_iou")
    for pair in golden["pairs"]:
        both = [Segmentation.panoptic(np.array(pair[name]), [0], classes=classes) for name in ("prediction", "truth")]
        for result in pair["results"]:
            metric = Boundary(classes, band_share=result["share"])
            yield metric.score(metric.count(*both)), {"boundary IoU/object": result["iou"]}


# Pixels and distances

NAMES = Classes.of(["background", "road", "car", "tram", "ship"])


def maps(*, has_void: bool = True) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of class maps (H, W), prediction and truth; "ship" is nowhere, "tram" in no truth."""
    generator, pairs = np.random.default_rng(0), []
    for index in range(20):
        truth = generator.integers(0, 2 if index % 2 else 3, (30 + index, 40))
        other = generator.integers(0, 4 if index > 2 else 3, truth.shape)
        prediction = np.where(generator.random(truth.shape) < 0.6, truth, other)
        truth[(generator.random(truth.shape) < 0.1) & has_void] = VOID
        pairs.append((prediction, truth))
    return pairs


def of_pixels(convention: str, *, has_void: bool = True) -> dict[str, float]:
    """Our scores of the maps by a convention."""
    metric = Confusion(NAMES, rules=convention_named(convention))
    pairs = maps(has_void=has_void)
    states = [metric.count(Segmentation.semantic(p, NAMES), Segmentation.semantic(t, NAMES)) for p, t in pairs]
    return {name: float(value) for name, value in metric.score(reduce(add, states)).items()}


def cityscapes() -> Iterable[tuple[Scores, Scores]]:
    """mIoU and IoU of each class by cityscapesScripts, from the same pixels."""
    from types import SimpleNamespace

    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as peer
    from cityscapesscripts.helpers.labels import labels

    known = [label for label in labels if label.id >= 0 and not label.ignoreInEval][: len(NAMES)]
    matrix = peer.generateMatrix(SimpleNamespace())
    peer.args.evalLabels = [label.id for label in labels if label.id >= 0]
    number = np.array([label.id for label in known] + [0])  # void, at index -1, is label 0 (unlabeled)
    for prediction, truth in maps():
        np.add.at(matrix, (number[truth], number[prediction]), np.ulonglong(1))
    by_class = {
        name: peer.getIouScoreForLabel(label.id, matrix, peer.args) for name, label in zip(NAMES.names, known, strict=True)
    }
    known_scores = [value for value in by_class.values() if not np.isnan(value)]
    yield of_pixels("cityscapes"), {"mIoU": np.mean(known_scores), **{f"IoU/{name}": value for name, value in by_class.items()}}


def one_hot(labels: np.ndarray) -> Any:
    """A tensor (1, K, H, W); a void pixel has no class."""
    import torch

    return torch.from_numpy((labels == np.arange(len(NAMES))[:, None, None])[None])


def by_monai() -> Iterable[tuple[Scores, Scores]]:
    """Dice and IoU, averaged over images."""
    import monai.metrics

    for score, kind in (("Dice", monai.metrics.DiceMetric), ("mIoU", monai.metrics.MeanIoU)):
        metric = kind()
        for prediction, truth in maps():
            metric(one_hot(prediction), one_hot(truth))
        yield of_pixels("monai"), {score: metric.aggregate().item()}


def mean_iou_by_torchmetrics() -> Iterable[tuple[Scores, Scores]]:
    """MeanIoU and DiceScore."""
    from torchmetrics.segmentation import DiceScore, MeanIoU

    for name, score, metric in (
        ("torchmetrics", "mIoU", MeanIoU(num_classes=len(NAMES))),
        ("torchmetrics_dice", "Dice", DiceScore(num_classes=len(NAMES), average="macro")),
    ):
        for prediction, truth in maps():
            metric.update(one_hot(prediction), one_hot(truth))
        yield of_pixels(name), {score: metric.compute().item()}


def calibration() -> Iterable[tuple[Scores, Scores]]:
    """Expected calibration error."""
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = np.random.default_rng(0)
    for _ in range(5):
        values = np.exp(generator.standard_normal((len(NAMES), 50, 60)))
        probabilities, truth = values / values.sum(axis=0), generator.integers(VOID, len(NAMES), (50, 60))
        metric = Calibration(NAMES)
        theirs = multiclass_calibration_error(
            torch.from_numpy(probabilities)[None],
            torch.from_numpy(truth)[None],
            num_classes=len(NAMES),
            n_bins=metric.bins,
            ignore_index=VOID,
        )
        yield metric.score(metric.count(probabilities, Segmentation.semantic(truth, NAMES))), {"ECE": float(theirs)}


def masks() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of masks in 2D and 3D."""
    return [*surface.masks(5, (96, 128)), *surface.masks(3, (40, 48, 56))]


def distances_by_monai() -> Iterable[tuple[Scores, Scores]]:
    """HD95 and surface Dice as MONAI returns them, in float32."""
    for pair in masks():
        yield surface.ours("Surface", surface.as_segmentations([pair])), surface.with_monai(surface.one_hot([pair]))


def by_deepmind() -> Iterable[tuple[Scores, Scores]]:
    """HD95 and surface Dice."""
    for pair in masks():
        yield surface.ours("SurfaceDistanceSurfels", surface.as_segmentations([pair])), surface.with_deepmind([pair])


COCO, MANY = average_precision.COCO, average_precision.MANY
PYCOCO, FASTER = average_precision.with_pycocotools, average_precision.with_faster
SETS = "synthetic sets with crowds, ties and empty images"
ROWS = [
    Row("pycocotools", f"mask AP, 12 scores and per class, {SETS}", partial(objects, PYCOCO, COCO, scenes.many_classes, 40)),
    Row(
        "pycocotools", "the same of crowded images, one class, 500 detections", partial(objects, PYCOCO, MANY, scenes.nuclei, 5)
    ),
    Row("faster-coco-eval", f"mask AP, the same {SETS}", partial(objects, FASTER, COCO, scenes.many_classes, 40)),
    Row("lvis", "mask AP and AR by LVIS's federated rules", by_lvis),
    Row("torchmetrics", "mask AP, told COCO's recalls and thresholds in float64", by_torchmetrics, "(float32)"),
    Row("panopticapi", "PQ, SQ and RQ, all, things, stuff and per class", panoptic),
    Row("panopticapi", "VPQ: PQ of 1 to 4 frames joined to one image, all, things and stuff", video_panoptic),
    Row("deeplab2", "STQ, AQ and SQ, with its rule for void (`void_counts`)", partial(tracking, "void"), "(float32)"),
    Row("davis2017-evaluation", "J and F: mean, recall and decay", video_objects),
    Row("boundary-iou-api", "boundary IoU at three widths", boundary_iou),
    Row("cityscapesScripts", "mIoU and IoU per class", cityscapes),
    Row("monai", "Dice and IoU, by its convention", by_monai, "(float32)"),
    Row("monai", "HD95 and surface Dice, 2D and 3D", distances_by_monai, "(float32)"),
    Row("surface-distance", "HD95 and surface Dice of surface elements, 2D and 3D", by_deepmind),
    Row("torchmetrics", "mean IoU and Dice, by its convention", mean_iou_by_torchmetrics, "(float32)"),
    Row("torchmetrics", "expected calibration error", calibration, "(float32)"),
]

"""The worked examples of docs/metrics.md: small maps as text, and what the metrics say of them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from segwright.core import VOID, Classes, Segmentation
from segwright.metrics.average_precision import AveragePrecision
from segwright.metrics.boundary import Boundary
from segwright.metrics.calibration import Calibration
from segwright.metrics.confusion import Confusion, dice_of_iou
from segwright.metrics.davis_jf import DavisJf
from segwright.metrics.instance_accuracy import InstanceAccuracy
from segwright.metrics.number_of_clicks import NumberOfClicks
from segwright.metrics.panoptic_quality import PanopticQuality
from segwright.metrics.surface_distance import SurfaceDistance
from segwright.metrics.topology import Topology
from segwright.metrics.video_panoptic import VideoPanoptic

REGIONS = Classes.of(["road", "car"])
OBJECTS = Classes.of(["nucleus"], is_thing=[True])
SCENE = Classes.of(["road", "sky", "car"], is_thing=[False, False, True])
ORGAN = Classes.of(["background", "organ"])
VESSEL = Classes.of(["background", "vessel"])


def shown(value: float) -> str:
    """A score with three digits."""
    return "unknown" if np.isnan(value) else f"{value:.3f}"


def table(scores: Mapping[str, float], names: Sequence[str]) -> list[str]:
    """Some scores as a table of two rows."""
    return [
        "",
        f"| {' | '.join(names)} |",
        f"|{'--:|' * len(names)}",
        f"| {' | '.join(shown(float(scores[n])) for n in names)} |",
    ]


def beside(**maps: Sequence[str]) -> list[str]:
    """Maps side by side, as text under their names."""
    width = [max(len(name), len(rows[0])) for name, rows in maps.items()]
    lines = ["   ".join(name.ljust(w) for name, w in zip(maps, width, strict=True))]
    for row in zip(*maps.values(), strict=True):
        lines.append("   ".join(part.ljust(w) for part, w in zip(row, width, strict=True)))
    return ["```", *(line.rstrip() for line in lines), "```"]


def class_map(rows: Sequence[str], letters: str) -> np.ndarray:
    """A map (H, W) of the places of letters; "?" is void."""
    return np.array([[VOID if letter == "?" else letters.index(letter) for letter in row] for row in rows])


def objects(rows: Sequence[str], scores: Sequence[float] | None = None) -> Segmentation:
    """Objects from rows of digits: 1 is the first, "." nothing."""
    ids = np.array([[0 if letter == "." else int(letter) for letter in row] for row in rows])
    count = int(ids.max())
    return Segmentation.panoptic(ids, [0] * count, np.arange(1, count + 1), scores=scores, classes=OBJECTS)


def scene(rows: Sequence[str]) -> Segmentation:
    """Road "r", sky "s" and cars 1, 2, ...; "?" is void."""
    letters = sorted({letter for row in rows for letter in row} - {"?"})
    number = {letter: index for index, letter in enumerate(letters, start=1)} | {"?": VOID}
    ids = np.array([[number[letter] for letter in row] for row in rows])
    class_ids = ["rs".find(letter) if letter in "rs" else 2 for letter in letters]
    return Segmentation.panoptic(ids, class_ids, [int(n) if n.isdigit() else 0 for n in letters], classes=SCENE)


def pixels() -> Iterable[str]:
    """mIoU, Dice and accuracy."""
    truth = ["rrrrrrrr", "rrrrrrrr", "rrrccrrr", "rrrccrrr", "rrrrrrrr", "rrrrrr??"]
    guess = ["rrrrrrrr", "rrrrrrrr", "rrrrcrrr", "rrrrcrrr", "rrrrrrrr", "rrrrrrcc"]
    metric = Confusion(REGIONS)
    pair = (Segmentation.semantic(class_map(rows, "rc"), REGIONS) for rows in (guess, truth))
    scores = metric.score(metric.count(*pair))
    yield from beside(truth=truth, prediction=guess)
    yield from table(scores, ["pixel accuracy", "mIoU", "IoU/road", "IoU/car", "Dice", "Dice/car"])
    yield "\nHalf of the car (c) is missed. 44 of 46 known pixels are right, so accuracy hides it; IoU of the car is 2 / 4."
    yield "What is predicted on void (?) counts for nothing."


TRUTH = ["11....22..", "11....22..", "......22..", "..........", ".33....44.", ".33....44."]
FOUND = ["11....22..", "11....22..", "......3...", "..........", ".44.......", ".44.......", ".........."][:6]


def instances() -> Iterable[str]:
    """AP and the accuracy of nuclei papers."""
    prediction, truth = objects(FOUND, [0.9, 0.8, 0.7, 0.6]), objects(TRUTH)
    yield from beside(truth=TRUTH, prediction=FOUND)
    metric = AveragePrecision(OBJECTS)
    scores = metric.score(metric.count(prediction, truth))
    accuracy = InstanceAccuracy(OBJECTS)
    scores |= accuracy.score(accuracy.count(prediction, truth))
    yield "\nThe scores of the four detections are 0.9, 0.8, 0.7 and 0.6. The third is a piece of the second object, so it is"
    yield "wrong; the fourth true object is not found."
    yield from table(scores, ["AP", "AP50", "AP75", "AR@100", "accuracy@0.5", "accuracy@0.75", "object accuracy"])
    yield "\nAP asks how well detections are *ranked*: the wrong one stands before a right one and costs precision."
    yield "`accuracy@0.5` is TP / (TP + FP + FN) = 3 / (3 + 1 + 1), whatever the scores: many papers on nuclei call that AP."


def panoptic() -> Iterable[str]:
    """PQ."""
    truth = ["ssssssss", "ssssssss", "rr11rr22", "rr11rr22", "rrrrrrrr", "rrrrrrrr"]
    guess = ["ssssssss", "ssssssss", "rr111122", "rr111122", "rrrrrrrr", "rrrrrrrr"]
    metric = PanopticQuality(SCENE)
    scores = metric.score(metric.count(scene(guess), scene(truth)))
    yield from beside(truth=truth, prediction=guess)
    yield from table(scores, ["PQ", "SQ", "RQ", "PQ things", "PQ stuff", "PQ/car"])
    yield "\nCar 1 has an IoU of exactly 0.5 and is no match: it counts as a miss and as a false find. PQ is not SQ x RQ of"
    yield "this table, since each of them is a mean over classes; per class it is."


def borders() -> Iterable[str]:
    """Boundary scores against IoU."""
    yield "A square and the same square two pixels to the right:\n"
    yield "| side of the square | IoU | boundary F1, tolerance 1 pixel | boundary IoU |"
    yield "|--:|--:|--:|--:|"
    for side in (8, 32, 96):
        shape = (side + 32, side + 32)
        truth, guess = np.zeros((2, *shape), int)
        truth[16:-16, 16:-16] = guess[16:-16, 18:-14] = 1
        pair = [Segmentation.semantic(each, ORGAN) for each in (guess, truth)]
        metric, region = Boundary(ORGAN, tolerance_pixels=1.0), Confusion(ORGAN)
        found, iou = metric.score(metric.count(*pair)), region.score(region.count(*pair))["IoU/organ"]
        cells = (iou, found["boundary F1/organ"], found["boundary IoU/organ"])
        yield f"| {side} | {' | '.join(shown(float(cell)) for cell in cells)} |"
    yield "\nThe same error at the border hurts the IoU of small objects and hides in large ones. Boundary F1 sees it the"
    yield "same at all sizes, boundary IoU with a band that grows with the image somewhat less."


def distances() -> Iterable[str]:
    """Hausdorff distances and surface Dice."""
    truth = ["..........", "..oooo....", "..oooo....", "..oooo....", "..oooo....", ".........."]
    guess = ["..........", "..oooo....", "..oooo....", "..oooo....", "..oooo...o", ".........."]
    pair = [Segmentation.semantic(class_map(rows, ".o"), ORGAN) for rows in (guess, truth)]
    metric, region = SurfaceDistance(ORGAN), Confusion(ORGAN)
    yield from beside(truth=truth, prediction=guess)
    yield "\nPixels of 2 mm x 2 mm, a tolerance of 1 mm:"
    yield from table(
        metric.score(metric.count(*pair, (2.0, 2.0))) | region.score(region.count(*pair)),
        ["HD/organ", "HD95/organ", "ASSD/organ", "NSD/organ", "Dice/organ"],
    )
    yield "\nOne stray pixel sets HD alone. HD95 takes the 95th percentile of the distances in each direction and the larger"
    yield "of both; NSD is the share of both borders that lies within the tolerance of the other."


def shape_of_things() -> Iterable[str]:
    """clDice and Betti errors."""
    truth = ["..............", ".vvvvvvvvvvvv.", ".............."]
    guess = ["..............", ".vvvvv.vvvvvv.", ".............."]
    pair = [Segmentation.semantic(class_map(rows, ".v"), VESSEL) for rows in (guess, truth)]
    metric, region = Topology(VESSEL), Confusion(VESSEL)
    yield from beside(truth=truth, prediction=guess)
    yield from table(
        metric.score(metric.count(*pair)) | region.score(region.count(*pair)),
        ["Dice/vessel", "clDice/vessel", "Betti-0 error/vessel", "Betti-1 error/background"],
    )
    yield "\nOne pixel cuts the vessel in two: Dice hardly moves, the number of pieces (Betti 0) does."


def videos() -> Iterable[str]:
    """J&F and STQ."""
    truth = [
        ["s1sssss", "rrrrrrr"],
        ["ss1ssss", "rrrrrrr"],
        ["sss1sss", "rrrrrrr"],
        ["ssss1ss", "rrrrrrr"],
        ["sssss1s", "rrrrrrr"],
    ]
    guess = [truth[0], truth[1], truth[2], *([row.replace("1", "2") for row in frame] for frame in truth[3:])]
    yield from beside(**{f"frame {n}": frame for n, frame in enumerate(guess)})
    yield "\nEach pixel is of the right class in each frame, but from frame 3 on the car is taken for another one:"
    frames = [(scene(one), scene(other)) for one, other in zip(guess, truth, strict=True)]
    metric, tracked = VideoPanoptic(SCENE), DavisJf(SCENE)
    scores = metric.score(metric.count(iter(frames))) | tracked.score(tracked.count(iter(frames)))
    yield from table(scores, ["STQ", "AQ", "SQ of STQ", "VPQ@1", "VPQ@2", "VPQ@4", "J&F"])
    yield "\nAQ and VPQ of several frames punish the change of identity; VPQ@1 is PQ of single frames and does not."


def certainty() -> Iterable[str]:
    """Calibration."""
    correct = np.array([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1]])
    yield "Ten pixels of one class, all predicted with the probability of the row; six of them are right:\n"
    yield "| probability | share that is right | ECE | Brier |"
    yield "|--:|--:|--:|--:|"
    for chance in (0.6, 0.8, 0.99):
        probabilities = np.stack([np.full((1, 10), chance), np.full((1, 10), 1 - chance)])
        metric = Calibration(REGIONS)
        scores = metric.score(metric.count(probabilities, Segmentation.semantic(correct, REGIONS)))
        yield f"| {chance} | 0.6 | {shown(float(scores['ECE']))} | {shown(float(scores['Brier']))} |"
    yield "\nmIoU is the same in all three rows. ECE is the gap between the first two columns; Brier also rewards being sure"
    yield "when right."


def clicks() -> Iterable[str]:
    """Interactive segmentation."""
    curves = {"an easy object": [0.82, 0.91], "a hard one": [0.4, 0.7, 0.86, 0.88, 0.93]}
    metric = NumberOfClicks()
    state = None
    yield "| object | IoU after each click |"
    yield "|---|---|"
    for name, curve in curves.items():
        yield f"| {name} | {', '.join(map(str, curve))} |"
        state = metric.count(curve) if state is None else state + metric.count(curve)
    yield from table(metric.score(state), ["NoC@85", "NoC@90", "failures@90", "IoU@1", "IoU@3"])
    yield "\nNoC@85: the first needs 2 clicks, the second 3."


def relation() -> Iterable[str]:
    """Dice beside IoU."""
    ious = np.array([0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
    yield f"| IoU | {' | '.join(f'{iou:g}' for iou in ious)} |"
    yield f"|---|{'--:|' * len(ious)}"
    yield f"| Dice | {' | '.join(f'{dice:.3f}' for dice in dice_of_iou(ious))} |"

"""Makes docs/metrics.md: computes its examples, compares with the peers that are installed, and lays out what was measured.

python docs/make_metrics.py

The tables of speed come from docs/metrics_speed.jsonl, which `python benchmarks/metrics.py --json docs/metrics_speed.jsonl`
appends to (the last of equal rows counts), the table of intervals from benchmarks/README.md.
"""

import inspect
import json
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import metric_examples as examples
import metric_parity

from segwright.core import Classes
from segwright.core.lookup import find
from segwright.evaluation.accumulate import metric_class
from segwright.metrics.conventions import CONVENTIONS

HERE = Path(__file__).parent
OUT, SPEED = HERE / "metrics.md", HERE / "metrics_speed.jsonl"
CLASSES = Classes.of(["background", "car"], is_thing=[False, True])
WIDTH = 128  # characters of a line of text

QUESTIONS = [
    ("How much of each class is labelled right?", "mIoU, Dice", "confusion", "seeing small objects, borders, single objects"),
    ("Are the objects found, and are the sure ones right?", "AP, AP50", "average_precision", "predictions without scores"),
    ("How many objects are right, wrong, missed?", "object accuracy, F1", "instance_accuracy", "ranking; it needs no scores"),
    ("Is each pixel of the right class and object?", "PQ", "panoptic_quality", "overlapping objects"),
    ("How exact are the borders?", "boundary F1, boundary IoU", "boundary", "what is missed altogether"),
    (
        "How far off is a border, in mm?",
        "HD95, ASSD, NSD",
        "surface_distance",
        "many objects of one class: distances find the nearest",
    ),
    ("The same, weighed by area", "element HD95, element NSD", "surface_distance_surfels", "as above"),
    ("Are vessels, roads, cells connected as they should be?", "clDice, Betti errors", "topology", "where borders lie"),
    ("Does an object stay the same through a video?", "STQ, VPQ", "video_panoptic", "single frames"),
    ("How well is a given object followed?", "J&F", "davis_jf", "objects that nobody pointed at"),
    ("Are probabilities true?", "ECE, Brier", "calibration", "whether labels are right"),
    ("How many clicks does an object take?", "NoC@90", "number_of_clicks", "anything without clicks"),
]

EXAMPLES: list[tuple[str, tuple[str, ...], Callable[[], Iterable[str]]]] = [
    ("Pixels by class: mIoU, Dice", ("confusion",), examples.pixels),
    ("Objects: AP and accuracy", ("average_precision", "instance_accuracy"), examples.instances),
    ("Objects and regions: PQ", ("panoptic_quality",), examples.panoptic),
    ("Borders", ("boundary",), examples.borders),
    ("Distances", ("surface_distance", "surface_distance_surfels"), examples.distances),
    ("Shape", ("topology",), examples.shape_of_things),
    ("Videos", ("video_panoptic", "davis_jf"), examples.videos),
    ("Probabilities", ("calibration",), examples.certainty),
    ("Clicks", ("number_of_clicks",), examples.clicks),
]


def main() -> None:
    """Write the page."""
    warnings.simplefilter("ignore")
    OUT.write_text("\n".join(page()) + "\n", encoding="utf-8")


def page() -> Iterator[str]:
    """The lines of the whole page."""
    yield OPENING
    for question, scores, file, blind in QUESTIONS:
        yield f"| {question} | {scores} | `{file}` | {blind} |"
    yield USE
    yield "\n## One example each"
    for title, files, example in EXAMPLES:
        yield f"\n### {title}\n"
        yield from example()
        for file in files:
            yield from ["", *filled(f"**Convention of `{file}`.** {convention(file)}")]
    yield RELATION
    yield from examples.relation()
    yield CONVENTION
    yield from (f"| `{name}` | {each.reproduces} |" for name, each in CONVENTIONS.items())
    yield DIFFERENCES
    yield PARITY
    yield from metric_parity.rows()
    if SPEED.is_file():
        yield from speed()
    yield from intervals()


def filled(text: str) -> list[str]:
    """A paragraph in lines."""
    return textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def convention(file: str) -> str:
    """What a metric says of itself."""
    kind: Any = metric_class(file)
    kind = kind or next(each for each in vars(find("segwright.metrics", file)).values() if hasattr(each, "SCORES"))
    takes_classes = "classes" in inspect.signature(kind).parameters
    return (kind(CLASSES) if takes_classes else kind()).convention


def speed() -> Iterator[str]:
    """Tables of time and memory, the second of growth."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in SPEED.read_text().splitlines():
        row = json.loads(line)
        rows[row["work"], row["side"]] = row
    yield SPEEDS
    for row in rows.values():
        if row["group"] != "growth":
            yield speed_row(row)
    yield GROWTH
    for row in rows.values():
        if row["group"] == "growth":
            rate = f"{1000 * row['seconds'] / row['amount']:.3g}"
            unit = row["units"].removesuffix("s")
            yield f"| {row['work']} | {row['seconds']:.3g} | {rate} ms per {unit} | {peak(row)} |"


def speed_row(row: dict[str, Any]) -> str:
    """A row of the table of speed."""
    is_ours = row["difference"] is None
    rate = f" ({row['amount'] / row['seconds']:,.0f} {row['units']}/s)" if row["amount"] else ""
    ratio = "" if is_ours else f"{row['ratio']:.1f} ({row['ratio_min']:.1f} to {row['ratio_max']:.1f})"
    gap = "" if is_ours or not row["compared"] else f"{row['difference']:.0e}"
    needed = f"{row['needed']:g}" if row["needed"] else ""
    note = f"; {row['note']}" if row["note"] else ""
    work = f"{row['work']}, {row['cores']} core{'s' if row['cores'] > 1 else ''}" if is_ours else ""
    return f"| {work} | {row['side']}{note} | {row['seconds']:.3g}{rate} | {ratio} | {needed} | {peak(row)} | {gap} |"


def peak(row: dict[str, Any]) -> str:
    """Memory in MB."""
    return "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"


def intervals() -> Iterator[str]:
    """What benchmarks/README.md says of intervals, one heading deeper in the page."""
    text = (HERE.parent / "benchmarks" / "README.md").read_text()
    sections = text.split("\n## ")
    yield from (f"\n## {section.rstrip()}" for section in sections if "intervals.py" in section.splitlines()[0])


OPENING = """# Metrics

Made by `python docs/make_metrics.py`, which computes all numbers on this page; do not edit by hand.

```sh
segwright metrics predictions data                     # what fits the data, with 95 % intervals
segwright metrics predictions data --metrics mIoU,PQ,boundary --per-image scores.csv --html errors.html
```

## Which metric answers which question

`--metrics` takes scores, such as mIoU, and files of `segwright/metrics`, which stand for all of their scores. `calibration`
needs probabilities and `number_of_clicks` clicks, so both are for Python only.

| question | scores | file | blind to, or not for |
|---|---|---|---|"""

USE = """
Report two that are blind to different things: for regions mIoU and boundary F1; for objects AP (or accuracy, without scores)
and PQ; for organs Dice and NSD; for vessels Dice and clDice.

## How `segwright metrics` counts

* Both sides are anything that `segwright` reads ([formats](formats.md)), made by any tool; images belong together by their
  keys, classes by their names. COCO results (a JSON list) are scored against COCO annotations as pycocotools does.
* An image without a prediction counts as if nothing had been found in it, and is listed. A prediction without a truth is left
  out, and listed. Sizes that differ, unknown classes, and scores that are NaN are errors that name the file.
* Images are read and counted by several threads, then processes, each of which holds one; memory does not grow with them. The
  counts of images add up, so that order and number of processes change nothing.
* Each score comes with a 95 % interval over images and the sentence that says what it means. `--against OTHER` compares two
  predictions image by image; `--explain A B` says why two conventions give two numbers.
* In Python: `metric.count(prediction, truth)` gives the state of an image, states add up, `metric.score(state)` gives the
  scores.

```python
from segwright import Classes, Segmentation
from segwright.metrics.panoptic_quality import PanopticQuality

metric = PanopticQuality(classes)
state = metric.count(prediction, truth)          # Segmentations of one size
print(metric.score(state + other_state)["PQ"])   # NaN where nothing was there to be found
```"""

RELATION = """
## Dice and IoU

Of one class on the same pixels, Dice = 2 IoU / (1 + IoU) and IoU = Dice / (2 - Dice): they order predictions alike, and Dice is
the higher number. Means over classes or images do not follow the formula. `segwright.metrics.confusion` has `dice_of_iou` and
`iou_of_dice`.
"""

CONVENTION = """
## Conventions of other libraries

`segwright metrics PRED TRUTH --convention NAME` scores pixels by the rules of another library, `--explain A B` tells two apart.

| name | reproduces |
|---|---|"""

DIFFERENCES = """
## Where others give another number

Most are shown by the tests named beside the library; the rest was read in its source.

**torchmetrics** (`tests/metrics/test_torchmetrics.py`, `test_conventions.py`, `test_calibration.py`)

* `MeanAveragePrecision` rounds its recalls and IoU thresholds to float32: three of five objects found are no recall of
  0.60000002, so that each such class loses up to 1/101, and an IoU of 12/20 misses the threshold 0.6. With `rec_thresholds` and
  `iou_thresholds` given in float64 it equals pycocotools.
* Its `map` is -1 with other `max_detection_thresholds` than 1, 10, 100, as pycocotools' own summary. Here AP is that of the
  last.
* `PanopticQuality` forgives missed objects where more than half of them is predicted as nothing: a prediction that stays silent
  scores higher than one that tries. The paper and panopticapi count them as misses. It knows no crowds.
* `MeanIoU` and `DiceScore` score each image before they average, know no void, and read index maps as one-hot unless told,
  without an error; per class, a class that is nowhere counts -1, in `MulticlassJaccardIndex` and `GeneralizedDiceScore` 0. An
  image that is rightly empty scores 0 in the binary ones.
* `hausdorff_distance` compares every pair of border pixels, so that its memory grows with the square of their number.
* Calibration error lets a probability of exactly 1 have a bin of its own.

**pycocotools** (`tests/evaluation/test_coco_results.py`)

* A true object whose `id` is 0 can not be found: who finds it is wrong. Here it is an object as any other.
* Where the first result has a box, small, medium and large results part by the area of the box even if masks are compared. Here
  too, for result files; between segmentations the area of the mask counts.
* Without any result it stops; here scores are 0. Results of unknown categories are left out silently; here they are an error.

**panopticapi** (`tests/metrics/test_panoptic_quality.py`)

* Of several crowds of one class in an image, only the last excuses false positives. Here all do.
* The SQ of a class without a match is 0, and counts in the mean. Here too.
* An image without a prediction stops it. Here it counts as missed. A mean over no class divides by zero; here it is unknown.

**MONAI** (`tests/metrics/test_surface_distance.py`, `test_conventions.py`)

* Dice and IoU are means over images, then classes; a class that an image lacks is left out there even if it was predicted, so
  that false finds on healthy images cost nothing.
* HD95 is interpolated in float32, which moves it by up to 0.01 % on long borders; an empty prediction of a present class gives
  infinity or NaN, which means then leave out. Here it counts as the diagonal of the image, and NSD 0.

**DeepMind surface-distance** (`tests/metrics/test_surface_distance_surfels.py`)

* It measures surface elements between voxels, weighed by area; that is `surface_distance_surfels` here, equal to it. A missing
  prediction is infinite there, the diagonal here.

**deeplab2** (`tests/metrics/test_video_panoptic.py`)

* Pixels predicted where the truth is void count against AQ. Here void is left out everywhere, unless `void_counts` is set.

**Papers on nuclei** (`tests/metrics/test_instance_accuracy.py`)

* TP / (TP + FP + FN) is often called "average precision". Here it is `accuracy@t`, since it is no area under a curve."""

PARITY = """
## How far from others

Largest absolute difference of a score, on inputs made for it, when this page was made. Peers that are not on PyPI are named by
the commit that made the numbers under `tests/golden`. Peers that count in float32 cannot come closer."""
PARITY += "\n"

SPEEDS = """
## Speed and memory

Both sides in turns in one process, on the cores that the row says; ratios are theirs to ours, turn by turn. Memory is what the
work adds at its highest to its input. The last column is the largest difference of the scores of both sides.

From files, most of the time of panoptic quality goes into decoding the PNGs of both sides. Photographs are not opened, but for
the head of their files, which tells whether they fit their truth. That row alone was measured later than the others, with
panopticapi in turns, on two cores of another machine (Intel Xeon) that others were using too: its seconds say less than its
ratio.

```sh
PYTHONPATH=CHECKOUT_OF_PANOPTICAPI python benchmarks/metrics.py --only "133 classes, from files"
```

All others:

```sh
python benchmarks/metrics.py --json docs/metrics_speed.jsonl
```

| work | side | s | theirs / ours, median (min to max) | needed | MB | difference |
|---|---|--:|--:|--:|--:|--:|"""

GROWTH = """
Time grows with what there is to read, and memory does not pile up:

| work | s | rate | MB |
|---|--:|--:|--:|"""


if __name__ == "__main__":
    main()

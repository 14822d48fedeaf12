"""Makes docs/formats.md: converts small sets of every kind between all formats, and writes down what came back.

python docs/make_formats.py             the whole page, in minutes
python docs/make_formats.py --values    what it says of how values are read, at once
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from scipy.ndimage import gaussian_filter

from segwright.codecs.tag_table import markdown
from segwright.conversion import convert, writers
from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import SegwrightError
from segwright.formats import drawn_shapes, guessed_meaning, label_encoding, readers, zarr_labels
from segwright.inspection.finding import MEANING

OUT = Path(__file__).with_name("formats.md")
SAMPLES = 3
SHAPES = {2: (48, 64), 3: (6, 24, 32)}
THINGS = Classes.of(["car", "person", "dog"], is_thing=[True, True, True])
STUFF = Classes.of(["road", "sky", "tree"])
BOTH = Classes.of(["road", "car", "person"], is_thing=[False, True, True])

KINDS = {
    "objects": "objects of three classes, apart, with holes and several parts; the rest is nothing",
    "overlaps": "the same, overlapping",
    "crowds": "the same, apart, some of them crowds",
    "classes": "a class map without void",
    "classes and void": "a class map with void",
    "panoptic": "stuff everywhere, objects on it, and void",
    "volumes": "a class map of a volume, with pixel sizes",
}


def blob(generator: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """A bool mask (*S) of several parts with holes that covers a share of the pixels."""
    noise = gaussian_filter(generator.standard_normal(shape), 2.0, mode="nearest")
    return noise > np.quantile(noise, 1 - share)


def truth(kind: str, generator: np.random.Generator) -> Segmentation:
    """A random truth of one kind."""
    shape = SHAPES[3 if kind == "volumes" else 2]
    if kind in ("objects", "overlaps", "crowds"):
        masks = np.stack([blob(generator, shape, 0.2) for _ in range(6)])
        if kind != "overlaps":
            masks[1:] &= ~np.logical_or.accumulate(masks)[:-1]
        instance_ids = [0, 0, 1, 2, 3, 4] if kind == "crowds" else None
        return Segmentation.instances(masks, [0, 1, 2, 0, 1, 2], instance_ids=instance_ids, classes=THINGS)
    class_map = np.argmax([gaussian_filter(generator.standard_normal(shape), 2.0) for _ in range(3)], axis=0)
    if kind != "panoptic":
        class_map[blob(generator, shape, 0.1) & (kind == "classes and void")] = -1
        return Segmentation.semantic(class_map, STUFF)
    segments = np.ones(shape, np.int32)
    for number in range(2, 6):
        segments[blob(generator, shape, 0.15)] = number
    segments[blob(generator, shape, 0.1)] = -1
    return Segmentation.panoptic(segments, [0, 1, 2, 1, 2], [0, 1, 2, 3, 4], classes=BOTH)


def samples(kind: str) -> Iterator[Sample]:
    """A few samples of one kind."""
    generator = np.random.default_rng(0)
    for index in range(SAMPLES):
        answer = truth(kind, generator)
        yield Sample.of(f"sample_{index}", generator.integers(0, 256, (1, *answer.shape), dtype=np.uint8), answer)


def cell(source: Path, target: Path, to: str) -> str:
    """What came back of a data set: "1" where all of it did, else the mean IoU; a dash where it cannot be written."""
    try:
        report = convert(source, target, to)
    except SegwrightError:
        return "–"
    if report.lossless == report.count:
        return "1"
    return f"{min(report.iou, 0.999):.3f}"  # nothing is rounded to 1 that is not


def matrix(kind: str, place: Path) -> list[str]:
    """The table of one kind: a row per source, a column per target."""
    names = writers()
    rows = [f"| from \\ to | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for name in names:
        source = place / kind / name / "source"
        try:
            readers()[name].write(source, samples(kind))
        except SegwrightError:
            continue
        cells = [cell(source, place / kind / name / to, to) for to in names]
        rows.append(f"| **{name}** | {' | '.join(cells)} |")
    return rows


def page(place: Path) -> str:
    """The whole page."""
    shapes = (drawn_shapes.__doc__ or "").rpartition("\n\nAxes")[0]
    parts = [OPENING, shapes, FORMATS]
    for name, module in readers().items():
        lines = (module.__doc__ or "").strip().splitlines()
        parts.append(
            f"| {name} | {'yes' if hasattr(module, 'write') else 'no'} | {lines[0]} | {getattr(module, 'LOSES', '')} |"
        )
    parts += [values_section(), MATRIX]
    for kind, meaning in KINDS.items():
        parts += [f"\n### {kind.capitalize()}: {meaning}\n", *matrix(kind, place)]
    return "\n".join([*parts, *DOCTOR, *(f"| {name} | {meaning} |" for name, meaning in MEANING.items())]) + "\n"


def values_section() -> str:
    """How values are read: the table of tags, what masks mean, and Zarrs."""
    parts = [VALUES, *markdown(), MASKS, _told(label_encoding), WITHOUT, _told(guessed_meaning)]
    return "\n".join([*parts, f"{ZARRS}    {_told(zarr_labels)}", CHUNKS])


def _told(module: ModuleType) -> str:
    """What the docstring of a module says below its first line, without its axes."""
    return (module.__doc__ or "").partition("\n\n")[2].partition("\n\nAxes")[0].strip()


OPENING = """# Formats

Made by `python docs/make_formats.py`, which converts and measures; do not edit by hand.

`segwright convert SRC DST --to FORMAT` writes a data set in another format, reads it back and reports the IoU between what was
read and what came back, per image (`--report`) and in total. It streams, goes on where it was stopped, and replaces nothing
without `--force`. `segwright inspect DATA` names what is wrong with a data set.

## Where a pixel is

* Pixel centres lie at +0.5: the pixel in column 3, row 5 covers x from 3 to 4 and y from 5 to 6, its centre is (3.5, 5.5).
* A polygon holds the pixels whose centres lie inside it, by even-odd; coordinates are first rounded to a fifth of a pixel. This
  is COCO's rule, and equals pycocotools bit by bit. In every format, polygons are rasterised by it.
* Masks become polygons along the edges of their pixels, at whole coordinates: rasterised, they give the mask back exactly.
  Where a format holds one ring per object, holes and parts are joined to it by cuts of no width, which enclose no pixel centre.
* Volumes: arrays are (depth, height, width); `Grid.affine` leads from an index to millimetres in DICOM's axes, to the patient's
  left, back and head. NIfTI's axes are converted.

## What a truth is

* A pixel belongs to segments, or to *nothing* (it is known that no class is there), or it is *void* (nobody knows).
* A segment is an object (it has a number), or a region: stuff, or a crowd, which is a region of a thing class whose objects
  nobody told apart. Regions of one class count as one.
* Formats of objects (COCO, YOLO, labelme, ...) leave the pixels around objects to nothing; formats of class maps name them.
* Keys of samples are the paths of their images without suffix, `/` written as `__`; they begin with the part, as in `train__`.

## Drawn shapes
"""

FORMATS = """
## Formats

| format | written | layout | cannot hold |
|---|---|---|---|"""

VALUES = """
## How values are read

An image is what every viewer shows, as numbers: colours as RGB, bright as high, upright, without alpha; NaN where the file says
that a value is missing. A mask is the numbers in the file; where they are missing they are void. A tag that says what numbers
mean is heeded, concerns the display only, or the file is refused with the tag's name: nothing is guessed.

A pixel that lacks the value of any channel is missing: training and scores leave it out, and it is void in predictions.
Infinity, and what float32 cannot hold, is missing too, and so are the numbers of `nodata = [-9999]` in a `dataset.toml`.
Conversions keep the truth there.
"""

MASKS = """
## What masks mean
"""

WITHOUT = """
Without a word on classes:
"""

ZARRS = """
## OME-Zarr

`segwright convert DATA NEW --to ome_zarr`, and `predict --format ome_zarr`, write NEW/NAME.ome.zarr (OME-Zarr 0.5) for each
image: axes c, z, y, x, the scale in millimetres, coarser levels down to 256 pixels (the mean for images, the nearest for
labels), and the truth as label images:

"""

CHUNKS = """
Without `--format`, `segwright predict` writes the mask of NAME.zarr as OUT/NAME.zarr, a label image by itself, whose numbers
are the classes as in every mask that it writes; `metrics` reads folders of them, by the names that they give. `.zarr` masks may
also lie beside images that are no Zarrs.

Zarr takes a chunk that is not there for one of the fill value, mostly 0: of most files nobody can tell an empty chunk from one
that was lost in a copy. Segwright therefore writes empty chunks too and notes so ("all_chunks"): of its own files, a missing
chunk is an error that names the array. Of others `segwright inspect` tells how many chunks are not there ("missing-chunks").
Missing metadata, a listed label image that is not there and a chunk that is cut short are errors of every file."""

MATRIX = """
## What came back

The mean IoU over matched segments (void counts as one) of three small images with random shapes, after writing them in the
format of the row and converting that to the format of the column. 1 means that every pixel of every segment came back, a dash
that the target refuses such a set with a message. A row is missing where its format cannot hold such a set at all.
An object that comes back as the region of its class, as from nnU-Net, counts as lost, though its pixels keep their class."""

DOCTOR = ["", "## What `segwright inspect` names", "", "| name | meaning |", "|---|---|"]


if __name__ == "__main__":
    if "--values" in sys.argv[1:]:
        text = OUT.read_text(encoding="utf-8")
        start, end = (text.index(section[: section.index("\n", 2)]) for section in (VALUES, MATRIX))  # their headings
        OUT.write_text(text[:start] + values_section() + "\n" + text[end:], encoding="utf-8")
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        OUT.write_text(page(Path(folder)), encoding="utf-8")

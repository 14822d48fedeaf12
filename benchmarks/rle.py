"""COCO's objects from a JSON to masks: Segwright against pycocotools, in turns, on two cores, results compared.

    python benchmarks/rle.py

A file has 1000 images of 480 x 640 with 10 objects each: bumpy outlines of 15 to 80 pixels radius, a third of them of two
parts, in no order, as compressed run lengths, uncompressed ones, or polygons. What is timed goes from opening the file to
the last mask: one Segmentation per image here, `annToMask` of each object there. A larger file is opened alone, without a mask.
"""

import contextlib
import io
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

THREADS = 2  # the machine that the figures are for
REPEATS = 5
IMAGES, OBJECTS, SHAPE = 1000, 10, (480, 640)
LARGER = 20  # times as many images and objects


def main() -> None:
    """Print a row per file: seconds of both, and the ratio of theirs to ours."""
    logging.disable()  # that the images are not there
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    print("| file | MB | read | segwright s | pycocotools s | ratio, median (min to max) | masks compared |")
    print("|---|--:|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("compressed", "uncompressed", "polygons"):
            path = make(Path(folder) / f"{kind}.json", kind)
            compare(path, f"10 000 {kind}", "to masks", our_masks, their_masks, f"{count_equal(path)} equal")
        for kind in ("compressed", "polygons"):
            path = make(Path(folder) / f"large {kind}.json", kind, LARGER)
            compare(path, f"200 000 {kind}", "opened", our_index, their_index, "")


def compare(path: Path, what: str, how: str, ours: Callable, theirs: Callable, note: str) -> None:
    """Time both in turns and print a row."""
    times = np.array([[seconds(ours, path), seconds(theirs, path)] for _ in range(REPEATS)])
    ratio = times[:, 1] / times[:, 0]
    print(
        f"| {what} | {path.stat().st_size / 1e6:.0f} | {how} | {np.median(times[:, 0]):.2f} | {np.median(times[:, 1]):.2f} "
        f"| {np.median(ratio):.1f} ({ratio.min():.1f} to {ratio.max():.1f}) | {note} |",
        flush=True,
    )


def seconds(run: Callable, path: Path) -> float:
    """How long a call takes on a file that is new to it."""
    from segwright.codecs import json_stream

    json_stream.forget()
    start = time.perf_counter()
    run(path)
    return time.perf_counter() - start


def our_index(path: Path):
    """The data set, of which no sample is read."""
    from segwright.formats import coco

    return coco.read(path)


def our_masks(path: Path) -> None:
    """Each image's segmentation in turn."""
    for sample in our_index(path):
        assert len(sample.truth) == OBJECTS


def their_index(path: Path):
    """The index of pycocotools, without what it prints."""
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def their_masks(path: Path) -> None:
    """Each object's mask in turn."""
    index = their_index(path)
    for image_id in index.getImgIds():
        for annotation in index.imgToAnns[image_id]:
            index.annToMask(annotation)


def count_equal(path: Path) -> int:
    """How many masks are the same on both sides, pixel by pixel. Both sides are warm afterwards."""
    index, count = their_index(path), 0
    for image_id, sample in enumerate(our_index(path), start=1):
        for number, annotation in enumerate(index.imgToAnns[image_id]):
            count += np.array_equal(sample.truth.mask(number), index.annToMask(annotation))
    return count


def outlines(generator: np.random.Generator) -> list[list[float]]:
    """The polygons of one object, of 40 corners each."""
    parts = []
    for _ in range(1 + (generator.random() < 1 / 3)):
        centre = generator.uniform(80, np.subtract(SHAPE[::-1], 80))
        radius = generator.uniform(15, 80) * (1 + 0.05 * generator.standard_normal(40).cumsum())
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        ring = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        parts.append(np.round(ring, 2).ravel().tolist())
    return parts


def make(path: Path, kind: str, repeat: int = 1) -> Path:
    """Write a JSON of objects stored in one way; more than 10 000 of them repeat."""
    from pycocotools import mask

    generator = np.random.default_rng(0)
    height, width = SHAPE
    objects = []
    for _ in range(IMAGES * OBJECTS):
        drawn = outlines(generator)
        merged = mask.merge(mask.frPyObjects(drawn, height, width))
        counts = merged["counts"].decode()
        if kind == "uncompressed":
            pixels = mask.decode(merged).ravel(order="F")
            counts = np.diff([0, *np.flatnonzero(np.diff(pixels, prepend=0)), len(pixels)]).tolist()
        segmentation = drawn if kind == "polygons" else {"size": [height, width], "counts": counts}
        objects.append({"segmentation": segmentation, "area": int(mask.area(merged)), "bbox": mask.toBbox(merged).tolist()})
    size = {"height": height, "width": width, "license": 1, "date_captured": "2020-02-02 02:02:02"}
    annotations = [
        {**objects[n % len(objects)], "iscrowd": 0, "image_id": n // OBJECTS + 1, "category_id": n % 80 + 1, "id": n + 1}
        for n in generator.permutation(len(objects) * repeat).tolist()
    ]
    content = {
        "info": {},
        "images": [{"id": n + 1, "file_name": f"{n:012}.jpg", **size} for n in range(IMAGES * repeat)],
        "annotations": annotations,
        "categories": [{"id": k + 1, "name": f"class {k}", "supercategory": "thing"} for k in range(80)],
    }
    path.write_text(json.dumps(content))
    return path


if __name__ == "__main__":
    main()

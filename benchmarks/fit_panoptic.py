"""Segments after minutes: `segwright fit --task panoptic` on drawn street scenes from random weights, scored for all tasks.

    python benchmarks/fit_panoptic.py --minutes 15

The scenes are drawn anew for every run, the same each time: 300 to learn from and 50 of other seeds to score on, 192 x 256
pixels, nine classes, cars and pedestrians as things. Each side runs alone in a fresh process; all are scored by the same code.
A side is a preset that can do panoptic segmentation, or `planned`, which leaves the network to the planner. Its minutes hold
all that the command does: planning, validations, scoring and the report too.

Scores are of one run: PQ is of its panoptic answers. A network of queries answers by `--task instance` for AP and by `--task
semantic` for mIoU; of others, and in the column behind it, these are of the panoptic answers too. `floor` is no network: every
scene is answered with the class that the training scenes have most often at each pixel, its things by connected components.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = 2  # the machine that the figures are for
LEARN, SCORE = "synthetic:streets?count=300&seed=1", "synthetic:streets?count=50&seed=2"
SIDES = ("floor", "mask2former_small", "panoptic_fpn_small")
PANOPTIC = ("PQ", "PQ things", "PQ stuff", "AP", "AP50", "mIoU")
BY_TASK = {"instance": ("AP", "AP50"), "semantic": ("mIoU",)}
COLUMNS = ("PQ", "PQ things", "PQ stuff", "AP", "AP50", "mIoU", "panoptic AP", "panoptic mIoU")


def main() -> None:
    """Print a table with one row per side, as they finish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sides", nargs="*", default=SIDES, metavar="SIDE", help=f"presets, planned or floor; {', '.join(SIDES)}"
    )
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--learn", default=LEARN, help="data to learn from")
    parser.add_argument("--score", default=SCORE, help="data to score on")
    parser.add_argument("--json", type=Path, help="a file to which each row is appended")
    parser.add_argument("--keep", type=Path, help="a folder for the runs, which are lost without it")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(scored(arguments.sides[0], arguments.child, arguments.minutes)))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        lay_out(folder, arguments.learn, arguments.score)
        print(f"| side | minutes | wall s | {' | '.join(COLUMNS)} | 95 % interval of PQ |")
        print(f"|---|--:|--:|{'--:|' * len(COLUMNS)}---|", flush=True)
        for side in arguments.sides:
            command = [sys.executable, __file__, side, "--minutes", str(arguments.minutes), "--child", str(folder)]
            start = time.perf_counter()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(done.stdout.splitlines()[-1]) | {"side": side, "wall_s": time.perf_counter() - start}
            low, high = result["interval"]
            numbers = " | ".join(f"{result['values'][name]:.3f}" for name in COLUMNS)
            minutes = "0" if side == "floor" else f"{arguments.minutes:g}"
            print(f"| {side} | {minutes} | {result['wall_s']:.0f} | {numbers} | {low:.3f} to {high:.3f} |", flush=True)
            if arguments.json:
                with arguments.json.open("a") as file:
                    file.write(json.dumps(result) + "\n")


def lay_out(folder: Path, learn: str, score: str) -> None:
    """The scenes as files, which are drawn before the minutes begin; those of an earlier run stay."""
    from segwright.formats import coco_panoptic, open_dataset

    for part, source in (("train", learn), ("val", score)):
        if not (folder / part).exists():
            coco_panoptic.write(folder / part, open_dataset(source))


def scored(side: str, folder: Path, minutes: float) -> dict[str, Any]:
    """The scores of a side, in a fresh process."""
    import torch

    from segwright.evaluation.evaluate import evaluate
    from segwright.formats import open_dataset

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS)
    scenes = open_dataset(folder / "val")
    if side == "floor":
        found = evaluate(floor_of(folder), scenes, metrics=PANOPTIC)
        return with_panoptic(found.values, found.values, found.intervals["PQ"])
    from segwright.inference.load import load
    from segwright.planning.budget import Budget
    from segwright.workflow import fit

    run = folder / f"run_{side}"
    model = None if side == "planned" else side
    fit(
        folder / "train",
        val=folder / "val",
        budget=Budget(minutes=minutes),
        task="panoptic",
        model=model,
        init="scratch",
        out=run,
    )
    found = evaluate(load(run), scenes, metrics=PANOPTIC)
    values = dict(found.values)
    for task, names in BY_TASK.items() if load(run).network.OUTPUT == "queries" else ():
        values |= evaluate(load(run, task=task), scenes, metrics=names, resamples=0).values
    return with_panoptic(values, found.values, found.intervals["PQ"])


def with_panoptic(values: dict[str, float], panoptic: dict[str, float], interval: tuple[float, float]) -> dict[str, Any]:
    """The columns of a row: scores by task, and those of the panoptic answers."""
    named = {f"panoptic {name}": panoptic[name] for name in ("AP", "mIoU")}
    return {"values": {name: (dict(values) | named)[name] for name in COLUMNS}, "interval": interval}


def floor_of(folder: Path) -> Any:
    """A predictor without a network: the most frequent class at each pixel of the training scenes, things in their pieces."""
    import numpy as np
    from scipy.ndimage import label

    from segwright import Segmentation
    from segwright.formats import open_dataset

    scenes = open_dataset(folder / "train")
    counts = np.zeros((len(scenes.classes), *scenes[0].truth.shape), np.int32)
    for sample in scenes:
        class_map = sample.truth.class_map()
        for k in range(len(counts)):
            counts[k] += class_map == k
    usual = counts.argmax(axis=0)
    segments, class_ids, numbers = np.zeros(usual.shape, np.int32), list[int](), list[int]()
    for k, is_thing in enumerate(scenes.classes.is_thing):
        pieces, count = label(usual == k) if is_thing else (usual == k, int((usual == k).any()))
        segments = np.where(pieces > 0, pieces + len(class_ids), segments)
        numbers += range(1 + max(numbers, default=0), 1 + max(numbers, default=0) + count) if is_thing else [0] * count
        class_ids += [k] * count
    answer = Segmentation.panoptic(segments, class_ids, numbers, classes=scenes.classes)
    return lambda sample: answer


if __name__ == "__main__":
    main()

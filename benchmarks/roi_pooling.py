"""RoIAlign beside RoIPool: one Mask R-CNN on nuclei with the one and with the other, from the same weights in as many steps.

    python benchmarks/roi_pooling.py --minutes 20

Mask R-CNN's paper (arXiv 1703.06870, table 2c) has RoIPool at 26.9 AP, 48.8 AP50 and 26.4 AP75 on COCO, and RoIAlign at 30.3,
51.2 and 31.5: it gains most where masks have to be exact. Here a network is planned once, as `segwright fit` would for so many
minutes (or it takes so many `--steps`), and trained twice by the same plan and seed, from random weights; the second time with
`model.conventions = "roi_pool"`, which changes nothing but how features are cut out of maps (`layers/roi_pool.py`). Each is
scored at its best validation, by PyTorch, on images that touch none that it learnt from (`fit_nuclei.py` says which).

The difference is RoIAlign less RoIPool on the same images, with its 95 % interval and the p-value of swapping what the two
predict on an image (`segwright metrics --against`); gain is its share of RoIPool's score. Both know of images alone: what
another seed would change, `--seeds 3` shows.
"""

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fit_nuclei import DATA, THREADS, lay_out

SCORES = ("AP", "AP50", "AP75")
SIDES = {"RoIAlign": "segwright", "RoIPool": "roi_pool"}  # by what the network's config calls it


def main() -> None:
    """Print a row for each side and seed, as they finish, and how they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="of which the planner makes the steps of each training")
    parser.add_argument("--steps", type=int, help="instead of those")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default="mask_rcnn_small", help="a preset with RoIAlign: Mask R-CNN, Cascade or PointRend")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="PATH=VALUE", help="of the plan of both")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, help="a file to which each row is appended")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    with tempfile.TemporaryDirectory() as folder:
        lay_out(arguments.data, Path(folder))
        made = planned_once(Path(folder), arguments)
        print(f"{made.plan.training.steps} steps of {made.plan.training.batch_size} crops {list(made.plan.training.crop)}")
        print(f"\n| side | seed | {' | '.join(SCORES)} |\n|---|--:|{'--:|' * len(SCORES)}", flush=True)
        for seed in range(arguments.seeds):
            tallies = {}
            for side, conventions in SIDES.items():
                tallies[side] = tally = learnt(made, Path(folder) / f"{conventions}-{seed}", conventions, seed)
                values = tally.scores(resamples=0).values
                told(side, seed, [f"{values[name]:.4f}" for name in SCORES], values, arguments.json)
            compare(tallies, seed, arguments.json)


def planned_once(folder: Path, arguments: argparse.Namespace) -> Any:
    """The plan of both sides, with its data."""
    import torch

    from segwright.planning.budget import Budget
    from segwright.planning.planner import planned
    from segwright.planning.start import Wish

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS)
    steps = [] if arguments.steps is None else [f"training.steps={arguments.steps}"]
    return planned(
        str(folder / "train"),
        val=str(folder / "val"),
        fold=None,
        budget=Budget(minutes=arguments.minutes),
        task="instance",
        model=arguments.model,
        wish=Wish(weights="scratch"),
        settings=[*arguments.settings, *steps],
        on_top=True,
    )


def learnt(made: Any, run: Path, conventions: str, seed: int) -> Any:
    """What average precision counts on the validation images of a network that was trained by the plan with a way to pool."""
    from segwright.evaluation.evaluate import count_predictions
    from segwright.inference.engine import TorchEngine
    from segwright.inference.load import load
    from segwright.training.loop import train

    plan = made.plan
    plan = replace(
        plan,
        model=replace(plan.model, conventions=conventions),
        training=replace(plan.training, seed=plan.training.seed + seed),
    )
    train(plan, run, splits=made.splits, values=made.values)
    predictor = load(run)
    predictor = replace(predictor, engine=TorchEngine(predictor.network))  # the same for both
    return count_predictions(predictor, made.splits.val, metrics=SCORES)


def compare(tallies: dict[str, Any], seed: int, file: Path | None) -> None:
    """Print by how much the first side is better than the second."""
    from segwright.evaluation.evaluate import tally_differences

    rows = {row.score: row for row in tally_differences(tallies["RoIPool"], tallies["RoIAlign"])}
    cells = []
    for name in SCORES:
        row = rows[name]
        gain = f"{row.difference / row.first:+.1%}" if row.first else "-"
        cells.append(f"{row.difference:+.4f} ({row.interval[0]:+.4f} to {row.interval[1]:+.4f}), p {row.p:.2g}, gain {gain}")
    told("difference", seed, cells, {name: rows[name].difference for name in SCORES}, file)


def told(side: str, seed: int, cells: list[str], values: dict[str, float], file: Path | None) -> None:
    """Print a row, and append its numbers to a file if there is one."""
    print(f"| {side} | {seed} | {' | '.join(cells)} |", flush=True)
    if file:
        with file.open("a") as lines:
            lines.write(json.dumps({"side": side, "seed": seed} | {name: values[name] for name in SCORES}) + "\n")


if __name__ == "__main__":
    main()

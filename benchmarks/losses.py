"""Losses, forward and backward, against four libraries on one core, at (2, 21, 512, 512) and (2, 4, 96, 96, 96) in float32.

    python benchmarks/losses.py

Each row is one loss and a library that has it: MONAI, segmentation_models.pytorch (smp), torchvision, nnU-Net or torch. Both
sides take the same logits and class map; a truth in one-hot form, where a library needs one, is made in its time, since a
data loader gives class maps. The sides run in turns within one process, so that whatever else the machine does meets all of
them; times are those of the process's clock of CPU time on one thread, of the wall on several.

Memory is the most that torch's allocator held above what it held before, over forward and backward with the gradient of the
logits: the sum of all that it gave out and took back, from the profiler. That is exact and the same at each run, unlike the
resident set, which keeps what was freed. Logits and class map are there before and count for nobody.

A library that is not installed is named, and its rows are left out. For nnU-Net it takes `pip install --no-deps nnunetv2`.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

SHAPES = ((2, 21, 512, 512), (2, 4, 96, 96, 96))
TURNS = 7  # after one that does not count
LIBRARIES = {
    "MONAI": "monai.losses",
    "smp": "segmentation_models_pytorch.losses",
    "torchvision": "torchvision.ops",
    "nnU-Net": "nnunetv2.training.loss.compound_losses",
}

Side = Callable[[Any, Any], Any]  # logits and class map to a scalar


@dataclass(frozen=True)
class Row:
    """A loss, who else has it, and both ways to it."""

    loss: str
    library: str
    ours: Side
    theirs: Side


def main() -> None:
    """Print a table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="*", metavar="LOSS", help="of the first column, such as dice; all without any")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    import torch

    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    parts = {name: part for name, module in LIBRARIES.items() if (part := found(name, module)) is not None}
    rows = [row for row in [*ours_and_theirs(parts)] if not arguments.losses or row.loss in arguments.losses]
    for shape in SHAPES:
        print(f"\n{' x '.join(map(str, shape))}\n")
        print("| loss | library | ours ms | theirs ms | times as fast, median (min to max) | ours MB | theirs MB | share |")
        print("|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(shape, generator=generator)
        target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
        for row in rows:
            print(compared(row, logits, target, arguments.turns, clock), flush=True)


def found(name: str, module: str) -> Any:
    """A library's losses, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        print(f"{name} is not installed ({error}); its rows are left out", file=sys.stderr)
        return None


def compared(row: Row, logits: Any, target: Any, turns: int, clock: Callable[[], float]) -> str:
    """A line of the table."""
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(turns + 1):
        for name in taken:
            start = clock()
            step(getattr(row, name), logits, target)
            if turn:
                taken[name].append(clock() - start)
    ratios = [theirs / ours for ours, theirs in zip(taken["ours"], taken["theirs"], strict=True)]
    ours, theirs = (statistics.median(taken[name]) * 1e3 for name in taken)
    memory = [peak_mb(side, logits, target) for side in (row.ours, row.theirs)]
    return (
        f"| {row.loss} | {row.library} | {ours:.0f} | {theirs:.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f}) | {memory[0]:.0f} | {memory[1]:.0f} | {memory[0] / memory[1]:.2f} |"
    )


def step(side: Side, logits: Any, target: Any) -> None:
    """One forward and backward pass."""
    side(logits.detach().requires_grad_(), target).backward()


def peak_mb(side: Side, logits: Any, target: Any) -> float:
    """The most that a step held above what was there before, in MB."""
    from torch.profiler import ProfilerActivity, profile

    given = logits.detach().requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        side(given, target).backward()
    events = sorted(
        (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    held = most = 0
    for event in events:
        held += event.nbytes()
        most = max(most, held)
    return most / 1e6


def ours_and_theirs(parts: dict[str, Any]) -> Iterator[Row]:
    """All rows of the libraries that are there."""
    from torch.nn import functional as F

    from segwright.losses.cross_entropy import CrossEntropy
    from segwright.losses.weighted_sum import WeightedSum

    yield Row("cross_entropy", "torch", CrossEntropy(), F.cross_entropy)
    smooth = CrossEntropy(label_smoothing=0.1)
    yield Row("cross_entropy, smoothed", "torch", smooth, lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1))
    if monai := parts.get("MONAI"):
        yield Row("weighted_sum", "MONAI", WeightedSum(), on_map(monai.DiceCELoss(softmax=True, to_onehot_y=True)))
        yield from of_monai(monai)
    if smp := parts.get("smp"):
        yield from of_smp(smp)
    if torchvision := parts.get("torchvision"):
        from segwright.losses.sigmoid_focal import SigmoidFocal

        yield Row("sigmoid_focal", "torchvision", SigmoidFocal(alpha=0.25), torchvision_focal(torchvision))
    if "nnU-Net" in parts:
        yield from of_nnunet(parts["nnU-Net"])


def of_monai(monai: Any) -> Iterator[Row]:
    """Losses that MONAI has."""
    from segwright.losses.cl_dice import ClDice
    from segwright.losses.dice import Dice
    from segwright.losses.focal import Focal
    from segwright.losses.generalised_dice import GeneralisedDice
    from segwright.losses.hausdorff import Hausdorff
    from segwright.losses.jaccard import Jaccard
    from segwright.losses.sigmoid_focal import SigmoidFocal
    from segwright.losses.tversky import Tversky

    given = {"softmax": True, "to_onehot_y": True}
    yield Row("dice", "MONAI", Dice(), on_map(monai.DiceLoss(**given)))
    yield Row("jaccard", "MONAI", Jaccard(), on_map(monai.DiceLoss(jaccard=True, **given)))
    yield Row("generalised_dice", "MONAI", GeneralisedDice(), on_map(monai.GeneralizedDiceLoss(**given)))
    yield Row("tversky", "MONAI", Tversky(), on_map(monai.TverskyLoss(alpha=0.3, beta=0.7, **given)))
    yield Row("focal", "MONAI", Focal(), on_map(monai.FocalLoss(use_softmax=True, to_onehot_y=True)))
    yield Row("hausdorff", "MONAI", Hausdorff(include_background=False), on_map(monai.HausdorffDTLoss(**given)))
    yield Row("cl_dice", "MONAI", ClDice(), on_map(monai.SoftclDiceLoss(include_background=False, **given)))
    yield Row("sigmoid_focal", "MONAI", SigmoidFocal(), on_map(monai.FocalLoss(to_onehot_y=True)))


def of_smp(smp: Any) -> Iterator[Row]:
    """Losses that segmentation_models.pytorch has."""
    from segwright.losses.binary_cross_entropy import BinaryCrossEntropy
    from segwright.losses.cross_entropy import CrossEntropy
    from segwright.losses.dice import Dice
    from segwright.losses.focal_tversky import FocalTversky
    from segwright.losses.jaccard import Jaccard
    from segwright.losses.lovasz_softmax import LovaszSoftmax
    from segwright.losses.sigmoid_focal import SigmoidFocal

    yield Row("dice", "smp", Dice(over_batch=True), smp.DiceLoss("multiclass"))
    yield Row("lovasz_softmax", "smp", LovaszSoftmax(), smp.LovaszLoss("multiclass", ignore_index=-1))
    yield Row("jaccard", "smp", Jaccard(over_batch=True), smp.JaccardLoss("multiclass"))
    power = {"alpha": 0.3, "beta": 0.7, "gamma": 0.75}
    yield Row("focal_tversky", "smp", FocalTversky(over_batch=True), smp.TverskyLoss("multiclass", **power))
    yield Row("sigmoid_focal", "smp", SigmoidFocal(), smp.FocalLoss("multiclass"))
    smooth = CrossEntropy(label_smoothing=0.1)
    yield Row("cross_entropy, smoothed", "smp", smooth, smp.SoftCrossEntropyLoss(smooth_factor=0.1))
    loss = smp.SoftBCEWithLogitsLoss()
    yield Row("binary_cross_entropy", "smp", BinaryCrossEntropy(), lambda x, t: loss(x, one_hot(x, t)))


def of_nnunet(nnunet: Any) -> Iterator[Row]:
    """Losses that nnU-Net has, with its own settings."""
    import torch

    from segwright.losses.cross_entropy import CrossEntropy
    from segwright.losses.dice import Dice
    from segwright.losses.top_k import TopK
    from segwright.losses.weighted_sum import WeightedSum

    dice = importlib.import_module("nnunetv2.training.loss.dice").MemoryEfficientSoftDiceLoss
    robust = importlib.import_module("nnunetv2.training.loss.robust_ce_loss")
    settings = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    alone = dice(apply_nonlin=lambda x: torch.softmax(x, 1), **settings)
    ours = Dice(over_batch=True, include_background=False)
    yield Row("dice", "nnU-Net", ours, on_map(alone))
    yield Row("cross_entropy", "nnU-Net", CrossEntropy(), on_map(robust.RobustCrossEntropyLoss()))
    yield Row("top_k", "nnU-Net", TopK(), on_map(robust.TopKLoss(k=10)))
    both = WeightedSum(terms=(CrossEntropy(), ours), weights=(1.0, 1.0))
    yield Row("weighted_sum", "nnU-Net", both, on_map(nnunet.DC_and_CE_loss(settings, {}, dice_class=dice)))


def on_map(loss: Any) -> Side:
    """A loss that wants class maps with an axis of one class, (B, 1, *S)."""
    return lambda logits, target: loss(logits, target[:, None])


def one_hot(logits: Any, target: Any) -> Any:
    """The truth of each class, (B, K, *S), for losses that know no class maps."""
    return logits.new_zeros(logits.shape).scatter_(1, target[:, None], 1.0)


def torchvision_focal(ops: Any) -> Side:
    """torchvision's focal loss of a class map."""
    return lambda logits, target: ops.sigmoid_focal_loss(logits, one_hot(logits, target), 0.25, 2, "mean")


if __name__ == "__main__":
    main()

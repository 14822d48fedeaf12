"""Minutes against minutes: `segwright fit` from trained weights and from none, and U-Nets of segmentation_models.pytorch.

    python benchmarks/fit_camvid.py ../shared/data/camvid ../shared/data/membrane --minutes 10 --json results.jsonl

Each side runs alone in a fresh process on two cores, and sees the same training images and no others. All are scored by the
same code on the same images at their original size.

* segwright: its minutes hold all that the command does, from its start to the report, its own planning, validations and
  final scoring too. That is what a person waits for. It starts from the weights of the extra [weights].
* scratch: the same from random weights (`--init scratch`).
* trained: a U-Net of smp on the same encoder (EfficientNet-Lite0) from the same weights and with their intake; else as plain.
* plain: a U-Net with a ResNet-34 encoder from random weights, Adam at 1e-3, cross-entropy, batches of 8 random crops, mirrored
  at random, float32, as the examples of smp do it. Its minutes hold reading the images and training. Starting Python and the
  final scoring come on top, in its favour.
* strong: the same with what an expert adds on such a machine: bfloat16, channels-last and a cosine decay that ends with the
  minutes.

A folder holds `train/` and `val/`, or one set of images of which the last `--hold-out` in name order are held out.
Axes: B batch, C channels, K classes, H, W.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

THREADS = 2  # the machine that the figures are for
SEGWRIGHT = {"segwright": [], "scratch": ["--init", "scratch"]}  # what is added to its command
SIDES = (*SEGWRIGHT, "trained", "plain", "strong")
LITE = "tf_efficientnet_lite0"  # the encoder of the trained side, as segwright chooses it where minutes are few
BATCH = 8
CROP = 320  # pixels, a multiple of 32 as the encoder needs; the size that smp's own CamVid example trains on
STEP = 32  # the encoder halves five times
LEARNING_RATE = 1e-3


# The parent: one process per side


def main() -> None:
    """Print a table with one row per data set and side, as they finish."""
    arguments = parsed()
    if arguments.child:
        print(json.dumps(baseline(arguments)))
        return
    limit_threads()
    print("| data | side | minutes | wall s | images seen | val mIoU | 95 % interval |", flush=True)
    print("|---|---|--:|--:|--:|--:|---|", flush=True)
    for folder in arguments.data:
        if not folder.is_dir():
            print(f"{folder} is not here, left out; name other folders on the command line", file=sys.stderr)
            continue
        with splits(folder, arguments.hold_out) as (train, val):
            for side in arguments.sides:
                result = {"data": folder.name, "side": side, "minutes": arguments.minutes, "seed": arguments.seed}
                run = run_segwright if side in SEGWRIGHT else run_child
                result |= run(side, train, val, arguments)
                print(row(result), flush=True)
                if arguments.json:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(result) + "\n")


def parsed() -> argparse.Namespace:
    """The command line; `--child` is how this script calls itself for the plain sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("data", nargs="*", type=Path, default=[shared / "camvid", shared / "membrane"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crop", type=int, default=CROP, help="side of the plain sides' crops, a multiple of 32")
    parser.add_argument("--hold-out", type=int, default=4, help="images held out where there is no val/ folder")
    parser.add_argument("--json", type=Path, help="file to append one line per result to")
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--val", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def limit_threads() -> None:
    """Two cores for this process and those it starts, whatever library they compute with."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    for library in ("OMP", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(THREADS)


@contextmanager
def splits(folder: Path, hold_out: int) -> Iterator[tuple[Path, Path]]:
    """The folders to train and to score on; links in a temporary folder where one set of images is to be split."""
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        yield folder / "train", folder / "val"
        return
    stems = sorted(path.stem for path in (folder / "images").iterdir())
    with tempfile.TemporaryDirectory() as temporary:
        for split, chosen in (("train", stems[:-hold_out]), ("val", stems[-hold_out:])):
            for kind in ("images", "masks"):
                target = Path(temporary) / folder.name / split / kind
                target.mkdir(parents=True)
                for path in (folder / kind).iterdir():
                    if path.stem in chosen:
                        (target / path.name).symlink_to(path.resolve())
            if (folder / "classes.json").exists():
                (target.parent / "classes.json").symlink_to((folder / "classes.json").resolve())
        yield Path(temporary) / folder.name / "train", Path(temporary) / folder.name / "val"


def run_segwright(side: str, train: Path, val: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores of `segwright fit`, from the files that it leaves."""
    from segwright.evaluation.scores import Scores
    from segwright.plans.plan import Plan
    from segwright.training.run_dir import read_log

    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        command = [str(Path(sys.executable).with_name("segwright")), "fit", str(train), "--val", str(val), "--out", str(run)]
        command += ["--minutes", str(arguments.minutes), "--device", "cpu", "--set", f"training.seed={arguments.seed}"]
        command += SEGWRIGHT[side]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        scores = Scores.from_json((run / "scores.json").read_text())
        plan, steps = Plan.read(run), read_log(run)[-1]["step"]
        return {
            "wall_s": wall,
            "images": steps * plan.training.batch_size,
            "steps": steps,
            "mIoU": scores.values["mIoU"],
            "interval": scores.intervals["mIoU"],
            "model": type(plan.model).__module__.rsplit(".", maxsplit=1)[-1],
        }


def run_child(side: str, train: Path, val: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores of a plain side, from a fresh process of this script."""
    command = [sys.executable, __file__, str(train), "--val", str(val), "--child", side]
    command += ["--minutes", str(arguments.minutes), "--seed", str(arguments.seed), "--crop", str(arguments.crop)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"wall_s": time.perf_counter() - start}


def row(result: dict[str, Any]) -> str:
    """One line of the table."""
    low, high = result["interval"]
    return (
        f"| {result['data']} | {result['side']} | {result['minutes']:g} | {result['wall_s']:.0f} | {result['images']} "
        f"| {result['mIoU']:.3f} | {low:.3f} to {high:.3f} |"
    )


# The child: the plain sides


def baseline(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train for the minutes, then score."""
    import segmentation_models_pytorch as smp
    import torch

    from segwright.evaluation.evaluate import evaluate
    from segwright.formats import open_dataset

    torch.set_num_threads(THREADS)
    torch.manual_seed(arguments.seed)
    is_strong = arguments.child == "strong"
    start = time.perf_counter()  # the libraries are loaded; reading and training count from here
    train_set = open_dataset(arguments.data[0])
    images, targets = cached(train_set, arguments.crop)
    pixels = torch.cat([image.flatten(1)[:, ::101] for image in images], dim=1).float()  # every 101st tells mean and spread
    mean, std = pixels.mean(dim=1)[:, None, None], pixels.std(dim=1)[:, None, None]  # (C, 1, 1)
    if arguments.child == "trained":
        net, (mean, std) = trained_unet(len(mean), len(train_set.classes))
    else:
        net = smp.Unet("resnet34", encoder_weights=None, in_channels=len(mean), classes=len(train_set.classes))
    if is_strong:
        net = net.to(memory_format=torch.channels_last)
    steps = optimise(net, images, targets, (mean, std), arguments, is_strong=is_strong, start=start)
    trained = time.perf_counter() - start
    net.eval()
    val_set = open_dataset(arguments.val)
    scores = evaluate(lambda sample: predict(net, sample, (mean, std), val_set.classes, is_strong), val_set)
    return {
        "images": steps * BATCH,
        "steps": steps,
        "trained_s": trained,
        "mIoU": scores.values["mIoU"],
        "interval": scores.intervals["mIoU"],
        "crop": arguments.crop,
    }


def trained_unet(channels: int, classes: int) -> tuple[Any, tuple[Any, Any]]:
    """smp's U-Net on the encoder and weights that segwright starts from, and the mean and spread (C, 1, 1) these know."""
    import segmentation_models_pytorch as smp
    import torch

    from segwright.encoders import timm

    net = smp.Unet(f"tu-{LITE}", encoder_weights=None, in_channels=channels, classes=classes)
    weights = timm.fetch(timm.Config(name=LITE).build(channels))
    net.encoder.model.load_state_dict({name.removeprefix("network."): tensor for name, tensor in weights.items()})
    intake = timm.intake(LITE)
    mean, std = (torch.tensor(values[:channels])[:, None, None] for values in (intake.mean, intake.std))
    return net, (mean, std)


def cached(dataset: Any, crop: int) -> tuple[list[Any], list[Any]]:
    """All images (C, H, W), bytes as bytes, and targets int64 (H, W), void beyond the edge of those smaller than the crop."""
    import numpy as np
    import torch
    from torch.nn.functional import pad

    images, targets = [], []
    for sample in dataset:
        height, width = sample.image.shape[1:]
        missing = (0, max(0, crop - width), 0, max(0, crop - height))
        image = sample.image if sample.image.dtype == np.uint8 else sample.image.astype(np.float32)
        images.append(pad(torch.tensor(image), missing))
        targets.append(pad(torch.tensor(sample.truth.class_map()).long(), missing, value=-1))
    return images, targets


def optimise(net, images, targets, statistics, arguments, *, is_strong: bool, start: float) -> int:
    """Train until the minutes are over; the number of steps."""
    import torch

    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    criterion = torch.nn.CrossEntropyLoss(ignore_index=-1)
    generator = torch.Generator().manual_seed(arguments.seed)
    batches = drawn(images, targets, arguments.crop, generator)
    seconds, steps = 60 * arguments.minutes, 0
    net.train()
    while (elapsed := time.perf_counter() - start) < seconds or not steps:
        if is_strong:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * elapsed / seconds))
        batch, target = next(batches)
        batch = (batch - statistics[0]) / statistics[1]
        if is_strong:
            batch = batch.to(memory_format=torch.channels_last)
        with mixed_precision(is_strong):
            loss = criterion(net(batch).float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    print(f"last loss {loss.item():.3f} after {steps} steps", file=sys.stderr)
    return steps


def drawn(images, targets, crop: int, generator) -> Iterator[tuple[Any, Any]]:
    """Batches of random crops, float (B, C, H, W), with their targets (B, H, W), half of them mirrored.

    Each image comes once before any comes again.
    """
    import torch

    queue: list[int] = []
    while True:
        while len(queue) < BATCH:
            queue += torch.randperm(len(images), generator=generator).tolist()
        pieces, truths = [], []
        for index in queue[:BATCH]:
            height, width = targets[index].shape
            top, left, is_mirrored = (
                int(torch.randint(count, (1,), generator=generator)) for count in (height - crop + 1, width - crop + 1, 2)
            )
            piece = images[index][:, top : top + crop, left : left + crop]
            truth = targets[index][top : top + crop, left : left + crop]
            pieces.append(piece.flip(-1) if is_mirrored else piece)
            truths.append(truth.flip(-1) if is_mirrored else truth)
        del queue[:BATCH]
        yield torch.stack(pieces).float(), torch.stack(truths)


def predict(net, sample, statistics, classes, is_strong: bool):
    """The Segmentation of a whole image, its right and lower edge repeated up to the next multiple of 32."""
    import torch
    from torch.nn.functional import pad

    from segwright import Segmentation

    height, width = sample.image.shape[1:]
    image = (torch.tensor(sample.image).float() - statistics[0]) / statistics[1]
    image = pad(image[None], (0, -width % STEP, 0, -height % STEP), mode="replicate")
    with torch.inference_mode(), mixed_precision(is_strong):
        logits = net(image.to(memory_format=torch.channels_last) if is_strong else image)
    return Segmentation.semantic(logits[0, :, :height, :width].argmax(dim=0).numpy(), classes)


def mixed_precision(is_on: bool):
    """bfloat16 where it is on."""
    import torch

    return torch.autocast("cpu", torch.bfloat16) if is_on else nullcontext()


if __name__ == "__main__":
    main()

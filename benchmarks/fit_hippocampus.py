"""Volumes after minutes: `segwright fit` on the hippocampus, and nnU-Net's 3d_fullres and 2d, on two cores.

    python benchmarks/fit_hippocampus.py --minutes 15        (python -m pip install nnunetv2==2.8.1 for nnU-Net's sides)
    python benchmarks/fit_hippocampus.py planned --minutes 15 --threads 1 --held-out 1 2 3 4 5 6

The data are those 200 volumes of the Medical Segmentation Decathlon (task 4) that lie in ../shared/data. A sixth of the
subjects is held out, the last or `--held-out` 1 to 6, left and right hippocampus of one subject together; of several sixths
each is held out in a run of its own. Each side runs alone in a fresh process; all are scored by the same code: the Dice of each
class, averaged over the volumes held out, and the mean.

* NAME (such as planned, unet_3d): `segwright fit`, with the network that the planner chooses or with that preset. Its minutes
  hold all that the command does: planning, validations, scoring and the report too.
* nnunet_3d_fullres, nnunet_2d: nnU-Net v2 with its own fingerprint, plan, preprocessing, augmentation and loss, trained by a
  trainer that ends with the minutes instead of after 1000 epochs, and its learning rate with it. Its minutes hold planning and
  preprocessing, this configuration alone, and training; there is no validation on the way. Starting Python, prediction with
  mirroring and the export come on top, in its favour. Augmentation has one process beside that of the network.

nnU-Net's published figures are about 0.90 and 0.89 after 1000 epochs of 250 batches, with four fifths of all 260 volumes.
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
DATA = Path(__file__).parents[2] / "shared" / "data" / "hippocampus"
SIDES = ("planned", "nnunet_3d_fullres", "nnunet_2d")
PEER = "nnunet_"
CLASSES = ("Anterior", "Posterior")
SIXTHS = 6  # of the subjects, of which one is held out
SAME_SUBJECT = {(299, 300): 245}  # besides 2k - 1 and 2k; the README of the data tells why
PEER_DATA, PEER_PLANS = "Dataset004_Hippocampus", "nnUNetPlans"
POWER = 0.9  # of nnU-Net's decay of the learning rate
RESAMPLES = 2000  # of the volumes, for the interval


def main() -> None:
    """Print a table with one row per side, as they finish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", default=SIDES, metavar="SIDE", help=f"of those above; {', '.join(SIDES)}")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=THREADS, help="cores")
    parser.add_argument("--held-out", type=int, nargs="+", default=[SIXTHS], choices=range(1, SIXTHS + 1), help="which sixths")
    parser.add_argument("--seed", type=int, default=0, help="of the run, of `segwright fit` alone")
    parser.add_argument("--json", type=Path, help="a file to which each row is appended")
    parser.add_argument("--keep", type=Path, help="a folder for runs and predictions; else they are deleted")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(scored(arguments.sides[0], arguments.child, arguments.minutes, arguments.threads, arguments.seed)))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.threads :])
    print(f"| side | held out | minutes | wall s | {' | '.join(CLASSES)} | mean Dice | 95 % interval | volumes seen |")
    print(f"|---|---|--:|--:|{'--:|' * len(CLASSES)}--:|---|--:|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for side in arguments.sides:
            rows = list[list[float]]()
            for sixth in arguments.held_out:
                folder = (arguments.keep or Path(temporary)) / f"held_out_{sixth}"
                lay_out(arguments.data, folder, sixth)
                options = [f"--{name}={getattr(arguments, name)}" for name in ("minutes", "threads", "seed")]
                command = [sys.executable, __file__, side, *options, "--child", str(folder)]
                start = time.perf_counter()
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                result = json.loads(done.stdout.splitlines()[-1]) | {"side": side, "held_out": sixth}
                wall = f"{arguments.minutes:g} | {time.perf_counter() - start:.0f}"
                print(f"| {side} | {sixth} | {wall} | {scores(result['rows'])} | {result['seen']} |", flush=True)
                rows += result["rows"]
                if arguments.json:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(result) + "\n")
            if len(arguments.held_out) > 1:
                print(f"| {side} | all {len(rows)} | | | {scores(rows)} | |", flush=True)


def scores(rows: list[list[float]]) -> str:
    """The cells of a table for the Dice (volumes, classes): of each class, their mean, and its interval over volumes."""
    import numpy as np

    dice = np.array(rows)
    drawn = dice.mean(axis=1)[np.random.default_rng(0).integers(0, len(dice), (RESAMPLES, len(dice)))].mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return " | ".join(f"{value:.3f}" for value in [*dice.mean(axis=0), dice.mean()]) + f" | {low:.3f} to {high:.3f}"


def parts_of(data: Path, held_out: int) -> dict[str, list[str]]:
    """The names of the volumes to learn from and of those held out: a sixth of the subjects, 1 to 6."""
    also = {other: first for (first, _), other in SAME_SUBJECT.items()}
    subjects: dict[int, list[str]] = {}
    for path in sorted((data / "labelsTr").glob("*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        number = int(name.rpartition("_")[2])
        subjects.setdefault((also.get(number, number) + 1) // 2, []).append(name)
    order = sorted(subjects)
    size = len(order) // SIXTHS
    end = len(order) - size * (SIXTHS - held_out)
    start = end - size if held_out > 1 else 0  # the first takes what six do not divide
    parts = {"train": order[:start] + order[end:], "val": order[start:end]}
    return {part: [name for k in keys for name in subjects[k]] for part, keys in parts.items()}


def lay_out(data: Path, folder: Path, held_out: int) -> None:
    """Links to the volumes in folders train/ and val/, and once more to those of train/ where nnU-Net looks for raw data."""
    parts = parts_of(data, held_out)
    raw = folder / "nnunet" / "raw" / PEER_DATA
    for target, names in ((folder / "train", parts["train"]), (folder / "val", parts["val"]), (raw, parts["train"])):
        for kind, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            (target / kind).mkdir(parents=True, exist_ok=True)
            for name in names:
                link = target / kind / f"{name}{ending}"
                if not link.is_symlink():
                    link.symlink_to((data / kind / link.name).resolve())
        content = json.loads((data / "dataset.json").read_text()) | {"numTraining": len(names)}
        (target / "dataset.json").write_text(json.dumps(content))


def scored(side: str, folder: Path, minutes: float, threads: int, seed: int) -> dict[str, Any]:
    """The Dice (volumes, classes) of a side and the volumes that it saw, in a fresh process."""
    import torch

    from segwright.formats import open_dataset

    torch.set_num_threads(threads)
    val_set = open_dataset(folder / "val")
    if side.startswith(PEER):
        predict, seen = peer_of(side.removeprefix(PEER), folder, minutes, threads)
    else:
        predict, seen = ours_of(side, folder, minutes, seed)
    rows = [dice_of(predict(key), val_set.load(key).truth.class_map()) for key in val_set.keys]
    return {"rows": rows, "seen": seen}


def dice_of(found: Any, true: Any) -> list[float]:
    """The Dice of each foreground class of two class maps (D, H, W); every volume holds both."""
    return [
        2 * int(((found == k) & (true == k)).sum()) / (int((found == k).sum()) + int((true == k).sum()))
        for k in range(1, 1 + len(CLASSES))
    ]


def ours_of(side: str, folder: Path, minutes: float, seed: int) -> tuple[Any, int]:
    """From keys to class maps (D, H, W) by a run of `segwright fit`, and the crops that it has seen."""
    from segwright.formats import open_dataset
    from segwright.inference.load import load
    from segwright.planning.budget import Budget
    from segwright.plans.plan import Plan
    from segwright.workflow import fit

    run, model = folder / f"run_{side}", None if side == "planned" else side
    settings = [f"training.seed={seed}"] if seed else []
    fit(folder / "train", val=folder / "val", budget=Budget(minutes=minutes), model=model, out=run, settings=settings)
    predictor, val_set = load(run), open_dataset(folder / "val")
    training = Plan.read(run).training
    return lambda key: predictor(val_set.load(key)).class_map(), training.steps * training.batch_size


def peer_of(configuration: str, folder: Path, minutes: float, threads: int) -> tuple[Any, int]:
    """From keys to class maps (D, H, W) by nnU-Net after so many minutes, and the patches that it has seen."""
    end = time.monotonic() + 60 * minutes
    home = folder / "nnunet"
    for name in ("raw", "preprocessed", "results"):
        (home / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(home / name)
    os.environ |= {"nnUNet_n_proc_DA": "1"}
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    from segwright.codecs.volume_file import read_volume

    api.extract_fingerprints([4], num_processes=threads)
    api.plan_experiments([4])
    api.preprocess([4], configurations=(configuration,), num_processes=(threads,))
    trainer, seen = trained_peer(home / "preprocessed" / PEER_DATA, configuration, end)
    found = folder / f"found_{configuration}"
    write_predictions(trainer, folder / "val" / "imagesTr", found)
    return lambda key: read_volume(found / f"{key}.nii.gz")[0][0], seen


def trained_peer(prepared: Path, configuration: str, end: float) -> tuple[Any, int]:
    """nnU-Net's trainer after steps until a moment, at which its learning rate ends, and the patches that it has seen."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, dataset = (json.loads((prepared / name).read_text()) for name in (f"{PEER_PLANS}.json", "dataset.json"))
    names = sorted(path.name.removesuffix(".nii.gz") for path in (prepared / "gt_segmentations").glob("*.nii.gz"))
    splits = [{"train": names, "val": names[:1]}]  # its loaders want one to validate with, at which nothing looks
    (prepared / "splits_final.json").write_text(json.dumps(splits))
    plans["continue_training"] = False  # as its own command says
    trainer = nnUNetTrainer(plans, configuration, 0, dataset, device=torch.device("cpu"))
    trainer.on_train_start()
    trainer.network.train()
    start, seen = time.monotonic(), 0
    while (now := time.monotonic()) < end:
        rate = trainer.initial_lr * (1 - (now - start) / (end - start)) ** POWER
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate
        trainer.train_step(next(trainer.dataloader_train))
        seen += trainer.batch_size
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        loader._finish()
    return trainer, seen


def write_predictions(trainer: Any, images: Path, found: Path) -> None:
    """What nnU-Net predicts of a folder of images, with mirroring, into another."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    found.mkdir(exist_ok=True)
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    predictor.predict_from_files_sequential(str(images), str(found))


if __name__ == "__main__":
    main()

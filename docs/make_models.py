"""Makes docs/models.md: the networks with their sizes and published weights, and what each learns in equal minutes.

The sizes are counted anew, and kept in src/segwright/models/sizes.json, from which `segwright models` reads them.

python docs/make_models.py                             the page, from what was measured before
python docs/make_models.py --fit unet_tiny --minutes 10     fits a network first, and keeps the result
python docs/make_models.py --fit all --minutes 10           the smallest of each file; those that are kept already are left out

Results lie in docs/models_camvid.jsonl, one row a line, of which the last of equal network, minutes and machine counts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segwright.core.lookup import find, names
from segwright.core.weights import Weights
from segwright.evaluation.scores import Scores
from segwright.models import SIDES, SIZES, Row, list_models, network_size, preset, published_encoders, tasks_of
from segwright.plans.plan import Plan
from segwright.training.run_dir import read_log

HERE = Path(__file__).parent
OUT, RESULTS = HERE / "models.md", HERE / "models_camvid.jsonl"
DATA = HERE.parent.parent / "shared" / "data" / "camvid"
THREADS = 2  # cores that a run may take, unless it is told otherwise
MINUTES = 10.0
ALL = "all"

OPENING = """# Networks

Made by `python docs/make_models.py`. `segwright models` prints the first two tables, for a program with `--json`;
`segwright fit DATA --model NAME` trains a network by its name, `--set model.FIELD=VALUE` changes what its file calls a setting.
"""

WEIGHTS = """
## Published weights

A score is its authors', with the data set that it was measured on; Segwright has not measured it again. "unstated" is a licence
that nobody gave: such weights are not free to use for everything, whatever the licence of the code beside them.

| weights | network | trained on | score | licence |
|---|---|---|---|---|"""

CAMVID = """
## What each learns in equal minutes

`segwright fit camvid/train --val camvid/val --model NAME --minutes M`, of each file the smallest network that takes images:
367 frames of roads in 11 classes, scored on 101 frames of another clip. The minutes hold the whole command: planning,
validations and final scoring too. One run was made of each; the interval is a bootstrap over the frames, which follow each
other and are alike, so it is too narrow. What is small and quick sees more images in the minutes than what is large, which is
the point of the table, and no verdict on what a network can learn in a day.

| network | encoder | starts from | minutes | steps | images seen | val mIoU | 95 % interval | machine |
|---|---|---|--:|--:|--:|--:|---|---|"""


def main() -> None:
    """Fit what is asked for, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", nargs="+", default=[], metavar="NAME", help=f"networks to fit first, or {ALL}")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--data", type=Path, default=DATA, help="a folder with train/ and val/")
    parser.add_argument("--again", action="store_true", help="fit those that are kept already too")
    parser.add_argument("--threads", type=int, default=THREADS, help="cores that a run may take, each run alone on them")
    arguments = parser.parse_args()
    SIZES.write_text(sizes(), encoding="utf-8")
    rows = list_models()
    for name in smallest(rows) if ALL in arguments.fit else arguments.fit:
        run = name, arguments.minutes, machine(arguments.threads)
        if not arguments.again and run in map(identity, results()):
            continue
        result = fitted(name, arguments.minutes, arguments.data, arguments.threads)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
    OUT.write_text("\n".join(page(rows)) + "\n", encoding="utf-8")


def sizes() -> str:
    """The text of sizes.json: a line for each preset, in the order of the table of networks."""
    known = {}
    for file in names("segwright.models"):
        known |= find("segwright.models", file).PRESETS
    lines = [f"{json.dumps(name)}: {json.dumps(network_size(config))}" for name, config in known.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def page(rows: list[Row]) -> Iterator[str]:
    """The lines of the whole page."""
    yield OPENING
    sizes = " or ".join(" x ".join(map(str, sides)) for sides in SIDES.values())
    yield f"GFLOPs are for one image of {sizes}; a multiplication and an addition are two operations. Parameters are"
    yield "all that are trained, those of auxiliary heads included.\n"
    yield "| network | file | million parameters | GFLOPs | source |"
    yield "|---|---|--:|--:|---|"
    for row in rows:
        yield f"| {row.name} | `models/{row.file}.py` | {row.parameters_m:.1f} | {row.gflops:.1f} | {row.paper} |"
    yield WEIGHTS
    known: dict[str, Weights] = {name: weights for row in rows for name, weights in row.weights.items()}
    for name, weights in (known | published_encoders()).items():
        yield f"| {name} | {weights.preset} | {weights.trained_on} | {weights.score or '-'} | {weights.licence} |"
    newest = {identity(result): result for result in results()}
    if newest:
        yield CAMVID
    for result in sorted(newest.values(), key=lambda result: (result["minutes"], -result["mIoU"])):
        yield camvid_row(result)


def smallest(rows: list[Row]) -> list[str]:
    """Of each file the network for semantic segmentation with the fewest parameters that takes images, not volumes."""
    found: dict[str, Row] = {}
    for row in rows:
        is_semantic = "semantic" in tasks_of(preset(row.name))
        if is_semantic and len(row.sides) == 2 and (row.file not in found or row.parameters_m < found[row.file].parameters_m):
            found[row.file] = row
    return [row.name for row in found.values()]


def results() -> list[dict[str, Any]]:
    """What was measured before."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def identity(result: dict[str, Any]) -> tuple[str, float, str]:
    """What makes a later row replace an earlier one."""
    return result["network"], result["minutes"], result["machine"]


def machine(threads: int) -> str:
    """The processor, as Linux names it, and how many of its cores are used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{threads} core{'s' * (threads > 1)}, {models[0] if models else platform.processor() or platform.machine()}"


def fitted(name: str, minutes: float, data: Path, threads: int) -> dict[str, Any]:
    """One run of `segwright fit` in a process of its own, and how it ended."""
    preset(name)  # a misspelt name is told before the minutes begin
    environment = os.environ | {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "NUMBA")}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-c", "from segwright.cli.app import main; main()", "fit", str(data / "train")]
        command += [
            "--val",
            str(data / "val"),
            "--out",
            str(run),
            "--model",
            name,
            "--minutes",
            str(minutes),
            "--device",
            "cpu",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        wall = time.perf_counter() - start
        scores, plan = Scores.from_json((run / "scores.json").read_text()), Plan.read(run)
        steps = read_log(run)[-1]["step"]
    return {
        "network": name,
        "encoder": encoder_of(plan.model),
        "init": str(plan.init.weights) if plan.init.weights is not None else "random weights",
        "minutes": minutes,
        "wall_s": round(wall),
        "steps": steps,
        "images": steps * plan.training.batch_size,
        "crop": list(plan.training.crop),
        "mIoU": scores.values["mIoU"],
        "interval": list(scores.intervals["mIoU"]),
        "machine": machine(threads),
    }


def encoder_of(config: Any) -> str:
    """The encoder of a network, by its file, and by timm's name where it is timm's."""
    encoder = getattr(config, "encoder", None)
    if encoder is None:
        return "its own"
    file = type(encoder).__module__.rsplit(".", maxsplit=1)[-1]
    return f"{file} {encoder.name}" if hasattr(encoder, "name") else file


def camvid_row(result: dict[str, Any]) -> str:
    """One line of the table of equal minutes."""
    low, high = result["interval"]
    return (
        f"| {result['network']} | {result['encoder']} | {result['init']} | {result['minutes']:g} | {result['steps']} "
        f"| {result['images']} | {result['mIoU']:.3f} | {low:.3f} to {high:.3f} | {result['machine']} |"
    )


if __name__ == "__main__":
    main()

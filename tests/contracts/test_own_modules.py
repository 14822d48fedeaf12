"""A task and a network that live outside of segwright go through every command, without a changed line in segwright."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segwright.checkpoints.model_file import read_tensors
from segwright.cli.app import main
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.formats import coco, mask_folder, open_dataset, synthetic

TOYBOX = Path(__file__).parent / "toybox"
ALONE = "import torch; torch.set_num_threads(1); from segwright.cli.app import main; main()"  # what the script does


def boxes(count: int, seed: int) -> Dataset:
    """Grey images 48 x 64 in noise, each with one bright box."""
    classes = Classes.of(["box"], is_thing=[True])

    def load(key: str) -> Sample:
        rng = np.random.default_rng([seed, int(key[3:])])
        (top, left), (height, width) = rng.integers(2, 20, 2), rng.integers(12, 26, 2)
        mask = np.zeros((1, 48, 64), bool)
        mask[0, top : top + height, left : left + width] = True
        image = rng.integers(0, 40, (1, 48, 64)) + 180 * mask
        return Sample.of(key, image.astype(np.uint8), Segmentation.instances(mask, [0], classes=classes))

    return Dataset("memory", classes, tuple(f"box{n}" for n in range(count)), load)


@pytest.fixture
def here(tmp_path) -> Path:
    """A folder with a package of one's own, and data."""
    shutil.copytree(TOYBOX, tmp_path / "toybox", ignore=shutil.ignore_patterns("__pycache__"))
    coco.write(tmp_path / "data" / "train", boxes(8, seed=1))
    coco.write(tmp_path / "data" / "val", boxes(4, seed=2))
    return tmp_path


def started(here: Path, *words: object) -> subprocess.Popen:
    environment = os.environ | {"XDG_CACHE_HOME": str(here / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-P", "-c", ALONE, *map(str, words)]  # -P: as the script, it does not look into this folder
    return subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def segwright(here, capsys, monkeypatch):
    """Call a command from the folder that a package of one's own lies in; what it prints, or says when it refuses."""
    monkeypatch.chdir(here)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the process that is killed: the order of sums depends on it
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))

    def call(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["segwright", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert end.value.code == code and "Traceback" not in err, err
        return err if code else out

    yield call
    torch.set_num_threads(threads)


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_task_of_ones_own_goes_through_every_command(here, segwright):
    out = segwright("fit", "data", "--task", "toybox.boxes", "--minutes", "0.1", "--out", "run", "--logger", "csv")
    assert "AP50" in out and (here / "run" / "report.html").exists()
    assert out.endswith("predict  segwright predict run IMAGES --own-modules\n")
    plan = (here / "run" / "plan.toml").read_text()
    assert '[task]\nkind = "toybox.boxes" # 8 objects were found' in plan and 'kind = "toybox.net"' in plan
    steps = [record for record in records(here / "run") if "loss" in record]
    assert set(steps[0]["losses"]) == {"middle", "spread"}
    assert steps[0]["samples_per_s"] > 0 and steps[0]["memory_gb"] > 0
    best = max(record["score"] for record in records(here / "run") if "score" in record)
    assert {record["metric"] for record in records(here / "run") if "score" in record} == {"AP50"}
    assert "Validation AP50" in (here / "run" / "report.html").read_text()

    scores = json.loads(segwright("evaluate", "run", "data", "--json", "--own-modules"))
    assert scores["values"]["AP50"] == pytest.approx(best)
    segwright("predict", "run", "data/val/images", "--out", "found", "--overlay", "--own-modules")
    found = open_dataset(here / "found")
    assert len(found) == 4 and found.classes.names == ("box",)
    assert all(sample.truth.scores == pytest.approx([0.9]) and len(sample.truth) == 1 for sample in found)
    measured = json.loads(segwright("metrics", "found", "data/val", "--metrics", "AP50", "--json"))
    assert measured["values"]["AP50"] == pytest.approx(best, abs=1e-6)


def test_a_task_of_ones_own_goes_on_after_a_kill_to_the_bit(here, segwright):
    settings = ["training.steps=300", "training.validations=3"]
    words = [word for setting in settings for word in ("--set", setting)]
    told = segwright("plan", "data", "--task", "toybox.boxes", "--minutes", "0.1", "--out", "plan.toml", *words)
    assert told.endswith("train  segwright train plan.toml --out RUN --own-modules\n")
    process = started(here, "train", "plan.toml", "--out", "killed", "--own-modules")
    while process.poll() is None and not (here / "killed" / "state.safetensors").exists():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert max(record["step"] for record in records(here / "killed")) < 300
    segwright("train", "--resume", "killed", "--own-modules")
    segwright("train", "plan.toml", "--out", "whole", "--own-modules")
    whole, killed = ([(r["step"], r["loss"]) for r in records(here / run) if "loss" in r] for run in ("whole", "killed"))
    assert len(whole) == 300 and whole == killed
    mean = [sum(loss for _, loss in part) / 20 for part in (whole[:20], whole[-20:])]
    assert mean[1] < 0.5 * mean[0] and max(r["score"] for r in records(here / "whole") if "score" in r) > 0.5
    first, second = (read_tensors(here / run / "model.safetensors")[0] for run in ("whole", "killed"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


OWN_NETWORK = '''
"""A network of one's own for classes."""
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True, kw_only=True)
class Config:
    in_channels: int = 3
    num_classes: int = 7
    width: int = 4

    def build(self):
        layers = nn.Conv2d(self.in_channels, self.width, 3, padding=1), nn.ReLU(), nn.Conv2d(self.width, self.num_classes, 1)
        return nn.Sequential(*layers)
'''


def test_a_network_of_ones_own_goes_through_every_command(here, segwright):
    (here / "mynet.py").write_text("")
    (here / "mypkg").mkdir()
    (here / "mypkg" / "__init__.py").write_text("")
    (here / "mypkg" / "net.py").write_text(OWN_NETWORK)
    for part, count, seed in (("train", 6, 1), ("val", 2, 2)):
        mask_folder.write(here / "cells" / part, synthetic.cells(count, shape=(48, 64), seed=seed))
    settings = ["--set", "model.kind=mypkg.net", "--set", "model.width=6"]
    segwright("fit", "cells", *settings, "--minutes", "0.1", "--out", "run")
    plan = (here / "run" / "plan.toml").read_text()
    assert 'kind = "mypkg.net"' in plan and "num_classes = 2" in plan and "width = 6" in plan and "in_channels = 1" in plan
    assert "mIoU" in segwright("evaluate", "run", "cells", "--own-modules")
    segwright("predict", "run", "cells/val/images", "--own-modules")
    assert len(list((here / "predictions").glob("*.png"))) == 2
    segwright("train", "run/plan.toml", "--out", "again", "--own-modules", "--set", "training.steps=3")
    segwright("train", "--resume", "again", "--own-modules")
    segwright("fit", "cells", *settings, "--minutes", "0.1", "--set", "init.weights=run", "--own-modules", "--out", "more")
    assert records(here / "more")[0]["event"] == "weights from run, all of them"
    assert "could not be" not in segwright("plan", "cells", *settings, "--minutes", "0.1")

    for words in (("train", "run/plan.toml", "--out", "run"), ("fit", "cells", "--out", "run")):
        assert "segwright train --resume run --own-modules, or" in segwright(*words, "--own-modules", code=2)
    for words in (
        ("train", "run/plan.toml", "--out", "third"),
        ("train", "--resume", "again"),
        ("evaluate", "run", "cells"),
        ("predict", "run", "cells/val/images"),
        ("fit", "cells", *settings, "--minutes", "0.1", "--set", "init.weights=run", "--out", "third"),
    ):
        assert "a module outside segwright" in segwright(*words, code=2), words
    assert not (here / "third").exists()

"""Training learns, resumes to the bit, shares work between processes, and stops with a clear word when it must."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from segwright.checkpoints.model_file import read_tensors
from segwright.core.errors import FormatError, OutputError, TrainingError, UsageError
from segwright.core.run_files import STATE_FILE
from segwright.data import store
from segwright.plans.plan import Plan
from segwright.training import loop
from segwright.training.loop import train
from segwright.training.run_dir import read_log

TRAIN = """
import sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from segwright.plans.plan import Plan
from segwright.training import checkpointer, loop
checkpointer.SAVE_EVERY_S = float(sys.argv[3])
folder = Path(sys.argv[2])
loop.train(Plan.read(Path(sys.argv[1])), folder, resume=(folder / "state.safetensors").exists())
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / STATE_FILE)[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def with_training(plan, **changes):
    return replace(plan, training=replace(plan.training, **changes))


def test_a_run_is_the_same_to_the_bit_whether_its_samples_lie_in_memory_or_on_disk(tiny_plan, tmp_path, monkeypatch):
    train(with_training(tiny_plan, steps=4), tmp_path / "memory")
    monkeypatch.setattr(store, "CACHE_BYTES", 0)
    monkeypatch.setattr(store, "LARGE", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("disk", "found again"):
        train(with_training(tiny_plan, steps=4), tmp_path / name)
        assert len(list((tmp_path / "cache" / "segwright" / "samples").iterdir())) == 6
        assert same(weights(tmp_path / "memory"), weights(tmp_path / name))


def test_a_run_learns_and_leaves_its_files(tiny_plan, tmp_path):
    plan = with_training(tiny_plan, steps=60).with_settings(["optimiser.learning_rate=0.005"])
    model = train(plan, tmp_path / "run")
    records = [record for record in read_log(tmp_path / "run") if "loss" in record]
    assert [record["step"] for record in records] == list(range(1, 61))
    assert sum(r["loss"] for r in records[-10:]) < 0.6 * sum(r["loss"] for r in records[:10])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"plan.toml", "log.jsonl", STATE_FILE, "model.safetensors"}
    scores = [record["score"] for record in read_log(tmp_path / "run") if "score" in record]
    assert len(scores) == plan.training.validations and max(scores) > 0.4
    assert model == tmp_path / "run" / "model.safetensors"


def test_a_run_repeats_to_the_bit_and_another_seed_differs(tiny_plan, tmp_path):
    for name in ("a", "b"):
        train(tiny_plan, tmp_path / name)
    train(with_training(tiny_plan, seed=1), tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_network_is_told_how_far_training_is_before_each_step(tiny_plan, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(loop.Learner, "set_progress", lambda learner, progress: told.append(progress))
    train(with_training(tiny_plan, steps=5), tmp_path / "run")
    assert told == [0, 0.2, 0.4, 0.6, 0.8]


def test_validations_are_evenly_spaced_and_the_last_is_at_the_end(tiny_plan, tmp_path):
    train(with_training(tiny_plan, steps=10, validations=3), tmp_path / "run")
    assert [record["step"] for record in read_log(tmp_path / "run") if "score" in record] == [4, 7, 10]


def test_killed_before_a_validation_it_is_made_up_for(tiny_plan, tmp_path, monkeypatch):
    train(tiny_plan, tmp_path / "whole")
    validate = loop.Checkpointer.validate

    def killed(checkpointer, learner, state, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Checkpointer, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_plan, tmp_path / "killed")
    monkeypatch.setattr(loop.Checkpointer, "validate", validate)
    train(tiny_plan, tmp_path / "killed", resume=True)
    scores = [
        [(record["step"], record["score"]) for record in read_log(tmp_path / name) if "score" in record]
        for name in ("whole", "killed")
    ]
    assert scores[0] == scores[1] and same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_killed_at_random_moments_it_ends_as_if_never_stopped(tiny_plan, tmp_path):
    """Five kills at random, with a save after every step, so that some hit the middle of a save."""
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(with_training(tiny_plan, steps=40).to_toml())
    whole = started(plan_file, tmp_path / "whole", 30)
    whole.join()
    assert whole.exitcode == 0
    generator, run = random.Random(0), tmp_path / "killed"
    kills = 0
    for _ in range(60):
        process = started(plan_file, run, 0)
        while not (run / STATE_FILE).exists() and process.is_alive():
            time.sleep(0.01)
        wait_for_work(run, process)
        time.sleep(generator.uniform(0.0, 0.15))
        if kills < 5 and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.join()
            continue
        process.join()
        assert process.exitcode == 0
        break
    assert kills >= 3  # fewer would say little
    assert same(weights(tmp_path / "whole"), weights(run))
    assert same(read_tensors(tmp_path / "whole" / "model.safetensors")[0], read_tensors(run / "model.safetensors")[0])
    whole, killed = ([r for r in read_log(folder) if "loss" in r] for folder in (tmp_path / "whole", run))
    assert [(r["step"], r["loss"]) for r in whole] == [(r["step"], r["loss"]) for r in killed]


def started(*words: object) -> BaseProcess:
    """A process of its own that does what TRAIN says with some words, forked from one that has only imported what it needs."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["segwright.training.loop", "torch._dynamo"])
    text = f"import sys\nsys.argv = {['', *map(str, words)]}\n{TRAIN}"
    process = context.Process(target=exec, args=(text, {"__name__": "__main__"}))
    process.start()
    return process


def wait_for_work(run: Path, process: BaseProcess) -> None:
    """Until a process that resumes has written something of its own."""
    start = (run / STATE_FILE).stat().st_mtime_ns if (run / STATE_FILE).exists() else 0
    while process.is_alive() and (run / STATE_FILE).exists() and (run / STATE_FILE).stat().st_mtime_ns == start:
        time.sleep(0.01)


def test_resuming_a_finished_run_changes_nothing(tiny_plan, tmp_path):
    train(tiny_plan, tmp_path / "run")
    before = (tmp_path / "run" / STATE_FILE).read_bytes()
    train(tiny_plan, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / STATE_FILE).read_bytes() == before


def test_two_processes_equal_one_with_twice_the_batch(tiny_plan, tmp_path):
    """Instance normalisation, so that no statistic reaches over the batch; what is left is the order of sums."""
    plan = replace(tiny_plan, model=replace(tiny_plan.model, norm="instance"))
    plan = with_training(plan, steps=6, batch_size=4)
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(plan.to_toml())
    (tmp_path / "train.py").write_text(TRAIN)
    train(plan, tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, str(tmp_path / "train.py"), str(plan_file), str(tmp_path / "two"), "30"], check=True, timeout=240
    )
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        if name.startswith("network/"):
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


def test_out_of_memory_takes_the_batch_in_parts_and_says_so(tiny_plan, tmp_path, monkeypatch):
    step = loop.step

    def hungry(learner, parts, *rest):
        if len(parts[0].keys) > 1:
            raise torch.OutOfMemoryError("no memory")
        return step(learner, parts, *rest)

    monkeypatch.setattr(loop, "step", hungry)
    train(with_training(tiny_plan, batch_size=4, steps=3), tmp_path / "run")
    records = read_log(tmp_path / "run")
    assert [r["accumulate"] for r in records if "event" in r] == [2, 4]
    assert [r["step"] for r in records if "loss" in r] == [1, 2, 3]


def test_what_was_begun_before_memory_ran_out_is_forgotten(tiny_plan, tmp_path, monkeypatch):
    """With instance normalisation, parts sum up to the whole batch, so that the weights are those of a run in parts."""
    plan = replace(tiny_plan, model=replace(tiny_plan.model, norm="instance"))
    plan = with_training(plan, batch_size=4, steps=3)
    train(with_training(plan, accumulate=2), tmp_path / "expected")
    clip = loop.Fabric.clip_gradients
    hungry = iter([True])

    def full(fabric, *arguments, **settings):
        if next(hungry, False):
            raise torch.OutOfMemoryError("no memory, after all gradients were there")
        return clip(fabric, *arguments, **settings)

    monkeypatch.setattr(loop.Fabric, "clip_gradients", full)
    train(plan, tmp_path / "run")
    expected, found = weights(tmp_path / "expected"), weights(tmp_path / "run")
    assert all(torch.equal(expected[name], found[name]) for name in expected if name.startswith("network/"))


def test_no_memory_for_one_sample_stops_with_a_remedy(tiny_plan, tmp_path, monkeypatch):
    def starved(*_):
        raise MemoryError

    monkeypatch.setattr(loop, "step", starved)
    with pytest.raises(TrainingError, match="out of memory at step 0 with 1 samples at a time") as error:
        train(tiny_plan, tmp_path / "run")
    monkeypatch.undo()
    assert f"start anew: segwright train {tmp_path / 'run' / 'plan.toml'} --set 'training.crop=[16,24]' --out FOLDER" in str(
        error.value
    )
    train(Plan.read(tmp_path / "run").with_settings(["training.crop=[16,24]"]), tmp_path / "smaller")


def test_a_lost_loss_names_step_samples_and_model_and_keeps_the_weights(tiny_plan, tmp_path, monkeypatch):
    train(tiny_plan, tmp_path / "good")
    plan = with_training(tiny_plan, steps=8)
    original = loop.step

    def lost(learner, parts, step, rate):
        if step == 5:  # five steps were good
            parts[0].image[0, 0, 0, 0] = float("nan")
        return original(learner, parts, step, rate)

    monkeypatch.setattr(loop, "step", lost)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 6, for the samples .*; the last good model is .*run"):
        train(plan, tmp_path / "run")
    steps = [record["step"] for record in json_lines(tmp_path / "run" / "log.jsonl")]
    assert max(steps) == 5
    with pytest.raises(
        TrainingError, match=r"or lower optimiser.learning_rate in .*plan.toml and go on with: .* --resume .*run"
    ):
        train(plan, tmp_path / "run", resume=True)
    monkeypatch.setattr(loop, "step", original)
    train(plan.with_settings(["optimiser.learning_rate=1e-4"]), tmp_path / "run", resume=True)


def test_a_loss_lost_before_anything_was_saved_is_learnt_anew_more_slowly(tiny_plan, tmp_path, monkeypatch):
    original, plan = loop.step, with_training(tiny_plan, validations=1).with_settings(["optimiser.learning_rate=0.02"])
    monkeypatch.setattr(loop, "step", lambda *given: original(*given) | {"loss": float("nan")})
    with pytest.raises(TrainingError, match="start anew: segwright train .* --set optimiser.learning_rate=0.005 --out FOLDER"):
        train(plan, tmp_path / "run")
    monkeypatch.undo()
    train(Plan.read(tmp_path / "run").with_settings(["optimiser.learning_rate=0.005"]), tmp_path / "slower")


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_with_minutes_a_run_ends_by_the_clock_with_a_low_rate(tiny_plan, tmp_path):
    started = time.monotonic()
    train(with_training(tiny_plan, steps=100_000, validations=1), tmp_path / "run", minutes=0.05)
    assert time.monotonic() - started < 20
    records = [record for record in read_log(tmp_path / "run") if "loss" in record]
    assert len(records) > 5 and records[-1]["learning_rate"] < 0.1 * max(r["learning_rate"] for r in records)


def test_runs_do_not_write_over_each_other(tiny_plan, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.toml").write_text("something")
    with pytest.raises(OutputError, match="holds a run already; choose another folder"):
        train(tiny_plan, tmp_path / "run")
    assert (tmp_path / "run" / "plan.toml").read_text() == "something"
    with pytest.raises(FormatError, match="holds no saved run"):
        train(tiny_plan, tmp_path / "nothing", resume=True)


def test_classes_that_do_not_fit_the_plan_are_refused_before_anything_is_written(tiny_plan, tmp_path):
    plan = replace(tiny_plan, model=replace(tiny_plan.model, num_classes=5))
    with pytest.raises(UsageError, match="has 2 classes, .* is for others .num_classes 5 and not 2.; make a plan"):
        train(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""Work in this process and in others: each item once, whatever fails."""

import importlib
import sys

import pytest

from segwright.training.jobs import done, gpu_of, threads_of

WORK = """
import os
from segwright.core.errors import TrainingError

def work(item, tell):
    tell(0.5)
    if item == "lost":
        raise TrainingError("the loss is lost")
    if item == "odd":
        raise ZeroDivisionError("of nothing")
    if item == "killed":
        os._exit(9)
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A function that other processes can import."""
    (tmp_path / "pieces_of_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("pieces_of_work").work
    sys.modules.pop("pieces_of_work")


def test_one_job_works_here_and_in_order(work):
    told = []
    found = list(done(work, ["a", "lost", "odd", "b"], 1, device="cpu", told=lambda *words: told.append(words)))
    assert found == [("a", None), ("lost", "the loss is lost"), ("odd", "ZeroDivisionError: of nothing"), ("b", None)]
    assert told == [(item, 0.5) for item, _ in found]


def test_two_jobs_do_each_item_once_and_go_on_after_one_that_was_killed(work):
    told = []
    items = ["killed", "a", "lost", "b"]
    found = dict(done(work, items, 2, device="cpu", told=lambda *words: told.append(words)))
    assert set(found) == set(items) and found["a"] is None and found["b"] is None and found["lost"] == "the loss is lost"
    assert found["killed"].startswith("its process was ended from outside") and "(exit code 9)" in found["killed"]
    assert ("a", 0.5) in told


def test_by_hand_gpus_are_dealt_out_in_turn():
    assert [gpu_of(job, {}, 2) for job in range(4)] == ["0", "1", "0", "1"]
    assert [gpu_of(job, {"CUDA_VISIBLE_DEVICES": "3, 5"}, 2) for job in range(3)] == ["3", "5", "3"]
    assert gpu_of(0, {}, 0) == "0"


def test_law_jobs_share_the_cores():
    cores = threads_of(1)
    assert cores >= 1 and all(threads_of(jobs) * jobs <= max(cores, jobs) for jobs in range(1, 40))
    assert threads_of(10_000) == 1

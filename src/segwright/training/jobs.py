"""Pieces of work done side by side by processes, each with its share of the cores, or with a GPU of its own."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import cv2
import numba
import torch
from numba.core import config

from segwright.core.errors import SegwrightError

TELL_EVERY_S = 0.5  # how often a process tells how far it is: more than that no eye sees
ENDED = "its process was ended from outside, mostly for want of memory; take fewer --jobs"

T = TypeVar("T")
Tell = Callable[[float], None]  # takes the share of a piece of work that is done, 0 to 1
Work = Callable[[T, Tell], None]

log = logging.getLogger(__name__)


def done(
    work: Work[T], items: Sequence[T], jobs: int, *, device: str, told: Callable[[T, float], None]
) -> Iterator[tuple[T, str | None]]:
    """Each item once its work is done, with what went wrong, or None; the next items are begun whatever went wrong.

    One job works in this process. More are processes, to which `work` and the items travel; each computes with cores / jobs
    threads, and where `device` is "cuda" sees one of the GPUs, which are dealt out in turn. `told` is called with an item that
    is under way and the share of it that is done.
    """
    if jobs == 1:
        for item in items:
            yield item, _failure(work, item, lambda share, item=item: told(item, share))  # type: ignore[misc]
        return
    yield from _Pool(work, min(jobs, len(items)), threads_of(jobs), device).done(items, told)


def threads_of(jobs: int) -> int:
    """The threads that each of some jobs computes with: an equal share of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # Linux knows which
    return max(1, cores // jobs)


def set_threads(threads: int) -> None:
    """Compute with so many threads from now on, in torch, numba and OpenCV."""
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]  # set as it is read
    cv2.setNumThreads(threads)


def gpu_of(job: int, environment: Mapping[str, str], count: int) -> str:
    """What CUDA_VISIBLE_DEVICES is for a job: one of those that it names already, else of all `count` GPUs, in turn."""
    given = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    visible = given or [str(number) for number in range(max(count, 1))]
    return visible[job % len(visible)]


def _failure(work: Work[T], item: T, tell: Tell) -> str | None:
    """What went wrong with a piece of work, in words; None where all went well."""
    try:
        work(item, tell)
    except SegwrightError as error:
        return str(error)
    except Exception as error:
        log.exception("a piece of work failed")
        return f"{type(error).__name__}: {error}"
    return None


class _Pool:
    """Processes that take one item after the other. One that is ended from outside fails its item, and is replaced."""

    def __init__(self, work: Work[Any], jobs: int, threads: int, device: str) -> None:
        self.work, self.jobs, self.threads, self.device = work, jobs, threads, device
        self.context = get_context("spawn")  # a fork may take the locks of other threads along
        self.processes: dict[Connection, Any] = {}
        self.places: dict[Connection, int] = {}

    def done(self, items: Sequence[T], told: Callable[[T, float], None]) -> Iterator[tuple[T, str | None]]:
        """As the function `done`."""
        waiting, busy = deque(items), dict[Connection, T]()
        try:
            while waiting or busy:
                while waiting and len(busy) < self.jobs:
                    free = next((each for each in self.processes if each not in busy), None) or self._started()
                    try:
                        free.send(waiting[0])
                    except OSError:  # it was ended while it was idle
                        self._answer(free)
                        continue
                    busy[free] = waiting.popleft()
                for connection in wait(list(busy)):
                    answer = self._answer(connection)  # type: ignore[arg-type]
                    if isinstance(answer, float):
                        told(busy[connection], answer)  # type: ignore[index]
                    else:
                        yield busy.pop(connection), answer  # type: ignore[call-overload]
        finally:
            for process in self.processes.values():
                process.terminate()

    def _started(self) -> Connection:
        """The connection to a new process, in the first place that is free."""
        ours, theirs = self.context.Pipe()
        place = next(number for number in range(self.jobs) if number not in self.places.values())
        gpu = gpu_of(place, os.environ, torch.cuda.device_count()) if self.device == "cuda" else None
        process = self.context.Process(target=_serve, args=(theirs, self.work, self.threads, gpu), daemon=True)
        process.start()
        theirs.close()  # so that its end is seen here
        self.processes[ours], self.places[ours] = process, place
        return ours

    def _answer(self, connection: Connection) -> float | str | None:
        """The share that is done, or, once it is, what went wrong."""
        try:
            return connection.recv()
        except (EOFError, OSError):
            process = self.processes.pop(connection)
            del self.places[connection]
            process.join()
            return f"{ENDED} (exit code {process.exitcode})"


def _serve(connection: Connection, work: Work[Any], threads: int, gpu: str | None) -> None:
    """Do what comes through a connection, until it is closed."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when torch first looks for GPUs, which is later
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)  # it tells the precision of each run
    set_threads(threads)
    last = 0.0

    def tell(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > TELL_EVERY_S:
            connection.send(float(share))
            last = time.monotonic()

    with suppress(EOFError, KeyboardInterrupt):
        while True:
            connection.send(_failure(work, connection.recv(), tell))

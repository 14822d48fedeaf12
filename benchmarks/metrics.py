"""Metrics side by side: Segwright against the programs that people use today, on two cores, results compared.

    python benchmarks/metrics.py [--only GROUP] [--json FILE] [--list] [--no-memory]

Each row does the same work on each side, in turns, in a process of its own that is held to the cores of the row. Ratios are
theirs to ours, per turn: the median, and the smallest and largest. Results are the scores that both give; their largest
difference is printed. Memory is what the work adds at its highest to what the process held before, in a process of its own
per side, after a small example that loads what is loaded once. Peers that are not installed are left out. panopticapi is not on
PyPI: `PYTHONPATH=CHECKOUT python benchmarks/metrics.py`, from a checkout of github.com/cocodataset/panopticapi.
"""

import argparse
import ctypes
import gc
import importlib
import json
import logging
import math
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import metric_cases
import numpy as np
from metric_cases.case import Case, Side

SECONDS = 12.0  # what all turns of a side may take, so that a fast one gets many turns and a slow one few
TURNS = (3, 15)  # but no fewer and no more
LEAST = 0.1  # seconds of a side's turn; what is faster is done several times in a turn
GROUPS = [module.name for module in pkgutil.iter_modules(metric_cases.__path__) if module.name not in ("case", "scenes")]


def main() -> None:
    """Print the table, or do what one of its processes does."""
    options = arguments()
    warnings.simplefilter("ignore")
    logging.disable()
    if options.child:
        child(*options.child)
        return
    cases = [case for case in all_cases() if re.search(options.only, f"{case.group}: {case.name}")]
    if options.list:
        print("\n".join(f"{case.group}: {case.name} ({', '.join(case.sides)})" for case in cases))
        return
    print("| work | side | s | theirs / ours, median (min to max) | needed | peak MB | largest difference |")
    print("|---|---|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEGWRIGHT_BENCHMARK_DATA"] = folder
        for case in cases:
            rows = measured(case, with_memory=not options.no_memory)
            print(*map(line, rows), sep="\n", flush=True)
            if options.json:
                with options.json.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in rows)


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help=f"rows whose 'group: name' it occurs in; groups: {GROUPS}"
    )
    parser.add_argument("--json", type=Path, help="append each row to this file, one a line")
    parser.add_argument("--list", action="store_true", help="name the rows and measure nothing")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def all_cases() -> list[Case]:
    """The cases of all groups."""
    return [case for group in GROUPS for case in importlib.import_module(f"metric_cases.{group}").cases()]


def measured(case: Case, *, with_memory: bool) -> list[dict]:
    """A row of figures per side of a case."""
    result = in_child("speed", case, "")
    ours = next(iter(result["times"]))
    rows = []
    for name, times in result["times"].items():
        ratios = sorted(theirs / own for theirs, own in zip(times, result["times"][ours], strict=False))
        rows.append(
            {
                "group": case.group,
                "work": case.name,
                "side": name,
                "cores": case.cores,
                "seconds": float(np.median(times)),
                "amount": case.amount,
                "units": case.units,
                "ratio": float(np.median(ratios)),
                "ratio_min": ratios[0],
                "ratio_max": ratios[-1],
                "turns": len(times),
                "needed": case.targets.get(name),
                "difference": result["differences"].get(name),
                "compared": result["compared"].get(name, 0),
                "note": case.sides[name].note,
                "peak_mb": in_child("memory", case, name)["peak_mb"] if with_memory else None,
            }
        )
    return rows


def line(row: dict) -> str:
    """A row of the table."""
    seconds = f"{row['seconds']:.3g}"
    if row["amount"]:
        seconds += f" ({row['amount'] / row['seconds']:.3g} {row['units']}/s)"
    is_ours = row["difference"] is None
    ratio = "" if is_ours else f"{row['ratio']:.1f} ({row['ratio_min']:.1f} to {row['ratio_max']:.1f})"
    difference = "" if is_ours else f"{row['difference']:.1e} of {row['compared']}"
    needed = f"{row['needed']:g}" if row["needed"] else ""
    peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
    work = f"{row['work']}, {row['cores']} core{'s' if row['cores'] > 1 else ''}"
    note = f"; {row['note']}" if row["note"] else ""
    return f"| {work} | {row['side']} | {seconds} | {ratio} | {needed} | {peak} | {difference}{note} |"


def in_child(what: str, case: Case, side: str) -> dict:
    """What a process of its own says of a case."""
    command = [sys.executable, __file__, "--child", what, case.group, case.name, side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case.group}: {case.name}, {side or 'all sides'}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def child(what: str, group: str, name: str, side: str) -> None:
    """Measure one case, held to its cores before anything starts threads; the last line printed is the answer."""
    case = next(each for each in importlib.import_module(f"metric_cases.{group}").cases() if each.name == name)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(case.cores)
    print(json.dumps(speed(case) if what == "speed" else memory(case, case.sides[side])))


def speed(case: Case) -> dict:
    """Seconds of each turn of each side, and how far their results lie from ours."""
    sides = {name: side for name, side in case.sides.items() if side.is_installed()}
    small, data = case.make(True), case.make(False)
    results, first = {}, {}
    for name, side in sides.items():
        side.run(side.prepare(small))  # loads and compiles what is loaded and compiled once
        first[name], results[name] = turn(side, data, 1)
    repeats = {name: max(1, math.ceil(LEAST / seconds)) for name, seconds in first.items()}
    turns = {name: int(np.clip(SECONDS / first[name] / repeats[name], *TURNS)) for name in sides}
    times = {name: [seconds] for name, seconds in first.items()}  # all are loaded and compiled by then
    for number in range(1, max(turns.values())):
        for name, side in sides.items():
            if number < turns[name]:  # the slow ones stop first; ours is the fastest, or nearly so
                times[name].append(turn(side, data, repeats[name])[0])
    ours = results.pop(next(iter(sides)))
    return {
        "times": times,
        "differences": {name: difference(ours, theirs) for name, theirs in results.items()},
        "compared": {name: len(set(ours) & set(theirs)) for name, theirs in results.items()},
    }


def turn(side: Side, data: object, repeats: int) -> tuple[float, dict[str, float]]:
    """Mean seconds of a few runs, without their preparation, and the last results."""
    seconds = 0.0
    gc.collect()
    for _ in range(repeats):
        prepared = side.prepare(data)
        start = time.perf_counter()
        result = side.run(prepared)
        seconds += time.perf_counter() - start
    return seconds / repeats, dict(result)


def difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The largest difference of results that both name; NaN on one side alone counts as infinite."""
    both = sorted(set(ours) & set(theirs))
    one, other = (np.array([float(each[name]) for name in both]) for each in (ours, theirs))
    apart = np.abs(one - other)
    apart[np.isnan(one) & np.isnan(other)] = 0.0
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def memory(case: Case, side: Side) -> dict:
    """MB that a side's work adds at its highest. Linux only, which forgets the peak on request."""
    side.run(side.prepare(case.make(True)))
    prepared = side.prepare(case.make(False))
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed while the data were made is no room for the work
    Path("/proc/self/clear_refs").write_text("5")  # 5: the peak is now what is held
    before = status_kb("VmRSS")
    result = side.run(prepared)
    peak = status_kb("VmHWM")
    del result
    return {"peak_mb": (peak - before) / 1024}


def status_kb(name: str) -> int:
    """A line of what the system knows of this process, in KiB."""
    found: Sequence[str] = re.findall(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[0])


if __name__ == "__main__":
    main()

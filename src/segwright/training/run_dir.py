"""A run on disk: its plan, its log, and the rule that one run never writes over another."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import tomlkit

from segwright.checkpoints.folds_folder import is_folds_folder
from segwright.core.atomic_files import check_utf8, replace_file
from segwright.core.errors import FormatError, OutputError
from segwright.core.run_files import LOG_FILE, MODEL_FILE, PLAN_FILE, STATE_FILE
from segwright.core.strict_json import json_text
from segwright.plans.commands import command
from segwright.plans.plan import Data, Plan

OnRecord = Callable[[dict[str, Any]], None]


def start_folder(run: Path, plan: Plan) -> None:
    """Make the folder of a new run and write its plan.

    Raises:
        OutputError: the folder holds a run already, or cannot be written.
    """
    check_free(run)
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / PLAN_FILE).write_text(plan.to_toml(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write into {run} ({error}); choose another folder with --out") from error


def note_places(run: Path, data: Data) -> None:
    """Write where the data of a run lie now into its plan, whose comments stay.

    Raises:
        OutputError: the folder cannot be written.
    """
    document = tomlkit.parse((run / PLAN_FILE).read_text(encoding="utf-8"))
    before, now = document["data"], {"train": data.train, "val": data.val}
    moved = {name: place for name, place in now.items() if place is not None and before.get(name) != place}
    if moved:
        before.update(moved)
        replace_file(run / PLAN_FILE, tomlkit.dumps(document).encode())


def check_free(run: Path) -> None:
    """See that a folder can take a new run.

    Raises:
        OutputError: it holds one already, its name is not UTF-8, or it could not be written into.
    """
    check_utf8(run)
    if (run / PLAN_FILE).exists():
        on = f"go on with it by: {command('train', '--resume', run, plan=run)}, or " if is_saved(run) else ""
        raise OutputError(f"{run} holds a run already; {on}choose another folder with --out")
    there = next(place for place in (run, *run.absolute().parents) if place.exists())
    try:
        TemporaryFile(dir=there).close()  # only trying tells: rights are not all that can be in the way
    except OSError as error:
        raise OutputError(f"{run} cannot be made ({error}); choose another folder with --out") from error


def is_saved(run: Path) -> bool:
    """Whether a folder holds a run, or the runs of folds, that can go on."""
    return (run / STATE_FILE).exists() or is_folds_folder(run)


def check_resumable(run: Path) -> None:
    """See that a folder holds a run that was saved at least once.

    Raises:
        FormatError: it does not.
    """
    if not (run / STATE_FILE).exists():
        raise FormatError(f"{run} holds no saved run ({STATE_FILE} is missing); {start_anew(run)}")


def start_anew(run: Path, *settings: str) -> str:
    """The words that say how to train anew with the plan of a run, and with these settings."""
    words = [word for each in settings for word in ("--set", each)]
    return f"start anew: {command('train', run / PLAN_FILE, *words, '--out', 'FOLDER', plan=run)}"


def learnt_weights(run: Path) -> list[str]:
    """The setting that makes training start from the weights that a run has learnt, if there are any yet."""
    return [f"init.weights={run}"] if (run / MODEL_FILE).exists() else []


class TrainLog:
    """The log of a run, one JSON object a line; each record is also passed to the watchers.

    A score that could not be measured, NaN to watchers and readers, is null there.

    A step is {"step", "seconds", "progress", "loss", "losses", "learning_rate", "samples_per_s", "memory_gb"}, its terms in
    "losses"; a validation {"step", "seconds", "score", "metric"}, where classes are known with "progress" and
    their "recall" by name; anything that a person should know has an "event", where classes collapsed with their names.
    """

    def __init__(self, run: Path, watchers: Sequence[OnRecord] = ()) -> None:
        """The log of a run; nothing is written yet."""
        self.run = run
        self.watchers = watchers

    def drop_after(self, step: int, validations: int) -> None:
        """Drop what a run wrote after its last save, at `step` with so many validations done: it will be written again."""
        records = read_log(self.run)
        scores = [record for record in records if "score" in record]
        kept = [record for record in records if record["step"] <= step and record not in scores[validations:]]
        whole = self.run / f".{LOG_FILE}.writing"  # put in place as a whole: this moment too may be the last
        whole.write_text("".join(json_text(record) + "\n" for record in kept), encoding="utf-8")
        whole.replace(self.run / LOG_FILE)

    def add(self, **record: Any) -> None:
        """Append a record."""
        with (self.run / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json_text(record) + "\n")
        for watch in self.watchers:
            watch(record)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that was cut short by a kill is left out."""
    path = run / LOG_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = []
    for line in filter(str.strip, lines):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        records.append(record | {"score": math.nan} if record.get("score", 0) is None else record)
    return records

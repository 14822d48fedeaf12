"""The folder of a cross-validation: the plan of all runs, and a run for each fold, fold-0, fold-1, ...

folds.json holds what it was begun with. The plan.toml beside it is for people, but for its `[inference]`, which says how the
networks of all runs together are asked.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from segwright.core.atomic_files import replace_file
from segwright.core.errors import FormatError
from segwright.core.run_files import FOLDS_FILE, MODEL_FILE, PLAN_FILE
from segwright.core.strict_json import json_text
from segwright.plans.commands import command
from segwright.plans.plan import Plan


@dataclass(frozen=True, kw_only=True)
class FoldsFolder:
    """`count` runs below `folder` begun with one `plan`, each trained for so many `minutes`, or else for its steps."""

    folder: Path
    plan: Plan
    count: int
    minutes: float | None

    @property
    def runs(self) -> list[Path]:
        """The folder of the run of each fold."""
        return [self.folder / f"fold-{number}" for number in range(self.count)]

    def plan_of(self, number: int) -> Plan:
        """The plan of the run that holds out a fold, counted from 0."""
        return replace(self.plan, data=replace(self.plan.data, fold=(number, self.count)))

    def model_files(self) -> list[Path]:
        """The models of all folds.

        Raises:
            FormatError: a fold has none yet.
        """
        files = [run / MODEL_FILE for run in self.runs]
        for file in files:
            if not file.exists():
                raise FormatError(
                    f"{file} is not there: the cross-validation in {self.folder} was not finished; go on with it by: "
                    f"{command('train', '--resume', self.folder, plan=self.folder)}"
                )
        return files

    def write(self) -> None:
        """Write the plan for people, and what goes on from here needs.

        Raises:
            OutputError: the folder cannot be written.
        """
        replace_file(self.folder / PLAN_FILE, self.plan.to_toml().encode())
        plan = {"toml": self.plan.to_toml(), "reasons": self.plan.reasons}
        facts = {"count": self.count, "minutes": self.minutes, "plan": plan}
        replace_file(self.folder / FOLDS_FILE, (json_text(facts, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path, *, own_modules: bool = False) -> "FoldsFolder":
        """What was written; its reasons too, which as comments are lost. `own_modules` is as in `Plan.read`.

        Raises:
            FormatError: it is missing or damaged.
        """
        path = folder / FOLDS_FILE
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            count, minutes = int(facts["count"]), None if facts["minutes"] is None else float(facts["minutes"])
            text, reasons = facts["plan"]["toml"], dict(facts["plan"]["reasons"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{path} is damaged ({error!r}); put back the file that was there, or fit anew") from error
        plan = replace(Plan.from_toml(text, source=str(path), own_modules=own_modules), reasons=reasons)
        return cls(folder=folder, plan=plan, count=count, minutes=minutes)


def fold_runs(folder: Path) -> list[Path]:
    """The folders of the runs of a cross-validation that are there; nothing of the plan is read."""
    return sorted(path for path in folder.glob("fold-*") if path.is_dir())


def is_folds_folder(folder: Path) -> bool:
    """Whether a folder holds the runs of a cross-validation."""
    return (folder / FOLDS_FILE).is_file()

"""A network with its plan and its classes in one safetensors file, written whole or not at all."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file

from segwright.checkpoints.folds_folder import fold_runs, is_folds_folder
from segwright.core import Classes
from segwright.core.errors import FormatError, OutputError
from segwright.core.run_files import MODEL_FILE, STATE_FILE
from segwright.core.strict_json import json_text
from segwright.data.value_range import ValueRange
from segwright.plans.commands import command
from segwright.plans.plan import Plan

LAYOUT = "segwright-1"  # the first word to look for in a file; raised when a reader of today could misread it


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a model file holds: `weights` under the network's own names, the plan of the run, the meaning of the classes.

    `values` are those of the training images; None in a file of an earlier version, which did not note them.
    """

    weights: dict[str, torch.Tensor]
    plan: Plan
    classes: Classes
    values: ValueRange | None = None

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            OutputError: the place cannot be written.
        """
        facts = {"layout": LAYOUT, "plan": self.plan.to_toml(), "classes": json_text(asdict(self.classes))}
        if self.values is not None:
            facts["values"] = json_text(asdict(self.values))
        write_tensors(path, self.weights, facts)

    @classmethod
    def read(cls, path: Path, *, own_modules: bool = False) -> "ModelFile":
        """The content of a file, on the CPU. `own_modules` lets the plan name networks outside segwright.

        Raises:
            FormatError: there is no such file, or it is not a model of segwright.
        """
        weights, facts = read_tensors(path)
        if facts.get("layout") != LAYOUT:
            raise FormatError(f"{path} is a safetensors file, but no model that segwright saved; give the folder of a run")
        try:
            text, known = facts["plan"], json.loads(facts["classes"])
            looks = {name: known[name] for name in ("colors", "is_thing")}
            classes = Classes.of(known["names"], **looks, regions=known.get("regions", ()))  # earlier files have none
            values = ValueRange.of_table(json.loads(facts["values"])) if "values" in facts else None
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path} lacks its plan or its classes ({error!r}); put back the file that was saved") from error
        return cls(weights, Plan.from_toml(text, source=str(path), own_modules=own_modules), classes, values)


def model_file_of(path: Path) -> Path:
    """The model file at a path, which is that file itself, or the folder of a run.

    Raises:
        FormatError: the folder holds the runs of folds, or a run that was stopped before it had a model.
    """
    if not path.is_dir() or (path / MODEL_FILE).exists():
        return path / MODEL_FILE if path.is_dir() else path
    if is_folds_folder(path):
        first = next(iter(fold_runs(path)), path / "fold-0")
        raise FormatError(f"{path} holds a run for each of several folds; name one of them, such as {first}")
    if (path / STATE_FILE).exists():
        raise FormatError(
            f"{path} is a run that was stopped before it had a model; go on with it by: "
            f"{command('train', '--resume', path, plan=path)}"
        )
    return path / MODEL_FILE  # whose reader says that it is not there


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, str]) -> None:
    """Write a safetensors file so that, whenever the power goes, either the old file or the new one is there.

    Raises:
        OutputError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.writing")
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata=dict(facts))
        temporary.chmod(0o644)  # safetensors makes files for their owner alone
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path} ({error}); choose another folder or free some space") from error


def read_facts(path: Path) -> dict[str, str]:
    """The facts of a safetensors file, without its tensors.

    Raises:
        FormatError: the file is missing, cut short or something else.
    """
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and facts of a safetensors file, which is opened once, as it may be replaced at any moment.

    Raises:
        FormatError: the file is missing, cut short or something else.
    """
    try:
        data = path.read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # 8: the bytes of its length, which come first
        return tensors, header.get("__metadata__", {})
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FormatError:
    return FormatError(f"cannot read {path} ({error}); give the folder of a finished or started run")

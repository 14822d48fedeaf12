"""The first run of a cascade inside the folder of the second, which so answers wherever it is moved.

It is a copy of the model files and not a part of the second model's: that is written at each better score, while the first
never changes, and may be the runs of several folds. A first run may be the second of a cascade itself.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from segwright.checkpoints.folds_folder import FoldsFolder, is_folds_folder
from segwright.checkpoints.model_file import model_file_of, read_facts, write_tensors
from segwright.core.errors import FormatError, OutputError
from segwright.core.run_files import FIRST_FOLDER, FOLDS_FILE, MODEL_FILE, PLAN_FILE, STATE_FILE


def copy_first(first: Path, run: Path, *, own_modules: bool = False) -> None:
    """Copy all that prediction needs of a run, or of the runs of folds, into the folder of another run.

    Of their states it keeps which samples they were trained with, so that training can go on where the first run is gone.

    Raises:
        FormatError: there is no model.
        OutputError: the folder cannot be written.
    """
    target = run / FIRST_FOLDER
    if is_folds_folder(first):
        models = FoldsFolder.read(first, own_modules=own_modules).model_files()
        places = {file: target / file.relative_to(first) for file in models}
        places |= {first / name: target / name for name in (PLAN_FILE, FOLDS_FILE)}
    else:
        models = [model_file_of(first)]
        places = {models[0]: target / MODEL_FILE}
    for model in models:
        before = model.parent / FIRST_FOLDER
        below = places[model].parent / FIRST_FOLDER
        places |= {file: below / file.relative_to(before) for file in before.rglob("*") if file.is_file()}
    try:
        for source, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        for model in models:
            with suppress(FormatError):  # a state that is gone or damaged says nothing
                write_tensors(places[model].parent / STATE_FILE, {}, read_facts(model.parent / STATE_FILE))
    except OSError as error:
        raise OutputError(f"cannot copy {first} into {run} ({error}); choose another folder or free some space") from error


def first_of(run: Path) -> Path:
    """The folder of the first run of a cascade that lies in the folder of the second.

    Raises:
        FormatError: it is not there.
    """
    first = run / FIRST_FOLDER
    if not first.is_dir():
        raise FormatError(
            f"{first} is not there, and the model in {run} needs the first network of its cascade; copy the whole folder of "
            "the run, not its model file alone"
        )
    return first

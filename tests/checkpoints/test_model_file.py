"""A model file holds weights, plan and classes, and is whole or absent."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.checkpoints.model_file import LAYOUT, ModelFile, model_file_of, read_facts, read_tensors, write_tensors
from segwright.core import Classes
from segwright.core.errors import FormatError, OutputError
from segwright.data.value_range import ValueRange
from segwright.formats import open_dataset


def test_what_is_written_reads_back(tiny_plan, tmp_path):
    network = tiny_plan.model.build()
    classes = Classes.of(["a", "b"], is_thing=[False, True])
    ModelFile(network.state_dict(), tiny_plan, classes).write(tmp_path / "model.safetensors")
    content = ModelFile.read(tmp_path / "model.safetensors")
    assert content.plan == tiny_plan and content.classes == classes
    nested = Classes.of(["a", "b"], regions=[[1, 2], [2]])
    ModelFile(network.state_dict(), tiny_plan, nested).write(tmp_path / "model.safetensors")
    assert ModelFile.read(tmp_path / "model.safetensors").classes == nested
    assert all(torch.equal(content.weights[name], value) for name, value in network.state_dict().items())
    assert content.values is None  # as in a file of an earlier version
    assert len(list(tmp_path.iterdir())) == 1  # no temporary file stays


def test_the_values_of_training_are_kept(tiny_plan, tmp_path):
    values = ValueRange.measured(open_dataset(tiny_plan.data.train))
    model = ModelFile(tiny_plan.model.build().state_dict(), tiny_plan, Classes.of(["a", "b"]), values)
    model.write(tmp_path / "model.safetensors")
    assert ModelFile.read(tmp_path / "model.safetensors").values == values
    assert values.dtypes == ("uint8",) and json.loads(read_facts(tmp_path / "model.safetensors")["values"])["dtypes"] == [
        "uint8"
    ]


def test_facts_are_read_without_tensors(tmp_path):
    write_tensors(tmp_path / "a", {"a": torch.zeros(1000)}, {"b": "c"})
    assert read_facts(tmp_path / "a") == {"b": "c"} == read_tensors(tmp_path / "a")[1]
    for length in (0, 5, 100, 3000):
        (tmp_path / "cut").write_bytes((tmp_path / "a").read_bytes()[:length])
        with pytest.raises(FormatError, match="cannot read .*cut"):
            read_facts(tmp_path / "cut")
    with pytest.raises(FormatError, match="cannot read .*nowhere"):
        read_facts(tmp_path / "nowhere")


def test_broken_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FormatError, match="cannot read .*model.safetensors"):
        ModelFile.read(path)
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="cannot read"):
        ModelFile.read(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match="no model that segwright saved"):
        ModelFile.read(path)
    for facts in (
        {},
        {"plan": "", "classes": "[]"},
        {"plan": "", "classes": "{"},
        {"plan": "", "classes": "[]", "values": "{"},
    ):
        write_tensors(path, {"a": torch.zeros(1)}, {"layout": LAYOUT, **facts})
        with pytest.raises(FormatError, match="lacks its plan or its classes .*put back the file"):
            ModelFile.read(path)


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_tensors(tmp_path / "file" / "model.safetensors", {"a": torch.zeros(1)}, {})


WRITER = """
import sys, torch
from pathlib import Path
from segwright.checkpoints.model_file import write_tensors
number = 0
while True:
    write_tensors(Path(sys.argv[1]), {"a": torch.full((1_000_000,), float(number))}, {"number": str(number)})
    print(number, flush=True)
    number += 1
"""


def test_a_kill_in_the_middle_of_a_save_leaves_a_whole_file(tmp_path):
    path = tmp_path / "state.safetensors"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(3):
            writer.stdout.readline()
        for delay in (0.0, 0.0013, 0.0021):  # seconds: somewhere inside the next saves
            time.sleep(delay)
            tensors, facts = read_tensors(path)  # whole at any moment, while the writer goes on
            assert (tensors["a"] == float(facts["number"])).all()
        os.kill(writer.pid, signal.SIGKILL)
    tensors, facts = read_tensors(path)
    assert (tensors["a"] == float(facts["number"])).all()


def test_what_holds_no_model_yet_says_how_it_comes_to_one(tiny_plan, tmp_path):
    run, folds, empty = (tmp_path / name for name in ("my run", "folds", "empty"))
    for folder in (run, folds / "fold-0", empty):
        folder.mkdir(parents=True)
    assert model_file_of(empty) == model_file_of(empty / "model.safetensors") == empty / "model.safetensors"
    (run / "state.safetensors").touch()
    with pytest.raises(FormatError, match="my run is a run that was stopped .*: segwright train --resume '.*my run'$"):
        model_file_of(run)
    (run / "model.safetensors").touch()
    assert model_file_of(run) == run / "model.safetensors"
    FoldsFolder(folder=folds, plan=tiny_plan, count=2, minutes=1.0).write()
    with pytest.raises(FormatError, match="holds a run for each of several folds; name one of them, such as .*fold-0"):
        model_file_of(folds)

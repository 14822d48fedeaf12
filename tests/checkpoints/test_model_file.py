"""A model file holds weights, plan and classes, and is whole or absent."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from segwright.checkpoints.model_file import LAYOUT, ModelFile, read_tensors, write_tensors
from segwright.core import Classes
from segwright.core.errors import FormatError, OutputError


def test_what_is_written_reads_back(tiny_plan, tmp_path):
    network = tiny_plan.model.build()
    classes = Classes.of(["a", "b"], is_thing=[False, True])
    ModelFile(network.state_dict(), tiny_plan, classes).write(tmp_path / "model.safetensors")
    content = ModelFile.read(tmp_path / "model.safetensors")
    assert content.plan == tiny_plan and content.classes == classes
    assert all(torch.equal(content.weights[name], value) for name, value in network.state_dict().items())
    assert len(list(tmp_path.iterdir())) == 1  # no temporary file stays


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
    for facts in ({}, {"plan": "", "classes": "[]"}, {"plan": "", "classes": "{"}):
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

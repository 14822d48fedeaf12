"""Segwright calls nobody: no command opens a socket or looks up a name, in any of its processes and threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segwright.formats import mask_folder, synthetic

GUARD = Path(__file__).parent / "no_network"
IN_CI = ("CI", "TF_BUILD", "JENKINS_URL")  # where OpenVINO's telemetry is silent of itself

# In one process, since each loads torch anew. No patience: the first image picks an engine, and OpenVINO is tried.
COMMANDS = """
import sys
import segwright
from segwright.cli.app import main
from segwright.encoders import timm
from segwright.inference import engine
timm.Config().build()
engine.PATIENCE_S = 0
def call(*words):
    sys.argv = ["segwright", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{words}: {end.code}")
call("models")
call("inspect", "data", "--html", "card.html")
call("convert", "data", "coco", "--to", "coco")
call("fit", "data", "--minutes", "0.05", "--model", "unet_small", "--out", "run")
call("predict", "run", "data/val/images", "--overlay", "--out", "found")
call("evaluate", "run", "data")
call("metrics", "found", "data/val", "--processes", "2")
"openvino" in sys.modules or sys.exit("OpenVINO was not tried, so that this proves nothing about it")
"""

TELEMETRY_PUT_BACK = """
from segwright.inference import quiet_openvino
quiet_openvino.sys = type("sys", (), {"modules": {}})
quiet_openvino.quiet_openvino()
"""


@pytest.fixture
def calls(tmp_path):
    """Run a script where nothing reaches a network; what it tried to reach."""

    def run(script: str) -> str:
        log = tmp_path / "network.txt"
        settings = {name: value for name, value in os.environ.items() if not name.startswith(IN_CI)}
        paths = [str(GUARD), *filter(None, [settings.get("PYTHONPATH")])]
        settings |= {"NETWORK_LOG": str(log), "HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(paths)}
        (tmp_path / "home").mkdir(exist_ok=True)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=600)
        tried = log.read_text() if log.exists() else ""
        return tried or ("" if done.returncode == 0 else f"exit status {done.returncode}\n{done.stderr}")

    return run


def test_no_command_reaches_for_a_network(calls, tmp_path):
    mask_folder.write(tmp_path / "data" / "train", synthetic.cells(6, shape=(64, 96), seed=1))
    mask_folder.write(tmp_path / "data" / "val", synthetic.cells(2, shape=(64, 96), seed=2))
    assert calls(COMMANDS) == ""
    assert not (tmp_path / "home" / "intel").exists()  # where OpenVINO's telemetry keeps a number of the user


# The guard can fail: telemetry, Python, a process of its own, compiled code


def test_telemetry_that_is_put_back_is_caught(calls):
    assert "google-analytics.com" in calls(TELEMETRY_PUT_BACK)


@pytest.mark.parametrize(
    ("script", "caught"),
    [
        ("import socket; socket.socket()", "socket.__new__"),
        ("import socket; socket.getaddrinfo('example.org', 443)", "socket.getaddrinfo"),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.socket()'])", "socket.__new__"),
        ("import ctypes; ctypes.CDLL(None).socket(2, 1, 0)", "exit status -31" if sys.platform == "linux" else "compiled"),
    ],
)
def test_a_try_is_caught(calls, script, caught):
    if caught == "compiled":
        pytest.skip("needs Linux, which can end a process at a call of compiled code")
    assert caught in calls(script)


def test_sockets_that_stay_on_this_machine_are_none_of_it(calls):
    assert calls("import socket; socket.socket(socket.AF_UNIX)") == ""

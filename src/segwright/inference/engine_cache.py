"""What was found out about a network on this machine, kept between runs in a folder of the user's cache.

Everything in it can be removed at any time; it is made again when it is missed.
"""

import hashlib
import inspect
import json
import logging
import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn

import segwright
from segwright.core.cache_folder import cache_folder
from segwright.core.strict_json import json_text

log = logging.getLogger(__name__)

FILE = "engines.json"
OF_A_NETWORK = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")  # names of folders; what else lies beside them is not of this file
MAX_BYTES = 2 * 2**30  # of all networks together: about ten of 80 million weights with what was compiled for them


@dataclass(frozen=True)
class EngineCache:
    """One network's folder, or None where nothing can be written, which only costs time."""

    folder: Path | None

    @classmethod
    def of(cls, network: nn.Module, root: Path | None = None) -> "EngineCache":
        """The cache of a network, made if there is none; the folders used longest ago go when all grow beyond MAX_BYTES."""
        root = root or cache_folder()
        folder = root / f"{network_digest(network)}-{_machine()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)  # used now
        except OSError as error:
            log.info("nothing is remembered between runs: %s cannot be written (%s)", folder, error.strerror)
            return cls(None)
        _prune(root, keep=folder)
        return cls(folder)

    def recall(self) -> dict[str, Any]:
        """What `remember` was told, by key; empty if nothing, or if the file is damaged."""
        try:
            found = json.loads((self.folder / FILE).read_text(encoding="utf-8")) if self.folder is not None else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def remember(self, key: str, fact: dict[str, Any]) -> None:
        """Keep a fact under a key; what cannot be written is forgotten."""
        if self.folder is None:
            return
        unfinished = self.folder / f".{uuid4().hex}"
        try:
            unfinished.write_text(json_text({**self.recall(), key: fact}, indent=1), encoding="utf-8")
            unfinished.replace(self.folder / FILE)
        except OSError as error:
            log.info("%s cannot be written (%s)", self.folder / FILE, error.strerror)


def network_digest(network: nn.Module) -> str:
    """16 hexadecimal digits that change with the weights, the layers and the source code of a network.

    Code counts with all of Segwright's own layers, and with all files beside those of the other layers' classes, since a
    network's `forward` may call any of them.
    """
    digest = hashlib.sha256(repr(network).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    files = {inspect.getsourcefile(kind) for kind in {type(module) for module in network.modules()} if _has_source(kind)}
    own = {Path(segwright.__path__[0]) / name for name in ("layers", "encoders", "models")}
    for folder in sorted({Path(file).parent for file in files if file} | own):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _has_source(kind: type) -> bool:
    """Whether a class comes from a file and not from a notebook or a prompt."""
    try:
        return inspect.getsourcefile(kind) is not None
    except (OSError, TypeError):
        return False


def _machine() -> str:
    """16 hexadecimal digits that change with the processor, the graphics card, the threads and the libraries."""
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts = (platform.machine(), _processor(), card, torch.get_num_threads(), torch.__version__, version("openvino"))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()  # Linux, where platform.processor() says little
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def _prune(root: Path, keep: Path) -> None:
    """Remove the networks' folders used longest ago, but not `keep`, until all together hold at most MAX_BYTES."""
    others = (path for path in root.iterdir() if OF_A_NETWORK.fullmatch(path.name) and path.is_dir() and path != keep)
    folders = sorted(others, key=lambda path: path.stat().st_mtime)
    total = sum(_size(folder) for folder in [*folders, keep])
    for folder in folders:
        if total <= MAX_BYTES:
            return
        total -= _size(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    """The bytes in a folder; what vanishes meanwhile, because another process tidies up too, counts 0."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total

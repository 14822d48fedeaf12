"""Weights that others saved, whatever they saved them with: tensors by the names of their network, and nothing is run."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segwright.checkpoints.stored_arrays import ForbiddenNameError, StoredArray, StoredType, read_arrays, stand_ins
from segwright.core.errors import FormatError

HEAD = 512  # bytes that tell what a file is
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin
LFS_POINTER = b"version https://git-lfs"
ENVELOPES = ("state_dict", "model", "model_state", "model_state_dict", "network_weights")  # what authors put the tensors into
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
MAX_DEPTH = 3  # of envelopes in envelopes


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names there, on the CPU; large files stay on disk until a tensor is used, where they can.

    safetensors, torch's .pth, .pt and .bin, and the pickle files (.pkl) of Caffe2 and detectron2 are told apart by what they
    hold. Envelopes such as {"state_dict": ...} and prefixes such as "module." are taken off.

    Raises:
        FormatError: the file is missing, cut short or something else, or holds more than weights.
    """
    return unwrapped(read_content(path), path)


def read_content(path: Path) -> Any:
    """What a file of weights holds, envelopes and all; nothing in it is run.

    Raises:
        FormatError: the file is missing, cut short or something else, or names what may be a program.
    """
    reader = reader_of(path)
    try:
        return reader(path)
    except ForbiddenNameError as error:
        raise _refused(path, error.name) from error
    except Exception as error:  # a damaged file may end the reading in any way
        if found := re.search(r"GLOBAL '?([\w.]+)", str(error)):  # of torch's own restricted reader
            raise _refused(path, found[1]) from error
        first = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise FormatError(
            f"{path} cannot be read ({first}); it is cut short, damaged or no file of weights: download or save it again"
        ) from error


def reader_of(path: Path) -> Callable[[Path], Any]:
    """What reads a file, by how it begins.

    Raises:
        FormatError: it is missing, or begins as no file of weights does.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise FormatError(f"cannot read {path} ({error.strerror}); give a run's folder or a file of weights") from error
    if not head:
        raise FormatError(f"{path} is empty; download it again")
    if head.startswith(LFS_POINTER):
        raise FormatError(f"{path} only points to the weights (Git LFS); fetch the file itself, with: git lfs pull")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        raise FormatError(
            f"{path} is a web page and no weights, perhaps one that asks to log in; open its address in a browser, download "
            "the file itself, and compare its size"
        )
    if head[8:9] == b"{":
        return load_file
    if head.startswith((b"PK\x03\x04", LEGACY)):
        return _read_torch
    if head.startswith(b"\x80") or path.suffix == ".pkl":
        return _read_pickle
    raise FormatError(
        f"{path} begins with {head[:12]!r}, as no file of weights does that is known: safetensors, torch's .pth, .pt and .bin, "
        "and .pkl are read; download it again, or save it as safetensors"
    )


def _refused(path: Path, name: str) -> FormatError:
    return FormatError(
        f"{path} holds {name}, which may be a program; only tensors, numbers and texts are read, and nothing was run. Take the "
        "file from its authors; if it is theirs, save its tensors alone where you trust it: safetensors.torch.save_file"
    )


def _read_torch(path: Path) -> Any:
    """What torch saved."""
    named = [(function, name) for name, function in stand_ins().items()]
    kinds = [(kind, f"{kind.__module__}.{kind.__qualname__}") for kind in (StoredArray, StoredType)]  # what they make
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    with torch.serialization.safe_globals([*named, *kinds]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about storages of old files
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)


def _read_pickle(path: Path) -> Any:
    """What pickle saved."""
    with path.open("rb") as file:
        return read_arrays(file)


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a file, out of their envelopes.

    Raises:
        FormatError: there is none, or something else beside them.
    """
    for _ in range(MAX_DEPTH):
        inner = [content[key] for key in ENVELOPES if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, Mapping):
        raise FormatError(
            f"{path} holds a {type(content).__name__} and no tensors by name; save network.state_dict() and not the network"
        )
    others = [key for key, value in content.items() if not (isinstance(key, str) and _is_tensor(value))]
    if others or not content:
        shown = ", ".join(repr(key) for key in others[:3]) or "nothing"
        raise FormatError(
            f"{path} should hold tensors by name, at its top or under {', '.join(map(repr, ENVELOPES))}, and holds {shown}; "
            "save its state dict alone"
        )
    tensors = {key: _tensor(value) for key, value in content.items()}
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, StoredArray) and hasattr(value, "array"))


def _tensor(value: Tensor | StoredArray) -> Tensor:
    """A tensor, which may share the memory of the file and is not to be written to."""
    if isinstance(value, StoredArray):
        array = np.ascontiguousarray(value.array, value.array.dtype.newbyteorder("=")).reshape(value.array.shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about memory that cannot be written to
            return torch.from_numpy(array)
    return value.detach() if isinstance(value, nn.Parameter) else value

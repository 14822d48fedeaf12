"""From a published file's address to the file on this machine: found where it may lie, or fetched where that was asked for.

Files that come with Segwright are always there.
"""

import hashlib
import re
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from segwright.checkpoints.foreign_weights import reader_of
from segwright.core.atomic_files import replacing
from segwright.core.cache_folder import cache_folder
from segwright.core.errors import FormatError, UsageError
from segwright.core.weights import Weights

PACKAGE = "package://"  # how addresses inside this package begin: package://FOLDER/FILE
HUB = "hf://"  # how addresses on the Hugging Face hub begin: hf://OWNER/NAME/FILE
HUB_NAME = "hf:"  # how people name what lies there: hf:OWNER/NAME
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what holds the weights there, the safer one first
TIMEOUT_S = 30  # without a byte: a server that is silent for so long has gone
CHUNK = 1 << 20  # bytes at a time


def published_file(name: str, weights: Weights, *, online: bool) -> Path:
    """The file of published weights on this machine.

    One that does not come with Segwright is looked for in its cache, in torch's and in that of the Hugging Face hub; where it
    is in none, it is fetched if `online`, and else nobody is asked.

    Raises:
        UsageError: it is not on this machine; the message says where it is and where to put it.
        FormatError: it is another file than the published one.
    """
    if weights.address.startswith(PACKAGE):
        return _from_package(weights)
    if weights.address.startswith(HUB):
        owner, repository, file = weights.address.removeprefix(HUB).split("/", maxsplit=2)
        return _from_hub(f"{owner}/{repository}", (file,), name, name, online=online)
    for path in (*(folder / weights.file for folder in _folders()), weights_folder() / local_name(name, weights)):
        if path.is_file():
            _check_digest(path, weights)
            return path
    if not online:
        raise _missing(name, weights.address, local_name(name, weights))
    return _fetched(name, weights)


def _from_package(weights: Weights) -> Path:
    """A file that comes with Segwright."""
    path, remedy = Path(__file__).parents[1] / weights.address.removeprefix(PACKAGE), "install Segwright again"
    if not path.is_file():
        raise UsageError(f"{path} comes with Segwright, and is missing; {remedy}")
    _check_digest(path, weights, remedy)
    return path


def hub_file(name: str, *, online: bool) -> Path:
    """The file of weights of what people call hf:OWNER/NAME.

    Raises:
        UsageError: it is not on this machine, or is no such name.
    """
    repository = name.removeprefix(HUB_NAME).strip("/")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"{name!r} names nothing on the Hugging Face hub; write hf:OWNER/NAME, such as hf:nvidia/mit-b0")
    return _from_hub(repository, HUB_FILES, name, repository.replace("/", "--"), online=online)


def weights_folder() -> Path:
    """Where files of weights are kept, fetched or put there by hand."""
    return cache_folder() / "weights"


def local_name(name: str, weights: Weights) -> str:
    """What a file is called in `weights_folder`: as its publisher calls it, but on the hub, where all are called alike."""
    return f"{name}{Path(weights.file).suffix}" if weights.address.startswith(HUB) else weights.file


def _folders() -> tuple[Path, Path]:
    """Folders where files lie under the names that their publishers gave them."""
    return weights_folder(), Path(torch.hub.get_dir()) / "checkpoints"


def _missing(name: str, address: str, file: str) -> UsageError:
    return UsageError(
        f"the weights {name} are not on this machine; add --online (online=True in Python) to fetch them, or download "
        f"{address} by hand and put it into {weights_folder()} as {file}"
    )


def _from_hub(repository: str, files: tuple[str, ...], name: str, stem: str, *, online: bool) -> Path:
    """A file of a repository on the Hugging Face hub, the first of `files` that is there.

    One that was put into `weights_folder` by hand is called `stem`, with its suffix.
    """
    import huggingface_hub  # a third of a second, which few need

    for file in HUB_FILES if files[0] in HUB_FILES else files:  # where one of these two lies, the other holds the same
        for found in (
            weights_folder() / f"{stem}{Path(file).suffix}",
            huggingface_hub.try_to_load_from_cache(repository, file),
        ):
            if isinstance(found, (str, Path)) and Path(found).is_file():
                return Path(found)
    address = f"https://huggingface.co/{repository}/resolve/main/{files[0]}"
    if not online:
        raise _missing(name, address, f"{stem}{Path(files[0]).suffix}")
    error: Exception | None = None
    for file in files:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file))
        except huggingface_hub.errors.EntryNotFoundError as missing:
            error = missing
        except Exception as failed:  # errors of whatever the hub's client stands on, which changes with its version
            error = failed
            break
    raise _unreachable(name, address, error, f"{stem}{Path(files[0]).suffix}") from error


def _unreachable(name: str, address: str, error: Exception | None, file: str) -> UsageError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return UsageError(
        f"the weights {name} could not be fetched ({first}); connect to the internet, or download {address} where there is one "
        f"and put it into {weights_folder()} as {file}"
    )


def _fetched(name: str, weights: Weights) -> Path:
    """The file from the address, in `weights_folder`, whole and checked or not there at all."""
    path, file_name = weights_folder() / weights.file, local_name(name, weights)
    try:
        answer = urllib.request.urlopen(weights.address, timeout=TIMEOUT_S)
    except (HTTPException, OSError, ValueError) as error:
        raise _unreachable(name, weights.address, error, file_name) from error
    with answer, replacing(path) as file:
        try:
            for chunk in _chunks(answer):
                file.write(chunk)
        except ConnectionError as error:
            raise _unreachable(name, weights.address, error, file_name) from error
        file.flush()
        unfinished = Path(file.name)
        reader_of(unfinished)  # a web page in its place is told now
        _check_digest(unfinished, weights)
    return path


def _chunks(answer: Any) -> Iterator[bytes]:
    """What a server sends.

    Raises:
        ConnectionError: it broke off.
    """
    promised, came = answer.headers.get("Content-Length"), 0
    try:
        while chunk := answer.read(CHUNK):
            came += len(chunk)
            yield chunk
    except (HTTPException, OSError) as error:
        raise ConnectionError(f"{came} bytes came, then {error}") from error
    if promised is not None and int(promised) != came:
        raise ConnectionError(f"{came} of {promised} bytes came")


def _check_digest(path: Path, weights: Weights, remedy: str = "") -> None:
    """Refuse another file than the published one; the remedy is to download it again, unless another is given.

    Raises:
        FormatError: its sha256 begins otherwise.
    """
    if weights.sha256 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(weights.sha256):
        raise FormatError(
            f"{path} is not the file that was published (its sha256 begins with {digest[:8]}, and not with "
            f"{weights.sha256[:8]}); {remedy or f'remove it, and download {weights.address} again'}"
        )

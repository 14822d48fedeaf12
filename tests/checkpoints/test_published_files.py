"""Published files are found where they may lie, fetched only where that was asked for, and never left half-written."""

import hashlib
import io
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch

import segwright
from segwright.checkpoints.published_files import hub_file, local_name, published_file, weights_folder
from segwright.core.errors import FormatError, UsageError
from segwright.core.weights import Weights
from segwright.models import published

REPOSITORY = "models--nvidia--mit-b0"
REVISION = "0" * 40


def content() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.ones(1)}, file)
    return file.getvalue()


CONTENT = content()
FACTS = {"preset": "x", "licence": "MIT", "trained_on": "VOC", "classes": 21}
WEB = Weights(address="https://example.org/x-1a2b.pth", sha256=hashlib.sha256(CONTENT).hexdigest()[:8], **FACTS)
HUB = Weights(address="hf://nvidia/mit-b0/pytorch_model.bin", **FACTS)


@pytest.fixture
def asked(monkeypatch):
    """What was asked for over a network, which answers with nothing."""
    calls = []

    def refuse(address, *_, **__):
        calls.append(address)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    return calls


class Answer(io.BytesIO):
    """A server's answer, which promises a length."""

    def __init__(self, data: bytes, promised: int | None = None):
        super().__init__(data)
        self.headers = {} if promised is None else {"Content-Length": str(promised)}


def in_hub(caches, name="model.safetensors"):
    """A file in the cache of the hub as its client lays it out."""
    folder = caches / "hub" / REPOSITORY
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(REVISION)
    path = folder / "snapshots" / REVISION / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def put(path, data=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Found on this machine


def test_by_hand(caches):
    assert weights_folder() == caches / "cache" / "segwright" / "weights"
    assert (local_name("x_voc", WEB), local_name("x_voc", HUB)) == ("x-1a2b.pth", "x_voc.bin")


def test_what_was_put_by_hand_or_by_torch_is_found(caches, asked):
    for path in (caches / "torch" / "hub" / "checkpoints" / "x-1a2b.pth", weights_folder() / "x-1a2b.pth"):
        put(path)
        assert published_file("x_voc", WEB, online=True) == path
    path = put(weights_folder() / "x_voc.bin")
    assert published_file("x_voc", HUB, online=True) == path
    assert asked == []


def test_what_lies_in_the_cache_of_the_hub_is_found(caches, asked):
    path = in_hub(caches, "pytorch_model.bin")
    assert published_file("x_voc", HUB, online=True) == hub_file("hf:nvidia/mit-b0", online=True) == path
    path = in_hub(caches)  # where both lie, the one that cannot hold a program
    assert published_file("x_voc", HUB, online=True) == hub_file("hf:nvidia/mit-b0", online=True) == path
    assert asked == []


def test_another_file_of_a_repository_is_another(caches, asked):
    in_hub(caches)
    with pytest.raises(UsageError, match="download https://huggingface.co/nvidia/mit-b0/resolve/main/old/a.pth by hand"):
        published_file("x_voc", Weights(address="hf://nvidia/mit-b0/old/a.pth", **FACTS), online=False)


def test_what_comes_with_segwright_is_there(caches, asked):
    name, shipped = next((name, each) for name, each in published().items() if each.address.startswith("package://"))
    path = published_file(name, shipped, online=True)
    assert path.name == shipped.file and path.is_relative_to(Path(segwright.__file__).parent)
    assert shipped.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UsageError, match=r"models.no comes with Segwright, and is missing; install Segwright again"):
        published_file(name, replace(shipped, address="package://models/no"), online=False)
    with pytest.raises(FormatError, match="its sha256 begins with .* and not with 12345678.; install Segwright again"):
        published_file(name, replace(shipped, sha256="12345678"), online=False)
    assert asked == []


# Nobody is asked unasked


def test_a_missing_file_is_told_with_where_to_put_it(caches, asked):
    folder = weights_folder()
    with pytest.raises(UsageError) as missing:
        published_file("x_voc", WEB, online=False)
    assert str(missing.value) == (
        "the weights x_voc are not on this machine; add --online (online=True in Python) to fetch them, or download "
        f"https://example.org/x-1a2b.pth by hand and put it into {folder} as x-1a2b.pth"
    )
    address = "https://huggingface.co/nvidia/mit-b0/resolve/main"
    with pytest.raises(UsageError, match=f"x_voc are not .* download {address}/pytorch_model.bin by hand .* as x_voc.bin"):
        published_file("x_voc", HUB, online=False)
    with pytest.raises(
        UsageError, match=f"hf:nvidia/mit-b0 are not .*{address}/model.safetensors .*as nvidia--mit-b0.safetensors"
    ):
        hub_file("hf:nvidia/mit-b0", online=False)
    assert asked == [] and not folder.exists()
    path = put(folder / "nvidia--mit-b0.safetensors")
    assert hub_file("hf:nvidia/mit-b0", online=False) == path


# Fetched


def test_a_file_is_fetched_once(caches, monkeypatch):
    calls = []

    def serve(address, timeout):
        calls.append(address)
        return Answer(CONTENT, len(CONTENT))

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    for _ in range(2):
        path = published_file("x_voc", WEB, online=True)
        assert path == weights_folder() / "x-1a2b.pth" and path.read_bytes() == CONTENT
    assert calls == [WEB.address] and [path.name for path in weights_folder().iterdir()] == ["x-1a2b.pth"]


def test_a_file_is_fetched_from_the_hub(caches, monkeypatch):
    calls = []

    def serve(repository, file):
        calls.append((repository, file))
        if file == "model.safetensors":
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return str(put(caches / "fetched.bin"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", serve)
    assert hub_file("hf:nvidia/mit-b0", online=True) == caches / "fetched.bin"
    assert published_file("x_voc", HUB, online=True) == caches / "fetched.bin"
    files = ["model.safetensors", "pytorch_model.bin", "pytorch_model.bin"]
    assert calls == [("nvidia/mit-b0", file) for file in files]


def test_who_does_not_answer_is_told(caches, asked):
    with pytest.raises(UsageError, match=r"x_voc could not be fetched \(.*no route to host.*\); connect .* as x-1a2b.pth"):
        published_file("x_voc", WEB, online=True)
    with pytest.raises(UsageError, match=r"x_voc could not be fetched \(.*no route to host.*\); connect .* as x_voc.bin"):
        published_file("x_voc", HUB, online=True)
    assert asked == [WEB.address, "nvidia/mit-b0"]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda: Answer(CONTENT[:100], len(CONTENT)), UsageError, f"could not be fetched .100 of {len(CONTENT)} bytes came"),
        (lambda: Answer(b"<html>Sign in</html>"), FormatError, "is a web page"),
        (lambda: Answer(CONTENT + b"x"), FormatError, "is not the file that was published .its sha256 begins with"),
    ],
)
def test_nothing_is_left_of_what_is_not_the_file(caches, monkeypatch, answer, error, message):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: answer())
    with pytest.raises(error, match=message):
        published_file("x_voc", WEB, online=True)
    assert list(weights_folder().iterdir()) == []


def test_a_connection_that_breaks_is_told(caches, monkeypatch):
    class Breaks(Answer):
        def read(self, size=-1):
            if self.tell():
                raise ConnectionResetError("reset by peer")
            return super().read(50)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Breaks(CONTENT, len(CONTENT)))
    with pytest.raises(UsageError, match=r"could not be fetched \(50 bytes came, then reset by peer\)"):
        published_file("x_voc", WEB, online=True)
    assert list(weights_folder().iterdir()) == []


def test_another_file_under_the_name_is_told(caches):
    put(weights_folder() / "x-1a2b.pth", CONTENT[:-1])
    with pytest.raises(FormatError, match="is not the file that was published .* remove it, and download https://example.org"):
        published_file("x_voc", WEB, online=True)


@pytest.mark.parametrize("name", ["hf:", "hf:mit-b0", "hf:a/b/c", "hf:../x/y", "hf:a b/c"])
def test_what_names_nothing_on_the_hub_is_told(name, asked):
    with pytest.raises(UsageError, match="names nothing on the Hugging Face hub; write hf:OWNER/NAME"):
        hub_file(name, online=True)
    assert asked == []

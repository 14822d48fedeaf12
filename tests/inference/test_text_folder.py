"""Networks that read texts, in folders and by names; opening them is also tested in test_text_detector.py."""

import builtins
import json
import logging
import shutil

import pytest

from segwright.core.errors import FormatError, MissingExtraError, UsageError
from segwright.inference import text_folder as module
from segwright.inference.text_folder import TEXT_MODEL, open_text_detector


@pytest.fixture
def owl(text_folder, tmp_path):
    """A folder of a tiny random network that may be spoilt."""
    return shutil.copytree(text_folder("owlv2"), tmp_path / "owl")


def test_a_name_that_is_not_on_this_machine_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch, text_folder):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        UsageError, match="is not on this machine; add --online .* to fetch it, or download config.json, "
    ) as told:
        open_text_detector()
    by_hand = tmp_path / "cache" / "segwright" / "weights" / "google--owlv2-base-patch16-ensemble"
    assert f"put them into {by_hand}" in str(told.value) and "https://huggingface.co/google/owlv2" in str(told.value)
    shutil.copytree(text_folder("owlv2"), by_hand)
    assert open_text_detector(TEXT_MODEL).kind == "owlv2"


def test_it_is_fetched_only_where_that_is_asked_for(tmp_path, monkeypatch, text_folder):
    asked = []

    def download(repository, *, allow_patterns, local_files_only):
        asked.append((repository, local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        if repository.startswith("gone"):
            raise OSError("no such place\nand more")
        return str(text_folder("owlv2"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(UsageError, match="add --online"):
        open_text_detector("hf:some/owl")
    assert open_text_detector("hf:some/owl", online=True).kind == "owlv2"
    assert asked == [("some/owl", True), ("some/owl", False)]
    with pytest.raises(
        UsageError, match=r"could not be fetched \(no such place\); connect to the internet, or download config"
    ):
        open_text_detector("hf:gone/owl", online=True)


@pytest.mark.parametrize("name", ["nowhere", "hf:owl", "hf:a/b/c"])
def test_what_names_nothing_is_told(name):
    with pytest.raises(
        UsageError, match="is no folder; give one that holds config.json, model.safetensors, .* or hf:OWNER/NAME"
    ):
        open_text_detector(name)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", "config.json, the kind of network"),
        ("model.safetensors", "model.safetensors or model.safetensors.index.json, the weights"),
        ("processor_config.json", "preprocessor_config.json or processor_config.json, how images are prepared"),
        ("tokenizer.json", "tokenizer.json or vocab.json or vocab.txt, how texts are cut"),
    ],
)
def test_a_file_that_is_missing_is_named(owl, file, said):
    (owl / file).unlink()
    with pytest.raises(FormatError, match=f"owl holds no {said}; put the files of one network of transformers there"):
        open_text_detector(owl)


def test_what_is_no_such_network_is_told(owl):
    config = json.loads((owl / "config.json").read_text())
    (owl / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(
        FormatError, match="holds a network of the kind 'bert', which finds nothing by text here; give one of owlvit"
    ):
        open_text_detector(owl)
    for text in ("{", "[]"):
        (owl / "config.json").write_text(text)
        with pytest.raises(FormatError, match=r"config.json cannot be read|of the kind None"):
            open_text_detector(owl)


def test_weights_that_are_damaged_or_do_not_fill_the_network_are_refused(owl):
    from safetensors.torch import load_file, save_file

    tensors = load_file(owl / "model.safetensors")
    name = next(name for name in tensors if name.startswith("box_head"))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, owl / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        FormatError, match=f"do not fill the network: 1 tensors are missing or of another shape, such as {name}"
    ):
        open_text_detector(owl)
    (owl / "model.safetensors").write_bytes((owl / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"owl cannot be opened by transformers \(.*\); fetch its files again"):
        open_text_detector(owl)


def test_without_transformers_or_with_an_old_one_the_extra_is_named(owl, monkeypatch):
    import transformers

    monkeypatch.setitem(module.KINDS, "owlv2", module.KINDS["owlv2"].__class__("OfTheFuture", 0.1, None))
    with pytest.raises(MissingExtraError, match=f"transformers {transformers.__version__} has no OfTheFuture; pip install -U"):
        open_text_detector(owl)
    real = builtins.__import__

    def without(name, *more, **words):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *more, **words)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'segwright\[text\]', which brings transformers"):
        open_text_detector(owl)


def test_the_licence_of_sam_3_is_told_and_transformers_says_nothing_of_its_own(text_folder, caplog, capsys):
    caplog.set_level(logging.WARNING)
    open_text_detector(text_folder("sam3"))
    assert "Meta's SAM License, which is no free one: it rules out fields of use" in caplog.text
    folder = text_folder("owlv2")
    caplog.clear()
    capsys.readouterr()  # what it said while the folder was made
    open_text_detector(folder)
    assert not caplog.text and not "".join(capsys.readouterr())

"""From a folder to what can be claimed, with one command; the rest is in tests/test_comparison.py."""

import json

import pytest

from segwright.core.errors import TrainingError
from segwright.formats import mask_folder, synthetic

WORDS = ("--vary", "loss=cross_entropy,dice", "--steps", "2", "--minutes", "0.05", "--seeds", "1", "--device", "cpu")
SMALL = ("--model", "unet_tiny", "--set", "model.width=4")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask_folder.write(tmp_path / "data" / "train", synthetic.cells(4, shape=(48, 64), seed=1))
    mask_folder.write(tmp_path / "data" / "val", synthetic.cells(2, shape=(48, 64), seed=2))
    return "data"


def test_a_folder_becomes_a_table_that_goes_on(segwright, data, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "segwright")
    code, out, err = segwright("compare", data, *WORDS, *SMALL)
    assert code == 0, err
    for part in (
        "variant",
        "cross_entropy",
        "dice",
        "background",
        "cell",
        "No difference can be claimed between",
        "images seen",
    ):
        assert part in out, part
    assert "2 variants x 1 seed = 2 runs of 2 steps" in caplog.text
    folder = tmp_path / "runs" / "compare-data-1"
    assert {path.name for path in folder.iterdir()} == {"comparison.json", "report.html", "cross_entropy", "dice"}
    monkeypatch.setattr("segwright.comparison.train", None)  # nothing is trained again
    code, out, err = segwright("compare", data, *WORDS, *SMALL, "--out", folder, "--json")
    assert code == 0 and json.loads(out)["sentences"] and "2 of 2 runs are finished already" in caplog.text, err
    assert json.loads(out)["variants"][0]["steps"] == [2]


def test_a_run_that_fails_ends_with_1_and_is_named(segwright, data, monkeypatch):
    def train(plan, run, **words):
        raise TrainingError("the loss is lost")

    monkeypatch.setattr("segwright.comparison.train", train)
    code, out, err = segwright("compare", data, *WORDS, *SMALL)
    assert code == 1 and "failed" in out and "the loss is lost" in out and "nothing can be compared" in out, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--vary is missing"),
        (["--vary", "loss=dcie,dice"], "did you mean 'dice'"),
        (["--vary", "los=focal,dice"], "did you mean 'loss'"),
        (["--vary", "loss=dice,cross_entropy", "--seeds", "0"], "seeds is 0"),
        (["--vary", "loss=dice,cross_entropy", "--minutes", "0"], "minutes is 0"),
        (["--vary", "loss=dice,cross_entropy", "--fold", "1"], "such as --fold 0/5"),
    ],
)
def test_bad_words_give_one_message_and_nothing_is_written(segwright, data, tmp_path, words, message):
    code, out, err = segwright("compare", data, *words)
    assert code == 2 and message in err and out == "" and "Traceback" not in err
    assert not (tmp_path / "runs").exists()

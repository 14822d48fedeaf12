"""A data card for people and for programs, and remedies that are written down."""

import json
import re

import numpy as np

from segwright.codecs.image_file import read_mask
from segwright.codecs.image_writer import write_values


def test_a_table_json_and_a_page(segwright, tiny_plan, tmp_path):
    data = tiny_plan.data.train + "/train"
    code, out, err = segwright("inspect", data, "--html", tmp_path / "card.html")
    assert code == 0 and "6" in out and (tmp_path / "card.html").exists(), err
    code, out, _ = segwright("inspect", data, "--json")
    assert json.loads(out)["count"] == 6


def test_remedies_are_written_and_told(segwright, tiny_plan, tmp_path):
    data = tmp_path.parent / f"{tmp_path.name}-data"
    mask = next((data / "train" / "masks").iterdir())
    write_values(mask, np.zeros((5, 5), read_mask(mask).dtype))
    code, out, err = segwright("inspect", data)
    assert code == 0 and "size-mismatch" in out and "error" in out and not (data / "dataset.toml").exists(), err
    code, out, _ = segwright("inspect", data, "--write-config", "--json")
    content = json.loads(out)
    assert content["written"]["changes"] == ["drop: 1 sample for size-mismatch"]
    assert content["findings"][0]["fix"]["drop"] == content["findings"][0]["keys"] == [f"train__{mask.stem}"]
    code, out, _ = segwright("inspect", data, "--write-config")
    assert "size-mismatch" not in out and "No finding has a remedy that dataset.toml could hold." in out


def test_a_clean_set_says_so(segwright, tmp_path):
    code, out, _ = segwright("inspect", "synthetic:streets?count=30&shape=96x128")
    assert code == 0 and ("No finding" in out or "note" in out)


def test_nothing_there_is_bad_use(segwright, tmp_path):
    code, _, err = segwright("inspect", tmp_path / "none")
    assert code == 2 and "does not exist" in err
    code, _, err = segwright("inspect", "synthetic:streets?count=3", "--write-config")
    assert code == 2 and "lies in no folder" in err


def test_a_sheet_of_what_a_network_will_see(segwright, tiny_plan, tmp_path):
    code, out, err = segwright("inspect", tiny_plan.data.train, "--augmented", tmp_path / "sheet.png")
    assert code == 0 and f"sheet    {tmp_path / 'sheet.png'}" in out and (tmp_path / "sheet.png").stat().st_size > 10_000, err


def test_without_a_name_the_sheet_has_a_usual_one(segwright, tiny_plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = segwright("inspect", tiny_plan.data.train, "--augmented", "--json")
    assert code == 0 and (tmp_path / "augmented.png").exists(), err


def test_a_place_that_cannot_take_the_sheet_is_refused_at_once(segwright, tmp_path):
    there = tmp_path / "there.png"
    there.write_bytes(b"mine")
    refusals = [
        ((there,), "exists already; remove it"),
        ((tmp_path,), "is a folder"),
        ((tmp_path / "sheet.gif",), "such as .*sheet.png"),
    ]
    for words, message in refusals:
        code, _, err = segwright("inspect", tmp_path / "none", "--augmented", *words)
        assert code == 2 and re.search(message, err), err
    assert there.read_bytes() == b"mine"
    code, _, err = segwright("inspect", tmp_path / "none", tmp_path / "sheet.png")
    assert code == 2 and "add --augmented" in err
    code, _, err = segwright("inspect", tmp_path / "none", "--set", "augmentation.jpeg.probability=1")
    assert code == 2 and "add --augmented" in err

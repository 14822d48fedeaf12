"""Predictions of any tool beside their truth, from the command line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from segwright.codecs.json_stream import write_json


@pytest.fixture
def folders(tmp_path):
    """Class maps of three images, and predictions for two of them that are right in all but one pixel."""
    generator = np.random.default_rng(0)
    for side in ("truth", "guess"):
        (tmp_path / side / "masks").mkdir(parents=True)
        write_json(tmp_path / side / "classes.json", {"classes": ["sky", "road"]})
    (tmp_path / "truth" / "images").mkdir()
    for name in ("a", "b", "c"):
        class_map = generator.integers(0, 2, (8, 9)).astype(np.uint8)
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / "truth" / "images" / f"{name}.png")
        Image.fromarray(class_map).save(tmp_path / "truth" / "masks" / f"{name}.png")
        if name != "c":
            class_map[0, 0] ^= 1
            Image.fromarray(class_map).save(tmp_path / "guess" / "masks" / f"{name}.png")
    return tmp_path


def test_a_table_json_and_csv(segwright, folders):
    command = ("metrics", folders / "guess", folders / "truth", "--metrics", "mIoU,pixel accuracy")
    code, out, err = segwright(*command)
    assert code == 0 and "mIoU" in out and "1 of 3 images have no prediction" in out and "kappa" not in out, err
    code, out, _ = segwright(*command, "--json", "--out", folders / "s.json", "--per-image", folders / "s.csv")
    scores = json.loads(out)
    assert scores == json.loads((folders / "s.json").read_text())
    assert scores["values"]["pixel accuracy"] == pytest.approx(142 / 216)  # 72 pixels of c are given no class
    rows = list(csv.DictReader((folders / "s.csv").open()))
    assert [row["key"] for row in rows] == ["a", "b", "c"]
    assert float(rows[0]["pixel accuracy"]) == pytest.approx(71 / 72, abs=1e-5)


def test_bad_use_is_one_line(segwright, folders):
    code, out, err = segwright("metrics", folders / "guess", folders / "truth", "--metrics", "mIoUs")
    assert code == 2 and not out and err.startswith("error: there is no metric 'mIoUs', did you mean 'mIoU'?")
    code, _, err = segwright("metrics", folders / "none", folders / "truth")
    assert code == 2 and "does not exist" in err


def test_a_page_shows_the_errors(segwright, folders):
    code, _, err = segwright("metrics", folders / "guess", folders / "truth", "--html", folders / "e.html")
    text = (folders / "e.html").read_text()
    assert code == 0 and "Borders and interiors" in text and "1 of 3 images have no prediction" in text, err


def test_two_predictions_and_two_conventions(segwright, folders):
    command = ("metrics", folders / "guess", folders / "truth", "--metrics", "mIoU")
    code, out, err = segwright(*command, "--against", folders / "guess")
    assert code == 0 and "p (Holm)" in out and "1.0000" in out, err
    code, out, _ = segwright(*command, "--against", folders / "guess", "--json")
    assert json.loads(out)[0]["difference"] == 0
    code, out, err = segwright(*command, "--explain", "segwright", "monai")
    assert code == 0 and "segwright and monai differ in" in out, err
    code, out, _ = segwright(*command, "--convention", "nnunet")
    assert code == 0 and "classes are averaged over images and then over" in " ".join(out.split())
    code, _, err = segwright(*command, "--convention", "nnunets")
    assert code == 2 and "did you mean 'nnunet'?" in err


def test_options_that_would_be_void_or_fail_late_are_refused(segwright, folders):
    command = ("metrics", folders / "guess", folders / "truth", "--metrics", "mIoU")
    for words, said in (
        (("--against", folders / "guess", "--out", folders / "s.json"), "--against prints a table of its own and leaves out"),
        (("--explain", "segwright", "monai", "--json"), "--explain prints a table of its own and leaves out --json"),
        (("--out", folders / "guess"), "guess is a folder; give the name of a file in it"),
        (("--out", folders / "s", "--per-image", folders / "s"), "s is given for several results; give each a file of its own"),
        (("--out", folders / "truth" / "classes.json"), "classes.json is part of what is read"),
        (("--html", folders / "truth" / "classes.json" / "e.html"), "classes.json is no folder to write into; choose another"),
        (("--metrics", "PQ", "--convention", "monai"), "--convention monai is for scores of pixels by class; add --metrics"),
        (("--metrics", "J&F", "--per-image", folders / "v.csv"), "none of these scores is of single images; leave it out"),
        (("--processes", "-1"), "--processes"),
    ):
        code, out, err = segwright(*command, *words)
        assert code == 2 and not out and said in " ".join(err.split()) and "Traceback" not in err, (words, err)
    assert {path.name for path in folders.iterdir()} == {"guess", "truth"}


def test_a_comparison_says_what_was_left_out_on_either_side(segwright, folders):
    _, out, _ = segwright("metrics", folders / "guess", folders / "truth", "--metrics", "mIoU", "--against", folders / "truth")
    assert f"{folders / 'guess'}: 1 of 3 images have no prediction" in out


def test_a_video_without_objects_is_a_dash_that_is_explained(segwright, folders):
    code, out, err = segwright("metrics", folders / "guess", folders / "truth", "--metrics", "J&F")
    assert code == 0 and "1 video." in out and "A dash stands where nothing can be measured" in out, err
    assert "class  J&F" not in out

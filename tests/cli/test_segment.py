"""Objects that somebody points at."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segwright.encoders import resnet
from segwright.inference import prompting, segment_files
from segwright.inference.text_detector import TextObjects
from segwright.models import sam

TINY = sam.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16), width=32, mlp_width=32)


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A tiny network of random weights by a name, an image, and the words that name both."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(sam.PRESETS, "sam_tiny_of_a_test", TINY)
    monkeypatch.setattr(prompting, "SIDE", 64)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(TINY.build().state_dict(), tmp_path / "tiny.pth")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "photo.png")
    return "photo.png", "--model", "sam_tiny_of_a_test", "--weights", tmp_path / "tiny.pth"


def test_points_and_boxes_become_numbers_on_the_images_grid(segwright, words, tmp_path):
    code, out, err = segwright("segment", *words, "--point", "30,20", "--point", "5,5,-", "-o", "out.png", "--overlay")
    assert code == 0 and "photo.png" in out, err
    assert np.array(Image.open(tmp_path / "out.png")).shape == (40, 60)
    assert Image.open(tmp_path / "out_overlay.png").size == (60, 40)
    code, out, err = segwright("segment", *words, "--box", "3,4,30,20", "--box", "40,5,59,39", "--json")
    assert code == 0, err
    assert [each["number"] for each in json.loads(out)] == [1, 2] and (tmp_path / "photo_objects.png").exists()
    code, out, err = segwright("segment", *words, "--mask", "out.png", "--point", "30,20", "-o", "again.json")
    assert code == 0 and (tmp_path / "again.json").exists(), err


def test_an_image_is_encoded_once(segwright, words, tmp_path, monkeypatch):
    calls = []
    encode = sam.Sam.encode
    monkeypatch.setattr(sam.Sam, "encode", lambda self, image: calls.append(1) or encode(self, image))
    code, out, err = segwright("segment", *words, "--ahead")
    assert code == 0 and not out.strip() and len(calls) == 1, err
    for name in ("one.png", "two.png"):
        code, _, err = segwright("segment", *words, "--point", "30,20", "-o", name)
        assert code == 0 and len(calls) == 1, err
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


class Told:
    """Stands for a network that finds a box of its second text."""

    kind, gives_masks, least_score = "told", False, 0.1

    def find(self, picture, texts, *, min_score=None):
        if min_score is not None:
            return TextObjects(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, np.float32))
        return TextObjects(np.array([[3, 4, 30, 20]], np.float32), np.array([1]), np.array([0.625], np.float32))


def test_texts_name_objects_and_where_they_name_none_that_is_said(segwright, words, tmp_path, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(segment_files, "open_text_detector", lambda name, *, online: asked.append((name, online)) or Told())
    said = ("--text", "a cat", "--text", "a dog", "--text-weights", "hf:some/owl")
    code, out, err = segwright("segment", *words, *said, "-o", "dog.json", "--json")
    assert code == 0 and asked == [("hf:some/owl", False)], err
    (found,) = json.loads(out)
    assert found["name"] == "a dog" and found["score"] == 0.625
    file = json.loads((tmp_path / "dog.json").read_text())
    assert [each["name"] for each in file["categories"]] == ["a cat", "a dog"] and file["annotations"][0]["category_id"] == 2
    code, out, err = segwright("segment", *words, *said, "--min-score", "0.7", "-o", "none.png")
    assert code == 0 and not np.array(Image.open(tmp_path / "none.png")).any()
    assert "photo.png: nothing is 'a cat' or 'a dog' with a score above 0.7; say it in other words, or lower" in caplog.text
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.open("photo.png").save(tmp_path / "photos" / name)
    code, out, err = segwright("segment", "photos", *words[1:], *said, "-o", "found")
    assert code == 0 and sorted(path.name for path in (tmp_path / "found").iterdir()) == ["a.json", "b.json"], err


def test_mistakes_are_told(segwright, words, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for more, message in (
        ([], "what to find is not told"),
        (["--point", "70,20"], "lie outside the image, which is 60 wide and 40 high"),
        (["--point", "1,1", "--point", "1.5,1.2,-"], "is said to be on the object and beside it"),
        (["--point", "1"], "--point is '1'; write x,y"),
        (["--everything", "--ahead"], "or in several ways"),
        (["--point", "1,1", "--min-area", "5"], "add --everything, or leave them out"),
        (["--ahead", "-o", "out.png"], "--ahead writes nothing"),
        (["--text", "cat", "--point", "1,1"], "or in several ways"),
        (["--text", " "], "a text is blank"),
        (["--text", "cat", "--text", "cat"], "'cat' is given twice"),
        (["--point", "1,1", "--min-score", "0.5"], "are for what words name; add --text, or leave them out"),
        (["--text", "cat"], "hf:google/owlv2-base-patch16-ensemble is not on this machine; add --online"),
        (["--text", "cat", "--text-weights", "nowhere"], "nowhere is no folder; give one that holds config.json"),
        (["--point", "1,1", "--values", "0", "9"], "takes images stretched to 8 bits"),
    ):
        code, _, err = segwright("segment", *words, *more)
        assert code == 2 and message in " ".join(err.split()), err
    code, _, err = segwright("segment", "photo.png", "--point", "1,1", "--model", "sam_vit_b")
    said = " ".join(err.split())
    assert code == 2 and "not on this machine" in said and "--online" in said and "sam_vit_b_01ec64.pth" in said
    code, _, err = segwright("segment", "photo.png", "--point", "1,1", "--model", "unet_tiny")
    assert code == 2 and "unet_tiny answers no prompts" in err

"""Masks that other tools read."""

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segwright.models import segformer
from segwright.training.loop import train


def test_masks_overlays_and_palettes(segwright, finished_run, tiny_plan, tmp_path):
    images = tiny_plan.data.train + "/val/images"
    code, out, err = segwright("predict", finished_run, images, "--out", tmp_path / "masks", "--overlay")
    assert code == 0 and str(tmp_path / "masks") in out.replace("\n", ""), err
    masks = sorted(path for path in (tmp_path / "masks").iterdir() if "overlay" not in path.name)
    assert len(masks) == 2 and len(list((tmp_path / "masks").iterdir())) == 4
    mask = np.array(Image.open(masks[0]))
    assert mask.shape == (48, 64) and set(np.unique(mask)) <= {0, 1}
    code, _, err = segwright("predict", finished_run, images, "--out", tmp_path / "colours", "--palette", "--flips")
    assert code == 0, err
    assert Image.open(tmp_path / "colours" / masks[0].name).mode == "P"


def test_how_unsure_a_model_is_lies_beside_the_masks(segwright, finished_run, tiny_plan, tmp_path):
    images = tiny_plan.data.train + "/val/images"
    code, _, err = segwright("predict", finished_run, images, "--out", tmp_path / "masks", "--uncertainty")
    assert code == 0, err
    maps = sorted(tmp_path.glob("masks/*_uncertainty.tif"))
    assert len(maps) == 2 and len(list((tmp_path / "masks").iterdir())) == 5 and (tmp_path / "masks" / "quality.csv").exists()
    values = tifffile.imread(maps[0])
    assert values.dtype == np.float32 and values.shape == (48, 64) and 0 <= values.min() < values.max() <= 1
    code, _, err = segwright("predict", finished_run, images, "--out", tmp_path / "c", "--uncertainty", "--format", "coco")
    assert code == 2 and "coco holds no maps of it; leave out one of the two" in err


@pytest.fixture
def eight_bit_run(tiny_plan, tmp_path):
    """A run on 8-bit images that normalises by fixed numbers."""
    train(
        tiny_plan.with_settings(["data.preprocess.normalise.mean=[60.0]", "data.preprocess.normalise.std=[40.0]"]),
        tmp_path / "run",
    )
    return tmp_path / "run"


def test_copies_on_other_scales_give_the_same_masks_or_a_warning_whose_remedy_works(
    segwright, eight_bit_run, tiny_plan, tmp_path, caplog
):
    original = next(Path(tiny_plan.data.train, "val", "images").iterdir())
    image = np.array(Image.open(original))
    for name, copy in (
        ("plain", image),
        ("full", image.astype(np.uint16) * 257),
        ("open", (image / 255).astype(np.float32)),
        ("twelve", image.astype(np.uint16) * 16),
    ):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "copy.tif", copy)

    def masks(name, *words):
        caplog.clear()
        code, _, err = segwright("predict", eight_bit_run, tmp_path / name, "--out", tmp_path / f"{name}_masks", *words)
        assert code == 0, err
        return tifffile.imread(tmp_path / f"{name}_masks" / "copy.tif"), caplog.text

    plain, err = masks("plain")
    assert "scale" not in err and "trained on" not in err
    for name, said in (
        ("full", "uint16 images full at 65535 are divided by 257"),
        ("open", "float32 images full at 1 are mult"),
    ):
        mask, err = masks(name)
        assert (mask == plain).mean() > 0.999 and err.count(said) == 1
    _, err = masks("twelve")
    assert err.count("seem to be on another scale") == 1 and "--values LOW HIGH" in err
    mask, err = masks("twelve", "--values", "0", "4080")
    assert (mask == plain).mean() > 0.999 and "scale" not in err


def test_what_cannot_be_used_is_named(segwright, finished_run, tmp_path):
    code, _, err = segwright("predict", finished_run, tmp_path / "nowhere.png", "--out", tmp_path / "masks")
    assert code == 2 and "nowhere.png" in err
    code, _, err = segwright("predict", tmp_path / "no-run", tmp_path, "--out", tmp_path / "masks")
    assert code == 2 and "no-run" in err


def test_a_crf_redraws_masks_and_refuses_volumes(segwright, finished_run, tiny_plan, tmp_path):
    images = tiny_plan.data.train + "/val/images"
    for name, words in (("plain", ()), ("redrawn", ("--crf",))):
        code, _, err = segwright("predict", finished_run, images, "--out", tmp_path / name, *words)
        assert code == 0, err
    names = sorted(path.name for path in (tmp_path / "plain").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "redrawn").iterdir()) and names
    plain, redrawn = ([np.array(Image.open(tmp_path / folder / name)) for name in names] for folder in ("plain", "redrawn"))
    assert all(a.shape == b.shape for a, b in zip(plain, redrawn, strict=True))
    assert not np.array_equal(plain, redrawn)
    tifffile.imwrite(tmp_path / "four.tif", np.zeros((48, 64, 4), np.uint8), photometric="rgb", extrasamples=["unspecified"])
    code, _, err = segwright("predict", finished_run, tmp_path / "four.tif", "--out", tmp_path / "four", "--crf")
    assert code == 2 and "four.tif" in err and "a dense CRF redraws" in err and "leave out --crf" in err


def test_a_published_network_needs_no_run(segwright, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    torch.save(replace(segformer.PRESETS["segformer_b0"], num_classes=3).build().state_dict(), tmp_path / "mine.pth")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    words = ("predict", "segformer_b0", tmp_path / "a.png", "--out", tmp_path / "masks", "--weights")
    code, _, err = segwright(*words, tmp_path / "mine.pth")
    assert code == 0 and np.array(Image.open(tmp_path / "masks" / "a.png")).shape == (30, 40), err
    code, _, err = segwright(*words, "segformer_b0_ade20k")
    said = " ".join(err.split())
    assert code == 2 and "segformer_b0_ade20k are not on this machine" in said and "--online" in said
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: str(tmp_path / "mine.pth"))
    (tmp_path / "masks" / "a.png").unlink()
    code, _, err = segwright(*words, "segformer_b0_ade20k", "--online")
    assert code == 0 and (tmp_path / "masks" / "a.png").is_file(), err

"""Masks that other tools read."""

import numpy as np
from PIL import Image


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


def test_what_cannot_be_used_is_named(segwright, finished_run, tmp_path):
    code, _, err = segwright("predict", finished_run, tmp_path / "nowhere.png", "--out", tmp_path / "masks")
    assert code == 2 and "nowhere.png" in err
    code, _, err = segwright("predict", tmp_path / "no-run", tmp_path, "--out", tmp_path / "masks")
    assert code == 2 and "no-run" in err

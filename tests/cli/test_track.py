"""The command that follows objects through videos, with a small network of its own weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from segwright.cli.track import said_prompts
from segwright.core.errors import UsageError
from segwright.encoders import hiera
from segwright.models import sam2

SHAPE = (48, 64)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of weights, under our names, for a preset that is made small."""
    for name, value in {"WIDTH": 64, "MEMORY_WIDTH": 16, "MEMORY_DEPTH": 1, "MEMORY_MLP": 32, "MLP_WIDTH": 32}.items():
        monkeypatch.setattr(sam2, name, value)
    small = hiera.Config(width=8, depths=(1, 1, 1, 1), global_blocks=())
    monkeypatch.setitem(sam2.PRESETS, "sam2.1_hiera_tiny", replace(sam2.PRESETS["sam2.1_hiera_tiny"], encoder=small))
    torch.manual_seed(0)
    torch.save({"model": sam2.PRESETS["sam2.1_hiera_tiny"].build().state_dict()}, tmp_path / "small.pt")
    return tmp_path / "small.pt"


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "frames").mkdir()
    for frame in range(4):
        noise = np.random.default_rng(frame).integers(0, 255, (*SHAPE, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "frames" / f"{frame}.png")
    mask = np.zeros(SHAPE, np.uint8)
    mask[16:32, 16:40] = 255
    Image.fromarray(mask).save(tmp_path / "first.png")
    return tmp_path / "frames"


def test_objects_are_followed_into_a_folder_of_masks(segwright, clip, weights, tmp_path):
    code, out, err = segwright(
        "track", clip, "--weights", weights, "--mask", f"1:{tmp_path / 'first.png'}", "--box", "1:5,5,30,30@7", "--side", "128",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0 and "4 frames in" in out, err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"0000{frame}.png" for frame in range(4)), "tracks.jsonl"
    ]  # fmt: skip
    mask = np.array(Image.open(tmp_path / "out" / "00001.png"))
    assert mask.shape == SHAPE and ((mask == 1)[16:32, 16:40] | (mask == 7)[16:32, 16:40]).mean() > 0.9
    code, out, err = segwright(
        "track",
        clip,
        "--weights",
        weights,
        "--point",
        "0:20,20",
        "--side",
        "128",
        "-o",
        tmp_path / "o",
        "--film",
        tmp_path / "f.mp4",
    )
    assert code == 0 and (tmp_path / "f.mp4").stat().st_size > 100, err


def test_by_hand_what_is_said_becomes_prompts():
    one, other = said_prompts(["3:1,2", "3:4.5,6,-", "0:7,8@2"], ["3:1,2,3,4"], [])
    assert one.frame == 3 and one.object_id == 1 and one.points_xy.tolist() == [[1, 2], [4.5, 6]]
    assert one.is_foreground.tolist() == [True, False] and one.box_xyxy.tolist() == [1, 2, 3, 4]
    assert other.frame == 0 and other.object_id == 2 and other.box_xyxy is None


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        (["1,2"], [], r"--point 1,2 is no prompt; give FRAME:x,y"),
        (["0:1,2,3"], [], r"--point has '1,2,3' behind its frame; give FRAME:x,y"),
        (["0:a,b"], [], r"--point has 'a,b' behind its frame"),
        ([], ["0:1,2,3,4", "0:1,2,3,5"], "object 1 has several boxes or masks in frame 0; give one, or number others by @2"),
        ([], [], "nothing is pointed at; give --point FRAME:x,y"),
    ],
)
def test_what_is_no_prompt_is_told_with_the_form(points, boxes, message):
    with pytest.raises(UsageError, match=message):
        said_prompts(points, boxes, [])


def test_what_cannot_be_used_is_named(segwright, clip, weights, tmp_path):
    code, _, err = segwright("track", tmp_path / "gone.mp4", "--weights", weights, "--point", "0:1,1", "--side", "128")
    assert code == 2 and "does not exist; give a video file" in " ".join(err.split())
    code, _, err = segwright("track", clip, "--point", "0:1,1", "--out", tmp_path / "o")
    assert code == 2 and "are not on this machine; add --online" in " ".join(err.split()) and "sam2.1_hiera_tiny" in err
    code, _, err = segwright("track", clip, "--weights", "sam2.1_hiera_tiny", "--point", "0:1,1", "--out", tmp_path / "o")
    assert code == 2 and "is a network, and its weights are sam2.1_hiera_tiny" in " ".join(err.split())
    for words, message in (
        (["--point", "9:1,1"], "frame 9 is asked for, and the video has 4"),
        (["--point", "0:nan,1"], "holds what is no number; give finite numbers"),
        (
            ["--point", "0:1,1", "--point", "0:1.5,1,-"],
            "the pixel in column 1, row 1 is said to be on the object and beside it",
        ),
        (["--point", "0:1,1@0"], "object_id of a prompt is 0; give a whole number from 1 on"),
        (["--box", "0:9,9,3,3"], "is empty; give x1, y1, x2, y2"),
    ):
        code, _, err = segwright("track", clip, "--weights", weights, *words, "--side", "128", "-o", tmp_path / "o")
        assert code == 2 and message in " ".join(err.split()), err
    assert not (tmp_path / "o").exists()
    code, _, err = segwright("track", clip, "--weights", weights, "--mask", f"0:{tmp_path / 'first.png'}", "-o", tmp_path)
    assert code == 2 and "where masks are written; choose another folder with --out" in " ".join(err.split())

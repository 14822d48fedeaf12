"""From a folder to a report with one command, and bad input that leaves nothing behind."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segwright.formats import mask_folder, synthetic


@pytest.fixture
def data(tmp_path):
    mask_folder.write(tmp_path / "data" / "train", synthetic.cells(6, shape=(64, 96), seed=1))
    mask_folder.write(tmp_path / "data" / "val", synthetic.cells(2, shape=(64, 96), seed=2))
    return tmp_path / "data"


def test_a_folder_becomes_a_measured_model(segwright, data, tmp_path):
    code, out, err = segwright("fit", data, "--minutes", "0.3", "--out", tmp_path / "run", "--model", "unet_small")
    assert code == 0, err
    assert "mIoU" in out and str(tmp_path / "run" / "report.html") in out.replace("\n", "")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"plan.toml", "log.jsonl", "state.safetensors", "model.safetensors", "scores.json", "report.html"}
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 0 < scores["values"]["mIoU"] <= 1
    assert len(scores["per_image"]) == 2


def png(path, array):
    Image.fromarray(array).save(path)


def empty_folder(data):
    for path in data.rglob("*.*"):
        path.unlink()


def image_without_mask(data):
    next((data / "train" / "masks").iterdir()).unlink()


def mask_without_image(data):
    next((data / "train" / "images").iterdir()).unlink()


def sizes_that_differ(data):
    png(next((data / "train" / "images").iterdir()), np.zeros((10, 10), np.uint8))


def truncated(data):
    path = next((data / "train" / "images").iterdir())
    path.write_bytes(path.read_bytes()[:200])


def zero_bytes(data):
    next((data / "train" / "masks").iterdir()).write_bytes(b"")


def value_outside_the_classes(data):
    (data / "train" / "classes.json").write_text('{"classes": ["a", "b"]}')
    (data / "val" / "classes.json").write_text('{"classes": ["a", "b"]}')
    for path in (data / "train" / "masks").iterdir():
        png(path, np.full((64, 96), 7, np.uint8))


def too_many_classes(data):
    (data / "train" / "classes.json").write_text(json.dumps([f"c{i}" for i in range(65_536)]))
    (data / "val" / "classes.json").write_text(json.dumps([f"c{i}" for i in range(65_536)]))


def bomb(data):
    """A PNG that says it is 60 000 x 60 000, in a hundred bytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    next((data / "train" / "images").iterdir()).write_bytes(content)


@pytest.mark.parametrize(
    "disease",
    [
        empty_folder,
        image_without_mask,
        mask_without_image,
        sizes_that_differ,
        truncated,
        zero_bytes,
        value_outside_the_classes,
        too_many_classes,
        bomb,
    ],
)
def test_bad_data_give_one_message_and_nothing_is_written(segwright, data, tmp_path, disease):
    disease(data)
    code, out, err = segwright("fit", data, "--minutes", "0.3", "--out", tmp_path / "run")
    messages = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and out == "" and len(messages) == 1 and "Traceback" not in err
    assert ";" in messages[0] or ":" in messages[0].removeprefix("error: ")  # what is wrong, and what to do
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "segformer_b9"], "did you mean 'segformer_b"),
        (["--minutes", "0"], "minutes is 0"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--set", "training.stepps=3"], "did you mean 'steps'"),
        (["--out", "/proc/run"], "cannot be"),
        (["--logger", "tensorbord"], "did you mean 'tensorboard'"),
        (["--fold", "1"], "such as --fold 0/5"),
        (["--fold", "5/5"], "fold 5 of 5 was asked for"),
        (["--task", "semantik"], "did you mean 'semantic'"),
        (["--task", "nobody.net"], "'nobody.net' cannot be imported"),
        (["--set", "data.preprocess.scale=0.5"], "setting 'data.preprocess.scale' is 0.5"),
    ],
)
def test_bad_words_give_one_message(segwright, data, tmp_path, words, message):
    code, _, err = segwright("fit", data, "--out", tmp_path / "run", *words)
    assert code == 2 and message in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_path_that_is_not_there_is_named(segwright, tmp_path):
    code, _, err = segwright("fit", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert code == 2 and "nowhere" in err

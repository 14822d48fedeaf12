"""From a folder to a report with one command, and bad input that leaves nothing behind."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from segwright.formats import mask_folder, synthetic
from segwright.plans.plan import Plan


@pytest.fixture
def data(tmp_path):
    mask_folder.write(tmp_path / "data" / "train", synthetic.cells(6, shape=(64, 96), seed=1))
    mask_folder.write(tmp_path / "data" / "val", synthetic.cells(2, shape=(64, 96), seed=2))
    return tmp_path / "data"


def test_a_folder_becomes_a_measured_model(segwright, data, tmp_path):
    code, out, err = segwright("fit", data, "--minutes", "0.1", "--out", tmp_path / "run", "--model", "unet_small")
    assert code == 0, err
    assert "mIoU" in out and str(tmp_path / "run" / "report.html") in out.replace("\n", "")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"plan.toml", "log.jsonl", "state.safetensors", "model.safetensors", "scores.json", "report.html"}
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert 0 < scores["values"]["mIoU"] <= 1
    assert len(scores["per_image"]) == 2


def test_a_model_that_answers_clicks_is_shown_how_to_be_asked_and_that_works(segwright, tmp_path):
    for part, count, seed in (("train", 4, 1), ("val", 1, 2)):
        mask_folder.write(tmp_path / "data" / part, synthetic.cells(count, shape=(64, 96), seed=seed))
    run, image = tmp_path / "run", next((tmp_path / "data" / "val" / "images").iterdir())
    quick = ["--set", "training.steps=2", "--set", "training.validations=1"]
    code, out, err = segwright("fit", tmp_path / "data", "--task", "promptable", "--minutes", "0.05", "--out", run, *quick)
    assert code == 0, err
    hint = out.splitlines()[-1].split()
    assert hint == f"segment segwright segment IMAGE --model {run} --point x,y".split()
    words = [str(image) if word == "IMAGE" else "20,20" if word == "x,y" else word for word in hint[2:]]
    code, _, err = segwright(*words, "--out", found := tmp_path / "found.png")
    assert code == 0 and found.exists(), err


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


def test_damaged_samples_are_left_out_where_a_person_says_so_and_the_plan_names_them(segwright, data, tmp_path):
    truncated(data)
    broken = next((data / "train" / "images").iterdir()).stem
    quick = ["--set", "training.steps=2", "--set", "training.validations=1", "--model", "unet_small"]
    words = ["fit", data, "--minutes", "0.1", "--out", tmp_path / "run", *quick]
    code, _, err = segwright(*words)
    assert code == 2 and f"{broken}.png" in err
    code, _, err = segwright(*words, "--skip-bad")
    assert code == 0, err
    plan = Plan.read(tmp_path / "run")
    assert plan.data.skip == (f"train__{broken}",) and plan.training.steps == 2
    code, _, err = segwright("train", tmp_path / "run" / "plan.toml", "--out", tmp_path / "again")
    assert code == 0, err


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
        (["--folds", "9"], "9 folds were asked for, of 8 samples"),
        (["--folds", "0"], "0 folds were asked for, of 8 samples; ask for 2 to 8 folds"),
        (["--new-head"], "none are given; name them with init"),
        (["--set", "task.kind=instance"], "choose it with --task instance"),
        (["--folds", "2", "--fold", "0/2"], "2 folds and a fold are given"),
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

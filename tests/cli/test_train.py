"""A run goes on where it was stopped, with the data that it began with, and each remedy that is named works."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segwright.checkpoints.model_file import read_tensors, write_tensors
from segwright.formats import mask_folder, synthetic
from segwright.plans.plan import Plan
from segwright.training.loop import train
from segwright.training.run_dir import read_log


@pytest.fixture
def flat(tiny_plan, tmp_path, monkeypatch):
    """A finished run "run" on six images in "data", the last of which is held out; the folder that both lie in."""
    mask_folder.write(tmp_path / "data", synthetic.cells(6, shape=(48, 64), seed=1))
    for path in files(tmp_path / "data", "masks"):
        Image.fromarray((np.array(Image.open(path)) > 0).astype(np.uint8)).save(path)
    (tmp_path / "data" / "classes.json").write_text('["background", "cell"]')
    monkeypatch.chdir(tmp_path)
    plan = replace(tiny_plan, data=replace(tiny_plan.data, train="data"), training=replace(tiny_plan.training, steps=2))
    train(plan, "run")
    return tmp_path


def remedy(err: str) -> list[str]:
    """The words of the command that a message names, which writes to a folder "new"."""
    found = re.search(r"segwright (train .* --out FOLDER)", err.replace("\n", " "))
    assert found, err
    return [word if word != "FOLDER" else "new" for word in shlex.split(found[1])]


def files(data, kind):
    return sorted((data / kind).glob("*.png"))


def add_images(data):
    for folder in ("images", "masks"):
        for number in range(6):
            shutil.copy(files(data, folder)[number], data / folder / f"more_{number}.png")


def test_resume_finishes_a_run_and_scores_it(segwright, finished_run):
    code, out, err = segwright("train", "--resume", finished_run)
    assert code == 0 and "mIoU" in out, err
    assert (finished_run / "report.html").exists()


def test_what_was_trained_with_is_never_held_out(segwright, flat):
    """Without the last image, the one before it would be: neither the run nor its weights may be measured there."""
    gone, held_out = (files(flat / "data", "images")[n].stem for n in (-1, -2))
    for folder in ("images", "masks"):
        files(flat / "data", folder)[-1].unlink()
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and f"{gone!r} is no longer there" in err and f"{held_out!r} is to be held out after being tr" in err
    words = remedy(err)
    assert not any("init" in word for word in words)
    assert segwright(*words)[0] == 0
    code, _, err = segwright("train", "run/plan.toml", "--set", "init.weights=run", "--out", "known")
    events = " ".join(record.get("event", "") for record in read_log(flat / "known"))
    assert code == 0 and f"trained with 1 of 1 samples that are held out now, such as {held_out!r}" in events


def test_more_images_are_refused_and_taken_up_from_the_weights(segwright, flat):
    add_images(flat / "data")
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and "are new" in err and "'more_0'" in err
    words = remedy(err)
    assert "init.weights=run" in words
    code, _, err = segwright(*words)
    assert code == 0 and read_log(flat / "new")[0]["event"] == "weights from run, all of them", err
    assert not any("trained with" in record.get("event", "") for record in read_log(flat / "new"))


def test_a_dropped_and_a_resized_image_are_named(segwright, flat):
    key = files(flat / "data", "images")[1].stem
    (flat / "data" / "dataset.toml").write_text(f'drop = ["{key}"]')
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and f"the sample {key!r} is no longer there" in err
    (flat / "data" / "dataset.toml").unlink()
    for folder in ("images", "masks"):
        path = flat / "data" / folder / f"{key}.png"
        image = np.array(Image.open(path))
        Image.fromarray(image[:24]).save(path)
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and f"the sample {key!r} is of another file size" in err


def test_a_class_more_is_named_and_planned_for(segwright, flat):
    (flat / "data" / "classes.json").write_text('["background", "cell", "bar"]')
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and "the class 'bar' is new" in err and "plan for the new classes: segwright plan data --out" in err
    words = ("--minutes", "0.05", "--model", "unet_small")
    code, _, err = segwright("plan", "data", "--out", "plan.toml", *words)
    assert code == 0, err
    assert Plan.read(flat / "plan.toml").model.num_classes == 3


def test_data_that_moved_are_named_and_said(segwright, flat):
    (flat / "data").rename(flat / "my data")
    for words in (("--resume", "run"), ("run/plan.toml", "--out", "other")):
        code, _, err = segwright("train", *words)
        assert code == 2 and "the plan has its data.train in data, which does not exist seen from" in err, err
        assert "--set data.train=PATH" in err and not (flat / "other").exists()
    assert segwright("train", "--resume", "run", "--set", "data.train=my data")[0] == 0
    assert Plan.read(flat / "run").data.train == "my data"
    assert segwright("train", "--resume", "run")[0] == 0


def test_run_and_data_that_moved_together_go_on(segwright, flat, monkeypatch):
    (flat / "moved").mkdir()
    for name in ("run", "data"):
        (flat / name).rename(flat / "moved" / name)
    code, _, err = segwright("train", "--resume", "moved/run")
    assert code == 2 and "does not exist seen from" in err
    monkeypatch.chdir(flat / "moved")
    assert segwright("train", "--resume", "run")[0] == 0


def test_a_part_to_validate_that_moved_is_named_and_said(segwright, tiny_plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask_folder.write(tmp_path / "held", synthetic.cells(2, shape=(48, 64), seed=3))
    data = replace(tiny_plan.data, train=tiny_plan.data.train + "/train", val="held")
    train(replace(tiny_plan, data=data), "run")
    (tmp_path / "held").rename(tmp_path / "elsewhere")
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and "data.val in held, which does not exist" in err and "--set data.val=PATH" in err
    assert segwright("train", "--resume", "run", "--set", "data.val=elsewhere")[0] == 0


def test_a_state_cut_short_is_named_and_started_anew(segwright, flat):
    state = flat / "run" / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:5000])
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and "state.safetensors is damaged or cut short" in err
    code, _, err = segwright(*remedy(err))
    assert code == 0, err
    state.write_bytes(whole)
    assert segwright("train", "--resume", "run")[0] == 0


def test_a_state_of_an_earlier_version_goes_on_and_says_what_is_unknown(segwright, flat):
    path = flat / "run" / "state.safetensors"
    tensors, facts = read_tensors(path)
    state = {name: value for name, value in json.loads(facts["state"]).items() if name != "data"}
    write_tensors(path, tensors, {"state": json.dumps(state)})
    code, _, err = segwright("train", "--resume", "run")
    assert code == 0 and "did not note its samples, so whether they have changed is unknown" in " ".join(err.split())


def test_another_fold_is_another_set(segwright, flat):
    plan = (flat / "run" / "plan.toml").read_text().replace('train = "data"', 'train = "data"\nfold = [0, 6]')
    (flat / "run" / "plan.toml").write_text(plan)
    code, _, err = segwright("train", "--resume", "run")
    assert code == 2 and "to be held out after being trained with" in err and "to be trained with after being held out" in err


def test_wrong_words_are_named(segwright, finished_run, tmp_path):
    for words, message in (
        ((), "give either a plan file, or --resume RUN"),
        (("--resume", finished_run, "--set", "training.steps=1"), "--resume goes on with a run as it is"),
        (("--resume", finished_run, "--out", "there"), "--resume goes on with a run as it is"),
        ((tmp_path / "no.toml",), "cannot read the plan"),
        (("--resume", tmp_path / "nowhere"), "nowhere holds no run; give the folder that segwright fit or train wrote"),
        ((finished_run, "--out", finished_run), "holds a run already"),
    ):
        code, _, err = segwright("train", *words)
        assert code == 2 and message in err, (words, err)


def test_a_network_that_the_machine_cannot_hold_is_told_before_it_is_built(segwright, tiny_plan, tmp_path):
    huge = replace(tiny_plan, model=replace(tiny_plan.model, width=2**15, max_width=2**20))
    (tmp_path / "plan.toml").write_text(huge.to_toml())
    code, _, err = segwright("train", tmp_path / "plan.toml", "--out", tmp_path / "run")
    assert code == 2 and "unet has" in err and "billion parameters" in err and "plan again with a smaller network" in err
    assert not (tmp_path / "run").exists()

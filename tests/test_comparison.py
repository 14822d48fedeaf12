"""Variants trained side by side: what is kept, what is claimed, and what is said of runs that fail."""

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

import segwright
from segwright import comparison
from segwright.checkpoints.model_file import read_tensors
from segwright.comparison import FILE, compare, folder_name
from segwright.core.errors import OutputError, SettingError, TrainingError, UsageError
from segwright.data.splits import open_splits
from segwright.formats import mask_folder, synthetic
from segwright.planning.budget import Budget
from segwright.plans.plan import Plan
from segwright.training.run_dir import read_log

LOSSES = ["loss=cross_entropy,dice"]


@pytest.fixture
def quick(tiny_plan, monkeypatch):
    """Compare with the tiny plan in place of a planner's, on the CPU; a function that takes what `compare` takes."""

    def plans(data, variants, *, settings, **rest):
        plan = replace(tiny_plan, data=replace(tiny_plan.data, train=data))
        made = {each.name: plan.with_settings([*settings, *each.settings]) for each in variants}
        return made, SimpleNamespace(splits=open_splits(data))

    monkeypatch.setattr(comparison, "variant_plans", plans)

    def run(folder, data=tiny_plan.data.train, **words):
        words = {"steps": 2, "seeds": 2, "budget": Budget(device="cpu")} | words
        return compare(data, out=folder, **words)

    return run


def contents(folder):
    """What each file of the runs of a comparison holds: texts as they are, tensors by name, as files order them at random."""
    found = {}
    for path in folder.rglob("seed-*/*"):
        place = path.relative_to(folder).as_posix()
        if path.name in ("model.safetensors", "states.safetensors"):
            found |= {f"{place}/{name}": tensor.numpy().tobytes() for name, tensor in read_tensors(path)[0].items()}
        elif path.name in ("scores.json", "plan.toml"):
            found[place] = path.read_text()
    return found


def numbers(found):
    """The ranking as text, in which what is unknown equals itself."""
    return json.dumps(asdict(found.ranking))


def test_by_hand_and_on_disk(quick, tmp_path):
    told = []
    found = quick(tmp_path / "c", vary=LOSSES, watch=lambda *words: told.append(words))
    assert [each.name for each in found.variants] == ["cross_entropy", "dice"] and found.images == 2 and found.seeds == 2
    assert found.variants[0].steps == (2, 2) and found.variants[0].images_seen == (4, 4)
    assert told[-1] == ("dice, seed 1", 1.0, 4, None) and [share for name, share, *_ in told if "cross" in name].count(1.0) == 2
    runs = {path.parent.relative_to(tmp_path / "c").as_posix() for path in (tmp_path / "c").rglob("plan.toml")}
    assert runs == {f"{name}/seed-{seed}" for name in ("cross_entropy", "dice") for seed in (0, 1)}
    plan = Plan.read(tmp_path / "c" / "dice" / "seed-1")
    assert plan.training.seed == 1 and plan.training.steps == 2
    scores = json.loads((tmp_path / "c" / "dice" / "seed-1" / "scores.json").read_text())["values"]
    (dice,) = [each for each in found.ranking.standings if each.name == "dice"]
    assert dice.by_seed["mIoU"][1] == pytest.approx(scores["mIoU"]) and dice.by_seed["IoU/cell"][1] == scores["IoU/cell"]
    table = json.loads((tmp_path / "c" / FILE).read_text())
    assert table["ranking"]["standings"][0]["values"]["mIoU"] == found.ranking.standings[0].values["mIoU"]
    assert table["sentences"] == list(found.sentences) and table["asked"]["steps"] == 2
    assert "dice" in (tmp_path / "c" / "report.html").read_text()
    model = segwright.load(tmp_path / "c" / "dice" / "seed-0")  # each run is one like any other
    assert model.classes.names == ("background", "cell")


def test_law_variants_that_are_alike_do_not_differ(quick, tmp_path):
    found = quick(tmp_path / "c", variants={"one": [], "same": []})
    row = found.ranking.pairings[0].differences[0]
    assert row.difference == 0 and row.p == row.p_holm == 1
    assert "No difference can be claimed between one and same" in " ".join(found.sentences)
    pairs = [contents(tmp_path / "c" / name) for name in ("one", "same")]
    assert pairs[0] == pairs[1] and pairs[0]


def test_what_is_much_better_is_claimed(quick, tmp_path):
    """A network that learns hardly at all, beside one that does; of eight images, one swap in 128 does as well as none."""
    mask_folder.write(tmp_path / "data" / "train", synthetic.cells(4, shape=(32, 48), seed=1))
    mask_folder.write(tmp_path / "data" / "val", synthetic.cells(8, shape=(32, 48), seed=2))
    vary = ["optimiser.learning_rate=1e-9,0.02"]
    found = quick(tmp_path / "c", str(tmp_path / "data"), vary=vary, steps=40, seeds=1, settings=["training.validations=1"])
    assert found.ranking.standings[0].name == "learning_rate=0.02" and found.ranking.pairings[0].is_claimed
    assert found.sentences[0].startswith("learning_rate=0.02 is better than learning_rate=1e-9 by 0.")
    assert "Seeds were not varied" in found.sentences[1]


def test_what_was_finished_is_kept_and_more_seeds_are_added(quick, tmp_path):
    first = quick(tmp_path / "c", vary=LOSSES, seeds=1)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("seed-0/*")}
    assert "Seeds were not varied" in " ".join(first.sentences)
    again = quick(tmp_path / "c", vary=LOSSES, seeds=1)
    assert again.to_json() == first.to_json()
    more = quick(tmp_path / "c", vary=LOSSES, seeds=2)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("seed-0/*")} == times
    fresh = quick(tmp_path / "d", vary=LOSSES, seeds=2)
    assert contents(tmp_path / "c") == contents(tmp_path / "d")
    assert numbers(more) == numbers(fresh) and "Seeds were not varied" not in " ".join(more.sentences)


def test_a_run_that_was_killed_goes_on_or_begins_anew(quick, tmp_path):
    whole = quick(tmp_path / "c", vary=LOSSES, seeds=1)
    before = contents(tmp_path / "c")
    run = tmp_path / "c" / "dice" / "seed-0"
    for name in ("scores.json", "states.safetensors"):  # killed before it was scored
        (run / name).unlink()
    run = tmp_path / "c" / "cross_entropy" / "seed-0"
    for name in ("scores.json", "state.safetensors", "model.safetensors"):  # killed before its first save
        (run / name).unlink()
    assert numbers(quick(tmp_path / "c", vary=LOSSES, seeds=1)) == numbers(whole)
    assert contents(tmp_path / "c") == before
    (run / "states.safetensors").unlink()  # counted again from the model
    assert numbers(quick(tmp_path / "c", vary=LOSSES, seeds=1)) == numbers(whole)


def test_a_run_that_fails_is_told_and_the_others_go_on(quick, tmp_path, monkeypatch, caplog):
    real = comparison.train

    def train(plan, run, **words):
        if plan.training.seed == 1 and "/dice/" in run.as_posix():
            raise TrainingError("the loss is nan at step 1")
        return real(plan, run, **words)

    monkeypatch.setattr(comparison, "train", train)
    found = quick(tmp_path / "c", vary=["loss=cross_entropy,dice,cross_entropy+dice"])
    assert found.has_failures and found.variants[1].failures == {1: "the loss is nan at step 1"}
    assert {each.name for each in found.ranking.standings} == {"cross_entropy", "cross_entropy+dice"}
    assert "dice is left out of the ranking, as a run failed (dice, seed 1: the loss is nan at step 1)." in found.sentences
    monkeypatch.setattr(comparison, "train", real)
    assert len(quick(tmp_path / "c", vary=["loss=cross_entropy,dice,cross_entropy+dice"]).ranking.standings) == 3


def test_other_settings_are_refused_and_nothing_is_lost(quick, tmp_path):
    quick(tmp_path / "c", vary=LOSSES, seeds=1)
    before = contents(tmp_path / "c")
    with pytest.raises(OutputError, match="holds another comparison: steps 2 there and 3 here. To go on with it, give what it"):
        quick(tmp_path / "c", vary=LOSSES, seeds=1, steps=3)
    with pytest.raises(OutputError, match="variants .*; for another, choose another folder with --out"):
        quick(tmp_path / "c", vary=["loss=cross_entropy,weighted_sum"], seeds=1)
    assert contents(tmp_path / "c") == before
    text = (tmp_path / "c" / "dice" / "seed-0" / "plan.toml").read_text()
    (tmp_path / "c" / "dice" / "seed-0" / "plan.toml").write_text(text.replace("steps = 2", "steps = 9"))
    with pytest.raises(OutputError, match="dice/seed-0 holds a run by another plan than comparison.json above it"):
        quick(tmp_path / "c", vary=LOSSES, seeds=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="other holds other files and no comparison.json; choose another folder"):
        quick(tmp_path / "other", vary=LOSSES)
    (tmp_path / "c" / FILE).write_text("{")
    with pytest.raises(UsageError, match="comparison.json is damaged"):
        quick(tmp_path / "c", vary=LOSSES, seeds=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"vary": LOSSES, "seeds": 0}, "seeds is 0; give at least 1"),
        ({"vary": LOSSES, "jobs": 0}, "jobs is 0; give at least 1"),
        ({"vary": LOSSES, "steps": 0}, "steps is 0; give at least 1"),
        ({"vary": LOSSES, "variants": {"a": [], "b": []}}, "vary and variants are given"),
        ({"vary": LOSSES, "settings": ["training.seed=3"]}, "say how many with --seeds"),
        ({"vary": ["optimiser.learning_rat=1,2"]}, "did you mean 'learning_rate'"),
    ],
)
def test_words_that_cannot_be_are_told_before_anything_is_written(quick, tmp_path, words, message):
    with pytest.raises((SettingError, UsageError), match=message):
        quick(tmp_path / "c", **words)
    assert not (tmp_path / "c").exists()


def test_minutes_are_those_of_training_for_all(quick, tmp_path):
    found = quick(tmp_path / "c", vary=LOSSES, seeds=1, steps=None, budget=Budget(minutes=0.01, device="cpu"))
    for each in found.variants:
        assert each.seconds[0] >= 0.6 and each.steps[0] >= 1
    assert json.loads((tmp_path / "c" / FILE).read_text())["asked"]["minutes"] == 0.01


def test_two_jobs_do_the_same_as_one_to_the_bit(quick, tmp_path):
    """The first run of the second is the only one that is left for its processes: to start one takes seconds."""
    alone = quick(tmp_path / "one", vary=LOSSES, seeds=1)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "dice")
    shared = quick(tmp_path / "two", vary=LOSSES, seeds=1, jobs=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert numbers(alone) == numbers(shared) and not shared.has_failures
    logs = [read_log(tmp_path / name / "dice" / "seed-0") for name in ("one", "two")]
    assert np.array_equal(*[[record["loss"] for record in log if "loss" in record] for log in logs])


def test_names_of_folders_are_safe():
    assert folder_name("cross_entropy+dice, share=0.3") == "cross_entropy+dice,share=0.3"
    first, second = folder_name("crop=[64, 64]"), folder_name("crop=(64, 64)")
    assert first != second and set(first) <= comparison.SAFE and first.startswith("crop=-64,64-")
    assert folder_name("../up") not in ("../up", "..") and "/" not in folder_name("../up")

"""Few images tune what comes after the encoder within few minutes, on its kept answers; more tune all of a network."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from torch import nn

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import UsageError
from segwright.encoders import resnet, sam_vit
from segwright.models import sam, sam_nano
from segwright.planning import planner, trial
from segwright.planning.budget import Budget, Cost
from segwright.planning.planner import plan
from segwright.planning.scoring_time import ScoringTime
from segwright.planning.start import Start
from segwright.planning.tuning import FEW_IMAGES, FEW_SECONDS, LEARNING_RATE, kept_part, with_kept, with_low_rank_reason
from segwright.plans.plan import Init, Plan
from segwright.tasks.promptable import Promptable
from segwright.training.frozen import MOST_BYTES

GB = 2**30
ADAPTED = ['training.frozen=["encoder"]', "training.low_rank=2"]
TOKENS = sam.Config(
    in_channels=1, width=32, mlp_width=32, encoder=sam_vit.Config(width=16, depth=2, num_heads=2, global_blocks=(1,))
)
CLICKS = sam_nano.Config(in_channels=1, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16))
TRAINED = Start(init=Init(weights="runs/a"), normalise=None, why="", network=CLICKS, scale=0.5)


@pytest.fixture
def draft(tiny_plan):
    return replace(tiny_plan, task=Promptable(), model=CLICKS, init=TRAINED.init)


def trial_of(images=20, named=TRAINED, cost=None, crop_seconds=0.01):
    """A trial of so many images, in which a step costs what is said; it notes the scale."""

    def measured(kept, network, scale, seconds, memory):
        if cost is None:
            raise UsageError("no room")
        return replace(kept, reasons={"scale": str(scale)}), cost

    return SimpleNamespace(
        found=SimpleNamespace(count=images),
        named=named,
        fastest_precision=lambda kept, limit, memory: kept,
        measured=measured,
        crop_seconds=lambda kept: crop_seconds,
    )


def test_trained_weights_few_images_and_few_minutes_make_the_encoder_stay(draft):
    assert kept_part(draft, trial_of(), CLICKS, ["training.seed=3"], 300) == "encoder"
    assert kept_part(draft, trial_of(named=None), CLICKS, [], 300) is None
    assert kept_part(draft, trial_of(named=replace(TRAINED, network=None)), CLICKS, [], 300) is None  # of an encoder alone
    assert kept_part(draft, trial_of(FEW_IMAGES + 1), CLICKS, [], 300) is None
    assert kept_part(draft, trial_of(), CLICKS, [], FEW_SECONDS + 1) is None


@pytest.mark.parametrize("setting", ["training.frozen=[]", "training.num_crops = 64", "model.kind=sam", "init.weights=b.pth"])
def test_a_person_may_choose_otherwise(draft, setting):
    assert kept_part(draft, trial_of(), CLICKS, [setting], 300) is None


def test_other_tasks_and_networks_without_an_encoder_learn_as_a_whole(tiny_plan, draft):
    assert kept_part(tiny_plan, trial_of(), CLICKS, [], 300) is None
    assert kept_part(draft, trial_of(), SimpleNamespace(build=nn.Identity), [], 300) is None


def test_sixteen_crops_of_an_image_are_kept_or_as_many_as_time_and_memory_hold(draft):
    cost = Cost(seconds=0.1, memory_bytes=GB, first_seconds=0.3, answer_bytes=2**20, crop_bytes=2**20)
    made, same = with_kept(draft, "encoder", trial_of(cost=cost), CLICKS, 300, 4 * GB, 30)
    assert same == cost and made.training.frozen == ("encoder",) and made.training.num_crops == 320
    assert made.optimiser.learning_rate == LEARNING_RATE and made.reasons["scale"] == "0.5"
    assert made.reasons["training.num_crops"].startswith(
        "up to 16 of an image, each shown to the encoder once, which takes 67 s"
    )
    assert {"training.frozen", "optimiser.learning_rate", "model"} <= made.reasons.keys()
    each = 0.4 / draft.training.batch_size + 0.01
    short, _ = with_kept(draft, "encoder", trial_of(cost=cost), CLICKS, 100, 4 * GB, 30)
    assert short.training.num_crops == int(25 / each)  # a fourth of the time
    scarce, _ = with_kept(draft, "encoder", trial_of(cost=cost), CLICKS, 300, GB + 100 * 2**21, 30)
    assert scarce.training.num_crops == 100


def test_a_batch_that_a_person_set_is_kept_whole_or_all_learns(draft):
    cost = Cost(seconds=0.1, memory_bytes=GB, first_seconds=0.3, answer_bytes=2**20, crop_bytes=2**20)
    made, _ = with_kept(draft, "encoder", trial_of(images=3, cost=cost), CLICKS, 300, 4 * GB, 30, batch_size=64)
    assert made.training.num_crops == 64 and made.with_settings(["training.batch_size=64"]).training.frozen == ("encoder",)
    assert with_kept(draft, "encoder", trial_of(images=3, cost=cost), CLICKS, 300, GB + 60 * 2**21, 30, batch_size=64) is None


def test_where_not_one_crop_of_each_image_fits_all_learns(draft):
    cost = Cost(seconds=0.1, memory_bytes=GB, first_seconds=0.3, answer_bytes=2**20, crop_bytes=2**20)
    assert with_kept(draft, "encoder", trial_of(cost=cost), CLICKS, 300, GB + 19 * 2**21, 30) is None
    assert with_kept(draft, "encoder", trial_of(cost=cost), CLICKS, 10, 4 * GB, 30) is None
    assert with_kept(draft, "encoder", trial_of(), CLICKS, 300, 4 * GB, 30) is None  # no step fits
    large = replace(cost, answer_bytes=MOST_BYTES // 10)
    assert with_kept(draft, "encoder", trial_of(cost=large), CLICKS, 300, 99 * GB, 30) is None


def test_a_run_is_all_that_has_to_be_named(data, costs, monkeypatch, tmp_path, draft):
    run = tmp_path / "run"
    run.mkdir()
    ModelFile(CLICKS.build().state_dict(), draft, Classes.of(["object"], is_thing=[True])).write(run / "model.safetensors")
    timed = trial.step_cost
    kept = {"first_seconds": 0.5, "answer_bytes": 1000}
    monkeypatch.setattr(
        trial,
        "step_cost",
        lambda made, parts: replace(timed(made, parts), **kept) if made.training.num_crops else timed(made, parts),
    )
    monkeypatch.setattr(planner, "clicking_time", lambda made, samples: ScoringTime(on_the_way=0.1, at_the_end=0.1))
    monkeypatch.setattr(trial.Trial, "crop_seconds", lambda self, made: 0.001)
    made = plan(data, task="promptable", init=str(run), budget=Budget(minutes=9, device="cpu"))
    assert made.training.frozen == ("encoder",) and made.training.num_crops == 96  # six images
    assert all(each.training.frozen for each in costs)  # all of the network was never timed
    assert "while its crops are the first 96" in made.reasons["training.steps"]
    text = made.to_toml()
    assert "6 images and " in text and " minutes are few" in text and Plan.from_toml(text) == made
    nine, large = Budget(minutes=9, device="cpu"), ["training.batch_size=100"]
    asked = plan(data, task="promptable", init=str(run), budget=nine, settings=large)
    assert asked.training.batch_size == 100 == asked.training.num_crops and asked.training.frozen == ("encoder",)
    long = plan(data, task="promptable", init=str(run), budget=Budget(minutes=30, device="cpu"))
    assert long.training.frozen == () and long.training.num_crops is None


def test_the_reason_of_a_rank_says_how_much_learns(draft):
    plan = replace(draft, model=TOKENS)
    assert with_low_rank_reason(plan) is plan
    said = with_low_rank_reason(plan.with_settings(ADAPTED))
    factors = 2 * 2 * ((16 + 48) + (16 + 16) + 2 * (16 + 64))  # two blocks, rank 2
    network = TOKENS.build()
    every = factors + sum(weight.numel() for weight in network.parameters())
    others = every - factors - sum(weight.numel() for weight in network.encoder.parameters())
    assert said.reasons["training.low_rank"] == (
        f"set by hand: {factors} weights beside 8 linear layers of encoder learn, and {others} of what is not frozen, "
        f"of {every}; the network runs as a whole in each step"
    )
    assert Plan.from_toml(said.to_toml()) == said and said.reasons["training.low_rank"] in said.to_toml()


def test_a_plan_with_a_rank_is_timed_with_it(data, costs, monkeypatch, tmp_path, draft):
    """From the first try on: all of the network might not even fit the memory."""
    (tmp_path / "run").mkdir()
    before = replace(draft, model=TOKENS)
    ModelFile(TOKENS.build().state_dict(), before, Classes.of(["object"], is_thing=[True])).write(
        tmp_path / "run" / "model.safetensors"
    )
    monkeypatch.setattr(planner, "clicking_time", lambda made, samples: ScoringTime(on_the_way=0.1, at_the_end=0.1))
    monkeypatch.setattr(trial.Trial, "crop_seconds", lambda self, made: 0.001)
    made = plan(data, task="promptable", init=str(tmp_path / "run"), budget=Budget(minutes=9, device="cpu"), settings=ADAPTED)
    assert made.training.low_rank == 2 and made.training.frozen == ("encoder",) and made.training.num_crops is None
    assert costs and all(each.training.low_rank == 2 for each in costs)
    assert "beside 8 linear layers of encoder learn" in made.to_toml()

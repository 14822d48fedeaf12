"""What --vary says, as variants and as plans."""

from dataclasses import replace

import pytest

from segwright.core.errors import SettingError, UnknownNameError, UsageError
from segwright.formats import mask_folder, synthetic
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum
from segwright.planning.budget import Budget
from segwright.planning.start import Wish
from segwright.planning.variants import Variant, grid, loss_settings, named, variant_plans


def test_by_hand():
    assert grid(["loss=dice,planned"]) == [
        Variant(name="dice", settings=("task.criterion.kind=dice",)),
        Variant(name="planned loss"),
    ]
    found = grid(["model=unet_tiny,unet_small", "init=scratch,timm", "sampler.share=0.3,0.6"])
    assert len(found) == 8 and found[0].name == "unet_tiny, scratch, share=0.3"
    assert found[-1] == Variant(
        name="unet_small, timm, share=0.6", model="unet_small", init="timm", settings=("sampler.share=0.6",)
    )


def test_a_sum_of_losses_is_the_loss_that_it_says(tiny_plan):
    plan = tiny_plan.with_settings(loss_settings("cross_entropy+dice"))
    assert plan.task.criterion == WeightedSum(terms=(CrossEntropy(), Dice()), weights=(1.0, 1.0))
    assert tiny_plan.with_settings(loss_settings("dice")).task.criterion == Dice()


def test_commas_inside_brackets_and_quotes_part_nothing():
    found = grid(["training.crop=[64, 64],[96,96]", 'sampler.kind=uniform,"class_balanced"'])
    assert [each.name for each in found][::2] == ["crop=[64, 64], kind=uniform", "crop=[96,96], kind=uniform"]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["los=dice,focal"], "there is no 'los' to vary, did you mean 'loss'"),
        (["optimizer.learning_rate=1,2"], "there is no 'optimizer.learning_rate' to vary, did you mean 'optimiser'"),
        (["loss=dcie,cross_entropy"], "there is no loss 'dcie', did you mean 'dice'"),
        (["loss=dice+dcie,dice"], "there is no loss 'dcie', did you mean 'dice'"),
        (["sampler=unifrom,class_balanced"], "did you mean 'uniform'"),
        (["model=unet_tyni,unet_small"], "there is no model 'unet_tyni', did you mean 'unet_tiny'"),
        (["loss=dice"], "which gives 1 variant; two are needed to compare"),
        ([], "--vary is missing, which gives no variant"),
        (["loss"], "names nothing to vary; write NAME=VALUE,VALUE"),
        (["loss=dice,"], "names nothing to vary"),
        (["loss=dice,dice"], "dice is given twice"),
        (["loss=dice,cross_entropy", "loss=dice"], "loss is given twice"),
        (["seed=0,1"], "each variant is trained with the same seeds: say how many with --seeds"),
        (["training.steps=3,4"], "say how many with --minutes or --steps"),
        (["data.train=a,b"], "compare one data set at a time"),
    ],
)
def test_words_that_cannot_be_are_named_with_the_nearest(vary, message):
    with pytest.raises((SettingError, UnknownNameError, UsageError), match=message):
        grid(vary)


def test_variants_by_name():
    assert named({"a": [], "b": ["training.ema=0"]})[1] == Variant(name="b", settings=("training.ema=0",))
    with pytest.raises(UsageError, match="1 variants were given; two are needed"):
        named({"a": []})
    with pytest.raises(SettingError, match="--seeds"):
        named({"a": [], "b": ["training.seed=3"]})


@pytest.fixture(scope="module")
def planned_variants(tmp_path_factory):
    """The plans of a loss, a crop, a network and weights to start from, made for drawn cells; the asked variants."""
    data = tmp_path_factory.mktemp("data")
    mask_folder.write(data / "train", synthetic.cells(4, shape=(48, 64), seed=1))
    mask_folder.write(data / "val", synthetic.cells(2, shape=(48, 64), seed=2))
    variants = [
        Variant(name="plain"),
        Variant(name="dice", settings=("task.criterion.kind=dice",)),
        Variant(name="crop", settings=("training.crop=[32,32]",)),
        Variant(name="scratch", init="scratch"),
        Variant(name="tiny", model="unet_tiny"),
    ]
    plans, made = variant_plans(
        str(data),
        variants,
        val=None,
        fold=None,
        budget=Budget(minutes=0.05, device="cpu"),
        task="semantic",
        model=None,
        wish=Wish(),
        settings=["training.batch_size=2"],
    )
    return plans, made


def test_a_variant_differs_by_what_is_varied_alone(planned_variants):
    plans, made = planned_variants
    base = plans["plain"]
    assert base.training.batch_size == 2 and len(made.splits.val) == 2
    assert plans["dice"] == replace(base, task=replace(base.task, criterion=Dice()))
    crop = plans["crop"].training
    assert crop.crop == (32, 32) and replace(crop, crop=base.training.crop, steps=base.training.steps) == base.training
    assert plans["scratch"].model == base.model and plans["scratch"].init.weights is None
    assert plans["tiny"].model != base.model and plans["tiny"].model.num_classes == base.model.num_classes
    assert len({plan.training.validations for plan in plans.values()}) == 1
    assert len({plan.data.train for plan in plans.values()}) == 1

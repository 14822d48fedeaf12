"""What a batch holds depends on seed and position alone."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from segwright.core.errors import UsageError
from segwright.formats import open_splits
from segwright.tasks.semantic import Semantic
from segwright.training.batches import Crops, batches, prepare
from segwright.transforms.normalise import Normalise


def crops_of(plan) -> Crops:
    train_set, _ = open_splits(plan.data.train, plan.data.val)
    return Crops(train_set, plan, Semantic(plan.loss))


def test_a_batch_holds_crops_in_the_networks_shape(tiny_plan):
    batch = next(batches(crops_of(tiny_plan), 0, 2, rank=0, world=1))
    assert batch.image.shape == (2, 1, 32, 48) and batch.image.dtype == torch.float32
    assert batch.target.shape == (2, 32, 48) and batch.target.dtype == torch.int64
    assert batch.target.min() >= -1 and batch.target.max() <= 1


def test_each_epoch_sees_each_sample_once(tiny_plan):
    crops = crops_of(tiny_plan)
    for epoch in range(3):
        assert sorted(crops[position][0] for position in range(epoch * 6, epoch * 6 + 6)) == sorted(crops.dataset.keys)


def test_a_crop_does_not_depend_on_what_was_loaded_before(tiny_plan):
    fresh, used = crops_of(tiny_plan), crops_of(tiny_plan)
    for position in range(5):
        used[position]
    for a, b in zip(fresh[5], used[5], strict=True):
        assert np.array_equal(a, b)


def test_two_processes_see_together_what_one_sees(tiny_plan):
    crops = crops_of(tiny_plan)
    alone = list(islice(batches(crops, 4, 4, rank=0, world=1), 2))
    shared = [list(islice(batches(crops, 4, 4, rank=rank, world=2), 2)) for rank in (0, 1)]
    for step in range(2):
        assert torch.equal(alone[step].image, torch.cat([shared[0][step].image, shared[1][step].image]))


def test_a_full_cache_changes_nothing_but_time(tiny_plan, monkeypatch):
    expected = crops_of(tiny_plan)[3]
    monkeypatch.setattr("segwright.training.batches.CACHE_BYTES", 0)
    crops = crops_of(tiny_plan)
    assert np.array_equal(crops[3][1], expected[1]) and not crops.cache


def test_preparing_sets_channels_zoom_and_the_normalisation_of_each_image(tiny_plan):
    plan = replace(tiny_plan, data=replace(tiny_plan.data, channels=3, zoom=0.5))
    sample = prepare(crops_of(tiny_plan).dataset[0], plan)
    assert sample.image.shape == (3, 24, 32) and abs(sample.image.mean()) < 1e-3
    fixed = replace(plan, data=replace(plan.data, normalise=Normalise(mean=(1.0,) * 3, std=(2.0,) * 3)))
    assert prepare(crops_of(tiny_plan).dataset[0], fixed).image.dtype == np.uint8


@pytest.mark.parametrize("normalise", [Normalise(), Normalise(mean=(1.0,), std=(2.0,))])
def test_a_sample_with_holes_is_named(tiny_plan, normalise):
    crops = crops_of(replace(tiny_plan, data=replace(tiny_plan.data, normalise=normalise)))
    whole = crops.dataset
    holey = replace(whole[0], image=np.full(whole[0].image.shape, np.nan, np.float32))
    crops.dataset = replace(whole, load=lambda key: replace(holey, key=key))
    with pytest.raises(UsageError, match=rf"sample '{crops_of(tiny_plan)[0][0]}': the image holds NaN or infinity"):
        crops[0]

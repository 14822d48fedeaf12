"""What a batch holds depends on seed and position alone."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.data import store
from segwright.data.missing import void_where_missing
from segwright.data.samplers.class_balanced import ClassBalanced
from segwright.data.samplers.class_balanced_images import ClassBalancedImages
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.data.splits import open_splits
from segwright.data.store import ClassIndex
from segwright.layers.object_truth import ObjectTruth
from segwright.training import dataloader
from segwright.training.dataloader import CropDataset, ahead_of, batches
from segwright.transforms.copy_paste import CopyPaste
from segwright.transforms.intensity import Intensity
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess


def crops_of(plan) -> CropDataset:
    return CropDataset.of(open_splits(plan.data.train, plan.data.val).train, plan)


def test_a_batch_holds_crops_in_the_networks_shape(tiny_plan):
    (batch,) = next(batches(crops_of(tiny_plan), 0, 1, rank=0, world=1))
    assert batch.image.shape == (2, 1, 32, 48) and batch.image.dtype == torch.float32
    assert batch.target.shape == (2, 32, 48) and batch.target.dtype == torch.int64
    assert batch.target.min() >= -1 and batch.target.max() <= 1


def test_parts_of_a_batch_are_the_batch(tiny_plan):
    whole, parts = (next(batches(crops_of(of_four(tiny_plan)), 0, count, rank=0, world=1)) for count in (1, 2))
    assert [len(part.keys) for part in parts] == [2, 2] and parts[0].keys + parts[1].keys == whole[0].keys
    assert torch.equal(torch.cat([part.image for part in parts]), whole[0].image)


def of_four(plan):
    return replace(plan, training=replace(plan.training, batch_size=4))


@pytest.mark.parametrize("normalise", [Normalise(), Normalise(mean=(100.0,), std=(40.0,))])
@pytest.mark.parametrize("scale", [None, (0.5, 0.75)])
def test_where_images_lack_values_crops_have_the_mean_and_teach_nothing(tiny_plan, normalise, scale):
    for path in sorted((Path(tiny_plan.data.train) / "train" / "images").iterdir()):
        with Image.open(path) as picture:
            image = np.array(picture).astype(np.int16)
        image[:, :20] = -9999
        image[::7, ::5] = -9999
        tifffile.imwrite(path.with_suffix(".tif"), image, extratags=[(42113, "s", 0, "-9999", True)])
        path.unlink()
    preprocess = replace(tiny_plan.data.preprocess, normalise=normalise, scale=scale)
    crops = crops_of(replace(tiny_plan, data=replace(tiny_plan.data, preprocess=preprocess)))
    share = []
    for position in range(8):
        _, image, target = crops[position]
        assert np.isfinite(image).all() and np.abs(image).max() < 20 and image.std() > 0.1
        assert (target[image[0] == 0] == -1).mean() > 0.95  # a measurement may lie on the mean
        share.append((image[0] == 0).mean())
    assert 0.1 < np.mean(share) < 0.7
    item = crops.store.read(crops.store.dataset.keys[0])
    assert item.locations.counts().sum() == np.isfinite(item.whole().image).sum()  # no crop is centred on a hole


@pytest.mark.parametrize("sampler", [ForegroundPatches(share=0.5), ClassBalanced(share=0.5), ClassBalancedImages()])
def test_crops_are_alike_to_the_bit_whether_samples_lie_in_memory_or_on_disk(tiny_plan, sampler, monkeypatch, tmp_path):
    augmentation = replace(tiny_plan.augmentation, copy_paste=CopyPaste(share=0.7))
    plan = replace(tiny_plan, sampler=sampler, augmentation=augmentation)
    monkeypatch.setattr(ClassIndex, "rare", np.array([1]))
    expected = [crops_of(plan)[position] for position in range(6)]
    monkeypatch.setattr(store, "CACHE_BYTES", 0)
    monkeypatch.setattr(store, "LARGE", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    crops = crops_of(plan)
    for position, wanted in enumerate(expected):
        for a, b in zip(wanted, crops[position], strict=True):
            assert np.array_equal(a, b)
        assert np.array_equal(crops.truth(position).truth.class_map(), wanted[2])
    assert crops.store.items and all(item.folder is not None for item in crops.store.items.values())


def test_each_epoch_sees_each_sample_once(tiny_plan):
    crops = crops_of(tiny_plan)
    for epoch in range(3):
        keys = sorted(crops[position][0] for position in range(epoch * 6, epoch * 6 + 6))
        assert keys == sorted(crops.store.dataset.keys)


def test_a_crop_does_not_depend_on_what_was_loaded_before(tiny_plan):
    fresh, used = crops_of(tiny_plan), crops_of(tiny_plan)
    for position in range(5):
        used[position]
    for a, b in zip(fresh[5], used[5], strict=True):
        assert np.array_equal(a, b)


def test_two_processes_see_together_what_one_sees(tiny_plan):
    crops = crops_of(of_four(tiny_plan))
    alone = list(islice(batches(crops, 4, 1, rank=0, world=1), 2))
    shared = [list(islice(batches(crops, 4, 1, rank=rank, world=2), 2)) for rank in (0, 1)]
    for step in range(2):
        assert torch.equal(alone[step][0].image, torch.cat([shared[0][step][0].image, shared[1][step][0].image]))


def test_threads_make_the_same_batches_in_the_same_order(tiny_plan, monkeypatch):
    """As for a GPU, where memory is pinned; here there is none, so that step is left out."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    crops = crops_of(tiny_plan)
    gpu = replace(tiny_plan, training=replace(tiny_plan.training, device="cuda"))
    ahead = list(islice(batches(replace(crops_of(gpu)), 0, 2, rank=0, world=1), 5))
    for ours, theirs in zip(ahead, islice(batches(crops, 0, 2, rank=0, world=1), 5), strict=True):
        assert [part.keys for part in ours] == [part.keys for part in theirs]
        assert all(torch.equal(a.image, b.image) and torch.equal(a.target, b.target) for a, b in zip(ours, theirs, strict=True))


def test_a_sample_that_fails_in_a_thread_is_named(tiny_plan, monkeypatch):
    gpu = replace(tiny_plan, training=replace(tiny_plan.training, device="cuda"))
    crops = crops_of(gpu)

    def load(key):
        raise UsageError("is gone")

    broken = replace(crops, store=replace(crops.store, dataset=replace(crops.store.dataset, load=load)))
    with pytest.raises(UsageError, match="sample 'train__cells_000[0-9]': is gone"):
        next(batches(broken, 0, 1, rank=0, world=1))


def test_an_iterator_is_asked_ahead():
    asked = []
    numbers = ahead_of((asked.append(n) or n for n in range(5)), 2)
    assert next(numbers) == 0 and asked == [0, 1, 2]
    assert list(numbers) == [1, 2, 3, 4]


def test_targets_of_any_shape_are_pinned(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    objects = ObjectTruth(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, 2, 2))
    (found,) = dataloader.pinned([objects])
    assert type(found) is ObjectTruth and all((tensor == 1).all() for tensor in found)
    found = dataloader.pinned({"boxes": [torch.zeros(1), torch.ones(1)], "name": "a"})
    assert [tensor.item() for tensor in found["boxes"]] == [1, 2] and found["name"] == "a"


@pytest.mark.parametrize("normalise", [Normalise(), Normalise(mean=(1.0,), std=(2.0,))])
def test_a_sample_without_any_value_is_all_mean(tiny_plan, normalise):
    preprocess = replace(tiny_plan.data.preprocess, normalise=normalise)
    plan = replace(tiny_plan, data=replace(tiny_plan.data, preprocess=preprocess))
    whole = open_splits(plan.data.train).train
    empty = replace(whole[0], image=np.full(whole[0].image.shape, np.nan, np.float32))
    data = void_where_missing(replace(whole, load=lambda key: replace(empty, key=key)))
    _, image, target = CropDataset.of(data, plan)[0]
    assert not image.any() and (target == -1).all()


# Crops that come again


def test_crops_come_again_in_other_orders_where_a_plan_says_how_many_differ(tiny_plan):
    plan = replace(tiny_plan, training=replace(tiny_plan.training, num_crops=4))
    endless, crops = crops_of(tiny_plan), crops_of(plan)
    first = [crops[position] for position in range(4)]
    for position, (key, image, target) in enumerate(first):
        assert key == endless[position][0] and np.array_equal(image, endless[position][1])
        assert np.array_equal(target, endless[position][2])
    again = [[id(crops[4 * round_ + place]) for place in range(4)] for round_ in range(1, 6)]
    assert all(sorted(each) == sorted(map(id, first)) for each in again) and len({*map(tuple, again)}) > 1
    fresh = crops_of(plan)  # as when a run goes on
    assert all(np.array_equal(fresh[position][1], crops[position][1]) for position in (9, 6))
    assert all(np.array_equal(crops.truth(n).truth.class_map(), crops[n][2]) for n in (5, 7))


# Copy-paste


def test_crops_that_are_kept_take_the_bytes_of_image_and_target(tiny_plan):
    crops = crops_of(replace(tiny_plan, training=replace(tiny_plan.training, num_crops=4)))
    assert crops.kept_bytes == 0
    crops.parts([0, 1], 1)
    assert crops.kept_bytes == 32 * 48 * (4 + 8)  # a float32 image of one channel, and a target of int64
    truth = ObjectTruth(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(1, 32, 48, dtype=torch.int32))
    crops.kept[0] = crops.kept[1] = ("a", np.zeros((1, 32, 48), np.float32), truth)
    assert crops.kept_bytes == 32 * 48 * (4 + 4) + 3 * (16 + 8)


def rare_crops(tiny_plan, share: float) -> CropDataset:
    """Crops of noise in which two of four images hold a bright object of a rare class."""
    classes = Classes.of(["background", "rare"])

    def load(key: str) -> Sample:
        generator = np.random.default_rng(int(key))
        class_map = np.zeros((48, 64), int)
        if int(key) % 2:
            class_map[20:23, 30:34] = 1
        image = generator.integers(0, 40, (1, 48, 64)) + 200 * class_map
        return Sample.of(key, image.astype(np.uint8), Segmentation.semantic(class_map, classes))

    augmentation = replace(
        tiny_plan.augmentation,
        copy_paste=CopyPaste(share=share),
        intensity=Intensity(brightness=0, contrast=0, gamma=0, saturation=0, noise=0),
    )
    preprocess = Preprocess(channels=1, normalise=Normalise(mean=(100.0,), std=(50.0,)))
    plan = replace(tiny_plan, augmentation=augmentation, data=replace(tiny_plan.data, preprocess=preprocess))
    return CropDataset.of(Dataset("memory", classes, tuple("0123"), load), plan)


def test_rare_objects_are_pasted_with_their_truth(tiny_plan):
    plain, pasted = rare_crops(tiny_plan, 0.0), rare_crops(tiny_plan, 1.0)
    before, after = ([crops[position] for position in range(16)] for crops in (plain, pasted))
    assert sum((target == 1).any() for _, _, target in before) <= 8 < 14 <= sum((target == 1).any() for _, _, target in after)
    for (key, image, target), (other, now, found) in zip(before, after, strict=True):
        is_new = np.abs(image[0] - now[0]) > 0.01
        assert key == other and (found[is_new] == 1).all() and (target[~is_new] == found[~is_new]).all()
        assert (now[0][is_new] > 0).mean() > 0.5  # bright, but for the rim


def test_what_is_pasted_depends_on_the_position_alone(tiny_plan):
    fresh, used = rare_crops(tiny_plan, 1.0), rare_crops(tiny_plan, 1.0)
    for position in range(5):
        used[position]
    for a, b in zip(fresh[5], used[5], strict=True):
        assert np.array_equal(a, b)
    keys = rare_crops(tiny_plan, 0.5)
    assert 3 <= sum(not np.array_equal(keys[n][1], rare_crops(tiny_plan, 0.0)[n][1]) for n in range(16)) <= 13


def test_without_a_rare_class_nothing_is_pasted(tiny_plan):
    pasting = replace(tiny_plan, augmentation=replace(tiny_plan.augmentation, copy_paste=CopyPaste(share=1.0)))
    for position in range(4):
        for a, b in zip(crops_of(pasting)[position], crops_of(tiny_plan)[position], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_truths_alone_are_those_of_the_crops(tiny_plan, share):
    crops = rare_crops(tiny_plan, share)
    for position in range(6):
        key, _, target = crops[position]
        alone = crops.truth(position)
        assert alone.key == key and alone.image.shape == (0, 32, 48) and (alone.truth.class_map() == target).all()

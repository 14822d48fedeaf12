"""Samples on disk: what is read is what was written, whole or not at all, and no more of them than there is room for."""

import logging
import os
import re
import shutil
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError
from segwright.data import disk_samples
from segwright.data.disk_samples import IMAGE, INDEX, PLANES, DiskSamples, layout_for
from segwright.data.stored_sample import StoredSample
from segwright.transforms.geometric import Geometric
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

CLASSES = Classes.of(["background", "cell", "wall"])
AS_STORED = Preprocess(channels=1, normalise=Normalise(mean=(0.0,), std=(1.0,)))
CROP = {2: (16, 24), 3: (8, 12, 16)}
CHANGES = Geometric(scale=(0.6, 1.8), rotate_deg=30.0, flip_axes=(-1, -2), elastic_px=0.5)


def semantic(axes: int, dtype=np.int16) -> Sample:
    generator, shape = np.random.default_rng(0), (70, 90) if axes == 2 else (20, 30, 40)
    truth = Segmentation.semantic(generator.integers(-1, 3, shape), CLASSES)
    return Sample("a", generator.integers(0, 100, (1, *shape)).astype(dtype), Grid(shape, (1.0,) * axes), truth)


def objects() -> Sample:
    masks = np.zeros((3, 70, 90), bool)
    masks[0, 5:40, 5:50], masks[1, 20:60, 30:80], masks[2, 25:30, 35:70] = True, True, True
    return replace(semantic(2), truth=Segmentation.instances(masks, [1, 2, 1], classes=CLASSES))


def with_holes() -> Sample:
    sample = semantic(2, np.float32)
    sample.image[:, ::7] = np.nan
    return sample


@pytest.fixture
def disk(tmp_path) -> DiskSamples:
    return DiskSamples(CROP[2], tmp_path / "samples")


KINDS = {
    "image": semantic(2),
    "volume": semantic(3),
    "objects": objects(),
    "holes": with_holes(),
    "bytes": semantic(2, np.uint8),
}


@pytest.mark.parametrize("preprocess", [AS_STORED, Preprocess(channels=1)], ids=["as stored", "by its own values"])
@pytest.mark.parametrize("kind", KINDS)
def test_crops_and_pixels_are_those_of_memory_to_the_bit(kind, preprocess, tmp_path):
    sample, axes = KINDS[kind], len(KINDS[kind].grid.shape)
    preprocess = replace(preprocess, scale=(0.8, 0.9, 0.9)[-axes:])
    there = DiskSamples(CROP[axes], tmp_path).stored(sample, preprocess)
    here = StoredSample.of(preprocess.resampled(sample))
    assert there.folder is not None and here.folder is None and there.shape == here.shape
    for seed in range(6):
        one, other = (
            item.crop(CHANGES, CROP[axes], np.random.default_rng(seed), lambda generator, item=item: item.pixel(2, generator))
            for item in (here, there)
        )
        assert one.image.tobytes() == other.image.tobytes() and one.grid.spacing_mm == other.grid.spacing_mm
        assert np.array_equal(one.truth.planes, other.truth.planes)
        assert np.array_equal(one.truth.instance_ids, other.truth.instance_ids)
    assert there.whole().image.tobytes() == here.whole().image.tobytes()
    assert np.array_equal(there.locations.ends, here.locations.ends)


def test_a_sample_without_truth_is_kept_too(disk):
    item = disk.stored(replace(semantic(2), truth=None), AS_STORED)
    assert item.folder is not None and item.whole().truth is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_nobody_else_may_open_it(disk):
    assert disk.stored(semantic(2), AS_STORED).folder.stat().st_mode & 0o777 == 0o700


def test_what_a_first_network_found_lies_there_too(disk, monkeypatch):
    sample = semantic(2)
    sample = replace(sample, image=np.concatenate([sample.image, sample.image > 50, sample.image < 9]).astype(np.int16))
    preprocess = replace(AS_STORED, class_channels=2)
    first = disk.stored(sample, preprocess)
    assert first.folder is not None and np.array_equal(first.whole().image, sample.image)
    monkeypatch.setattr(Preprocess, "resampled", lambda *_: pytest.fail("resampled again"))
    assert disk.stored(sample, preprocess).folder == first.folder


def test_it_is_resampled_once_and_found_by_later_runs(disk, monkeypatch):
    sample = semantic(2)
    first = disk.stored(sample, AS_STORED)
    monkeypatch.setattr(Preprocess, "resampled", lambda *_: pytest.fail("resampled again"))
    again = DiskSamples(CROP[2], disk.folder).stored(semantic(2), AS_STORED)
    assert again.folder == first.folder and np.array_equal(again.whole().image, sample.image)


@pytest.mark.parametrize("change", ["image", "truth", "classes", "preprocess", "spacing", "code"])
def test_what_differs_has_another_place(change, disk, monkeypatch):
    sample, preprocess = semantic(2), AS_STORED
    first = disk.stored(sample, preprocess)
    if change == "image":
        sample.image[0, 0, 0] += 1
    elif change == "truth":
        sample.truth.planes[0, 0, 0] = 0
    elif change == "classes":
        sample = replace(sample, truth=replace(sample.truth, class_ids=sample.truth.class_ids[::-1].copy()))
    elif change == "preprocess":
        preprocess = replace(preprocess, scale=(0.5, 0.5))
    elif change == "spacing":
        sample = replace(sample, grid=Grid(sample.grid.shape, (2.0, 1.0)))
    else:
        monkeypatch.setattr(disk_samples, "preparing_code", lambda: "of a later version")
    assert disk.stored(sample, preprocess).folder != first.folder


@pytest.mark.parametrize("name", [PLANES, INDEX])
@pytest.mark.parametrize("length", [0, 100])
def test_what_was_cut_off_is_made_again(name, length, disk):
    item = disk.stored(semantic(2), AS_STORED)
    os.truncate(item.folder / name, length)
    again = DiskSamples(CROP[2], disk.folder).stored(semantic(2), AS_STORED)
    assert again.folder == item.folder and np.array_equal(again.whole().truth.planes, semantic(2).truth.planes)
    assert again.locations.counts().sum() > 0


@pytest.mark.parametrize("name", [IMAGE, PLANES])
def test_what_is_damaged_inside_says_what_to_remove(name, disk):
    item = disk.stored(semantic(2), AS_STORED)
    data = (item.folder / name).read_bytes()
    (item.folder / name).write_bytes(data[:200] + bytes(len(data) // 2) + data[200 + len(data) // 2 :])
    with pytest.raises(FormatError, match=rf"{name}, where .* remove the folder (\S+), which is made again") as caught:
        item.whole()
    shutil.rmtree(re.search(r"the folder (\S+),", str(caught.value)).group(1))
    again = DiskSamples(CROP[2], disk.folder).stored(semantic(2), AS_STORED)
    assert np.array_equal(again.whole().image, semantic(2).image)


def test_all_of_it_is_on_the_disk_before_it_has_its_name(disk, monkeypatch):
    settled, rename = [], Path.rename
    monkeypatch.setattr(os, "fsync", lambda number: settled.append(os.fstat(number).st_ino))

    def check(path, target):
        assert sorted(settled) == sorted(file.stat().st_ino for file in path.iterdir()) and len(settled) == 3
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", check)
    assert disk.stored(semantic(2), AS_STORED).folder is not None


def test_what_a_killed_process_left_is_never_read_and_goes_after_a_day(disk, monkeypatch):
    monkeypatch.setattr(DiskSamples, "_write_array", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as where the process ends at once
    with pytest.raises(KeyboardInterrupt):
        disk.stored(semantic(2), AS_STORED)
    monkeypatch.undo()
    (left,) = disk.folder.iterdir()
    kept = disk.stored(semantic(2), AS_STORED)
    assert left.is_dir() and kept.folder != left  # it may still be at work
    os.utime(left, (time.time() - 2 * disk_samples.KEPT_SECONDS,) * 2)
    disk.stored(objects(), AS_STORED)
    assert not left.exists() and kept.is_there()


def test_the_oldest_go_where_all_together_are_too_many_but_none_of_today(disk, monkeypatch):
    samples = [semantic(2), objects(), semantic(2, np.uint8)]
    old, new = (disk.stored(sample, AS_STORED) for sample in samples[:2])
    needed = 5 * samples[2].image.nbytes  # and 4 bytes for each label
    monkeypatch.setattr(disk_samples, "MAX_BYTES", bytes_in(new.folder) + needed)
    assert disk.stored(samples[2], AS_STORED).folder is None and disk.is_full
    os.utime(old.folder, (time.time() - 2 * disk_samples.KEPT_SECONDS,) * 2)
    later = DiskSamples(CROP[2], disk.folder)
    assert later.stored(samples[2], AS_STORED).folder is not None
    assert not old.is_there() and new.is_there()


def bytes_in(folder) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_full_disk_is_told_once_and_all_goes_on_from_memory(disk, monkeypatch, caplog, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 1 << 40, 1 << 30))
    with caplog.at_level(logging.WARNING):
        items = [disk.stored(sample, AS_STORED) for sample in (semantic(2), objects())]
    assert [item.folder for item in items] == [None, None] and np.array_equal(items[0].whole().image, semantic(2).image)
    (told,) = caplog.messages
    assert str(disk.folder) in told and "10% stay free); free space there, or set XDG_CACHE_HOME" in told
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "larger"))
    assert DiskSamples(CROP[2]).stored(semantic(2), AS_STORED).folder.is_relative_to(tmp_path / "larger")


def test_what_cannot_be_written_leaves_nothing_behind(disk, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("Error while creating the NDArray")  # what blosc2 says where the disk is full

    monkeypatch.setattr(DiskSamples, "_write_array", fail)
    assert disk.stored(semantic(2), AS_STORED).folder is None and disk.is_full
    assert not list(disk.folder.iterdir()) and "Error while creating the NDArray" in caplog.text


def test_a_process_that_was_slower_takes_what_the_other_wrote(disk, monkeypatch):
    write = DiskSamples._write_array

    def write_after_the_other(self, path, values):
        if path.name == PLANES:
            monkeypatch.setattr(DiskSamples, "_write_array", write)
            DiskSamples(CROP[2], disk.folder).stored(semantic(2), AS_STORED)
        write(self, path, values)

    monkeypatch.setattr(DiskSamples, "_write_array", write_after_the_other)
    item = disk.stored(semantic(2), AS_STORED)
    assert list(disk.folder.iterdir()) == [item.folder] and np.array_equal(item.whole().image, semantic(2).image)


def test_many_threads_read_at_once(disk):
    item = disk.stored(semantic(2), AS_STORED)
    windows = [(slice(n, n + 20), slice(2 * n, 2 * n + 30)) for n in range(30)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(item.part, windows))
    assert all(np.array_equal(part.image, semantic(2).image[:, *here]) for part, here in zip(parts, windows, strict=True))


@pytest.mark.parametrize(
    ("shape", "item_bytes", "crop", "chunk", "block"),
    [
        ((1024, 2048), 1, (512, 512), (768, 512), (256, 512)),
        ((256, 512, 512), 4, (64, 128, 128), (96, 128, 128), (32, 32, 32)),
        ((20, 512, 512), 4, (16, 256, 256), (16, 288, 320), (16, 32, 64)),
        ((10, 12), 4, (64, 64), (10, 12), (10, 12)),
    ],
)
def test_chunks_are_no_larger_than_a_crop_and_a_half(shape, item_bytes, crop, chunk, block):
    found_chunk, found_block = layout_for(shape, item_bytes, crop)
    assert np.prod(found_block) * item_bytes <= 128 << 10 and np.prod(found_chunk) * item_bytes <= 6 << 20
    assert all(c <= 1.5 * side for c, side in zip(found_chunk, crop, strict=True))
    assert all(c % b == 0 or c == side for c, b, side in zip(found_chunk, found_block, shape, strict=True))
    assert (found_chunk, found_block) == (chunk, block)

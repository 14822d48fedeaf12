"""Conversion, with formats that lie in this file as well as real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.conversion import Change, compare_samples, convert, writers
from segwright.core import VOID, Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError, UnknownNameError
from segwright.formats import coco, dataset_file, mask_folder, open_dataset, synthetic, volume

TWO = Classes.of(["road", "car"], is_thing=[False, True])
ROW = np.array([[True, True, False, False]])


def sample(planes, class_ids, instance_ids, classes=TWO, scores=None):
    planes = np.array(planes, np.int32)
    count = len(class_ids)
    scores = np.ones(count, np.float32) if scores is None else np.array(scores, np.float32)
    truth = Segmentation(planes, np.array(class_ids, np.int32), np.array(instance_ids, np.int32), scores, classes)
    return Sample.of("a", np.zeros((1, *planes.shape[1:]), np.uint8), truth)


# By hand


def test_a_sample_that_came_back():
    before = sample([[[1, 1, 2, -1]]], [0, 1], [0, 1])
    change = compare_samples(before, sample([[[2, 2, 1, -1]]], [1, 0], [1, 0]))  # another order is no difference
    assert (change.iou, change.reasons, change.notes) == (1.0, (), ())


def test_objects_that_were_joined():
    before = sample([[[1, 1, 2, 2]]], [1, 1], [1, 2])
    change = compare_samples(before, sample([[[1, 1, 1, 1]]], [1], [1]))
    assert change.iou == 0.25  # half of one pair, none of the other
    assert change.reasons == ("segments are gone", "segments have other pixels")


def test_an_object_is_no_region():
    before, after = sample([[[1, 1, 0, 2]]], [1, 1], [1, 2]), sample([[[1, 1, 0, 1]]], [1], [0])
    change = compare_samples(before, after)
    assert change.iou == 0 and change.reasons[0] == "objects became the region of their class"
    assert compare_samples(after, before).reasons[0] == "a region became an object"


def test_void_counts():
    before = sample([[[1, 1, -1, -1]]], [0], [0])
    change = compare_samples(before, sample([[[1, 1, 0, 0]]], [0], [0]))
    assert change.iou == 0.5 and change.reasons == ("segments are gone", "void is not the same")


def test_a_hole_that_was_filled():
    before = sample([[[1, 0, 1, 1]]], [1], [1])
    change = compare_samples(before, sample([[[1, 1, 1, 1]]], [1], [1]))
    assert change.iou == 0.75 and change.reasons == ("segments have other pixels",)


def test_overlaps():
    before = sample([[[1, 1, 0, 0]], [[0, 2, 2, 0]]], [1, 1], [1, 2])
    assert compare_samples(before, sample([[[0, 1, 1, 0]], [[2, 2, 0, 0]]], [1, 1], [2, 1])).iou == 1
    change = compare_samples(before, sample([[[1, 2, 2, 0]]], [1, 1], [1, 2]))
    assert change.iou == 0.75 and "pixels of several objects keep one of them" in change.reasons


def test_two_objects_of_the_same_pixels():
    twins = sample([[[1, 1, 0, 0]], [[2, 2, 0, 0]]], [1, 1], [1, 2])
    assert compare_samples(twins, twins) == Change("a", 1.0, (), ())
    assert compare_samples(twins, sample([[[1, 1, 0, 0]]], [1], [1])).iou == 0.5


def test_twins_are_known_by_their_numbers():
    before = sample([[[1, 1, 0, 0]], [[2, 2, 0, 0]]], [1, 1], [1, 2])
    assert compare_samples(before, sample([[[1, 1, 0, 0]], [[2, 2, 0, 0]]], [1, 1], [2, 1])) == Change("a", 1.0, (), ())


def test_many_overlaps_are_compared_at_once():
    planes = np.zeros((150, 200, 200), np.int32)
    for index in range(150):
        planes[index, index : index + 50] = index + 1
    many = sample(planes, [1] * 150, range(1, 151))
    started = time.perf_counter()
    assert compare_samples(many, sample(planes[::-1], [1] * 150, range(1, 151))).iou == 1
    assert time.perf_counter() - started < 2  # 0.2; 4 where each is compared with each


def test_equal_sums_are_no_proof(monkeypatch):
    """Two objects of one class and area: even where their marks are the same, each pixel is looked at."""
    monkeypatch.setattr(
        "segwright.conversion.marks", lambda groups, weights: list(zip(groups.kinds, groups.areas, strict=True))
    )
    change = compare_samples(sample([[[1, 1, 0, 0]]], [1], [1]), sample([[[0, 1, 1, 0]]], [1], [1]))
    assert change.iou == pytest.approx(1 / 3) and change.reasons == ("segments have other pixels",)


def test_regions_of_a_class_are_one():
    before = sample([[[1, 0, 2, 2]]], [1, 1], [0, 0])  # two crowds
    assert compare_samples(before, sample([[[1, 0, 1, 1]]], [1], [0])).iou == 1


def test_classes_are_compared_by_name():
    other = Classes.of(["car", "road"], is_thing=[True, False])
    before = sample([[[1, 1, 2, 2]]], [0, 1], [0, 1])
    assert compare_samples(before, sample([[[1, 1, 2, 2]]], [1, 0], [0, 1], other)).iou == 1


def test_differences_that_are_not_in_the_masks():
    before = sample([[[1, 1, 2, 2]]], [0, 1], [0, 7], scores=[1, 0.5])
    after = sample([[[1, 1, 2, 2]]], [0, 1], [0, 1], Classes.of(["road", "car", "sky"]))
    after = Sample("a", after.image[:0], Grid((1, 4)), after.truth)
    before = Sample("a", before.image, Grid((1, 4), spacing_mm=(1.0, 2.0)), before.truth)
    change = compare_samples(before, after)
    assert change.iou == 1 and change.reasons == ()
    assert set(change.notes) == {
        "the image is not kept",
        "pixel size or position is not kept",
        "the list of classes differs",
        "objects have other numbers",
        "scores are not kept",
    }


def test_what_became_no_segment_is_lost():
    before = replace(sample([[[1, 1, 0, 0]]], [1], [1]), left_out={"outside the image": 2, "without a pixel": 1})
    change = compare_samples(before, sample([[[1, 1, 0, 0]]], [1], [1]))
    assert change.iou == 0.25 and change.reasons == ("annotations became no segment",)
    assert change.left_out == {"outside the image": 2, "without a pixel": 1}
    tagged = compare_samples(replace(before, left_out={"about the image as a whole": 2}), before)
    assert (tagged.iou, tagged.reasons, tagged.notes) == (1, (), ("tags, captions and the like are not kept",))
    nothing = replace(sample([[[0, 0, 0, 0]]], [], []), left_out={"outside the image": 2})
    assert compare_samples(nothing, sample([[[0, 0, 0, 0]]], [], [])).iou == 0


def test_samples_without_truth():
    bare = Sample.of("a", np.zeros((1, 1, 4), np.uint8))
    assert compare_samples(bare, bare).iou == 1 and compare_samples(bare, sample([[[1, 1, 0, 0]]], [1], [1])).iou == 0


# By a slow twin


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_iou_of_one_object_each(seed):
    generator = np.random.default_rng(seed)
    first, second = generator.random((2, 5, 6)) < 0.5
    before, after = (
        Sample.of("a", np.zeros((1, 5, 6)), Segmentation.instances(mask[None], [0], classes=Classes.of(["a"])))
        for mask in (first, second)
    )
    union = (first | second).sum()
    slow = (first & second).sum() / union if union else 1.0
    assert compare_samples(before, after).iou == pytest.approx(slow if first.any() or second.any() else 1.0)


# Whole data sets


def test_a_data_set_is_converted_and_checked(tmp_path):
    steps, changes = [], []
    report = convert(
        "synthetic:streets?count=3&shape=32x48",
        tmp_path / "new",
        "mask_folder",
        watch=lambda *step: steps.append(step),
        on_change=changes.append,
    )
    assert steps == [(name, done, 3) for name in ("write", "check") for done in range(3)]
    assert [change.key for change in changes] == list(open_dataset("synthetic:streets?count=3").keys)
    assert report.count == 3 and report.iou == pytest.approx(np.mean([change.iou for change in changes]))
    assert len(open_dataset(tmp_path / "new")) == 3


def test_vanished_annotations_are_counted(tmp_path):
    coco.write(tmp_path / "data", synthetic.cells(3, shape=(16, 16)))
    path = tmp_path / "data/annotations/instances.json"
    content = json.loads(path.read_text())
    kept = len(content["annotations"])
    shape = {"id": 999, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[40, 2, 50, 2, 50, 9]]}
    content["annotations"] += [shape, shape | {"image_id": 2, "segmentation": []}, shape | {"image_id": 99}]
    path.write_text(json.dumps(content))
    changes = []
    report = convert(tmp_path / "data", tmp_path / "new", "labelme", on_change=changes.append)
    counted = {"outside the image": 1, "given as a box without a mask": 1, "of images that are not there": 1}
    assert report.left_out == counted
    assert (report.lossless, report.reasons, report.loses) == (1, {"annotations became no segment": 2}, "")
    assert [change.left_out for change in changes] == [{"outside the image": 1}, {"given as a box without a mask": 1}, {}]
    counts = [len(truth) for truth in (item.truth for item in open_dataset(tmp_path / "new"))]
    assert sum(counts) == kept and changes[0].iou == pytest.approx(counts[0] / (counts[0] + 1))


def test_a_dataset_toml_is_obeyed_and_its_groups_are_kept(tmp_path):
    mask_folder.write(tmp_path / "data", synthetic.cells(5, shape=(16, 16)))
    names = [f"cells_000{number}" for number in range(5)]
    text = f"drop = ['{names[0]}']\ngroups = [['{names[0]}', '{names[1]}'], ['{names[2]}', '{names[0]}', '{names[4]}']]\n"
    (tmp_path / "data" / "dataset.toml").write_text(text)
    assert convert(tmp_path / "data", tmp_path / "new", "coco").count == 4
    assert dataset_file.read(tmp_path / "new").groups == ((names[2], names[4]),)


def test_a_killed_conversion_goes_on(tmp_path):
    """Killed at some moment of writing, and finished by a second call: the files are those of a call that was not killed."""
    source, code = tmp_path / "source", "import sys; from segwright.conversion import convert; convert(*sys.argv[1:4])"
    mask_folder.write(source, synthetic.streets(40, shape=(64, 96)))
    process = subprocess.Popen([sys.executable, "-c", code, source, tmp_path / "killed", "mask_folder"])
    while len(list((tmp_path / "killed").glob("masks/*"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "masks").glob("[!.]*")}
    assert convert(source, tmp_path / "killed", "mask_folder").lossless == 40
    assert sum(path.stat().st_mtime_ns == time_ns for path, time_ns in written.items()) >= len(written) - 1
    convert(source, tmp_path / "whole", "mask_folder")
    names = [path.relative_to(tmp_path / "whole") for path in sorted((tmp_path / "whole").rglob("*")) if path.is_file()]
    assert names == [
        path.relative_to(tmp_path / "killed") for path in sorted((tmp_path / "killed").rglob("*")) if path.is_file()
    ]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_one_volume_becomes_one_file(tmp_path):
    pytest.importorskip("SimpleITK", reason="volumes need segwright[medical]")
    generator = np.random.default_rng(0)
    for number in range(2):
        image = generator.integers(0, 256, (1, 3, 4, 5), dtype=np.uint8)
        volume.write(tmp_path / f"{number}.nrrd", [Sample.of(str(number), image)])
    assert convert(tmp_path / "0.nrrd", tmp_path / "a.nii.gz", "volume").lossless == 1
    with pytest.raises(OutputError, match="a.nii.gz exists; give a new name, or convert with --force"):
        convert(tmp_path / "1.nrrd", tmp_path / "a.nii.gz", "volume")
    convert(tmp_path / "1.nrrd", tmp_path / "a.nii.gz", "volume", force=True)
    assert np.array_equal(open_dataset(tmp_path / "a.nii.gz")[0].image, image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.nrrd", "1.nrrd", "a.nii.gz"]


def test_an_earlier_data_set_is_replaced_only_when_asked(tmp_path):
    convert("synthetic:cells?count=2&shape=16x16", tmp_path / "new", "mask_folder")
    with pytest.raises(OutputError, match="is not empty .*--force"):
        convert("synthetic:cells?count=3&shape=16x16", tmp_path / "new", "mask_folder")
    convert("synthetic:cells?count=3&shape=16x16", tmp_path / "new", "mask_folder", force=True)
    assert len(open_dataset(tmp_path / "new")) == 3 and [path.name for path in tmp_path.iterdir()] == ["new"]


def test_an_earlier_data_set_comes_back_after_a_mistake(tmp_path, monkeypatch):
    convert("synthetic:cells?count=2&shape=16x16", tmp_path / "new", "mask_folder")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    def fail(path, samples):
        path.mkdir()
        raise FormatError("broken")

    monkeypatch.setattr(mask_folder, "write", fail)
    with pytest.raises(FormatError, match="broken"):
        convert("synthetic:cells?count=3&shape=16x16", tmp_path / "new", "mask_folder", force=True)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


ASIDE = ".new.6be34445.replaced"


def test_what_a_killed_replacement_put_aside_goes(tmp_path):
    source, target, old = tmp_path / "source", tmp_path / "new", "synthetic:cells?count=2&shape=16x16"
    mask_folder.write(source, synthetic.cells(3, shape=(16, 16)))
    convert(old, target, "mask_folder")
    target.rename(tmp_path / ASIDE)  # as after a kill in the middle of writing
    with pytest.raises(RuntimeError):
        mask_folder.write(target, replace(open_dataset(source), load=stop_at(open_dataset(source), 2)))
    convert(source, target, "mask_folder", force=True)
    assert len(open_dataset(target)) == 3 and {path.name for path in tmp_path.iterdir()} == {"source", "new"}
    (tmp_path / ASIDE).mkdir()  # as after a kill in the middle of the check
    convert(old, target, "mask_folder", force=True)
    assert len(open_dataset(target)) == 2 and {path.name for path in tmp_path.iterdir()} == {"source", "new"}


def test_a_check_that_was_stopped_begins_again(tmp_path, monkeypatch):
    source, target = "synthetic:cells?count=3&shape=16x16", tmp_path / "new"

    def stop(step, done, total):
        if (step, done) == ("check", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, target, "mask_folder", watch=stop)
    with pytest.raises(OutputError, match="is not empty"):
        convert(source, target, "coco")
    with pytest.raises(OutputError, match="is not empty"):
        convert("synthetic:cells?count=2&shape=16x16", target, "mask_folder")
    steps = []
    assert convert(source, target, "mask_folder", watch=lambda step, done, total: steps.append(step)).count == 3
    assert set(steps) == {"check"} and not [path for path in target.iterdir() if path.name.startswith(".")]


def stop_at(data, number):
    def load(key):
        if key == data.keys[number]:
            raise RuntimeError
        return data.load(key)

    return load


# By its messages


def test_what_cannot_be_converted(tmp_path, monkeypatch):
    with pytest.raises(
        UnknownNameError, match="no format 'mask_foldr' can be written, did you mean 'mask_folder'.; known are .*"
    ):
        convert("synthetic:cells", tmp_path / "new", "mask_foldr")
    assert "synthetic" not in writers()
    mask_folder.write(tmp_path / "data", synthetic.cells(1, shape=(16, 16)))
    for target in (tmp_path / "data", tmp_path / "data" / "new", tmp_path):
        with pytest.raises(OutputError, match="lie in each other; choose a folder apart from the source"):
            convert(tmp_path / "data", target, "mask_folder", force=True)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").touch()
    with pytest.raises(OutputError, match="is no data set, so that --force does not remove it"):
        convert(tmp_path / "data", tmp_path / "letters", "mask_folder", force=True)
    assert (tmp_path / "letters" / "dear.txt").exists()
    with pytest.raises(OutputError, match="dear.txt is no data set, so that --force does not remove it"):
        convert(tmp_path / "data", tmp_path / "letters" / "dear.txt", "mask_folder", force=True)
    convert(tmp_path / "data", tmp_path / "here", "mask_folder")
    monkeypatch.chdir(tmp_path / "here" / "masks")
    for target in (tmp_path / "here", "..", "."):
        with pytest.raises(OutputError, match="is the folder that you are in|is no data set"):
            convert(tmp_path / "data", target, "mask_folder", force=True)


def test_a_file_of_annotations_is_not_replaced_by_a_folder(tmp_path):
    convert("synthetic:cells?count=1&shape=16x16", tmp_path / "a", "coco")
    file = tmp_path / "a" / "annotations" / "instances.json"
    with pytest.raises(OutputError, match="instances.json is no data set, so that --force does not remove it"):
        convert("synthetic:cells?count=1&shape=16x16", file, "coco", force=True)
    assert file.is_file()


def test_a_format_that_loses_samples_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(mask_folder, "read", lambda path: Dataset(str(path), TWO, (), lambda key: None))
    with pytest.raises(FormatError, match="reads back with 0 of 2 samples .*mistake of the format mask_folder"):
        convert("synthetic:cells?count=2&shape=16x16", tmp_path / "new", "mask_folder")
    with pytest.raises(FormatError, match=r"'a' is \(1, 4\), and came back as \(1, 5\)"):
        compare_samples(sample([[[1, 1, VOID, 0]]], [0], [0]), sample([[[1, 1, 0, 0, 0]]], [0], [0]))

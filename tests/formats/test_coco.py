"""COCO's objects: by hand, against pycocotools, there and back, and damaged ones."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segwright.codecs import rle
from segwright.conversion import compare_samples
from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.data.splits import open_splits
from segwright.formats import coco, mask_folder, open_dataset

THINGS = Classes.of(["car", "dog"], colors=[(1, 2, 3), (40, 50, 60)], is_thing=[True, True])
BOTH = Classes.of(["road", "car"], is_thing=[False, True])
RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def save_json(path, segmentation, *, height=3, width=4, **more):
    """A JSON of one image and one annotation, and its data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": height, "width": width}],
        "annotations": [{"image_id": 5, "category_id": 3, "segmentation": segmentation} | more],
        "categories": [{"id": 3, "name": "car"}],
    }
    path.write_text(json.dumps(content))
    return coco.read(path)


def sample_of(key, truth):
    return Sample.of(key, np.random.default_rng(len(key)).integers(0, 256, (3, *truth.shape), dtype=np.uint8), truth)


def entries(root, part="instances"):
    return json.loads((root / "annotations" / f"{part}.json").read_text())


# By hand


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 0, 3, 0, 3, 2, 1, 2]],
        [[1, 0, 2, 0, 2, 2, 1, 2], [2, 0, 3, 0, 3, 2, 2, 2]],
        [[1, 0, 3, 0, 3, 2, 1, 2], [1, 0, 2, 0, 2, 1, 1, 1]],  # the union, so that the second is no hole
        [[1, 0, 3, 0, 3, 2, 1, 2], [0, 0, 3, 3]],  # two corners
        [[1, 0], [3, 0], [3, 2], [1, 2]],
        {"size": [3, 4], "counts": [3, 2, 1, 2, 4]},
        {"size": [3, 4], "counts": rle.to_text(np.array([3, 2, 1, 2, 4], np.uint32))},
    ],
)
def test_each_way_to_store_a_region(tmp_path, segmentation):
    sample = save_json(tmp_path / "a.json", segmentation)[0]
    assert sample.key == "a" and sample.image.shape == (0, 3, 4)
    assert sample.truth.planes.tolist() == [[[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]]
    assert sample.truth.instance_ids.tolist() == [1] and sample.truth.classes.names == ("car",)


def test_crowds_numbers_and_scores(tmp_path):
    square = [[1, 0, 3, 0, 3, 2, 1, 2]]
    assert save_json(tmp_path / "a.json", square, iscrowd=1)[0].truth.instance_ids.tolist() == [0]
    truth = save_json(tmp_path / "b.json", square, iscrowd=0, instance_id=9, score=0.25)[0].truth
    assert truth.instance_ids.tolist() == [9] and truth.scores.tolist() == [0.25]


def test_what_is_written(tmp_path):
    masks = np.zeros((4, 4, 5), bool)
    masks[0, :3, :3], masks[1, 3, 4], masks[1, 0, 4], masks[2, :2, :2] = RING, True, True, True
    truth = Segmentation.instances(masks, [0, 1, 0, 1], instance_ids=[4, 2, 0, 8], scores=[1, 0.5, 1, 1], classes=THINGS)
    coco.write(tmp_path / "x", [sample_of("a", truth)])
    content = entries(tmp_path / "x")
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}]
    hole, parts, crowd = content["annotations"]  # the fourth has no pixel
    runs = rle.to_text(rle.encode(masks[0]))
    assert hole == {
        **{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [4, 5], "counts": runs}, "area": 8},
        **{"bbox": [0, 0, 3, 3], "iscrowd": 0, "instance_id": 4},
    }
    assert parts["segmentation"] == [[4, 0, 5, 0, 5, 1, 4, 1], [4, 3, 5, 3, 5, 4, 4, 4]]
    assert parts["score"] == 0.5 and parts["area"] == 2 and parts["bbox"] == [4, 0, 1, 4]
    assert crowd["iscrowd"] == 1 and crowd["segmentation"]["size"] == [4, 5] and "instance_id" not in crowd
    assert content["categories"][1] == {"id": 2, "name": "dog", "supercategory": "dog", "isthing": 1, "color": [40, 50, 60]}


def test_parts_of_the_data_set(tmp_path):
    truth = Segmentation.instances(RING[None], [0], classes=THINGS)
    keys = ("train__b", "train__a", "val__a", "test__.x", "c")
    coco.write(tmp_path / "x", [sample_of(key, truth) for key in keys])
    names = sorted(path.relative_to(tmp_path / "x").as_posix() for path in (tmp_path / "x").rglob("*.*"))
    assert names == [
        *("annotations/instances.json", "annotations/instances_train.json", "annotations/instances_val.json"),
        *("images/c.png", "images/test__.x.png", "images/train/a.png", "images/train/b.png", "images/val/a.png"),
    ]
    data = open_dataset(tmp_path / "x")
    assert sorted(data.keys) == sorted(keys) and [key for key in data.keys if "train" in key] == ["train__b", "train__a"]
    for sample in data:
        assert np.array_equal(sample.image, sample_of(sample.key, truth).image)
    train, val = open_splits(tmp_path / "x")
    assert train.keys == ("train__b", "train__a") and val.keys == ("val__a",)


def test_samples_without_an_image_keep_their_masks(tmp_path):
    truth = Segmentation.instances(RING[None], [0], classes=THINGS)
    coco.write(tmp_path / "x", [Sample.of("a.b", np.zeros((0, 3, 3), np.uint8), truth)])
    data = coco.read(tmp_path / "x")
    assert data.keys == ("a.b",) and data[0].image.shape == (0, 3, 3) and np.array_equal(data[0].truth.mask(0), RING)


def test_a_reader_travels_to_another_process(tmp_path):
    coco.write(tmp_path / "x", [sample_of("a", Segmentation.instances(RING[None], [0], classes=THINGS))])
    load = pickle.loads(pickle.dumps(coco.read(tmp_path / "x").load))
    assert np.array_equal(load("a").truth.mask(0), RING)


# Against others


def test_pycocotools_reads_the_same_masks(tmp_path):
    theirs = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    masks = rng.random((6, 30, 40)) < 0.5
    masks[3:] = False
    masks[3, 2:20, 3:30], masks[4, 5:9, 5:9], masks[5, 9:12, 9:10] = True, True, True
    truth = Segmentation.instances(masks, [0, 1, 0, 1, 0, 1], instance_ids=[1, 2, 0, 4, 5, 6], classes=THINGS)
    coco.write(tmp_path / "x", [sample_of("a", truth)])
    their = theirs.COCO(tmp_path / "x" / "annotations" / "instances.json")
    assert len(their.anns) == 6
    for entry in their.dataset["annotations"]:
        mask = their.annToMask(entry)
        assert np.array_equal(mask, masks[entry["id"] - 1]) and mask.sum() == entry["area"]
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        assert entry["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_equals_pycocotools_on_drawn_polygons(tmp_path):
    theirs = pytest.importorskip("pycocotools.coco")
    rng = np.random.default_rng(0)
    for _ in range(20):
        rings = [(rng.normal(20, 15, (rng.integers(3, 9), 2))).ravel().tolist() for _ in range(rng.integers(1, 4))]
        data = save_json(tmp_path / "a.json", rings, height=37, width=44, id=1, iscrowd=0)
        their = theirs.COCO(tmp_path / "a.json")
        assert np.array_equal(data[0].truth.mask(0), their.annToMask(their.dataset["annotations"][0]))


def test_real_annotations_equal_the_masks_beside_them(shared_data):
    data = coco.read(shared_data / "nuclei" / "instances_val.json")
    masks = mask_folder.read(shared_data / "nuclei" / "val")
    assert set(data.keys) == set(masks.keys) and len(data) == 93
    for key in data.keys[:20]:
        segment_of = masks.load(key).truth.planes  # there the background is the first segment
        assert np.array_equal(data.load(key).truth.planes, segment_of - 1)
    both = coco.read(shared_data / "nuclei")
    assert len(both) == 579 and both.keys[0].startswith("train__") and both.keys[-1].startswith("val__")


# By laws


@st.composite
def truths(draw):
    shape = (draw(st.integers(1, 14)), draw(st.integers(1, 14)))
    count = draw(st.integers(0, 5))
    masks = draw(arrays(bool, (count, *shape), fill=st.booleans()))
    numbers = draw(st.lists(st.integers(0, 1000), min_size=count, max_size=count, unique_by=lambda n: n or object()))
    class_ids = [draw(st.integers(0, 1)) if number else 1 for number in numbers]
    truth = Segmentation.instances(masks, class_ids, instance_ids=numbers, classes=BOTH)
    void = draw(arrays(bool, shape)) & (truth.planes == 0).all(axis=0)
    planes = truth.planes.copy()
    planes[0][void] = VOID
    return Segmentation(planes, truth.class_ids, truth.instance_ids, truth.scores, truth.classes)


@settings(max_examples=60)
@given(st.lists(truths(), min_size=1, max_size=3))
def test_any_mask_comes_back(tmp_path_factory, given_truths):
    root = tmp_path_factory.mktemp("data") / "x"
    samples = [sample_of(f"s{index}", truth) for index, truth in enumerate(given_truths)]
    coco.write(root, samples)
    data = coco.read(root)
    assert data.classes == BOTH and data.keys == tuple(sample.key for sample in samples)
    for before, after in zip(samples, data, strict=True):
        change = compare_samples(before, after)
        assert (change.iou, change.reasons) == (1.0, ())
        areas = before.truth.areas() > 0
        assert before.truth.instance_ids[areas].tolist() == after.truth.instance_ids.tolist()
        assert np.array_equal(before.truth.masks()[areas], after.truth.masks())


def test_a_stopped_writer_goes_on(tmp_path):
    truth = Segmentation.instances(RING[None], [0], classes=THINGS)

    def load(key):
        if key == "c" and not (tmp_path / "go").exists():
            raise KeyboardInterrupt
        return sample_of(key, truth)

    data = Dataset("memory", THINGS, ("a", "b", "c"), load)
    with pytest.raises(KeyboardInterrupt):
        coco.write(tmp_path / "x", data)
    (tmp_path / "go").touch()
    coco.write(tmp_path / "x", data)
    assert coco.read(tmp_path / "x").keys == ("a", "b", "c")
    assert [entry["id"] for entry in entries(tmp_path / "x")["annotations"]] == [1, 2, 3]


# Messages


@pytest.mark.parametrize(
    ("segmentation", "more", "message"),
    [
        ([[0, 0, 1, 1, 2]], {}, r"annotations\[0\].segmentation: a polygon has 5 numbers, two per corner"),
        ([[0, 0, 1, 1, float("nan"), 2]], {}, r"annotations\[0\].segmentation.*finite number"),
        ({"size": [4, 3], "counts": [12]}, {}, "run lengths of 4 x 3 .rows x columns. for an image of 3 x 4"),
        ({"size": [3, 4], "counts": [11]}, {}, "the run lengths add up to 11 pixels"),
        ({"size": [3, 4], "counts": [-1, 13]}, {}, r"annotations\[0\].segmentation: the run lengths reach from -1 to 13"),
        ({"size": [3, 4], "counts": [2**40]}, {}, "the run lengths reach from 1099511627776 to"),
        ({"size": [3, 4], "counts": "!!"}, {}, r"annotations\[0\].segmentation: the compressed run lengths are damaged"),
        (
            {"size": [3, 4], "counts": [12, "x"]},
            {},
            r"annotations\[0\].segmentation.counts\[1\]: Input should be a valid integer",
        ),
        ({"size": [3, 4], "counts": []}, {}, "the run lengths add up to 0 pixels"),
        ({"size": [3], "counts": "<"}, {}, "at least 2 items"),
        ({"counts": "<"}, {}, "size: Field required"),
        ("polygon", {}, r"annotations\[0\].segmentation"),
        ([[0, 0, 1, 1, 0, 1]], {"instance_id": -3}, "the number -3"),
        ([[0, 0, 1, 1, 0, 1]], {"height": 10**9, "width": 10**9}, r"images\[0\]: an image of 1000000000 x"),
        ([[0, 0, 1, 1, 0, 1]], {"height": 0}, r"images\[0\]: an image of 0 x 4"),
    ],
)
def test_damaged_annotations_are_refused(tmp_path, segmentation, more, message):
    data = save_json(tmp_path / "a.json", segmentation, **more)
    with pytest.raises(FormatError, match=f"a.json.*{message}"):
        data[0]


@pytest.mark.parametrize(
    ("segmentation", "more", "reason"),
    [
        ([[0, 0, 1, 1, 0, 1]], {"category_id": 4}, "of the category 4, which is not listed"),
        ([[0, 0, 3, 3]], {}, "with fewer than three corners"),
        ([[1.0, 2.0]], {}, "with fewer than three corners"),
        ([[]], {}, "with fewer than three corners"),
        ([0, 0, 3, 3], {}, "with fewer than three corners"),
        ([[9, 1, 12, 1, 12, 2]], {}, "outside the image"),
        ([[-5, 1, -2, 1, -2, 2]], {}, "outside the image"),
        ([[0.6, 0.6, 0.8, 0.6, 0.8, 2]], {}, "without a pixel"),
        ({"size": [3, 4], "counts": [12]}, {}, "without a pixel"),
    ],
)
def test_what_becomes_no_segment_is_counted(tmp_path, segmentation, more, reason):
    sample = save_json(tmp_path / "a.json", segmentation, **more)[0]
    assert len(sample.truth) == 0 and sample.left_out == {reason: 1}


@pytest.mark.parametrize(
    "segmentation",
    [[0, 0, 2, 0, 2, 1, 0, 1], [["0", "0", "2", "0", "2", "1", "0", "1"]], [[0, 0, 2, 0, 2, 1, 0, 1], [2, 2, 3, 3]]],
)
def test_polygons_as_they_are_handed_around(tmp_path, segmentation):
    sample = save_json(tmp_path / "a.json", segmentation, iscrowd=None)[0]
    assert sample.truth.planes.tolist() == [[[1, 1, 0, 0], [0] * 4, [0] * 4]] and not sample.left_out


def test_an_image_that_is_missing_or_of_another_size(tmp_path):
    truth = Segmentation.instances(RING[None], [0], classes=THINGS)
    coco.write(tmp_path / "x", [sample_of("a", truth), sample_of("b", truth)])
    (tmp_path / "x" / "images" / "a.png").unlink()
    with pytest.raises(FormatError, match=r"images\[0\]: its image 'a.png' is not there, others are"):
        coco.read(tmp_path / "x").load("a")
    other = Segmentation.instances(np.ones((1, 4, 4), bool), [0], classes=THINGS)
    coco.write(tmp_path / "y", [sample_of("a", other)])
    (tmp_path / "y" / "images" / "a.png").rename(tmp_path / "x" / "images" / "a.png")
    with pytest.raises(FormatError, match="a.png is 4 x 4 .rows x columns., but .* tells of 3 x 3"):
        coco.read(tmp_path / "x").load("a")


def test_volumes_are_refused(tmp_path):
    volume = Sample.of("a", np.zeros((1, 2, 3, 4), np.uint8), Segmentation.semantic(np.zeros((2, 3, 4), int)))
    with pytest.raises(OutputError, match="'a' is a volume, 2 x 3 x 4, and coco holds flat images; write it as nnunet"):
        coco.write(tmp_path / "x", [volume])


def test_the_truth_without_its_photograph(tmp_path):
    truth = Segmentation.instances(np.array([[[True, False, True]]]), [0], classes=Classes.of(["car"], is_thing=[True]))
    coco.write(tmp_path, [Sample.of("a", np.zeros((3, 1, 3), np.uint8), truth)])
    data = open_dataset(tmp_path)
    bare = data.without_images()[0]
    assert bare.image.shape == (0, 1, 3) and data[0].image.shape == (3, 1, 3)
    np.testing.assert_array_equal(bare.truth.planes, data[0].truth.planes)

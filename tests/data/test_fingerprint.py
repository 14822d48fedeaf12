import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segwright.core import Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, ShapeError, UsageError
from segwright.data.fingerprint import ObjectSizes, fingerprint, measure_objects
from segwright.data.missing import void_where_missing

CLASSES = Classes.of(["sky", "road", "car"])


def dataset(samples, classes=CLASSES):
    table = {sample.key: sample for sample in samples}
    return Dataset("memory", classes, tuple(table), table.__getitem__)


def semantic(key, image, class_map):
    return Sample.of(key, np.asarray(image), Segmentation.semantic(np.asarray(class_map), CLASSES))


def test_by_hand():
    truth = [[0, 0, 0], [1, -1, 1], [1, 1, -1]]
    image = np.array([[[10, 20, 30], [40, 255, 50], [60, 70, 255]]], np.uint8)
    found = fingerprint(dataset([semantic("a", image, truth)]))
    assert (found.count, found.looked_at, found.with_truth, found.axes) == (1, 1, 1, 2)
    assert found.size_min == found.size_median == found.size_max == found.size_common == (3, 3)
    assert found.channels == {1: 1} and found.dtypes == {"uint8": 1} and found.spacing_mm is None
    assert found.class_fractions == pytest.approx((3 / 7, 4 / 7, 0))
    assert found.void_fraction == pytest.approx(2 / 9) and found.nothing_fraction == 0
    assert found.class_images == (1, 1, 0)
    assert found.intensity[0].mean == pytest.approx(40) and found.intensity[0].median == 40  # void pixels do not count
    assert found.intensity[0].std == pytest.approx(20) and found.mean_shift == 0
    assert found.objects[0] == ObjectSizes(count=1, area_median=3, area_5th=3, extent_median=1, extent_5th=1)
    assert found.objects[1] == ObjectSizes(
        count=1, area_median=4, area_5th=4, extent_median=2, extent_5th=2
    )  # joined by a corner
    assert found.objects[2] == ObjectSizes(count=0, area_median=0, area_5th=0, extent_median=0, extent_5th=0)
    assert not found.has_instances


def test_annotations_that_became_no_segment_are_told_once(caplog):
    one = semantic("a", np.zeros((1, 2, 2), np.uint8), np.zeros((2, 2), int))
    two = [
        replace(one, left_out={"outside the image": 2, "without a label": 1}),
        replace(one, key="b", left_out={"without a label": 4}),
    ]
    fingerprint(dataset(two))
    assert [record.message for record in caplog.records] == [
        "memory: annotations of the 2 samples looked at that became no segment: 5 without a label, 2 outside the image; "
        "segwright inspect tells where"
    ]


def test_sizes_channels_and_shift_of_several_images():
    samples = [
        semantic("dark", np.full((1, 4, 4), 10, np.uint8) + np.eye(4, dtype=np.uint8), np.zeros((4, 4), int)),
        semantic("bright", np.full((1, 4, 4), 200, np.uint8) + np.eye(4, dtype=np.uint8), np.zeros((4, 4), int)),
        semantic("colour", np.full((3, 6, 8), 50, np.uint16), np.full((6, 8), 2)),
    ]
    found = fingerprint(dataset(samples))
    assert found.size_min == (4, 4) and found.size_max == (6, 8) and found.size_common == (4, 4) and found.size_count == 2
    assert found.channels == {1: 2, 3: 1} and found.dtypes == {"uint8": 2, "uint16": 1}
    assert len(found.intensity) == 3 and found.intensity[1].mean == 50  # only the colour image has a second channel
    assert found.mean_shift > 10  # one brightness per image, hardly any contrast inside


def test_instances_that_touch_stay_apart_and_pieces_of_one_stay_together():
    segments = np.array([[1, 1, 2, 2], [0, 0, 0, 0], [1, 0, 0, 0]])
    truth = Segmentation.panoptic(segments, [2, 2], [1, 2], classes=CLASSES)
    found = fingerprint(dataset([Sample.of("a", np.zeros((1, 3, 4), np.float32), truth)]))
    assert found.has_instances and found.objects[2].count == 2
    assert sorted(measure_objects(truth)[:, 1].tolist()) == [2, 3]
    assert found.nothing_fraction == pytest.approx(7 / 12) and found.void_fraction == 0
    assert (
        fingerprint(dataset([Sample.of("a", np.zeros((1, 3, 4)), Segmentation.semantic(truth.class_map(), CLASSES))]))
        .objects[2]
        .count
        == 2
    )  # without instances, pixels that touch are one object


def test_overlapping_regions_count_for_each_class():
    masks = np.zeros((2, 4, 4), bool)
    masks[0], masks[1, :2] = True, True
    found = fingerprint(dataset([Sample.of("a", np.zeros((1, 4, 4)), Segmentation.instances(masks, [0, 1], classes=CLASSES))]))
    assert found.class_fractions == (1.0, 0.5, 0.0)


def test_no_truth_and_all_void():
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    bare = fingerprint(dataset([Sample.of("a", image)]))
    assert bare.with_truth == 0 and bare.class_fractions == (0, 0, 0) and bare.intensity[0].mean == 4
    void = fingerprint(dataset([semantic("a", image, np.full((3, 3), -1))]))
    assert void.void_fraction == 1 and void.class_fractions == (0, 0, 0) and void.intensity[0].mean == 4


def test_centres_tell_where_a_class_lies():
    class_map = np.zeros((40, 80), int)
    class_map[20:] = 1
    found = fingerprint(dataset([semantic("a", np.zeros((1, 40, 80), np.uint8), class_map)]))
    assert np.allclose(found.class_centres, [[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]])  # a class not seen lies in the middle


def test_volumes_and_spacing():
    class_map = np.zeros((4, 5, 6), int)
    class_map[1:3, 2, 3:6] = 1
    grid = Grid((4, 5, 6), spacing_mm=(2.0, 1.0, 0.5))
    sample = Sample("v", np.ones((1, 4, 5, 6), np.int16), grid, Segmentation.semantic(class_map, CLASSES))
    found = fingerprint(dataset([sample, replace(sample, key="w", grid=Grid((4, 5, 6)))]))
    assert found.axes == 3 and found.spacing_mm == (2.0, 1.0, 0.5) and found.spacings_mm == ((2.0, 1.0, 0.5),)
    assert found.objects[1] == ObjectSizes(count=2, area_median=6, area_5th=6, extent_median=1, extent_5th=1)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), shape=st.sampled_from([(1, 1), (7, 9), (3, 4, 5)]))
def test_equals_a_slow_twin(seed, shape):
    rng = np.random.default_rng(seed)
    maps = [rng.integers(-1, 3, shape) for _ in range(3)]
    images = [rng.normal(size=(2, *shape)) * 5 for _ in maps]
    samples = [semantic(str(i), image, m) for i, (image, m) in enumerate(zip(images, maps, strict=True))]
    found = fingerprint(dataset(samples))
    for k in range(3):
        areas, extents = [], []
        for class_map in maps:
            pieces, count = ndimage.label(class_map == k, np.ones((3,) * len(shape)))
            areas += [int((pieces == i + 1).sum()) for i in range(count)]
            extents += [min(s.stop - s.start for s in box) for box in ndimage.find_objects(pieces)]
        assert found.objects[k].count == len(areas)
        if areas:
            assert found.objects[k].area_median == np.median(areas)
            assert found.objects[k].area_5th == pytest.approx(np.percentile(areas, 5))
            assert found.objects[k].extent_median == np.median(extents)
            assert found.objects[k].extent_5th == pytest.approx(np.percentile(extents, 5))
    known = [m >= 0 if (m >= 0).any() else m < 0 for m in maps]
    values = [np.concatenate([image[c][mask] for image, mask in zip(images, known, strict=True)]) for c in range(2)]
    for c in range(2):
        assert found.intensity[c].mean == pytest.approx(values[c].mean())
        assert found.intensity[c].std == pytest.approx(values[c].std())
        assert found.intensity[c].high == pytest.approx(np.percentile(values[c], 99.5))
    flat = np.concatenate([m.ravel() for m in maps])
    assert found.void_fraction == pytest.approx((flat == -1).mean())
    assert found.class_fractions == pytest.approx([(flat == k).sum() / max((flat >= 0).sum(), 1) for k in range(3)])


def test_law_order_does_not_matter_and_json_holds_it():
    rng = np.random.default_rng(3)
    samples = [
        semantic(f"s{i}", rng.integers(0, 99, (3, 5 + i, 6), dtype=np.uint8), rng.integers(-1, 3, (5 + i, 6))) for i in range(4)
    ]
    forward, backward = asdict(fingerprint(dataset(samples))), asdict(fingerprint(dataset(samples[::-1])))
    assert json.loads(json.dumps(forward))["size_median"] == [6, 6]  # sides 5, 6, 7 and 8: 6.5 is rounded to even
    for one, other in zip(forward.pop("intensity"), backward.pop("intensity"), strict=True):
        assert one == pytest.approx(other)
    assert forward.pop("mean_shift") == pytest.approx(backward.pop("mean_shift"))
    assert forward == backward


def test_law_a_large_set_is_sampled_by_the_seed_alone():
    loaded = []

    def load(key):
        loaded.append(key)
        return Sample.of(key, np.full((1, 2, 2), int(key), np.float32), Segmentation.semantic(np.zeros((2, 2), int), CLASSES))

    large = Dataset("memory", CLASSES, tuple(str(i) for i in range(50)), load)
    first, again = fingerprint(large, at_most=10), fingerprint(large, at_most=10)
    assert first == again and first.count == 50 and first.looked_at == 10
    assert loaded[:10] == loaded[10:] == sorted(set(loaded), key=int)
    assert fingerprint(large, at_most=10, seed=1) != first


def test_large_images_are_sampled_close_to_the_truth():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, (1, 2100, 2100)).astype(np.float32)  # more pixels than are looked at
    found = fingerprint(dataset([Sample.of("a", image)])).intensity[0]
    assert found.mean == pytest.approx(100, abs=0.1) and found.std == pytest.approx(20, abs=0.1)
    assert found.high == pytest.approx(np.percentile(image, 99.5), abs=0.3)


def test_messages():
    with pytest.raises(UsageError, match="memory holds no samples; at least one is needed"):
        fingerprint(dataset([]))
    image, volume = Sample.of("flat", np.ones((1, 2, 2))), Sample.of("deep", np.ones((1, 2, 2, 2)))
    with pytest.raises(ShapeError, match=r"mixes 2D images \('flat'\) and 3D volumes \('deep'\).*two folders"):
        fingerprint(dataset([image, volume]))
    with pytest.raises(FormatError, match="channel 0 holds no value in 1 images"):
        fingerprint(dataset([Sample.of("nan", np.full((1, 2, 2), np.nan))]))
    with pytest.raises(FormatError, match="memory: sample 'alone' has a mask and no image, .*; add the images"):
        fingerprint(dataset([semantic("alone", np.zeros((0, 1, 2)), [[0, 1]])]))

    def broken(key):
        raise FormatError(f"{key}.png is cut short")

    with pytest.raises(FormatError, match="^b.png is cut short$"):
        fingerprint(Dataset("memory", CLASSES, ("b",), broken))


def test_holes_change_neither_the_type_nor_the_statistics():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(60, 200, (3, 20, 30)).astype(np.uint8) for _ in range(4)]
    truth = Segmentation.semantic(rng.integers(0, 2, (20, 30)))

    def found(images):
        data = Dataset("memory", truth.classes, tuple("abcd"), lambda key: Sample.of(key, images["abcd".index(key)], truth))
        return fingerprint(void_where_missing(data))

    holey = [picture.astype(np.float32) for picture in pictures]
    for number, picture in enumerate(holey):
        picture[:, :, : number + 2] = np.nan
    whole, other = found(pictures), found(holey)
    assert other.dtypes == {"uint8": 4} and other.void_fraction > 0.1
    assert np.allclose([c.mean for c in other.intensity], [c.mean for c in whole.intensity], rtol=0.02)
    assert abs(other.mean_shift - whole.mean_shift) < 0.05


def test_sizes_at_another_scale():
    masks = np.zeros((1, 8, 12), bool)
    masks[0, 2:6, 3:11] = True
    truth = Segmentation.instances(masks, [0])
    found = fingerprint(dataset([Sample.of("a", np.zeros((1, 8, 12), np.float32), truth)]))
    half = found.at_scale(0.5)
    assert (found.size_median, half.size_median) == ((8, 12), (4, 6))
    assert (found.objects[0].area_median, half.objects[0].area_median) == (32, 8)
    assert (found.objects[0].extent_5th, half.objects[0].extent_5th) == (4, 2)
    assert half.class_fractions == found.class_fractions and half.objects[0].count == 1


def test_sizes_at_another_spacing():
    class_map = np.zeros((4, 6, 8), int)
    class_map[1:3, 2:4, 2:6] = 1
    grid = Grid((4, 6, 8), spacing_mm=(4.0, 1.0, 1.0))
    found = fingerprint(
        dataset([Sample("v", np.ones((1, 4, 6, 8), np.int16), grid, Segmentation.semantic(class_map, CLASSES))])
    )
    seen = found.at_spacing((2.0, 1.0, 2.0))
    assert seen.size_median == (8, 6, 4) and seen.spacing_mm == (2.0, 1.0, 2.0) and seen.spacings_mm == found.spacings_mm
    assert seen.objects[1].area_median == found.objects[1].area_median == 16  # twice as many slices, half as many columns
    assert found.at_scale(0.5).spacing_mm == (8.0, 2.0, 2.0)

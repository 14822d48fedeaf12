import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats.label_maps import (
    NOTHING,
    fits_mask,
    look_up_pixels,
    mask_values,
    numbers_in_use,
    region_numbers,
    to_maps,
    to_segmentation,
)

THREE = Classes.of(["road", "car", "sky"], is_thing=[False, True, False])


# By hand


def test_class_and_number_make_a_segment():
    class_map = np.array([[0, 1, 1, 1], [VOID, NOTHING, 1, 0]])
    numbers = np.array([[0, 7, 7, 2], [0, 0, 0, 0]])
    truth = to_segmentation(class_map, numbers, THREE)
    assert truth.class_ids.tolist() == [0, 1, 1, 1] and truth.instance_ids.tolist() == [0, 0, 2, 7]
    assert truth.planes.tolist() == [[[1, 4, 4, 3], [VOID, 0, 2, 1]]]


def test_maps_without_a_segment():
    truth = to_segmentation(np.array([[VOID, NOTHING]]), None, THREE)
    assert len(truth) == 0 and truth.planes.tolist() == [[[VOID, 0]]]
    assert to_segmentation(np.full((2, 2), NOTHING), None, THREE).planes.max() == 0
    assert to_segmentation(np.zeros((1, 1), int), np.array([[3]]), THREE).instance_ids.tolist() == [3]


def test_a_later_plane_covers_an_earlier():
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], dtype=bool)
    class_map, numbers = to_maps(Segmentation.instances(masks, [1, 2], classes=THREE))
    assert class_map.tolist() == [[1, 2, 2]] and numbers.tolist() == [[1, 2, 2]]


def test_values_of_masks():
    truth = Segmentation.panoptic(np.array([[1, 2, 0, VOID]]), [2, 0], classes=THREE)
    values = mask_values(Sample.of("a", np.zeros((1, 1, 4), np.uint8), truth))
    assert values.dtype == np.uint8 and values.tolist() == [[2, 0, 255, 255]]
    many = Segmentation.panoptic(truth.planes[0], [299, 0], classes=Classes.of([f"c{k}" for k in range(300)]))
    values = mask_values(Sample.of("a", np.zeros((1, 1, 4), np.uint8), many))
    assert values.dtype == np.uint16 and values.tolist() == [[299, 0, 65535, 65535]]


KITS = Classes.of(["kidney", "masses", "tumor"], regions=[[1, 2, 3], [3, 2], [2]])


def test_regions_by_their_numbers():
    truth = to_segmentation(np.array([[NOTHING, 1, 2, 3, VOID]]), None, KITS)
    assert truth.masks()[:, 0].astype(int).tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert fits_mask(truth) and region_numbers(truth, KITS.regions, 9).tolist() == [[0, 1, 2, 3, 9]]
    values = mask_values(Sample.of("a", np.zeros((1, 1, 5), np.uint8), truth))
    assert values.dtype == np.uint8 and values.tolist() == [[0, 1, 2, 3, 255]] and numbers_in_use(KITS) == 4


def test_regions_that_no_number_lies_in_are_written_by_the_last():
    """As nnU-Net does: kidney 1, then masses 3 over it, then tumor 2."""
    masks = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]], bool)[:, None]
    assert region_numbers(Segmentation.regions(masks, KITS), KITS.regions, 9).tolist() == [[1, 3, 2, 2]]


def test_sets_of_regions_that_a_number_lies_in_keep_it():
    apart = ((1, 3), (2, 3))  # whose overlap has a number of its own
    masks = np.array([[1, 0, 1], [0, 1, 1]], bool)[:, None]
    truth = Segmentation.regions(masks, Classes.of(["a", "b"], regions=apart))
    assert region_numbers(truth, apart, 9).tolist() == [[1, 2, 3]]


def test_more_regions_than_sets_are_looked_up_of():
    """The last of twenty decides, each of which lies in all before it."""
    regions = [[*range(first, 21)] for first in range(1, 21)]
    masks = np.arange(21) >= np.arange(1, 21)[:, None]
    truth = Segmentation.regions(masks[:, None], Classes.of([f"r{k}" for k in range(20)], regions=regions))
    assert region_numbers(truth, regions, 99).tolist() == [[*range(21)]]


def test_regions_have_no_objects():
    with pytest.raises(FormatError, match="kidney, masses, tumor are regions, and there are numbers of objects besides"):
        to_segmentation(np.array([[1]]), np.array([[1]]), KITS)


@pytest.mark.parametrize("numbers_of", [[[1, 2, 3], [2, 3], [3]], [[1, 2, 3, 4], [4, 2], [3]], [[5, 1, 2], [1, 7], [2, 7]]])
def test_numbers_of_regions_come_back(numbers_of):
    classes = Classes.of(["a", "b", "c"], regions=numbers_of)
    known = np.array(sorted({number for numbers in numbers_of for number in numbers}))
    numbers = np.random.default_rng(0).choice(np.array([NOTHING, VOID, *known]), (6, 7))
    truth = to_segmentation(numbers, None, classes)
    again = to_segmentation(region_numbers(truth, classes.regions, 99), None, classes)
    masks = [np.stack([each.masks()[each.class_ids == k].any(axis=0) for k in range(3)]) for each in (truth, again)]
    assert np.array_equal(*masks)
    assert (region_numbers(truth, classes.regions, 99)[numbers == VOID] == 99).all()


# By a slow twin


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7)])
def test_a_table_is_looked_up(shape):
    planes = np.random.default_rng(0).integers(-1, 4, (3, *shape)).astype(np.int32)
    truth = Segmentation(planes, *(np.array([0, 1, 2], np.int32),) * 2, np.ones(3, np.float32), THREE)
    table = np.array([10, 20, 30, 40, 50], np.uint16)
    found = look_up_pixels(truth, table)
    assert found.dtype == np.uint16
    for place in np.ndindex(shape):
        column = planes[(slice(None), *place)]
        covering = [segment for segment in column[1:] if segment > 0]
        assert found[place] == table[(covering[-1] if covering else column[0]) + 1]


@pytest.mark.parametrize("highest", [3, 70_000, 2**31 - 1])
def test_each_pair_is_one_segment(highest):
    generator = np.random.default_rng(0)
    class_map = generator.integers(NOTHING, 3, (6, 7))
    numbers = generator.choice([0, 1, highest], (6, 7))
    truth = to_segmentation(class_map, numbers, THREE)
    pairs = sorted({(int(k), int(n)) for k, n in zip(class_map.ravel(), numbers.ravel(), strict=True) if k >= 0})
    assert list(zip(truth.class_ids, truth.instance_ids, strict=True)) == pairs
    for index, (k, n) in enumerate(pairs):
        assert np.array_equal(truth.mask(index), (class_map == k) & (numbers == n))
    assert np.array_equal(truth.planes[0] == VOID, class_map == VOID)
    assert np.array_equal(truth.planes[0] == 0, class_map == NOTHING)


def test_many_classes_with_many_numbers():
    classes = Classes.of([f"c{k}" for k in range(300)])
    class_map, numbers = np.mgrid[:300, :300]
    numbers = np.where(class_map == 7, 90_000 * numbers, numbers)  # more pairs than the table holds
    truth = to_segmentation(np.vstack([class_map, class_map[:1] * 0 + VOID]), np.vstack([numbers, numbers[:1]]), classes)
    assert len(truth) == 90_000 and (truth.planes[0, -1] == VOID).all()
    back = to_maps(truth)
    assert np.array_equal(back[0][:-1], class_map) and np.array_equal(back[1][:-1], numbers)


# By a law


@given(
    class_map=arrays(np.int32, (3, 4), elements=st.integers(NOTHING, 2)),
    numbers=arrays(np.int32, (3, 4), elements=st.sampled_from([0, 1, 5, 65536])),
)
def test_maps_come_back(class_map, numbers):
    numbers = np.where(class_map >= 0, numbers, 0)
    back = to_maps(to_segmentation(class_map, numbers, THREE))
    assert np.array_equal(back[0], class_map) and np.array_equal(back[1], numbers)


# By its messages


def test_what_a_class_map_cannot_hold():
    truth = Segmentation.instances(np.ones((1, 1, 2), bool), [1], classes=THREE)
    assert not fits_mask(truth) and fits_mask(Segmentation.semantic(np.zeros((1, 2), int), THREE))
    with pytest.raises(OutputError, match="'a' has 1 objects, .* cannot hold; write it as coco or volume"):
        mask_values(Sample.of("a", np.zeros((1, 1, 2), np.uint8), truth))

"""Truths of things and stuff, taken apart. Axes: N segments, P planes, H, W."""

import numpy as np
import pytest
import torch

from segwright.core import Classes, Segmentation
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.segment_truth import VOID, stuff_map, stuff_numbers, things_alone

THINGS, NUM_CLASSES = (1, 4), 5  # stuff is 0, 2 and 3


def truth_of(planes, class_ids) -> ObjectTruth:
    """Segments with boxes that tell which is which."""
    count = len(class_ids)
    boxes = torch.arange(4.0 * count).reshape(count, 4)
    return ObjectTruth(boxes, torch.tensor(class_ids, dtype=torch.int64), torch.tensor(planes, dtype=torch.int32))


def drawn(seed: int, *, planes: int) -> ObjectTruth:
    random = np.random.default_rng(seed)
    class_ids = random.integers(0, NUM_CLASSES, 9)
    each = [random.integers(VOID if plane == 0 else 0, 3, (7, 8)) for plane in range(planes)]
    numbers = [np.where(part > 0, part + 2 * plane, part) for plane, part in enumerate(each)]  # a segment lies in one plane
    return truth_of(np.stack(numbers), class_ids)


def test_things_and_stuff_by_hand():
    truth = truth_of([[[1, 2, 3], [4, 0, -1]]], [2, 4, 1, 0])
    things = things_alone(truth, THINGS)
    assert things.boxes.tolist() == truth.boxes[[1, 2]].tolist()
    assert things.class_ids.tolist() == [1, 0] and things.class_ids.dtype == torch.int64
    assert things.planes.tolist() == [[[0, 1, 2], [0, 0, -1]]] and things.planes.dtype == torch.int32
    labels = stuff_map(truth, THINGS, NUM_CLASSES)
    assert labels.tolist() == [[2, 0, 0], [1, VOID, VOID]] and labels.dtype == torch.int64


def test_stuff_counts_from_one_on():
    assert stuff_numbers(THINGS, NUM_CLASSES).tolist() == [1, 0, 2, 3, 0]


def test_no_segments():
    for value in (0, VOID):
        truth = truth_of([[[value, value]]], [])
        things = things_alone(truth, THINGS)
        assert things.boxes.shape == (0, 4) and things.class_ids.shape == (0,) and things.planes.tolist() == [[[value, value]]]
        assert stuff_map(truth, THINGS, NUM_CLASSES).tolist() == [[VOID, VOID]]


@pytest.mark.parametrize("planes", [1, 3])
def test_equals_the_slow_twin(planes):
    for seed in range(10):
        truth = drawn(seed, planes=planes)
        kept = [index for index, k in enumerate(truth.class_ids.tolist()) if k in THINGS]
        things = things_alone(truth, THINGS)
        assert things.class_ids.tolist() == [THINGS.index(truth.class_ids[index]) for index in kept]
        for number, index in enumerate(kept):
            assert torch.equal(things.planes == number + 1, truth.planes == index + 1)
        assert torch.equal(things.planes == VOID, truth.planes == VOID) and things.planes.max() <= len(kept)


@pytest.mark.parametrize("planes", [1, 3])
def test_the_class_map_is_that_of_the_segmentation(planes):
    """Its own rule says which plane covers which, and that nothing is void."""
    classes = Classes.of([f"class {k}" for k in range(NUM_CLASSES)])
    for seed in range(10):
        truth = drawn(seed, planes=planes)
        count = len(truth.class_ids)
        whole = Segmentation(
            truth.planes.numpy(), truth.class_ids.numpy().astype(np.int32), np.zeros(count, np.int32), np.ones(count), classes
        ).class_map()
        number_of = np.array([*stuff_numbers(THINGS, NUM_CLASSES).tolist(), VOID])  # the last is void, -1
        assert stuff_map(truth, THINGS, NUM_CLASSES).tolist() == number_of[whole].tolist()

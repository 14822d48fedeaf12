import pickle

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.evaluation.error_analysis import Atlas
from segwright.formats.synthetic import cells, streets
from segwright.metrics.panoptic_quality import PanopticQuality

CLASSES = Classes.of(["sky", "road"])


def moved(truth, seed):
    """The truth a few pixels off, with some segments gone and scores that are not sure."""
    rng = np.random.default_rng(seed)
    keep = np.concatenate([[-1, 0], np.where(rng.random(len(truth)) < 0.9, np.arange(1, len(truth) + 1), 0)])
    planes = np.roll(keep[truth.planes + 1], rng.integers(-3, 4, 2), (-2, -1)).astype(np.int32)
    return Segmentation(
        np.maximum(planes, 0), truth.class_ids, truth.instance_ids, rng.random(len(truth), np.float32), truth.classes
    )


def parts(dataset):
    samples = list(dataset)
    return [Atlas.of(s.key, moved(s.truth, seed), s.truth, s.image) for seed, s in enumerate(samples)]


@pytest.fixture(scope="module")
def of_cells():
    return parts(cells(5, shape=(96, 96)))


def same(one, other):
    assert one.images == other.images and one.segments == other.segments and one.suspects == other.suspects
    np.testing.assert_allclose(one.borders.values, other.borders.values)
    np.testing.assert_allclose(one.quality.values, other.quality.values)
    assert (one.objects.true == other.objects.true).all()
    assert one.objects.mean_ap() == pytest.approx(other.objects.mean_ap(), nan_ok=True)
    assert one.objects.costs() == pytest.approx(other.objects.costs(), nan_ok=True)


def test_law_parts_add_up_in_any_order_and_travel(of_cells):
    a, b, c, d, e = of_cells
    total = Atlas.total(of_cells)
    same(total, pickle.loads(pickle.dumps((a + b) + (c + (d + e)))))
    same(total, e + d + c + b + a)
    assert total.images == 5 and total.has_objects


def test_the_state_is_small(of_cells):
    assert len(pickle.dumps(of_cells[0])) < 150_000  # four cut-outs of some 20 KB, never an image


def test_quality_is_that_of_the_metric(of_cells):
    metric, truths = PanopticQuality(cells(1).classes), list(cells(5, shape=(96, 96)))
    sums = sum(metric.count(moved(s.truth, seed), s.truth).values for seed, s in enumerate(truths))
    np.testing.assert_allclose(Atlas.total(of_cells).quality.values, sums)


def test_overlapping_predictions_count_their_best_for_quality():
    masks = np.zeros((2, 4, 8), bool)
    masks[0, :, :4] = masks[1, :, :6] = True
    things = Classes.of(["cell"], is_thing=[True])
    truth = Segmentation.instances(masks[:1], [0], classes=things)
    found = Atlas.of("a", Segmentation.instances(masks, [0, 0], scores=[0.9, 0.2], classes=things), truth)
    assert found.quality.values.tolist() == [[1, 1, 1, 0]]


def test_class_maps_have_no_objects_and_objects_that_nobody_looked_for_are_not_spoken_of():
    (sample,) = streets(1, shape=(64, 64))
    assert not Atlas.of("a", Segmentation.semantic(sample.truth.class_map(), sample.truth.classes), sample.truth).has_objects
    stuff = Segmentation.semantic(np.zeros((4, 4), int), CLASSES)
    assert not Atlas.of("a", stuff, stuff).has_objects
    empty = Segmentation.panoptic(np.zeros((64, 64), int), [], classes=sample.truth.classes)
    assert Atlas.of("a", empty, sample.truth).has_objects  # nothing at all was found: that is an answer


def test_void_changes_nothing():
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 2, (20, 20))
    guess = rng.integers(0, 2, (20, 20))
    one = Atlas.of("a", Segmentation.semantic(guess, CLASSES), Segmentation.semantic(truth, CLASSES))
    other = np.where(truth < 0, 1 - guess, guess)
    same(one, Atlas.of("a", Segmentation.semantic(other, CLASSES), Segmentation.semantic(truth, CLASSES)))


def test_all_void_and_empty_images():
    void = Segmentation.semantic(np.full((5, 5), -1), CLASSES)
    found = Atlas.of("a", Segmentation.semantic(np.zeros((5, 5), int), CLASSES), void)
    assert not found.borders.values.any() and found.suspects == ()


def test_doubtful_predictions_are_as_sure_as_most_of_the_right_ones():
    masks = np.zeros((4, 40, 40), bool)
    for index, mask in enumerate(masks):
        mask[10 * index : 10 * index + 8, :8] = True
    things = Classes.of(["cell"], is_thing=[True])
    truth = Segmentation.instances(masks[:2], [0, 0], classes=things)
    guess = Segmentation.instances(masks, [0] * 4, scores=[0.6, 0.8, 0.64, 0.66], classes=things)
    assert [one.score for one in Atlas.of("a", guess, truth).doubtful()] == [pytest.approx(0.66)]  # a quarter lies below 0.65


def test_messages():
    one, other = (Segmentation.semantic(np.zeros(shape, int), CLASSES) for shape in ((2, 3), (3, 2)))
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        Atlas.of("a", one, other)

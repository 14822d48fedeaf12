import numpy as np
import pytest

from segwright.formats.synthetic.street_scenery import DRIVE_SPEED, FRAME_S, street_sample
from segwright.formats.synthetic.street_world import CAR, CLASSES, PEDESTRIAN, make_street

SHAPE = (96, 128)


def view(seed, frame=0, shape=SHAPE, length=0.0):
    return street_sample("one", make_street(np.random.default_rng(seed), length), shape, frame)


# By hand


@pytest.mark.parametrize("shape", [(32, 32), (64, 200), (120, 60), (192, 256)])
def test_every_pixel_has_its_segment(shape):
    for seed in range(4):
        sample = view(seed, shape=shape)
        truth = sample.truth
        assert sample.image.shape == (3, *shape) and sample.image.dtype == np.uint8
        assert truth.areas().sum() == np.prod(shape) and (truth.areas() > 0).all()
        is_thing = np.array(CLASSES.is_thing)[truth.class_ids]
        assert (truth.instance_ids[is_thing] > 0).all() and (truth.instance_ids[~is_thing] == 0).all()
        assert len(set(truth.instance_ids[is_thing])) == is_thing.sum()


def test_all_classes_occur_and_none_rules():
    maps = np.stack([view(seed).truth.class_map() for seed in range(30)])
    shares = np.bincount(maps.ravel(), minlength=len(CLASSES)) / maps.size
    assert len(shares) == len(CLASSES) and shares.min() > 0.002 and shares.max() < 0.5
    assert (np.array([len(np.unique(one)) for one in maps]) >= 5).all()


def test_the_picture_shows_the_truth():
    """Within one scene, the sky differs from the road in colour, and neighbours across a border more than inside."""
    inside, across = [], []
    for seed in range(10):
        sample = view(seed)
        image, classes = sample.image.astype(int), sample.truth.class_map()
        step = np.abs(np.diff(image, axis=2)).sum(axis=0)
        is_border = np.diff(classes, axis=1) != 0
        inside.append(step[~is_border].mean())
        across.append(step[is_border].mean())
    assert np.mean(across) > 2.5 * np.mean(inside)


# By a law


def test_objects_keep_their_numbers_through_a_drive():
    frames = [view(3, frame, length=20.0) for frame in range(8)]
    kinds: dict[int, int] = {}
    centres: dict[int, float] = {}
    kept = 0
    for sample in frames:
        truth, boxes = sample.truth, sample.truth.boxes_xyxy()
        for index in np.flatnonzero(truth.instance_ids):
            number, kind = int(truth.instance_ids[index]), int(truth.class_ids[index])
            assert kind in (CAR, PEDESTRIAN) and kinds.setdefault(number, kind) == kind
            if truth.areas()[index] > 30:
                centre = float(boxes[index, [0, 2]].mean())
                kept += number in centres
                assert abs(centres.get(number, centre) - centre) < 20  # pixels in a tenth of a second
                centres[number] = centre
    assert kept > 10


def test_the_drive_moves_what_stands():
    first, later = view(3, 0, length=20.0), view(3, 8, length=20.0)
    assert DRIVE_SPEED * FRAME_S * 8 > 4  # metres
    assert (first.truth.class_map() != later.truth.class_map()).mean() > 0.05
    assert not np.array_equal(first.image, view(4, 0, length=20.0).image)
    assert np.array_equal(later.image, view(3, 8, length=20.0).image)

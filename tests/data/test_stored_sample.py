"""A sample of which samplers and transforms ask for parts."""

import numpy as np
import pytest

from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.data.stored_sample import StoredSample
from segwright.transforms.geometric import Geometric

CLASSES = Classes.of(["background", "cell", "wall"])


@pytest.fixture
def sample() -> Sample:
    generator = np.random.default_rng(0)
    truth = Segmentation.semantic(generator.integers(-1, 3, (9, 12)), CLASSES)
    return Sample("a", generator.integers(0, 255, (3, 9, 12), np.uint8), Grid((9, 12), (2.0, 1.0), np.eye(3)), truth)


def test_the_whole_is_the_sample_and_a_part_a_piece_of_it(sample):
    item = StoredSample.of(sample)
    whole, part = item.whole(), item.part((slice(2, 5), slice(0, 4)))
    assert np.array_equal(whole.image, sample.image) and whole.grid is sample.grid
    assert np.array_equal(part.image, sample.image[:, 2:5, :4])
    assert np.array_equal(part.truth.planes, sample.truth.planes[:, 2:5, :4]) and part.grid.spacing_mm == (2.0, 1.0)


def test_the_head_keeps_no_pixels(sample):
    head = StoredSample.of(sample).head
    assert not head.image.nbytes and head.image.base is None and head.image.dtype == np.uint8
    assert not head.truth.planes.nbytes and head.truth.planes.base is None


def test_a_crop_is_that_of_the_sample_and_can_do_without_its_image(sample):
    geometric, item = Geometric(rotate_deg=10), StoredSample.of(sample)
    wanted = geometric(sample, (6, 6), np.random.default_rng(1))
    crop = item.crop(geometric, (6, 6), np.random.default_rng(1))
    bare = item.without_image().crop(geometric, (6, 6), np.random.default_rng(1))
    assert np.array_equal(crop.image, wanted.image) and crop.grid.spacing_mm == wanted.grid.spacing_mm
    assert np.array_equal(bare.truth.planes, wanted.truth.planes) and bare.image.shape == (0, 6, 6)


def test_a_pixel_is_that_which_a_choice_among_all_of_its_class_gives(sample):
    item, class_map = StoredSample.of(sample), sample.truth.class_map()
    for seed in range(20):
        flat = np.random.default_rng(seed).choice(np.flatnonzero(class_map == 2))
        assert tuple(item.pixel(2, np.random.default_rng(seed))) == np.unravel_index(flat, (9, 12))
    assert item.locations is item.locations


def test_foreground_is_what_is_there_but_the_background(sample):
    assert StoredSample.of(sample).foreground().tolist() == [1, 2]
    sky = Segmentation.semantic(np.array([[0, 2]]), Classes.of(["sky", "road", "car"]))
    assert StoredSample.of(Sample.of("a", np.zeros((1, 1, 2), np.uint8), sky)).foreground().tolist() == [0, 2]


def test_a_sample_without_truth_has_no_places_of_classes():
    item = StoredSample.of(Sample.of("a", np.zeros((1, 2, 2), np.uint8)))
    assert item.whole().truth is None and not len(item.foreground()) and not len(item.class_ids) and item.is_there()
    with pytest.raises(UsageError, match="sample 'a' has no truth"):
        item.pixel(0, np.random.default_rng(0))

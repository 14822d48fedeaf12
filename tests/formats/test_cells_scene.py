import numpy as np
import pytest

from segwright.formats.synthetic.cells_scene import CLASSES, cell_sample
from segwright.metrics.connected_components import count_components

SHAPES = [(192, 256), (48, 64), (8, 8), (20, 40, 48)]


def scene(shape, seed=0):
    return cell_sample("one", shape, np.random.default_rng(seed))


# By hand


@pytest.mark.parametrize("shape", SHAPES)
def test_the_background_is_stuff_and_each_cell_an_object(shape):
    for seed in range(5):
        sample = scene(shape, seed)
        truth = sample.truth
        assert sample.image.shape == (1, *shape) and sample.image.dtype == np.uint8 and truth.classes == CLASSES
        assert (truth.class_ids == (truth.instance_ids > 0)).all()
        objects = truth.instance_ids[truth.instance_ids > 0]
        assert objects.tolist() == list(range(1, len(objects) + 1))
        assert (truth.areas() > 0).all() and truth.areas().sum() == np.prod(shape)


def test_cells_are_bright_but_not_all_of_them():
    inside, outside, dim = [], [], 0
    for seed in range(10):
        sample = scene((96, 128), seed)
        image, is_cell = sample.image[0], sample.truth.class_map() == 1
        inside.append(image[is_cell].mean())
        outside.append(image[~is_cell].mean())
        dim += np.quantile(image[is_cell], 0.05) < np.quantile(image[~is_cell], 0.999)
    assert np.mean(inside) > 2.5 * np.mean(outside)  # it can be learnt
    assert dim > 5  # and no single threshold does it


def test_some_cells_touch():
    for seed in range(5):
        is_cell = scene((192, 256), seed).truth.class_map() == 1
        cells = scene((192, 256), seed).truth.instance_ids.max()
        assert count_components(is_cell, 8) < cells


# By a law


@pytest.mark.parametrize("shape", SHAPES)
def test_a_seed_decides_everything(shape):
    assert np.array_equal(scene(shape).image, scene(shape).image)
    assert np.array_equal(scene(shape).truth.planes, scene(shape).truth.planes)
    assert not np.array_equal(scene(shape).image, scene(shape, seed=1).image)

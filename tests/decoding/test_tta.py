import numpy as np
import pytest

from segwright.decoding.tta import mirrored


def edges(images: np.ndarray) -> np.ndarray:
    """Logits (B, 2, *S) that know left from right: each pixel minus the one after it, and the pixel."""
    return np.stack([images[:, 0] - np.roll(images[:, 0], -1, axis=-1), images[:, 0]], axis=1)


def test_no_axes_are_one_run():
    assert mirrored(edges, ()) is edges


def test_the_mean_over_one_mirror_image():
    image = np.array([[[[1.0, 2.0, 4.0]]]], np.float32)
    there = np.array([[-1.0, -2.0, 3.0]])
    back = np.array([[1.0 - 4.0, 2.0 - 1.0, 4.0 - 2.0]])  # the neighbour after it is the one before it
    assert mirrored(edges, (-1,))(image)[0, 0].tolist() == ((there + back) / 2).tolist()


def test_ways_along_a_mirrored_axis_turn_round():
    """The difference to the next pixel is such a way: it keeps its sign, where the mean over mirrors without signs is lost."""

    def slope(images: np.ndarray) -> np.ndarray:
        return np.stack([np.gradient(images[:, 0], axis=axis) for axis in (-2, -1)], axis=1)

    image = np.random.default_rng(0).standard_normal((1, 1, 4, 5), dtype=np.float32)
    for axes in ((-1,), (-2,), (-2, -1)):
        found = mirrored(slope, axes, turned={-2: 0, -1: 1})(image)
        np.testing.assert_allclose(found, slope(image), atol=1e-6)
    assert np.abs(mirrored(slope, (-1,))(image)[:, 1]).max() < 1e-6


@pytest.mark.parametrize(("axes", "runs"), [((-1,), 2), ((-2, -1), 4), ((-3, -2, -1), 8)])
def test_all_subsets_of_the_axes_are_run_once(axes, runs):
    seen = []
    image = np.random.default_rng(0).standard_normal((1, 1, 3, 4, 5), dtype=np.float32)
    mirrored(lambda part: seen.append(part.tobytes()) or edges(part), axes)(image)
    assert len(seen) == len(set(seen)) == runs


@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (-3,)])
def test_mirrored_images_give_mirrored_logits(axes):
    image = np.random.default_rng(0).standard_normal((1, 1, 3, 4, 5), dtype=np.float32)
    run = mirrored(edges, axes)
    np.testing.assert_allclose(run(np.flip(image, axes)), np.flip(run(image), axes), atol=1e-6)


def test_a_result_that_the_next_run_overwrites_is_not_lost():
    buffer = np.empty((1, 2, 2, 3), np.float32)

    def run(image: np.ndarray) -> np.ndarray:
        buffer[:] = edges(image)
        return buffer

    image = np.random.default_rng(0).standard_normal((1, 1, 2, 3), dtype=np.float32)
    np.testing.assert_allclose(mirrored(run, (-2, -1))(image), mirrored(edges, (-2, -1))(image))


@pytest.mark.parametrize(("at_once", "calls"), [(1, 8), (4, 3), (8, 2)])
def test_mirrors_share_a_batch(at_once, calls):
    seen = []
    image = np.random.default_rng(0).standard_normal((1, 1, 3, 4, 5), dtype=np.float32)
    together = mirrored(lambda part: seen.append(len(part)) or edges(part), (-3, -2, -1), at_once)(image)
    np.testing.assert_array_equal(together, mirrored(edges, (-3, -2, -1))(image))
    assert len(seen) == calls and max(seen) <= at_once

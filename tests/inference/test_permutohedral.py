import numpy as np
import pytest

from segwright.inference.permutohedral import CORNERS, D, Lattice, add_slice, blur, splat


def filtered(lattice: Lattice, values: np.ndarray) -> np.ndarray:
    """Values (N, K) splatted, blurred along all directions and sliced."""
    now, then = (np.zeros((lattice.size + 1, values.shape[1]), np.float32) for _ in range(2))
    splat(values, lattice.corners, lattice.weights, now)
    for neighbours in lattice.neighbours:
        blur(now, neighbours, 0, then)
        now, then = then, now
    out = np.zeros_like(values)
    add_slice(now, lattice.corners, lattice.weights, np.float32(1), out)
    return out


def cloud(count: int, spread: float = 1.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, D), scale=spread).astype(np.float32)


def all_of(features: np.ndarray) -> Lattice:
    return Lattice.of(features, np.ones(len(features), np.bool_))


# By hand


def test_a_point_on_a_corner_touches_it_alone():
    lattice = all_of(np.zeros((1, D), np.float32))
    assert lattice.size == CORNERS
    assert sorted(lattice.weights[0].tolist()) == [0] * D + [1]


def test_equal_points_share_their_corners():
    lattice = all_of(np.repeat(cloud(1), 3, axis=0))
    assert lattice.size == CORNERS and (lattice.corners == lattice.corners[0]).all()


def test_a_point_that_is_left_out_gives_and_gets_nothing():
    features, values = cloud(50), np.ones((50, 8), np.float32)
    known = np.arange(50) != 7
    lattice = Lattice.of(features, known)
    found = filtered(lattice, values)
    assert (found[7] == 0).all()
    without = filtered(all_of(features[known]), values[known])
    assert found[known] == pytest.approx(without, rel=1e-5)


# By a slow twin


def test_is_close_to_the_gaussian_of_all_pairs():
    features = cloud(3000)
    values = np.random.default_rng(1).random((3000, 8), dtype=np.float32)
    squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    kernel = np.exp(-squared / 2)
    exact = kernel @ values / kernel.sum(axis=1, keepdims=True)
    lattice = all_of(features)
    ours = filtered(lattice, values) / filtered(lattice, np.ones_like(values))
    assert np.abs(ours - exact).mean() < 0.02 < values.std() / 10
    assert np.corrcoef(filtered(lattice, np.ones_like(values))[:, 0], kernel.sum(axis=1))[0, 1] > 0.98


def test_neighbours_are_those_of_a_dictionary_of_coordinates():
    lattice = all_of(cloud(200))
    for direction in range(CORNERS):
        for side in range(2):
            there = lattice.neighbours[direction, :, side]
            known = np.flatnonzero(there < lattice.size)
            assert len(known) and (lattice.neighbours[direction, there[known], 1 - side] == known).all()  # and back again


# By a law


def test_weights_are_shares():
    lattice = all_of(cloud(500, spread=20))
    assert lattice.weights.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert lattice.weights.min() > -1e-4


def test_the_table_grows_as_it_must():
    features = cloud(4000, spread=200)  # hardly two points share a corner
    lattice = all_of(features)
    assert lattice.size > 2**14 and np.unique(lattice.corners).size == lattice.size
    assert filtered(lattice, np.ones((4000, 8), np.float32)).min() > 0

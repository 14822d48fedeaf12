from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from segwright.inference.permutohedral import CORNERS, D, Lattice, add_slice, blur, gather, splat


def filtered(lattice: Lattice, values: np.ndarray) -> np.ndarray:
    """Values (N, K) splatted, blurred along all directions and sliced, piece after piece."""
    firsts = np.cumsum([0, *map(len, lattice.numbers)])
    own = np.zeros((firsts[-1] + 1, values.shape[1]), np.float32)
    now, then = (np.zeros((lattice.size + 1, values.shape[1]), np.float32) for _ in range(2))
    spans = [slice(*span) for span in zip(lattice.cuts[:-1], lattice.cuts[1:], strict=True)]
    for first, span in zip(firsts.tolist(), spans, strict=False):
        splat(values[span], lattice.corners[span], lattice.weights[span], first, own)
    gather(own, lattice.rows, 0, lattice.size, now)
    for neighbours in lattice.neighbours:
        blur(now, neighbours, 0, lattice.size, then)
        now, then = then, now
    out = np.zeros_like(values)
    for numbers, span in zip(lattice.numbers, spans, strict=True):
        add_slice(now, lattice.corners[span], numbers, lattice.weights[span], np.float32(1), out[span])
    return out


def cloud(count: int, spread: float = 1.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, D), scale=spread).astype(np.float32)


def all_of(features: np.ndarray, pieces: int = 1) -> Lattice:
    return lattice_of(features, np.ones(len(features), np.bool_), pieces)


def lattice_of(features: np.ndarray, known: np.ndarray, pieces: int = 1) -> Lattice:
    """That of features (N, 5) in so many pieces."""
    cuts = [len(features) * piece // pieces for piece in range(pieces + 1)]
    with ThreadPoolExecutor(2) as pool:
        return Lattice.of(np.ascontiguousarray(features.T), known, cuts, pool)


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
    lattice = lattice_of(features, known)
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


def test_pieces_give_what_the_whole_gives():
    features, values = cloud(500), np.random.default_rng(1).random((500, 8), dtype=np.float32)
    whole, parts = all_of(features), all_of(features, pieces=3)
    assert parts.size == whole.size < sum(map(len, parts.numbers))
    assert filtered(parts, values) == pytest.approx(filtered(whole, values), rel=1e-5)


def test_colours_beyond_float32_stay_in_their_piece():
    features = cloud(100)
    features[::7, 4] = 3e38
    features[3, 2] = np.nan
    lattice = all_of(features)
    assert np.isfinite(filtered(lattice, np.ones((100, 8), np.float32))[1]).all()
    assert lattice.corners.min() >= 0 and lattice.corners.max() < lattice.size


def test_the_table_grows_as_it_must():
    features = cloud(4000, spread=200)  # hardly two points share a corner
    lattice = all_of(features)
    assert lattice.size > 2**14 and np.unique(lattice.corners).size == lattice.size
    assert filtered(lattice, np.ones((4000, 8), np.float32)).min() > 0

"""Polygons: by hand, against pycocotools, there and back for any mask, and damaged ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.codecs import polygons, rle
from segwright.core.errors import FormatError

SQUARE = np.array([[1, 1], [4, 1], [4, 4], [1, 4]])
HOLE = np.array([[2, 2], [2, 3], [3, 3], [3, 2]])
masks = st.one_of(
    arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)),
    arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24), fill=st.just(True)),
)


def picture(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


SHAPES = {
    "nothing": picture("...", "..."),
    "full frame": picture("###", "###"),
    "single pixel": picture("...", ".#.", "..."),
    "one pixel in all": picture("#"),
    "hole": picture("###", "#.#", "###"),
    "hole in a hole": picture("#####", "#...#", "#.#.#", "#...#", "#####"),
    "three deep": picture("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
    "diagonal touch": picture("#..", ".#.", "..#"),
    "holes that touch": picture("####", "#.##", "##.#", "####"),
    "closed over a diagonal": picture(".##", "#.#", "###"),
    "chess": picture("#.#.#", ".#.#.", "#.#.#"),
    "several parts": picture("##..#", "##..#", ".....", "#.###"),
}


# By hand


def test_a_pixel_belongs_when_its_centre_lies_inside():
    assert np.array_equal(rle.decode(polygons.rasterise([SQUARE], (5, 5)), (5, 5))[1:4, 1:4], np.ones((3, 3), bool))
    assert rle.area(polygons.rasterise([SQUARE], (5, 5))) == 9
    assert rle.area(polygons.rasterise([SQUARE + 0.4], (6, 6))) == 9
    moved = rle.decode(polygons.rasterise([SQUARE + 0.6], (6, 6)), (6, 6))
    assert moved[2:5, 2:5].all() and moved.sum() == 9


def test_a_ring_inside_is_a_hole_and_what_is_outside_is_cut_off():
    ring = rle.decode(polygons.rasterise([SQUARE, HOLE], (5, 5)), (5, 5))
    assert ring.sum() == 8 and not ring[2, 2]
    assert rle.area(polygons.rasterise([SQUARE - 3], (5, 5))) == 1
    assert (
        rle.area(polygons.rasterise([np.array([[-1e300, -1e300], [1e300, -1e300], [1e300, 1e300], [-1e300, 1e300]])], (5, 5)))
        == 25
    )


@pytest.mark.parametrize("rings", [[], [SQUARE[:0]], [SQUARE[:1]], [SQUARE[:2]], [SQUARE + 9]])
def test_rings_around_nothing(rings):
    assert polygons.rasterise(rings, (5, 5)).tolist() == [25]


def test_tracing_by_hand():
    ((outer, hole),) = polygons.trace(SHAPES["hole"])
    assert outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]] and outer.dtype == np.int32
    assert hole.tolist() == [[1, 2], [2, 2], [2, 1], [1, 1]]
    assert polygons.signed_area(outer) == 9 and polygons.signed_area(hole) == -1


@pytest.mark.parametrize(
    ("name", "rings"),
    [
        ("nothing", []),
        ("hole in a hole", [2, 1]),
        ("three deep", [2, 2]),
        ("diagonal touch", [1, 1, 1]),
        ("holes that touch", [2]),
        ("closed over a diagonal", [1]),
        ("several parts", [1, 1, 1, 1]),
    ],
)
def test_parts_and_their_rings(name, rings):
    assert [len(part) for part in polygons.trace(SHAPES[name])] == rings


def test_one_ring_of_a_hole_is_cut_to_the_nearest_corner():
    ring = polygons.one_ring(polygons.trace(SHAPES["hole"]))
    assert ring.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3], [1, 2], [2, 2], [2, 1], [1, 1], [1, 2], [0, 3]]
    assert polygons.one_ring([]).shape == (0, 2) and polygons.one_ring([[SQUARE]]) is SQUARE


# Against pycocotools


def random_ring(kind, shape, rng):
    ring = rng.random((rng.integers(3, 12), 2)) * shape[::-1]
    if kind == "outside":
        ring = (ring - np.divide(shape[::-1], 2)) * 3
    if kind == "far outside":
        ring = (ring - np.divide(shape[::-1], 2)) * 1000
    if kind == "quarters":
        ring = np.round(ring * 4) / 4 - 2
    if kind == "repeated":
        ring[rng.integers(len(ring))] = ring[rng.integers(len(ring))]
    return np.round(ring) if kind == "whole" else ring


@pytest.mark.parametrize("kind", ["inside", "whole", "quarters", "outside", "far outside", "repeated"])
def test_equals_pycocotools(kind):
    theirs = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(len(kind))
    for _ in range(400):
        shape = tuple(int(side) for side in rng.integers(1, 60, 2))
        ring = random_ring(kind, shape, rng)
        wanted = theirs.frPyObjects([ring.ravel().tolist()], *shape)[0]["counts"].decode()
        assert rle.to_text(polygons.rasterise([ring], shape)) == wanted, ring.tolist()


# By laws


def check_there_and_back(mask):
    counts, parts = rle.encode(mask), polygons.trace(mask)
    rings = [ring for part in parts for ring in part]
    assert np.array_equal(polygons.rasterise(rings, mask.shape), counts)
    assert np.array_equal(polygons.rasterise([polygons.one_ring(parts)], mask.shape), counts)
    alone = [rle.decode(polygons.rasterise(part, mask.shape), mask.shape) for part in parts]
    assert np.array_equal(np.sum([np.zeros_like(mask, int), *alone], axis=0), mask)  # no pixel belongs to two parts
    for outer, *holes in parts:
        assert polygons.signed_area(outer) > 0 and all(polygons.signed_area(hole) < 0 for hole in holes)
    for wanted, found in zip(parts, polygons.trace_counts(counts, mask.shape), strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(wanted, found, strict=True))


@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES)
def test_shapes_there_and_back(mask):
    check_there_and_back(mask)


@settings(max_examples=150)
@given(masks)
def test_any_mask_there_and_back(mask):
    check_there_and_back(mask)


def test_a_large_mask_there_and_back(monkeypatch):
    mask = np.random.default_rng(0).random((150, 200)) < 0.5
    check_there_and_back(mask)
    monkeypatch.setattr(polygons, "NEAREST_WORK", 0)  # long cuts give the same mask
    check_there_and_back(mask)


@settings(max_examples=50)
@given(masks)
def test_the_one_ring_is_the_same_for_pycocotools(mask):
    theirs = pytest.importorskip("pycocotools.mask")
    ring = polygons.one_ring(polygons.trace(mask))
    if len(ring):
        coco = theirs.frPyObjects([ring.ravel().astype(float).tolist()], *mask.shape)
        assert np.array_equal(theirs.decode(coco)[..., 0], mask)


# Damaged input


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        (np.array([[0, 0], [np.nan, 1], [2, 2]]), "not a finite number"),
        (np.array([[0, 0], [np.inf, 1], [2, 2]]), "not a finite number"),
        (np.zeros(6), r"a polygon is \(6,\), \(V, 2\) is needed"),
    ],
)
def test_damaged_rings_are_refused(ring, message):
    with pytest.raises(FormatError, match=message):
        polygons.rasterise([ring], (5, 5))


def test_a_ring_that_would_fill_the_memory_is_refused():
    ring = np.tile([[0.0, 0.0], [1e6, 1.0]], (500, 1))
    with pytest.raises(FormatError, match="1,000 corners crosses columns of pixels 178,000,000 times.*as run lengths"):
        polygons.rasterise([ring], (1, 178_000))

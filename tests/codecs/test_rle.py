"""Run lengths: by hand, against pycocotools, by laws, and damaged ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.codecs import rle
from segwright.core.errors import FormatError

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40), fill=st.just(False))


def random_masks(count, rng):
    for _ in range(count):
        yield rng.random(rng.integers(1, 50, 2)) < rng.choice([0, 0.02, 0.5, 0.98, 1])


def theirs(mask):
    """The text that pycocotools gives a mask."""
    return pytest.importorskip("pycocotools.mask").encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


# By hand


def test_runs_go_down_the_columns():
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    assert rle.encode(mask).tolist() == [2, 3, 1]
    assert rle.encode(~mask).tolist() == [0, 2, 3, 1]
    assert np.array_equal(rle.decode(np.array([2, 3, 1], np.uint32), (2, 3)), mask)
    assert rle.area(rle.encode(mask)) == 3 and rle.box_xyxy(rle.encode(mask), (2, 3)) == (1, 0, 3, 2)


def test_text_by_hand():
    # 2, 3, 1 fit one group each: characters 48 + 2, 48 + 3, 48 + 1. 16 needs a second group, as bit 4 would be a sign.
    assert rle.to_text(np.array([2, 3, 1], np.uint32)) == "231"
    assert rle.to_text(np.array([16], np.uint32)) == chr(48 + 32 + 16) + chr(48)
    # The fourth count is written as its difference to the second: 2 - 3 = -1, all five bits and the sign
    assert rle.to_text(np.array([2, 3, 1, 2], np.uint32)) == "231" + chr(48 + 31)


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 40), (40, 1)])
def test_empty_and_full_frames(shape, value):
    mask = np.full(shape, value)
    counts = rle.encode(mask)
    assert counts.tolist() == ([0, mask.size] if value else [mask.size])
    assert np.array_equal(rle.decode(counts, shape), mask)
    assert rle.box_xyxy(counts, shape) == ((0, 0, shape[1], shape[0]) if value else (0, 0, 0, 0))


def test_regions_lie_in_the_first_plane_that_has_room():
    bars = np.zeros((4, 2, 6), bool)
    bars[0, :, :3], bars[1, :, 2:4], bars[2, :, 4:], bars[3, :, 3:5] = True, True, True, True
    planes = rle.paint_regions([rle.encode(bar) for bar in bars], (2, 6), rle.encode(np.ones((2, 6), bool)))
    assert planes[:, 0].tolist() == [[1, 1, 1, 0, 3, 3], [0, 0, 2, 2, 0, 0], [0, 0, 0, 4, 4, 0]]
    assert planes.dtype == np.int32 and planes.flags.c_contiguous


def test_void_fills_what_no_region_covers():
    region, everything = rle.encode(np.array([[True, False]])), rle.encode(np.ones((1, 2), bool))
    assert rle.paint_regions([region], (1, 2), everything).tolist() == [[[1, -1]]]
    assert rle.paint_regions([region, everything], (1, 2), everything).tolist() == [[[1, 0]], [[2, 2]]]
    assert rle.paint_regions([], (1, 2), everything).tolist() == [[[-1, -1]]]
    assert rle.of_void(rle.paint_regions([region], (1, 2), everything)).tolist() == [1, 1]


def test_a_segment_in_several_planes_is_their_union():
    planes = np.array([[[1, 0, 2]], [[0, 1, 1]]], np.int32)
    assert [counts.tolist() for counts in rle.of_segments(planes, 3)] == [[0, 3], [2, 1], [3]]


# Against pycocotools


def test_equals_pycocotools():
    theirs_all = pytest.importorskip("pycocotools.mask")
    for mask in random_masks(300, np.random.default_rng(0)):
        counts, text = rle.encode(mask), theirs(mask)
        assert rle.to_text(counts) == text
        assert np.array_equal(rle.from_text(text), counts)
        coco = {"size": mask.shape, "counts": text}
        assert np.array_equal(rle.decode(rle.from_text(text), mask.shape), theirs_all.decode(coco).astype(bool))
        assert rle.area(counts) == theirs_all.area(coco)
        left, top, right, bottom = rle.box_xyxy(counts, mask.shape)
        assert (left, top, right - left, bottom - top) == tuple(theirs_all.toBbox(coco))


def test_union_equals_pycocotools():
    theirs_all = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    for _ in range(200):
        shape = rng.integers(1, 30, 2)
        several = [rng.random(shape) < rng.choice([0, 0.1, 0.5, 1]) for _ in range(rng.integers(1, 5))]
        wanted = theirs_all.merge([{"size": list(shape), "counts": theirs(mask)} for mask in several])["counts"].decode()
        assert rle.to_text(rle.union([rle.encode(mask) for mask in several], tuple(shape))) == wanted


def test_large_counts_equal_pycocotools():
    theirs_all = pytest.importorskip("pycocotools.mask")
    counts = np.array([4_000_000_000, 1, 7, 90_000_000, 3, 1], np.uint32)
    wanted = theirs_all.frPyObjects({"size": [2**20, 2**12], "counts": counts.tolist()}, 2**20, 2**12)["counts"].decode()
    assert rle.to_text(counts) == wanted and np.array_equal(rle.from_text(wanted), counts)


# By laws


@settings(max_examples=60)
@given(masks)
def test_decoding_undoes_encoding(mask):
    counts = rle.encode(mask)
    rle.check(counts, mask.shape, "here")
    assert np.array_equal(rle.decode(counts, mask.shape), mask)
    assert np.array_equal(rle.from_text(rle.to_text(counts)), counts)
    cropped, (x, y) = rle.crop(counts, mask.shape)
    again = np.zeros_like(mask)
    again[y : y + cropped.shape[0], x : x + cropped.shape[1]] = cropped
    assert np.array_equal(again, mask)


@settings(max_examples=60)
@given(arrays(bool, st.tuples(st.integers(0, 6), st.integers(1, 40), st.integers(1, 9))))
def test_painting_keeps_every_region(several):
    counts = [rle.encode(mask) for mask in several]
    void = rle.encode(np.ones(several.shape[1:], bool))
    planes = rle.paint_regions(counts, several.shape[1:], void)
    for index, mask in enumerate(several):
        assert np.array_equal((planes == index + 1).any(axis=0), mask)
    assert np.array_equal(rle.decode(rle.of_void(planes), several.shape[1:]), ~several.any(axis=0))
    for wanted, found in zip(counts, rle.of_segments(planes, len(several)), strict=True):
        assert np.array_equal(found, wanted)


def test_300_regions_that_all_overlap():
    counts = [rle.encode(np.ones((3, 4), bool))] * 300
    planes = rle.paint_regions(counts, (3, 4))
    assert planes.shape == (300, 3, 4) and (planes[:, 0, 0] == np.arange(1, 301)).all()


# Damaged input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("23é", "'é' is no character of compressed run lengths"),
        ("2!3", r"damaged at character 2 of 3 \('!'\)"),
        ("2p", r"damaged at character 2 of 2 \('p'\)"),
        ("23" + chr(48 + 32), "damaged at character 3 of 3"),  # says that more follows
        ("O", "damaged at character 1 of 1"),  # -1
        ("`" * 8 + "0", "damaged at character 8 of 9"),  # more than 33 bits
    ],
)
def test_damaged_text_is_refused(text, message):
    with pytest.raises(FormatError, match=message):
        rle.from_text(text)


def test_any_text_gives_counts_or_a_format_error():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        text = "".join(map(chr, rng.integers(40, 116, rng.integers(0, 30))))
        try:
            assert rle.from_text(text).dtype == np.uint32
        except FormatError:
            continue


def test_lengths_that_do_not_fit_are_refused():
    with pytest.raises(FormatError, match=r"a.json: annotation 3: the run lengths add up to 6 pixels, the image has 2 x 4 = 8"):
        rle.check(np.array([2, 3, 1], np.uint32), (2, 4), "a.json: annotation 3")
    with pytest.raises(FormatError, match="add up to 8,589,934,590 pixels"):
        rle.check(np.array([2**32 - 1, 2**32 - 1], np.uint32), (2, 4), "here")


def test_planes_that_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(rle, "MAX_BYTES", 4 * 12 * 3)
    counts = [rle.encode(np.ones((3, 4), bool))] * 4
    assert len(rle.paint_regions(counts[:3], (3, 4))) == 3
    with pytest.raises(FormatError, match="4 regions of an image of 3 x 4 pixels cover each other.*cut the image into tiles"):
        rle.paint_regions(counts, (3, 4))

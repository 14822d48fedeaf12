import numpy as np
import pytest

from segwright.codecs.image_file import read_image
from segwright.codecs.image_writer import write_picture
from segwright.core import Sample, Segmentation
from segwright.core.errors import FormatError
from segwright.inspection.sample_scan import (
    Failure,
    Item,
    SampleScan,
    border_lines,
    fits,
    glance_at,
    grey_picture,
    intensity_step,
    look_at,
)


def one(item, num_classes=3, detailed=()):
    (result,) = look_at([item], num_classes, frozenset(detailed), 100)
    return result


def test_by_hand(truths):
    look = one(Item("s1", "train", lambda: truths.load("s1")), detailed=["s1"])
    truth = truths.load("s1").truth
    assert (look.key, look.part, look.shape, look.channels, look.dtype) == ("s1", "train", (12, 16), 3, "uint8")
    assert look.pixels.tolist() == [np.count_nonzero(truth.class_map() == k) for k in range(3)]
    assert (look.void, look.nothing, look.mask, look.problem, look.step) == (4, 0, None, "", None)
    assert look.thumb.shape == (32, 32) and look.detail.shape == (12, 16) and look.scale <= 255
    assert one(Item("s1", "", lambda: truths.load("s1"))).detail is None
    assert (
        one(Item("s1", "", lambda: truths.load("s1"))).digest
        == look.digest
        != one(Item("s2", "", lambda: truths.load("s2"))).digest
    )


def test_files_of_masks(patient):
    image, mask = patient.pairs()[0]
    look = one(Item("a", "", lambda: Sample.of("a", read_image(image)), image, mask))
    numbers = patient.mask(0)
    assert look.mask.values.tolist() == [0, 1, 2] and look.mask.counts.tolist() == np.bincount(numbers.ravel()).tolist()
    expected = np.zeros(3, int)
    for (row, column), number in np.ndenumerate(numbers):
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        near = [numbers[place] for place in around if 0 <= place[0] < 48 and 0 <= place[1] < 64]
        expected[number] += any(other != number for other in near)
    assert look.mask.edges.tolist() == expected.tolist()
    assert fits(look, image)


def test_colors(patient):
    image, mask = patient.pairs()[0]
    write_picture(mask, np.array([[9, 0, 0], [0, 255, 0], [0, 0, 7]], np.uint8)[patient.mask(0)])
    look = one(Item("a", "", lambda: Sample.of("a", read_image(image)), image, mask))
    assert sorted(map(tuple, look.mask.colors.tolist())) == [(0, 0, 7), (0, 255, 0), (9, 0, 0)]
    assert look.mask.counts.sum() == 48 * 64


def test_a_truth_that_cannot_be_told_leaves_the_image(patient):
    image, mask = patient.pairs()[0]

    def load():
        raise FormatError("number 7 has no class")

    look = one(Item("a", "", load, image, mask))
    assert isinstance(look, SampleScan) and look.problem == "number 7 has no class" and look.pixels is None


@pytest.mark.parametrize("error", [FormatError("broken"), ValueError("odd"), MemoryError("much")])
def test_whatever_fails_is_told(error):
    def load():
        raise error

    result = one(Item("a", "val", load))
    assert isinstance(result, Failure) and (result.key, result.part) == ("a", "val") and str(error) in result.message


def test_volumes_nan_and_images_without_channels():
    volume = np.random.default_rng(0).normal(size=(2, 6, 8, 10)).astype(np.float32)
    volume[:, 3, 0, 0] = np.nan
    truth = Segmentation.semantic(np.zeros((6, 8, 10), int))
    look = one(Item("v", "", lambda: Sample.of("v", volume, truth)), 1)
    assert look.borders is None and np.isfinite(look.thumb).all() and np.isfinite(look.scale)
    assert grey_picture(np.zeros((0, 4, 5), np.uint8)).shape == (4, 5)
    assert one(Item("n", "", lambda: Sample.of("n", np.zeros((0, 4, 5), np.uint8)))).channels == 0


@pytest.mark.parametrize("step", [7.3, 0.0123, 2757.8671])
def test_law_the_step_of_a_scan_is_found(step):
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 300, (1, 20, 30, 30))
    found = intensity_step((numbers * step).astype(np.float32))
    assert found == pytest.approx(step, rel=1e-6)


def test_no_step():
    rng = np.random.default_rng(0)
    assert intensity_step(rng.normal(size=(1, 50, 50)).astype(np.float32)) is None
    assert intensity_step(rng.integers(0, 255, (1, 50, 50)).astype(np.float32)) is None
    assert intensity_step(rng.integers(0, 255, (1, 50, 50)).astype(np.uint8)) is None
    assert intensity_step(np.full((1, 5, 5), 0.5, np.float32)) is None
    assert intensity_step(np.full((1, 5, 5), np.nan, np.float32)) is None


def test_borders_by_hand():
    left, right, top, bottom = border_lines(np.arange(12.0).reshape(3, 4))
    assert left.tolist() == [[0, 4, 8], [1, 5, 9]] and right.tolist() == [[3, 7, 11], [2, 6, 10]]
    assert top.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]] and bottom.tolist() == [[8, 9, 10, 11], [4, 5, 6, 7]]


def test_a_glance_is_a_small_look(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (12, 16, 3)).repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
    write_picture(tmp_path / "a.jpg", picture)
    (tmp_path / "b.png").write_bytes(b"nothing")
    items = [Item(name, "", lambda: None, tmp_path / name) for name in ("a.jpg", "b.png", "c.png")]
    (glance,) = glance_at(items)
    look = one(Item("a", "", lambda: Sample.of("a", read_image(tmp_path / "a.jpg"))))
    assert np.corrcoef(glance.thumb.ravel(), look.thumb.ravel())[0, 1] > 0.99 and glance.borders is None

"""How a network is asked: sizes that it can take, batches, and answers that are none."""

import numpy as np
import pytest

from segwright.core import Classes
from segwright.core.errors import SegwrightError, SettingError
from segwright.decoding.run import Run

TWO = Classes.of(["dark", "bright"])


def run_of(divisor: int, tile: tuple[int, ...] | None = None, **changes) -> Run:
    settings = {"engine": lambda images: (images, images.sum(axis=(1, 2, 3))), "classes": TWO, "divisors": (divisor,) * 2}
    return Run(**(settings | {"tile": tile} | changes))


# By hand


@pytest.mark.parametrize(
    ("shape", "tile", "expected"),
    [
        ((100, 100), None, ((128, 128), (128, 128))),  # the next multiples of the divisor
        ((100, 300), (512, 512), ((128, 320), (128, 320))),  # the next of 8 sizes per tile
        ((100, 600), (512, 512), ((128, 384), (128, 608))),  # two tiles of 384, and not of 512
        ((100, 896), (512, 512), ((128, 512), (128, 896))),
        ((500, 512), (512, 512), ((512, 512), (512, 512))),
        ((100, 100), (100, 100), ((64, 64), (128, 128))),  # a tile is at most what was asked for
        ((3, 3), (512, 512), ((64, 64), (64, 64))),
    ],
)
def test_the_sizes_of_tiles_and_padded_images(shape, tile, expected):
    assert run_of(32, tile).sizes(shape) == expected


def test_the_deepest_stage_gets_more_than_one_pixel():
    assert run_of(32).sizes((3, 3)) == ((32, 64), (32, 64))


def test_each_axis_has_a_divisor_of_its_own():
    assert run_of(1, divisors=(4, 32)).sizes((10, 40)) == ((12, 64), (12, 64))


@pytest.mark.parametrize(("at_once", "calls"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (8, [5])])
def test_all_outputs_of_a_batch_in_parts(at_once, calls):
    images, seen, buffer = np.random.default_rng(0).standard_normal((5, 1, 4, 4), np.float32), [], np.empty((8, 1, 4, 4))

    def engine(part: np.ndarray) -> tuple[np.ndarray, ...]:
        seen.append(len(part))
        buffer[: len(part)] = part  # valid until the next call
        return buffer[: len(part)], part.sum(axis=(1, 2, 3))

    same, sums = run_of(1, engine=engine, at_once=at_once)(images)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(sums, images.sum(axis=(1, 2, 3)))
    assert seen == calls


# By its messages


def test_nan_in_any_output_is_no_answer():
    with pytest.raises(SegwrightError, match="answers NaN; its weights hold NaN"):
        run_of(1, engine=lambda images: (images, np.array([0.0, np.nan])))(np.zeros((1, 1, 2, 2), np.float32))
    run_of(1, engine=lambda images: (np.zeros((0, 4)), np.array([3])))(np.zeros((1, 1, 2, 2), np.float32))  # found nothing


@pytest.mark.parametrize("flip_axes", [(0,), (-4,), (-1, -1)])
def test_axes_to_flip_are_checked(flip_axes):
    with pytest.raises(SettingError, match="count axes from the end, each once"):
        run_of(1, flip_axes=flip_axes)

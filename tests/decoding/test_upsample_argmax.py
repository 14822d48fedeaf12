import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.errors import ShapeError
from segwright.decoding.upsample_argmax import places, upsample_argmax


def twin(logits: np.ndarray, shape: tuple[int, ...], spans: tuple[tuple[float, float], ...] | None = None) -> np.ndarray:
    """All logits at full size, float64 (K, *S): one axis interpolated after the other."""
    full = logits.astype(np.float64)
    for axis, size in enumerate(shape, start=1):
        count = full.shape[axis]
        start, stop = spans[axis - 1] if spans else (0.0, count)
        place = np.clip(start + (np.arange(size) + 0.5) * (stop - start) / size - 0.5, 0, count - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, count - 1)
        weight = (place - low).reshape(-1, *[1] * (full.ndim - axis - 1))
        full = (1 - weight) * full.take(low, axis) + weight * full.take(high, axis)
    return full


def assert_wins(found: np.ndarray, full: np.ndarray) -> None:
    """Each label is the argmax, or as good as it within the rounding of float32."""
    chosen = np.take_along_axis(full, found[None].astype(np.int64), axis=0)[0]
    assert (full.max(axis=0) - chosen <= 1e-5 * np.abs(full).max()).all()
    assert (found == full.argmax(axis=0)).mean() > 0.999


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


# By hand


def test_two_pixels_become_four():
    logits = np.array([[[1.0, 0.0]], [[0.0, 0.9]]], np.float32)  # class 1 overtakes at place 0.53 between the centres
    assert upsample_argmax(logits, (1, 2)).tolist() == [[0, 1]]
    assert upsample_argmax(logits, (1, 4)).tolist() == [[0, 0, 1, 1]]
    assert upsample_argmax(logits, (2, 6)).tolist() == [[0, 0, 0, 1, 1, 1]] * 2


def test_a_class_that_wins_no_corner_may_win_inside():
    logits = np.array([[[1.0, -1.0]], [[-1.0, 1.0]], [[0.5, 0.5]]], np.float32)
    assert upsample_argmax(logits, (1, 8)).tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_of_equal_classes_the_first_wins():
    assert (upsample_argmax(np.zeros((3, 2, 2), np.float32), (5, 5)) == 0).all()


def test_one_class_one_logit_one_pixel():
    assert upsample_argmax(np.full((1, 1, 1), -7.0, np.float32), (3, 2)).tolist() == [[0, 0]] * 3
    assert upsample_argmax(np.array([[[0.0]], [[1.0]]], np.float32), (1, 1)).tolist() == [[1]]


def test_the_dtype_is_the_smallest_with_room_for_void():
    assert upsample_argmax(noise(255, 2, 2), (3, 3)).dtype == np.uint8
    many = noise(300, 2, 2)
    many[299] += 10
    assert upsample_argmax(many, (3, 3)).dtype == np.uint16
    assert (upsample_argmax(many, (3, 3)) == 299).all()


def test_a_span_is_the_part_without_padding():
    logits = np.stack([np.arange(8.0), 4 - np.arange(8.0)])[:, None].astype(np.float32)  # equal at place 2
    assert upsample_argmax(logits, (1, 4), ((0, 1), (0, 4))).tolist() == [[1, 1, 0, 0]]
    assert upsample_argmax(logits, (1, 8), ((0, 1), (0, 4))).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert upsample_argmax(logits, (1, 2), ((0, 1), (2, 4))).tolist() == [[0, 0]]


def test_places_of_twice_the_pixels():
    assert places(4, 2, (0.0, 2.0)).tolist() == [0.0, 0.25, 0.75, 1.0]


# By a slow twin


@settings(max_examples=40)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    classes=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_equals_interpolation_and_argmax_in_2d(size, shape, classes, seed):
    logits = noise(classes, *size, seed=seed)
    assert_wins(upsample_argmax(logits, shape), twin(logits, shape))


@settings(max_examples=20)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    shape=st.tuples(st.integers(1, 11), st.integers(1, 11), st.integers(1, 11)),
    seed=st.integers(0, 99),
)
def test_equals_interpolation_and_argmax_in_3d(size, shape, seed):
    logits = noise(4, *size, seed=seed)
    assert_wins(upsample_argmax(logits, shape), twin(logits, shape))


@settings(max_examples=20)
@given(ends=st.tuples(st.floats(0.5, 7), st.floats(0.5, 9)), seed=st.integers(0, 99))
def test_equals_the_twin_on_spans(ends, seed):
    logits, spans = noise(5, 7, 9, seed=seed), tuple((0.0, end) for end in ends)
    assert_wins(upsample_argmax(logits, (23, 17), spans), twin(logits, (23, 17), spans))


@pytest.mark.parametrize(
    ("logits", "shape"),
    [
        (noise(19, 32, 64), (128, 256)),
        (noise(150, 16, 16), (64, 64)),
        (noise(5, 40, 30), (40, 30)),
        (noise(7, 100, 120), (777, 1001)),  # large enough for several threads
        (noise(3, 40, 40), (13, 9)),
        (noise(4, 8, 9, 10), (16, 36, 20)),
        (noise(4, 8, 9, 10), (8, 9, 10)),
    ],
)
def test_equals_torch(logits, shape):
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    full = F.interpolate(torch.from_numpy(logits).double()[None], size=shape, mode=mode, align_corners=False)[0].numpy()
    assert_wins(upsample_argmax(logits, shape), full)


# By a law


def test_adding_to_all_classes_changes_nothing():
    logits, shift = noise(4, 6, 7), noise(1, 6, 7, seed=1)
    assert (upsample_argmax(logits, (24, 28)) == upsample_argmax(logits + shift, (24, 28))).mean() > 0.999


@pytest.mark.parametrize("axis", [1, 2])
def test_mirrored_logits_give_mirrored_labels(axis):
    logits = noise(6, 9, 11)
    found = upsample_argmax(np.flip(logits, axis), (40, 33))
    assert (found == np.flip(upsample_argmax(logits, (40, 33)), axis - 1)).mean() > 0.999


def test_the_input_stays_as_it_is():
    logits = noise(4, 5, 6)
    before = logits.copy()
    upsample_argmax(logits, (20, 24))
    assert (logits == before).all()


# By its messages


@pytest.mark.parametrize(
    ("shape", "wanted"), [((2, 3, 3), (4,)), ((0, 3, 3), (4, 4)), ((2, 3, 3), (4, 4, 4)), ((2, 3), (4,)), ((2, 3, 0), (4, 4))]
)
def test_refuses_other_axes(shape, wanted):
    with pytest.raises(ShapeError, match=r"cannot become labels .*give logits \(K, \*s\)"):
        upsample_argmax(np.zeros(shape, np.float32), wanted)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.codecs.brush_rle import LENGTH_BITS, decode_brush, encode_brush
from segwright.core.errors import FormatError

STUDIO_HEAD = [
    57,
    27,
]  # of every file of Label Studio: 8 bits a value, lengths of 3, 4, 8 and 16 bits, after the number of values


def bits(*numbers):
    """Bytes from (value, width) pairs, filled with zeros."""
    text = "".join(f"{value:0{width}b}" for value, width in numbers)
    text += "0" * (-len(text) % 8)
    return np.array([int(text[at : at + 8], 2) for at in range(0, len(text), 8)], np.uint8)


HEAD = ((7, 5), *((width - 1, 4) for width in LENGTH_BITS))


def slow_decode(data, shape):
    text = "".join(f"{byte:08b}" for byte in data)
    at = 0

    def read(width):
        nonlocal at
        at += width
        return int(text[at - width : at], 2)

    count, width = read(32), read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        is_run, which = read(1), read(2)
        length = read(lengths[which]) + 1
        values += [read(width)] * length if is_run else [read(width) for _ in range(length)]
    return np.array(values).reshape(*shape, 4)[..., 3] > 0


# By hand


def test_one_pixel_of_two():
    data = encode_brush(np.array([[True, False]]))
    assert data.tolist() == bits((8, 32), *HEAD, (0b100, 3), (3, 3), (255, 8), (0b100, 3), (3, 3), (0, 8)).tolist()
    assert data[4:6].tolist() == STUDIO_HEAD
    assert decode_brush(data, (1, 2), "here").tolist() == [[True, False]]


def test_values_one_by_one_and_any_alpha_above_zero():
    numbers = [(9, 8), (9, 8), (9, 8), (0, 8), (0, 8), (0, 8), (0, 8), (1, 8)]
    data = bits((8, 32), *HEAD, (0b000, 3), (7, 3), *numbers)
    assert decode_brush(data, (1, 2), "here").tolist() == [[False, True]]


def test_runs_that_end_within_a_pixel():
    data = bits((8, 32), *HEAD, (0b100, 3), (2, 3), (0, 8), (0b100, 3), (1, 3), (5, 8), (0b100, 3), (2, 3), (0, 8))
    assert decode_brush(data, (1, 2), "here").tolist() == [[True, False]]


def test_other_widths():
    lengths = [(0, 4), (15, 4), (4, 4), (4, 4)]
    data = bits((8, 32), (0, 5), *lengths, (0b101, 3), (7, 16), (1, 1))
    assert decode_brush(data, (2, 1), "here").all()


def test_a_byte_of_zeros_follows_where_the_bits_end_with_one():
    # 53 bits of header and one run of 3 + 8 + 8 bits are 72 bits, 9 bytes: Label Studio's own encoder writes 10
    assert len(encode_brush(np.ones((8, 8), bool))) == 10


# By a slow twin


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
@settings(max_examples=100)
def test_equals_the_twin(mask):
    assert np.array_equal(slow_decode(encode_brush(mask), mask.shape), mask)


# By a law


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)), st.integers(1, 60))
@settings(max_examples=100)
def test_decoding_undoes_encoding(mask, times):
    mask = np.repeat(mask, times, axis=1)
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape, "here"), mask)


@pytest.mark.parametrize("size", [16_384, 16_385, 100_000])  # 16384 pixels fill the longest run
def test_long_runs(size):
    for mask in (np.zeros((1, size), bool), np.ones((1, size), bool)):
        assert np.array_equal(decode_brush(encode_brush(mask), mask.shape, "here"), mask)


# By its messages


def test_damaged_data():
    mask = np.random.default_rng(0).random((9, 8)) > 0.5
    data = encode_brush(mask)
    for length in range(7):
        with pytest.raises(FormatError, match="here: the run lengths are cut short, a picture of 9 x 8 has 288; export"):
            decode_brush(data[:length], mask.shape, "here")
    for length in range(7, len(data) - 1):
        with pytest.raises(FormatError, match="here: the run lengths end before the picture does"):
            decode_brush(data[:length], mask.shape, "here")
    with pytest.raises(FormatError, match="hold 288 values, a picture of 8 x 8 has 256"):
        decode_brush(data, (8, 8), "here")
    long = bits((4, 32), *HEAD, (0b111, 3), (65_535, 16), (255, 8))
    with pytest.raises(FormatError, match="reach beyond the picture"):
        decode_brush(long, (1, 1), "here")
    one_by_one = bits((8, 32), *HEAD, (0b000, 3), (7, 3), (9, 8))
    with pytest.raises(FormatError, match="end before"):
        decode_brush(one_by_one[:-1], (1, 2), "here")


@given(st.integers(0, 2**32), st.integers(1, 30))
@settings(max_examples=200)
def test_flipped_bytes_give_a_mask_or_a_message(seed, flips):
    generator = np.random.default_rng(seed)
    data = encode_brush(generator.random((12, 9)) > 0.5)
    data[generator.integers(4, len(data), flips)] = generator.integers(0, 256, flips)
    try:
        assert decode_brush(data, (12, 9), "here").shape == (12, 9)
    except FormatError as error:
        assert str(error).startswith("here")

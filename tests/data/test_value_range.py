"""The scale of an image is told from its type where that is certain, doubted where it cannot be that of training, else left."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import FormatError
from segwright.data.fingerprint import IntensityStatistics, fingerprint
from segwright.data.value_range import ValueRange, ends_of, full_scale

RAMP = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)  # an 8-bit picture that uses all of its values


def trained_on(*images: np.ndarray) -> ValueRange:
    """The range of training images of these values."""
    return ValueRange.measured(data_of(*images))


def data_of(*images: np.ndarray) -> Dataset:
    keys = tuple(f"s{n}" for n in range(len(images)))
    return Dataset("memory", Classes.of(["a", "b"]), keys, lambda key: Sample.of(key, images[int(key[1:])]))


EIGHT = trained_on(RAMP)
SIXTEEN = trained_on(RAMP.astype(np.uint16) * 257)
OPEN = trained_on((RAMP / 255).astype(np.float32))
TWELVE = trained_on(RAMP.astype(np.uint16) * 16)
HOUNSFIELD = trained_on((RAMP * 10.0 - 1000).astype(np.int16))
WIDE = trained_on(RAMP.astype(np.float32))  # 0 to 255, in a type that tells no scale


def test_what_is_known_by_hand_and_through_json():
    image = np.array([[[0, 10], [20, 30]], [[5, 5], [5, 5]]], np.uint8)
    found = trained_on(image, image)
    assert found.dtypes == ("uint8",) and found.ends == (0, 255) and found.text == "0 to 255 (uint8)"
    assert found.channels[0] == IntensityStatistics(
        mean=15, std=pytest.approx(11.18, abs=0.01), low=0, median=15, high=30, lowest=0, highest=30
    )
    assert found.channels[1].std == 0
    assert ValueRange.of_table(json.loads(json.dumps(asdict(found)))) == found
    assert ValueRange.of(fingerprint(data_of(image, image))) == found
    assert HOUNSFIELD.ends == (-1000, 1550) and HOUNSFIELD.text == "-1000 to 1550 (int16)"


def test_of_many_images_some_are_looked_at_and_nan_is_no_value():
    images = [np.full((1, 2, 2), n, np.float32) for n in range(100)]
    images[0][0, 0, 0] = np.nan
    found = trained_on(*images)
    assert found.channels[0].lowest == 0 and 95 <= found.channels[0].highest <= 99
    with pytest.raises(FormatError, match="holds no value in 1 images"):
        trained_on(np.full((1, 2, 2), np.nan, np.float32))


@pytest.mark.parametrize(
    ("trained", "image", "factor"),
    [
        (EIGHT, RAMP.astype(np.uint16) * 257, 1 / 257),
        (EIGHT, RAMP.astype(np.uint16) // 8 * 257, 1 / 257),  # a dark picture, widened
        (EIGHT, RAMP.astype(np.uint16) * 256, 1 / 257),
        (EIGHT, RAMP.astype(np.uint16) * 250 + 7, 1 / 257),
        (EIGHT, (RAMP / 255).astype(np.float32), 255),
        (EIGHT, (RAMP / 2550).astype(np.float64), 255),
        (EIGHT, RAMP > 100, 255),
        (SIXTEEN, RAMP, 257),
        (SIXTEEN, (RAMP / 255).astype(np.float32), 65535),
        (OPEN, RAMP, 1 / 255),
        (OPEN, RAMP // 10, 1 / 255),
        (OPEN, RAMP.astype(np.uint16) * 257, 1 / 65535),
        (trained_on(RAMP > 100), RAMP, 1 / 255),
    ],
)
def test_where_both_types_tell_what_is_full_it_is_certain(trained, image, factor):
    assert trained.factor(image) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("trained", "image"),
    [
        (EIGHT, RAMP),
        (EIGHT, RAMP // 10),
        (EIGHT, np.zeros_like(RAMP)),
        (EIGHT, np.full_like(RAMP, 255)),
        (trained_on(RAMP // 10), RAMP),  # bright beside dark
        (EIGHT, RAMP.astype(np.uint16)),  # 8 bits in a wider type
        (EIGHT, RAMP.astype(np.int16)),
        (EIGHT, RAMP.astype(np.float32)),
        (EIGHT, RAMP * 1.02 - 2),  # interpolation overshoots
        (EIGHT, np.zeros((1, 4, 4), np.float32)),
        (SIXTEEN, RAMP.astype(np.uint16) * 257),
        (SIXTEEN, RAMP.astype(np.uint16) * 50),  # a dark picture
        (SIXTEEN, np.zeros((1, 4, 4), np.uint16)),
        (OPEN, (RAMP / 2550).astype(np.float32)),
        (OPEN, (RAMP / 250 - 0.01).astype(np.float32)),
        (TWELVE, RAMP.astype(np.uint16)),
        (TWELVE, RAMP.astype(np.uint16) * 30),
        (TWELVE, (RAMP * 16.0).astype(np.float32)),
        (HOUNSFIELD, (RAMP * 10.0 - 1000).astype(np.float32)),
        (HOUNSFIELD, (RAMP * 12.0 - 1024).astype(np.int16)),
        (HOUNSFIELD, np.random.default_rng(0).normal(-1000, 20, (1, 16, 16)).astype(np.float32)),  # air
        (EIGHT, np.where(RAMP < 2, RAMP, np.nan).astype(np.float32)),  # the dark edge of an 8-bit map, float by its holes alone
        (WIDE, RAMP),
        (WIDE, np.where(RAMP > 250, np.nan, RAMP).astype(np.float32)),
        (trained_on(RAMP, RAMP * 1000.0), RAMP),  # of two types, this is one
    ],
)
def test_what_may_be_as_in_training_is_left_and_not_doubted(trained, image):
    assert trained.factor(image) == 1 and not trained.is_unlike(image)


@pytest.mark.parametrize(
    ("trained", "image"),
    [
        (EIGHT, RAMP.astype(np.uint16) * 16),  # 12 bits
        (EIGHT, RAMP.astype(np.uint16) * 50 + 3),
        (EIGHT, RAMP * 16.0),
        (EIGHT, (RAMP * 10.0 - 1000).astype(np.int16)),  # Hounsfield units
        (EIGHT, RAMP / 127.5 - 1),
        (EIGHT, (RAMP - RAMP.mean()) / RAMP.std()),
        (EIGHT, RAMP / 200),
        (SIXTEEN, RAMP.astype(np.uint16) * 16),
        (SIXTEEN, RAMP.astype(np.int16)),
        (OPEN, RAMP.astype(np.float32)),
        (OPEN, RAMP.astype(np.uint16) * 16),
        (OPEN, RAMP / 127.5 - 1),
        (TWELVE, RAMP),
        (TWELVE, RAMP.astype(np.uint16) * 257),
        (TWELVE, RAMP.astype(np.uint16) // 10 * 257),
        (TWELVE, RAMP / 255),
        (HOUNSFIELD, RAMP),
        (HOUNSFIELD, (RAMP * 10).astype(np.uint16)),  # stored without its intercept
        (HOUNSFIELD, RAMP / 255),
        (WIDE, RAMP / 255),
        (WIDE, RAMP.astype(np.uint16) * 257),
        (trained_on(RAMP / 127.5 - 1), RAMP),
        (trained_on(np.concatenate([RAMP / 255, RAMP * 10.0])), np.concatenate([RAMP / 1.0, RAMP * 10.0])),  # one channel
    ],
)
def test_what_cannot_be_as_in_training_is_doubted(trained, image):
    assert trained.factor(image) == 1 and trained.is_unlike(image)


def test_holes_make_no_other_type():
    holed = np.where(RAMP > 250, np.nan, RAMP).astype(np.float32)
    assert trained_on(holed).dtypes == ("uint8",) and trained_on(holed) == ValueRange.of(fingerprint(data_of(holed)))
    assert trained_on(holed).factor(RAMP.astype(np.uint16) * 257) == 1 / 257
    assert OPEN.factor(holed) == 1 / 255


def test_law_what_is_rescaled_is_what_it_was():
    for image in (RAMP.astype(np.uint16) * 257, (RAMP / 255).astype(np.float32)):
        np.testing.assert_allclose(image * EIGHT.factor(image), RAMP, rtol=1e-6)
        assert EIGHT.factor(image) * trained_on(image).factor(RAMP) == pytest.approx(1)


def test_a_hot_pixel_fills_nothing():
    image = np.full((1, 100, 100), 900, np.uint16)
    image[0, 0, :9] = 65535
    assert full_scale(image) is None
    image[0, 0, :11] = 65535
    assert full_scale(image) == 65535
    assert full_scale(RAMP.astype(np.int32)) is None


def test_ends_leave_out_what_is_no_number():
    assert ends_of(np.array([[np.nan, -1, np.inf, 3]])) == (-1, 3)
    assert ends_of(np.array([[np.nan]])) == (0, 0)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core import Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.transforms.intensity import Intensity, bell

OFF = {"brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "saturation": 0.0, "noise": 0.0}


def picture(shape=(3, 24, 31), seed=0):
    return np.random.default_rng(seed).normal(100, 25, shape).astype(np.float32)


def changed(image, seed=0, **setting):
    return Intensity(**{**OFF, **setting})(Sample.of("a", image), np.random.default_rng(seed)).image


# By hand


def test_nothing_asked_nothing_changed():
    image = picture()
    result = changed(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, image, atol=1e-3)


@pytest.mark.parametrize("image", [np.full((1, 3, 3), 5, np.uint8), np.zeros((3, 1, 1), np.float32)])
def test_a_constant_image_stays_finite(image):
    result = Intensity()(Sample.of("a", image), np.random.default_rng(0)).image
    np.testing.assert_allclose(result, image, atol=1e-3)


def test_the_truth_is_passed_on_and_the_input_left_alone():
    image = picture()
    sample, before = Sample.of("a", image, Segmentation.semantic(np.zeros(image.shape[1:], int))), image.copy()
    result = Intensity()(sample, np.random.default_rng(0))
    assert result.truth is sample.truth
    np.testing.assert_array_equal(image, before)
    assert np.abs(result.image - image).max() > 1


def test_missing_values_stay_missing_and_change_no_other():
    image = picture((2, 30, 40))
    image[:, :, :11] = np.nan
    image[1, 0, 20] = np.nan
    for strength in ("brightness", "contrast", "gamma"):
        result = changed(image, **{strength: 0.5})
        np.testing.assert_array_equal(np.isnan(result), np.isnan(image))
        alone = changed(image[:1, :, 11:], **{strength: 0.5})  # the same as if the strip had never been there
        np.testing.assert_allclose(result[0, :, 11:], alone[0], rtol=1e-5)
    every = Intensity()(Sample.of("a", np.full((2, 4, 4), np.nan, np.float32)), np.random.default_rng(0)).image
    assert np.isnan(every).all()


# By a slow twin: each change alone, its strength recovered from the result


def test_brightness_shifts_by_deviations():
    image = picture((2, 30, 30))
    shift = (changed(image, brightness=0.5) - image).mean(axis=(1, 2)) / image.std(axis=(1, 2))
    assert shift[0] == pytest.approx(shift[1], abs=1e-4) and 0.01 < abs(shift[0]) <= 0.5


def test_contrast_stretches_around_the_mean():
    image = picture((1, 30, 30))
    result = changed(image, contrast=0.5)
    factor = result.std() / image.std()
    assert 0.01 < abs(np.log(factor)) <= 0.5
    np.testing.assert_allclose(result, image.mean() + factor * (image - image.mean()), atol=1e-2)


def test_gamma_bends_between_darkest_and_brightest():
    image = picture((1, 30, 30))
    result = changed(image, gamma=0.5)
    low, high = image.min(), image.max()
    assert (result.min(), result.max()) == pytest.approx((low, high), abs=1e-3)
    at, to = ((values - low) / (high - low) for values in (image, result))
    middle = (at > 0.05) & (at < 0.95)
    exponent = np.log(to[middle]) / np.log(at[middle])
    assert exponent.std() < 1e-3 and 0.01 < abs(np.log(exponent.mean())) <= 0.5


def test_saturation_stretches_the_distance_from_grey():
    image = picture()
    image[:, 0, 0], image[:, 0, 1] = -500, 1000  # so that no stretched value leaves the range and is clipped
    result = changed(image, saturation=0.5)
    np.testing.assert_allclose(result.mean(axis=0), image.mean(axis=0), atol=0.01)
    spread = (result - result.mean(axis=0)).std() / (image - image.mean(axis=0)).std()
    assert 0.01 < abs(np.log(spread)) <= 0.5


def test_noise_is_bell_shaped_and_as_strong_as_drawn():
    values = np.array([bell(np.int64(3), index) for index in range(40_000)])
    assert values.mean() == pytest.approx(0, abs=0.02) and values.std() == pytest.approx(1, abs=0.02)
    assert (np.abs(values) < 1).mean() == pytest.approx(0.67, abs=0.01)  # exactly normal: 0.683
    assert np.corrcoef(values[1:], values[:-1])[0, 1] == pytest.approx(0, abs=0.02)
    image = np.tile(np.linspace(0, 100, 200, dtype=np.float32), (1, 200, 1))
    assert 0 < (changed(image, noise=0.2) - image).std() / image.std() <= 0.2


# By a law


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), gain=st.sampled_from([1 / 256, 1.0, 257.0]), offset=st.sampled_from([0.0, -30.0]))
def test_the_unit_of_the_file_does_not_matter(seed, gain, offset):
    image = picture((2, 6, 7, 5), seed)
    one, other = changed(image, seed, **vars(Intensity())), changed(image * gain + offset, seed, **vars(Intensity()))
    np.testing.assert_allclose((other - offset) / gain, one, atol=0.5)  # 0.5 of 255: the rounding of float32 through all steps


def test_the_same_seed_repeats_to_the_bit_in_any_layout():
    image = picture()
    columns = np.moveaxis(np.moveaxis(image, 0, -1).copy(), -1, 0)
    first, again, other = (
        Intensity()(Sample.of("a", i), np.random.default_rng(s)) for i, s in ((image, 1), (columns, 1), (image, 2))
    )
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.image != other.image).any()


# By its messages


@pytest.mark.parametrize("name", OFF)
def test_negative_strengths_are_refused(name):
    with pytest.raises(SettingError, match=rf"{name} is -0.1.*0 \(off\) or more"):
        Intensity(**{name: -0.1})


# The probabilities


def test_a_change_that_does_not_happen_leaves_the_sample_as_it_is():
    sample = Sample.of("a", picture().astype(np.uint8))
    never = {name: 0.0 for name in vars(Intensity()) if name.endswith("_probability")}
    for seed in range(5):
        assert Intensity(**never)(sample, np.random.default_rng(seed)) is sample


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "saturation", "noise"])
def test_each_change_has_a_probability_of_its_own(name):
    image = picture((3, 12, 12))
    others = {f"{other}_probability": 0.0 for other in OFF if other != name}
    change = Intensity(**{**OFF, name: 0.5}, **others, **{f"{name}_probability": 0.3})
    seen = [change(Sample.of("a", image), np.random.default_rng(seed)).image for seed in range(300)]
    assert 60 < sum(not np.array_equal(each, image) for each in seen) < 120  # 90 expected
    (made, *_) = [seed for seed, each in enumerate(seen) if not np.array_equal(each, image)]
    np.testing.assert_array_equal(seen[made], changed(image, made, **{name: 0.5}))  # with the strength that it always had


def test_inverted_gamma_bends_from_the_bright_end():
    image = picture((1, 30, 30))
    change = Intensity(**{**OFF, "gamma": 0.5}, gamma_probability=0.0, inverted_gamma_probability=1.0)
    result = change(Sample.of("a", image), np.random.default_rng(0)).image
    low, high = image.min(), image.max()
    at, to = ((high - values) / (high - low) for values in (image, result))
    middle = (at > 0.05) & (at < 0.95)
    exponent = np.log(to[middle]) / np.log(at[middle])
    assert exponent.std() < 1e-3 and 0.01 < abs(np.log(exponent.mean())) <= 0.5


@pytest.mark.parametrize("name", ["contrast_probability", "inverted_gamma_probability"])
def test_what_is_no_probability_is_refused(name):
    with pytest.raises(SettingError, match=f"{name} is 1.5; give a number from 0"):
        Intensity(**{name: 1.5})

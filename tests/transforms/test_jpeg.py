from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from segwright.core import Sample
from segwright.core.errors import SettingError
from segwright.transforms.jpeg import Jpeg


def changed(image, quality=60, seed=0):
    change = Jpeg(probability=1.0, quality=(quality, quality))
    return change(Sample.of("a", image), np.random.default_rng(seed)).image


def photograph(shape=(3, 40, 48), seed=0):
    """Smooth colours from 0 to 255 with some noise."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[1], : shape[2]] / 9
    waves = [np.sin(rows + phase) * np.cos(columns - phase) for phase in range(shape[0])]
    image = np.clip(128 + 110 * np.stack(waves) + generator.normal(0, 6, shape), 0, 255).astype(np.uint8)
    image[:, 0, 0], image[:, 0, 1] = 0, 255
    return image


# By a slow twin


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [30, 90])
def test_it_is_what_a_file_of_another_program_holds(channels, quality):
    image = photograph((channels, 40, 48))
    file = BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1).squeeze()).save(file, "JPEG", quality=quality)
    expected = np.atleast_3d(np.asarray(Image.open(file)))
    difference = np.abs(changed(image, quality) - np.moveaxis(expected, -1, 0))
    assert np.median(difference) < 1 and difference.mean() < 1.5  # libraries round colours differently


# By a law


def test_lower_qualities_lose_more():
    image = photograph()
    loss = [np.abs(changed(image, quality) - image).mean() for quality in (95, 60, 20)]
    assert 0 < loss[0] < loss[1] < loss[2] < 30


def test_red_stays_red():
    image = np.zeros((3, 16, 16), np.uint8)
    image[0, 4:12, 4:12] = 255
    result = changed(image, 95)
    assert result[0, 6:10, 6:10].mean() > 240 and result[1:, 6:10, 6:10].mean() < 15


def test_a_volume_is_its_slices_and_odd_channels_are_grey_pictures():
    volume = photograph((6, 16, 24)).reshape(1, 6, 16, 24)
    volume[..., 0, 0], volume[..., 0, 1] = 0, 255  # so that each slice has the range of the whole
    each = np.stack([changed(volume[:, depth])[0] for depth in range(6)])
    np.testing.assert_allclose(changed(volume)[0], each, atol=1e-4)
    np.testing.assert_allclose(changed(volume[0])[:2], each[:2], atol=1e-4)


def test_quality_is_drawn_from_the_range_and_as_often_as_asked():
    sample = Sample.of("a", photograph().astype(np.float32))
    change = Jpeg(probability=0.5, quality=(20, 90))
    loss = [np.abs(change(sample, np.random.default_rng(seed)).image - sample.image).mean() for seed in range(200)]
    made = [each for each in loss if each > 0]
    assert 70 < len(made) < 130 and max(made) > 1.5 * min(made)


# By its messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probability": 1.1}, "probability is 1.1"),
        ({"quality": (0, 90)}, r"quality is \(0, 90\); .*from 1 to 100, such as \(50, 95\)"),
        ({"quality": (90, 50)}, "the lower and the upper end"),
    ],
)
def test_wrong_settings_name_the_remedy(setting, message):
    with pytest.raises(SettingError, match=message):
        Jpeg(**setting)

import numpy as np
import pytest

from segwright.core.errors import ShapeError
from segwright.transforms.channels import match_channels

# By hand


def test_grey_is_repeated():
    image = np.arange(4, dtype=np.uint16).reshape(1, 2, 2)
    assert match_channels(image, 5).tolist() == [image[0].tolist()] * 5


@pytest.mark.parametrize(("rgb", "grey"), [((255, 255, 255), 255), ((255, 0, 0), 76), ((0, 100, 0), 59), ((0, 0, 0), 0)])
def test_colour_becomes_luminance(rgb, grey):
    result = match_channels(np.array(rgb, np.uint8).reshape(3, 1, 1, 1), 1)
    assert result.dtype == np.uint8 and result.tolist() == [[[[grey]]]]


def test_floats_are_not_rounded():
    assert match_channels(np.array([1, 0, 0], np.float64).reshape(3, 1, 1), 1)[0, 0, 0] == pytest.approx(0.299)


# By a law


def test_an_image_that_fits_is_returned_as_it_is():
    image = np.zeros((7, 2, 2))
    assert match_channels(image, 7) is image


def test_there_and_back():
    grey = np.random.default_rng(0).integers(0, 65_535, (1, 9, 9), dtype=np.uint16)
    np.testing.assert_allclose(match_channels(match_channels(grey, 3), 1).astype(int), grey.astype(int), atol=1)


# By its messages


@pytest.mark.parametrize(("given", "needed"), [(2, 1), (2, 3), (3, 4), (7, 3), (4, 1), (4, 3)])
def test_no_rule_no_guess(given, needed):
    image = np.zeros((given, 2, 2), np.uint8)
    pick = f"pick .* image\\[:{needed}\\], or " if given > needed else ""
    with pytest.raises(ShapeError, match=f"has {given} channels, {needed} are needed.*; {pick}plan and train with {given}"):
        match_channels(image, needed)
    assert match_channels(image[:needed], min(given, needed)).shape == (min(given, needed), 2, 2)
    with pytest.raises(ShapeError, match="there is no image, only the mask; add the image"):
        match_channels(image[:0], needed)

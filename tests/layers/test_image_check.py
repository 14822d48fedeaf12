"""The check of a network's input: messages, and remedies that work."""

import pytest
import torch

from segwright.core.errors import ShapeError
from segwright.layers.image_check import check_image


def check(*shape, axes=2, divisors=None):
    check_image(torch.zeros(shape), channels=3, axes=axes, divisors=divisors or (4,) * axes)


def test_by_hand():
    check(1, 3, 8, 12)
    check(2, 3, 4, 4, 8, axes=3)
    check(0, 3, 4, 4)  # an empty batch is a batch


def test_messages_name_what_is_given_and_the_remedy_works():
    with pytest.raises(ShapeError, match=r"images are 5 x 8, .* divisible by 4; pad them to 8 x 8"):
        check(1, 3, 5, 8)
    check(1, 3, 8, 8)
    with pytest.raises(ShapeError, match=r"images are 0 x 8, .* pad them to 4 x 8"):
        check(1, 3, 0, 8)
    with pytest.raises(ShapeError, match=r"images are 8 x 8 x 8, .* divisible by 1 x 4 x 16; pad them to 8 x 8 x 16"):
        check(1, 3, 8, 8, 8, axes=3, divisors=(1, 4, 16))
    check(1, 3, 8, 8, 16, axes=3, divisors=(1, 4, 16))
    with pytest.raises(ShapeError, match=r"have 1 channels, but this network was built for 3; .*in_channels=1"):
        check(1, 1, 8, 8)
    with pytest.raises(ShapeError, match=r"batch is 3 x 8 x 8, .* add a batch axis with image\[None\]"):
        check(3, 8, 8)
    with pytest.raises(ShapeError, match="build it for 3 spatial axes"):
        check(1, 3, 8, 8, 8)

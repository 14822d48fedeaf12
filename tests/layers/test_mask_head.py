"""The mask of an object in its region. Axes: R regions, E channels, K classes."""

import pytest
import torch

from segwright.layers.mask_head import MaskHead


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_each_region_gets_the_mask_of_its_class_of_those_of_all(norm):
    head = MaskHead(8, 6, 5, depth=4, norm=norm)
    regions, class_ids = torch.randn(4, 8, 14, 14), torch.tensor([2, 0, 4, 2])
    masks = head(regions, class_ids)
    every = head.classes(head.hidden(regions))
    assert masks.shape == (4, 28, 28)
    torch.testing.assert_close(masks, every[torch.arange(4), class_ids])


def test_only_the_own_class_learns():
    head = MaskHead(8, 6, 5, depth=1, norm="none")
    head(torch.randn(3, 8, 14, 14), torch.tensor([1, 1, 3])).square().mean().backward()
    learns = head.classes.weight.grad.flatten(1).any(1)
    assert learns.tolist() == [False, True, False, True, False]
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_no_regions_have_no_masks():
    assert MaskHead(8, 6, 5, depth=4, norm="group")(torch.zeros(0, 8, 14, 14), torch.zeros(0, dtype=torch.int64)).shape == (
        0,
        28,
        28,
    )

"""What a network holds while it answers. Axes: B, C, (H, W)."""

import torch
from torch import nn

from segwright.inference.network_memory import living_bytes
from segwright.models import unet

MAP = 4 * 16 * 16  # bytes of a map of one channel


def test_by_hand():
    """The image and what follows it live together, and a second map once the image's successor is used up."""
    network = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 2, 1))
    assert living_bytes(network, (1, 1, 16, 16)) == (1 + 8 + 2) * MAP  # the caller keeps the image
    assert living_bytes(nn.Identity(), (2, 3, 16, 16)) == 2 * 3 * MAP


def test_what_is_skipped_to_lives_on():
    class Skip(nn.Module):
        def forward(self, image):
            small = torch.nn.functional.avg_pool2d(image, 2)
            return torch.cat([image, torch.nn.functional.interpolate(small, scale_factor=2.0)], dim=1)

    assert living_bytes(Skip(), (1, 4, 16, 16)) >= (4 + 4 + 8) * MAP


def test_nothing_is_allocated_and_the_network_stays_as_it_was():
    network = unet.Config(in_channels=1, num_classes=2, width=4, depth=2).build().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert living_bytes(network, (1, 1, 2**15, 2**15)) > 2**33  # more than tests have
    assert network.training and all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_network_that_looks_at_values_is_not_known():
    class Looks(nn.Module):
        def forward(self, image):
            return image if image.sum() > 0 else -image

    assert living_bytes(Looks(), (1, 1, 4, 4)) is None

"""A click network for small machines: its maps, what it folds, and its size. Axes: B, C, P prompts, N points, F maps, H, W."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.core.errors import SettingError, ShapeError
from segwright.encoders import resnet
from segwright.layers.prompts import Prompts
from segwright.models import sam_nano

SMALL = sam_nano.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16))


def drawn(prompts: Prompts, shape: tuple[int, int, int, int] = (1, 1, 8, 12)) -> torch.Tensor:
    return sam_nano.prompt_maps(prompts, shape, torch.zeros(1))


def test_by_hand_maps_say_how_near_clicks_are():
    maps = drawn(Prompts(torch.tensor([[[[10.0, 6.0], [42.0, 6.0], [0.0, 0.0]]]]), torch.tensor([[[1, 0, -1]]])))
    assert maps.shape == (1, 10, 8, 12)
    assert maps[0, 0, 1, 2] == maps[0, 3, 1, 10] == 1  # the pixel with the centre (10, 6), and that with (42, 6)
    assert maps[0, :3, 1, 3].tolist() == pytest.approx([np.exp(-4 / reach) for reach in (4, 16, 64)])
    assert maps[0, 0, 0, 0] == pytest.approx(np.exp(-np.hypot(8, 4) / 4))  # and not 1: a place without a point says nothing
    assert not maps[0, 6:].any()


def test_by_hand_a_box_is_inside_and_around_and_a_mask_is_there_or_not():
    maps = drawn(Prompts(boxes_xyxy=torch.tensor([[[8.0, 8.0, 32.0, 24.0]]])))
    assert not maps[0, :6].any() and not maps[0, 8:].any()
    assert (
        maps[0, 6, 3, 4] == pytest.approx(1 / (1 + np.exp(-6 / 4)))
        and maps[0, 6, 0, 0] < 0.2
        and torch.allclose(maps[0, 6] + maps[0, 7], torch.ones(8, 12))
    )
    mask = torch.full((1, 1, 8, 12), -20.0)
    mask[0, 0, :4] = 20
    maps = drawn(Prompts(mask_logits=mask))
    assert torch.allclose(maps[0, 8, :4], torch.ones(4, 12)) and torch.allclose(maps[0, 9, 4:], torch.ones(4, 12))
    assert not drawn(Prompts()).any()


def test_points_that_are_none_say_nothing():
    nothing = Prompts(torch.rand(1, 1, 2, 2), torch.full((1, 1, 2), -1))
    assert torch.equal(drawn(nothing), drawn(Prompts()))
    assert torch.equal(drawn(Prompts(torch.zeros(1, 1, 0, 2), torch.zeros(1, 1, 0, dtype=torch.int64))), drawn(Prompts()))


def test_maps_are_unfolded_as_they_were_folded():
    levels = [torch.randn(2, count, 32 // stride, 48 // stride) for count, stride in ((16, 4), (32, 8), (96, 16))]
    folded = sam_nano.folded(levels)
    assert folded.shape == (2, 16 * 16 + 4 * 32 + 96, 2, 3)
    assert all(map(torch.equal, sam_nano.unfolded(folded), levels))
    moved = folded.roll(1, dims=3)  # one pixel of the embedding is four of the finest map
    assert torch.equal(sam_nano.unfolded(moved)[0], levels[0].roll(4, dims=3))


def test_a_click_pulls_at_what_looks_alike():
    torch.manual_seed(0)
    net = SMALL.build().eval()
    with torch.no_grad():
        image = torch.randn(1, 3, 64, 64)
        levels = sam_nano.unfolded(net.encode(image))
        point = Prompts(torch.tensor([[[[20.0, 28.0]]]]), torch.tensor([[[1]]]))
        alike = net.decoder.likeness(levels, point, 1)
    assert alike.shape == (1, 2, 8, 8) and not alike[0, 1].any()
    assert alike[0, 0].argmax() == 3 * 8 + 2 and alike[0, 0].max() == pytest.approx(1, abs=1e-3)


def test_it_is_small_and_starts_from_imagenet():
    net = sam_nano.PRESETS["sam_nano"].build()
    assert sum(weight.numel() for weight in net.parameters()) < 10e6 and net.divisors == (32, 32)
    assert net.encoder.name == "tf_efficientnet_lite0"


def test_labels_and_channels_that_are_none_are_refused():
    net = SMALL.build().eval()
    with torch.no_grad(), pytest.raises(ShapeError, match="labels of points run from 1 to 2"):
        net(torch.zeros(1, 3, 32, 32), Prompts(torch.zeros(1, 1, 2, 2), torch.tensor([[[1, 2]]])))
    with pytest.raises(SettingError, match="in_channels is 0; it must be 1 or more"):
        replace(SMALL, in_channels=0)

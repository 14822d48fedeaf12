"""Which normalisation a network has."""

import pytest
import timm
import torch
from torch import nn

from segwright.encoders import resnet
from segwright.layers.norms import ChannelNorm, InstanceNorm, freeze_batch_norms, head_norm, hold_batch_norms, use_group_norms


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (24, 8), (80, 16), (3, 1)])
def test_groups_of_equal_size(channels, groups):
    assert head_norm("group", channels).num_groups == groups
    assert isinstance(head_norm("batch", channels), nn.BatchNorm2d)
    assert isinstance(head_norm("none", channels), nn.Identity)


def test_batch_norms_are_replaced_and_activations_inside_them_kept():
    network = timm.create_model("regnetx_002", features_only=True)  # its norms hold their activations
    activations = sum(isinstance(module, nn.ReLU) for module in network.modules())
    use_group_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert sum(isinstance(module, nn.ReLU) for module in network.modules()) == activations > 10
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        alone = torch.cat([network.train()(one[None])[-1] for one in image])
        torch.testing.assert_close(network(image)[-1], alone, rtol=1e-4, atol=1e-4)  # one image does not see the other


def test_frozen_norms_learn_nothing():
    network = resnet.Config(block="basic", depths=(1, 1, 1, 1)).build().train()
    freeze_batch_norms(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.randn(1, 3, 64, 64))[-1].mean().backward()
    torch.optim.SGD([each for each in network.parameters() if each.requires_grad], lr=1).step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and not any("bn" in name or "downsample.1" in name for name in changed)
    hold_batch_norms(network.train())
    assert not network.bn1.training and network.layer1.training


@pytest.mark.parametrize(("axes", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_instance_norms_equal_those_of_torch_and_keep_channels_innermost(axes, layout):
    theirs = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[axes](5, affine=True).double()
    theirs.weight.data.uniform_(0.5, 1.5)
    theirs.bias.data.normal_()
    ours = InstanceNorm(5).double()
    ours.load_state_dict(theirs.state_dict())
    maps = torch.randn(2, 5, *(3, 4, 6)[:axes], dtype=torch.float64)
    torch.testing.assert_close(ours(maps), theirs(maps))
    innermost = maps.contiguous(memory_format=layout)
    for batch in (innermost, innermost[:1]):
        given, same = batch.clone().requires_grad_(), batch.clone(memory_format=torch.contiguous_format).requires_grad_()
        found, expected = ours(given), theirs(same)
        assert found.is_contiguous(memory_format=layout)
        torch.testing.assert_close(found, expected)
        weights = torch.randn_like(expected)
        ours.zero_grad()
        theirs.zero_grad()
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(given.grad, same.grad)
        assert given.grad.is_contiguous(memory_format=layout)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    with torch.inference_mode():
        assert ours(innermost).is_contiguous(memory_format=layout)


def test_channels_of_a_pixel_are_normalised_together():
    x = torch.randn(2, 3, 4, 5)
    norm = ChannelNorm(3, eps=1e-6)
    torch.testing.assert_close(norm(x)[1, :, 2, 3], torch.nn.functional.layer_norm(x[1, :, 2, 3], (3,), eps=1e-6))

"""A dilated 3x3 convolution by its taps. Axes: B, C, H, W."""

import pytest
import torch
import torch.nn.functional as F

from segwright.layers.atrous_conv import AtrousConv


@pytest.mark.parametrize("sides", [(4, 4), (1, 12), (12, 3), (5, 9), (11, 17)])  # below, at and above the rates
@pytest.mark.parametrize("rate", [1, 5, 9])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_training", [True, False])
def test_equals_torchs_convolution_and_so_do_the_gradients(sides, rate, has_bias, is_training):
    torch.manual_seed(0)
    layer = AtrousConv(6, 4, rate, bias=has_bias).double().train(is_training)
    x = torch.randn(2, 6, *sides, dtype=torch.float64, requires_grad=True)
    ours = layer(x)
    theirs = F.conv2d(x, layer.weight, layer.bias, padding=rate, dilation=rate)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    weights, tensors = torch.randn_like(ours), [x, *layer.parameters()]
    wanted = torch.autograd.grad((theirs * weights).sum(), tensors)
    for got, other in zip(torch.autograd.grad((ours * weights).sum(), tensors), wanted, strict=True):
        torch.testing.assert_close(got, other, rtol=1e-9, atol=1e-11)


def test_its_weights_are_those_of_a_convolution():
    layer = AtrousConv(2, 3, 4)
    assert list(layer.state_dict()) == ["weight", "bias"] and layer.weight.shape == (3, 2, 3, 3)


@pytest.mark.parametrize("in_half", [True, False])
def test_once_traced_it_serves_maps_of_all_sizes(in_half):
    torch.manual_seed(0)
    layer = AtrousConv(3, 2, 4).double().eval()
    layer.in_half = in_half
    traced = torch.jit.trace(layer, torch.randn(1, 3, 7, 9, dtype=torch.float64))
    for sides in ((7, 9), (3, 20), (16, 2)):
        x = torch.randn(2, 3, *sides, dtype=torch.float64)
        torch.testing.assert_close(traced(x), layer(x), rtol=1e-10, atol=1e-12)
    made = next(node for node in traced.graph.nodes() if node.kind() == "aten::_convolution").output().type().sizes()
    assert made[1] == (18 if in_half else 2)  # a convolution of all taps, or the one that it is


def test_in_prediction_no_tap_is_a_dilated_convolution():
    with torch.autograd.profiler.profile() as profile:
        AtrousConv(4, 4, 2, bias=False).eval()(torch.zeros(1, 4, 8, 8))
    assert sum(event.name == "aten::convolution" for event in profile.function_events) == 9

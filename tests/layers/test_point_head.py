"""The network that looks at points. Axes: N, C, K, P."""

import pytest
import torch

from segwright.layers.point_head import PointHead


@pytest.mark.parametrize("coarse_each_layer", [False, True])
def test_equals_its_layers_written_out(coarse_each_layer):
    torch.manual_seed(0)
    head = PointHead(5, 6, 3, coarse_each_layer=coarse_each_layer).double()
    fine, coarse = torch.randn(2, 5, 7, dtype=torch.float64), torch.randn(2, 3, 7, dtype=torch.float64)
    x = torch.cat([fine, coarse], dim=1)
    for layer in head.hidden:
        x = torch.relu(torch.einsum("oc,ncp->nop", layer.weight[..., 0], x) + layer.bias[:, None])
        x = torch.cat([x, coarse], dim=1) if coarse_each_layer else x
    expected = torch.einsum("oc,ncp->nop", head.classify.weight[..., 0], x) + head.classify.bias[:, None]
    torch.testing.assert_close(head(fine, coarse), expected)
    assert [layer.in_channels for layer in head.hidden] == [8, 9, 9] if coarse_each_layer else [8, 6, 6]


def test_points_do_not_see_each_other():
    torch.manual_seed(0)
    head = PointHead(5, 6, 3, coarse_each_layer=True).eval()
    fine, coarse, order = torch.randn(2, 5, 7), torch.randn(2, 3, 7), torch.randperm(7)
    torch.testing.assert_close(head(fine[..., order], coarse[..., order]), head(fine, coarse)[..., order])


@pytest.mark.parametrize("coarse_each_layer", [False, True])
def test_one_class_is_what_all_classes_hold(coarse_each_layer):
    torch.manual_seed(0)
    head = PointHead(5, 6, 3, coarse_each_layer=coarse_each_layer).double()
    fine, coarse = torch.randn(4, 5, 7, dtype=torch.float64), torch.randn(4, 3, 7, dtype=torch.float64)
    torch.nn.init.normal_(head.classify.bias)
    class_ids = torch.tensor([2, 0, 0, 1])
    expected = head(fine, coarse)[torch.arange(4), class_ids]
    torch.testing.assert_close(head.of_classes(fine, coarse, class_ids), expected)


def test_nothing_is_certain_before_it_is_learnt():
    torch.manual_seed(0)
    logits = PointHead(64, 64, 5, coarse_each_layer=False)(torch.randn(2, 64, 50), torch.randn(2, 5, 50))
    assert logits.abs().max() < 0.1


def test_no_points_and_no_objects_have_no_logits():
    head = PointHead(5, 6, 3, coarse_each_layer=True)
    assert head(torch.zeros(0, 5, 7), torch.zeros(0, 3, 7)).shape == (0, 3, 7)
    none = torch.zeros(0, dtype=torch.int64)
    assert head.of_classes(torch.zeros(0, 5, 7), torch.zeros(0, 3, 7), none).shape == (0, 7)

"""Heads that tell class and box of a region. Axes: R regions, E channels, K classes."""

import pytest
import torch

from segwright.layers.box_head import BoxHead


@pytest.mark.parametrize(("convolutions", "linears", "norm"), [(0, 2, "none"), (4, 1, "group"), (4, 1, "batch")])
@pytest.mark.parametrize("has_class_boxes", [True, False])
def test_shapes_and_gradients(convolutions, linears, norm, has_class_boxes):
    head = BoxHead(8, 16, 3, convolutions=convolutions, linears=linears, norm=norm, has_class_boxes=has_class_boxes)
    logits, deltas = head(torch.randn(5, 8, 7, 7))
    assert logits.shape == (5, 4) and deltas.shape == (5, 3 if has_class_boxes else 1, 4)
    (logits.square().sum() + deltas.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in head.parameters())
    empty, _ = head.eval()(torch.zeros(0, 8, 7, 7))
    assert empty.shape == (0, 4)


def test_it_starts_undecided():
    torch.manual_seed(0)
    logits, deltas = BoxHead(8, 64, 3, convolutions=0, linears=2, norm="none")(torch.randn(50, 8, 7, 7))
    assert (logits.softmax(1) - 0.25).abs().max() < 0.05 and deltas.abs().max() < 0.05


def test_boxes_are_told_in_single_precision_whatever_it_computes_in():
    head = BoxHead(8, 16, 3, convolutions=0, linears=2, norm="none")
    with torch.autocast("cpu", torch.bfloat16):
        logits, deltas = head(torch.randn(2, 8, 7, 7))
    assert logits.dtype == deltas.dtype == torch.float32

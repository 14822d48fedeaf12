"""Atrous spatial pyramid pooling. Axes: B, C, H, W."""

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import ShapeError
from segwright.layers.aspp import ASPP


def build(**options) -> ASPP:
    """A small one in float64 whose norms must really be applied."""
    torch.manual_seed(0)
    module = ASPP(6, 4, (2, 5, 9), **{"dropout": 0.0, **options})
    for name, tensor in module.state_dict().items():
        if name.endswith(("norm.running_mean", "1.running_mean")):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return module.double().eval()


def twin(module: ASPP, x: torch.Tensor) -> torch.Tensor:
    """As the paper draws it: every tap, means spread over the map, all branches joined and mixed at once."""
    branches = [module.pointwise(x)]
    for branch in module.atrous:
        y = branch.conv(branch.depthwise(x)) if hasattr(branch, "depthwise") else branch.conv(x)
        branches.append(F.relu(branch.norm(y)))
    means = module.pool(module.means(x))
    branches.append(F.interpolate(means, size=x.shape[2:], mode="bilinear", align_corners=False))
    return F.relu(module.norm(module.project(torch.cat(branches, dim=1))))


def test_the_mean_of_a_map_reaches_every_pixel_by_hand():
    module = ASPP(1, 1, (1,), dropout=0.0, pool_norm=False).eval()
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            tensor.fill_(1.0 if name in ("pool.conv.weight", "project.weight", "norm.weight") else 0.0)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    torch.testing.assert_close(module(x), torch.full((1, 1, 2, 2), 3.0), rtol=1e-4, atol=0)  # 1e-5 is added to the variance


@pytest.mark.parametrize("sides", [(4, 4), (1, 12), (12, 3), (5, 9), (11, 17)])  # sides below, at and above the rates
@pytest.mark.parametrize("options", [{}, {"separable": True}, {"pool_norm": False, "pool_window": (2, 3)}])
def test_equals_its_slow_twin_and_so_do_the_gradients(sides, options):
    module = build(**options)
    x = torch.randn(2, 6, *sides, dtype=torch.float64, requires_grad=True)
    for mode in (False, True):
        module.train(mode)
        ours, theirs = module(x), twin(module, x)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        names, tensors = zip(("x", x), *module.named_parameters(), strict=True)
        weights = torch.randn_like(ours)
        wanted = torch.autograd.grad((theirs * weights).sum(), tensors)
        for name, got, other in zip(names, torch.autograd.grad((ours * weights).sum(), tensors), wanted, strict=True):
            torch.testing.assert_close(got, other, rtol=1e-9, atol=1e-11, msg=name)


def test_a_window_as_large_as_the_map_or_larger_is_the_whole_map():
    whole, windowed = build(), build(pool_window=(7, 50))
    x = torch.randn(1, 6, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(whole(x), windowed(x))
    assert build(pool_window=(3, 4)).means(x).shape == (1, 6, 5, 6)


def test_flipping_the_input_flips_the_output_of_symmetric_weights():
    module = build()
    for branch in module.atrous:
        branch.conv.weight.data = branch.conv.weight + branch.conv.weight.flip(3)
    x = torch.randn(2, 6, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(module(x.flip(3)), module(x).flip(3))


def test_one_image_cannot_be_normalised_and_the_remedy_works():
    module = build().train()
    with pytest.raises(ShapeError, match="train with two images at a time"):
        module(torch.randn(1, 6, 8, 8, dtype=torch.float64))
    module(torch.randn(2, 6, 8, 8, dtype=torch.float64))
    build(pool_norm=False).train()(torch.randn(1, 6, 8, 8, dtype=torch.float64))

"""Masks by dynamic kernels, and Dice's loss of them. Axes: n kernels, E channels, h, w sides of the map."""

import pytest
import torch
import torch.nn.functional as F

from segwright.layers import dynamic_masks as module
from segwright.layers.dynamic_masks import dynamic_dice, dynamic_masks
from segwright.layers.grid_targets import SampledMasks


def case(n: int = 7, dtype: torch.dtype = torch.float64):
    """Kernels, a map of 4 x 6, objects and their masks, with void."""
    generator = torch.Generator().manual_seed(n)
    kernels, features = (torch.randn(shape, dtype=dtype, generator=generator) for shape in ((n, 3), (3, 4, 6)))
    samples = torch.randint(0, 4, (4, 24), dtype=torch.int32, generator=generator)
    samples[2, 5] = samples[0, 11] = -1
    objects = torch.randint(0, 3, (n,), generator=generator)
    return kernels.requires_grad_(), features.requires_grad_(), objects, SampledMasks(samples, torch.tensor([1, 2, 3]))


def slow_twin(kernels, features, objects, truth) -> torch.Tensor:
    """One mask after the other, by autograd."""
    total, known = 0, truth.known()
    for kernel, number in zip(kernels, objects, strict=True):
        probs = F.conv2d(features[None], kernel[None, :, None, None]).sigmoid().flatten() * known
        mask = (truth.of(number[None])[0] & known).to(probs.dtype)
        total = total + 1 - 2 * (probs * mask).sum() / (probs.square().sum() + mask.square().sum() + 1e-3)
    return total


def test_masks_are_a_convolution_of_1x1():
    kernels, features, *_ = case()
    wanted = F.conv2d(features[None], kernels[:, :, None, None])[0]
    torch.testing.assert_close(dynamic_masks(kernels, features), wanted)


def test_dice_by_hand():
    """Logits of 0 are probabilities of a half, on four cells of which two are the object's: 2 * 1 of 1 + 2."""
    truth = SampledMasks(torch.tensor([[1, 1, 0, 0]] * 4, dtype=torch.int32), torch.tensor([0]))
    loss = dynamic_dice(torch.zeros(2, 1), torch.ones(1, 2, 2), torch.tensor([0, 0]), truth)
    assert loss.item() == pytest.approx(2 * (1 - 2 / 3), abs=1e-3)


@pytest.mark.parametrize("at_once", [1, 50, 2**22])
def test_equals_its_slow_twin_however_many_at_once(at_once, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    monkeypatch.setattr(module, "LEAK", 0)
    kernels, features, *others = case()
    loss, wanted = dynamic_dice(kernels, features, *others), slow_twin(kernels, features, *others)
    torch.testing.assert_close(loss, wanted)
    for ours, theirs in zip(*(torch.autograd.grad(3 * each, (kernels, features)) for each in (loss, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_mask_that_came_out_empty_is_pulled_back_to_its_object_alone():
    kernels, features, *others = case()
    objects, truth = others
    features = torch.full_like(features, 20.0).requires_grad_()
    dynamic_dice(torch.full_like(kernels, -1.0), features, *others).backward()
    wanted = truth.of(objects).any(dim=0) & truth.known()
    assert ((features.grad.flatten(1).abs() > 1e-6).all(dim=0) == wanted).all()


def test_without_kernels_the_loss_is_0_and_so_are_gradients():
    kernels, features, *others = case(0)
    loss = dynamic_dice(kernels, features, *others)
    loss.backward()
    assert loss.item() == 0 and kernels.grad.shape == (0, 3) and not features.grad.any()


def test_half_precision_stays_near():
    kernels, features, *others = case(dtype=torch.float32)
    wanted = torch.autograd.grad(dynamic_dice(kernels, features, *others), (kernels, features))
    for half in (torch.bfloat16, torch.float16):
        halves = [each.detach().to(half).requires_grad_() for each in (kernels, features)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = dynamic_dice(*halves, *others)
        assert loss.dtype == torch.float32
        for ours, theirs in zip(torch.autograd.grad(loss, halves), wanted, strict=True):
            assert ours.dtype == half and (ours - theirs).norm() < 0.03 * theirs.norm()


def test_void_pulls_nowhere():
    kernels, features, *others = case()
    dynamic_dice(kernels, features, *others).backward()
    assert not features.grad.flatten(1)[:, [5, 11]].any() and features.grad.flatten(1)[:, 0].any()

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from segwright.losses.boundary import Boundary


def logits_and_target(shape=(2, 5, 9, 7), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return logits, torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=generator)


# By hand


def test_by_hand():
    logits = torch.log(torch.tensor([[0.9, 0.8, 0.3, 0.2], [0.1, 0.2, 0.7, 0.8]]))[None, :, None]
    target = torch.tensor([[[0, 0, 0, 1]]])  # signed distances -2, -1, 0, 1 and 3, 2, 1, 0
    expected = (-2 * 0.9 - 0.8 + 0.2) + (3 * 0.1 + 2 * 0.2 + 0.7)
    assert Boundary()(logits, target).item() == pytest.approx(expected / 8, rel=1e-6)


def test_void_pixels_cost_nothing_and_are_no_border():
    logits = torch.zeros(1, 2, 1, 5)
    target = torch.tensor([[[0, 0, -1, 1, 1]]])  # -2, -1, void, 2, 3 and 3, 2, void, -1, -2
    assert Boundary()(logits, target).item() == pytest.approx(0.5 * (-3 + 5 + 5 - 3) / 8)


@pytest.mark.parametrize("value", [-1, 0])
def test_nothing_but_void_or_one_class_is_zero_with_zero_gradient(value):
    logits, target = logits_and_target()
    loss = Boundary()(logits, torch.full_like(target, value))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_answers_that_are_sure_have_a_finite_gradient():
    logits, target = logits_and_target()
    for sure in (1e4 * logits.detach(), 100 * torch.nn.functional.one_hot(target.clamp(min=0), 5).movedim(-1, 1).double()):
        loss = Boundary()(sure.requires_grad_(), target)
        loss.backward()
        assert loss.isfinite() and sure.grad.isfinite().all()


# By a slow twin


@pytest.mark.parametrize("shape", [(2, 4, 12, 17), (2, 3, 5, 6, 7)])
def test_equals_the_recipe_of_the_authors(shape):
    """Distances by SciPy: outside to the class, inside to the rest, less the pixel at which they begin."""
    logits, target = logits_and_target(shape, seed=2)
    target = target.clamp(min=0)
    signed = np.zeros(shape)
    for b in range(shape[0]):
        for k in range(shape[1]):
            inside = (target[b] == k).numpy()
            if inside.any():
                signed[b, k] = distance_transform_edt(~inside) * ~inside - (distance_transform_edt(inside) - 1) * inside
    expected = (logits.softmax(dim=1) * torch.from_numpy(signed)).mean()
    (gradient,) = torch.autograd.grad(expected, logits)
    loss = Boundary()(logits, target)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits.grad, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (1, 2, 3, 4, 3)])
def test_gradcheck(shape):
    logits, target = logits_and_target(shape)
    assert torch.autograd.gradcheck(lambda given: Boundary()(given, target), (logits,))


# By a law


def test_the_farther_an_error_the_more_it_costs():
    target = torch.zeros(1, 1, 30, dtype=torch.int64)
    target[0, 0, 10:12] = 1
    costs = []
    for place in (12, 15, 25):
        answer = target.clone()
        answer[0, 0, place] = 1
        costs.append(Boundary()(100.0 * torch.nn.functional.one_hot(answer, 2).movedim(-1, 1), target).item())
    right = Boundary()(100.0 * torch.nn.functional.one_hot(target, 2).movedim(-1, 1), target).item()
    assert right < costs[0] < costs[1] < costs[2] and right < 0


def test_mirrors_change_nothing():
    logits, target = logits_and_target()
    torch.testing.assert_close(Boundary()(logits.flip(-1), target.flip(-1)), Boundary()(logits, target))

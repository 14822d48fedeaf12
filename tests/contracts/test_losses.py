"""What every loss must do: each file of losses/ that offers one is tested as it is, by its name."""

import pytest
import torch

from segwright.core import VOID
from segwright.core.errors import ShapeError
from segwright.core.lookup import class_name, find, names
from segwright.losses import Loss

LOSSES = [name for name in names("segwright.losses") if hasattr(find("segwright.losses", name), class_name(name))]
SHAPES = [(2, 4, 12, 10), (1, 3, 6, 7, 5)]  # (B, K, *S) in 2D and 3D


def loss_named(name):
    return getattr(find("segwright.losses", name), class_name(name))()


def logits_and_target(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator)
    return logits.requires_grad_(), torch.randint(VOID, shape[1], (shape[0], *shape[2:]), generator=generator)


@pytest.mark.parametrize("name", LOSSES)
def test_is_a_loss(name):
    assert isinstance(loss_named(name), Loss)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_falls_under_gradient_descent(name, shape):
    loss, (logits, target) = loss_named(name), logits_and_target(shape)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    values = []
    for _ in range(30):
        optimiser.zero_grad()
        value = loss(logits, target)
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
    known = target != VOID
    assert (logits.argmax(dim=1) == target)[known].float().mean() > 0.95


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_ignores_void(name, shape):
    loss, (logits, target) = loss_named(name), logits_and_target(shape)
    loss(logits, target).backward()
    assert logits.grad.movedim(1, 0)[:, target == VOID].abs().max() == 0
    other = torch.where(target[:, None] == VOID, -3 * logits, logits)
    torch.testing.assert_close(loss(other, target), loss(logits, target))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_is_finite_where_all_is_void(name, shape):
    loss, (logits, target) = loss_named(name), logits_and_target(shape)
    value = loss(logits, torch.full_like(target, VOID))
    value.backward()
    assert value.isfinite() and logits.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_takes_any_float(name, dtype):
    loss, (logits, target) = loss_named(name), logits_and_target(SHAPES[0])
    given = logits.detach().to(dtype).requires_grad_()
    value = loss(given, target)
    value.backward()
    assert value.ndim == 0 and value.dtype in (torch.float32, torch.float64) and given.grad.dtype == dtype
    torch.testing.assert_close(value.float(), loss(given.detach().float(), target))


@pytest.mark.parametrize("name", LOSSES)
def test_is_finite_for_extreme_logits(name):
    loss, (logits, target) = loss_named(name), logits_and_target(SHAPES[0])
    extreme = (1e4 * logits.detach()).requires_grad_()
    value = loss(extreme, target)
    value.backward()
    assert value.isfinite() and extreme.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_leaves_its_input_alone(name):
    loss, (logits, target) = loss_named(name), logits_and_target(SHAPES[0])
    before = logits.detach().clone(), target.clone()
    loss(logits, target)
    assert torch.equal(logits, before[0]) and torch.equal(target, before[1])


@pytest.mark.parametrize("name", LOSSES)
def test_refuses_shapes_that_do_not_fit(name):
    loss, (logits, target) = loss_named(name), logits_and_target(SHAPES[0])
    with pytest.raises(ShapeError, match="interpolate"):
        loss(logits[..., ::2, ::2], target)

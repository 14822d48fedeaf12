"""What the tests of losses share: golden cases made by other libraries, random cases, and the laws that all losses keep."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segwright.core import VOID
from segwright.core.errors import UsageError

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "losses_a.json").read_text())["cases"]
ARRAYS = load_file(GOLDEN / "losses_a.safetensors")


def golden_target(name):
    """A class map (B, *S) or regions (B, K, *S) with VOID for the label that a case leaves out."""
    if name.startswith("target3 with"):  # nnU-Net's label to leave out, in the first two planes
        target = golden_target("target3").clone()
        target[:, :2] = VOID
        return target
    target = ARRAYS["in/target" if name == "onehot" else f"in/{name}"]
    target = target[:, 0] if name.startswith("target3") else target
    return torch.where(target == 255, VOID, target)


@pytest.fixture
def golden():
    """A check that a loss equals a golden case in float64, value and gradient, but for a factor and an offset."""

    def check(name, loss, *, times=1.0, plus=0.0, tolerance=1e-6):
        case = CASES[name]
        logits = ARRAYS[f"in/{case['input']}"].clone().double().requires_grad_()
        target = golden_target(case["target"].split(",")[0])
        value = times * loss(logits, target) + plus
        value.backward()
        wanted = ARRAYS[f"out/{name}.value"].double().sum()  # where it is not reduced, the gradient is of its sum
        torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{name}: {text}")
        torch.testing.assert_close(logits.grad, ARRAYS[f"out/{name}.grad"].double(), rtol=1e-5, atol=tolerance)

    check.input = lambda name: ARRAYS[f"in/{name}"]
    check.target = golden_target
    return check


def random_case(shape=(2, 4, 7, 6), seed=0, *, regions=False, void=True):
    """Logits float64 (B, K, *S) and a class map (B, *S), or regions (B, K, *S); with void pixels or without."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    lowest, highest, size = (-1, 2, shape) if regions else (-1, shape[1], (shape[0], *shape[2:]))
    return logits, torch.randint(lowest if void else 0, highest, size, generator=generator)


@pytest.fixture
def case():
    return random_case


@pytest.fixture
def same():
    """A check that two losses are equal in value and gradient, of logits and a target each."""

    def check(ours, theirs, logits, *, rtol=1e-9, atol=1e-9):
        results = []
        for loss in (ours, theirs):
            given = logits.detach().clone().requires_grad_()
            value = loss(given)
            value.backward()
            results.append((value.double(), given.grad))
        torch.testing.assert_close(results[0], results[1], rtol=rtol, atol=atol)

    return check


def value_and_gradient(loss, logits, target):
    given = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(given, target)
    value.backward()
    return value.detach(), given.grad


@pytest.fixture
def laws():
    """A check that a loss keeps what all losses keep, for class maps or regions."""

    def check(loss, *, regions=False, symmetric=True):
        for shape in ((2, 4, 3, 2), (1, 3, 2, 2, 2)):
            logits, target = random_case(shape, regions=regions)
            _differentiates(loss, logits, target)
            _leaves_void_out(loss, logits, target)
            _keeps_layouts(loss, logits, target)
            if symmetric:
                order = torch.randperm(shape[1], generator=torch.Generator().manual_seed(1))
                # class k of the old numbers is at place order.argsort()[k] of the new
                there = target[:, order] if regions else torch.where(target < 0, target, order.argsort()[target.clamp(min=0)])
                torch.testing.assert_close(loss(logits[:, order], there), loss(logits, target))
        _survives_extremes(loss, regions=regions)

    return check


def _differentiates(loss, logits, target):
    given = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (given,), atol=1e-6)
    value = loss(given, target)
    (first,) = torch.autograd.grad(value, given, retain_graph=True)
    (again,) = torch.autograd.grad(value, given)  # the last may be written over what was kept
    assert torch.equal(first, again)
    with pytest.raises(UsageError, match="leave create_graph out"):
        torch.autograd.grad(loss(given, target), given, create_graph=True)


def _leaves_void_out(loss, logits, target):
    void = target == VOID if target.ndim == logits.ndim else (target == VOID)[:, None].expand_as(logits)
    value, gradient = value_and_gradient(loss, logits, target)
    assert gradient[void].abs().max() == 0
    other, same = value_and_gradient(loss, torch.where(void, 50 - 3 * logits, logits), target)
    torch.testing.assert_close((other, same), (value, gradient))
    nothing, gradient = value_and_gradient(loss, logits, torch.full_like(target, VOID))
    assert nothing.abs() < 1e-5 and gradient.abs().max() == 0


def _keeps_layouts(loss, logits, target):
    value, gradient = value_and_gradient(loss, logits, target)
    layout = torch.channels_last if logits.ndim == 4 else torch.channels_last_3d
    there = logits.contiguous(memory_format=layout)
    torch.testing.assert_close(value_and_gradient(loss, there, target), (value, gradient))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rough = there.to(dtype)
        value, gradient = value_and_gradient(loss, rough, target)
        wanted, slope = value_and_gradient(loss, rough.double(), target)
        assert value.dtype == torch.float32 and gradient.dtype == dtype and gradient.stride() == rough.stride()
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, slope.to(dtype), rtol=1e-2, atol=1e-4)


def _survives_extremes(loss, *, regions):
    """Logits of 100 and -100: probabilities are 0 and 1, right and wrong; one class, and none of another."""
    logits, target = random_case(regions=regions)
    signs = torch.where(logits > 0, 100.0, -100.0)
    one_class = torch.zeros_like(target)
    right = (
        torch.where(one_class == 1, 100.0, -100.0)
        if regions
        else torch.full_like(signs, -100.0).index_fill(1, torch.tensor([0]), 100.0)
    )
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for given, truth in ((signs, target), (signs, one_class), (right, one_class), (-right, one_class)):
            value, gradient = value_and_gradient(loss, given.to(dtype), truth)
            assert value.isfinite() and gradient.isfinite().all()

import numpy as np
import pytest
import torch

from segwright.core.errors import UsageError
from segwright.losses import _softmax_kernels
from segwright.losses._softmax_kernels import pull_planes, softmax_of_planes


def planes_and_classes(shape=(4, 3000), seed=0):
    """Logits float32 (K, *S) of very different sizes, and classes int64 (*S) with void."""
    generator = torch.Generator().manual_seed(seed)
    logits = 30 * torch.randn(shape, generator=generator) * torch.rand(shape[1:], generator=generator) ** 3
    return logits, torch.randint(-1, shape[0], shape[1:], generator=generator)


def softmax_of(logits, classes):
    """Sums, probabilities and log-probabilities."""
    probs, log_probs = torch.full_like(logits, 7), torch.full(classes.shape, 7.0)
    return softmax_of_planes(logits, probs, classes, log_probs, counts=True, log_prob_sums=True), probs, log_probs


# By hand


def test_by_hand():
    sums, probs, log_probs = softmax_of(torch.zeros(2, 3), torch.tensor([0, 0, -1]))
    assert probs.tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]
    assert log_probs.tolist() == pytest.approx([-np.log(2), -np.log(2), 0])
    assert sums.dtype == torch.float64 and sums[:3].tolist() == [[1, 0], [1, 1], [2, 0]]
    assert sums[3].tolist() == pytest.approx([-2 * np.log(2)] * 2)
    gradient = torch.full((2, 3), 7.0)
    pull_planes(probs, torch.tensor([0, 0, -1]), [None] * 3, torch.tensor([2.0, 0.0, 5.0]), gradient)
    assert gradient.tolist() == [[1, 0, 0], [-1, 0, 0]]


def test_only_what_is_asked_for_is_summed():
    logits, classes = planes_and_classes()
    probs, log_probs = torch.empty_like(logits), torch.empty(classes.shape)
    sums = softmax_of_planes(logits, probs, classes, log_probs, counts=False, log_prob_sums=False)
    assert sums[[0, 1, 3]].abs().max() == 0
    assert sums[2].tolist() == [(classes == k).sum() for k in range(4)]


# By a slow twin


@pytest.mark.parametrize("shape", [(1, 5), (2, 1024), (4, 40, 80), (130, 1500)])
def test_equals_float64(shape):
    logits, classes = planes_and_classes(shape)
    sums, probs, log_probs = softmax_of(logits, classes)
    known, index = classes >= 0, classes.clamp(min=0)[None]
    exact = logits.double().log_softmax(dim=0)
    torch.testing.assert_close(probs.double(), exact.exp() * known, rtol=1e-5, atol=1e-37)  # x - top is rounded
    torch.testing.assert_close(log_probs.double(), exact.gather(0, index)[0] * known, rtol=2e-6, atol=2**-22)  # so is the sum
    for k in range(shape[0]):
        own = classes == k
        wanted = [exact[k][own].exp().sum(), exact[k][known].exp().sum(), own.sum().double(), exact[k][known].sum()]
        torch.testing.assert_close(sums[:, k], torch.stack(wanted), rtol=1e-6, atol=1e-7)


def test_the_exponential_is_within_two_roundings():
    x = torch.linspace(-90, 0, 200_001)
    _, probs, log_probs = softmax_of(torch.stack([torch.zeros_like(x), x]), torch.ones(x.shape, dtype=torch.int64))
    power = x.double().exp()
    wanted = torch.where(x < -87, 0, power / (1 + power))
    torch.testing.assert_close(probs[1].double(), wanted, rtol=3 * 2**-23, atol=0)
    torch.testing.assert_close(log_probs.double(), x.double() - power.log1p(), rtol=2 * 2**-23, atol=2**-24)


def test_the_gradient_equals_float64():
    logits, classes = planes_and_classes()
    _, probs, _ = softmax_of(logits, classes)
    pulls, of_own = torch.randn(3, 4), torch.randn(classes.shape)
    given = logits.double().requires_grad_()
    exact, known, index = given.log_softmax(dim=0), classes >= 0, classes.clamp(min=0)[None]
    own = exact.gather(0, index)[0] * known
    overlap = torch.zeros(4, dtype=torch.float64).scatter_add(0, index[0], own.exp() * known)
    parts = overlap, (exact.exp() * known).sum(dim=1), (exact * known).sum(dim=1)
    (sum((a * b).sum() for a, b in zip(parts, pulls, strict=True)) + (own * of_own).sum()).backward()
    gradient = torch.empty_like(logits)
    pull_planes(probs, classes, [*pulls], of_own, gradient)
    torch.testing.assert_close(gradient.double(), given.grad, rtol=1e-5, atol=3e-6)


# By law


@pytest.mark.parametrize("of_own", [None, torch.tensor(0.7).expand(3000), torch.randn(6000)[::2]])
def test_threads_and_places_change_nothing(monkeypatch, of_own):
    logits, classes = planes_and_classes()
    pulls = [torch.randn(4), None, torch.randn(4)]
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        monkeypatch.setattr(_softmax_kernels, "SPAN", 4 * 1024)
        sums, probs, log_probs = softmax_of(logits, classes)
        gradient = probs if threads == 3 else torch.empty_like(probs)  # over the probabilities
        pull_planes(probs.clone() if threads == 1 else probs, classes, pulls, of_own, gradient)
        results.append((sums, log_probs, gradient))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=1e-9)
    assert torch.equal(results[0][1], results[1][1]) and torch.equal(results[0][2], results[1][2])


def test_what_is_not_finite_stays_so():
    logits = torch.tensor([[torch.nan, torch.inf, -torch.inf, 0], [0, 0, -torch.inf, 0], [0, 0, -torch.inf, -torch.inf]])
    _, probs, log_probs = softmax_of(logits, torch.tensor([1, 1, 1, 2]))
    assert log_probs[:3].isnan().all() and probs[:, :3].isnan().all()
    assert log_probs[3] == -torch.inf and probs[:, 3].tolist() == [0.5, 0.5, 0]
    sums, probs, log_probs = softmax_of(logits, torch.full((4,), -1))
    assert sums.abs().max() == probs.abs().max() == log_probs.abs().max() == 0  # but nobody knows what is void


# By its messages


@pytest.mark.parametrize("wrong", [4, -2])
def test_classes_that_do_not_exist(wrong):
    logits, classes = planes_and_classes()
    classes[2000] = wrong
    with pytest.raises(UsageError, match=f"class map holds {wrong}, and the logits have 4 classes; give classes from 0 to 3"):
        softmax_of(logits, classes)
    classes[2000] = -1
    softmax_of(logits, classes)

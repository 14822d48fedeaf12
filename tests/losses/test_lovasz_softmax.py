from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.losses import LovaszLoss

from segwright.losses.lovasz_softmax import LovaszSoftmax

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a.safetensors")


def logits_and_target(shape=(2, 5, 9, 7), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return logits, torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=generator)


def jaccard_extension(probs, truth, num_classes):
    """The definition, for probs (K, M) and truth (M,): each step is a difference of two Jaccard indices of sets."""
    losses = []
    for k in range(num_classes):
        is_class = truth == k
        if is_class.any():
            errors = np.where(is_class, 1 - probs[k], probs[k])
            loss, wrong, before = 0.0, np.zeros(len(truth), bool), 0.0
            for pixel in np.argsort(-errors, kind="stable"):
                wrong[pixel] = True
                now = 1 - (is_class & ~wrong).sum() / (is_class | wrong).sum()
                loss, before = loss + errors[pixel] * (now - before), now
            losses.append(loss)
    return np.mean(losses) if losses else 0.0


# By hand


def test_by_hand():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1, 0.5], [0.4, 0.7, 0.9, 0.5]], dtype=torch.float64))[None, :, None]
    target = torch.tensor([[[0, 0, 1, -1]]])
    # class 0: errors 0.7, 0.4 in it and 0.1 outside; the index falls to 1/2, 0: 0.7 / 2 + 0.4 / 2; the last costs nothing
    # class 1: errors 0.7 and 0.4 outside, 0.1 in it; the index falls to 1/2, 1/3, 0: 0.7 / 2 + 0.4 / 6 + 0.1 / 3
    assert LovaszSoftmax()(logits, target).item() == pytest.approx((0.55 + 0.45) / 2)


@pytest.mark.parametrize("per_image", [False, True])
def test_nothing_but_void_is_zero_with_zero_gradient(per_image):
    logits, target = logits_and_target()
    loss = LovaszSoftmax(per_image=per_image)(logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize("scale", [1e4, 100.0])
def test_answers_that_are_sure_cost_none_or_all_of_each_class(scale):
    target = torch.tensor([[[0, 1], [1, -1]]])
    right = (scale * torch.nn.functional.one_hot(target.clamp(min=0), 3).movedim(-1, 1)).requires_grad_()
    wrong = right.detach().roll(1, dims=1).requires_grad_()
    for logits, cost in ((right, 0), (wrong, 1)):
        loss = LovaszSoftmax()(logits, target)
        loss.backward()
        assert loss.item() == pytest.approx(cost) and logits.grad.isfinite().all()


def test_one_class_and_one_pixel():
    logits = torch.tensor([[0.0], [1.0]])[:, :, None, None].movedim(0, 1).requires_grad_()  # (1, 2, 1, 1)
    loss = LovaszSoftmax()(logits, torch.tensor([[[1]]]))
    assert loss.item() == pytest.approx(1 - logits.softmax(dim=1)[0, 1].item())
    assert LovaszSoftmax()(torch.randn(2, 1, 3, 4), torch.zeros(2, 3, 4, dtype=torch.int64)).item() == 0


# By a slow twin


@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (2, 3, 4, 5, 3)])
@pytest.mark.parametrize("per_image", [False, True])
def test_equals_the_definition(shape, per_image):
    logits, target = logits_and_target(shape)
    probs, truth = logits.softmax(dim=1).movedim(1, -1).detach().numpy(), target.numpy()
    groups = [[b] for b in range(shape[0])] if per_image else [list(range(shape[0]))]
    expected = []
    for group in groups:
        known = truth[group] >= 0
        expected.append(jaccard_extension(probs[group][known].T, truth[group][known], shape[1]))
    assert LovaszSoftmax(per_image=per_image)(logits, target).item() == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("per_image", [False, True])
def test_gradcheck(per_image):
    logits, target = logits_and_target((2, 3, 4, 3))
    assert torch.autograd.gradcheck(lambda given: LovaszSoftmax(per_image=per_image)(given, target), (logits,))


@pytest.mark.parametrize(
    ("name", "per_image", "truth"),
    [
        ("smp.lovasz.multiclass", False, "target"),
        ("smp.lovasz.multiclass.per_image", True, "target"),
        ("smp.lovasz.multiclass.ignore", False, "target_ignore"),
    ],
)
def test_equals_the_golden_value_and_gradient(name, per_image, truth):
    logits, target = GOLDEN["in/logits"].clone().requires_grad_(), GOLDEN[f"in/{truth}"]
    loss = LovaszSoftmax(per_image=per_image)(logits, torch.where(target == 255, -1, target))
    loss.backward()
    torch.testing.assert_close(loss, GOLDEN[f"out/{name}.value"].squeeze().double(), rtol=1e-5, atol=2e-6)  # in float32
    torch.testing.assert_close(logits.grad, GOLDEN[f"out/{name}.grad"].double(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("shape", [(2, 5, 30, 41), (1, 3, 8, 9, 10)])
@pytest.mark.parametrize("scale", [1.0, 8.0])  # an untrained network and a sure one
def test_equals_smp(shape, scale):
    logits, target = logits_and_target(shape, seed=3, dtype=torch.float32)
    ours, theirs = ((scale * logits.detach()).requires_grad_() for _ in range(2))
    value, expected = LovaszSoftmax()(ours, target), LovaszLoss("multiclass", ignore_index=-1)(theirs, target)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)  # differences of float32 near 1 in theirs


# By a law


def test_hard_answers_cost_one_minus_the_mean_jaccard_index():
    _, target = logits_and_target((1, 4, 20, 20))
    answer = torch.randint(0, 4, target.shape, generator=torch.Generator().manual_seed(5))
    logits = 1e4 * torch.nn.functional.one_hot(answer, 4).movedim(-1, 1).double()
    known = target >= 0
    jaccard = [((answer == k) & (target == k)).sum() / (((answer == k) & known) | (target == k)).sum() for k in range(4)]
    assert LovaszSoftmax()(logits, target).item() == pytest.approx(1 - np.mean(jaccard), rel=1e-6)


def test_what_is_said_about_void_pixels_does_not_matter():
    logits, target = logits_and_target()
    other = torch.where(target[:, None] < 0, logits + torch.randn_like(logits), logits)
    torch.testing.assert_close(LovaszSoftmax()(other, target), LovaszSoftmax()(logits, target))

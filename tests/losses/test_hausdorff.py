from pathlib import Path

import pytest
import torch
from monai.losses import HausdorffDTLoss
from safetensors.torch import load_file

from segwright.core.errors import SettingError
from segwright.losses.hausdorff import Hausdorff

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a.safetensors")


def logits_and_target(shape=(2, 5, 9, 7), seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    return logits, torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=generator)


# By hand


def test_by_hand():
    logits = torch.log(torch.tensor([[0.9, 0.8, 0.7, 0.2], [0.1, 0.2, 0.3, 0.8]]))[None, :, None]
    target = torch.tensor([[[0, 0, 1, 1]]])  # both classes: 2, 1, 1, 2 from the true border, 3, 2, 1, 1 from the predicted
    errors, away = (0.1, 0.2, 0.7, 0.2), (4 + 9, 1 + 4, 1 + 1, 4 + 1)
    expected = sum(error**2 * far for error, far in zip(errors, away, strict=True)) / 4
    assert Hausdorff()(logits, target).item() == pytest.approx(expected, rel=1e-5)
    assert Hausdorff(include_background=False)(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("include_background", [True, False])
def test_nothing_but_void_is_zero_with_zero_gradient(include_background):
    logits, target = logits_and_target()
    loss = Hausdorff(include_background=include_background)(logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_one_class_has_no_border_but_the_predicted_ones():
    target = torch.zeros(1, 1, 4, dtype=torch.int64)
    logits = torch.log(torch.tensor([[0.9, 0.9, 0.9, 0.2], [0.1, 0.1, 0.1, 0.8]]))[None, :, None]
    expected = (0.01 * (9 + 4 + 1) + 0.64) / 4  # predicted border 3, 2, 1, 1 away
    assert Hausdorff()(logits, target).item() == pytest.approx(expected, rel=1e-5)
    assert Hausdorff()(torch.randn(1, 1, 3, 4), torch.zeros(1, 3, 4, dtype=torch.int64)).item() == 0
    assert Hausdorff(include_background=False)(torch.randn(1, 1, 3, 4), torch.zeros(1, 3, 4, dtype=torch.int64)).item() == 0


def test_answers_that_are_sure_have_a_finite_gradient():
    logits, target = logits_and_target()
    right = 1e4 * torch.nn.functional.one_hot(target.clamp(min=0), 5).movedim(-1, 1).double()
    for sure in (1e4 * logits.detach(), right):
        loss = Hausdorff()(sure.requires_grad_(), target)
        loss.backward()
        assert loss.isfinite() and sure.grad.isfinite().all()
    assert Hausdorff()(right, target).item() == 0


# By a slow twin


def test_equals_the_golden_value_and_gradient():
    logits = GOLDEN["in/logits"].clone().requires_grad_()
    loss = Hausdorff(include_background=False)(logits, GOLDEN["in/target"])
    loss.backward()
    expected = GOLDEN["out/monai.hausdorff_dt.value"].squeeze()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-10)  # their distances are float32
    torch.testing.assert_close(logits.grad, GOLDEN["out/monai.hausdorff_dt.grad"], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 4, 14, 19), (2, 3, 5, 6, 7)])
@pytest.mark.parametrize(("alpha", "include_background"), [(2.0, True), (1.0, False), (3.0, True)])
def test_equals_monai(shape, alpha, include_background):
    ours, target = logits_and_target(shape, seed=1, scale=2.0)
    target, theirs = target.clamp(min=0), ours.detach().clone().requires_grad_()
    loss = Hausdorff(alpha=alpha, include_background=include_background)(ours, target)
    monai = HausdorffDTLoss(alpha=alpha, include_background=include_background, to_onehot_y=True, softmax=True)
    expected = monai(theirs, target[:, None])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(2, 3, 4, 3), (1, 2, 3, 4, 3)])
def test_gradcheck(shape):
    logits, target = logits_and_target(shape)
    assert torch.autograd.gradcheck(lambda given: Hausdorff()(given, target), (logits,))


# By a law


def test_what_is_said_about_void_pixels_does_not_matter():
    logits, target = logits_and_target(scale=3.0)
    other = torch.where(target[:, None] < 0, logits + 9 * torch.randn_like(logits), logits)
    torch.testing.assert_close(Hausdorff()(other, target), Hausdorff()(logits, target))


def test_mirrors_change_nothing():
    logits, target = logits_and_target()
    torch.testing.assert_close(Hausdorff()(logits.flip(-1), target.flip(-1)), Hausdorff()(logits, target))


# By its messages


def test_an_alpha_that_weighs_nothing_is_refused():
    with pytest.raises(SettingError, match="above 0, such as 2"):
        Hausdorff(alpha=0.0)
    assert Hausdorff(alpha=2.0).alpha == 2  # the remedy

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segwright.core.errors import SettingError, ShapeError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a_subset.safetensors")


def logits_and_target(shape=(2, 5, 9, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=generator)


# By hand


def test_by_hand():
    logits = torch.zeros(1, 2, 1, 3)  # half a chance each
    target = torch.tensor([[[0, 0, -1]]])  # |P| = 1 for both; |T| = 2 and 0; overlap 1 and 0
    assert Dice()(logits, target).item() == pytest.approx(((1 - 2 / 3) + 1) / 2, abs=1e-4)


def test_a_perfect_answer_costs_nothing():
    target = torch.tensor([[[0, 1], [1, -1]]])
    logits = 100.0 * torch.nn.functional.one_hot(target.clamp(min=0), 2).movedim(-1, 1)
    assert Dice()(logits, target).item() == pytest.approx(0, abs=1e-5)


def test_nothing_but_void_is_zero_with_zero_gradient():
    logits, target = logits_and_target()
    loss = Dice()(logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


# By a slow twin


@pytest.mark.parametrize("shape", [(3, 5, 9, 7), (2, 4, 4, 6, 3), (1, 1, 3, 3)])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_equals_numpy(shape, smooth):
    logits, target = logits_and_target(shape)
    values, truth = logits.detach().numpy(), target.numpy()
    losses = []
    for b in range(shape[0]):
        for k in range(shape[1]):
            known = truth[b] >= 0
            p = (np.exp(values[b]) / np.exp(values[b]).sum(axis=0))[k][known]
            t = (truth[b] == k)[known]
            losses.append(1 - (2 * p[t].sum() + smooth) / (p.sum() + t.sum() + smooth))
    assert Dice(smooth=smooth)(logits, target).item() == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "loss", "offset", "inputs", "tolerance"),
    [
        ("monai.dice", Dice(), 0.0, "", 1e-10),
        ("nnunet.softdice", Dice(smooth=1.0), 1.0, "3", 2e-6),  # the reference is minus the overlap, its sums are float32
        ("nnunet.dc_ce.per_sample", lambda x, t: CrossEntropy()(x, t) + Dice()(x, t), 1.0, "3", 2e-6),
    ],
)
def test_equals_the_golden_value_and_gradient(name, loss, offset, inputs, tolerance):
    logits, target = GOLDEN[f"in/logits{inputs}"].clone().requires_grad_(), GOLDEN[f"in/target{inputs}"]
    result = loss(logits, target.reshape(len(logits), *logits.shape[2:]))
    result.backward()
    torch.testing.assert_close(result - offset, GOLDEN[f"out/{name}.value"].squeeze().double(), rtol=1e-8, atol=tolerance)
    torch.testing.assert_close(logits.grad, GOLDEN[f"out/{name}.grad"], rtol=1e-8, atol=tolerance)


# By a law


def test_two_halves_of_a_batch_average_to_the_whole():
    logits, target = logits_and_target((4, 5, 9, 7))
    halves = (Dice()(logits[:2], target[:2]) + Dice()(logits[2:], target[2:])) / 2
    torch.testing.assert_close(Dice()(logits, target), halves)


def test_what_is_said_about_void_pixels_does_not_matter():
    logits, target = logits_and_target()
    other = torch.where(target[:, None] < 0, logits + torch.randn_like(logits), logits)
    torch.testing.assert_close(Dice()(other, target), Dice()(logits, target))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_the_float32_loss_of_their_values(dtype):
    logits, target = logits_and_target()
    half = logits.detach().to(dtype).to(memory_format=torch.channels_last)
    assert Dice()(half, target).dtype == torch.float32
    torch.testing.assert_close(Dice()(half, target), Dice()(half.float(), target))


def test_large_images_keep_their_digits():
    logits, target = torch.zeros(1, 2, 1500, 1500), torch.zeros(1, 1500, 1500, dtype=torch.int64)
    assert Dice()(logits, target).item() == pytest.approx(((1 - 2 / 3) + 1) / 2, abs=1e-6)


# By its messages


def test_wrong_settings_and_shapes_name_the_remedy():
    logits, target = logits_and_target()
    with pytest.raises(SettingError, match="above 0, such as 1e-5"):
        Dice(smooth=0.0)
    with pytest.raises(ShapeError, match="upsample the logits first"):
        Dice()(logits[..., ::2, ::2], target)

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segwright.core.errors import SettingError, ShapeError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a.safetensors")


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


# Against other libraries


TINY = 1e-12  # where the other library has no smoothing


@pytest.mark.parametrize(
    ("name", "settings", "changes"),
    [
        ("monai.dice.nobg", {"include_background": False}, {}),
        ("monai.dice.batch", {"over_batch": True}, {}),
        ("monai.dice.smooth0", {"smooth": TINY}, {}),
        ("monai.dice.none", {}, {"times": 8}),  # not reduced: 2 samples, 4 classes
        ("monai.dice.sigmoid", {}, {}),
        ("smp.dice.multiclass", {"over_batch": True, "smooth": TINY}, {}),
        ("smp.dice.multiclass.ignore", {"over_batch": True, "smooth": TINY}, {}),
        ("smp.dice.binary", {"over_batch": True, "smooth": TINY}, {}),
        ("smp.dice.binary.ignore", {"over_batch": True, "smooth": TINY}, {}),
        ("smp.dice.multilabel", {"over_batch": True, "smooth": TINY}, {}),
        ("nnunet.softdice", {"over_batch": True, "smooth": 1.0}, {"plus": -1}),
    ],
)
def test_equals_golden_cases(golden, name, settings, changes):
    golden(name, Dice(**settings), **changes)


def test_equals_the_logarithm_that_smp_offers(golden):
    loss = Dice(over_batch=True, smooth=2.0)  # smp adds its 1 to halves
    golden("smp.dice.binary.log.smooth", lambda x, t: -(1 - loss(x, t)).log())


@pytest.mark.parametrize("shape", [(2, 4, 9, 7), (2, 3, 4, 6, 3)])
@pytest.mark.parametrize("settings", [{}, {"over_batch": True}, {"include_background": False}])
def test_equals_monai(case, same, shape, settings):
    monai = pytest.importorskip("monai.losses")
    logits, target = case(shape, void=False)
    one_hot = torch.nn.functional.one_hot(target, shape[1]).movedim(-1, 1)
    theirs = monai.DiceLoss(
        softmax=True, batch=settings.get("over_batch", False), include_background=settings.get("include_background", True)
    )
    same(lambda x: Dice(**settings)(x, target), lambda x: theirs(x, one_hot), logits)


def test_equals_smp_with_void(case, same):
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = case()
    theirs = smp.DiceLoss("multiclass", ignore_index=-1)
    same(lambda x: Dice(over_batch=True, smooth=TINY)(x, target), lambda x: theirs(x, target), logits)


def test_one_logit_and_its_sigmoid_are_the_binary_form(case):
    logits, regions = case((3, 1, 6, 5), regions=True, void=False)
    p, g, s = logits.sigmoid(), regions.double(), 1.0
    wanted = 1 - (2 * (p * g).sum() + s) / (p.sum() + g.sum() + s)
    torch.testing.assert_close(Dice(over_batch=True, smooth=s)(logits, regions), wanted)
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)  # the softmax of 0 and x is the sigmoid of x
    softmax = Dice(over_batch=True, smooth=s, include_background=False)(two, regions[:, 0])
    torch.testing.assert_close(softmax, wanted)


@pytest.mark.parametrize("settings", [{}, {"over_batch": True}, {"include_background": False}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(Dice(**settings), regions=regions, symmetric="include_background" not in settings)


def test_a_background_alone_cannot_be_left_out(case):
    with pytest.raises(ShapeError, match="set include_background, or give two classes"):
        Dice(include_background=False)(*case((1, 1, 3, 3)))
    with pytest.raises(ShapeError, match="the regions .* one shape"):
        Dice()(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, 3))

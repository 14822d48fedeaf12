import json
from pathlib import Path

import pytest
import torch
from monai.losses import SoftclDiceLoss, SoftDiceclDiceLoss
from safetensors.torch import load_file

from segwright.core.errors import SettingError, ShapeError
from segwright.losses.cl_dice import ClDice, skeleton_of, soft_skeleton
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = load_file(FOLDER / "losses_a.safetensors")
CASES = json.loads((FOLDER / "losses_a.json").read_text())["cases"]
NO_EPSILON = 1e-12  # MONAI's own term in the denominator of the harmonic mean, which must not be 0


def logits_and_target(shape=(2, 3, 19, 17), seed=0):
    """Random logits, and blobs of about five pixels across: what random pixels hold is a skeleton already."""
    generator = torch.Generator().manual_seed(seed)
    logits = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
    coarse = torch.rand(shape[0], 1, *(side // 4 + 1 for side in shape[2:]), generator=generator)
    mode = "bilinear" if len(shape) == 4 else "trilinear"
    smooth = torch.nn.functional.interpolate(coarse, size=shape[2:], mode=mode)[:, 0]
    return logits, (smooth * shape[1]).long().clamp(max=shape[1] - 1)


# By hand


def test_the_skeleton_of_a_bar_is_its_middle():
    bar = torch.zeros(7, 11, dtype=torch.bool)
    bar[2:5, 1:10] = True
    expected = torch.zeros(7, 11, dtype=torch.bool)
    expected[3, 2:9] = True
    assert torch.equal(skeleton_of(bar, 3), expected)
    assert torch.equal(skeleton_of(bar, 0), torch.zeros_like(bar))  # opening takes nothing away from it


def test_by_hand():
    target = torch.tensor([[[1, 1, 1, 0, 0, 0]]])
    probs = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 0.0]])  # one row is all skeleton, as far as it goes
    logits = torch.stack([torch.zeros_like(probs), torch.where(probs > 0.5, 100.0, -100.0)])[None]
    # the row has no neighbours above, so erosion shortens it: skeletons are the middles, pixel 1 and pixel 3
    precision, sensitivity = (0 + 1) / (1 + 1), (0 + 1) / (1 + 1)
    assert ClDice()(logits, target).item() == pytest.approx(1 - 2 * precision * sensitivity / (precision + sensitivity))


def test_a_perfect_answer_costs_nothing():
    _, target = logits_and_target()
    logits = 100.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert ClDice()(logits, target).item() == pytest.approx(0, abs=1e-6)


def test_nothing_but_void_is_zero_with_zero_gradient():
    logits, target = logits_and_target()
    loss = ClDice()(logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


def test_empty_and_full_maps_and_answers_that_are_sure_have_a_finite_gradient():
    logits, target = logits_and_target()
    for scale in (1.0, 1e4):
        for truth in (torch.zeros_like(target), torch.ones_like(target), target):
            given = (scale * logits.detach()).requires_grad_()
            loss = ClDice()(given, truth)
            loss.backward()
            assert 0 <= loss.item() <= 1 and given.grad.isfinite().all()


# By a slow twin


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 19, 17), (1, 3, 9, 12, 10), (1, 2, 1, 9)])
def test_the_hard_skeleton_is_the_soft_one_of_zeros_and_ones(shape, iterations):
    _, target = logits_and_target(shape)
    for mask in target == 1:
        expected = soft_skeleton(mask.double(), iterations)
        assert torch.equal(skeleton_of(mask, iterations).double(), expected)


def test_the_skeletons_are_those_of_the_golden_loss():
    """MONAI's loss of all classes at once, and with its term in the harmonic mean, from our skeletons of the softmax."""
    assert CASES["monai.softcldice2d"]["kwargs"] == {"iter_": 3, "smooth": 1.0}
    logits, truth = GOLDEN["in/logits"].clone().requires_grad_(), GOLDEN["in/onehot"]
    losses = []
    for one, true in zip(logits.softmax(dim=1), truth, strict=True):
        ours = torch.stack([soft_skeleton(each, 3) for each in one])
        theirs = torch.stack([skeleton_of(each > 0.5, 3) for each in true]).double()
        precision = ((ours * true).sum() + 1) / (ours.sum() + 1)
        sensitivity = ((theirs * one).sum() + 1) / (theirs.sum() + 1)
        losses.append(1 - 2 * precision * sensitivity / (precision + sensitivity + 1))
    loss = torch.stack(losses).mean()
    loss.backward()
    torch.testing.assert_close(loss, GOLDEN["out/monai.softcldice2d.value"].squeeze(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(logits.grad, GOLDEN["out/monai.softcldice2d.grad"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", [(2, 2, 24, 21), (2, 2, 9, 12, 10)])
@pytest.mark.parametrize("iterations", [0, 3])
def test_equals_monai(shape, iterations):
    ours, target = logits_and_target(shape)
    theirs = ours.detach().clone().requires_grad_()
    monai = SoftclDiceLoss(iter_=iterations, smooth=NO_EPSILON, softmax=True, to_onehot_y=True, include_background=False)
    loss, expected = ClDice(iterations=iterations)(ours, target), monai(theirs, target[:, None])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


def test_equals_monai_beside_dice():
    """Their smoothing of Dice is a pixel too."""
    ours, target = logits_and_target((2, 2, 24, 21))
    theirs = ours.detach().clone().requires_grad_()
    monai = SoftDiceclDiceLoss(alpha=0.4, smooth=NO_EPSILON, softmax=True, to_onehot_y=True)
    monai.cldice.include_background = False
    loss = WeightedSum(terms=(Dice(smooth=1.0), ClDice()), weights=(0.6, 0.4))(ours, target)
    expected = monai(theirs, target[:, None])
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 2, 3, 4, 3)])
def test_gradcheck(shape):
    logits, target = logits_and_target(shape)
    assert torch.autograd.gradcheck(lambda given: ClDice(iterations=1)(given, target), (logits,))


# By a law


def test_classes_are_averaged():
    logits, target = logits_and_target()
    parts = [ClDice(classes=(k,))(logits, target) for k in (0, 1, 2)]
    torch.testing.assert_close(ClDice()(logits, target), (parts[1] + parts[2]) / 2)
    torch.testing.assert_close(ClDice(classes=(0, 1, 2))(logits, target), sum(parts) / 3)


def test_a_broken_tube_costs_more_than_one_that_is_thinner_by_as_much():
    target = torch.zeros(1, 9, 40, dtype=torch.int64)
    target[:, 3:6] = 1
    thin, broken = target.clone(), target.clone()
    thin[:, 5, 2:38] = 0  # 36 pixels of the edge
    broken[:, 3:6, 14:26] = 0  # 36 pixels of the middle
    costs = [ClDice()(100.0 * torch.nn.functional.one_hot(each, 2).movedim(-1, 1), target).item() for each in (thin, broken)]
    assert costs[0] < 0.1 < costs[1]


def test_what_is_said_about_void_pixels_does_not_matter():
    logits, target = logits_and_target()
    target[:, 3:9, 2:8] = -1
    other = torch.where(target[:, None] < 0, logits + torch.randn_like(logits), logits)
    torch.testing.assert_close(ClDice()(other, target), ClDice()(logits, target))


# By its messages


def test_wrong_settings_name_the_remedy():
    logits, target = logits_and_target()
    with pytest.raises(SettingError, match="half the pixels across the thickest tube"):
        ClDice(iterations=-1)
    for classes in ((), (-1,)):
        with pytest.raises(SettingError, match="numbers of the tubular classes"):
            ClDice(classes=classes)
    with pytest.raises(ShapeError, match="class 3 is to be tubular, but there are logits of 3 classes"):
        ClDice(classes=(1, 3))(logits, target)
    with pytest.raises(ShapeError, match="class 1 is to be tubular, but there are logits of 1 classes"):
        ClDice()(logits[:, :1], target)
    assert ClDice(classes=(1, 2))(logits, target).isfinite()  # the remedy

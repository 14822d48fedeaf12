import math

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.focal import Focal

# By hand


def test_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 7.0]])[None, :, None]  # p = 3 / 4 at the first pixel, the other is void
    assert Focal()(logits, torch.tensor([[[1, -1]]])).item() == pytest.approx(math.log(4 / 3) / 16)
    assert Focal(alpha=0.9)(logits, torch.tensor([[[1, -1]]])).item() == pytest.approx(0.9 * math.log(4 / 3) / 16)


# Against MONAI


def test_equals_the_golden_case_but_for_the_classes_in_its_mean(golden):
    golden("monai.focal.softmax", Focal(gamma=1.5), times=1 / 4)


def test_equals_the_golden_case_of_a_softmax_without_background(golden):
    def loss(logits, target):  # MONAI cuts the background out of the logits, and counts its pixels as 0
        share = (target > 0).double().mean() / 3
        return Focal(gamma=2)(logits[:, 1:], torch.where(target > 0, target - 1, -1)) * share

    golden("monai.focal.softmax.alpha.nobg", loss)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 3, 4, 3, 4)])
def test_equals_monai(case, same, alpha, shape):
    monai = pytest.importorskip("monai.losses")
    logits, target = case(shape, void=False)
    theirs = monai.FocalLoss(use_softmax=True, to_onehot_y=True, alpha=alpha)  # in float32
    same(
        lambda x: Focal(alpha=alpha)(x, target),
        lambda x: shape[1] * theirs(x, target[:, None]),
        logits,
        rtol=1e-5,
        atol=1e-6,
    )


# By law


def test_without_focus_it_is_cross_entropy(case, same):
    logits, target = case()
    same(lambda x: Focal(gamma=0)(x, target), lambda x: CrossEntropy()(x, target), logits)


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.5}, {"gamma": 0.0}, {"alpha": 0.25, "gamma": 1.0}])
def test_keeps_the_laws(laws, settings):
    laws(Focal(**settings), symmetric="alpha" not in settings)


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="0 or more, such as 2"):
        Focal(gamma=-1)
    with pytest.raises(SettingError, match="from 0 to 1, such as 0.25"):
        Focal(alpha=2)

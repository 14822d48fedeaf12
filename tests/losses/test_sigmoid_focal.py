import math

import pytest
import torch
from torch.nn import functional as F

from segwright.core.errors import SettingError
from segwright.losses.binary_cross_entropy import BinaryCrossEntropy
from segwright.losses.sigmoid_focal import SigmoidFocal

# By hand


def test_by_hand():
    logits = torch.tensor([[[math.log(3), -math.log(3), 5.0]]])[None]  # p = 3 / 4 of what is there and of what is not, and void
    loss = SigmoidFocal(alpha=0.25)(logits, torch.tensor([[[[1, 0, -1]]]]))
    assert loss.item() == pytest.approx((0.25 + 0.75) * math.log(4 / 3) / 16 / 2)


# Against other libraries


@pytest.mark.parametrize(
    ("name", "settings", "times"),
    [
        ("monai.focal", {}, 1),
        ("monai.focal.alpha", {"alpha": 0.25}, 2 * 4 * 8 * 11),  # not reduced
        ("smp.focal.multiclass", {}, 1),
        ("smp.focal.multiclass.alpha", {"alpha": 0.25, "gamma": 1.5}, 1),
        ("smp.focal.multiclass.ignore", {}, 1),
        ("smp.focal.binary", {}, 1),
        ("smp.focal.binary.alpha", {"alpha": 0.25, "gamma": 1.5}, 1),
        ("smp.focal.multilabel", {}, 1),
        ("smp.focal.multilabel.alpha", {"alpha": 0.25, "gamma": 1.5}, 1),
        ("torchvision.sigmoid_focal.alpha0.25.gamma2.0", {"alpha": 0.25}, 1),
        ("torchvision.sigmoid_focal.alpha-1.gamma2.0", {}, 1),
        ("torchvision.sigmoid_focal.alpha0.6.gamma1.0", {"alpha": 0.6, "gamma": 1.0}, 1),
    ],
)
def test_equals_golden_cases(golden, name, settings, times):
    golden(name, SigmoidFocal(**settings), times=times)


@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 3, 4, 3, 4)])
@pytest.mark.parametrize("regions", [False, True])
def test_equals_torchvision(case, same, shape, regions):
    ops = pytest.importorskip("torchvision.ops")
    logits, target = case(shape, regions=regions, void=False)
    truth = target if regions else F.one_hot(target, shape[1]).movedim(-1, 1)
    same(
        lambda x: SigmoidFocal(alpha=0.3, gamma=1.7)(x, target),
        lambda x: ops.sigmoid_focal_loss(x, truth.double(), 0.3, 1.7, "mean"),
        logits,
    )


# By law


@pytest.mark.parametrize("regions", [False, True])
def test_without_focus_it_is_binary_cross_entropy(case, same, regions):
    logits, target = case(regions=regions)
    same(lambda x: SigmoidFocal(gamma=0)(x, target), lambda x: BinaryCrossEntropy()(x, target), logits)


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.5}, {"alpha": 0.25, "gamma": 1.0}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(SigmoidFocal(**settings), regions=regions)


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="0 or more, such as 2"):
        SigmoidFocal(gamma=-1)

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.generalised_dice import GeneralisedDice

# By hand


@pytest.mark.parametrize(("weight", "power"), [("square", 2), ("simple", 1), ("uniform", 0)])
def test_by_hand(weight, power):
    logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])  # half a chance each; 3 pixels and 1
    w = (1 / 3**power, 1.0)
    wanted = 1 - 2 * (w[0] * 1.5 + w[1] * 0.5) / (w[0] * 5 + w[1] * 3)
    assert GeneralisedDice(weight=weight)(logits, target).item() == pytest.approx(wanted, abs=1e-5)


def test_a_class_that_is_absent_weighs_as_the_heaviest():
    logits, target = torch.zeros(1, 3, 1, 4), torch.tensor([[[0, 0, 0, 1]]])
    wanted = 1 - 2 * (1 / 9 + 1 / 3) / (1 / 9 * (4 / 3 + 3) + (4 / 3 + 1) + 4 / 3)
    assert GeneralisedDice()(logits, target).item() == pytest.approx(wanted, abs=1e-5)


# Against MONAI


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("monai.gdice.square", {}),
        ("monai.gdice.simple", {"weight": "simple"}),
        ("monai.gdice.uniform", {"weight": "uniform"}),
        ("monai.gdice.batch", {"over_batch": True}),
    ],
)
def test_equals_golden_cases(golden, name, settings):
    golden(name, GeneralisedDice(**settings))


@pytest.mark.parametrize("over_batch", [False, True])
def test_equals_monai_with_absent_classes(case, same, over_batch):
    monai = pytest.importorskip("monai.losses")
    logits, target = case((2, 4, 3, 4, 3), void=False)
    target = torch.where(target == 3, 0, target)
    theirs = monai.GeneralizedDiceLoss(softmax=True, to_onehot_y=True, batch=over_batch)
    ours = GeneralisedDice(over_batch=over_batch)
    same(lambda x: ours(x, target), lambda x: theirs(x, target[:, None]), logits, rtol=1e-6, atol=1e-7)  # float32 weights


# By law


@pytest.mark.parametrize("settings", [{}, {"weight": "simple"}, {"over_batch": True}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(GeneralisedDice(**settings), regions=regions)


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="choose one of square, simple, uniform"):
        GeneralisedDice(weight="cube")
    with pytest.raises(SettingError, match="above 0, such as 1e-5"):
        GeneralisedDice(smooth=0)

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.dice import Dice
from segwright.losses.jaccard import Jaccard
from segwright.losses.tversky import Tversky

TINY = 1e-12  # where the other library has no smoothing

# By hand


def test_by_hand():
    logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])  # half a chance each
    background = 1.5 / (1.5 + 0.3 * 0.5 + 0.7 * 1.5)
    object_ = 0.5 / (0.5 + 0.3 * 1.5 + 0.7 * 0.5)
    assert Tversky()(logits, target).item() == pytest.approx(1 - (background + object_) / 2, abs=1e-5)


# Against other libraries


def test_equals_the_golden_case_of_monai(golden):
    golden("monai.tversky", Tversky())


def test_equals_the_golden_cases_of_smp(golden):
    loss = Tversky(over_batch=True, smooth=TINY)
    golden("smp.tversky.multiclass", lambda x, t: loss(x, t) ** 1.33)  # smp takes the power after the mean
    golden("smp.tversky.multilabel", lambda x, t: loss(x, t) ** 1.33)
    other = Tversky(false_positive_weight=0.4, false_negative_weight=0.6, over_batch=True, smooth=TINY)
    golden("smp.tversky.multiclass.ignore", other)


@pytest.mark.parametrize("shape", [(2, 4, 9, 7), (2, 3, 4, 6, 3)])
@pytest.mark.parametrize("over_batch", [False, True])
def test_equals_monai(case, same, shape, over_batch):
    monai = pytest.importorskip("monai.losses")
    logits, target = case(shape, void=False)
    theirs = monai.TverskyLoss(softmax=True, to_onehot_y=True, alpha=0.2, beta=0.9, batch=over_batch)
    ours = Tversky(false_positive_weight=0.2, false_negative_weight=0.9, over_batch=over_batch)
    same(lambda x: ours(x, target), lambda x: theirs(x, target[:, None]), logits)


# By law


def test_equal_weights_are_dice_and_jaccard(case, same):
    logits, target = case()
    halves = Tversky(false_positive_weight=0.5, false_negative_weight=0.5, smooth=0.5)
    same(lambda x: halves(x, target), lambda x: Dice(smooth=1.0)(x, target), logits)
    ones = Tversky(false_positive_weight=1.0, false_negative_weight=1.0, smooth=0.5)
    same(lambda x: ones(x, target), lambda x: Jaccard(smooth=0.5)(x, target), logits)


@pytest.mark.parametrize("settings", [{}, {"over_batch": True}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(Tversky(**settings), regions=regions)


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="false_positive_weight is -1; give a number of 0 or more"):
        Tversky(false_positive_weight=-1)
    with pytest.raises(SettingError, match="false_negative_weight is -1"):
        Tversky(false_negative_weight=-1)

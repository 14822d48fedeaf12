import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.focal_tversky import FocalTversky
from segwright.losses.tversky import Tversky

# By hand


def test_by_hand():
    logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])  # half a chance each
    background = 1 - 1.5 / (1.5 + 0.3 * 0.5 + 0.7 * 1.5)
    object_ = 1 - 0.5 / (0.5 + 0.3 * 1.5 + 0.7 * 0.5)
    assert FocalTversky()(logits, target).item() == pytest.approx((background**0.75 + object_**0.75) / 2, abs=1e-5)


# Against segmentation_models.pytorch


def test_equals_the_golden_case_of_one_class(golden):
    golden("smp.tversky.binary", FocalTversky(gamma=1.33, over_batch=True, smooth=1e-12))


# By law


def test_an_exponent_of_one_is_tversky(case, same):
    logits, target = case()
    same(lambda x: FocalTversky(gamma=1.0)(x, target), lambda x: Tversky()(x, target), logits)


@pytest.mark.parametrize("settings", [{}, {"over_batch": True, "gamma": 1.33}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(FocalTversky(**settings), regions=regions)


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="an exponent above 0, such as 0.75"):
        FocalTversky(gamma=0)
    with pytest.raises(SettingError, match="false_positive_weight is -1"):
        FocalTversky(false_positive_weight=-1)

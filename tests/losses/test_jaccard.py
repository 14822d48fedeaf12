import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.jaccard import Jaccard

TINY = 1e-12  # where the other library has no smoothing

# By hand


def test_by_hand():
    logits, target = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 0, 0, 1]]])  # half a chance each
    assert Jaccard()(logits, target).item() == pytest.approx(1 - (1.5 / 3.5 + 0.5 / 2.5) / 2, abs=1e-5)


# Against other libraries


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("monai.dice.jaccard", {"smooth": 5e-6}),  # MONAI adds it to twice both parts
        ("smp.jaccard.multiclass", {"over_batch": True, "smooth": TINY}),
        ("smp.jaccard.binary", {"over_batch": True, "smooth": TINY}),
        ("smp.jaccard.multilabel", {"over_batch": True, "smooth": TINY}),
    ],
)
def test_equals_golden_cases(golden, name, settings):
    golden(name, Jaccard(**settings))


@pytest.mark.parametrize("shape", [(2, 4, 9, 7), (2, 3, 4, 6, 3)])
def test_equals_smp_with_void(case, same, shape):
    smp = pytest.importorskip("segmentation_models_pytorch.losses")
    logits, target = case(shape)
    theirs = smp.JaccardLoss("multiclass", ignore_index=-1)
    same(lambda x: Jaccard(over_batch=True, smooth=TINY)(x, target), lambda x: theirs(x, target), logits)


# By law


@pytest.mark.parametrize("settings", [{}, {"over_batch": True}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(Jaccard(**settings), regions=regions)


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="above 0, such as 1e-5"):
        Jaccard(smooth=0)

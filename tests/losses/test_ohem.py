import numpy as np
import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.ohem import Ohem

# By hand


def test_by_hand():
    logits = torch.tensor([[[1.0, 2.0, -9.0, 9.0]], [[0.0, 0.0, 0.0, 0.0]]])[None]
    target = torch.tensor([[[1, 1, 1, -1]]])
    hard = np.log1p(np.exp([1.0, 2.0])).mean()  # p of 0.27 and 0.12; the third is right, the fourth void
    assert Ohem()(logits, target).item() == pytest.approx(hard, rel=1e-6)
    assert Ohem(share=0.4, threshold=None)(logits, target).item() == pytest.approx(np.log1p(np.exp(2.0)), rel=1e-6)


# By a slow twin


@pytest.mark.parametrize("threshold", [None, 0.05, 0.7])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(2, 4, 9, 7), (2, 3, 4, 6, 3)])
def test_equals_numpy(case, shape, share, threshold):
    logits, target = case(shape)
    taken = []
    for values, truth in zip(logits, target, strict=True):
        losses = torch.nn.functional.cross_entropy(values[None], truth[None].clamp(min=0), reduction="none")[0]
        losses = np.sort(losses[truth >= 0].numpy())[::-1]
        number = max(1, int(len(losses) * share), 0 if threshold is None else int((np.exp(-losses) <= threshold).sum()))
        taken += list(losses[:number])
    assert Ohem(share=share, threshold=threshold)(logits, target).item() == pytest.approx(np.mean(taken))


# By law


def test_all_pixels_are_cross_entropy(case, same):
    logits, target = case()
    same(lambda x: Ohem(share=1.0, threshold=None)(x, target), lambda x: CrossEntropy()(x, target), logits)


def test_a_hard_image_does_not_leave_the_others_without(case):
    logits, target = case((2, 4, 6, 5), void=False)
    logits[0] *= 20
    given = logits.requires_grad_()
    Ohem(share=0.1, threshold=None)(given, target).backward()
    assert (given.grad[0].abs().sum(dim=0) > 0).sum() == (given.grad[1].abs().sum(dim=0) > 0).sum() == 3


@pytest.mark.parametrize("settings", [{}, {"share": 0.25, "threshold": None}])
def test_keeps_the_laws(laws, settings):
    laws(Ohem(**settings))


# By its messages


def test_wrong_settings_name_the_remedy():
    with pytest.raises(SettingError, match="above 0 and up to 1, such as 0.1"):
        Ohem(share=0)
    with pytest.raises(SettingError, match="between 0 and 1, such as 0.7, or None"):
        Ohem(threshold=1.0)

import math

import pytest
import torch
from torch.nn import functional as F

from segwright.core.errors import SettingError, ShapeError
from segwright.losses.binary_cross_entropy import BinaryCrossEntropy

# By hand


def test_by_hand():
    logits = torch.tensor([[[math.log(3), -math.log(3), 5.0]]])[None]  # p = 3 / 4, 1 / 4 and void
    assert BinaryCrossEntropy()(logits, torch.tensor([[[[1, 1, -1]]]])).item() == pytest.approx(math.log(16 / 3) / 2)


# By a slow twin


@pytest.mark.parametrize("shape", [(2, 4, 6, 5), (2, 3, 4, 3, 4)])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_torch(case, same, shape, regions, smoothing, weighted):
    logits, target = case(shape, regions=regions)
    weights = (0.5, 2.0, 1.0, 3.0)[: shape[1]]
    known = target >= 0 if regions else (target >= 0)[:, None].expand(shape)
    truth = target if regions else F.one_hot(target.clamp(min=0), shape[1]).movedim(-1, 1)
    soft = truth.double() * (1 - smoothing) + smoothing / 2
    factors = torch.tensor(weights).double().view(-1, *[1] * (len(shape) - 2)) if weighted else None

    def twin(x):
        losses = F.binary_cross_entropy_with_logits(x, soft, pos_weight=factors, reduction="none")
        return losses[known].mean()

    loss = BinaryCrossEntropy(positive_weights=weights if weighted else None, label_smoothing=smoothing)
    same(lambda x: loss(x, target), twin, logits)


# Against segmentation_models.pytorch


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("smp.softbce", {}),
        ("smp.softbce.smooth", {"label_smoothing": 0.2}),  # smp names half of it
        ("smp.softbce.posweight", {"positive_weights": (2.5,)}),
    ],
)
def test_equals_golden_cases(golden, name, settings):
    golden(name, BinaryCrossEntropy(**settings))


def test_equals_the_golden_case_but_for_the_void_pixels_in_its_mean(golden):
    known = (golden.target("target_bin_ignore") >= 0).double().mean()
    golden("smp.softbce.ignore", BinaryCrossEntropy(label_smoothing=0.2), times=known)


# By law


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}])
@pytest.mark.parametrize("regions", [False, True])
def test_keeps_the_laws(laws, settings, regions):
    laws(BinaryCrossEntropy(**settings), regions=regions)


# By its messages


def test_wrong_settings_and_shapes_name_the_remedy(case):
    with pytest.raises(SettingError, match="0 or more for each class, or None"):
        BinaryCrossEntropy(positive_weights=(-1.0,))
    with pytest.raises(SettingError, match="0 or more and below 1"):
        BinaryCrossEntropy(label_smoothing=-0.1)
    with pytest.raises(ShapeError, match="2 positive weights and 4 classes; give one weight per class"):
        BinaryCrossEntropy(positive_weights=(1.0, 2.0))(*case())

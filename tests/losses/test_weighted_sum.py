from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segwright.core.errors import SettingError
from segwright.losses import weighted_sum
from segwright.losses._softmax import shared_softmax
from segwright.losses.binary_cross_entropy import BinaryCrossEntropy
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.focal import Focal
from segwright.losses.focal_tversky import FocalTversky
from segwright.losses.generalised_dice import GeneralisedDice
from segwright.losses.jaccard import Jaccard
from segwright.losses.ohem import Ohem
from segwright.losses.sigmoid_focal import SigmoidFocal
from segwright.losses.top_k import TopK
from segwright.losses.tversky import Tversky
from segwright.losses.weighted_sum import WeightedSum

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a.safetensors")


# By hand


def test_terms_times_weights():
    logits, target = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    loss = WeightedSum(terms=(Dice(), CrossEntropy(), Dice()), weights=(1.0, 0.5, 2.0))(logits, target)
    assert loss.item() == pytest.approx(3 * 0.5 + 0.5 * 0.693147, abs=1e-5)


# By a slow twin


def test_equals_the_golden_value_and_gradient():
    logits = GOLDEN["in/logits"].requires_grad_()
    loss = WeightedSum()(logits, GOLDEN["in/target"])
    loss.backward()
    torch.testing.assert_close(loss, GOLDEN["out/monai.dicece.value"][0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(logits.grad, GOLDEN["out/monai.dicece.grad"], rtol=1e-8, atol=1e-10)


# By a law


def test_one_term_of_weight_one_is_that_term():
    logits, target = GOLDEN["in/logits"], GOLDEN["in/target"]
    assert torch.equal(WeightedSum(terms=(Dice(),), weights=(1.0,))(logits, target), Dice()(logits, target))


# By its messages


@pytest.mark.parametrize(("terms", "weights"), [((), ()), ((Dice(),), (1.0, 2.0))])
def test_counts_that_differ_are_refused(terms, weights):
    with pytest.raises(SettingError, match="one term or more, a weight for each"):
        WeightedSum(terms=terms, weights=weights)


# Against other libraries

NO_BACKGROUND = Dice(over_batch=True, include_background=False)


def sum_of(*terms, weights=None):
    return WeightedSum(terms=terms, weights=weights or (1.0,) * len(terms))


@pytest.mark.parametrize(
    ("name", "loss", "plus"),
    [
        ("monai.dicece", WeightedSum(), 0),
        ("monai.dicefocal", sum_of(Dice(), SigmoidFocal()), 0),
        ("nnunet.dc_ce", sum_of(CrossEntropy(), NO_BACKGROUND), -1),  # nnU-Net's Dice is minus the overlap
        ("nnunet.dc_ce.per_sample", WeightedSum(), -1),
        ("nnunet.dc_ce.ignore", sum_of(CrossEntropy(), NO_BACKGROUND), -1),
        ("nnunet.dc_topk", sum_of(TopK(), NO_BACKGROUND), -1),
    ],
)
def test_equals_golden_cases(golden, name, loss, plus):
    golden(name, loss, plus=plus)


def test_equals_monai(case, same):
    monai = pytest.importorskip("monai.losses")
    logits, target = case((2, 3, 4, 6, 3), void=False)
    theirs = monai.DiceCELoss(softmax=True, to_onehot_y=True)
    same(lambda x: WeightedSum()(x, target), lambda x: theirs(x, target[:, None]), logits)


# Sharing

ALL = (
    *(CrossEntropy(class_weights=(1.0, 2.0, 0.5, 1.0)), CrossEntropy(label_smoothing=0.1), Dice(), GeneralisedDice()),
    *(Focal(), SigmoidFocal(), Tversky(), FocalTversky(), Jaccard(), Ohem(), TopK(), BinaryCrossEntropy()),
)


def test_what_is_shared_is_what_each_takes_alone(case, same):
    logits, target = case()
    weights = tuple(1 + 0.1 * number for number in range(len(ALL)))
    together = WeightedSum(terms=ALL, weights=weights)

    def alone(x):
        return sum(weight * term(x, target) for weight, term in zip(weights, ALL, strict=True))

    same(lambda x: together(x, target), alone, logits)
    values = together.terms_of(logits, target)
    for name, weight, term in zip(values, weights, ALL, strict=True):
        torch.testing.assert_close(values[name], weight * term(logits, target))


def test_terms_share_one_softmax(case, monkeypatch):
    calls = []

    def counted(*arguments, **settings):
        calls.append(settings)
        return shared_softmax(*arguments, **settings)

    monkeypatch.setattr(weighted_sum, "shared_softmax", counted)
    WeightedSum(terms=(CrossEntropy(), Dice(), Focal(), TopK()), weights=(1.0,) * 4)(*case())
    assert calls == [{"counts": True, "log_prob_sums": False}]


def test_regions_go_to_each_term(case, same):
    logits, regions = case(regions=True)
    same(
        lambda x: sum_of(BinaryCrossEntropy(), Dice())(x, regions),
        lambda x: BinaryCrossEntropy()(x, regions) + Dice()(x, regions),
        logits,
    )


def test_keeps_the_laws(laws):
    laws(WeightedSum())
    laws(sum_of(CrossEntropy(label_smoothing=0.1), Tversky(), Focal(gamma=0.5)))

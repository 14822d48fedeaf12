from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segwright.core.errors import SettingError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a_subset.safetensors")


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

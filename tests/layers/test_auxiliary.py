"""Outputs of networks with auxiliary heads, and what a task makes of them."""

import pytest
import torch

from segwright.layers.auxiliary import WithAuxiliary
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.weighted_sum import WeightedSum
from segwright.tasks import Batch
from segwright.tasks.semantic import Semantic


def test_each_head_adds_its_weight_times_the_loss_of_its_logits():
    torch.manual_seed(0)
    main, small = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    batch = Batch(["a", "b"], torch.zeros(2, 1, 8, 8), torch.randint(0, 3, (2, 8, 8)))
    outputs = WithAuxiliary(main, (small, main), (0.4, 0.25))
    for criterion in (CrossEntropy(), WeightedSum()):
        task = Semantic(criterion=criterion)
        alone = {
            name: sum(task.loss(lambda _, out=out: out, batch, None).values()) for name, out in (("m", main), ("s", small))
        }
        terms = task.loss(lambda _: outputs, batch, None)
        assert sum(terms.values()).item() == pytest.approx((alone["m"] + 0.4 * alone["s"] + 0.25 * alone["m"]).item(), rel=1e-6)
        assert terms["auxiliary"].item() == pytest.approx((0.4 * alone["s"] + 0.25 * alone["m"]).item(), rel=1e-6)

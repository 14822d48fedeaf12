"""Two runs with one seed learn the same weights, to the bit, and another seed learns others: of volumes, objects, prompts too.

What is drawn on the way, such as boxes to learn from and clicks, comes from the seed and the number of the step alone.
"""

import pytest
import torch

from segwright.data.splits import open_splits
from segwright.models import nnunet, preset
from segwright.plans.plan import Data, Plan, Training
from segwright.tasks.instance import Instance
from segwright.tasks.promptable import Promptable
from segwright.tasks.semantic import Semantic
from segwright.training.dataloader import CropDataset
from segwright.training.learner import Learner, launch
from segwright.training.loop import step
from segwright.transforms.prepare import Preprocess

STEPS = 2
KINDS = {
    "volumes": ("synthetic:cells?count=2&shape=8x32x32", Semantic(), nnunet.Config(features=(4, 8, 8)), (8, 32, 32)),
    "objects": ("synthetic:cells?count=2&shape=64x64", Instance(), preset("mask_rcnn_small"), (64, 64)),
    "prompts": ("synthetic:cells?count=2&shape=64x64", Promptable(), preset("sam_nano"), (64, 64)),
}


def plan_of(kind: str, seed: int) -> Plan:
    data, task, network, crop = KINDS[kind]
    classes = task.dataset(open_splits(data).train).classes
    return Plan(
        task=task,
        data=Data(train=data, preprocess=Preprocess(channels=1)),
        model=task.fitted(network, 1, classes),
        training=Training(steps=STEPS, batch_size=2, crop=crop, seed=seed),
    )


def learnt(plan: Plan) -> dict[str, torch.Tensor]:
    """The weights after some steps."""
    learner = Learner.new(plan, launch(plan.training))
    crops = CropDataset.of(plan.task.dataset(open_splits(plan.data.train).train), plan)
    for number in range(STEPS):
        first = number * plan.training.batch_size
        step(learner, crops.parts(range(first, first + plan.training.batch_size), 1), number, 1.0)
    return learner.network.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_what_is_learnt(kind):
    torch.manual_seed(1)  # which a run must not depend on
    first = learnt(plan_of(kind, seed=0))
    torch.manual_seed(2)
    second, other = learnt(plan_of(kind, seed=0)), learnt(plan_of(kind, seed=1))
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())
    assert any(not torch.equal(first[name], tensor) for name, tensor in other.items())

"""What a crop teaches a network that answers prompts: prompts, clicks and losses. Axes: B, P prompts, M masks, N, H, W."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import SettingError, UsageError
from segwright.data.fingerprint import fingerprint
from segwright.decoding.run import Run
from segwright.encoders import resnet
from segwright.evaluation.evaluate import evaluate
from segwright.formats import open_dataset
from segwright.inference.load import load
from segwright.layers.prompts import PromptedMasks, Prompts
from segwright.models import preset, sam, sam_nano, unet
from segwright.tasks import Task
from segwright.tasks.promptable import CLICKS, OBJECTS, Promptable
from segwright.training.learner import Learner, launch
from segwright.training.loop import train
from segwright.transforms.prepare import Preprocess

SHAPE = (32, 48)
CLASSES = Classes.of(["object"], is_thing=[True])
SMALL = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16)


class Told(nn.Module):
    """Remembers what it was asked, and answers with masks that are fixed, of a fourth of the sides."""

    def __init__(self, logits: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.logits, self.scores = nn.Parameter(logits), nn.Parameter(scores)  # (M, h, w) and (M,)
        self.asked: list[tuple[Prompts, bool, bool]] = []

    def encode(self, image: Tensor) -> Tensor:
        return image[:, :, ::16, ::16]

    def decode(self, embedding: Tensor, prompts: Prompts, *, multimask: bool) -> PromptedMasks:
        self.asked.append((prompts, multimask, torch.is_grad_enabled()))
        part = slice(1, None) if multimask else slice(0, 1)
        shape = len(embedding), next(len(part[0]) for part in prompts if part is not None)
        return PromptedMasks(self.logits[part].expand(*shape, -1, -1, -1), self.scores[part].expand(*shape, -1))


def sample(truth: Segmentation | None, key: str = "a") -> Sample:
    shape = SHAPE if truth is None else truth.shape
    return Sample.of(key, np.zeros((3, *shape), np.uint8), truth)


def one_object() -> Segmentation:
    masks = np.zeros((1, *SHAPE), bool)
    masks[0, 8:24, 8:24] = True
    return Segmentation.instances(masks, [0], classes=CLASSES)


def batch_of(*truths: Segmentation):
    task = Promptable()
    crops = [(f"{n}", np.zeros((3, *SHAPE), np.float32), task.target(sample(each))) for n, each in enumerate(truths)]
    return task.collate(crops)


def told(size: float = 10.0) -> Told:
    """The object of `one_object` in all masks, but the first of three, which is empty."""
    logits = torch.full((4, 8, 12), -size)
    logits[[0, 2, 3], 2:6, 2:6] = size
    return Told(logits, torch.tensor([0.9, 0.1, 0.9, 0.8]))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_is_a_task_that_finds_nothing_by_itself():
    assert isinstance(Promptable(), Task)
    run = Run(engine=lambda images: (images,), classes=CLASSES, divisors=(2, 2))
    with pytest.raises(UsageError, match="answers prompts.*segwright segment"):
        Promptable().decode(run, Preprocess()(sample(one_object())))
    masks = np.array([[[[[1.0, -1.0]]]]]), np.array([[[0.5]]])
    other = np.array([[[[[1.0, 1.0]]]]]), np.array([[[0.5]]])
    assert Promptable().agreement(masks, masks, SHAPE) == 1 and Promptable().agreement(masks, other, SHAPE) == 0.5


@pytest.fixture
def most_clicks(monkeypatch):
    """All dialogues are as long as they can be."""
    monkeypatch.setattr("segwright.tasks.promptable.CLICKS", {kind: (max(counts),) for kind, counts in CLICKS.items()})


@pytest.fixture
def no_clicks(monkeypatch):
    """People say one thing about each object."""
    monkeypatch.setattr("segwright.tasks.promptable.CLICKS", dict.fromkeys(CLICKS, (0,)))


def test_a_right_answer_costs_nothing_but_its_score(no_clicks):
    network = told()
    terms = Promptable().loss(network, batch_of(one_object()), seeded())
    assert terms["focal"] < 1e-6 and terms["dice"] < 1e-3
    three = (0.01 + 0.01 + 0.04) / 3  # the first is empty and says 0.1, the others 0.9 and 0.8
    objects = OBJECTS["point"] * [three] + (OBJECTS["box"] + OBJECTS["mask"]) * [0.01]  # one mask, which expects 0.9
    assert terms["score"].item() == pytest.approx(np.mean(objects), abs=1e-3)


def test_of_three_answers_the_best_alone_is_pulled_at_and_all_learn_how_well_they_fit(no_clicks):
    network = told(2.0)
    terms = Promptable().loss(network, batch_of(one_object()), seeded())
    (terms["focal"] + terms["dice"]).backward(retain_graph=True)
    assert network.logits.grad[[0, 2]].any() and not network.logits.grad[[1, 3]].any() and network.scores.grad is None
    terms["score"].backward()
    assert network.scores.grad.all()


def test_people_begin_with_a_point_or_a_box_and_click_where_the_answer_is_wrong(most_clicks):
    network = told()
    network.logits.data[:, 2:6, 8:12] = 10  # what is not there, as large as the object
    Promptable().loss(network, batch_of(one_object()), seeded())
    first, *mended = network.asked[: 1 + max(CLICKS["point"])]
    box, clicked, refined = network.asked[1 + max(CLICKS["point"]) :]
    x, y = first[0].points_xy[0, :, 0].unbind(-1)
    assert first[1] and first[0].labels.tolist() == [[[1]] * OBJECTS["point"]] and first[0].mask_logits is None
    assert ((x > 8) & (x < 24) & (y > 8) & (y < 24)).all() and len({*x.tolist()}) > 1
    for number, (prompts, multimask, _) in enumerate(mended, start=1):
        x, y = prompts.points_xy[0, :, number].unbind(-1)
        assert not multimask and prompts.labels[0].tolist() == [[1] + [0] * number] * OBJECTS["point"]
        assert ((x > 32) & (x < 48) & (y > 8) & (y < 24)).all() and prompts.mask_logits.shape == (1, OBJECTS["point"], 8, 12)
        assert not prompts.mask_logits.requires_grad
    assert box[0].points_xy is None and not box[1]
    assert (box[0].boxes_xyxy - torch.tensor([8.5, 8.5, 23.5, 23.5])).abs().max() < 8
    assert not refined[1] and refined[0].boxes_xyxy is None and set(refined[0].mask_logits.unique().tolist()) >= {-8.0, 8.0}
    assert refined[0].points_xy.shape == (1, OBJECTS["mask"], 1, 2)
    assert clicked[0].labels.tolist() == [[[0]] * OBJECTS["box"]] and torch.equal(clicked[0].boxes_xyxy, box[0].boxes_xyxy)


def test_only_the_last_answer_of_a_dialogue_teaches(most_clicks):
    network = told()
    Promptable().loss(network, batch_of(one_object()), seeded())
    is_taught = [teaches for _, _, teaches in network.asked]
    assert is_taught == [False] * max(CLICKS["point"]) + [True, False, True, True]
    with torch.no_grad():
        assert not sum(Promptable().loss(network, batch_of(one_object()), seeded()).values()).requires_grad


def test_each_object_is_asked_about_before_one_is_again(no_clicks):
    masks = np.zeros((sum(OBJECTS.values()), 32, 48), bool)
    for number in range(len(masks)):
        masks[number, 4 * (number // 4) : 4 * (number // 4) + 4, 12 * (number % 4) : 12 * (number % 4) + 10] = True
    network = told()
    Promptable().loss(network, batch_of(Segmentation.instances(masks, [0] * len(masks), classes=CLASSES)), seeded())
    point, box, mask = (prompts for prompts, _, _ in network.asked)
    x, y = (point.points_xy[0, :, 0] // torch.tensor([12, 4])).unbind(-1)
    middles = box.boxes_xyxy[0].unflatten(1, (2, 2)).mean(dim=1) // torch.tensor([12, 4])
    seen = {*(4 * y + x).tolist(), *(4 * middles[:, 1] + middles[:, 0]).tolist()}
    assert len(seen) == OBJECTS["point"] + OBJECTS["box"] and mask.mask_logits.shape == (1, 1, 8, 12)


def test_where_the_answer_is_right_no_click_follows(most_clicks):
    network = told()
    Promptable().loss(network, batch_of(one_object()), seeded())
    assert network.asked[1][0].labels.tolist() == [[[1, -1]] * OBJECTS["point"]]


def test_what_nobody_knows_costs_nothing():
    truth = one_object()
    planes = truth.planes.copy()
    planes[0, 24:], planes[0, :8] = VOID, VOID
    network = told()
    network.logits.data[:, 6:], network.logits.data[:, :2] = 10, 10
    terms = Promptable().loss(network, batch_of(replace(truth, planes=planes)), seeded())
    assert terms["focal"] < 1e-6 and terms["dice"] < 1e-3


def test_images_without_objects_teach_nothing_and_do_not_weaken_the_others():
    empty = Segmentation.instances(np.zeros((0, *SHAPE), bool), [], classes=CLASSES)
    network = told(1.0)
    terms = Promptable().loss(network, batch_of(empty), seeded())
    assert [float(term) for term in terms.values()] == [0, 0, 0]
    sum(terms.values()).backward()
    assert not network.logits.grad.any()
    alone, both = (
        Promptable().loss(network, batch_of(*truths), seeded()) for truths in ((one_object(),), (one_object(), empty))
    )
    assert all(torch.allclose(alone[name], both[name]) for name in alone)


def test_draws_come_from_the_generator_alone():
    network, batch = told(1.0), batch_of(one_object())
    before = torch.get_rng_state()
    for seed in (0, 0, 1):
        Promptable().loss(network, batch, seeded(seed))
    assert torch.equal(torch.get_rng_state(), before)
    points = [prompts.points_xy for prompts, multimask, _ in network.asked if multimask]
    assert torch.equal(points[0], points[1]) and not torch.equal(points[0], points[2])


@pytest.mark.parametrize(
    "config",
    [sam.Config(encoder=SMALL, width=32, mlp_width=32), sam_nano.Config(encoder=SMALL)],
    ids=["sam", "sam_nano"],
)
def test_networks_learn(config):
    torch.manual_seed(0)
    network, batch = config.build(), batch_of(one_object(), one_object())
    batch = batch._replace(image=torch.randn(batch.image.shape))
    optimiser, losses = torch.optim.AdamW(network.parameters(), 3e-3), []
    for step in range(12):
        loss = sum(Promptable().loss(network, batch, seeded(step)).values())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < 0.7 * losses[0], losses


def test_networks_are_chosen_and_fitted():
    found = fingerprint(Promptable().dataset(open_dataset("synthetic:cells?count=2")))
    (network,) = Promptable().candidates(found, from_scratch=False)
    assert network == preset("sam_nano") and Promptable().fitted(network, 5, CLASSES).in_channels == 5
    with pytest.raises(SettingError, match="unet is a network for semantic segmentation, and the task is promptable"):
        Promptable().fitted(unet.Config(), 3, CLASSES)


def test_what_teaches_nothing_is_refused():
    with pytest.raises(UsageError, match="'a' has no truth to learn from"):
        Promptable().target(sample(None))
    volume = Segmentation.instances(np.ones((1, 2, 3, 4), bool), [0])
    with pytest.raises(UsageError, match=r"'a' is a volume \(2, 3, 4\).*give its slices as images"):
        Promptable().target(sample(volume))


def test_a_run_trains_is_kept_and_answers_clicks(tiny_plan, tmp_path):
    """In half precision, which the network's own methods run in too."""
    network = sam_nano.Config(in_channels=1, encoder=SMALL)
    training = replace(tiny_plan.training, steps=4, precision="bf16-mixed")
    model = train(replace(tiny_plan, task=Promptable(), model=network, training=training), tmp_path / "run")
    predictor = load(model)
    scores = evaluate(predictor, open_dataset(f"{tiny_plan.data.train}/val"), resamples=20)
    assert set(scores.values) == set(Promptable.metrics) and scores.count == 2
    assert "Clicks are simulated, at the centre" in scores.notes[-1]
    with pytest.raises(UsageError, match="answers prompts"):
        predictor(np.zeros((1, 48, 64), np.uint8))


def test_answers_without_gradients_leave_those_of_the_last_in_half_precision(tiny_plan, most_clicks):
    """Weights that autocast has turned into bfloat16 without a gradient must not be those of the answer that teaches."""
    training = replace(tiny_plan.training, precision="bf16-mixed", frozen=("encoder",))
    learner = Learner.new(replace(tiny_plan, model=sam_nano.Config(encoder=SMALL), training=training), launch(training))
    loss = sum(Promptable().loss(learner.parallel, batch_of(one_object()), seeded()).values())
    learner.fabric.backward(loss)
    given = {name for name, weight in learner.network.named_parameters() if weight.grad is not None and weight.grad.any()}
    parts = {name.split(".")[0] + "." + name.split(".")[1] for name in given}
    assert parts >= {"neck.fine", "decoder.fine_in", "decoder.blocks", "decoder.masks", "decoder.look"}, parts
    assert not any(name.startswith("encoder.") for name in given)

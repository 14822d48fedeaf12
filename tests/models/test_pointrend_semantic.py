"""PointRend for classes against detectron2's. Axes: B, C, K, P, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import mit, resnet
from segwright.layers.point_sampling import WithPoints, classes_at_points
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import pointrend_semantic
from segwright.tasks import Batch
from segwright.tasks.semantic import Semantic

SMALL = pointrend_semantic.Config(
    num_classes=3,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=16,
    branch_width=32,
    point_width=8,
    training_points=40,
    refined_points=100,
)
MEAN = torch.tensor([123.675, 116.28, 103.53])  # red, green, blue


def authors_network(file):
    """Ours with the sizes and the weights of a golden file."""
    config = replace(
        pointrend_semantic.PRESETS["pointrend_semantic_resnet50"],
        num_classes=5,
        pyramid_width=64,
        branch_width=64,
        point_width=48,
        refined_points=600,
    )
    network = config.build()
    network.load_state_dict(pointrend_semantic.rename(file.weights))
    return network.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_detectron2_at_every_depth(golden, dtype):
    file = golden("d2_pointrend_semseg_a")
    network = authors_network(file).to(dtype)
    image = file.input("image0").flip(0).to(dtype) - MEAN.to(dtype)[:, None, None]
    with torch.no_grad():
        levels = network.pyramid(network.encoder(image[None])[-4:])
        outputs = {f"fpn.p{number}": level for number, level in enumerate(levels, start=2)}
        outputs["coarse_logits"] = network.classify(network.branch(levels))
        outputs["sem_seg_logits_padded"] = network(image[None])
    outputs["sem_seg0"] = outputs["sem_seg_logits_padded"][0]
    for depth, output in outputs.items():  # the first failure says where to look; the authors' ran in float32 alone
        file.check(depth, output.float())


def test_the_published_file_fits(manifest):
    with torch.device("meta"):
        network = pointrend_semantic.PRESETS["pointrend_semantic_resnet101"].build()
    renamed = pointrend_semantic.rename(manifest("d2_pointrend_semantic_R_101_FPN_1x_cityscapes"))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


# By a slow twin


class SlowTwin(nn.Module):
    """Evaluation of one image by loops: two doublings, and the most uncertain points of each asked one by one."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        network = self.network
        fine, *others = network.pyramid(network.encoder(image)[-4:])
        coarse = network.classify(network.branch([fine, *others]))
        logits = coarse
        for _ in range(2):
            logits = F.interpolate(logits, scale_factor=2, mode="bilinear")
            _, classes, height, width = logits.shape
            best = logits[0].flatten(1).sort(dim=0, descending=True).values
            doubt = (best[1] - best[0]).tolist()
            for cell in sorted(range(height * width), key=doubt.__getitem__, reverse=True)[: network.config.refined_points]:
                row, column = divmod(cell, width)
                point = torch.tensor([[[[2 * (column + 0.5) / width - 1, 2 * (row + 0.5) / height - 1]]]], dtype=image.dtype)
                parts = [F.grid_sample(one, point, align_corners=False)[0, :, 0] for one in (fine, coarse)]
                logits[0, :, row, column] = network.points(parts[0][None], parts[1][None])[0, :, 0]
        return logits


def test_refines_as_one_point_after_the_other_would():
    torch.manual_seed(0)
    network = SMALL.build().double().eval()
    nn.init.normal_(network.points.classify.weight)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image), SlowTwin(network)(image))


def test_the_loss_of_points_is_the_cross_entropy_of_the_pixels_they_lie_in():
    torch.manual_seed(0)
    network = SMALL.build().double().train()
    nn.init.normal_(network.points.classify.weight)
    image, target = torch.randn(2, 3, 64, 96, dtype=torch.float64), torch.randint(-1, 3, (2, 64, 96))
    torch.manual_seed(1)
    terms = Semantic(criterion=CrossEntropy()).loss(network, Batch(["a", "b"], image, target), torch.Generator())
    torch.manual_seed(1)  # the same points
    coarse, point_logits, points = network(image)
    losses = []
    for number in range(2):
        for (x, y), logits in zip(points[number].tolist(), point_logits[number].T, strict=True):
            true = target[number, int(y * 64), int(x * 96)]
            if true >= 0:
                losses.append(torch.logsumexp(logits, dim=0) - logits[true])
    assert list(terms) == ["loss", "points"] and 40 < len(losses) < 80
    torch.testing.assert_close(terms["points"], torch.stack(losses).mean())
    full = F.interpolate(coarse, size=(64, 96), mode="bilinear")
    torch.testing.assert_close(terms["loss"], F.cross_entropy(full, target, ignore_index=-1))


def test_points_weigh_classes_as_the_criterion_does():
    torch.manual_seed(0)
    outputs = WithPoints(torch.randn(1, 2, 4, 4), torch.randn(1, 2, 9), torch.rand(1, 9, 2))
    batch = Batch(["a"], torch.zeros(1, 1, 16, 16), torch.randint(0, 2, (1, 16, 16)))
    own = CrossEntropy(class_weights=(0.1, 0.9))
    for criterion, expected in ((own, own), (WeightedSum(terms=(Dice(), own), weights=(1, 1)), own), (Dice(), CrossEntropy())):
        terms = Semantic(criterion=criterion).loss(lambda _: outputs, batch, torch.Generator())
        assert torch.equal(terms["points"], expected(outputs.point_logits, classes_at_points(batch.target, outputs.points)))


# By laws


def test_training_gives_coarse_logits_and_points_that_the_seed_decides():
    network, image = SMALL.build().train(), torch.randn(2, 3, 64, 64)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(network(image))
    assert isinstance(outputs[0], WithPoints)
    assert outputs[0].logits.shape == (2, 3, 16, 16)
    assert outputs[0].point_logits.shape == (2, 3, 40) and outputs[0].points.shape == (2, 40, 2)
    assert torch.equal(outputs[0].points, outputs[1].points) and not torch.equal(outputs[0].points, outputs[2].points)


def test_only_as_many_pixels_as_asked_for_differ_from_interpolated_logits():
    torch.manual_seed(0)
    network = replace(SMALL, refined_points=1).build().eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = network(image)
        maps = network.pyramid(network.encoder(image)[-4:])
        coarse = network.classify(network.branch(maps))
    for _ in range(2):
        coarse = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    is_other = (logits - coarse).abs().amax(dim=1) > 1e-6
    assert 0 < is_other.sum() <= 1 + 16  # a refined pixel spreads over 4 x 4 of the next doubling


@pytest.mark.parametrize(
    ("encoder", "divisor"),
    [
        (resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=8), 8),
        (mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1)), 32),
    ],
)
def test_stands_on_other_encoders(encoder, divisor):
    network = replace(SMALL, in_channels=4, encoder=encoder).build()
    assert network.divisors == (divisor, divisor)
    image = torch.randn(2, 4, 4 * divisor, 8 * divisor)
    outputs = network.train()(image)
    (outputs.logits.mean() + outputs.point_logits.mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.eval()(image).shape == (2, 3, 4 * divisor, 8 * divisor)


# By its messages


@pytest.mark.parametrize(
    "key", ["sem_seg_head.p2.0.weight", "sem_seg_head.point_head.fc4.weight", "sem_seg_head.point_head.norm.weight"]
)
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no PointRend has"):
        pointrend_semantic.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'sem_seg_head.p6.0.weight', which no Semantic FPN has"):
        pointrend_semantic.rename({"sem_seg_head.coarse_sem_seg_head.p6.0.weight": torch.zeros(1)})


def test_weights_say_what_their_images_look_like():
    for weights in pointrend_semantic.WEIGHTS.values():
        assert weights.num_classes == pointrend_semantic.PRESETS[weights.preset].num_classes
        assert weights.intake.std == (1, 1, 1) and weights.intake.mean == pytest.approx(tuple(MEAN.tolist()))


@pytest.mark.parametrize(
    "name", ["in_channels", "num_classes", "pyramid_width", "branch_width", "point_width", "training_points", "refined_points"]
)
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; "):
        replace(SMALL, **{name: 0})


def test_one_class_has_no_second_best():
    with pytest.raises(SettingError, match="num_classes is 1; .* give 2 or more"):
        replace(SMALL, num_classes=1)
    replace(SMALL, num_classes=2)

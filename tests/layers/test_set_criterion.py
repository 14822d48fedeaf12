"""The set criterion on points, against transformers' and by hand. Axes: L, B, Q, K, N, P, D, H, W."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from segwright.layers.matching import QueryMatches, match_queries
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.query_masks import QueryMasks
from segwright.layers.set_criterion import class_loss, point_costs, segments_per_process, set_losses

SIDES = (32, 48)


def answers(layers=1, images=2, queries=6, classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        QueryMasks(
            torch.randn(images, queries, classes + 1, dtype=torch.float64, generator=generator).to(dtype).requires_grad_(),
            (4 * torch.randn(images, queries, 8, 12, dtype=torch.float64, generator=generator)).to(dtype).requires_grad_(),
        )
        for _ in range(layers)
    ]


def segments(class_ids, planes):
    return ObjectTruth(torch.zeros(len(class_ids), 4), torch.tensor(class_ids, dtype=torch.int64), planes)


def two_images():
    """Three segments that tile an image, one of them in a second plane; and one in the corner of another."""
    first = torch.zeros(2, *SIDES, dtype=torch.int32)
    first[0, :, :20], first[0, :, 20:], first[1, 10:20, 10:30] = 1, 2, 3
    second = torch.zeros(1, *SIDES, dtype=torch.int32)
    second[0, 20:, 30:] = 1
    return [segments([2, 0, 1], first), segments([1], second)]


def masks_of(truth):
    numbers = torch.arange(1, len(truth.class_ids) + 1)[:, None, None, None]
    return (truth.planes == numbers).any(1)


# Against transformers


@pytest.mark.parametrize("layers", [1, 3])
def test_equals_transformers(monkeypatch, layers):
    """With the same points: each draw of a shape is the same, so that all layers have those of the first."""
    module = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    config = module.Mask2FormerConfig(num_labels=3, train_num_points=40)
    theirs = module.Mask2FormerLoss(config, {}).double()
    base = {count: torch.rand(4, count, 2, dtype=torch.float64) for count in (40, 120, 10)}
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: base[shape[1]][: shape[0]])
    monkeypatch.setattr(
        module, "sample_point", lambda x, at, **_: F.grid_sample(x.to(at), 2 * at[:, :, None] - 1, align_corners=False)[..., 0]
    )
    truth, ours = two_images(), answers(layers)
    base[40][1] = base[40][0]  # theirs draws for one image at a time
    terms = set_losses(ours, truth, SIDES, points=40, generator=None)
    gradients = torch.autograd.grad(sum(terms.values()), [part for layer in ours for part in layer])
    wanted = {"classes": 0.0, "masks": 0.0, "dice": 0.0}
    for layer in ours:
        found = theirs(
            layer.mask_logits, layer.class_logits, [masks_of(t).double() for t in truth], [t.class_ids for t in truth]
        )
        wanted["classes"] += 2 * found["loss_cross_entropy"]
        wanted["masks"] += 5 * found["loss_mask"]
        wanted["dice"] += 5 * found["loss_dice"]
    torch.testing.assert_close(terms, wanted, rtol=1e-6, atol=1e-9)  # theirs keeps some weights in single precision
    expected = torch.autograd.grad(sum(wanted.values()), [part for layer in ours for part in layer])
    for mine, each in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, each, rtol=1e-6, atol=1e-9)


# By hand


def test_an_empty_mask_of_an_empty_segment_is_right():
    layer = QueryMasks(torch.tensor([[[0.0, 50, 0], [0, 0, 50]]]), torch.tensor([-50.0, 0]).view(1, 2, 1, 1).expand(1, 2, 4, 4))
    truth = segments([1], torch.zeros(1, 4, 4, dtype=torch.int32))
    terms = set_losses([layer], [truth], (4, 4), points=16, generator=torch.Generator().manual_seed(0))
    assert all(term.abs() < 1e-3 for term in terms.values())


def test_certain_and_wrong_costs_what_it_says():
    """Half of a mask of two pixels lies in the segment; points at the very border mix, so there are none here."""
    planes = torch.tensor([[[1, 1, 1, 1, 0, 0, 0, 0]]], dtype=torch.int32).expand(1, 8, 8)
    layer = QueryMasks(torch.zeros(1, 1, 3), torch.full((1, 1, 8, 8), 30.0))
    terms = set_losses([layer], [segments([1], planes)], (8, 8), points=20_000, generator=torch.Generator().manual_seed(0))
    assert 0.4 * 5 * 30 < terms["masks"] < 0.6 * 5 * 30
    assert 0.25 * 5 < terms["dice"] < 0.5 * 5  # 1 - 2 * 0.5 / 1.5; more, as more points lie at the border, where the mask is 0


def test_queries_without_a_segment_count_a_tenth():
    truth = [segments([0], torch.ones(1, 4, 4, dtype=torch.int32))]
    matches = QueryMatches(*(torch.zeros(1, 1, dtype=torch.int64) for _ in range(3)))
    logits = torch.tensor([[[0.0, 0], [math.log(3), 0]]])  # of the pair: 1/2; of the other, no segment: 1/4
    wanted = (math.log(2) + 0.1 * math.log(4)) / 1.1
    torch.testing.assert_close(class_loss([logits], matches, truth), torch.tensor(wanted))


@pytest.mark.parametrize("counts", [(0, 0), (0, 1)])
def test_images_without_segments_teach_that_nothing_is_there(counts):
    truth = [segments([0] * count, torch.full((1, *SIDES), count, dtype=torch.int32)) for count in counts]
    layers = answers(layers=2)
    terms = set_losses(layers, truth, SIDES, points=20, generator=None)
    sum(terms.values()).backward()
    assert terms["classes"] > 0 and all(term.isfinite() for term in terms.values())
    assert (terms["masks"] > 0) == (terms["dice"] > 0) == any(counts)
    assert all(part.grad is not None and part.grad.isfinite().all() for layer in layers for part in layer)


def test_more_segments_than_queries():
    planes = (torch.arange(32 * 48).view(1, *SIDES) // 64 + 1).int()
    terms = set_losses(answers(images=1, queries=6), [segments([0] * 24, planes)], SIDES, points=20, generator=None)
    assert all(term.isfinite() and term > 0 for term in terms.values())


# By laws


def test_a_mask_learns_nothing_in_void():
    """Where the truth is void, a mask may be anything; and all else counts as if void were not there."""
    planes = torch.zeros(1, *SIDES, dtype=torch.int32)
    planes[0, :, :24], planes[0, :, 40:] = 1, -1
    layer = answers(images=1)[0]
    first = set_losses([layer], [segments([0], planes)], SIDES, points=500, generator=torch.Generator().manual_seed(0))
    gradient = torch.autograd.grad(sum(first.values()), layer.mask_logits)[0]
    assert gradient[..., :9].abs().sum() > 0 and gradient[..., 11:].abs().max() == 0  # 40 pixels are 10 of the masks'
    other = layer.mask_logits.detach().clone()
    other[..., 11:] = 60.0  # certain, so that as few are drawn there as may be
    cost, moved = (
        point_costs([each], [segments([0], planes)], SIDES, points=500, generator=torch.Generator().manual_seed(0))[0]
        for each in (layer, layer._replace(mask_logits=other))
    )
    torch.testing.assert_close(cost, moved)


def test_all_is_void():
    layer = answers(images=1)[0]
    planes = torch.full((1, *SIDES), -1, dtype=torch.int32)
    terms = set_losses([layer], [segments([0], planes)], SIDES, points=20, generator=None)
    assert terms["masks"] == 0 and all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    """Sums over 12544 points of logits of some hundreds go beyond 65504, the greatest of half precision."""
    layer, truth = answers()[0], two_images()
    layer = QueryMasks(layer.class_logits.detach().to(dtype), (100 * layer.mask_logits.detach()).to(dtype))
    wide = QueryMasks(*(part.float() for part in layer))
    for image in (0, 1):
        narrow, wanted = (
            point_costs([each], truth, SIDES, points=12544, generator=torch.Generator().manual_seed(0))[image]
            for each in (layer, wide)
        )
        assert narrow.dtype == torch.float32 and narrow.isfinite().all()
        torch.testing.assert_close(narrow, wanted)
    with torch.autocast("cpu", dtype):
        terms = set_losses([layer], truth, SIDES, points=12544, generator=torch.Generator().manual_seed(0))
    wanted = set_losses([wide], truth, SIDES, points=12544, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(terms, wanted)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_masks_are_paired_last(bad):
    layer, truth = answers(images=1)[0], two_images()[:1]
    broken = layer.mask_logits.detach().clone()
    broken[0, :2] = bad
    matches = match_queries(point_costs([layer._replace(mask_logits=broken)], truth, SIDES, points=30, generator=None))
    assert matches.queries.shape == (1, 3) and matches.queries.min() > 1


def test_masks_are_averaged_over_processes(monkeypatch):
    """One of two processes has four segments, the other none: each counts two; and one where there is none at all."""
    truth, empty = two_images(), [segments([], torch.zeros(1, *SIDES, dtype=torch.int32))]
    assert segments_per_process(truth) == 4 and segments_per_process(empty) == 1
    alone = set_losses(answers(), truth, SIDES, points=30, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda count: count.add_(0))
    assert segments_per_process(truth) == 2 and segments_per_process(empty) == 1
    shared = set_losses(answers(), truth, SIDES, points=30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shared["masks"], 2 * alone["masks"])
    torch.testing.assert_close(shared["dice"], 2 * alone["dice"])
    torch.testing.assert_close(shared["classes"], alone["classes"])


def test_the_generator_decides_the_points():
    def drawn(seed):
        return set_losses(answers(), two_images(), SIDES, points=30, generator=torch.Generator().manual_seed(seed))

    assert drawn(1) == drawn(1) != drawn(2)

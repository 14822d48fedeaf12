"""What MaskFormer learns from. Axes: L, B, Q, K, N, M, E, P, H, W, h, w."""

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segwright.layers.object_truth import ObjectTruth
from segwright.models import _maskformer_loss
from segwright.models._maskformer_loss import maskformer_losses, pair_costs


def truth_of(planes: Tensor, class_ids: list[int]) -> ObjectTruth:
    """Segments that planes (P, H, W) mark; nobody reads their boxes here."""
    return ObjectTruth(torch.zeros(len(class_ids), 4), torch.tensor(class_ids, dtype=torch.int64), planes.int())


def random_step(seed: int, *, layers=2, queries=4, sides=(8, 12), shape=(2, 3), void=True, dtype=torch.float64):
    """Answers of layers to two images, with two segments and three, of which one lies on another; some pixels are void."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"dtype": dtype, "generator": generator}
    class_logits, embeddings = torch.randn(layers, 2, queries, 4, **draw), torch.randn(layers, 2, queries, 5, **draw)
    pixels = torch.randn(2, 5, *shape, **draw)
    first, second = (torch.randint(0, 3, (1, *sides), generator=generator) for _ in range(2))
    upper = torch.zeros_like(second)
    upper[:, 2:6, 3:9] = 3
    if void:
        first[0, :3, 4:7], upper[0, 5:, 8:] = -1, -1
    truth = [truth_of(first, [0, 2]), truth_of(torch.cat([second, upper]), [1, 1, 0])]
    return [tensor.requires_grad_() for tensor in (class_logits, embeddings, pixels)], truth


def masks_of(truth: ObjectTruth) -> tuple[Tensor, Tensor]:
    """The masks (N, H, W) and which pixels are known (H, W), as numbers."""
    is_known = (truth.planes >= 0).all(0).double()
    masks = [(truth.planes == number + 1).any(0) * is_known for number in range(len(truth.class_ids))]
    return torch.stack(masks), is_known


def slow_terms(logits: Tensor, mask: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and Dice loss of one mask, over all known pixels."""
    x, t = logits[is_known > 0], mask[is_known > 0]
    p = 1 / (1 + torch.exp(-x))
    focal = torch.where(t > 0, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()).mean()
    return focal, 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def slow_losses(class_logits: Tensor, embeddings: Tensor, pixels: Tensor, truth: list[ObjectTruth]) -> dict[str, Tensor]:
    """Every pair is tried, and every mask has the size of the image."""
    terms, total = {"classes": [], "masks": [], "dice": []}, sum(len(each.class_ids) for each in truth)
    for logits, embedding in zip(class_logits, embeddings, strict=True):
        wanted = torch.full(logits.shape[:2], logits.shape[-1] - 1)
        for image, each in enumerate(truth):
            masks, is_known = masks_of(each)
            small = torch.einsum("qe,ehw->qhw", embedding[image], pixels[image])
            near = F.interpolate(torch.cat([masks, is_known[None]])[None], size=small.shape[1:], mode="nearest")[0]
            cost = torch.stack([torch.stack([_cost(row, mask, near[-1]) for mask in near[:-1]]) for row in small])
            cost = cost - logits[image].softmax(1)[:, each.class_ids]
            queries = range(len(cost))
            best = min(permutations(queries, len(masks)), key=lambda order: sum(cost[q, n] for n, q in enumerate(order)))
            large = F.interpolate(small[None], size=masks.shape[1:], mode="bilinear")[0]
            for segment, query in enumerate(best):
                wanted[image, query] = each.class_ids[segment]
                focal, dice = slow_terms(large[query], masks[segment], is_known)
                terms["masks"].append(20 * focal / total)
                terms["dice"].append(dice / total)
        weight = torch.tensor([1.0, 1.0, 1.0, 0.1], dtype=logits.dtype)
        terms["classes"].append(F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight))
    return {name: sum(values) for name, values in terms.items()}


def _cost(logits: Tensor, mask: Tensor, is_known: Tensor) -> Tensor:
    focal, dice = slow_terms(logits, mask, is_known)
    return (20 * focal + dice).detach()


def test_by_hand():
    """One query that knows nothing, in an image of 4 x 4 whose upper half is the segment."""
    planes = torch.zeros(1, 4, 4)
    planes[:, :2] = 1
    class_logits = torch.zeros(1, 1, 1, 3)
    embeddings, pixels = torch.zeros(1, 1, 1, 2), torch.randn(1, 2, 1, 1)
    terms = maskformer_losses(class_logits, embeddings, pixels, [truth_of(planes, [1])], (4, 4))
    focal = (8 * 0.25 + 8 * 0.75) / 16 * 0.5**2 * math.log(2)
    assert terms["classes"].item() == pytest.approx(math.log(3))
    assert terms["masks"].item() == pytest.approx(20 * focal)
    assert terms["dice"].item() == pytest.approx(1 - (2 * 4 + 1) / (8 + 8 + 1))


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_its_slow_twin_in_values_and_gradients(seed, void):
    inputs, truth = random_step(seed, void=void)
    ours, twin = maskformer_losses(*inputs, truth, (8, 12)), slow_losses(*inputs, truth)
    gradients = []
    for terms in (ours, twin):
        whole = terms["classes"] + 2 * terms["masks"] + 3 * terms["dice"]  # each has a gradient of its own
        gradients.append(torch.autograd.grad(whole, inputs))
    for name, term in ours.items():
        assert term.item() == pytest.approx(twin[name].item(), rel=1e-9), name
    for mine, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-7, atol=1e-10)


def test_layers_add_up():
    inputs, truth = random_step(5, layers=3)
    class_logits, embeddings, pixels = inputs
    whole = maskformer_losses(*inputs, truth, (8, 12))
    parts = [maskformer_losses(class_logits[n : n + 1], embeddings[n : n + 1], pixels, truth, (8, 12)) for n in range(3)]
    for name, term in whole.items():
        assert term.item() == pytest.approx(sum(part[name].item() for part in parts))


def test_padding_is_no_segment():
    """Planes that end before the image count as if they went on with nothing."""
    inputs, truth = random_step(6, sides=(6, 8))
    longer = [truth_of(F.pad(each.planes, (0, 4, 0, 2)), each.class_ids.tolist()) for each in truth]
    short, long = (maskformer_losses(*inputs, each, (8, 12)) for each in (truth, longer))
    assert all(short[name].item() == long[name].item() for name in short)


def test_what_nobody_knows_teaches_nothing():
    (class_logits, embeddings, pixels), _ = random_step(7, shape=(8, 12))  # of the size of the image: no pixel is mixed
    planes = torch.zeros(1, 8, 12)
    planes[0, 2:6, 2:6], planes[0, :, 9:] = 1, -1
    truth = [truth_of(planes, [2])] * 2
    terms = maskformer_losses(class_logits, embeddings, pixels, truth, (8, 12))
    (gradient,) = torch.autograd.grad(terms["masks"] + terms["dice"], pixels)
    assert not gradient[..., 9:].any() and gradient[..., :9].abs().sum((0, 1)).min() > 0
    with torch.no_grad():
        pixels[..., 9:] = torch.randn_like(pixels[..., 9:])
    again = maskformer_losses(class_logits, embeddings, pixels, truth, (8, 12))
    assert all(terms[name].item() == pytest.approx(again[name].item()) for name in terms)


def test_images_that_nobody_knows_anything_of_are_fine():
    inputs, _ = random_step(8)
    truth = [truth_of(torch.full((1, 8, 12), -1), []), truth_of(torch.full((1, 8, 12), -1), [1])]
    terms = maskformer_losses(*inputs, truth, (8, 12))
    assert all(term.isfinite() for term in terms.values()) and terms["masks"].item() == 0


def test_without_segments_all_queries_learn_that_they_have_none():
    inputs, _ = random_step(9)
    truth = [truth_of(torch.zeros(1, 8, 12), [])] * 2
    terms = maskformer_losses(*inputs, truth, (8, 12))
    wanted = F.cross_entropy(inputs[0].flatten(0, 2), torch.full((16,), 3)) * 2  # layers
    assert terms["classes"].item() == pytest.approx(wanted.item())
    assert terms["masks"].item() == terms["dice"].item() == 0
    gradients = torch.autograd.grad(sum(terms.values()), inputs)
    assert not gradients[1].any() and not gradients[2].any()  # but there are some, which DDP waits for


def test_more_segments_than_queries_leave_some_without():
    inputs, truth = random_step(10, queries=2)
    terms = maskformer_losses(*inputs, truth, (8, 12))
    assert all(term.isfinite() for term in terms.values())
    assert len(pair_costs(*inputs, truth, [each.planes for each in truth])) == 2


def test_a_network_that_diverged_breaks_no_pairing():
    inputs, truth = random_step(11)
    with torch.no_grad():
        inputs[1][0, 0, 1] = math.nan
        inputs[1][0, 1, 2] = math.inf
    terms = maskformer_losses(*inputs, truth, (8, 12))
    assert terms["classes"].isfinite() and terms.keys() == {"classes", "masks", "dice"}


def test_sums_over_a_large_image_fit_half_precision():
    """70 000 pixels, each 1, are more than float16 can say; costs and losses are computed wider."""
    generator = torch.Generator().manual_seed(12)
    shape = (264, 272)
    planes = torch.ones(1, *shape)
    class_logits, embeddings, pixels = (
        torch.randn(size, generator=generator).half().requires_grad_() for size in ((1, 1, 3, 4), (1, 1, 3, 2), (1, 2, *shape))
    )
    truth = [truth_of(planes, [1])]
    (cost,) = pair_costs(class_logits, embeddings, pixels, truth, [truth[0].planes])
    terms = maskformer_losses(class_logits, embeddings, pixels, truth, shape)
    assert cost.isfinite().all() and cost.dtype == torch.float32
    assert all(term.isfinite() and term.dtype == torch.float32 for term in terms.values())
    gradients = torch.autograd.grad(sum(terms.values()), (class_logits, embeddings, pixels))
    assert all(gradient.isfinite().all() for gradient in gradients)


class _Largest(TorchDispatchMode):
    """The most numbers in any tensor of numbers that torch makes."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.count = max(self.count, tensor.numel())
        return made


def test_masks_of_the_size_of_the_image_never_exist_together(monkeypatch):
    inputs, truth = random_step(13, layers=6, queries=6, sides=(64, 96), shape=(4, 6))
    wanted = maskformer_losses(*inputs, truth, (64, 96))
    wanted_gradients = torch.autograd.grad(sum(wanted.values()), inputs)
    monkeypatch.setattr(_maskformer_loss, "AT_ONCE", 2 * 64 * 96)
    with _Largest() as largest:
        terms = maskformer_losses(*inputs, truth, (64, 96))
        gradients = torch.autograd.grad(sum(terms.values()), inputs)
    assert largest.count <= 2 * 64 * 96  # of 30 masks, two at a time
    for name, term in terms.items():
        assert term.item() == pytest.approx(wanted[name].item(), rel=1e-12)
    for mine, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)

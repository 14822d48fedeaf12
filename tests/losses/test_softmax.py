import pytest
import torch
from torch.nn import functional as F

from segwright.core.errors import ShapeError, UsageError
from segwright.losses import _softmax
from segwright.losses._softmax import shared_softmax

# By hand


def test_by_hand():
    softmax = shared_softmax(torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 0, -1]]]), counts=True, log_prob_sums=True)
    half = torch.tensor(0.5).log()
    assert softmax.known.tolist() == [2]
    torch.testing.assert_close(softmax.log_probs, torch.stack([half, half, half * 0]).view(1, 1, 3))
    assert softmax.counts.overlap.tolist() == [[1, 0]]
    assert softmax.counts.predicted.tolist() == [[1, 1]]
    assert softmax.counts.true.tolist() == [[2, 0]]
    torch.testing.assert_close(softmax.log_prob_sums, 2 * half.expand(1, 2))


# By a slow twin


@pytest.mark.parametrize("size", [1, 40, 2**17])
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (2, 3, 4, 3, 5), (2, 5, 11)])
def test_equals_plain_torch_in_value_and_gradient(case, same, monkeypatch, size, shape):
    monkeypatch.setattr(_softmax, "CPU_SLICE", size)
    logits, target = case(shape)
    known = (target >= 0)[:, None]
    truth = F.one_hot(target.clamp(min=0), shape[1]).movedim(-1, 1) * known
    pulls = [torch.randn(shape[:2], dtype=torch.float64) for _ in range(3)]
    pixels = torch.randn(target.shape, dtype=torch.float64)

    def ours(x):
        found = shared_softmax(x, target, counts=True, log_prob_sums=True)
        parts = found.counts.overlap, found.counts.predicted, found.log_prob_sums
        return (pixels * found.log_probs).sum() + sum((a * b).sum() for a, b in zip(pulls, parts, strict=True))

    def twin(x):
        log_p = x.log_softmax(dim=1)
        p = log_p.exp() * known
        parts = (p * truth).flatten(2).sum(2), p.flatten(2).sum(2), (log_p * known).flatten(2).sum(2)
        return (pixels * (log_p * truth).sum(dim=1)).sum() + sum((a * b).sum() for a, b in zip(pulls, parts, strict=True))

    same(ours, twin, logits)


def test_large_images_keep_their_digits():
    found = shared_softmax(torch.zeros(1, 3, 1500, 1500), torch.zeros(1, 1500, 1500, dtype=torch.int64), counts=True)
    torch.testing.assert_close(found.counts.overlap[0, 0].item(), 1500**2 / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.counts.predicted[0, 1].item(), 1500**2 / 3, rtol=1e-6, atol=0)
    assert found.counts.true[0, 0] == 1500**2


# By law


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_no_second_tensor_of_the_size_of_the_logits_is_kept(case, dtype):
    logits, target = case()
    given = logits.to(dtype).requires_grad_()
    found = shared_softmax(given, target, counts=True)
    function = found.log_probs.grad_fn
    first, *others = (each.shape for each in function.saved_tensors)
    assert first == logits.shape and set(others) == {target.shape}
    kept = function.saved_tensors[0].data_ptr()
    del function
    found.log_probs.sum().backward()
    assert given.grad.data_ptr() == kept  # the gradient lies where the softmax was


LAYOUTS = {
    "planes": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a part of others": lambda x: torch.cat([x, x, x], dim=3)[..., 6:12],
    "some of the classes": lambda x: torch.cat([x, x], dim=1)[:, :4],
    "one for all samples": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_equal_plain_torch(case, monkeypatch, layout, dtype):
    monkeypatch.setattr(_softmax, "CPU_SLICE", 40)
    logits, target = case()
    given = LAYOUTS[layout](logits.to(dtype))
    before, pulls, results = given.clone(), [torch.randn(2, 4) for _ in range(3)], []
    for x in (given.detach(), given.double().detach()):
        x.requires_grad_()
        found = shared_softmax(x, target, counts=True, log_prob_sums=True)
        parts = found.counts.overlap, found.counts.predicted, found.log_prob_sums
        value = (found.log_probs * target).sum() + sum((a * b).sum() for a, b in zip(pulls, parts, strict=True))
        slopes = [torch.autograd.grad(value, x, retain_graph=again)[0].double() for again in (True, False)]
        results.append([each.double() for each in (value, found.known, found.counts.true, *slopes)])
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(*results, **tolerance)
    assert torch.equal(given, before)


def test_autocast_changes_nothing(case):
    logits, target = case()
    logits = logits.float().requires_grad_()
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = shared_softmax(logits, target, counts=True)
            values += [(found.counts.overlap.sum(), *torch.autograd.grad(found.log_probs.sum(), logits))]
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


# By its messages


def test_shapes_and_classes_that_do_not_fit():
    with pytest.raises(ShapeError, match="upsample the logits first"):
        shared_softmax(torch.zeros(1, 2, 3, 3), torch.zeros(1, 6, 6, dtype=torch.int64))
    for wrong in (2, -2):
        with pytest.raises(UsageError, match=f"holds {wrong}, and the logits have 2 classes"):
            shared_softmax(torch.zeros(1, 2, 3, 3), torch.full((1, 3, 3), wrong))
        with pytest.raises(RuntimeError, match="out of bounds"):
            shared_softmax(torch.zeros(1, 2, 3, 3).double(), torch.full((1, 3, 3), wrong))

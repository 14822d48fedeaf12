"""The softmax that losses share: log-probabilities of the true class and soft counts, with one backward written by hand.

Most losses depend on the logits through no more than this. With p the probabilities and t the truth of a pixel, l the gradient
of its log-probability, and o and s the gradients of each overlap and predicted size, the gradient of logit k is

    p_k (s_k - m) + [k = t] (p_t o_t + l)    where    m = sum_j p_j s_j + p_t o_t + l,

so the log-softmax is all that is kept, and the gradient is written over it, in slices that a core's cache holds. On a
processor, kernels of our own keep the softmax in its place; torch's own steps are for GPUs and for float64.
Axes: B batch, K classes, *S spatial axes, R rows (the first of them) of a slice, W the last of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd import Function

from segwright.core import VOID
from segwright.core.errors import UsageError
from segwright.losses import check_shapes
from segwright.losses._softmax_kernels import pull_planes, softmax_of_planes

CPU_SLICE = 2**18  # numbers: a megabyte of float32, so that a slice and what is made of it stay in a core's second cache
GPU_SLICE = 2**25  # a GPU wants few large steps; what is made of one takes 128 MB

Part = tuple[int, slice, slice]  # sample, all classes, rows


@dataclass(frozen=True)
class SoftCounts:
    """Pixels (B, K) of each class, the void ones left out: probability on its truth, probability anywhere, and truth."""

    overlap: Tensor
    predicted: Tensor
    true: Tensor

    def over_batch(self) -> "SoftCounts":
        """The counts (1, K) of the whole batch, as of one sample."""
        return SoftCounts(*(part.sum(dim=0, keepdim=True) for part in (self.overlap, self.predicted, self.true)))


@dataclass(frozen=True)
class SharedSoftmax:
    """What losses need of the softmax of logits (B, K, *S), and the class map (B, *S) that it was taken for."""

    target: Tensor
    known: Tensor  # (B,), the number of pixels that are not void
    log_probs: Tensor  # (B, *S), of the true class; 0 where the target is void
    counts: SoftCounts  # zeros where nobody asked for them
    log_prob_sums: Tensor  # (B, K), of each class over all pixels that are not void; zeros where nobody asked for them


@runtime_checkable
class OverlapLoss(Protocol):
    """A loss that needs the soft counts alone."""

    def of_counts(self, counts: SoftCounts) -> Tensor:
        """Scalar from the soft counts."""
        ...


@runtime_checkable
class SoftmaxLoss(Protocol):
    """A loss that needs a `SharedSoftmax` alone, of its counts none."""

    def of_softmax(self, softmax: SharedSoftmax) -> Tensor:
        """Scalar from what losses share of the softmax."""
        ...


def shared_softmax(logits: Tensor, target: Tensor, *, counts: bool = False, log_prob_sums: bool = False) -> SharedSoftmax:
    """What losses need of logits (B, K, *S) of any float dtype and class maps int64 (B, *S); differentiable once.

    All is float32 at least. A log-probability is exact however small the probability is.

    Raises:
        ShapeError: the two do not belong together.
    """
    check_shapes(logits, target)
    softmax: Any = _KernelSoftmax if logits.device.type == "cpu" and logits.dtype != torch.float64 else _Softmax
    known, log_probs, overlap, predicted, true, sums = softmax.apply(logits, target, counts, log_prob_sums)
    return SharedSoftmax(target, known, log_probs, SoftCounts(overlap, predicted, true), sums)


class _Softmax(Function):
    """Logits (B, K, *S), class maps (B, *S) to what `SharedSoftmax` holds: known (B,), log_probs (B, *S), the rest (B, K)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, with_counts: bool, with_sums: bool) -> tuple[Tensor, ...]:
        B, K = logits.shape[:2]
        kept = _log_softmax(logits)  # (B, K, *S)
        log_probs = kept.new_empty(target.shape)
        pixels, overlap, predicted, true, sums = (kept.new_zeros(shape) for shape in ((B,), *[(B, K)] * 4))
        is_masked = False
        for part in slices(logits):
            sample, _, rows = part
            log_p = as_planes(kept[part], kept.dtype)  # (K, R, ..., W)
            known, index = known_and_index(target[sample, rows], kept.dtype)  # (R, ..., W)
            is_masked |= known is not None
            own = log_p.gather(0, index[None])[0]
            own = own if known is None else own.mul_(known)
            log_probs[sample, rows] = own
            pixels[sample] += index.numel() if known is None else known.sum()
            if with_counts:
                p = log_p.exp() if known is None else log_p.exp().mul_(known)
                own = own.exp_() if known is None else own.exp_().mul_(known)
                overlap[sample] += _sum_by_class(own, index, K)
                predicted[sample] += p.flatten(1).sum(dim=1)
                true[sample] += _sum_by_class(torch.ones_like(own) if known is None else known, index, K)
            if with_sums:
                sums[sample] += (log_p if known is None else log_p * known).flatten(1).sum(dim=1)
        ctx.save_for_backward(kept, log_probs, target)
        ctx.dtype, ctx.is_masked = logits.dtype, is_masked
        ctx.mark_non_differentiable(pixels, true)
        ctx.set_materialize_grads(False)
        return pixels, log_probs, overlap, predicted, true, sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, log_probs, target = ctx.saved_tensors
        _, of_log_probs, of_overlap, of_predicted, _, of_sums = gradients
        gradient = gradient_over(kept, ctx.dtype)
        if of_predicted is None and of_sums is not None:
            of_predicted = torch.zeros_like(of_sums)
        for part in slices(kept):
            sample, _, rows = part
            known, index = known_and_index(target[sample, rows], kept.dtype) if ctx.is_masked else (None, target[sample, rows])
            p = torch.exp(as_planes(kept[part], kept.dtype), out=_planes_for(gradient, part, kept.dtype))  # (K, R, ..., W)
            if known is not None:
                p *= known
            at_truth = torch.zeros_like(p[0]) if of_log_probs is None else of_log_probs[sample, rows]  # p_t o_t + l
            if of_overlap is not None:
                own = of_overlap[sample].index_select(0, index.flatten()).view_as(index)
                at_truth = torch.addcmul(at_truth, log_probs[sample, rows].exp(), own)
            if known is not None:
                at_truth = at_truth * known
            if of_predicted is None:
                p *= -at_truth
            else:
                pulls = p * across(of_predicted[sample], p)
                middle = pulls.sum(dim=0).add_(at_truth)  # m
                if of_sums is not None:
                    middle += of_sums[sample].sum()
                p *= torch.sub(across(of_predicted[sample], p), middle, out=pulls)
            if of_sums is not None:
                p += across(of_sums[sample], p) * (1 if known is None else known)
            _keep(gradient, part, p.scatter_add_(0, index[None], at_truth[None]))
        return gradient, None, None, None


def _log_softmax(logits: Tensor) -> Tensor:
    """The log-softmax of logits (B, K, *S) in their layout, float32 at least."""
    dtype = computed_in(logits)
    if logits.dtype == dtype and logits.is_contiguous():
        return logits.log_softmax(dim=1)
    kept = torch.empty_like(logits, dtype=dtype)
    for part in slices(logits):
        kept[part] = as_planes(logits[part], dtype).log_softmax(dim=0)
    return kept


class _KernelSoftmax(Function):
    """What `_Softmax` does, on a processor and in float32. The softmax is kept, 0 where void: no exponential is taken twice."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, with_counts: bool, with_sums: bool) -> tuple[Tensor, ...]:
        B, K = logits.shape[:2]
        kept = torch.empty_like(logits, dtype=torch.float32)  # (B, K, *S)
        log_probs = kept.new_empty(target.shape)
        target = target.contiguous()
        sums = torch.zeros(4, B, K, dtype=torch.float64)
        ctx.dtype, ctx.are_planes = logits.dtype, logits.dtype == torch.float32 and logits.is_contiguous()
        for part in _pieces(kept, ctx.are_planes):
            sample, _, rows = part
            x = logits[part].detach().float().contiguous()  # (K, R, ..., W)
            probs = kept[part] if ctx.are_planes else torch.empty_like(x)
            pixels = target[sample, rows], log_probs[sample, rows]
            sums[:, sample] += softmax_of_planes(x, probs, *pixels, counts=with_counts, log_prob_sums=with_sums)
            if not ctx.are_planes:
                kept[part] = probs
        ctx.save_for_backward(kept, target)
        overlap, predicted, true, log_prob_sums = sums.float()
        known = sums[2].sum(dim=1).float()
        ctx.mark_non_differentiable(known, true)
        ctx.set_materialize_grads(False)
        return known, log_probs, overlap, predicted, true, log_prob_sums

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, target = ctx.saved_tensors
        _, of_log_probs, of_overlap, of_predicted, _, of_sums = gradients
        gradient = gradient_over(kept, ctx.dtype)
        for part in _pieces(kept, ctx.are_planes):
            sample, _, rows = part
            probs = kept[part].contiguous()  # (K, R, ..., W)
            pulled = gradient[part] if ctx.are_planes else torch.empty_like(probs)
            pulls = [None if each is None else each[sample] for each in (of_overlap, of_predicted, of_sums)]
            of_own = None if of_log_probs is None else of_log_probs[sample, rows]
            pull_planes(probs, target[sample, rows], pulls, of_own, pulled)
            if not ctx.are_planes:
                gradient[part] = pulled
        return gradient, None, None, None


def _pieces(kept: Tensor, are_planes: bool) -> Iterator[Part]:
    """Indices of what kernels work on at once: samples of (B, K, *S) that are planes, and slices, a copy of which is, else."""
    whole = ((sample, slice(None), slice(None)) for sample in range(len(kept)))
    return whole if are_planes else slices(kept, torch.get_num_threads())


# What this and the sigmoid have in common


def slices(logits: Tensor, cores: int = 1) -> Iterator[Part]:
    """Indices of the slices (K, R, ...) of logits (B, K, *S) that are worked on at once, each by so many cores."""
    B, K, S, *rest = logits.shape
    size = CPU_SLICE * cores if logits.device.type == "cpu" else GPU_SLICE
    rows = max(1, size // max(1, K * torch.Size(rest).numel()))
    for sample in range(B):
        for start in range(0, S, rows):
            yield sample, slice(None), slice(start, start + rows)


def as_planes(part: Tensor, dtype: torch.dtype) -> Tensor:
    """A slice (K, R, ..., W) with a plane for each class, whatever the layout of the logits: sums over few classes in a row,
    as channels-last has them, take five times as long.
    """
    return part.to(dtype) if part.stride(-1) == 1 else torch.empty(part.shape, dtype=dtype, device=part.device).copy_(part)


def _planes_for(kept: Tensor, part: Part, dtype: torch.dtype) -> Tensor:
    """Room for a slice (K, R, ..., W) of what is kept: its own, or another where its layout or dtype differ; see `_keep`."""
    own = kept[part]
    return own if own.stride(-1) == 1 and own.dtype == dtype else own.new_empty(own.shape, dtype=dtype)


def _keep(kept: Tensor, part: Part, planes: Tensor) -> None:
    """Put a slice where it is kept, if it was not computed there."""
    if kept[part].data_ptr() != planes.data_ptr():
        kept[part] = planes


def across(values: Tensor, part: Tensor) -> Tensor:
    """Values (K,) that meet a slice (K, R, ...) class by class."""
    return values.view(-1, *[1] * (part.ndim - 1))


def computed_in(logits: Tensor) -> torch.dtype:
    """The dtype in which losses compute: float64 for float64, float32 for all else, as half precision has too few digits."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def known_and_index(classes: Tensor, dtype: torch.dtype) -> tuple[Tensor | None, Tensor]:
    """1 where a class map is not void and 0 where it is, or None where nothing is; and the map with class 0 for void.

    On a GPU, where to look is to wait, it is never None.
    """
    if classes.device.type == "cpu" and (classes.numel() == 0 or classes.min() >= 0):
        return None, classes
    known = classes != VOID
    return known.to(dtype), classes * known


def _sum_by_class(values: Tensor, index: Tensor, num_classes: int) -> Tensor:
    """Sums (K,) of values (R, ..., W) over the pixels of each class in `index` (R, ..., W).

    float32 keeps its digits: a processor sums in float64, a GPU each column of pixels first, so that its threads seldom meet.
    """
    if values.device.type == "cpu":
        sums = torch.zeros(num_classes, dtype=torch.float64)
        return sums.scatter_add_(0, index.flatten(), values.flatten().double()).to(values.dtype)
    W = values.shape[-1]
    columns = values.new_zeros(num_classes, W)
    return columns.scatter_add_(0, index.reshape(-1, W), values.reshape(-1, W)).sum(dim=1)


_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)  # noqa: SLF001


def gradient_over(kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Where the gradient of logits goes: over what was kept for it, (B, K, *S), unless that is needed again or of another
    dtype.

    Raises:
        UsageError: the gradient shall be differentiated once more.
    """
    if torch.is_grad_enabled():
        raise UsageError(
            "a second derivative of this loss is asked for (create_graph=True), and it has only a first; "
            "leave create_graph out, or write the loss with torch.nn.functional"
        )
    return torch.empty_like(kept, dtype=dtype) if _keeps_graph() or kept.dtype != dtype else kept

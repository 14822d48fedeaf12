"""Kernels of the softmax that losses share, float32 on a processor: pixels are read once forward and once backward.

A block of pixels is worked on with all its classes while a core's cache holds it, and threads take spans of blocks. The
exponential and the logarithm are written out, as a loop that calls a library's goes one number at a time and takes ten times
as long; both are within two roundings of float32.

Axes: K classes, N pixels.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from segwright.core.errors import UsageError

BLOCK = 1024  # pixels: with four classes 32 KB, a core's first cache, with a hundred its second
SPAN = 2**17  # numbers, about 0.2 ms of work: with less, starting a thread takes longer than it saves
OVERLAP, PREDICTED, TRUE, LOG_PROBS = range(4)  # rows of the sums

ONE, TWO, ZERO, NAN = np.float32(1), np.float32(2), np.float32(0), np.float32(np.nan)
LN2_HIGH = np.float32(0.693359375)  # ten bits: a whole number times it has no rounding
LN2_LOW = np.float32(math.log(2) - 0.693359375)
LOG2_E = np.float32(1 / math.log(2))
SHIFT = np.float32(1.5 * 2**23)  # added, it leaves a whole number in the low bits of a float32
LOWEST = np.float32(-87)  # e to this is nearly the least float32 with all digits
MANTISSA = 23  # bits
ROOT_HALF = np.int32(0x3F3504F3)  # the bits of the root of 1/2: mantissas are taken from there to the root of 2
E2, E3, E4, E5, E6, E7 = (np.float32(1 / math.factorial(n)) for n in range(2, 8))  # the next term is below a rounding
A3, A5, A7, A9 = (np.float32(1 / n) for n in (3, 5, 7, 9))  # likewise


def softmax_of_planes(
    logits: Tensor, probs: Tensor, classes: Tensor, log_probs: Tensor, *, counts: bool, log_prob_sums: bool
) -> Tensor:
    """Sums float64 (4, K) over the pixels of logits float32 (K, *S) that are not void by their classes int64 (*S): probability
    on its truth, probability anywhere, truth, and log-probability. The last, and the first two, are 0 unless asked for.

    `probs` float32 (K, *S) become the softmax, `log_probs` float32 (*S) those of the true class; both are 0 where void. All
    are contiguous.

    Raises:
        UsageError: a class is neither void nor below K.
    """
    planes, out = (_planes(each) for each in (logits, probs))  # (K, N)
    known, own = (each.view(-1).numpy() for each in (classes, log_probs))  # (N,)
    found = _in_threads(lambda span: _forward(planes, known, span, out, own, counts, log_prob_sums), planes.shape)
    wrong = max(place for _, place in found)
    if wrong >= 0:
        raise UsageError(
            f"the class map holds {known[wrong]}, and the logits have {len(planes)} classes; give classes from 0 to "
            f"{len(planes) - 1}, and -1 for void"
        )
    return torch.from_numpy(np.sum([sums for sums, _ in found], axis=0))


def pull_planes(
    probs: Tensor, classes: Tensor, pulls: Sequence[Tensor | None], of_log_probs: Tensor | None, gradient: Tensor
) -> None:
    """Write the gradient float32 (K, *S) of the logits, perhaps over their softmax `probs`; see _softmax.py for the formula.

    Pulls (K,) are the gradients of each overlap, predicted size and sum of log-probabilities, `of_log_probs` (*S) those of the
    log-probability of the true class; None is 0. The others are contiguous.
    """
    planes, out = (_planes(each) for each in (probs, gradient))  # (K, N)
    of_classes = np.zeros((3, len(planes)), np.float32)
    for row, pull in zip(of_classes, pulls, strict=True):
        row[:] = 0 if pull is None else pull.numpy()
    of_log_probs = torch.zeros(1) if of_log_probs is None else of_log_probs
    is_one = of_log_probs.numel() == 1 or not any(of_log_probs.stride())  # a sum's gradient is one number for all pixels
    of_own = (of_log_probs.flatten()[:1] if is_one else of_log_probs.contiguous().view(-1)).numpy()
    known = classes.view(-1).numpy()
    _in_threads(lambda span: _backward(planes, known, span, of_classes, of_own, out), planes.shape)


def _planes(tensor: Tensor) -> np.ndarray:
    """A contiguous tensor (K, *S) as an array (K, N)."""
    return tensor.view(len(tensor), -1).numpy()


def _in_threads(kernel: Callable[[tuple[int, int]], Any], shape: tuple[int, ...]) -> list[Any]:
    """What a kernel gives for spans of the pixels of planes (K, N), as many as torch takes threads."""
    K, N = shape
    count = max(1, min(torch.get_num_threads(), K * N // SPAN))
    size = max(1, -(-N // (count * BLOCK))) * BLOCK
    spans = [(first, min(first + size, N)) for first in range(0, max(N, 1), size)]
    if len(spans) == 1:
        return [kernel(spans[0])]
    with ThreadPoolExecutor(len(spans)) as pool:  # kernels hold no lock
        return list(pool.map(kernel, spans))


@njit(cache=True, nogil=True, inline="always")
def _exp(x):
    """e to the x <= 0: 2 to a whole number, which is added to the exponent's bits, times a Taylor series; NaN stays."""
    turns = x * LOG2_E + SHIFT
    whole = turns - SHIFT
    rest = x - whole * LN2_HIGH - whole * LN2_LOW  # from -ln(2) / 2 to ln(2) / 2
    series = ONE + rest * (ONE + rest * (E2 + rest * (E3 + rest * (E4 + rest * (E5 + rest * (E6 + rest * E7))))))
    bits = np.float32(series).view(np.int32) + (np.float32(turns).view(np.int32) << MANTISSA)
    return ZERO if x < LOWEST else np.int32(bits).view(np.float32)


@njit(cache=True, nogil=True, inline="always")
def _log(x):
    """Logarithm of x >= 1: that of 2 to a whole number, plus twice a series of the inverse hyperbolic tangent. NaN stays."""
    bits = np.float32(x).view(np.int32)
    whole = np.int32(np.int32(bits - ROOT_HALF) >> MANTISSA)
    mantissa = np.int32(bits - (whole << MANTISSA)).view(np.float32)
    s = (mantissa - ONE) / (mantissa + ONE)
    q = s * s
    series = TWO * s * (ONE + q * (A3 + q * (A5 + q * (A7 + q * A9))))
    return np.float32(whole) * LN2_HIGH + (np.float32(whole) * LN2_LOW + series) if x >= ONE else NAN


@njit(cache=True, nogil=True, fastmath={"contract"})
def _forward(logits, classes, span, probs, log_probs, with_counts, with_log_prob_sums):
    """Sums (4, K) of a span of pixels, and one whose class does not exist, or -1."""
    K = len(logits)
    sums, wrong = np.zeros((4, K)), -1
    rooms = np.empty((3, BLOCK), np.float32)
    for start in range(span[0], span[1], BLOCK):
        end = min(start + BLOCK, span[1])
        top, total, shift = rooms[0, : end - start], rooms[1, : end - start], rooms[2, : end - start]
        _softmax_of_block(logits, start, end, probs, top, total, shift)
        known, own = classes[start:end], log_probs[start:end]
        for i in range(end - start):
            k = known[i]
            if 0 <= k < K:
                own[i] = logits[k, start + i] - top[i] - shift[i]
                sums[TRUE, k] += 1
                if with_counts:
                    sums[OVERLAP, k] += probs[k, start + i]
            else:
                wrong = wrong if k == -1 else start + i
                own[i] = 0
                for j in range(K):
                    probs[j, start + i] = 0
        for k in range(K):
            if with_counts:
                sums[PREDICTED, k] += _sum(probs[k, start:end])
            if with_log_prob_sums:
                sums[LOG_PROBS, k] += _sum_of_log_probs(logits[k, start:end], top, shift, known)
    return sums, wrong


@njit(cache=True, nogil=True, fastmath={"contract"})
def _softmax_of_block(logits, start, end, probs, top, total, shift):
    """The softmax of a block; the highest logit of each pixel, and `shift`, the logarithm of the sum of what is left of it."""
    top[:] = logits[0, start:end]
    for k in range(1, len(logits)):
        x = logits[k, start:end]
        for i in range(end - start):
            top[i] = max(top[i], x[i])
    total[:] = 0
    for k in range(len(logits)):
        x, p = logits[k, start:end], probs[k, start:end]
        for i in range(end - start):
            power = _exp(x[i] - top[i])
            p[i] = power
            total[i] += power
    for i in range(end - start):
        shift[i] = _log(total[i])
        total[i] = ONE / total[i]
    for k in range(len(logits)):
        p = probs[k, start:end]
        for i in range(end - start):
            p[i] *= total[i]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _sum(values):
    total = ZERO
    for i in range(len(values)):
        total += values[i]
    return total


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _sum_of_log_probs(x, top, shift, known):
    total = ZERO
    for i in range(len(x)):
        total += x[i] - top[i] - shift[i] if known[i] >= 0 else ZERO
    return total


@njit(cache=True, nogil=True, fastmath={"contract"})
def _backward(probs, classes, span, pulls, of_log_probs, gradient):
    """The gradient of a span of pixels."""
    of_overlap, of_predicted, of_sums = pulls
    of_all = np.float32(of_sums.sum())
    stride = np.int64(len(of_log_probs) > 1)
    rooms = np.empty((2, BLOCK), np.float32)
    for start in range(span[0], span[1], BLOCK):
        end = min(start + BLOCK, span[1])
        at_truth, middle, known = rooms[0, : end - start], rooms[1, : end - start], classes[start:end]
        for i in range(end - start):
            k = known[i]
            at_truth[i] = probs[k, start + i] * of_overlap[k] + of_log_probs[(start + i) * stride] if k >= 0 else ZERO
            middle[i] = at_truth[i] + of_all
        for k in range(len(probs)):
            p, pull = probs[k, start:end], of_predicted[k]
            for i in range(end - start):
                middle[i] += p[i] * pull
        for k in range(len(probs)):
            p, pull, more, out = probs[k, start:end], of_predicted[k], of_sums[k], gradient[k, start:end]
            for i in range(end - start):
                out[i] = p[i] * (pull - middle[i]) + more
        for i in range(end - start):
            k = known[i]
            if k >= 0:
                gradient[k, start + i] += at_truth[i]
            else:
                for j in range(len(probs)):
                    gradient[j, start + i] = 0

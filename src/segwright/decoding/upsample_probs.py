"""Logits to class probabilities at the full size. Axes: K classes, *s spatial axes of the logits, *S of the probabilities."""

import numpy as np

from segwright.decoding.upsample_argmax import Span, places


def upsample_probs(logits: np.ndarray, shape: tuple[int, ...], spans: tuple[Span, ...] | None = None) -> np.ndarray:
    """The probabilities float32 (K, *S) of float32 logits (K, *s), interpolated linearly at size `shape` before the softmax.

    `spans` is as in `upsample_argmax`, of which each label has the highest of these probabilities. They take as much memory as
    K images of float32.
    """
    spans = spans or tuple((0.0, float(size)) for size in logits.shape[1:])
    probs = np.empty((len(logits), *shape), np.float32)
    for k, values in enumerate(logits):
        for axis, (size, count, span) in enumerate(zip(shape, logits.shape[1:], spans, strict=True)):
            place = places(size, count, span)
            low = np.floor(place).astype(np.int64)
            weight = (place - low).astype(np.float32).reshape(-1, *[1] * (len(shape) - axis - 1))
            first, second = (values.take(np.minimum(low + step, count - 1), axis=axis) for step in (0, 1))
            values = first + weight * (second - first)
        probs[k] = values
    probs -= probs.max(axis=0)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=0)
    return probs

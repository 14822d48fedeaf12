"""Logits to class probabilities at the full size. Axes: K classes, *s spatial axes of the logits, *S of the probabilities."""

import numpy as np

from segwright.decoding.upsample_argmax import Span, places


def upsample_probs(logits: np.ndarray, shape: tuple[int, ...], spans: tuple[Span, ...] | None = None) -> np.ndarray:
    """The probabilities float32 (K, *S) of float32 logits (K, *s), interpolated linearly at size `shape` before the softmax.

    `spans` is as in `upsample_argmax`, of which each label has the highest of these probabilities. They take as much memory as
    K images of float32.
    """
    spans = spans or tuple((0.0, float(size)) for size in logits.shape[1:])
    return probs_at(
        logits, [places(size, count, span) for size, count, span in zip(shape, logits.shape[1:], spans, strict=True)]
    )


def probs_at(logits: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
    """Probabilities float32 (K, *S) at the places `where` of logits (K, *s), one array per axis, as `places` gives them."""
    probs = interpolated(logits, where)
    probs -= probs.max(axis=0)
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=0)
    return probs


def interpolated(maps: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
    """Maps float32 (C, *S) at the places `where` of maps (C, *s), one array per axis, as `places` gives them."""
    result = np.empty((len(maps), *map(len, where)), np.float32)
    for c, values in enumerate(maps):
        for axis, place in enumerate(where):
            low = np.floor(place).astype(np.int64)
            weight = (place - low).astype(np.float32).reshape(-1, *[1] * (len(where) - axis - 1))
            first = values.take(low, axis=axis)
            if weight.any():
                second = values.take(np.minimum(low + 1, values.shape[axis] - 1), axis=axis)
                first = first + weight * (second - first)
            values = first
        result[c] = values
    return result

"""Confusion of logits with a truth, without logits at full size. Axes: K classes, *s of the logits, *S of the truth."""

import numpy as np

from segwright.decoding.upsample_argmax import Span, upsample_argmax
from segwright.metrics.confusion import confusion_matrix


def confusion_of_logits(logits: np.ndarray, truth: np.ndarray, spans: tuple[Span, ...] | None = None) -> np.ndarray:
    """Pixels by true and predicted class, int64 (K, K + 1), of float32 logits (K, *s) and a class map (*S) of integers.

    Equals upsampling the logits to *S, argmax and `confusion_matrix`, up to ties within rounding; what is written is one byte
    per pixel (two beyond 255 classes) instead of 4 K. `spans` are those of `decoding.upsample_argmax`.

    Raises:
        ShapeError: logits and truth differ in their number of axes, which must be 2 or 3.
    """
    return confusion_matrix(upsample_argmax(logits, truth.shape, spans), truth, len(logits))

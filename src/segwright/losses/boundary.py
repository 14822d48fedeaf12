"""Boundary loss: probabilities weighted by how far they lie outside the truth. Axes: B batch, K classes, *S spatial axes.

Source: Kervadec et al. 2019, arXiv 1812.07032. As in the authors' code, distances inside count from the last pixel of the
class and those outside from the same: a pixel at the border is 0 away on one side of it and 1 on the other. The authors
measure the distances when data are read; here that is done for each batch, so crops and augmentation need no second map.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from segwright.core import VOID
from segwright.losses import check_shapes
from segwright.losses.distance_maps import squared_across
from segwright.losses.softmax_slopes import of_softmax


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Mean of the softmax times the signed distance in pixels to the border of the class, negative inside it.

    The mean is over the pixels of the batch that are not void and over the classes; a class that is not in a sample, or fills
    it, costs nothing there, and all that is void 0. Distances are to pixels that are known. The loss is negative where the
    answer is right. It says nothing where a class is missing, so the authors add it to an overlap loss, with a weight that
    rises from 0.01.
    """

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        check_shapes(logits, target)
        return of_softmax(logits, partial(_cost, target))


def _cost(target: Tensor, probs: Tensor, slopes: Tensor | None) -> Tensor:
    """The loss for probs (B, K, *S) and class maps (B, *S); its slopes are written into `slopes`."""
    truth = target.cpu().numpy()
    known = truth != VOID
    count = max(int(known.sum()), 1) * probs.shape[1]
    value = probs.new_zeros(())
    for b in range(probs.shape[0]):
        for k in range(probs.shape[1]):
            is_class = truth[b] == k
            away = torch.from_numpy(squared_across(is_class, known[b])).to(probs).sqrt_()  # (*S)
            inside = torch.from_numpy(is_class).to(probs.device)
            signed = torch.where(inside & (away > 0), 1 - away, away).div_(count)
            value += torch.dot(signed.flatten(), probs[b, k].flatten())
            if slopes is not None:
                slopes[b, k] = signed
    return value

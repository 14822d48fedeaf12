"""Hausdorff loss: errors weighted by how far they lie from the borders. Axes: B batch, K classes, *S spatial axes.

Source: Karimi and Salcudean 2019, arXiv 1904.10030, in the form by distance transforms. Equal to MONAI's HausdorffDTLoss with
softmax, where nothing is void. As there, a map of a class that is empty or full has no border, and counts as 0.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from segwright.core import VOID
from segwright.core.errors import SettingError
from segwright.losses import check_shapes
from segwright.losses.distance_maps import squared_across
from segwright.losses.softmax_slopes import of_softmax

PREDICTED = 0.5  # of probability: above, a pixel lies inside the predicted border, as in the paper


@dataclass(frozen=True, kw_only=True)
class Hausdorff:
    """Mean of (P - T)^2 (d_P^alpha + d_T^alpha) over the classes and the pixels of the batch that are not void.

    P is the softmax, T the truth, and d the distance in pixels to the border of the predicted class and of the true one, both
    constant in the gradient. `alpha` is 1 to 3 in the paper: the higher, the more the largest errors count. Without
    `include_background`, class 0 counts for nothing. A class in neither costs nothing, and all that is void 0.
    """

    alpha: float = 2.0
    include_background: bool = True

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise SettingError(f"alpha is {self.alpha}; give a number above 0, such as 2, by which far errors count more")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        check_shapes(logits, target)
        return of_softmax(logits, partial(self._cost, target))

    def _cost(self, target: Tensor, probs: Tensor, slopes: Tensor | None) -> Tensor:
        """The loss for probs (B, K, *S) and class maps (B, *S); its slopes are written into `slopes`."""
        truth = target.cpu().numpy()
        known = truth != VOID
        classes = range(0 if self.include_background else 1, probs.shape[1])
        count = max(int(known.sum()) * len(classes), 1)
        value = probs.new_zeros(())
        for b in range(probs.shape[0]):
            for k in classes:
                predicted, true = (probs[b, k] > PREDICTED).cpu().numpy(), truth[b] == k
                away = sum(self._weights(squared_across(inside, known[b]), probs) for inside in (predicted, true))  # (*S)
                error = probs[b, k] - torch.from_numpy(true).to(probs)
                weighted = error * away / count
                value += torch.dot(weighted.flatten(), error.flatten())
                if slopes is not None:
                    torch.mul(weighted, 2, out=slopes[b, k])
        return value

    def _weights(self, squared, probs: Tensor) -> Tensor:
        """Distances to the power of alpha (*S), in the dtype of the probs, from their squares, int32 (*S)."""
        weights = torch.from_numpy(squared).to(probs)
        return weights if self.alpha == 2 else weights.pow_(self.alpha / 2)

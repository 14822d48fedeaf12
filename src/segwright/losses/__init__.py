"""One file per loss. The dataclass is the loss: Dice()(logits, target). Axes: B batch, K classes, *S spatial axes.

Logits are (B, K, *S) of any float dtype, a target is a class map int64 (B, *S) with VOID = -1, and the loss a scalar, at least
float32. Where classes overlap, as parts of a tumour do, the target is (B, K, *S) of 1, 0 and VOID, the probability of a class
is the sigmoid of its logit and not the softmax, and the overlap losses and `binary_cross_entropy` take it.

The one rule by which all reduce to a scalar:

* Pixel losses (cross_entropy, focal, ohem, ...) are the mean over all pixels of the batch that are not void, weighted where
  there are weights. The ones of a sigmoid are the mean over pixels and classes.
* Overlap losses (dice, jaccard, tversky, ...) are computed of each sample and class, or of each class over the whole batch
  where `over_batch` says so, and averaged.
* What is all void costs 0 and pulls nothing.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from segwright.core.errors import ShapeError

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Loss(Protocol):
    """What every file of this folder offers: a scalar from logits (B, K, *S) and class maps (B, *S) with VOID = -1."""

    def __call__(self, logits: "Tensor", target: "Tensor") -> "Tensor": ...


def check_shapes(logits: "Tensor", target: "Tensor") -> None:
    """Nothing, where logits (B, K, *S) and a target (B, *S) belong together.

    Raises:
        ShapeError: they do not.
    """
    if logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the target {tuple(target.shape)}; (B, K, *S) and (B, *S) are needed: "
            "upsample the logits first, with torch.nn.functional.interpolate(logits, target.shape[1:], mode='bilinear')"
        )


def are_regions(logits: "Tensor", target: "Tensor") -> bool:
    """Whether a target tells of each class by itself, (B, K, *S) of 1, 0 and VOID as the logits, and is no class map (B, *S).

    Raises:
        ShapeError: it belongs to logits of another shape.
    """
    if target.ndim != logits.ndim:
        check_shapes(logits, target)
        return False
    if target.shape != logits.shape:
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the regions {tuple(target.shape)}; one shape (B, K, *S) is needed: "
            "upsample the logits first, with torch.nn.functional.interpolate(logits, target.shape[2:], mode='bilinear')"
        )
    return True

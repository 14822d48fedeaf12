"""One file per loss. The dataclass is the loss: Dice()(logits, target). Axes: B batch, K classes, *S spatial axes."""

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

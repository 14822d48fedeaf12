"""What a network with auxiliary heads gives in training. Axes: B batch, K classes, *s spatial axes of some logits."""

from typing import NamedTuple

from torch import Tensor


class WithAuxiliary(NamedTuple):
    """The `logits` (B, K, *s), and those of heads on earlier maps, which a loss counts `weights` times as much.

    Such heads help gradients to reach the first layers (deeply supervised nets, arXiv 1409.5185). They are asked in training
    alone: in evaluation a network returns its logits.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weights: tuple[float, ...]

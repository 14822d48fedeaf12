"""Dice loss of the softmax, or of sigmoids for regions: one minus the soft overlap. Axes: B batch, K classes, *S spatial axes.

Source: Milletari et al. 2016, arXiv 1606.04797, with the sum and not the sum of squares below, as in Drozdzal et al. 2016,
arXiv 1608.04117, and in nnU-Net.

Libraries differ in what a class costs that is not in the truth. Here, as in MONAI and nnU-Net, `smooth` stands in both parts
of the fraction, so that it costs nearly 1 and pulls hardly at all. segmentation_models.pytorch leaves out what it costs, yet
divides by all classes; where every class is there, it is this loss with `over_batch` and next to no `smooth`.
"""

from dataclasses import dataclass

from torch import Tensor

from segwright.core.errors import ShapeError
from segwright.losses._overlap import check_smooth, soft_counts
from segwright.losses._softmax import SoftCounts


@dataclass(frozen=True, kw_only=True)
class Dice:
    """1 - (2 |P T| + smooth) / (|P| + |T| + smooth), of each sample and class, then averaged over both.

    P are the probabilities and T the truth, both without the void pixels. A class that is not in the truth of a sample costs
    nearly 1, however small its probabilities are, and pulls hardly at all; a sample that is all void costs 0. `over_batch`
    takes the batch as one sample (nnU-Net's batch_dice), which steadies classes that few samples hold. Without
    `include_background` class 0 is left out, as nnU-Net does; the other classes still feel what is taken for it.
    """

    smooth: float = 1e-5  # of a pixel: keeps 0 / 0 from occurring and changes nothing else
    over_batch: bool = False
    include_background: bool = True

    def __post_init__(self) -> None:
        check_smooth(self.smooth)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S) or regions."""
        return self.of_counts(soft_counts(logits, target))

    def of_counts(self, counts: SoftCounts) -> Tensor:
        """Scalar from the soft counts.

        Raises:
            ShapeError: the background is the only class, and left out.
        """
        counts = counts.over_batch() if self.over_batch else counts
        losses = 1 - (2 * counts.overlap + self.smooth) / (counts.predicted + counts.true + self.smooth)  # (B, K)
        if self.include_background:
            return losses.mean()
        if losses.shape[1] == 1:
            raise ShapeError("there is one class and the background is left out; set include_background, or give two classes")
        return losses[:, 1:].mean()

"""Jaccard loss of the softmax, or of sigmoids for regions: one minus the soft intersection over union. Axes: B batch, K
classes, *S spatial axes.

Source: Rahman and Wang 2016, doi 10.1007/978-3-319-50835-1_22. As in segmentation_models.pytorch, `smooth` is added to
intersection and union; MONAI's DiceLoss with jaccard adds it to twice both. For classes that are not in the truth see `dice`.
"""

from dataclasses import dataclass

from torch import Tensor

from segwright.losses._overlap import check_smooth, soft_counts
from segwright.losses._softmax import SoftCounts


@dataclass(frozen=True, kw_only=True)
class Jaccard:
    """1 - (|P T| + smooth) / (|P| + |T| - |P T| + smooth), of each sample and class, then averaged over both.

    P are the probabilities and T the truth, both without the void pixels. `over_batch` takes the batch as one sample, as
    segmentation_models.pytorch always does.
    """

    smooth: float = 1e-5  # of a pixel: keeps 0 / 0 from occurring and changes nothing else
    over_batch: bool = False

    def __post_init__(self) -> None:
        check_smooth(self.smooth)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S) or regions."""
        return self.of_counts(soft_counts(logits, target))

    def of_counts(self, counts: SoftCounts) -> Tensor:
        """Scalar from the soft counts."""
        counts = counts.over_batch() if self.over_batch else counts
        union = counts.predicted + counts.true - counts.overlap
        return (1 - (counts.overlap + self.smooth) / (union + self.smooth)).mean()

"""Focal Tversky loss of the softmax, or of sigmoids for regions. Axes: B batch, K classes, *S spatial axes.

Source: Abraham and Khan 2019, arXiv 1810.07842, who write the exponent as 1 / gamma and find gamma = 4/3 best; here `gamma`
is the exponent itself. They sum over classes, here it is the mean. segmentation_models.pytorch's TverskyLoss takes the mean
first and its power after; with one class that is the same.
"""

from dataclasses import dataclass

from torch import Tensor

from segwright.core.errors import SettingError
from segwright.losses._overlap import soft_counts
from segwright.losses._softmax import SoftCounts
from segwright.losses.tversky import Tversky


@dataclass(frozen=True, kw_only=True)
class FocalTversky:
    """The Tversky loss of each sample and class to the power of `gamma`, then averaged over both; settings as in `tversky`.

    An exponent below 1 makes classes that are nearly right pull harder, one above 1 those that are still wrong.
    """

    false_positive_weight: float = 0.3
    false_negative_weight: float = 0.7
    gamma: float = 0.75
    smooth: float = 1e-5  # of a pixel: keeps 0 / 0 from occurring and changes nothing else
    over_batch: bool = False

    def __post_init__(self) -> None:
        self._tversky()
        if not self.gamma > 0:
            raise SettingError(f"gamma is {self.gamma}; give an exponent above 0, such as 0.75, the paper's")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S) or regions."""
        return self.of_counts(soft_counts(logits, target))

    def of_counts(self, counts: SoftCounts) -> Tensor:
        """Scalar from the soft counts."""
        losses = self._tversky().of_classes(counts)
        return (losses.clamp(min=1e-8) ** self.gamma).mean()  # 1e-8: at 0 a power below 1 would have an endless slope

    def _tversky(self) -> Tversky:
        return Tversky(
            false_positive_weight=self.false_positive_weight,
            false_negative_weight=self.false_negative_weight,
            smooth=self.smooth,
            over_batch=self.over_batch,
        )

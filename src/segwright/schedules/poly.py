"""The "poly" decay of DeepLab (Chen et al. 2018, arXiv 1606.00915), which PSPNet, SegFormer and nnU-Net took over."""

from dataclasses import dataclass

from segwright.core.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Poly:
    """(1 - progress) ** power; 0.9 in DeepLab, PSPNet and nnU-Net, 1 in SegFormer."""

    power: float = 0.9

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise SettingError(f"schedule.power is {self.power}; give a number above 0, such as 0.9")

    def __call__(self, progress: float) -> float:
        """Share of the peak learning rate at `progress` 0 to 1 of a run; 0 beyond."""
        return max(0.0, 1 - progress) ** self.power

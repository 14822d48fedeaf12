"""A network of one's own: where something is, as one weight a pixel. Axes: B batch, C channels, H, W."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Config:
    in_channels: int = 3
    width: int = 8

    def build(self) -> nn.Module:
        return Where(self)


class Where(nn.Module):
    divisors = (4, 4)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(config.in_channels, config.width, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(config.width, 1, 1)
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Heat (B, 1, H/4, W/4), of mean 1 over an image, and its logit."""
        logit = self.layers(image)
        return {"heat": logit.flatten(1).softmax(dim=1).view_as(logit) * logit[0].numel(), "logit": logit}

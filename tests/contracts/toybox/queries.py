"""A network of queries in a hundred lines: each query is a vector that pixels are compared with. Axes: B, C, Q, K, N, H, W."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from segwright.layers.query_masks import QueryMasks

TASKS = ("panoptic", "instance", "semantic")


@dataclass(frozen=True, kw_only=True)
class Config:
    in_channels: int = 3
    num_classes: int = 3
    queries: int = 12
    width: int = 16

    def build(self) -> nn.Module:
        return Queries(self)


class Queries(nn.Module):
    divisors = (4, 4)
    OUTPUT = "queries"

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.pixels = nn.Sequential(
            nn.Conv2d(config.in_channels + 2, width, 5, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        self.queries = nn.Parameter(torch.randn(config.queries, width))
        self.mix = nn.Linear(width, width)
        self.classes = nn.Linear(width, config.num_classes + 1)

    def forward(self, image, truth=None, generator=None):
        """`QueryMasks`, or with a truth the terms of the loss."""
        height, width = image.shape[2:]
        rows = torch.linspace(-1, 1, height, device=image.device)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width, device=image.device).expand(height, width)
        places = torch.stack([rows, columns]).expand(len(image), 2, height, width)
        pixels = self.pixels(torch.cat([image, places], dim=1))  # (B, C, H/4, W/4)
        masks = torch.einsum("qc,bchw->bqhw", self.queries, pixels)
        seen = torch.einsum("bqhw,bchw->bqc", masks.sigmoid(), pixels) / masks[0, 0].numel()
        found = QueryMasks(self.classes(torch.relu(self.mix(seen) + self.queries)), masks)
        return found if truth is None else losses(found, truth)


def losses(found: QueryMasks, truth) -> dict[str, Tensor]:
    """Cross-entropy of classes and of pixels, each query paired with the segment that it is most alike."""
    classes, pixels = [], []
    for logits, masks, (_, class_ids, planes) in zip(*found, truth, strict=True):
        numbers = torch.arange(1, 1 + len(class_ids), device=planes.device)
        segments = (planes[:, 2::4, 2::4] == numbers[:, None, None, None]).any(1).flatten(1).float()  # (N, H*W/16)
        flat = masks.flatten(1)  # (Q, H*W/16)
        with torch.no_grad():
            alike = flat.sigmoid() @ segments.T / segments.sum(1).clamp(min=1)
            cost = -logits.softmax(1)[:, class_ids] - 2 * alike + 4 * flat.sigmoid() @ (1 - segments).T / flat.shape[1]
        query, segment = map(torch.as_tensor, linear_sum_assignment(cost.numpy()))
        wanted = torch.full((len(logits),), logits.shape[1] - 1)
        wanted[query] = class_ids[segment]
        classes.append(F.cross_entropy(logits, wanted))
        pixels.append(F.binary_cross_entropy_with_logits(flat[query], segments[segment], reduction="sum") / flat.shape[1])
    return {"classes": torch.stack(classes).mean(), "pixels": 2 * torch.stack(pixels).mean()}

"""The engine that encodes images for a promptable network: a quicker one than PyTorch's float32 where it says the same.

The same is what the masks say: those that an embedding gives to a grid of points must overlap with those of float32 by 99 %.
Picking takes a minute for a large encoder, and is remembered, so that it is done only where many images are at hand.

Axes: B batch, C channels, E channels of the embedding, H, W sides of the image, h, w of its embedding, P points.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segwright.decoding.run import Outputs
from segwright.inference.engine import AutoEngine
from segwright.layers.prompts import Prompts

LEAST_IOU = 0.99  # of masks, below which an engine says something else
PATIENCE_S = 30.0  # half of what picking takes for ViT-B
STRIDE = 16  # pixels of the image for one of an embedding
POINTS_PER_SIDE = 4  # of the grid that masks are asked for


class _Encoder(nn.Module):
    """Image (B, C, H, W) to embedding (B, E, h, w), as a network of its own."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.encode(image)


def embedding_engine(network: Any) -> AutoEngine:
    """The engine of a promptable network's encoder: images float32 (B, C, H, W) to a tuple of their embedding (B, E, h, w)."""

    def agreement(outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        return embedding_agreement(network, *(torch.from_numpy(np.array(each[0])) for each in (outputs, reference)))

    return AutoEngine(_Encoder(network), agreement, least=LEAST_IOU, patience_s=PATIENCE_S)


def embedding_agreement(network: Any, embedding: Tensor, reference: Tensor) -> float:
    """The mean overlap (IoU) of the masks that two embeddings (1, E, h, w) of one image give to a grid of points, from 0 to 1.

    Of the three masks for a point the one counts that the reference scores highest; where neither has a pixel they agree.
    """
    device = next(network.parameters()).device
    sides = [int(side) * STRIDE for side in reference.shape[2:]]
    line = (torch.arange(POINTS_PER_SIDE, device=device) + 0.5) / POINTS_PER_SIDE
    y, x = torch.meshgrid(line * sides[0], line * sides[1], indexing="ij")
    points = torch.stack([x, y], dim=-1).reshape(1, -1, 1, 2)  # (1, P, 1, 2)
    prompts = Prompts(points, torch.ones(points.shape[:3], dtype=torch.int64, device=device))
    with torch.inference_mode():
        found, wanted = (network.decode(each.to(device), prompts, multimask=True) for each in (embedding, reference))
    best = wanted.scores.argmax(dim=2)[..., None, None, None].expand(-1, -1, -1, *wanted.mask_logits.shape[3:])
    ours, theirs = (each.mask_logits.gather(2, best) > 0 for each in (found, wanted))
    both, either = (part.flatten(2).sum(dim=2) for part in (ours & theirs, ours | theirs))
    return float(torch.where(either > 0, both / either.clamp(min=1), 1.0).mean())

"""Points, boxes and earlier masks as tokens and maps: the prompt encoder of Segment Anything (arXiv 2304.02643) and of SAM 2.

Axes: B images, P prompts of each, T tokens of a prompt, E channels, h, w sides of an embedding, N = h * w patches, S maps of
patches of an image (1 while all prompts share it, else P).
"""

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.norms import ChannelNorm
from segwright.layers.prompts import Prompts, check_labels

MASK_WIDTH = 16  # channels of an earlier mask before it joins the embedding
EPS = 1e-6  # of norms beside convolutions, in the authors' code
NO_POINT, CORNER, KINDS = 0, 3, 5  # rows of the table: no point, beside the object, on it, first corner, second corner


class PromptEncoder(nn.Module):
    """Points and corners of boxes as tokens, and earlier masks as what is added to an embedding.

    A place becomes sines and cosines of its products with random directions, which are kept with the weights. Points without
    a box are followed by a token for no point, with which the authors trained; with `ends_boxes`, as in SAM 2, boxes are too.
    """

    directions: Tensor

    def __init__(self, width: int, *, ends_boxes: bool) -> None:
        super().__init__()
        self.ends_boxes = ends_boxes
        self.register_buffer("directions", torch.randn(2, width // 2))  # of x and of y
        self.kinds = nn.Parameter(torch.randn(KINDS, width))
        self.no_mask = nn.Parameter(torch.randn(width))
        narrow = MASK_WIDTH // 4
        self.shrink = nn.Sequential(
            nn.Conv2d(1, narrow, 2, stride=2),
            ChannelNorm(narrow, eps=EPS),
            nn.GELU(),
            nn.Conv2d(narrow, MASK_WIDTH, 2, stride=2),
            ChannelNorm(MASK_WIDTH, eps=EPS),
            nn.GELU(),
            nn.Conv2d(MASK_WIDTH, width, 1),
        )

    def tokens(self, prompts: Prompts, counts: tuple[int, int], sides: tuple[int, int]) -> Tensor:
        """The tokens of points, of corners, and where it is due one for no point, for B x P prompts: (B, P, T, E).

        Places are in pixels of an image of so many columns and rows. A prompt without points and box has no tokens.
        """
        kinds = self.kinds
        found = [kinds.new_zeros(*counts, 0, kinds.shape[1])]
        if prompts.points_xy is not None and prompts.labels is not None:
            check_labels(prompts.labels)
            rows = prompts.labels.long() + 1
            places = self._places(self._shares(prompts.points_xy, sides)) * (rows != NO_POINT)[..., None]
            found.append(places + F.embedding(rows, kinds))
        if prompts.boxes_xyxy is not None:
            corners = self._shares(prompts.boxes_xyxy.unflatten(-1, (2, 2)), sides)
            found.append(self._places(corners) + kinds[CORNER:])
        if len(found) > 1 and (self.ends_boxes or prompts.boxes_xyxy is None):
            found.append(kinds[NO_POINT].expand(*counts, 1, -1))
        return torch.cat(found, dim=2)

    def dense(self, prompts: Prompts, dtype: torch.dtype) -> Tensor:
        """What an earlier mask adds to the embedding (B, P, N, E), or its absence (E,)."""
        if prompts.mask_logits is None:
            return self.no_mask.to(dtype)
        small = self.shrink(prompts.mask_logits.flatten(0, 1)[:, None].to(self.no_mask.dtype))  # (B * P, E, h, w)
        return small.flatten(2).transpose(-2, -1).unflatten(0, tuple(prompts.mask_logits.shape[:2])).to(dtype)

    def grid(self, h: int, w: int) -> Tensor:
        """The places of the patches of an embedding, row by row (N, E)."""
        y, x = ((torch.arange(side, device=self.directions.device) + 0.5) / side for side in (h, w))
        places = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).to(self.directions.dtype)
        return self._places(places).flatten(0, 1)

    def _shares(self, points_xy: Tensor, sides: tuple[int, int]) -> Tensor:
        """Points in pixels as shares of the image's sides."""
        return points_xy.to(self.directions.dtype) / self.directions.new_tensor(sides)

    def _places(self, shares: Tensor) -> Tensor:
        """Places (..., 2), as shares of the image's sides, as sines and cosines (..., E)."""
        with torch.autocast("cpu" if shares.device.type == "meta" else shares.device.type, enabled=False):
            angles = 2 * pi * ((2 * shares - 1) @ self.directions)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

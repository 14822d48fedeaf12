"""Which boxes a loss looks at: Fast R-CNN (Girshick 2015, arXiv 1504.08083, section 2.3). Axes: n boxes."""

import torch
from torch import Tensor


def sample_boxes(
    matches: Tensor, count: int, positive_share: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Indices int64 of boxes with an object and of boxes with none, drawn from the matches (n,) of `match_boxes`.

    Both together are up to `count`; the share of the first is at most `positive_share`, and less where there are too few.
    """
    positives = _drawn(matches >= 0, int(count * positive_share), generator)
    return positives, _drawn(matches == -1, count - len(positives), generator)


def _drawn(is_candidate: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Up to `count` indices of what is true in a bool tensor (n,), in random order.

    The numbers are drawn where the generator lives.
    """
    candidates = is_candidate.nonzero().flatten()
    device = candidates.device if generator is None else generator.device
    order = torch.randperm(len(candidates), generator=generator, device=device)
    return candidates[order[:count].to(candidates.device)]

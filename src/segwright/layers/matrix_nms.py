"""Matrix NMS: suppresses masks by all others at once, in SOLOv2 (Wang et al. 2020, arXiv 2003.10152, section 3.3).

Greedy suppression goes from mask to mask. Here the score of each mask is multiplied by what the worst of the surer masks leaves
of it, and a mask that is itself suppressed has less of a say. The paper finds this as quick as Fast NMS (500 masks in less than
a millisecond on a GPU) and 0.4 AP better on COCO. Scores are lowered, as Soft-NMS does, and nothing is removed.

Axes: N masks, n pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from segwright.core.errors import ShapeError

SIGMA = 2  # of the Gaussian, in the published networks
EXACT = torch.float32  # counts pixels to 16 777 216
LEAST = 1e-6  # of what a linear decay leaves: keeps 0 / 0 from occurring and changes nothing else


def gaussian_decay(overlap: Tensor) -> Tensor:
    """What masks that overlap by an intersection over union (any shape, 0 to 1) leave of each other, exp(-2) to 1."""
    return torch.exp(-SIGMA * overlap.square())


def linear_decay(overlap: Tensor) -> Tensor:
    """What masks that overlap by an intersection over union (any shape, 0 to 1) leave of each other, next to 0 to 1."""
    return (1 - overlap).clamp(min=LEAST)


def matrix_nms(masks: Tensor, scores: Tensor, class_ids: Tensor, decay: Callable[[Tensor], Tensor] = gaussian_decay) -> Tensor:
    """Scores (N,), each lowered by the surer masks of its class, of masks bool (N, n), their scores and class ids (N,).

    The surest must come first. A mask without pixels lowers none and is lowered by none.

    Raises:
        ShapeError: there are not as many of each.
    """
    if not len(masks) == len(scores) == len(class_ids):
        raise ShapeError(
            f"{len(masks)} masks, {len(scores)} scores and {len(class_ids)} class ids were given; give one of each per object"
        )
    if not len(masks):
        return scores
    overlap = _overlaps(masks) * (class_ids[:, None] == class_ids[None])
    overlap = torch.triu(overlap, diagonal=1)  # [i, j]: how much of j the surer i takes
    own_worst = overlap.amax(dim=0)  # (N,) of i, by which its say is divided
    left = (decay(overlap) / decay(own_worst)[:, None]).amin(dim=0)  # the surest mask of all keeps each at 1 or below
    return scores * left.to(scores.dtype)


def _overlaps(masks: Tensor) -> Tensor:
    """Intersections over unions float32 (N, N) of masks bool (N, n); half precision cannot count so far."""
    with torch.autocast("cpu" if masks.is_meta else masks.device.type, enabled=False):
        pixels = masks.to(EXACT)
        shared = pixels @ pixels.T
    areas = pixels.sum(dim=1)
    return shared / (areas[:, None] + areas[None] - shared).clamp(min=1)

"""What promptable networks are asked, and what they answer.

Axes: B images, P prompts of each, N points of a prompt, M masks of a prompt, h, w sides of masks.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from segwright.core.errors import ShapeError

SURE = 8.0  # the logit of a pixel of a mask that a person drew, and the negative of one beside it


class Prompts(NamedTuple):
    """P prompts for each of B images; each prompt is one object, and all have the same parts.

    `points_xy` (B, P, N, 2) and `boxes_xyxy` (B, P, 4) are in pixels of the image that went into the network, centres of pixels
    at +0.5; a box is known by its two corners. `labels` int64 (B, P, N): 1 for a point on the object, 0 beside it, -1 for a
    place that holds no point. `mask_logits` (B, P, h, w) are an earlier answer to be refined, of the size of an answer.
    """

    points_xy: Tensor | None = None
    labels: Tensor | None = None
    boxes_xyxy: Tensor | None = None
    mask_logits: Tensor | None = None


class PromptedMasks(NamedTuple):
    """M answers to each prompt, in no order: `mask_logits` (B, P, M, h, w), which cover the image, and `scores` (B, P, M).

    A pixel belongs to the object where its logit, brought bilinearly to the size of the image, is above 0. A score is the
    overlap with the truth (IoU) that the network expects.
    """

    mask_logits: Tensor
    scores: Tensor


def count_prompts(prompts: Prompts, images: int, mask_sides: tuple[int, int]) -> int:
    """How many prompts each of so many images has; 1 where they have no part at all.

    Raises:
        ShapeError: the parts do not go with each other, with the images, or with the sides of masks.
    """
    if (prompts.points_xy is None) != (prompts.labels is None):
        raise ShapeError(
            f"prompts have {'labels but no points' if prompts.points_xy is None else 'points but no labels'}; give both or "
            "neither, with one label, 1, 0 or -1, for each point"
        )
    wanted = {"points_xy": "(B, P, N, 2)", "labels": "(B, P, N)", "boxes_xyxy": "(B, P, 4)", "mask_logits": "(B, P, h, w)"}
    axes, last = {"points_xy": 4, "labels": 3, "boxes_xyxy": 3, "mask_logits": 4}, {"points_xy": 2, "boxes_xyxy": 4}
    count = None
    for name, part in prompts._asdict().items():
        if part is None:
            continue
        given = " x ".join(map(str, part.shape))
        if part.ndim != axes[name] or (name in last and part.shape[-1] != last[name]):
            raise ShapeError(f"{name} of the prompts are {given}, and {wanted[name]} is needed; a single prompt is P = 1")
        count = part.shape[1] if count is None else count
        if tuple(part.shape[:2]) != (images, count):
            raise ShapeError(
                f"{name} are of {part.shape[0]} images with {part.shape[1]} prompts, but there are {images} images and the "
                f"prompts before are {count}; give each part with the axes {images} x {count} first"
            )
    if prompts.points_xy is not None and prompts.labels is not None and prompts.points_xy.shape[:3] != prompts.labels.shape:
        raise ShapeError(
            f"there are {prompts.points_xy.shape[2]} points and {prompts.labels.shape[2]} labels; give one for each point"
        )
    if prompts.mask_logits is not None and tuple(prompts.mask_logits.shape[2:]) != mask_sides:
        given, needed = (" x ".join(map(str, sides)) for sides in (prompts.mask_logits.shape[2:], mask_sides))
        raise ShapeError(
            f"earlier masks are {given}, and this image has masks of {needed}; give the mask_logits of an earlier answer, or "
            "resize yours with torch.nn.functional.interpolate"
        )
    return 1 if count is None else count


def check_labels(labels: Tensor) -> None:
    """See that labels are -1, 0 or 1.

    Raises:
        ShapeError: one is something else.
    """
    if labels.device.type != "cpu" or torch.jit.is_tracing() or not labels.numel():  # elsewhere it would be waited for
        return
    low, high = int(labels.min()), int(labels.max())
    if low < -1 or high > 1:
        raise ShapeError(f"labels of points run from {low} to {high}; 1 is on the object, 0 beside it and -1 no point at all")

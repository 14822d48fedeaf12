"""What goes together in prompts. Axes: B images, P prompts, N points, h, w sides of masks."""

import pytest
import torch

from segwright.core.errors import ShapeError
from segwright.layers.prompts import Prompts, check_labels, count_prompts

POINTS, LABELS = torch.zeros(2, 3, 4, 2), torch.zeros(2, 3, 4, dtype=torch.int64)
BOXES, MASKS = torch.zeros(2, 3, 4), torch.zeros(2, 3, 8, 6)


@pytest.mark.parametrize(
    ("prompts", "count"),
    [
        (Prompts(), 1),
        (Prompts(POINTS, LABELS), 3),
        (Prompts(boxes_xyxy=BOXES), 3),
        (Prompts(mask_logits=MASKS), 3),
        (Prompts(POINTS, LABELS, BOXES, MASKS), 3),
        (Prompts(POINTS[:, :, :0], LABELS[:, :, :0]), 3),
    ],
)
def test_by_hand(prompts, count):
    assert count_prompts(prompts, 2, (8, 6)) == count


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Prompts(POINTS), "have points but no labels; give both or neither"),
        (Prompts(labels=LABELS), "have labels but no points; give both or neither"),
        (Prompts(POINTS[0], LABELS[0]), r"points_xy of the prompts are 3 x 4 x 2, and \(B, P, N, 2\) is needed"),
        (Prompts(boxes_xyxy=BOXES[..., :2]), r"boxes_xyxy of the prompts are 2 x 3 x 2, and \(B, P, 4\) is needed"),
        (Prompts(POINTS, LABELS[:, :, :2]), "there are 4 points and 2 labels; give one for each point"),
        (Prompts(POINTS, LABELS, BOXES[:, :1]), "boxes_xyxy are of 2 images with 1 prompts, .* the axes 2 x 3 first"),
        (Prompts(boxes_xyxy=BOXES[:1]), "boxes_xyxy are of 1 images with 3 prompts, but there are 2 images"),
        (
            Prompts(mask_logits=MASKS[..., :5]),
            "earlier masks are 8 x 5, and this image has masks of 8 x 6; give the mask_logits",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(prompts, message):
    with pytest.raises(ShapeError, match=message):
        count_prompts(prompts, 2, (8, 6))


def test_labels_are_one_of_three():
    check_labels(torch.tensor([[[-1, 0, 1]]]))
    check_labels(torch.zeros(1, 1, 0, dtype=torch.int64))
    for wrong in (-2, 2):
        with pytest.raises(ShapeError, match="labels of points run from .* 1 is on the object"):
            check_labels(torch.tensor([[[0, wrong]]]))

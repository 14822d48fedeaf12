"""Prompts as tokens. Parity is in tests/models/test_sam2.py. Axes: B, P, T, E, h, w."""

from math import cos, pi, sin

import pytest
import torch

from segwright.core.errors import ShapeError
from segwright.layers.prompt_encoder import CORNER, NO_POINT, PromptEncoder
from segwright.layers.prompts import Prompts


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PromptEncoder(8, ends_boxes=True)


def test_by_hand_a_point_is_its_place_and_its_kind(encoder):
    points = torch.tensor([[[[12.0, 2.0]]]])
    with torch.no_grad():
        tokens = encoder.tokens(Prompts(points, torch.tensor([[[1]]])), (1, 1), (16, 8))
        angles = [2 * pi * float(0.5 * encoder.directions[0, k] - 0.5 * encoder.directions[1, k]) for k in range(4)]
        wanted = torch.tensor([*map(sin, angles), *map(cos, angles)]) + encoder.kinds[2]
        torch.testing.assert_close(tokens[0, 0, 0], wanted)
        assert torch.equal(tokens[0, 0, 1], encoder.kinds[NO_POINT]) and tokens.shape == (1, 1, 2, 8)


def test_a_box_is_two_points_of_its_own_kinds_and_a_place_without_a_point_has_none(encoder):
    corners = torch.tensor([[[2.0, 1.0, 9.0, 6.0]]])
    points, labels = torch.tensor([[[[2.0, 1.0], [9.0, 6.0]]]]), torch.tensor([[[1, -1]]])
    with torch.no_grad():
        box = encoder.tokens(Prompts(boxes_xyxy=corners), (1, 1), (16, 8))[0, 0]
        both = encoder.tokens(Prompts(points, labels, corners), (1, 1), (16, 8))[0, 0]
        torch.testing.assert_close(box[0] - encoder.kinds[CORNER], both[0] - encoder.kinds[2])
        assert torch.equal(both[1], encoder.kinds[NO_POINT]) and torch.equal(both[2:], box)
        assert len(box) == 3 and encoder.tokens(Prompts(), (2, 3), (16, 8)).shape == (2, 3, 0, 8)


def test_in_segment_anything_points_alone_are_ended():
    torch.manual_seed(0)
    encoder, corners = PromptEncoder(8, ends_boxes=False), torch.tensor([[[2.0, 1.0, 9.0, 6.0]]])
    points, labels = torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[1]]])
    with torch.no_grad():
        counts = [
            encoder.tokens(prompts, (1, 1), (16, 8)).shape[2]
            for prompts in (Prompts(points, labels), Prompts(boxes_xyxy=corners), Prompts(points, labels, corners))
        ]
    assert counts == [2, 2, 3]


def test_an_earlier_mask_is_added_patch_by_patch(encoder):
    masks = torch.randn(2, 3, 8, 12)
    with torch.no_grad():
        dense = encoder.dense(Prompts(mask_logits=masks), torch.float32)
        assert dense.shape == (2, 3, 6, 8)
        torch.testing.assert_close(dense[1, 2], encoder.dense(Prompts(mask_logits=masks[1:, 2:]), torch.float32)[0, 0])
        assert torch.equal(encoder.dense(Prompts(), torch.float32), encoder.no_mask)


def test_places_of_patches_are_those_of_their_centres(encoder):
    centre = torch.tensor([[[[24.0, 8.0]]]])
    with torch.no_grad():
        token = encoder.tokens(Prompts(centre, torch.tensor([[[0]]])), (1, 1), (48, 32))[0, 0, 0]
        torch.testing.assert_close(encoder.grid(2, 3)[1], token - encoder.kinds[1])


def test_a_label_that_says_nothing_is_refused(encoder):
    with pytest.raises(ShapeError, match="labels of points run from 0 to 2; 1 is on the object"):
        encoder.tokens(Prompts(torch.zeros(1, 1, 2, 2), torch.tensor([[[0, 2]]])), (1, 1), (16, 8))

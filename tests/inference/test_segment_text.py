"""Texts to masks, by a detector that is seen through. Axes: C, H, W, N objects."""

import numpy as np
import pytest
import torch
from torch import nn

from segwright.core import Sample
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.inference.prompting import Prompter
from segwright.inference.segment_text import segment_text
from segwright.inference.text_detector import TextObjects
from segwright.layers.prompts import PromptedMasks

SIDE = 64


class Filled(nn.Module):
    """Answers a box with all of it, and a box of less than four pixels' width with nothing."""

    divisors = (16, 16)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.counts = []

    def encode(self, image):
        return torch.zeros(1, 1, image.shape[2] // 16, image.shape[3] // 16)

    def decode(self, embedding, prompts, *, multimask):
        assert not multimask
        boxes = prompts.boxes_xyxy[0] / 4
        self.counts.append(len(boxes))
        y, x = (torch.arange(4 * side) + 0.5 for side in embedding.shape[2:])
        left, top, right, bottom = (boxes[:, at, None] for at in range(4))
        inside = ((y > top) & (y < bottom))[:, :, None] & ((x > left) & (x < right))[:, None]
        return PromptedMasks(torch.where(inside, 200.0, -200.0)[None, :, None], torch.ones(1, len(boxes), 1))


class Told:
    """Stands for a detector that finds what it was told."""

    kind = "told"

    def __init__(self, boxes, class_ids, scores, masks=None):
        self.found = TextObjects(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, int), np.array(scores, np.float32), masks
        )
        self.gives_masks = masks is not None
        self.asked = []

    def find(self, picture, texts, *, min_score=None):
        self.asked.append((picture.shape, picture.dtype, tuple(texts), min_score))
        return self.found


@pytest.fixture
def prompter():
    return Prompter(network=Filled(), side=SIDE)


SAMPLE = Sample.of("a", np.zeros((3, SIDE, SIDE), np.uint8))


def test_by_hand_each_text_is_a_class_with_its_objects_the_largest_first(prompter):
    detector = Told([[0, 0, 8, 8], [8, 0, 40, 32], [40, 40, 41, 41], [4, 4, 24, 20]], [0, 1, 0, 0], [0.9, 0.8, 0.7, 0.6])
    objects = segment_text(prompter, detector, SAMPLE, ["cat ", "dog"], min_score=0.3)
    assert detector.asked == [((SIDE, SIDE, 3), np.uint8, ("cat", "dog"), 0.3)]
    assert objects.classes.names == ("cat", "dog") and objects.class_ids.tolist() == [1, 0, 0]  # one is drawn with no pixel
    assert objects.instance_ids.tolist() == [1, 2, 3]
    np.testing.assert_allclose(objects.scores, [0.8, 0.6, 0.9])
    assert objects.boxes_xyxy()[0].tolist() == [8, 0, 40, 32] and objects.mask(0)[:32, 8:40].mean() > 0.95


def test_where_nothing_is_found_there_are_no_objects_and_nothing_is_encoded(prompter):
    objects = segment_text(prompter, Told([], [], []), SAMPLE, ["cat"])
    assert len(objects) == 0 and objects.shape == (SIDE, SIDE) and objects.classes.names == ("cat",)
    assert not prompter.network.counts


def test_many_boxes_are_answered_so_many_at_a_time(prompter):
    boxes = [[0, 0, 8 + number % 40, 8] for number in range(150)]
    objects = segment_text(prompter, Told(boxes, [0] * 150, [0.5] * 150), SAMPLE, ["cat"])
    assert len(objects) == 150 and prompter.network.counts == [64, 64, 22]


def test_masks_of_a_detector_are_taken_as_they_are():
    masks = np.zeros((3, 5, 6), bool)
    masks[0, 1:3, 1:3] = masks[1, :, :4] = True
    detector = Told([[1, 1, 3, 3], [0, 0, 4, 5], [0, 0, 1, 1]], [0, 1, 0], [0.5, 0.4, 0.3], masks)
    objects = segment_text(None, detector, Sample.of("a", np.zeros((1, 5, 6), np.uint16)), ["cat", "dog"])
    assert objects.class_ids.tolist() == [1, 0]  # the third mask has no pixel
    assert np.array_equal(objects.mask(0), masks[1]) and np.array_equal(objects.mask(1), masks[0])
    assert detector.asked[0][:2] == ((5, 6, 3), np.uint8)


def test_what_cannot_be_done_is_told(prompter):
    detector = Told([], [], [])
    with pytest.raises(
        SettingError, match="told finds boxes, and nothing draws masks in them; give a prompter, of open_prompter"
    ):
        segment_text(None, detector, SAMPLE, ["cat"])
    with pytest.raises(ShapeError, match="it is a volume .* save one slice of it as an image"):
        segment_text(prompter, detector, Sample.of("v", np.zeros((1, 4, 5, 6), np.uint8)), ["cat"])
    with pytest.raises(UsageError, match="a text is blank"):
        segment_text(prompter, detector, SAMPLE, [""])
    assert not detector.asked

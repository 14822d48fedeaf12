"""In which precision frames are followed. Axes: P, H, W."""

import pytest
import torch
from torch import nn

from segwright.inference import frame_precision
from segwright.inference.frame_precision import FramePrecision, least_overlap
from segwright.models.sam2 import ObjectAnswers


def answers(*masks: list[float]) -> ObjectAnswers:
    """Masks of one row each, of objects that are seen."""
    logits = torch.tensor(masks)[:, None]
    return ObjectAnswers(logits, *(torch.ones(len(masks)) for _ in range(2)), torch.zeros(len(masks), 4))


class Wavering(nn.Module):
    """A network that says one thing in float32, and another in half."""

    def __init__(self, whole: ObjectAnswers, half: ObjectAnswers) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.whole, self.half, self.asked = whole, half, []

    def encode(self, image):
        return image.bfloat16() + 1 if torch.is_autocast_enabled("cpu") else image

    def answer(self, embedding, *, memory):
        self.asked.append((torch.is_autocast_enabled("cpu"), float(embedding)))
        return ObjectAnswers(*(part.bfloat16() for part in self.half)) if self.asked[-1][0] else self.whole


@pytest.fixture(autouse=True)
def knows_bfloat16(monkeypatch):
    monkeypatch.setattr(frame_precision, "cpu_knows_bfloat16", lambda: True)


def test_by_hand_the_least_overlap():
    wanted = answers([1.0, 1, 1, -1], [-1.0, -1, -1, -1])
    assert least_overlap(wanted, wanted) == 1
    assert least_overlap(answers([2.0, 2, -2, -2], [-1.0, -1, -1, -1]), wanted) == pytest.approx(2 / 3)
    assert least_overlap(answers([1.0, 1, 1, -1], [1.0, -1, -1, -1]), wanted) == 0


def follow(precision: FramePrecision, frame: float) -> ObjectAnswers:
    return precision.answer(precision.encode(torch.tensor(frame)), "memory")


@pytest.mark.parametrize(("half", "takes_half"), [([2.0, -2], True), ([2.0, 2], False)])
def test_half_is_taken_once_a_frame_s_masks_are_the_same(half, takes_half):
    network = Wavering(answers([1.0, -1]), answers(half))
    precision = FramePrecision(network)
    first = follow(precision, 3)
    assert first.mask_logits.flatten().tolist() == [1, -1] and network.asked == [(False, 3), (True, 4)]  # each saw its own
    then = follow(precision, 5)
    assert precision.takes_half is takes_half and network.asked[2:] == [(takes_half, 6 if takes_half else 5)]
    assert then.mask_logits.flatten().tolist() == (half if takes_half else [1, -1])
    assert all(part.dtype == torch.float32 for part in then)


def test_where_nothing_is_seen_nothing_is_settled():
    network = Wavering(answers([-1.0, -1]), answers([-1.0, -1]))
    precision = FramePrecision(network)
    for frame in range(2):
        follow(precision, frame)
    assert precision.takes_half is None and network.asked == [(False, 0), (False, 1)]  # nor is half tried


def test_where_bfloat16_is_emulated_it_is_not_tried(monkeypatch):
    monkeypatch.setattr(frame_precision, "cpu_knows_bfloat16", lambda: False)
    network = Wavering(answers([1.0, -1]), answers([1.0, -1]))
    follow(FramePrecision(network), 3)
    assert network.asked == [(False, 3)]

"""Fast NMS. Axes: B, N candidates, K classes, M places."""

import pytest
import torch
from torchvision.ops import box_iou

from segwright.layers.fast_nms import fast_nms

SETTINGS = {"overlap": 0.5, "looked_at": 200, "places": 6}


def twin(boxes, scores, *, overlap, looked_at, places):
    """Of one image: each of a class against each surer one of it, also against those that are themselves suppressed."""
    kept = []
    for class_id, of_class in enumerate(scores):
        order = sorted(range(len(of_class)), key=lambda n: -of_class[n].item())[:looked_at]
        for rank, n in enumerate(order):
            if all(box_iou(boxes[m][None], boxes[n][None]).item() <= overlap for m in order[:rank]):
                kept.append((of_class[n].item(), class_id, n))
    kept = [each for each in sorted(kept, reverse=True) if each[0] > 0][:places]
    return kept + [(0.0, None, None)] * (places - len(kept))


def test_by_hand_what_is_suppressed_suppresses():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 3, 10, 13], [0, 6, 10, 16], [50, 50, 60, 60]])  # overlaps 7/13, 7/13 and 4/16
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    kept = fast_nms(boxes[None], scores[None], **SETTINGS)
    assert kept.candidates[0, :2].tolist() == [0, 3]  # plain suppression keeps the third too
    assert kept.scores[0].tolist() == pytest.approx([0.9, 0.1, 0, 0, 0, 0])


def test_by_hand_classes_do_not_suppress_each_other_and_an_overlap_at_the_limit_stays():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]])
    scores = torch.tensor([[0.9, 0.0, 0.3], [0.0, 0.8, 0.2]])
    kept = fast_nms(boxes[None], scores[None], **SETTINGS)
    assert kept.class_ids[0, :4].tolist() == [0, 1, 0, 1] and kept.candidates[0, :4].tolist() == [0, 1, 2, 2]
    assert fast_nms(boxes[None], scores[None], **(SETTINGS | {"overlap": 0.49})).scores[0, 2] == 0


def test_equals_the_slow_twin():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 40, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + torch.rand(2, 40, 2, generator=generator) * 30], dim=2)
    scores = torch.rand(2, 3, 40, generator=generator)
    scores[scores < 0.3] = 0
    for settings in (SETTINGS, {"overlap": 0.3, "looked_at": 7, "places": 100}):
        kept = fast_nms(boxes, scores, **settings)
        for image in range(2):
            wanted = twin(boxes[image], scores[image], **settings)
            assert kept.scores[image].tolist() == pytest.approx([score for score, _, _ in wanted])
            for place, (score, class_id, candidate) in enumerate(wanted):
                if score > 0:
                    assert (kept.class_ids[image, place], kept.candidates[image, place]) == (class_id, candidate)


def test_one_candidate_fills_one_place_and_none_of_score_zero_any():
    kept = fast_nms(torch.tensor([[[0.0, 0, 4, 4]]]), torch.tensor([[[0.5]]]), **SETTINGS)
    assert kept.scores.tolist() == [[0.5, 0, 0, 0, 0, 0]] and kept.candidates.shape == kept.class_ids.shape == (1, 6)
    assert not fast_nms(torch.zeros(1, 3, 4), torch.zeros(1, 2, 3), **SETTINGS).scores.any()

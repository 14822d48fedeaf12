"""Matrix NMS. Axes: N masks, n pixels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.errors import ShapeError
from segwright.layers.matrix_nms import gaussian_decay, linear_decay, matrix_nms

DECAYS = (gaussian_decay, linear_decay)


def rows(*masks: str) -> torch.Tensor:
    """Masks drawn as texts of # and anything else."""
    return torch.tensor([[pixel == "#" for pixel in mask] for mask in masks])


def test_by_hand():
    """The second overlaps the first by 2 of 4 pixels, and so does the third the second: the second, itself weak, takes less."""
    masks = rows("###...", ".###..", "..###.")
    scores = matrix_nms(masks, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), linear_decay)
    first, second, third = 0.9, 0.8 * (1 - 0.5), 0.7 * min(1 - 0.2, (1 - 0.5) / (1 - 0.5))
    torch.testing.assert_close(scores, torch.tensor([first, second, third]))


def test_by_hand_with_a_gaussian():
    scores = matrix_nms(rows("##..", ".##."), torch.tensor([1.0, 0.5]), torch.zeros(2))
    assert scores.tolist() == pytest.approx([1, 0.5 * 2.718281828 ** (-2 / 9)])


@pytest.mark.parametrize("decay", DECAYS)
def test_masks_of_other_classes_without_pixels_or_apart_are_left_alone(decay):
    masks, scores = rows("##..", "##..", "....", "...#", "...."), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    assert torch.equal(matrix_nms(masks, scores, torch.tensor([0, 1, 0, 0, 0]), decay), scores)


@pytest.mark.parametrize("decay", DECAYS)
def test_none_and_one(decay):
    assert matrix_nms(torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0), torch.zeros(0), decay).shape == (0,)
    assert matrix_nms(rows("#"), torch.tensor([0.3]), torch.zeros(1), decay).tolist() == [pytest.approx(0.3)]


def test_a_linear_decay_takes_all_of_a_copy_and_of_its_copy():
    scores = matrix_nms(rows("##.", "##.", "##."), torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), linear_decay)
    assert scores[0] == 0.9 and scores[1:].max() < 1e-5


def slow_twin(masks, scores, class_ids, decay) -> list[float]:
    """The formula of the paper, pair by pair."""

    def overlap(i: int, j: int) -> torch.Tensor:
        union = (masks[i] | masks[j]).sum()
        same = class_ids[i] == class_ids[j]
        return ((masks[i] & masks[j]).sum() / union if union and same else torch.zeros(())).float()

    left = []
    for j in range(len(masks)):
        terms = [torch.ones(())]
        for i in range(j):
            worst = max((overlap(k, i) for k in range(i)), default=torch.zeros(()))
            terms.append(decay(overlap(i, j)) / decay(worst))
        left.append(float(scores[j] * min(terms)))
    return left


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 9), decay=st.sampled_from(DECAYS))
def test_equals_its_slow_twin(seed, count, decay):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 12, generator=generator) < 0.5
    scores = torch.rand(count, generator=generator).sort(descending=True).values
    class_ids = torch.randint(0, 2, (count,), generator=generator)
    assert matrix_nms(masks, scores, class_ids, decay).tolist() == pytest.approx(slow_twin(masks, scores, class_ids, decay))


@pytest.mark.parametrize("decay", DECAYS)
def test_no_score_rises_and_the_order_of_pixels_is_nothing(decay):
    generator = torch.Generator().manual_seed(0)
    masks, scores = torch.rand(30, 50, generator=generator) < 0.4, torch.linspace(1, 0.1, 30)
    class_ids = torch.arange(30) % 3
    lowered = matrix_nms(masks, scores, class_ids, decay)
    assert (lowered <= scores).all() and (lowered >= 0).all() and (lowered < scores).any()
    assert torch.equal(matrix_nms(masks[:, torch.randperm(50, generator=generator)], scores, class_ids, decay), lowered)


def test_half_precision_around_it_does_not_miscount():
    masks = torch.rand(4, 3000, generator=torch.Generator().manual_seed(0)) < 0.5  # 8 bits count to 256
    given = torch.linspace(1, 0.5, 4), torch.zeros(4)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = matrix_nms(masks, *given)
    assert torch.equal(lowered, matrix_nms(masks, *given))


def test_refuses_what_does_not_belong_together():
    with pytest.raises(ShapeError, match="2 masks, 3 scores and 2 class ids were given; give one of each per object"):
        matrix_nms(rows("#", "#"), torch.zeros(3), torch.zeros(2))

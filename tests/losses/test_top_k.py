import numpy as np
import pytest
import torch

from segwright.core.errors import SettingError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.top_k import TopK

# By hand


def test_by_hand():
    logits = torch.tensor([[[1.0, 2.0, 3.0, 9.0]], [[0.0, 0.0, 0.0, 0.0]]])[None]
    target = torch.tensor([[[1, 1, 1, -1]]])  # the third is the hardest; the fourth would be, were it not void
    assert TopK(share=0.4)(logits, target).item() == pytest.approx(np.log1p(np.exp(3)), rel=1e-6)


# By a slow twin


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(2, 4, 9, 7), (2, 3, 4, 6, 3)])
def test_equals_numpy(case, share, shape):
    logits, target = case(shape)
    losses = torch.nn.functional.cross_entropy(logits, target.clamp(min=0), reduction="none")[target >= 0].numpy()
    number = max(1, int(len(losses) * share))
    assert TopK(share=share)(logits, target).item() == pytest.approx(np.sort(losses)[::-1][:number].mean())


# Against nnU-Net


def test_equals_the_golden_case(golden):
    golden("nnunet.topk", TopK())


# By law


def test_all_pixels_are_cross_entropy(case, same):
    logits, target = case()
    same(lambda x: TopK(share=1.0)(x, target), lambda x: CrossEntropy()(x, target), logits)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_keeps_the_laws(laws, share):
    laws(TopK(share=share))


# By its messages


@pytest.mark.parametrize("share", [0, 1.5])
def test_wrong_settings_name_the_remedy(share):
    with pytest.raises(SettingError, match="above 0 and up to 1, such as 0.1"):
        TopK(share=share)

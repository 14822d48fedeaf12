import pytest
import torch

from segwright.core.errors import SettingError, ShapeError
from segwright.losses._overlap import check_smooth, soft_counts

# By hand


def test_by_hand():
    counts = soft_counts(torch.zeros(1, 2, 1, 3), torch.tensor([[[[1, 1, 0]], [[0, 1, -1]]]]))
    assert counts.overlap.tolist() == [[1, 0.5]]
    assert counts.predicted.tolist() == [[1.5, 1]]
    assert counts.true.tolist() == [[2, 1]]
    whole = counts.over_batch()
    assert whole.true.tolist() == [[2, 1]]


# By a slow twin


@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (2, 3, 4, 3, 5)])
def test_equals_plain_torch_in_value_and_gradient(case, same, shape):
    logits, regions = case(shape, regions=True)
    pulls = torch.randn(2, *shape[:2], dtype=torch.float64)

    def ours(x):
        counts = soft_counts(x, regions)
        return (pulls[0] * counts.overlap + pulls[1] * counts.predicted).sum()

    def twin(x):
        p = x.sigmoid() * (regions >= 0)
        return (pulls[0] * (p * regions.clamp(min=0)).flatten(2).sum(2) + pulls[1] * p.flatten(2).sum(2)).sum()

    same(ours, twin, logits)


# By its messages


def test_what_does_not_fit_names_the_remedy():
    with pytest.raises(ShapeError, match="regions .* upsample the logits first"):
        soft_counts(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 6, 6))
    with pytest.raises(SettingError, match="above 0, such as 1e-5"):
        check_smooth(0)

"""Several networks answer as one: with the mean of their probabilities, queries or maps."""

import numpy as np
import pytest
import torch
from torch import nn

from segwright.layers.ensemble import Ensemble, MapEnsemble, QueryEnsemble, RegionEnsemble
from segwright.layers.query_masks import QueryMasks


class Fixed(nn.Module):
    """Gives the same whatever it sees."""

    OUTPUT, divisors = "flows", (4, 4)

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, image):
        return self.outputs[0] if len(self.outputs) == 1 else QueryMasks(*self.outputs)


IMAGE = torch.zeros(1, 1, 4, 4)


def logits_of(*probs):
    return torch.tensor(probs).log()[None, :, None, None]


def test_probabilities_are_averaged_by_hand():
    sure, unsure = Fixed(logits_of(0.9, 0.1)), Fixed(logits_of(0.4, 0.6))
    both = Ensemble([sure, unsure])
    logits, entropy = both(IMAGE)
    torch.testing.assert_close(logits.exp(), torch.tensor([0.65, 0.35])[None, :, None, None])  # logarithms of probabilities
    torch.testing.assert_close(entropy, torch.full((1, 1, 1, 1), (0.3250830 + 0.6730117) / 2))
    assert both.divisors == (4, 4) and not hasattr(both, "OUTPUT")


def test_logits_alone_decide_little_where_networks_are_sure():
    """The mean of logits would follow the one that is surest; that of probabilities follows the two."""
    logits = [Fixed(torch.tensor(each)[None, :, None, None]) for each in ([90.0, 0.0], [-1.0, 1.0], [-1.0, 1.0])]
    assert Ensemble(logits)(IMAGE)[0].argmax() == 1
    assert MapEnsemble(logits)(IMAGE).argmax() == 0


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 7, 2, 3, 4)])
def test_equals_the_mean_of_the_softmax_in_numpy(shape):
    generator = torch.Generator().manual_seed(0)
    logits = [30 * torch.randn(shape, generator=generator) for _ in range(5)]
    exponentials = [np.exp(each.double().numpy() - each.double().numpy().max(axis=1, keepdims=True)) for each in logits]
    expected = np.mean([each / each.sum(axis=1, keepdims=True) for each in exponentials], axis=0)
    ours, entropy = Ensemble([Fixed(each) for each in logits])(IMAGE)
    np.testing.assert_allclose(ours.exp().numpy(), expected, rtol=1e-4, atol=1e-7)
    own = [torch.distributions.Categorical(logits=each.double().movedim(1, -1)).entropy() for each in logits]
    torch.testing.assert_close(entropy[:, 0].double(), torch.stack(own).mean(dim=0), rtol=1e-4, atol=1e-5)
    turned = Ensemble([Fixed(each) for each in logits[::-1]])(IMAGE)
    torch.testing.assert_close((ours, entropy), turned, rtol=1e-5, atol=1e-5)


def test_huge_logits_neither_overflow_nor_vanish():
    first, second = (Fixed(torch.tensor(each)[None, :, None, None]) for each in ([1e4, 0.0], [0.0, 1e4]))
    torch.testing.assert_close(Ensemble([first, second])(IMAGE)[0].flatten().exp(), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 7, 2, 3, 4)])
def test_regions_have_the_mean_of_the_sigmoids(shape):
    generator = torch.Generator().manual_seed(0)
    logits = [5 * torch.randn(shape, generator=generator) for _ in range(5)]
    probs = torch.stack(logits).double().div(2.0).sigmoid()
    both = RegionEnsemble([Fixed(each) for each in logits], temperature=2.0)
    found, entropy = both(IMAGE)
    torch.testing.assert_close(found.double().sigmoid(), probs.mean(dim=0), rtol=1e-4, atol=1e-6)
    own = torch.distributions.Bernoulli(probs).entropy().mean(dim=(0, 2))
    torch.testing.assert_close(entropy[:, 0].double(), own, rtol=1e-4, atol=1e-5)
    assert both.divisors == (4, 4) and "temperature=2" in repr(both) and not hasattr(both, "OUTPUT")


def test_regions_that_networks_are_sure_of_neither_overflow_nor_vanish():
    found, entropy = RegionEnsemble([Fixed(torch.full((1, 1, 1, 1), each)) for each in (1e4, -1e4)])(IMAGE)
    assert found.item() == 0 and entropy.item() == 0


def test_queries_count_by_the_mean_of_what_networks_sum_to():
    generator = torch.Generator().manual_seed(1)
    parts = [(torch.randn(2, 6, 4, generator=generator), torch.randn(2, 6, 3, 5, generator=generator)) for _ in range(3)]
    classes, masks = QueryEnsemble([Fixed(*part) for part in parts])(IMAGE)

    def scores(class_logits, mask_logits):
        return torch.einsum("bqk,bqhw->bkhw", class_logits.softmax(dim=-1)[..., :-1], mask_logits.sigmoid())

    assert classes.shape == (2, 18, 4) and masks.shape == (2, 18, 3, 5)
    torch.testing.assert_close(scores(classes, masks), sum(scores(*part) for part in parts) / 3)
    torch.testing.assert_close(classes.exp().sum(dim=-1), torch.ones(2, 18))


def test_maps_are_averaged():
    both = MapEnsemble([Fixed(torch.full((1, 3, 2, 2), 1.0)), Fixed(torch.full((1, 3, 2, 2), 4.0))])
    assert both.OUTPUT == "flows" and both.divisors == (4, 4)
    assert (both(IMAGE) == 2.5).all()

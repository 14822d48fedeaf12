"""The engine of a promptable network's encoder. Axes: E channels, h, w."""

import numpy as np
import pytest
import torch
from torch import nn

from segwright.encoders import resnet
from segwright.inference import embedding_engine as module
from segwright.inference import engine
from segwright.inference.embedding_engine import embedding_agreement, embedding_engine
from segwright.layers.prompts import PromptedMasks
from segwright.models import sam

TINY = sam.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16), width=32, mlp_width=32)


class Thresholds(nn.Module):
    """Three masks for each point: where the embedding is above 0, above 1, and nowhere; the second is scored highest."""

    divisors = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def decode(self, embedding, prompts, *, multimask):
        P = prompts.points_xy.shape[1]
        self.points = prompts.points_xy
        masks = torch.stack([embedding[0, 0], embedding[0, 0] - 1, embedding[0, 0] - 99])
        return PromptedMasks(masks.expand(1, P, 3, -1, -1), torch.tensor([0.5, 0.9, 0.1]).expand(1, P, 3))


def test_by_hand_agreement_is_the_overlap_of_the_mask_that_counts():
    network = Thresholds()
    reference = torch.tensor([[[[2.0, 2, 0.5, -1]]]])  # two pixels above 1
    assert embedding_agreement(network, reference, reference) == 1
    assert embedding_agreement(network, torch.tensor([[[[2.0, 0, 0.5, -1]]]]), reference) == 0.5
    assert embedding_agreement(network, torch.tensor([[[[2.0, 2, 2, 2]]]]), reference) == 0.5
    assert embedding_agreement(network, -reference, -reference) == 1  # neither has a pixel
    assert network.points[0, 0, 0].tolist() == [8.0, 2.0] and network.points.shape == (1, 16, 1, 2)  # of 64 x 16 pixels


def test_it_gives_what_the_network_encodes():
    torch.manual_seed(0)
    network = TINY.build().eval()
    image = torch.randn(1, 3, 64, 32)
    (embedding,) = embedding_engine(network)(image.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(embedding, network.encode(image).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("error", "chosen"), [(0.0, "quick"), (3.0, "torch float32")])
def test_a_quicker_engine_is_taken_where_its_masks_are_the_same(error, chosen, monkeypatch):
    torch.manual_seed(0)
    network = TINY.build().eval()

    class Quick:
        def __init__(self, whole) -> None:
            self.answer = None
            self.whole = whole

        def __call__(self, batch):
            if self.answer is None:
                with torch.no_grad():
                    embedding = self.whole(torch.from_numpy(batch)).numpy()
                self.answer = (embedding + error * np.random.default_rng(0).standard_normal(embedding.shape, np.float32),)
            return self.answer

    monkeypatch.setattr(engine, "candidates", lambda _: [engine.EngineKind("quick", lambda net, *_: Quick(net))])
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    picked = embedding_engine(network)
    image = np.random.default_rng(1).standard_normal((1, 3, 64, 64), np.float32)
    picked(image)
    (fact,) = picked.cache.recall().values()
    assert fact["engine"] == chosen
    assert ("out" in fact["found"]["quick"]) == (chosen != "quick")

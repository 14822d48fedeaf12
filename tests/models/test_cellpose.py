"""Flow fields learnt by a dense network. Axes: B batch, C channels, K classes, F maps, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.checkpoints.fill import fill
from segwright.core.errors import SettingError
from segwright.encoders import resnet
from segwright.layers.flow_targets import flow_targets
from segwright.layers.object_truth import ObjectTruth
from segwright.models import cellpose, encoder_unet, unet

SMALL = cellpose.Config(num_classes=2, trunk=unet.Config(width=4, depth=3))
ENCODER = resnet.Config(block="basic", depths=(1, 1, 1, 1))
ON_ENCODER = cellpose.Config(trunk=encoder_unet.Config(encoder=ENCODER, decoder_widths=(8, 8, 6, 6, 4)))


class Fixed(nn.Module):
    """A trunk that answers with maps of its own."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = nn.Parameter(maps)

    def forward(self, image: Tensor) -> Tensor:
        return self.maps


def answering(maps: Tensor, num_classes: int = 2) -> cellpose.Cellpose:
    """A network that gives these maps (B, F, h, w) to any image."""
    network = replace(SMALL, num_classes=num_classes).build()
    network.trunk = Fixed(maps)
    return network


def truth_of(planes: Tensor, class_ids: list[int]) -> ObjectTruth:
    return ObjectTruth(torch.zeros(len(class_ids), 4), torch.tensor(class_ids, dtype=torch.int64), planes.int())


def image(sides: int = 8, count: int = 1, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, sides, sides, generator=torch.Generator().manual_seed(0))


# By hand


def test_the_terms_of_the_loss_by_hand():
    """A row of three pixels of an object of class 1 and one of none; the network says 0 of all."""
    truth = truth_of(torch.tensor([[[1, 1, 1, 0]]]), [1])
    losses = answering(torch.zeros(1, 5, 1, 4))(image(), [truth])
    assert losses["flow"].item() == pytest.approx((1 + 0 + 1) / 3)  # the middle goes nowhere
    dice = (2 * 1.5 / (2 + 3) + 2 * 0.5 / (2 + 1)) / 2  # of objects, and of the rest
    assert losses["object"].item() == pytest.approx(0.6931 + 1 - dice, abs=1e-3)
    assert losses["class"].item() == pytest.approx(0.6931, abs=1e-4)
    assert list(losses) == ["flow", "object", "class"]


def test_a_network_that_knows_the_truth_loses_nothing():
    planes = torch.tensor([[[1, 1, 1, 0, 2, 2, 2]] * 3])
    flows = torch.from_numpy(flow_targets(planes[0].int().numpy()))
    sure = torch.where(planes > 0, 50.0, -50.0)
    kinds = 50.0 * torch.cat([planes == 1, planes == 2])
    losses = answering(torch.cat([5 * flows, sure, kinds])[None])(image(), [truth_of(planes, [0, 1])])
    assert all(loss.item() < 1e-6 for loss in losses.values())
    wrong = answering(torch.cat([5 * flows.flip(0), sure, kinds])[None])(image(), [truth_of(planes, [0, 1])])
    assert wrong["flow"] > 0.5  # rows come first


def test_void_counts_nothing():
    maps = torch.randn(1, 5, 2, 4, generator=torch.Generator().manual_seed(1))
    planes = torch.tensor([[[1, 1, 1, 0], [-1, -1, -1, -1]]])
    losses = answering(maps)(image(), [truth_of(planes, [1])])
    other = maps.clone()
    other[:, :, 1] = 7
    again = answering(other)(image(), [truth_of(planes, [1])])
    top = answering(maps[:, :, :1])(image(), [truth_of(planes[:, :1], [1])])
    for name, loss in losses.items():
        assert loss == again[name], name
        torch.testing.assert_close(loss, top[name])


def test_of_objects_that_overlap_the_last_is_learnt():
    deep = torch.tensor([[[1, 1, 1, 1, 0]], [[0, 0, 2, 2, 2]]])
    flat = torch.tensor([[[1, 1, 2, 2, 2]]])
    maps = torch.randn(1, 5, 1, 5, generator=torch.Generator().manual_seed(1))
    for name, loss in answering(maps)(image(), [truth_of(deep, [0, 1])]).items():
        assert loss == answering(maps)(image(), [truth_of(flat, [0, 1])])[name], name


@pytest.mark.parametrize("planes", [torch.zeros(1, 8, 8), torch.full((1, 8, 8), -1)])
def test_an_image_without_objects_gives_finite_losses_and_gradients(planes):
    network = SMALL.build()
    losses = network(image(), [truth_of(planes, [])])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_maps_of_a_coarser_trunk_are_brought_to_the_size_of_the_truth():
    maps = torch.randn(1, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    planes = torch.tensor([[[1, 1, 1, 0, 0, 0]] * 4])
    losses = answering(maps)(image(), [truth_of(planes, [1])])
    large = F.interpolate(maps, size=(4, 6), mode="bilinear")
    for name, loss in answering(large)(image(), [truth_of(planes, [1])]).items():
        torch.testing.assert_close(losses[name], loss)


# Networks


def test_one_class_needs_no_logits_of_classes():
    network = replace(SMALL, num_classes=1).build().eval()
    assert network(image()).shape == (1, 3, 8, 8)
    assert list(network(image(), [truth_of(torch.ones(1, 8, 8), [0])])) == ["flow", "object"]
    assert SMALL.build().eval()(image(count=2)).shape == (2, 5, 8, 8)


def test_the_trunk_follows_the_channels_and_the_classes():
    config = replace(SMALL, in_channels=5, num_classes=4)
    assert (config.trunk.in_channels, config.trunk.num_classes) == (5, 7)
    assert config.build().eval()(image(channels=5)).shape == (1, 7, 8, 8)
    assert config.build().divisors == (4, 4)


def test_auxiliary_heads_of_a_trunk_learn_the_same_at_their_weight():
    trunk = unet.Config(width=4, depth=3, norm="instance", deep_supervision=1)
    network = replace(SMALL, trunk=trunk).build()
    truth = [truth_of(torch.ones(1, 8, 8), [1])]
    losses = network(image(), truth)
    outputs = network.trunk(image())
    for name, loss in losses.items():
        last, first = (answering(maps)(image(), truth)[name] for maps in (outputs.logits, outputs.auxiliary[0]))
        torch.testing.assert_close(loss, last + 0.5 * first)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert isinstance(network(image()), Tensor)  # without truth there is one map, in training too


def test_an_encoder_starts_from_weights_of_its_own():
    network, encoder = ON_ENCODER.build(), ENCODER.build(3)
    said = fill(network, encoder.state_dict(), source="a file")
    assert said[0].startswith("the encoder alone is in the file; random: trunk.decoder.0.")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(network.trunk.encoder.state_dict()[name], tensor), name
    assert ON_ENCODER.encoder == ENCODER and SMALL.encoder is None


def test_learns_two_objects_that_touch():
    torch.manual_seed(0)
    planes = torch.zeros(1, 16, 16)
    planes[:, 4:12, 2:8], planes[:, 4:12, 8:14] = 1, 2
    picture = (planes > 0).float().expand(3, -1, -1)[None]
    network = replace(SMALL, num_classes=1, trunk=unet.Config(width=8, depth=3)).build()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(40):
        loss = sum(network(picture, [truth_of(planes, [0, 0])]).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    down, right, logit = network.eval()(picture)[0].detach()
    assert ((logit >= 0) == (planes[0] > 0)).float().mean() > 0.95
    assert right[7, 7] < 0 < right[7, 8]  # they part where they touch


# Messages


def test_refuses_classes_below_one():
    with pytest.raises(SettingError, match="num_classes is 0; it must be 1 or more"):
        replace(SMALL, num_classes=0)


@pytest.mark.parametrize("trunk", [unet.Config(axes=3), ENCODER, cellpose.Config()])
def test_refuses_trunks_that_give_no_logits_of_pixels(trunk):
    with pytest.raises(SettingError, match=r"flows are learnt by networks .* --set model.trunk.kind=unet"):
        replace(SMALL, trunk=trunk)

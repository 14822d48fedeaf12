"""A network is filled by all tensors of a file or by none, and what is not as in the file is told by name."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from segwright.checkpoints.fill import adapted, by_channels, by_classes, classes_in, fill
from segwright.core.errors import FormatError, SettingError
from segwright.encoders import mit, resnet
from segwright.models import panoptic_fpn, segformer, unet

TINY = mit.Config(hidden_sizes=(4, 8, 12, 16), depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))
SMALL = segformer.Config(encoder=TINY, decoder_width=8, num_classes=5)
ON_RESNET = replace(SMALL, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)))


def built(config, seed=0):
    torch.manual_seed(seed)
    return config.build()


def weights(config, seed=1):
    return {name: tensor.clone() for name, tensor in built(config, seed).state_dict().items()}


def foreign(config, seed=1):
    """The weights of a SegFormer as its authors name them."""
    parts = {
        **{f"project.{level}": f"linear_c{level + 1}.proj" for level in range(4)},
        **{"fuse": "linear_fuse.conv", "norm": "linear_fuse.bn", "classify": "linear_pred"},
    }
    theirs = {}
    for name, tensor in weights(config, seed).items():
        part, _, rest = name.partition(".")
        if part == "decoder":
            module, _, kind = rest.rpartition(".")
            theirs[f"decode_head.{parts[module]}.{kind}"] = tensor
        else:
            theirs[f"backbone.{_authors_name(rest)}"] = tensor
    return theirs


def _authors_name(name):
    _, stage, rest = name.split(".", 2)
    number = int(stage) + 1
    if rest.startswith("blocks."):
        _, block, part = rest.split(".", 2)
        module, _, kind = part.rpartition(".")
        theirs = {ours: name for name, ours in mit.BLOCK_PARTS.items() if name.startswith(("norm", "attn", "mlp."))}
        theirs |= {"mlp.depthwise": "mlp.dwconv.dwconv"}
        theirs |= {ours: name for name, ours in mit.BLOCK_PARTS.items() if name.startswith(("mlp.fc",))}
        return f"block{number}.{block}.{theirs[module]}.{kind}"
    module, _, kind = rest.rpartition(".")
    named = {"embed": f"patch_embed{number}.proj", "embed_norm": f"patch_embed{number}.norm", "norm": f"norm{number}"}
    return f"{named[module]}.{kind}"


def check_equal(network, wanted, but=()):
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, wanted[name]) == (name not in but), name


# By hand


@pytest.mark.parametrize("theirs", [weights, foreign])
def test_all_of_a_network_in_its_own_layout_and_in_the_authors(theirs):
    network = built(SMALL)
    assert fill(network, theirs(SMALL), source="a.pth") == []
    check_equal(network, weights(SMALL))


def test_half_precision_is_widened_and_counters_may_lack():
    given = {name: tensor.half() for name, tensor in weights(SMALL).items() if not name.endswith("num_batches_tracked")}
    network = built(SMALL)
    assert fill(network, given, source="a.pth") == []
    assert network.decoder.fuse.weight.dtype == torch.float32
    assert_close(network.decoder.fuse.weight, given["decoder.fuse.weight"].float())


def test_an_encoder_alone_in_the_layout_of_its_authors():
    given = {name.removeprefix("backbone."): tensor for name, tensor in foreign(SMALL).items() if name.startswith("backbone.")}
    given |= {"head.weight": torch.ones(1000, 16), "head.bias": torch.ones(1000)}  # ImageNet's classifier
    network, before = built(SMALL), weights(SMALL, 0)
    (said,) = fill(network, given, source="mit.pth")
    assert said.startswith("the encoder alone is in the file; random: decoder.project.0.weight, ") and said.endswith("more")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, (weights(SMALL) if name.startswith("encoder.") else before)[name]), name


def test_torchvisions_resnet_fills_an_encoder():
    torchvision = pytest.importorskip("torchvision", reason="timm needs it")
    theirs = torchvision.models.resnet18()
    network = replace(SMALL, encoder=resnet.PRESETS["resnet18"]).build()
    assert len(fill(network, theirs.state_dict(), source="resnet18.pth")) == 1
    assert torch.equal(network.encoder.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_what_classes_and_channels_decide_is_found_by_building():
    network = built(SMALL)
    assert by_classes(network) == {"decoder.classify.weight": 0, "decoder.classify.bias": 0}
    assert by_channels(network) == {"encoder.stages.0.embed.weight": 1}
    assert list(by_classes(built(unet.PRESETS["unet_tiny"]))) == ["head.weight", "head.bias"]
    assert by_classes(nn.Linear(2, 2)) == {}  # of a network that says nothing of itself


def test_building_again_draws_no_random_number():
    network = built(SMALL)
    before = torch.get_rng_state()
    by_classes(network)
    assert torch.equal(before, torch.get_rng_state())


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A network with an output for no object beside each class."""

    num_classes: int = 3

    def build(self):
        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2 * (self.num_classes + 1)))
        network.config = self
        return network


def test_a_head_of_its_own_arithmetic():
    given = Boxes(num_classes=7).build().state_dict()
    assert classes_in(Boxes().build(), given, "a.pth") == 7
    with pytest.raises(SettingError, match=r"1.weight \(16 -> 8 classes\), 1.bias"):
        fill(Boxes().build(), given, source="a.pth")


def test_heads_of_things_and_of_stuff_are_both_found():
    """Starting from weights for other classes, which are other things and other stuff, leaves all else as it was trained."""
    small = replace(panoptic_fpn.PRESETS["panoptic_fpn_small"], encoder=ON_RESNET.encoder, box_width=8)
    config = replace(small, num_classes=6, things=(0, 1, 2))
    network = built(replace(config, num_classes=5, things=(2,)))
    heads = [f"detector.{name}" for name in ("box_head.classify", "box_head.deltas", "mask_head.classes")] + ["classify"]
    heads = [f"{name}.{kind}" for name in heads for kind in ("weight", "bias")]
    assert sorted(by_classes(network)) == sorted(heads)
    given = weights(config)
    assert classes_in(built(config), given, "a.pth") == 6
    (said,) = fill(network, given, source="a.pth", new_head=True)
    assert said.startswith("started anew: detector.box_head.classify.weight (4 -> 2 classes)")
    for name, tensor in network.state_dict().items():
        assert name in heads or torch.equal(tensor, given[name])
    with pytest.raises(SettingError, match="a.pth is for other classes than this network: detector.box_head.classify.weight"):
        fill(network, given, source="a.pth")


# Heads for other classes


def test_a_head_for_other_classes_is_replaced_only_when_asked():
    network, before = built(SMALL), weights(SMALL, 0)
    other = foreign(replace(SMALL, num_classes=19))
    with pytest.raises(SettingError, match=r"a.pth is for other classes .*classify.weight \(19 -> 5 classes\), .* a new head"):
        fill(network, other, source="a.pth")
    check_equal(network, before)
    said = fill(network, other, source="a.pth", new_head=True)
    assert said == ["started anew: decoder.classify.weight (19 -> 5 classes), decoder.classify.bias (19 -> 5 classes)"]
    assert torch.equal(network.decoder.classify.weight, before["decoder.classify.weight"])
    wanted = segformer.rename(other)
    assert torch.equal(network.decoder.fuse.weight, wanted["decoder.fuse.weight"])


def test_a_new_head_is_new_for_as_many_classes_too():
    network = built(SMALL)
    assert (
        "started anew: decoder.classify.weight (5 -> 5 classes)" in fill(network, weights(SMALL), source="a", new_head=True)[0]
    )
    check_equal(network, weights(SMALL), but=("decoder.classify.weight",))  # both biases start at 0


def test_the_classes_of_a_file_are_counted():
    with torch.device("meta"):
        probe = SMALL.build()
    for count in (1, 5, 150):
        assert classes_in(probe, foreign(replace(SMALL, num_classes=count)), "a.pth") == count


# Images of other channels


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_a_first_layer_for_other_channels_is_adapted_and_told(channels):
    network = built(replace(SMALL, in_channels=channels))
    given = weights(SMALL)
    said = fill(network, given, source="a.pth")
    assert said == [f"adapted: encoder.stages.0.embed.weight (3 -> {channels} channels)"]
    check_equal(network, given | {"encoder.stages.0.embed.weight": network.encoder.stages[0].embed.weight})


def test_adapted_by_hand():
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    assert adapted(weight, 1).flatten().tolist() == [9.0]
    assert adapted(weight, 6).flatten().tolist() == [0.5, 1.0, 3.0, 0.5, 1.0, 3.0]
    assert adapted(weight, 4).flatten().tolist() == [0.75, 1.5, 4.5, 0.75]
    assert adapted(torch.full((1, 1, 1, 1), 6.0), 3).flatten().tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("channels", [1, 3, 6, 9])
def test_a_grey_image_is_seen_as_before(channels):
    weight, grey = torch.randn(4, 3, 3, 3), torch.randn(1, 1, 8, 8)
    before = nn.functional.conv2d(grey.expand(1, 3, 8, 8), weight)
    assert_close(nn.functional.conv2d(grey.expand(1, channels, 8, 8), adapted(weight, channels)), before, rtol=1e-4, atol=1e-4)


# By its messages: nothing changes where anything is wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given.pop("decoder.fuse.weight"), "1 tensors of the network are missing: decoder.fuse.weight"),
        (lambda given: given.update(extra=torch.ones(1)), "1 have no place in it: extra"),
        (
            lambda given: given.update({"decoder.fuse.weight": torch.ones(8, 32)}),
            "decoder.fuse.weight is 8 x 32 there and 8 x 32 x 1 x 1 here",
        ),
        (
            lambda given: given.update({"encoder.stages.0.embed.weight": torch.ones(4, 3, 3, 3)}),
            "encoder.stages.0.embed.weight is 4 x 3 x 3 x 3 there and 4 x 3 x 7 x 7 here",
        ),
        (
            lambda given: given.update({"decoder.norm.bias": torch.tensor(1.0)}),
            "decoder.norm.bias is one number there and 8 here",
        ),
    ],
)
def test_what_does_not_fit_is_told(change, message):
    given, network = weights(SMALL), built(SMALL)
    change(given)
    with pytest.raises(FormatError, match=f"a.pth does not fit this network: .*{message}.*choose the network that it is of"):
        fill(network, given, source="a.pth", new_head=True)
    check_equal(network, weights(SMALL, 0))


def test_half_of_an_encoder_is_told():
    given = {name.removeprefix("encoder."): tensor for name, tensor in weights(SMALL).items() if name.startswith("encoder.")}
    given.pop("stages.3.norm.bias")
    with pytest.raises(FormatError, match="1 tensors of the encoder are missing: encoder.stages.3.norm.bias"):
        fill(built(SMALL), given, source="a.pth")


def test_a_file_of_another_network_is_told_what_it_looks_like():
    given = {f"backbone.{name}": tensor for name, tensor in foreign(segformer.PRESETS["segformer_b0"]).items()}
    given = {name.removeprefix("backbone."): tensor for name, tensor in given.items()}
    for config in (ON_RESNET, replace(SMALL, num_classes=150), unet.PRESETS["unet_tiny"]):
        with pytest.raises(FormatError, match="It looks like the weights of segformer_b0"):
            fill(built(config), given, source="a.pth")
    with pytest.raises(FormatError, match="a.pth is not of this network: .*It begins with x 2 x 3"):
        fill(built(SMALL), {"x": torch.ones(2, 3)}, source="a.pth")
    with pytest.raises(
        FormatError, match="is not of this network: none of its names, such as 'x', .*It begins with x one number"
    ):
        fill(nn.Linear(2, 2), {"x": torch.tensor(1)}, source="a.pth")

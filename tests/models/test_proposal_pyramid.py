"""What networks that propose regions begin with. Axes: B, C, E, N, H, W."""

import pytest
import torch
from torch import nn

from segwright.core.errors import SettingError
from segwright.encoders import resnet
from segwright.models import mask_rcnn
from segwright.models._proposal_pyramid import CONVENTIONS, ProposalPyramid, check_counts, rename_proposal_pyramid

TINY = resnet.Config(block="basic", depths=(1, 1, 1, 1))


def pyramid_of(sizes=(8, 16, 32, 64, 128), encoder_norm="group", conventions="segwright") -> ProposalPyramid:
    torch.manual_seed(0)
    options = {"depth": 1, "norm": "group", "encoder_norm": encoder_norm, "conventions": CONVENTIONS[conventions]}
    return ProposalPyramid(TINY.build(), 8, sizes, **options)


@pytest.mark.parametrize(("count", "maps"), [(1, 4), (3, 4), (4, 4), (5, 5), (6, 6)])
def test_there_is_a_map_for_each_size_of_anchors(count, maps):
    pyramid = pyramid_of(tuple(8 << number for number in range(count)))
    levels = pyramid(torch.randn(1, 3, 64, 96))
    sides = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert [tuple(level.shape[2:]) for level in levels] == sides[:maps]
    assert [len(each) for each in pyramid.anchors(levels)] == [3 * h * w for h, w in sides[:count]]
    assert len(pyramid.scores(levels)) == count


def test_strides_of_anchors_are_those_of_maps_or_as_torchvision_has_them():
    for name, strides in (("segwright", (64, 64)), ("torchvision", (64, 48))):
        pyramid = pyramid_of(conventions=name)
        last = pyramid.anchors(pyramid(torch.randn(1, 3, 64, 96)))[-1].unflatten(0, (1, 2, 3))
        assert (last[0, 1] - last[0, 0])[:, 0].tolist() == [strides[1]] * 3


def test_norms_of_the_encoder_learn_are_frozen_or_replaced():
    frozen, learning = pyramid_of(encoder_norm="frozen").train(), pyramid_of(encoder_norm="batch").train()
    assert not frozen.encoder.bn1.training and not frozen.encoder.bn1.weight.requires_grad and frozen.encoder.training
    assert learning.encoder.bn1.training and learning.encoder.bn1.weight.requires_grad
    assert isinstance(pyramid_of().encoder.bn1, nn.GroupNorm)


@pytest.mark.parametrize("conventions", list(CONVENTIONS))
def test_all_conventions_cut_features_out(conventions):
    pyramid = pyramid_of(conventions=conventions)
    maps = pyramid(torch.randn(1, 3, 64, 64))
    pooled = pyramid.pool(maps, [torch.tensor([[0.0, 0, 32, 32], [8, 8, 60, 60]])], 7)
    assert pooled.shape == (2, 8, 7, 7)
    pooled.square().sum().backward()
    assert pyramid.pyramid.output[0].get_submodule("0").weight.grad.any()


def test_built_without_memory_it_takes_weights():
    with torch.device("meta"):
        other = pyramid_of()
    pyramid = pyramid_of()
    other.load_state_dict(pyramid.state_dict(), assign=True)
    maps = other(torch.randn(1, 3, 64, 64))
    assert not any(each.is_meta for each in other.anchors(maps))


def test_what_it_does_not_have_is_handed_back():
    ours, others = rename_proposal_pyramid(
        {
            "backbone.fpn_lateral3.bias": torch.zeros(1),
            "rpn.head.conv.1.0.weight": torch.zeros(1),
            "roi_heads.box_head.fc1.bias": torch.zeros(1),
            "pixel_mean": torch.zeros(3),
        }
    )
    assert set(ours) == {"pyramid.lateral.1.bias", "head.convolutions.1.weight"}
    assert set(others) == {"roi_heads.box_head.fc1.bias"}


@pytest.mark.parametrize("name", ["num_classes", "proposals", "sampled_regions", "max_objects", "box_linears"])
def test_counts_that_cannot_be_meant_are_refused(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        mask_rcnn.Config(**{name: 0})
    with pytest.raises(SettingError, match="box_convolutions is -1; it must be 0 or more"):
        mask_rcnn.Config(box_convolutions=-1)
    check_counts(mask_rcnn.Config(**{name: 1}))


@pytest.mark.parametrize("sizes", [(), (0.0, 16.0)])
def test_anchors_without_size_are_refused(sizes):
    with pytest.raises(SettingError, match=r"give a size in pixels for each map of the pyramid"):
        mask_rcnn.Config(anchor_sizes=sizes)

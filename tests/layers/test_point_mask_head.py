"""PointRend's masks of objects, against loops. Axes: B, R, E, K, P, H, W."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import SettingError
from segwright.layers import point_mask_head
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_mask_head import PointMaskHead, check_mask_side

REGIONS = [
    torch.tensor([[3.0, 2.0, 29.0, 17.5], [10.0, 12.0, 14.0, 31.0]], dtype=torch.float64),
    torch.zeros(0, 4, dtype=torch.float64),
    torch.tensor([[-2.0, 20.0, 50.0, 31.0]], dtype=torch.float64),
]
CLASS_IDS = torch.tensor([1, 0, 2])


def head(side=56, coarse_width=6):
    torch.manual_seed(0)
    made = PointMaskHead(6, 3, coarse_width=coarse_width, linear_width=8, point_width=8, side=side).double()
    for layer in (made.classes, made.points.classify):
        nn.init.normal_(layer.weight)
    return made


@pytest.fixture
def fine():
    """The finest maps of three images of 32 x 48 pixels."""
    return torch.randn(3, 6, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def truth():
    """Three objects in the first image, none in the second, one in the third; some pixels nobody knows."""
    planes = torch.zeros(3, 1, 32, 48, dtype=torch.int32)
    planes[0, 0, 2:20, 4:18], planes[0, 0, 12:31, 11:15], planes[0, 0, 5:7, 5:7] = 1, 2, -1
    planes[2, 0, 22:30] = 1
    classes = (torch.tensor([1, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([2]))
    boxes = (torch.zeros(2, 4), torch.zeros(0, 4), torch.zeros(1, 4))
    return [ObjectTruth(*each) for each in zip(boxes, classes, planes, strict=True)]


OBJECTS = [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64), torch.tensor([0])]


def at(level, box, x, y):
    """The features of a map (E, h, w) at a point of a box in pixels of an image of 32 x 48."""
    place = ((box[0] + x * (box[2] - box[0])) / 48, (box[1] + y * (box[3] - box[1])) / 32)
    grid = torch.tensor([[[[2 * float(one) - 1 for one in place]]]], dtype=level.dtype)
    return F.grid_sample(level[None], grid, align_corners=False)[0, :, 0, 0]


def inside(coarse, x, y):
    """Coarse logits (K, 7, 7) at a point of their box."""
    grid = torch.tensor([[[[2 * x - 1, 2 * y - 1]]]], dtype=coarse.dtype)
    return F.grid_sample(coarse[None], grid, align_corners=False)[0, :, 0, 0]


def places():
    """Each region with its image."""
    return [(image, box) for image, boxes in enumerate(REGIONS) for box in boxes]


@pytest.mark.parametrize("coarse_width", [6, 4])
def test_coarse_masks_equal_loops(fine, coarse_width):
    net = head(coarse_width=coarse_width)
    coarse = net.coarse(fine, REGIONS)
    assert coarse.shape == (3, 3, 7, 7) and (net.narrow is None) == (coarse_width == 6)
    for (image, box), got in zip(places(), coarse, strict=True):
        cells = [at(fine[image], box, (column + 0.5) / 14, (row + 0.5) / 14) for row in range(14) for column in range(14)]
        x = torch.stack(cells, dim=1).unflatten(1, (14, 14))[None]
        for layer in (net.narrow, net.halve):
            x = x if layer is None else torch.relu(layer(x))
        x = x.flatten(1)
        for layer in net.linears:
            x = torch.relu(layer(x))
        torch.testing.assert_close(got, net.classes(x).reshape(3, 7, 7))


def test_masks_equal_loops(fine):
    """All of 28 x 28 from points; then a doubling interpolates, but for the 784 pixels nearest to the border."""
    net = head()
    with torch.no_grad():
        masks, coarse = net(fine, REGIONS, CLASS_IDS), net.coarse(fine, REGIONS)
        assert masks.shape == (3, 56, 56)
        for (image, box), own, k, got in zip(places(), coarse, CLASS_IDS.tolist(), masks, strict=True):

            def ask(x, y, image=image, box=box, own=own, k=k):
                return net.points(at(fine[image], box, x, y)[None, :, None], inside(own, x, y)[None, :, None])[0, k, 0]

            first = [ask((column + 0.5) / 28, (row + 0.5) / 28) for row in range(28) for column in range(28)]
            mask = F.interpolate(torch.stack(first).reshape(1, 1, 28, 28), scale_factor=2, mode="bilinear")[0, 0]
            nearest = sorted(range(56 * 56), key=mask.abs().flatten().tolist().__getitem__)[:784]
            for row, column in (divmod(cell, 56) for cell in nearest):
                mask[row, column] = ask((column + 0.5) / 56, (row + 0.5) / 56)
            torch.testing.assert_close(got, mask)


def test_the_loss_of_points_equals_loops(fine, truth):
    net = head()
    coarse = net.coarse(fine, REGIONS)
    loss = net.point_loss(fine, coarse, REGIONS, OBJECTS, truth, torch.Generator().manual_seed(3))
    own = coarse.detach()[torch.arange(3), CLASS_IDS][:, None]
    generator = torch.Generator().manual_seed(3)
    points = point_mask_head.uncertain_points(own, lambda x: -x[:, 0].abs(), 196, generator)  # the same
    terms = []
    objects = [(image, number) for image, each in enumerate(OBJECTS) for number in each.tolist()]
    for region, (image, box) in enumerate(places()):
        mask = (truth[image].planes == objects[region][1] + 1).any(0).double()[None]
        for x, y in points[region].tolist():
            features, logits = at(fine[image], box, x, y), inside(coarse[region], x, y)
            logit = net.points(features[None, :, None], logits[None, :, None])[0, CLASS_IDS[region], 0]
            share = at(mask, box, x, y)[0]
            terms.append(-share * F.logsigmoid(logit) - (1 - share) * F.logsigmoid(-logit))
    torch.testing.assert_close(loss, torch.stack(terms).mean())


def test_gradients_reach_every_parameter(fine, truth):
    net, fine = head(coarse_width=4), fine.requires_grad_()
    net.point_loss(fine, net.coarse(fine, REGIONS), REGIONS, OBJECTS, truth, torch.Generator().manual_seed(3)).backward()
    assert all(parameter.grad.any() for parameter in net.parameters()) and fine.grad[0].any() and not fine.grad[1].any()


def test_without_objects_the_loss_is_zero_and_so_are_its_gradients(fine, truth):
    net, none = head(), torch.zeros(0, dtype=torch.int64)
    regions = [torch.zeros(0, 4, dtype=torch.float64)] * 3
    loss = net.point_loss(fine, net.coarse(fine, regions), regions, [none] * 3, truth, torch.Generator())
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in net.parameters())
    assert net(fine, regions, none).shape == (0, 56, 56)


def test_objects_do_not_see_each_other(fine):
    net = head()
    with torch.no_grad():
        together = net(fine, REGIONS, CLASS_IDS)
        alone = net(fine[2:], REGIONS[2:], CLASS_IDS[2:])
    torch.testing.assert_close(together[2:], alone)


def test_half_precision_gives_the_same_masks_in_single(fine):
    net, regions = head().float(), [each.float() for each in REGIONS]
    with torch.no_grad():
        wanted = net(fine.float(), regions, CLASS_IDS).sigmoid()
        with torch.autocast("cpu", torch.bfloat16):
            masks = net(fine.bfloat16(), regions, CLASS_IDS)
    assert masks.dtype == torch.float32
    assert (masks.sigmoid() - wanted).abs().mean() < 0.02


@pytest.mark.parametrize("side", [0, 14, 84, 60, -28])
def test_a_side_that_doubling_does_not_come_to_is_refused(side):
    with pytest.raises(SettingError, match=rf"mask_side is {side}; .* give 28, 56, 112, 224 or 448"):
        check_mask_side(side)


@pytest.mark.parametrize("side", [28, 56, 112, 224, 448])
def test_the_remedy_works(side):
    check_mask_side(side)
    net = head(side=side).float()
    with torch.no_grad():
        assert net(torch.randn(1, 6, 8, 12), [REGIONS[0][:1].float()], CLASS_IDS[:1]).shape == (1, side, side)

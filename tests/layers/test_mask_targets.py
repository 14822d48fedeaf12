"""What a mask branch learns, against RoIAlign of whole masks. Axes: R regions, N objects, P planes, H, W."""

import pytest
import torch
from torchvision.ops import roi_align

from segwright.layers import mask_targets as module
from segwright.layers.mask_targets import mask_targets

HEIGHT, WIDTH, COUNT = 60, 90, 20


def drawn(count: int = 40):
    """Planes of objects that overlap, and regions of all sizes, of which some end at borders."""
    generator = torch.Generator().manual_seed(0)
    planes = torch.randint(-1, COUNT + 1, (2, HEIGHT, WIDTH), generator=generator, dtype=torch.int32)
    limits = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64)
    centres, sides = torch.rand(2, count, 2, generator=generator, dtype=torch.float64)
    low, high = centres * limits - sides * 30, centres * limits + sides * 30
    regions = torch.cat([low.clamp(min=0), high.minimum(limits)], dim=1)
    return planes, torch.randint(0, COUNT, (count,), generator=generator), regions


def test_by_hand():
    planes = torch.zeros(1, 4, 8, dtype=torch.int32)
    planes[0, :, 2:4] = 1
    region = torch.tensor([[0.0, 0, 8, 4]])
    target = mask_targets(planes, torch.tensor([0]), region, 4, is_aligned=True)
    assert target[0].tolist() == [[0, 1, 0, 0]] * 4  # a cell is two columns wide
    target = mask_targets(planes, torch.tensor([0]), torch.tensor([[3.0, 0, 5, 4]]), 1, is_aligned=True)
    assert target.flatten().tolist() == [0.5]
    assert not mask_targets(planes, torch.tensor([1]), region, 4, is_aligned=True).any()  # an object without pixels


def test_no_regions_have_no_targets():
    planes, objects, regions = drawn(0)
    assert mask_targets(planes, objects, regions, 28, is_aligned=True).shape == (0, 28, 28)


@pytest.mark.parametrize("is_aligned", [True, False])
@pytest.mark.parametrize("samples", [None, 2])
@pytest.mark.parametrize("at_once", [1, 1 << 21])
def test_equals_roi_align_of_whole_masks(monkeypatch, is_aligned, samples, at_once):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    planes, objects, regions = drawn()
    masks = torch.stack([(planes == number + 1).any(0) for number in range(COUNT)]).double()
    places = torch.cat([objects[:, None].double(), regions], dim=1)
    wanted = roi_align(masks[:, None], places, 14, 1.0, samples or -1, is_aligned)[:, 0]
    ours = mask_targets(planes, objects, regions, 14, is_aligned=is_aligned, samples=samples)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_regions_thinner_than_a_pixel_at_the_border_equal_it_too():
    planes, objects, _ = drawn()
    edge = WIDTH - torch.tensor([0.9, 0.4, 0.05], dtype=torch.float64)
    regions = torch.stack([edge, 0 * edge + 10, 0 * edge + WIDTH, 0 * edge + 10.3], dim=1)
    masks = torch.stack([(planes == number + 1).any(0) for number in range(COUNT)]).double()
    places = torch.cat([objects[:3, None].double(), regions], dim=1)
    for is_aligned in (True, False):
        wanted = roi_align(masks[:, None], places, 14, 1.0, -1, is_aligned)[:, 0]
        ours = mask_targets(planes, objects[:3], regions, 14, is_aligned=is_aligned)
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_no_array_of_all_masks_is_made(monkeypatch):
    """300 objects of 600 x 600: together they would take 432 MB as float32."""
    planes = torch.zeros(1, 600, 600, dtype=torch.int32)
    numbers = torch.arange(300, dtype=torch.int32).reshape(15, 20)
    planes[0] = numbers.repeat_interleave(40, 0).repeat_interleave(30, 1) + 1
    y, x = torch.meshgrid(torch.arange(15) * 40.0, torch.arange(20) * 30.0, indexing="ij")
    regions = torch.stack([x, y, x + 30, y + 40], dim=-1).reshape(-1, 4)
    largest, zeros = [], torch.Tensor.new_zeros

    def watch(tensor, *shape):
        largest.append(torch.Size(shape).numel())
        return zeros(tensor, *shape)

    monkeypatch.setattr(torch.Tensor, "new_zeros", watch)
    targets = mask_targets(planes, torch.arange(300), regions, 28, is_aligned=True)
    assert (targets[:, 1:-1, 1:-1] == 1).all()
    assert max(largest) < 1_000_000

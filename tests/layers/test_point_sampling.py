"""Maps at single points, against detectron2's and by hand. Axes: B, C, K, N, P, D, H, W."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from segwright.layers.point_sampling import (
    cell_centres,
    classes_at_points,
    most_uncertain_cells,
    objects_at_points,
    points_in_boxes,
    sample_at_points,
    subdivided,
    uncertain_points,
)

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def arrays():
    return load_file(GOLDEN / "point_sample_a.safetensors")


def close(ours, arrays, name):
    limits = json.loads((GOLDEN / "point_sample_a.json").read_text())["tolerance"][name]
    torch.testing.assert_close(ours, arrays[f"out/{name}"], atol=limits["atol"], rtol=limits.get("rtol", 0))


# Against detectron2


def test_maps_at_points_are_detectron2s(arrays):
    close(sample_at_points(arrays["in/x"], arrays["in/coords"]), arrays, "point_sample")


def test_the_most_uncertain_cells_are_detectron2s(arrays):
    index, points = most_uncertain_cells(arrays["in/unc"][:, 0], 20)
    close(index, arrays, "uncertain.idx")
    close(points, arrays, "uncertain.coords")


def test_a_regular_grid_is_detectron2s(arrays):
    close(cell_centres(7, arrays["in/x"]).expand(2, -1, -1), arrays, "regular_grid")


def test_points_in_boxes_are_detectron2s(arrays):
    """It gives pixels, as of an image of one pixel; both boxes were asked for the points of the first image."""
    points = arrays["in/coords"][:1].expand(2, -1, -1)
    close(points_in_boxes(points, arrays["in/boxes"], (1, 1)), arrays, "coords_wrt_image")


# By hand


def test_a_centre_has_its_pixel_and_halfway_the_mean():
    maps = torch.tensor([[[[1.0, 3.0], [5.0, 9.0]]]])
    points = torch.tensor([[[0.25, 0.25], [0.75, 0.75], [0.5, 0.25], [0.5, 0.5], [0.0, 0.25], [1.5, 0.5]]])
    assert sample_at_points(maps, points)[0, 0].tolist() == [1, 9, 2, 4.5, 0.5, 0]  # on the edge, half is from beyond: 0


def test_half_precision_keeps_its_dtype_and_the_places_of_wide_points():
    maps = torch.arange(1024.0).bfloat16()[None, None, None]
    got = sample_at_points(maps, torch.tensor([[[(513 + 0.5) / 1024, 0.5]]]))
    assert got.dtype == torch.bfloat16 and got.item() == maps[0, 0, 0, 513].item()


def test_a_point_has_the_class_of_the_pixel_it_lies_in():
    class_map = torch.tensor([[[0, 1, 2], [3, 4, -1]]])
    points = torch.tensor([[[0.0, 0.0], [0.34, 0.49], [0.65, 0.51], [1.0, 1.0], [0.99, 0.0]]])
    assert classes_at_points(class_map, points).tolist() == [[0, 1, 4, -1, 2]]


def test_cells_of_a_map_with_fewer_are_all_given():
    index, points = most_uncertain_cells(torch.tensor([[[0.0, 2.0], [1.0, 3.0]]]), 9)
    assert index.tolist() == [[3, 1, 2, 0]]
    assert points[0].tolist() == [[0.75, 0.75], [0.75, 0.25], [0.25, 0.75], [0.25, 0.25]]


def test_points_of_a_box_are_points_of_the_image():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    points = torch.tensor([[0.5, 0.25]])
    assert points_in_boxes(points, boxes, (64, 128)).tolist() == [[[20 / 128, 30 / 64]]]


def test_objects_share_pixels_only_in_different_planes():
    planes = torch.tensor([[[1, 0], [-1, 0]], [[2, 2], [0, 0]]], dtype=torch.int32)
    points = torch.tensor([[[0.25, 0.25], [0.5, 0.25], [0.25, 0.75]]])
    assert objects_at_points(planes, torch.tensor([0, 1]), points.expand(2, -1, -1)).tolist() == [[1, 0.5, 0], [1, 1, 0]]


def test_subdivision_keeps_what_is_certain_and_asks_for_the_rest():
    logits = torch.tensor([[[[4.0, 4.0], [4.0, 0.0]]]])
    asked = []

    def ask(points):
        asked.append(points)
        return torch.full((1, 1, points.shape[1]), -9.0)

    fine = subdivided(logits, lambda doubled: -doubled[:, 0].abs(), 1, ask)
    expected = F.interpolate(logits, scale_factor=2, mode="bilinear")
    expected[..., 3, 3] = -9
    assert torch.equal(fine, expected)
    assert asked[0].tolist() == [[[0.875, 0.875]]]


# By a slow twin and by laws


def test_objects_at_points_equal_their_masks_at_points():
    generator = torch.Generator().manual_seed(0)
    planes = torch.randint(-1, 4, (2, 7, 9), generator=generator, dtype=torch.int32)
    planes[1][planes[1] > 0] += 3  # objects 3, 4 and 5 lie over the others
    index = torch.tensor([5, 0, 2, 3, 0])
    points = 1.2 * torch.rand(5, 40, 2, generator=generator, dtype=torch.float64) - 0.1  # some beyond the edge
    masks = torch.stack([(planes == number + 1).any(dim=0) for number in index]).double()
    torch.testing.assert_close(objects_at_points(planes, index, points), sample_at_points(masks[:, None], points)[:, 0])


def test_classes_at_points_equal_nearest_sampling():
    generator = torch.Generator().manual_seed(0)
    class_map = torch.randint(-1, 5, (2, 6, 10), generator=generator)
    points = torch.rand(2, 99, 2, generator=generator)
    theirs = F.grid_sample(class_map[:, None].float(), 2 * points[:, :, None] - 1, mode="nearest", align_corners=False)
    assert torch.equal(classes_at_points(class_map, points), theirs[:, 0, :, 0].long())


def test_asking_everywhere_for_a_map_gives_the_map():
    torch.manual_seed(0)
    fine = torch.randn(2, 3, 8, 12)
    got = subdivided(torch.randn(2, 3, 4, 6), lambda x: x[:, 0], 8 * 12, lambda points: sample_at_points(fine, points))
    torch.testing.assert_close(got, fine)


def test_subdivision_leaves_the_logits_as_they_were_and_lets_gradients_through():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    before = logits.detach().clone()
    new = torch.zeros(1, 2, 16, requires_grad=True)
    subdivided(logits, lambda x: x[:, 0], 16, lambda _: new).sum().backward()
    assert torch.equal(logits, before) and logits.grad.any() and torch.equal(new.grad, torch.ones(1, 2, 16))


def near_border(logits):
    """Uncertainty of one class."""
    return -logits[:, 0].abs()


def test_points_to_learn_from_lie_where_logits_are_uncertain():
    """Logits grow with x from -1 to 1: of three points drawn for each, the least certain quarter lies around the middle."""
    logits = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    points = uncertain_points(logits, near_border, 400, torch.Generator().manual_seed(0))[0]
    assert points.shape == (400, 2) and points.dtype == torch.float32 and points.min() >= 0 and points.max() < 1
    is_inside = (points[:, 1] - 0.5).abs() < 0.5 - 1 / 128  # towards the edge logits fade to the 0 beyond it
    away = (points[:, 0] - 0.5).abs()
    assert away[:300][is_inside[:300]].max() < 0.14  # 300 of 1200 are a quarter: an eighth of the side each way
    assert 0.2 < away[300:].mean() < 0.3  # drawn evenly, a quarter
    assert 0.2 < (points[:, 1] - 0.5).abs().mean() < 0.3


def test_a_generator_decides_what_is_drawn_and_torchs_own_does_without():
    logits = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    draws = [uncertain_points(logits, near_border, 16, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2]) and draws[0].dtype == torch.float64
    torch.manual_seed(3)
    first = uncertain_points(logits, near_border, 16, None)
    torch.manual_seed(3)
    assert torch.equal(first, uncertain_points(logits, near_border, 16, None))


def test_no_objects_have_no_points():
    assert uncertain_points(torch.zeros(0, 1, 7, 7), near_border, 8, torch.Generator()).shape == (0, 8, 2)
    planes, none = torch.zeros(1, 4, 4, dtype=torch.int32), torch.zeros(0, dtype=torch.int64)
    assert objects_at_points(planes, none, torch.zeros(0, 8, 2)).shape == (0, 8)
    assert objects_at_points(planes[:0], none[:1], torch.zeros(0, 8, 2)).shape == (0, 8)

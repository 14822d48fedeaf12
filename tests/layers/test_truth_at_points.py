"""Segments at single points, against masks. Axes: N, P, D, H, W."""

import torch

from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_sampling import objects_at_points, sample_at_points
from segwright.layers.truth_at_points import all_segments_at_points, in_planes, own_segments_at_points

SIDES = (32, 48)


def segments(count, planes):
    return ObjectTruth(torch.zeros(count, 4), torch.zeros(count, dtype=torch.int64), planes)


def three_segments():
    """Two that tile an image, and one above both in a second plane."""
    planes = torch.zeros(2, *SIDES, dtype=torch.int32)
    planes[0, :, :20], planes[0, :, 20:], planes[1, 10:20, 10:30] = 1, 2, 3
    return segments(3, planes)


def masks_of(truth):
    numbers = torch.arange(1, len(truth.class_ids) + 1)[:, None, None, None]
    return (truth.planes == numbers).any(1)


def test_the_truth_is_read_as_masks_would_be():
    truth, points = three_segments(), torch.rand(50, 2, dtype=torch.float64) * 1.2
    wanted = objects_at_points(truth.planes, torch.arange(3), points.expand(3, -1, -1))
    shares, is_known = all_segments_at_points(truth, points)
    torch.testing.assert_close(shares, wanted)
    torch.testing.assert_close(own_segments_at_points(truth, torch.arange(3), points.expand(3, -1, -1))[0], wanted)
    torch.testing.assert_close(shares, sample_at_points(masks_of(truth)[None].double(), points[None])[0])
    assert is_known.all()


def test_planes_may_end_before_the_padding():
    """A point in the middle of an image of 8 x 8 is the last corner of planes of 4 x 4."""
    truth = segments(1, torch.ones(1, 4, 4, dtype=torch.int32))
    points = in_planes(torch.tensor([[0.5, 0.5], [0.25, 0.25], [0.75, 0.25]]), truth, (8, 8))
    assert points.tolist() == [[1, 1], [0.5, 0.5], [1.5, 0.5]]
    assert all_segments_at_points(truth, points)[0].tolist() == [[0.25, 1, 0]]


def test_a_point_beside_void_is_not_known():
    """Of 4 pixels in a row, the last is void: points that mix with it are not known, its neighbour's centre is."""
    truth = segments(1, torch.tensor([[[1, 0, 1, -1]]], dtype=torch.int32))
    points = torch.tensor([[0.125, 0.5], [0.25, 0.5], [0.625, 0.5], [0.65, 0.5], [0.875, 0.5]])
    shares, is_known = all_segments_at_points(truth, points)
    assert is_known.tolist() == [True, True, True, False, False]
    assert shares.tolist() == [[1, 0.5, 1, 0, 0]]
    own, known = own_segments_at_points(truth, torch.tensor([0]), points[None])
    assert torch.equal(own, shares) and torch.equal(known[0], is_known)

"""Anchors against torchvision's. Axes: A anchors of a cell, n of a map."""

import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from segwright.layers.anchors import cell_anchors, map_anchors

RATIOS = (0.5, 1.0, 2.0)


def test_by_hand():
    assert cell_anchors(8, (1.0, 4.0), is_rounded=False).tolist() == [[-4, -4, 4, 4], [-2, -8, 2, 8]]
    assert cell_anchors(10, (0.5,), is_rounded=True).tolist() == [[-7, -4, 7, 4]]
    cells = cell_anchors(2, (1.0,), is_rounded=False)
    anchors = map_anchors(cells, (2, 3), (4, 8), torch.zeros(1))
    assert anchors.dtype == torch.float32
    assert ((anchors[:, :2] + anchors[:, 2:]) / 2).tolist() == [[0, 0], [8, 0], [16, 0], [0, 4], [8, 4], [16, 4]]


def test_half_precision_leaves_anchors_where_they_are():
    cells = cell_anchors(11, RATIOS, is_rounded=False)
    exact = map_anchors(cells, (2, 90), (4, 4), torch.zeros(1))
    assert torch.equal(map_anchors(cells, (2, 90), (4, 4), torch.zeros(1, dtype=torch.bfloat16)), exact)
    assert map_anchors(cells, (2, 3), (4, 4), torch.zeros(1).double()).dtype == torch.float64


def test_all_cells_have_the_area_of_their_size_and_their_ratios():
    sides = cell_anchors(50, RATIOS, is_rounded=False)[:, 2:] * 2
    torch.testing.assert_close(sides.prod(1), torch.full((3,), 2500.0, dtype=torch.float64))
    torch.testing.assert_close(sides[:, 1] / sides[:, 0], torch.tensor(RATIOS, dtype=torch.float64))


def test_rounded_anchors_equal_torchvisions_live():
    sizes, sides = (16, 33, 130), [(16, 24), (8, 12), (3, 5)]
    generator = AnchorGenerator(tuple((size,) for size in sizes), (RATIOS,) * 3)
    image = torch.zeros(1, 3, 64, 96)
    (wanted,) = generator(ImageList(image, [(64, 96)]), [torch.zeros(1, 1, *side) for side in sides])
    ours = [
        map_anchors(cell_anchors(size, RATIOS, is_rounded=True), side, (64 // side[0], 96 // side[1]), image)
        for size, side in zip(sizes, sides, strict=True)
    ]
    assert torch.equal(torch.cat(ours), wanted)

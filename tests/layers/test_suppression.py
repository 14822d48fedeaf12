"""Non-maximum suppression against golden arrays. Axes: n boxes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segwright.layers.suppression import padded, suppress, where

GOLDEN = Path(__file__).parent.parent / "golden"


def test_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [20, 0, 30, 10]])
    scores, groups = torch.tensor([0.5, 0.9, 0.7, 0.1]), torch.tensor([0, 0, 1, 0])
    assert suppress(boxes, scores, groups, overlap=0.5, count=9).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, groups, overlap=0.9, count=9).tolist() == [1, 2, 0, 3]  # as much is not more
    assert suppress(boxes, scores, groups, overlap=0.5, count=2).tolist() == [1, 2]
    assert suppress(boxes[:0], scores[:0], groups[:0], overlap=0.5, count=2).tolist() == []


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7])
def test_equals_the_golden_arrays(overlap):
    arrays = load_file(GOLDEN / "nms_a.safetensors")
    assert overlap in json.loads((GOLDEN / "nms_a.json").read_text())["config"]["thresholds"]
    boxes, scores, groups = (arrays[f"in/{name}"] for name in ("boxes", "scores", "idxs"))
    assert torch.equal(suppress(boxes, scores, groups, overlap=overlap, count=99), arrays[f"out/batched.{overlap}"])
    assert torch.equal(suppress(boxes, scores, groups * 0, overlap=overlap, count=99), arrays[f"out/nms.{overlap}"])


def test_where_nothing_is_known_all_are_kept():
    boxes = torch.zeros(5, 4, device="meta")
    assert suppress(boxes, boxes[:, 0], boxes[:, 0].long(), overlap=0.5, count=3).shape == (3,)
    assert where(boxes[:, 0] > 0).shape == (5,)


def test_results_have_a_known_length():
    assert where(torch.tensor([True, False, True])).tolist() == [0, 2]
    assert padded(torch.tensor([1, 2, 3]), 5).tolist() == [1, 2, 3, 0, 0]
    assert padded(torch.tensor([[1.0, 2], [3, 4], [5, 6]]), 2).tolist() == [[1, 2], [3, 4]]
    assert padded(torch.ones(0, 2, 3), 2).tolist() == torch.zeros(2, 2, 3).tolist()

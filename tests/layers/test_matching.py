"""Pairs of queries and segments, by hand and by trying all. Axes: L, B, Q, N, K."""

from itertools import permutations

import numpy as np
import pytest
import torch

from segwright.layers.matching import class_costs, match_queries


def pairs(matches, layer=0):
    return list(zip(*(each[layer].tolist() for each in matches), strict=True))


# By hand


def test_the_pairs_that_cost_least_together_are_taken():
    """The cheapest pair of all, query 0 with segment 0, would leave the dearest for the other."""
    cost = torch.tensor([[[1.0, 2.0], [3.0, 9.0], [8.0, 8.0]]])
    assert pairs(match_queries([cost])) == [(0, 0, 1), (0, 1, 0)]


def test_images_have_as_many_pairs_as_the_fewer_of_queries_and_segments():
    many, none, one = torch.rand(2, 3, 5), torch.rand(2, 3, 0), torch.tensor([[[3.0], [2], [1]], [[1.0], [2], [3]]])
    matches = match_queries([many, none, one])
    assert matches.images.tolist() == [[0, 0, 0, 2]] * 2
    assert matches.queries.tolist() == [[0, 1, 2, 2], [0, 1, 2, 0]]
    assert all(each.dtype == torch.int64 for each in matches)


def test_nothing_to_find_gives_no_pairs():
    matches = match_queries([torch.rand(4, 3, 0)] * 2)
    assert all(each.shape == (4, 0) for each in matches)


def test_expected_classes_cost_less():
    costs = class_costs(torch.tensor([[0.0, 0.0, 100.0], [100.0, 0.0, 0.0]]), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(costs, torch.tensor([[0.0, 0, 0], [-1, 0, -1]]))


# By a slow twin


def test_equals_trying_all():
    costs = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(0)).numpy()
    matches = match_queries([torch.from_numpy(costs)])
    for layer, cost in enumerate(costs):
        wanted = min(permutations(range(4), 3), key=lambda queries, cost=cost: cost[list(queries), range(3)].sum())
        assert {(query, segment) for _, query, segment in pairs(matches, layer)} == {*zip(wanted, range(3), strict=True)}


# By a law: broken costs break nothing


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_broken_cost_is_taken_last(bad):
    cost = torch.tensor([[[bad, 0.5], [0.25, 0.5]]])
    assert pairs(match_queries([cost])) == [(0, 0, 1), (0, 1, 0)]
    assert len(pairs(match_queries([torch.full((1, 3, 2), bad)]))) == 2  # all are broken: any will do


def test_a_broken_query_leaves_the_choice_among_the_others_exact():
    """Differences of 1e-3 beside the greatest number of single precision would vanish."""
    cost = torch.tensor([[[np.nan, np.nan], [0.501, 0.502], [0.501, 0.503]]])
    assert pairs(match_queries([cost])) == [(0, 1, 1), (0, 2, 0)]


def test_half_precision_and_gradients_are_no_matter():
    cost = torch.rand(1, 3, 2, dtype=torch.float16).requires_grad_()
    assert match_queries([cost]).queries.tolist() == match_queries([cost.detach().float()]).queries.tolist()

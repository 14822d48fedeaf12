import numpy as np
import pytest

from segwright.inspection.split_leakage import Together, groups_of


def test_by_hand():
    together = Together({"a": "train", "b": "val", "c": "train"}, known=[["a", "b"]], clips=[["b", "c"]])
    assert together.part("b") == "val" and together.is_torn(["a", "b"]) and not together.is_torn(["a", "c"])
    assert together.is_known("a", "b") and not together.is_known("a", "c") and not together.is_known("c", "c")
    assert together.is_one_clip("b", "c") and not together.is_one_clip("a", "b")
    assert together.unknown([("a", "b"), ("a", "c")]) == [("a", "c")]
    assert together.later(("b", "a")) == "a" and together.all_but_one(["a", "b", "c"]) == ["a", "c"]
    assert together.example(["b", "a", "c"]) == "a, b and 1 more"


def test_groups_by_hand():
    assert groups_of([("b", "a"), ("c", "d"), ("d", "e"), ("x", "x")]) == (("a", "b"), ("c", "d", "e"), ("x",))
    assert groups_of([]) == ()


@pytest.mark.parametrize("seed", range(5))
def test_groups_by_a_slow_twin(seed):
    rng = np.random.default_rng(seed)
    pairs = [(f"k{a}", f"k{b}") for a, b in rng.integers(0, 30, (18, 2))]
    groups = [{key} for key in {key for pair in pairs for key in pair}]
    for _ in range(30):
        for first, second in pairs:
            joined = [group for group in groups if first in group or second in group]
            groups = [group for group in groups if group not in joined] + [set.union(*joined)]
    assert groups_of(pairs) == tuple(sorted(tuple(sorted(group)) for group in groups))

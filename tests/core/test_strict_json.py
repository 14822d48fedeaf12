"""What is written as JSON is JSON to strict readers too."""

import json
import math

import pytest

from segwright.core.strict_json import json_text, without_nan

TREE = {"score": math.nan, "ends": (1.5, math.inf), "rows": [{"low": -math.inf, "text": "NaN"}, 3, True, None]}
CLEAN = {"score": None, "ends": [1.5, None], "rows": [{"low": None, "text": "NaN"}, 3, True, None]}


def strictly(text: str):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_null_stands_for_what_json_does_not_know():
    assert without_nan(TREE) == CLEAN == strictly(json_text(TREE))


def test_all_else_is_as_ever():
    tree = {"a": [1, 2.5, "ä", None, {"b": False}]}
    assert json_text(tree) == json.dumps(tree) and json_text(tree, indent=1) == json.dumps(tree, indent=1)
    assert json_text(tree, ensure_ascii=False) == json.dumps(tree, ensure_ascii=False)


def test_what_is_no_tree_is_no_json():
    loop: list = []
    loop.append(loop)
    with pytest.raises(RecursionError):
        json_text(loop)
    with pytest.raises(TypeError):
        json_text({"a": object()})

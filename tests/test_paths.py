"""The ways through the house that CONTRIBUTING.md shows are those of the imports, and as short as promised."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "docs" / "make_paths.py"


@pytest.fixture
def paths():
    spec = importlib.util.spec_from_file_location("make_paths", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_ways_of_today(paths):
    assert paths.PAGE.read_text(encoding="utf-8") == paths.written(), "draw them anew: python docs/make_paths.py"


def test_ways_are_short(paths):
    way = paths.WAYS["`segwright fit`, from the command to the network"]
    asks = way.index("tasks/semantic.py")  # the file that calls the network
    assert asks <= 4 and asks - way.index("training/loop.py") <= 2


def test_what_is_not_imported_is_no_way(paths):
    with pytest.raises(ValueError, match="core/grid.py does not import cli/fit.py"):
        paths.checked(["core/grid.py", "cli/fit.py"])


def test_the_trunk_knows_no_task(paths):
    """Neither the loop, the planner, the predictor nor the workflow names a task, a score or a kind of result."""
    for part in ("training", "inference", "planning", "workflow"):
        place = paths.SOURCE / part
        for file in [place] if place.is_file() else place.glob("*.py"):
            code = paths.ast.unparse(paths.ast.parse(file.read_text()))
            found = [word for word in ("mIoU", "Semantic", "class_map") if word in without_docstrings(paths.ast, code)]
            assert not found, f"{file.name}: {found}"


def without_docstrings(ast, code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(0)
    return ast.unparse(tree)

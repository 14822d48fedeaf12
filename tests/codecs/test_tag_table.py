"""The table of tags: each row has a test that reads a file with that tag, and is marked as its proof."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from segwright.codecs.tag_table import TABLE, markdown, refused


def proofs() -> set[tuple[str, str]]:
    """The rows that the tests of this folder name: row("TIFF", "274 Orientation"), or a constant where it is made of cases."""
    found: set[tuple] = set()
    texts = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        if path != Path(__file__):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "row":
                    found.add(
                        tuple(
                            getattr(argument, "value", None) if isinstance(argument, ast.Constant) else None
                            for argument in node.args
                        )
                    )
                if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
                    texts.add(node.elts[0].value)
    return found | {(rule.codec, rule.tag) for rule in TABLE if (rule.codec, None) in found and rule.tag in texts}


def test_each_row_has_its_test():
    rows = {(rule.codec, rule.tag) for rule in TABLE}
    tested = {row for row in proofs() if isinstance(row[1], str)}
    assert rows - tested == set(), "rows without a test"
    assert tested - rows == set(), "tests of no row"


def test_no_tag_is_there_twice_but_by_what_it_says():
    assert [row for row, count in Counter((rule.codec, rule.tag) for rule in TABLE).items() if count > 1] == []
    assert all(rule.how and "|" not in rule.tag + rule.how for rule in TABLE)


def test_the_table_for_people():
    lines = markdown()
    assert len(lines) == 2 + len(TABLE) and "| JPEG | components | heeded |" in "\n".join(lines)


def test_the_documentation_has_the_table_of_now():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert "\n".join(markdown()) in page, "run python docs/make_formats.py --values"


def test_an_error_says_what_was_found_and_what_to_do():
    message = str(refused("a.tif", "TIFF", "433 Decode", "its Decode (tag 433) is 1"))
    assert message.startswith("a.tif: its Decode (tag 433) is 1; this is not read: save the picture as RGB")
    with pytest.raises(KeyError):
        refused("a.tif", "TIFF", "274 Orientation", "")  # which is heeded

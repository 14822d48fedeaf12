"""JSON as its standard has it (RFC 8259), which knows neither NaN nor infinity: null stands for both."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def json_text(value: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """The text of a tree of dicts, lists, texts, numbers and None; numbers that JSON does not know become null."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    except ValueError:  # there is such a number, which is looked for then alone
        return json.dumps(without_nan(value), indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def without_nan(value: Any) -> Any:
    """A tree of dicts, lists and numbers with None for NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value

"""Calls of segwright that a message tells a person to make, as a shell takes them."""

import tomllib
from pathlib import Path
from shlex import join
from typing import Any


def command(*words: str | Path, plan: Path | None = None) -> str:
    """A call of segwright with paths in quotes where a shell needs them.

    It ends with --own-modules where `plan`, which it reads, the folder of a run or a file in it, names modules outside
    segwright, without which the call would be refused. Nothing is imported to see that; a plan that cannot be read names none.
    """
    is_own = plan is not None and _names_own_modules(plan)
    return join(["segwright", *map(str, words), *(["--own-modules"] if is_own else [])])


def _names_own_modules(plan: Path) -> bool:
    """Whether a plan's file, or that beside a model file, has a dotted kind."""
    folder = plan if plan.is_dir() else plan.parent
    file = folder / "plan.toml" if plan.is_dir() or plan.suffix == ".safetensors" else plan
    try:
        return _has_dotted_kind(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # as bad TOML and bad text are
        return False


def _has_dotted_kind(content: Any) -> bool:
    """Whether a table, or one below it, is of a kind with a dot in its name."""
    if isinstance(content, list):
        return any(map(_has_dotted_kind, content))
    if not isinstance(content, dict):
        return False
    return "." in str(content.get("kind", "")) or any(map(_has_dotted_kind, content.values()))

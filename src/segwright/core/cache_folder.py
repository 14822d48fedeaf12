"""The folder of a user's cache, which holds what can be made or fetched again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where Segwright keeps what it can get again: $XDG_CACHE_HOME/segwright, else ~/.cache/segwright."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "segwright"

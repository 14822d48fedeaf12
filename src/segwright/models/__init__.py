"""One file per architecture. Each offers Config, PRESETS and, where the authors published weights, rename.

`preset("segformer_b0")` is the Config of a published variant, `list_models()` a table of them all.
"""

from dataclasses import dataclass
from typing import Any

from segwright.core.errors import UnknownNameError
from segwright.core.lookup import did_you_mean, find, names

__all__ = ["Row", "list_models", "preset"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of models: a preset, the file it lies in, its size in million parameters, and the paper."""

    name: str
    file: str
    parameters_m: float
    paper: str


def preset(name: str) -> Any:
    """The Config of a published variant, by the name that its authors gave it.

    Raises:
        UnknownNameError: no model has a preset of that name; the message offers the nearest and lists the rest.
    """
    known: dict[str, Any] = {}
    for file in names(__name__):
        known |= find(__name__, file).PRESETS
    if name not in known:
        raise UnknownNameError(f"there is no model '{name}'{did_you_mean(name, list(known))}; known are {', '.join(known)}")
    return known[name]


def list_models() -> list[Row]:
    """All presets of all models, file by file. Nothing is allocated to count their parameters."""
    import torch

    rows = []
    for file in names(__name__):
        module = find(__name__, file)
        for name, config in module.PRESETS.items():
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in config.build().parameters())
            paper = (module.__doc__ or "").splitlines()[0].rstrip(".")
            rows.append(Row(name=name, file=file, parameters_m=round(count / 1e6, 2), paper=paper))
    return rows

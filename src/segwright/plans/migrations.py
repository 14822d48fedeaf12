"""Plans of older versions, as tables, brought up to date step by step: every saved model holds its plan."""

from collections.abc import Callable
from typing import Any

from segwright.core.errors import FormatError

VERSION = 2

Table = dict[str, Any]


def migrated(table: Table, source: str) -> Table:
    """The table of a plan in today's version.

    Raises:
        FormatError: it is of a version that this program does not know.
    """
    version = table.get("version", 1)  # the first wrote none
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise FormatError(
            f"{source} is a plan of version {version!r}, and this segwright reads 1 to {VERSION}; "
            "update it: pip install -U segwright"
        )
    for step in STEPS[version - 1 :]:
        table = step(table)
    return table


def _to_version_2(table: Table) -> Table:
    """Parts by what they do: a task that owns its loss, a sampler, an optimiser, and `scale` per axis instead of `zoom`."""
    new = {name: dict(content) if isinstance(content, dict) else content for name, content in table.items()}
    training, data = new.get("training", {}), new.get("data", {})
    geometric, inference = new.pop("geometric", {}), new.get("inference", {})
    axes = len(training.get("crop", (0, 0)))
    preprocess = {name: data.pop(name) for name in ("channels", "normalise") if name in data}
    if (zoom := data.pop("zoom", 1.0)) != 1:
        preprocess["scale"] = [zoom] * axes
    data["preprocess"] = preprocess
    share = geometric.pop("focus", 0.0)
    new["sampler"] = {"kind": "class_balanced", "share": share} if share else {"kind": "uniform"}
    new["augmentation"] = {"geometric": geometric, "intensity": new.pop("intensity", {})}
    if "loss" in new:
        new["task"] = {"kind": "semantic", "criterion": new.pop("loss")}
    if "learning_rate" in training:
        new["optimiser"] = {"kind": "adamw", "learning_rate": training.pop("learning_rate")}
    encoder = new.get("model", {}).get("encoder", {})
    if isinstance(encoder, dict) and "pretrained" in encoder:
        encoder = dict(encoder)
        if encoder.pop("pretrained"):
            new["init"] = {"weights": "timm"}
        new["model"]["encoder"] = encoder
    return {"version": 2} | new | {"inference": inference}


STEPS: tuple[Callable[[Table], Table], ...] = (_to_version_2,)

"""Segwright turns images, video and volumes into masks.

Each name is loaded when it is first used, so that `import segwright` costs nothing and loads no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

HOME = {
    "Budget": "segwright.planning.budget",
    "Classes": "segwright.core",
    "Dataset": "segwright.core",
    "Plan": "segwright.plans.plan",
    "Prompt": "segwright.core",
    "Sample": "segwright.core",
    "Segmentation": "segwright.core",
    "compare": "segwright.comparison",
    "evaluate": "segwright.evaluation.evaluate",
    "fit": "segwright.workflow",
    "list_models": "segwright.models",
    "load": "segwright.inference.load",
    "measure": "segwright.evaluation.evaluate",
    "open_dataset": "segwright.formats",
    "plan": "segwright.planning.planner",
    "predict": "segwright.inference.predict_files",
    "train": "segwright.training.loop",
}
__all__ = sorted(HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in HOME:
        return getattr(import_module(HOME[name]), name)
    raise AttributeError(f"segwright has no '{name}'; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)

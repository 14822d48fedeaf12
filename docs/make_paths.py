"""Draws the way of a sample through the files, from the imports, into CONTRIBUTING.md.

Each way is a row of files; the script sees that every one imports the next, or, where a plan chooses it, that it imports the
folder's protocol, and counts the hops.

python docs/make_paths.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE, PAGE = ROOT / "src" / "segwright", ROOT / "CONTRIBUTING.md"
START, END = "<!-- ways -->\n", "<!-- /ways -->\n"

CHOSEN = {"tasks/semantic.py": "tasks/__init__.py", "models/unet.py": "models/__init__.py"}  # by a plan, among their like
WAYS = {
    "`segwright fit`, from the command to the network": [
        *("cli/fit.py", "workflow/__init__.py", "training/loop.py", "tasks/semantic.py", "models/unet.py"),
    ],
    "A sample in `fit`, from the file to the batch": [
        *("training/loop.py", "training/dataloader.py", "data/store.py", "transforms/prepare.py", "transforms/resize.py"),
    ],
    "A prediction, from the command to the mask": [
        *("cli/predict.py", "inference/predict_files.py", "inference/predictor.py", "tasks/semantic.py"),
        *("decoding/sliding_window.py", "decoding/upsample_argmax.py"),
    ],
    "A prediction's view, which is that of training": ["inference/predictor.py", "transforms/prepare.py"],
    "A prediction's file": ["cli/predict.py", "inference/predict_files.py", "formats/mask_folder.py"],
    "A validation, from the loop to the score": [
        *(
            "training/loop.py",
            "training/checkpointer.py",
            "evaluation/evaluate.py",
            "evaluation/accumulate.py",
            "metrics/__init__.py",
        ),
    ],
}


def imported(path: Path) -> set[str]:
    """The files of the package that a file imports, at its top or in a function, such as "models/unet.py"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segwright"):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            place = SOURCE / Path(*name.split(".")[1:])
            for file in (place.with_suffix(".py"), place / "__init__.py"):
                if file.is_file():
                    found.add(file.relative_to(SOURCE).as_posix())
    return found


def checked(way: list[str]) -> list[str]:
    """A way, each of whose files imports the next one or the protocol that stands for it.

    Raises:
        ValueError: one does not.
    """
    for here, there in zip(way, way[1:], strict=False):
        known = imported(SOURCE / here)
        through_plan = there.startswith("tasks/") and "plans/plan.py" in known  # the plan holds the task that was chosen
        if not {there, CHOSEN.get(there)} & known and not through_plan:
            raise ValueError(f"{here} does not import {there}; correct WAYS in docs/make_paths.py")
    return way


def drawn() -> str:
    """The ways as Markdown, with their hops."""
    rows = []
    for title, way in WAYS.items():
        files = " → ".join(f"`{file}`" for file in checked(way))
        rows.append(f"* **{title}** ({len(way) - 1} hops): {files}.\n")
    return "".join(rows)


def written() -> str:
    """CONTRIBUTING.md with the ways drawn anew."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    return before + START + drawn() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")

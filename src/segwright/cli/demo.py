"""`segwright demo`: the main job from start to end on scenes that are drawn on the spot."""

from pathlib import Path
from typing import Annotated

import typer

TRAIN_SCENES, VAL_SCENES = 80, 16
MINUTES = 1.7  # with imports, drawing and predicting this stays well under three minutes on two cores


def run(out: Annotated[Path, typer.Option(help="Folder for data, run and predictions.")] = Path("segwright-demo")) -> None:
    """Draw street scenes, fit a model to them in under two minutes, and segment scenes that it has never seen."""
    from segwright.cli.terminal import print_scores, training_progress
    from segwright.core.errors import OutputError
    from segwright.formats import mask_folder, synthetic
    from segwright.inference.load import load
    from segwright.inference.predict_files import predict
    from segwright.planning.budget import Budget
    from segwright.workflow import fit

    if out.exists():
        raise OutputError(f"{out} exists already; remove it, or choose another folder with --out")
    for part, count, seed in (("train", TRAIN_SCENES, 1), ("val", VAL_SCENES, 2)):
        mask_folder.write(out / "data" / part, synthetic.streets(count, seed=seed))
    with training_progress("demo", out / "run") as watch:
        scores = fit(str(out / "data"), budget=Budget(minutes=MINUTES), out=out / "run", watch=watch)
    predict(load(out / "run"), [out / "data" / "val" / "images"], out / "predictions", overlay=True)
    print_scores(scores)
    typer.echo(f"masks    {out / 'predictions'}")
    typer.echo(f"report   {out / 'run' / 'report.html'}")

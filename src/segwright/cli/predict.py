"""`segwright predict`: masks for images and volumes."""

from pathlib import Path
from typing import Annotated

import typer

_VALUES = typer.Option(
    help="Values in the images that stand for the darkest and brightest of training, where types do not tell."
)
_UNCERTAINTY = typer.Option(
    "--uncertainty", help="Also write how unsure the model is of each pixel, and how far folds disagree."
)
_PROBABILITIES = typer.Option(
    "--probabilities",
    help="Also write the probability of each class or region at each pixel, as OME-Zarr (pip install 'segwright[zarr]').",
)
_UNCERTAINTY = typer.Option(
    "--uncertainty",
    help="Also write how unsure the model is of each pixel, how far folds disagree, and the Dice to expect of each image.",
)
_CRF = typer.Option(
    "--crf", help="Draw borders to the edges of RGB and grey images, after a semantic model, by a dense CRF: slower."
)


def run(
    model: Annotated[str, typer.Argument(help="Folder of a run, or its model.safetensors; with --weights a network's name.")],
    images: Annotated[list[Path], typer.Argument(help="Images, volumes, Zarrs, DICOM series, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")] = Path("predictions"),
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write pictures with the mask over the image.")] = False,
    palette: Annotated[bool, typer.Option("--palette", help="Masks with the colours of the classes (palette PNG).")] = False,
    uncertainty: Annotated[bool, _UNCERTAINTY] = False,
    probabilities: Annotated[bool, _PROBABILITIES] = False,
    flips: Annotated[bool, typer.Option("--flips", help="Average over mirror images: slower, a little better.")] = False,
    values: Annotated[tuple[float, float] | None, _VALUES] = None,
    crf: Annotated[bool, _CRF] = False,
    min_score: Annotated[
        float,
        typer.Option(help="Leave out objects with lower scores, from 0 to 1: a probability where the run's scores are such."),
    ] = 0.5,
    format: Annotated[
        str | None,
        typer.Option(help="Write a data set of this format, such as coco, not masks; a wrong name is answered with all."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of a network for several: semantic, instance or panoptic.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Predict with a published network: a file of its weights, or their name (segwright models)."),
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights that are not on this machine.")] = False,
    own_modules: Annotated[
        bool, typer.Option("--own-modules", help="Let the model name modules outside segwright, which are then imported.")
    ] = False,
) -> None:
    """Write one mask per image, on the image's own grid, whose values are class indices; for a DICOM series a DICOM-SEG.

    A mask of a Zarr is an OME-Zarr label image, NAME.zarr; with --format ome_zarr it lies in labels/ of its image's copy. Where
    the model finds objects, or with --format, all images and what was found in them become a data set.
    """
    from segwright.cli.terminal import working
    from segwright.inference.dense_crf import DenseCRF
    from segwright.inference.predict_files import predict

    with working(f"predict with {model}"):
        written = predict(
            model,
            images,
            out,
            overlay=overlay,
            palette=palette,
            uncertainty=uncertainty,
            probabilities=probabilities,
            flips=(-1,) if flips else None,
            values=values,
            crf=DenseCRF() if crf else None,
            min_score=min_score,
            format=format,
            task=task,
            weights=weights,
            online=online,
            own_modules=own_modules,
        )
    typer.echo(f"{len(written)} files in {out}")

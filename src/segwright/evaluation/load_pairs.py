"""Predictions and their truth from disk, of whatever formats."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segwright.codecs.json_stream import top_keys
from segwright.codecs.zarr_image import is_zarr, told_labels_of_zarr
from segwright.core import Dataset
from segwright.core.errors import FormatError, UnrecognisedError, UsageError
from segwright.evaluation.bare_masks import bare_masks, bare_truth
from segwright.evaluation.pairs import Pairs, pair
from segwright.formats import dataset_file, open_dataset
from segwright.formats.image_index import SHOWN
from segwright.formats.image_index import found as content_of
from segwright.formats.ome_zarr import zarrs_alone
from segwright.plans.commands import command

MODEL = ".safetensors"


def are_results(prediction: str | Path) -> bool:
    """Whether a path is that of COCO's results: a JSON file that holds a list of detections."""
    return Path(prediction).is_file() and top_keys(Path(prediction)) == {"[]"}


def open_pairs(
    prediction: str | Path, truth: str | Path, prediction_format: str | None = None, truth_format: str | None = None
) -> Pairs:
    """The pairs of two data sets on disk, with the groups that the dataset.toml of the truth names.

    Either side, or both, may be a folder of masks alone, whose classes are found as bare_masks.py says; a note tells how.

    Raises:
        UsageError: one cannot be read, or nothing matches.
    """
    if are_results(prediction):
        raise UsageError(
            f"{prediction} is a list of detections, without the images that they are in; give a data set, such as COCO's "
            "images with annotations"
        )
    notes = []
    there, is_bare = _side(truth, truth_format, "truth", lambda: bare_truth(truth, prediction))
    if is_bare:
        notes.append(f"{truth} holds masks alone; their classes are {_classes_of(there)}.")
    is_one = Path(truth).is_file() or is_zarr(Path(truth))
    key = there.keys[0] if is_one else None  # of a file that is given by hand, whatever its name
    here, is_bare = _side(prediction, prediction_format, "prediction", lambda: bare_masks(prediction, there.classes, key=key))
    if is_bare:
        notes.append(f"{prediction} holds masks without names of classes; their numbers are taken for {_classes_of(here)}.")
    known = dataset_file.read(truth)
    pairs = pair(here, there, known.groups if known else ())
    return replace(pairs, notes=(*pairs.notes, *notes))


def _side(path: str | Path, format: str | None, side: str, bare: Callable[[], Dataset | None]) -> tuple[Dataset, bool]:
    """The data set of one side, and whether it is of masks alone: a mask file, or a folder that no format recognises.

    Of Zarrs, which any folder of images may hold too, those are masks alone that have no label images in them. Where they name
    their classes, these are known.

    Raises:
        FormatError: it cannot be read.
    """
    zarrs = zarrs_alone(Path(path)) if format is None else []
    if format is None and (Path(path).is_file() or zarrs) and (found := bare()) is not None:
        return found, not (zarrs and told_labels_of_zarr(zarrs[0]).names)
    try:
        return _opened(path, format, side), False
    except UnrecognisedError as error:
        if format is None and (found := bare()) is not None:
            return found, True
        if not Path(path).is_dir():
            raise
        raise UnrecognisedError(
            f"{path} is not laid out as a data set ({content_of(Path(path))}), and holds no masks alone; give a folder of "
            f"masks called like their images, or a data set: {command('inspect', path)} lists the layouts"
        ) from error


def _opened(path: str | Path, format: str | None, side: str) -> Dataset:
    """The data set of one side, or a message that speaks of the options of this side.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        return open_dataset(path, format)
    except FormatError as error:
        if Path(path).suffix == MODEL or (Path(path).is_dir() and any(Path(path).glob(f"*{MODEL}"))):
            use = command("evaluate", path, "DATA", plan=Path(path))
            raise FormatError(f"{path} is a model and not what it predicts; use: {use}") from error
        if Path(path).suffix == ".json" and Path(path).is_file() and not top_keys(Path(path)):
            raise FormatError(f"{path} is no whole JSON, neither results nor annotations of COCO; export it again") from error
        raise type(error)(str(error).replace("--format ", f"--{side}-format ")) from error


def _classes_of(bare: Dataset) -> str:
    """What the numbers of masks stand for, for a note."""
    shown = ", ".join(f"{k} {name}" for k, name in enumerate(bare.classes.names[:SHOWN]))
    return shown + (", ..." if len(bare.classes) > SHOWN else "")

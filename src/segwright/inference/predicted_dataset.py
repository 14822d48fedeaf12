"""Predicted samples to the writer of a data set, which writes one while the next are predicted; and what was lost of them.

Axes: P planes, *S spatial axes.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore
from types import ModuleType

from segwright.conversion import compare_samples
from segwright.core import VOID, Classes, Dataset, Sample
from segwright.core.classes import BACKGROUND, plain
from segwright.core.errors import OutputError
from segwright.formats import coco, coco_panoptic, dicom, ome_zarr, tiff, volume
from segwright.formats.coco_ids import CocoIds
from segwright.formats.label_maps import fits_mask
from segwright.formats.resume_journal import LeftOutError, stopped, truth_of
from segwright.inference.dense_crf import DenseCRF

log = logging.getLogger(__name__)

WAITING = 2  # samples that wait to be written, as images that wait to be predicted


def format_for(sample: Sample, kind: ModuleType) -> str | None:
    """The format that holds the segmentation of a sample best; None where one file of its `kind` of format does.

    A map of classes would lose objects and overlaps; a DICOM-SEG holds both.
    """
    truth = truth_of(sample)
    if kind is dicom or fits_mask(truth):
        return None
    if kind is volume:
        return "volume" if truth.instance_ids.any() else "nnunet"  # objects; regions that overlap
    if kind is tiff and len(truth.shape) == 3:
        return "tiff"
    if kind is ome_zarr:
        return "ome_zarr"
    if kind is tiff and sample.grid.affine is not None:
        return "geojson"  # in coordinates of the map
    known = zip(truth.classes.names, truth.classes.is_thing, strict=True)
    is_panoptic = any(not is_thing and plain(name) != BACKGROUND for name, is_thing in known)  # here or in a later image
    has_stuff = is_panoptic or bool((truth.instance_ids == 0).any())
    return "coco_panoptic" if has_stuff and len(truth.planes) == 1 else "coco"


def finished_keys(out: Path) -> frozenset[str]:
    """The keys that a stopped run has finished in a folder, which must hold nothing but such a run.

    Raises:
        OutputError: the folder holds something else.
    """
    if run := stopped(out):
        return run[1]
    if out.is_dir() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty, and a data set needs a folder of its own; choose another folder with out")
    return frozenset()


@dataclass
class Losses:
    """What became of predictions in files: one sample of each kind, such as the first with objects, is kept to compare."""

    kept: dict[tuple[bool, ...], Sample] = field(default_factory=dict)

    def keep(self, sample: Sample) -> None:
        """Keep a sample if it is the first of its kind."""
        truth = truth_of(sample)
        highest = truth.planes.max(axis=0) if len(truth.planes) > 1 else truth.planes[0]
        is_object = truth.instance_ids > 0
        kind = (
            *(len(truth.planes) > 1, bool(is_object.any()), bool(is_object.all()), bool((truth.scores != 1).any())),
            *(bool((truth.planes[0] == VOID).any()), bool((highest == 0).any()), len(truth.shape) == 3),
        )
        self.kept.setdefault(kind, sample)

    def found(self, load: Callable[[str], Sample]) -> list[str]:
        """What differs, in plain words, between the kept samples and those that `load` reads back by their keys."""
        changes = [compare_samples(sample, load(sample.key)) for sample in self.kept.values()]
        return [*dict.fromkeys(text for change in changes for text in (*change.reasons, *change.notes))]


def write_dataset(
    out: Path,
    module: ModuleType,
    source: str,
    classes: Classes,
    image_files: Mapping[str, Path],
    keys: Iterable[str],
    results: Iterable[tuple[str, Sample | None]],
    draw: Callable[[Sample], None],
    *,
    ids: CocoIds | None = None,
) -> None:
    """Write samples as they are predicted in the format of a module, in a thread of its own, and log what it cannot hold.

    `keys` are those of all samples; `results` are those that `finished_keys` does not name, in the same order, None for one
    that failed, which is left out. `draw` is called for each sample before it is written. `source` is what a stopped run is
    known by when it goes on; COCO's formats number images and categories as `ids` do.

    Raises:
        OutputError: the format cannot hold a sample, or the place is not writable; what is finished stays, and a later call
            goes on from there.
    """
    losses, keys, room = Losses(), tuple(keys), Semaphore(WAITING + 1)
    arriving: dict[str, Future[Sample]] = {key: Future() for key in keys}

    def load(key: str) -> Sample:
        try:
            sample = arriving[key].result()
        finally:
            del arriving[key]
            room.release()
        draw(sample)
        losses.keep(sample)
        return sample

    with ThreadPoolExecutor(1) as pool:
        options = {"ids": ids} if module in (coco, coco_panoptic) else {}
        writing = pool.submit(module.write, out, Dataset(source, classes, keys, load, image_files), **options)
        writing.add_done_callback(lambda _: room.release(len(keys) + 1))  # nobody waits for a writer that has failed
        try:
            for key, sample in results:
                room.acquire()
                if writing.done():
                    break
                if sample is None:
                    arriving[key].set_exception(LeftOutError(f"{key} could not be predicted"))
                else:
                    arriving[key].set_result(sample)
        finally:
            for future in list(arriving.values()):
                future.cancel()  # what has not come will not come: the writer stops
        writing.result()
    if not losses.kept:
        return
    found = losses.found(module.read(out).load)
    name = module.__name__.rpartition(".")[-1]
    if found:
        log.warning(
            "%s does not hold all that was predicted: %s (it is known to lose: %s)", name, "; ".join(found), module.LOSES
        )


def run_name(
    model: str | Path | None,
    images: Sequence[str | Path],
    flips: tuple[int, ...],
    values: tuple[float, float] | None,
    crf: DenseCRF | None = None,
    weights: str | Path | None = None,
    min_score: str = "",
    task: str | None = None,
) -> str:
    """What a run is known by when it goes on after it was stopped: what is predicted how from which images.

    `min_score` is the least score of objects where it is not the usual one, `task` the one that is asked for.
    """
    by = "a model"
    if model is not None:
        known = f"{os.path.abspath(model)} of {_changed_last(Path(model))}" if weights is None else f"{model} with {weights}"  # noqa: PTH100
        by = f"{known}, mirrored over {list(flips)}"
        by += f", values from {values[0]:g} to {values[1]:g}" if values else ""
        by += f", redrawn by {crf}" if crf else ""
        by += f", with scores from {min_score}" if min_score else ""
        by += f", as {task}" if task else ""
    first = os.path.abspath(images[0])  # noqa: PTH100
    return f"what {by} finds in {first}" + (f" and {len(images) - 1} more" if len(images) > 1 else "")


def _changed_last(model: Path) -> int:
    """When a model file, or the newest of those in a folder, was written, in nanoseconds; of a fold too, below its folder."""
    files = [file for file in (*model.glob("model.*"), *model.glob("fold*/*")) if file.suffix in (".safetensors", ".pth")]
    return max(file.stat().st_mtime_ns for file in files or [model])

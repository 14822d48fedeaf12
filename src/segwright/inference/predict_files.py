"""Image files to files of predictions: the next image is decoded and the last written while the network works on this one.

A prediction is a Segmentation. The format that reads files of the image's kind writes one file for it: volumes become volumes,
DICOM series DICOM-SEG objects, TIFF images TIFF masks, Zarrs label images, all others PNG. Objects, which one map of classes
would lose, and `format` make all of them one data set instead.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from segwright.codecs.image_file import JPEG_SUFFIXES, TIFF_SUFFIXES
from segwright.codecs.image_writer import MAX_8_BIT_CLASSES, write_picture
from segwright.codecs.volume_file import suffix_of
from segwright.codecs.zarr_image import is_zarr, zarr_stem
from segwright.conversion import writer
from segwright.core import VOID, Classes, Dataset, Sample
from segwright.core.atomic_files import make_folder, remove
from segwright.core.errors import FormatError, OutputError, SegwrightError, SettingError, UsageError
from segwright.core.missing import missing_pixels
from segwright.core.segment_overlay import overlay_segments
from segwright.data.undeclared_nodata import undeclared_nodata
from segwright.decoding.expected_dice import Quality
from segwright.formats import dataset_file, dicom, mask_folder, nnunet, ome_zarr, open_dataset, tiff, volume
from segwright.formats.coco_ids import CocoIds, ids_of
from segwright.formats.image_index import safe_key
from segwright.formats.label_maps import numbers_in_use
from segwright.formats.mask_folder import image_files
from segwright.formats.ome_zarr import zarrs_below
from segwright.formats.pairing import IMAGE_FOLDERS, Files, is_truth_folder, subfolders, without_truth
from segwright.formats.resume_journal import stopped, truth_of
from segwright.formats.volume import volumes_below
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import AutoEngine
from segwright.inference.large_image import write_in_parts
from segwright.inference.load import load
from segwright.inference.predicted_dataset import finished_keys, format_for, run_name, write_dataset
from segwright.inference.predictor import Predictor
from segwright.inference.probability_files import probability_path
from segwright.inference.prompting import answers_prompts
from segwright.inference.quality_file import write_quality
from segwright.inference.uncertainty_files import map_paths, write_maps

log = logging.getLogger(__name__)

LIKELY = 0.5  # score of objects that are written unless another is asked for: people see what is likelier there than not
AHEAD = 2  # images decoded before they are needed, and results that wait to be written: enough to keep three threads busy
LISTS = (".json", ".yaml", ".yml", ".xml")  # files that name the images of a data set
SHOWN = 10  # images named in a message; the log names all

_Told = dict[str, tuple[Mapping[str, np.ndarray], Quality]]  # maps of how unsure a model is, and what to expect, by key


@dataclass(frozen=True, kw_only=True)
class _Beside:
    """What is asked for with, and beside, masks."""

    overlay: bool
    palette: bool
    uncertainty: bool
    probabilities: bool


@dataclass(frozen=True, eq=False)
class _Job:
    """One image to predict: its key in `source`, the data set that reads it, and the format, `kind`, of files like it."""

    key: str
    kind: ModuleType
    source: Dataset

    @property
    def image(self) -> Path:
        """The file of the image, the folder of a DICOM series."""
        return self.source.image_files.get(self.key, Path(self.source.source))

    def overlay(self, folder: Path) -> Path:
        """The picture for people of this image in a folder."""
        suffix = self.image.suffix.lower()
        return folder / f"{self.key}_overlay{suffix if suffix in JPEG_SUFFIXES else '.png'}"

    def outputs(self, out: Path, beside: _Beside) -> list[Path]:
        """The files to write where each image gets a mask of its own."""
        pictures = [self.overlay(out)] if beside.overlay else []
        probabilities = [probability_path(out, self.key)] if beside.probabilities else []
        return [self.kind.mask_path(out, self.key, self.source), *pictures, *probabilities]

    def maps(self, out: Path) -> dict[str, Path]:
        """The files of the maps of how unsure the model is, by name."""
        return map_paths(out, self.key, self.kind, self.source)


def predict(
    model: Predictor | str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overlay: bool = False,
    palette: bool = False,
    uncertainty: bool = False,
    probabilities: bool = False,
    flips: tuple[int, ...] | None = None,
    values: tuple[float, float] | None = None,
    crf: DenseCRF | None = None,
    min_score: float = LIKELY,
    format: str | None = None,
    task: str | None = None,
    weights: str | Path | None = None,
    online: bool = False,
    own_modules: bool = False,
) -> list[Path]:
    """Write what a model finds in each image to a folder and return the files written, in the order of the images.

    `model` is a predictor or a run's folder, which with `own_modules` may name modules outside segwright; with `weights` it is
    the name of a published network, and these, `task` and `online` are as in `load`. `images` are files, or folders with all
    below them: volumes if there are any, else Zarrs, else DICOM series, else images. A mask is called KEY.png: class numbers at
    the image's own size, with the classes' colours if `palette`. For a TIFF it is KEY.tif with the same place on the map, for a
    volume a volume of its kind on its grid, for a Zarr KEY.zarr, a label image, for a DICOM series KEY.dcm, a DICOM-SEG.
    `overlay` adds pictures for people, KEY_overlay.jpg for a JPEG, else .png, of volumes the middle slice; `uncertainty` the
    maps that `Predictor.with_uncertainty` gives, KEY_uncertainty.tif, or a volume, and quality.csv; `probabilities` those of
    classes or regions to KEY_probabilities.zarr. `flips` replaces the model's; `values`, `crf`, `min_score` as in `Predictor`.
    Masks of an earlier run are replaced, images and the masks of a data set (images/ and masks/ side by side) never.

    With `format`, such as "coco", `out` becomes a data set of that format with images and predictions, which `open_dataset`
    reads; if `images` is one file of COCO's, with its numbers of images and categories. It does so by itself where the model
    finds objects, which a map of classes would lose: COCO (panoptic where there is stuff besides), for GeoTIFFs GeoJSON, for
    volumes `volume`, for Zarrs `ome_zarr`; a DICOM-SEG holds them. The folder must be new or empty, or left by the same call
    that was stopped, which then goes on. Overlays are in a folder beside it, OUT_overlays. What a format cannot hold is logged.

    Raises:
        FormatError, UnknownNameError: no image or format of that name, or two of one name; nothing was written.
        OutputError: the folder cannot be written, or holds the images themselves; nothing was written. Or it filled up, or the
            format cannot hold what was found.
        UsageError: some images could not be predicted; those of all others were written. Or the model answers prompts alone.
    """
    out, places = Path(out), [images] if isinstance(images, (str, Path)) else list(images)
    if format is not None:
        writer(format)  # raises for a wrong name
    path = model if isinstance(model, (str, Path)) else None
    opened = model if path is None else load(path, task=task, weights=weights, online=online, own_modules=own_modules)
    predictor = _changed(opened, flips=flips, values=values, crf=crf, min_score=min_score)
    beside = _Beside(overlay=overlay, palette=palette, uncertainty=uncertainty, probabilities=probabilities)
    _check_extras(predictor, format, beside)
    jobs = _planned(places, out, None if predictor.tile is None else (None,) * len(predictor.tile))
    failed, written, format = dict[Path, str](), list[Path](), format or (stopped(out) or (None,))[0]
    if format is None:
        written, format = _write_files(jobs, predictor, out, failed, beside)
    if format is not None:
        source = run_name(path, places, predictor.flips, values, crf, weights, _unusual(min_score), task)
        written = _write_format(format, jobs, predictor, out, failed, source, overlay=overlay, ids=_ids_of(places))
    _check_all(failed, len(jobs), f"the others are in {out}" if written else "nothing was written")
    return written


def _check_all(failed: dict[Path, str], count: int, rest: str) -> None:
    """Tell what failed of `count` images, and of the rest.

    Raises:
        UsageError: some did.
    """
    if failed:
        raise UsageError(f"{len(failed)} of {count} images could not be predicted, {rest}: {_some([*failed.values()])}")


def _unusual(min_score: float) -> str:
    """The least score of objects in words, where it is not the usual one."""
    return "" if min_score == LIKELY else f"{min_score:g}"


def _changed(predictor: Any, **given: Any) -> Any:
    """A predictor with the settings that are given."""
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(predictor, **changes) if changes else predictor


def _ids_of(places: Sequence[str | Path]) -> CocoIds | None:
    """The numbers of the file of COCO's that names all images, by which its own programs pair them; None without one."""
    return ids_of(Path(places[0])) if len(places) == 1 else None


def _write_files(
    jobs: Sequence[_Job], predictor: Predictor, out: Path, failed: dict[Path, str], beside: _Beside
) -> tuple[list[Path], str | None]:
    """Write a file for each image, and return them; or, where a model finds what such a file would lose, a format for it.

    Then nothing is left of what was written. `failed` tells why images were left out.
    """
    told: _Told | None = {} if beside.uncertainty else None
    qualities: dict[str, Quality] = {}
    outputs = _checked_outputs(jobs, out, beside)
    make_folder(out)
    written: dict[str, list[Path]] = {}
    lost: dict[str, None] = {}  # in the order of finding

    def write(job: _Job, sample: Sample, own: Mapping[str, np.ndarray]) -> None:
        job.kind.write_mask(out, sample, job.source, palette=beside.palette)
        write_maps(out, sample.key, sample.grid, own, job.kind, job.source)
        lost.update(dict.fromkeys(_lost_in_mask(sample, job)))
        if beside.overlay:
            _draw(sample, job.overlay(out))

    in_parts = dict[str, list[Path]]()  # an overlay asks for all of an image at once
    for job in [] if beside.overlay else jobs:
        if (maps := _done_in_parts(job, predictor, out, failed, beside, qualities)) is not None:
            in_parts[job.key] = [*outputs[job.key], *maps]
    wanted, others = None, [job for job in jobs if job.key not in in_parts]
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[None]] = deque()
        for job, sample in _predicted(others, predictor, failed, told, out if beside.probabilities else None):
            if sample is None:
                continue
            if wanted := format_for(sample, job.kind):
                break
            own: Mapping[str, np.ndarray] = {}
            if told is not None:
                own, qualities[job.key] = told.pop(job.key)
            waiting.append(pool.submit(write, job, sample, own))
            written[job.key] = [*outputs[job.key], *(job.maps(out)[name] for name in own)]
            if len(waiting) > AHEAD:
                waiting.popleft().result()
        for future in waiting:
            future.result()
    if wanted:
        log.info("%s holds more than a map of classes: %s becomes a data set, %s", job.image, out, wanted)
        for path in chain(*written.values()):
            remove(path)
        return [], wanted
    if lost:
        log.warning("the masks do not hold all that was predicted: %s; a data set may: choose its format", "; ".join(lost))
    written |= in_parts
    table = [write_quality(out, qualities, predictor.answers.names)] if qualities else []
    return [*(path for job in jobs if job.image not in failed for path in written.get(job.key, ())), *table], None


def _done_in_parts(
    job: _Job, predictor: Predictor, out: Path, failed: dict[Path, str], beside: _Beside, qualities: dict[str, Quality]
) -> list[Path] | None:
    """Write the mask of an image that is too large to be held, or say why not in `failed`; None for all other images.

    What is returned are maps of uncertainty, where they are wanted, which then have their place in `qualities`.
    """
    told, maps = set[float](), list[Path]()

    def keep(quality: Quality, paths: list[Path]) -> None:
        qualities[job.key] = quality
        maps.extend(paths)

    try:
        is_done = write_in_parts(
            *(predictor, job.kind, job.key, job.source, out, lambda image: _tell_missing(job.image, image, told)),
            palette=beside.palette,
            probabilities=beside.probabilities,
            told=keep if beside.uncertainty else None,
        )
    except SegwrightError as error:
        _tell_failed(job, error, failed)
        return []
    return maps if is_done else None


def _write_format(
    format: str,
    jobs: Sequence[_Job],
    predictor: Predictor,
    out: Path,
    failed: dict[Path, str],
    source: str,
    *,
    overlay: bool,
    ids: CocoIds | None,
) -> list[Path]:
    """Write a data set and return its files, then the overlays; see `_write_files` and `write_dataset`."""
    finished = finished_keys(out)
    pictures = {job.key: job.overlay(out.with_name(f"{out.name}_overlays")) for job in jobs} if overlay else {}
    make_folder(out)

    def draw_overlay(sample: Sample) -> None:
        if sample.key in pictures:
            _draw(sample, pictures[sample.key])

    to_do = [job for job in jobs if job.key not in finished]
    results = ((job.key, sample) for job, sample in _predicted(to_do, predictor, failed))
    image_files = {job.key: job.image for job in jobs if job.key in job.source.image_files}
    keys = [job.key for job in jobs]
    try:
        write_dataset(out, writer(format), source, predictor.answers, image_files, keys, results, draw_overlay, ids=ids)
    except OutputError:
        if len(failed) < len(jobs):  # else no image was left to write
            raise
        return []
    return [*sorted(path for path in out.rglob("*") if path.is_file()), *filter(Path.exists, pictures.values())]


def _predicted(
    jobs: Sequence[_Job],
    predictor: Predictor,
    failed: dict[Path, str],
    told: _Told | None = None,
    probabilities: Path | None = None,
) -> Iterator[tuple[_Job, Sample | None]]:
    """Each job with its image and what the model finds in it as the truth, or with None where that failed.

    `told`, where it is wanted, gets how unsure the model is, by the key of the job; the folder `probabilities`, where it is
    given, a file of them.
    """
    warned: set[float] = set()
    for number, (job, image) in enumerate(_decoded(jobs)):
        if isinstance(predictor.engine, AutoEngine):
            predictor.engine.ahead = (len(jobs) - number) * 2 ** len(predictor.flips)
        result = None
        try:
            sample = image.result()
            _tell_missing(job.image, sample.image, warned)
            if probabilities is not None:
                found = predictor.with_probabilities(sample, probability_path(probabilities, job.key))
            elif told is None:
                found = predictor(sample)
            else:
                found, maps, quality = predictor.with_uncertainty(sample)
                told[job.key] = maps, quality
            result = replace(sample, truth=found)
        except SegwrightError as error:
            _tell_failed(job, error, failed)
        yield job, result


def _tell_failed(job: _Job, error: SegwrightError, failed: dict[Path, str]) -> None:
    """Log why an image could not be predicted, and keep it in `failed`."""
    failed[job.image] = str(error) if str(job.image) in str(error) else f"{job.image}: {error}"
    log.warning("%s", failed[job.image])


def _tell_missing(file: Path, image: np.ndarray, told: set[float]) -> None:
    """Warn of an image without any value, and once of each number in images that looks like missing values."""
    missing, number = missing_pixels(image), undeclared_nodata(image)
    if missing is not None and missing.all():
        log.warning("%s: no pixel has a value, so that its mask is void throughout", file)
    if number is not None and number not in told:
        told.add(number)
        log.warning(
            "%s has areas of %.17g, far off all its other values; if that stands for missing values, masks are wrong: say so "
            "in the files (gdal_edit.py -a_nodata %.17g FILE.tif), or by nodata = [%.17g] in a dataset.toml beside the images",
            *(file, number, number, number),
        )


def _decoded(jobs: Sequence[_Job]) -> Iterator[tuple[_Job, Future[Sample]]]:
    """Each job with its image, or the error that reading it raised; the next images are read meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        reading: deque[Future[Sample]] = deque()
        for number, job in enumerate(jobs):
            while len(reading) <= AHEAD and number + len(reading) < len(jobs):
                following = jobs[number + len(reading)]
                reading.append(reader.submit(following.source.load, following.key))
            yield job, reading.popleft()


def _planned(images: Sequence[str | Path], out: Path, shape: tuple[None, ...] | None) -> list[_Job]:
    """What to do, in the order of the images; files below `out` are results of an earlier run and no images.

    `shape` has an entry for each spatial axis of what the model has learned from, which tells the axes of stacks without names.

    Raises:
        FormatError: there is no image.
        OutputError: results would lie among the images, or two would have one name.
    """
    jobs: dict[str, _Job] = {}
    for place in map(Path, images):
        there = _found(place, shape)
        results = {job.key for job in there if place.is_dir() and job.image.resolve().is_relative_to(out.resolve())}
        if place.is_dir() and (place.resolve() == out.resolve() or len(results) == len(there)):
            raise OutputError(f"masks in {out} would lie among the images there; choose another folder with out")
        if results:
            log.info("%d images below %s are taken for results of an earlier run, and left out", len(results), out)
        for job in there:
            if job.key in results:
                continue
            other = jobs.setdefault(job.key, job).image
            if other.resolve() != job.image.resolve():
                raise OutputError(
                    f"the masks of {job.image} and {other} would both be called {job.key}; rename one of the images"
                )
    return [*jobs.values()]


def _found(place: Path, shape: tuple[None, ...] | None) -> list[_Job]:
    """The images at a place, in name order.

    Raises:
        FormatError: there is no image, or two would have one key.
    """
    if cases := nnunet.images_alone(place, shape):
        source = _as_told(cases, place)
        return [_Job(key, volume if suffix_of(file) else _kind_of(file), source) for key, file in cases.image_files.items()]
    if suffix_of(place) and place.is_file():
        return _jobs_of(place, {safe_key(place.name[: -len(suffix_of(place))]): place}, lambda file: volume, shape)
    if place.is_dir():
        folder = next((folder for folder in subfolders(place, IMAGE_FOLDERS) if volumes_below(folder)), place)
        volumes = {safe_key(stem): path for stem, path in without_truth(folder, volumes_below(folder).items())}
        if volumes:
            return _jobs_of(place, volumes, lambda file: volume, shape)
    if is_zarr(place):
        return _jobs_of(place, {safe_key(zarr_stem(place.name)): place}, lambda file: ome_zarr, shape)
    if place.is_dir() and (zarrs := without_truth(place, zarrs_below(place).items())):
        return _jobs_of(place, {safe_key(stem): path for stem, path in zarrs}, lambda file: ome_zarr, shape)
    if place.is_file() and place.suffix.lower() in LISTS:
        listed = dict(open_dataset(place).image_files)
        if not listed:
            raise FormatError(f"no image that {place} names is there; add them, or give a folder of images")
        return _jobs_of(place, listed, _kind_of, shape)
    if dicom.matches(place):
        series = _as_told(dicom.read(place), place)
        return [_Job(key, dicom, series) for key in series.keys]
    return _jobs_of(place, image_files(place), _kind_of, shape)


def _kind_of(file: Path) -> ModuleType:
    """The format that reads an image file."""
    return tiff if file.suffix.lower() in TIFF_SUFFIXES else mask_folder


def _jobs_of(
    place: Path, files: dict[str, Path], kind_of: Callable[[Path], ModuleType], shape: tuple[None, ...] | None
) -> list[_Job]:
    """A job for each file; those of one kind are a data set without truth."""
    kinds = {key: kind_of(file) for key, file in files.items()}
    alone = {key: Files(file) for key, file in files.items()}
    sources = {
        kind: _as_told(
            Dataset(
                str(place),
                Classes.of(["nothing"]),
                tuple(files),
                kind.Reader(alone, None) if kind is volume else kind.Reader(alone, None, shape=shape),
                files,
            ),
            place,
        )
        for kind in {*kinds.values()}
    }
    return [_Job(key, kind, sources[kind]) for key, kind in kinds.items()]


def _as_told(images: Dataset, place: Path) -> Dataset:
    """Images with NaN where the dataset.toml of their data set says that they lack values; it may lie above their folder."""
    folder = dataset_file.folder_of(place).absolute()
    return dataset_file.with_nodata(dataset_file.with_nodata(images, folder), folder.parent)


def _checked_outputs(jobs: Sequence[_Job], out: Path, beside: _Beside) -> dict[str, list[Path]]:
    """The files to write for each key, but maps of how unsure the model is, which may be as many as there are.

    Raises:
        OutputError: one would replace an image, another result or a mask of a data set.
    """
    taken = {job.image.resolve(): job.image for job in jobs}
    outputs = {job.key: job.outputs(out, beside) for job in jobs}
    for job in jobs:
        for path in (*outputs[job.key], *(job.maps(out).values() if beside.uncertainty else ())):
            other = taken.setdefault(path.resolve(), path)
            if other is not path:
                raise OutputError(f"{path}, a result for {job.image}, would replace {other}; choose another folder with out")
            if path.exists() and is_truth_folder(out):
                raise OutputError(
                    f"{path}, a result for {job.image}, would replace a mask that lies beside the images of a data set and "
                    "may be its truth; choose another folder with out, or remove the masks if an earlier prediction wrote them"
                )
    return outputs


def _check_extras(predictor: Any, format: str | None, beside: _Beside) -> None:
    """Refuse what is asked for beside masks and cannot be, and a model that finds nothing by itself.

    Raises:
        UsageError: the model answers prompts alone.
        OutputError: a palette is for masks and not for a data set, or there are more classes than it holds.
        SettingError: maps of uncertainty, and probabilities, are for masks and not for a data set, or the model knows of none.
        MissingExtraError: probabilities need zarr, which is not installed.
    """
    if answers_prompts(predictor):
        raise UsageError(
            "this network answers prompts, points, boxes and masks, and finds nothing by itself; ask it with segwright segment "
            "(in Python with segwright.inference.prompting), or measure it with segwright evaluate"
        )
    if beside.palette and format is not None:
        raise OutputError(f"a palette is for masks, and {format} keeps colours in its own way; leave out one of the two")
    if beside.palette and numbers_in_use(predictor.answers) > MAX_8_BIT_CLASSES:
        raise OutputError(
            f"a palette holds {MAX_8_BIT_CLASSES} classes, there are {len(predictor.answers)}; write without a palette"
        )
    if beside.uncertainty and format is not None:
        raise SettingError(f"uncertainty is written beside masks, and {format} holds no maps of it; leave out one of the two")
    if beside.probabilities and (format is not None or beside.uncertainty):
        other = f"{format} holds none" if format is not None else "uncertainty follows from them, as their entropy"
        raise SettingError(f"probabilities are written beside masks, and {other}; leave out one of the two")
    if beside.uncertainty:
        predictor.check_uncertainty()
    if beside.probabilities:
        predictor.check_probabilities()


def _lost_in_mask(sample: Sample, job: _Job) -> Iterator[str]:
    """What one file for the segmentation of a sample does not hold, besides what `format_for` looks for."""
    truth = truth_of(sample)
    if (truth.scores != 1).any():
        yield "scores are not kept"
    if job.kind is dicom and (truth.planes[0] == VOID).any():
        yield "void becomes nothing"
    if job.kind is not dicom and not truth.classes.regions and (truth.planes[0] == 0).any():
        yield "pixels of no segment become void"


def _draw(sample: Sample, path: Path) -> None:
    """Write the picture of a sample with its segments, and the numbers of its objects, over it."""
    write_picture(path, overlay_segments(sample.image, truth_of(sample)))


def _some(reasons: list[str]) -> str:
    """Some reasons, one a line."""
    more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    return "\n  ".join(["", *reasons[:SHOWN], *more])

"""Image files to mask files: the next image is decoded and the last mask written while the network works on this one.

A mask lies on the grid of its image and is of its kind: volumes become volumes, DICOM series DICOM-SEG objects that reference
them, TIFF images TIFF masks with the same place on the map, all others PNG.

Axes: C channels, *S spatial axes.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np

from segwright.codecs.image_file import (
    JPEG_SUFFIXES,
    MAX_8_BIT_CLASSES,
    TIFF_SUFFIXES,
    read_image,
    write_class_map,
    write_picture,
)
from segwright.codecs.volume_file import read_volume, suffix_of, write_volume
from segwright.core import Dataset, Sample, Segmentation
from segwright.core.errors import OutputError, SegwrightError, UsageError
from segwright.core.picture import overlay as laid_over
from segwright.formats import dicom, tiff
from segwright.formats.image_tree import safe_key
from segwright.formats.mask_folder import image_files, is_mask_folder
from segwright.formats.mask_pairs import IMAGE_FOLDERS, subfolders
from segwright.formats.volume import volumes_below
from segwright.inference.engine import AutoEngine
from segwright.inference.load import load
from segwright.inference.predictor import Predictor

log = logging.getLogger(__name__)

AHEAD = 2  # images decoded before they are needed, and masks that wait to be written: enough to keep three threads busy
DETACHED = {".mhd": ".mha", ".nhdr": ".nrrd"}  # headers in files of their own; masks are one file
SHOWN = 10  # images named in a message; the log names all


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes. A DICOM series, `image` being its folder, is read from `series` by its `key`."""

    key: str
    image: Path
    mask: Path
    overlay: Path | None
    series: Dataset | None = None

    @property
    def outputs(self) -> list[Path]:
        """The files to write."""
        return [self.mask] if self.overlay is None else [self.mask, self.overlay]

    def read(self) -> Sample:
        """The image and its grid."""
        if self.series is not None:
            return self.series.load(self.key)
        if suffix_of(self.image):
            return Sample(self.key, *read_volume(self.image))
        return Sample.of(self.key, read_image(self.image))


def predict(
    model: Predictor | str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    overlay: bool = False,
    palette: bool = False,
    flips: tuple[int, ...] | None = None,
) -> list[Path]:
    """Write the class map of each image to a folder and return the files written, in the order of the images.

    `model` is a predictor or a run's folder. `images` are files, or folders with everything below them: volumes if there are
    any, else DICOM series, else images. A mask is called KEY.png: class numbers at the image's own size, with the classes'
    colours if `palette`. For a TIFF it is KEY.tif with the same place on the map, for a volume a volume of the same kind on the
    same grid, for a DICOM series KEY.dcm, a DICOM-SEG (without colours, these two). `overlay` adds pictures for people,
    KEY_overlay.jpg for a JPEG, else .png, of volumes the middle slice. `flips` replaces those of the model. Masks of an earlier
    run are replaced, images and the masks of a data set (images/ and masks/ side by side) never. An image that cannot be read
    or predicted is left out, and named when all others are done.

    Raises:
        FormatError: there is no image, or two would have one name; nothing was written.
        OutputError: the folder cannot be written, or holds the images themselves; nothing was written. Or it filled up.
        UsageError: some images could not be predicted; those of all others were written.
    """
    predictor = model if isinstance(model, Predictor) else load(model)
    if flips is not None:
        predictor = replace(predictor, flips=flips)
    if palette and len(predictor.classes) > MAX_8_BIT_CLASSES:
        raise OutputError(
            f"a palette holds {MAX_8_BIT_CLASSES} classes, there are {len(predictor.classes)}; write without a palette"
        )
    jobs = planned([images] if isinstance(images, (str, Path)) else images, Path(out), overlay=overlay)
    check_writable(Path(out))
    failed: dict[Path, str] = {}
    written: list[Path] = []
    with ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        for number, (job, image) in enumerate(decoded(jobs)):
            if isinstance(predictor.engine, AutoEngine):
                predictor.engine.ahead = (len(jobs) - number) * 2 ** len(predictor.flips)
            try:
                sample = image.result()
                class_map = predictor(sample).class_map()
            except SegwrightError as error:
                failed[job.image] = str(error) if str(job.image) in str(error) else f"{job.image}: {error}"
                log.warning("%s", failed[job.image])
                continue
            waiting.append(writer.submit(write, job, sample, class_map, predictor, palette=palette))
            written += job.outputs
            if len(waiting) > AHEAD:
                waiting.popleft().result()
        for future in waiting:
            future.result()
    if failed:
        rest = f"the others are in {out}" if written else "nothing was written"
        raise UsageError(f"{len(failed)} of {len(jobs)} images could not be predicted, {rest}: {some([*failed.values()])}")
    return written


def planned(images: Sequence[str | Path], out: Path, *, overlay: bool) -> list[Job]:
    """What to do, in the order of the images; files below `out` are results of an earlier run and no images.

    Raises:
        FormatError: there is no image.
        OutputError: results would lie among the images, replace one or a mask of a data set, or two would have one name.
    """
    keys: dict[str, Path] = {}
    series: dict[str, Dataset] = {}
    for place in map(Path, images):
        files, data = found(place)
        results = {key for key, image in files.items() if place.is_dir() and image.resolve().is_relative_to(out.resolve())}
        if place.is_dir() and (place.resolve() == out.resolve() or len(results) == len(files)):
            raise OutputError(f"masks in {out} would lie among the images there; choose another folder with out")
        if results:
            log.info("%d images below %s are taken for results of an earlier run, and left out", len(results), out)
        for key, image in files.items():
            if key not in results and keys.setdefault(key, image).resolve() != image.resolve():
                raise OutputError(f"the masks of {image} and {keys[key]} would both be called {key}; rename one of the images")
        series |= {key: data for key in files if data is not None}
    jobs = []
    for key, image in keys.items():
        suffix = image.suffix.lower()
        picture = out / f"{key}_overlay{suffix if suffix in JPEG_SUFFIXES else '.png'}"
        ending = ".tif" if suffix in TIFF_SUFFIXES else ".png"
        if key in series:
            ending = ".dcm"
        elif suffix_of(image):
            ending = DETACHED.get(suffix_of(image), suffix_of(image))
        jobs.append(Job(key, image, out / f"{key}{ending}", picture if overlay else None, series.get(key)))
    taken = {job.image.resolve(): job.image for job in jobs}
    for job in jobs:
        for path in job.outputs:
            other = taken.setdefault(path.resolve(), path)
            if other is not path:
                raise OutputError(f"{path}, a result for {job.image}, would replace {other}; choose another folder with out")
            if path.exists() and is_mask_folder(out):
                raise OutputError(
                    f"{path}, a result for {job.image}, would replace a mask that lies beside the images of a data set and "
                    "may be its truth; choose another folder with out, or remove the masks if an earlier prediction wrote them"
                )
    return jobs


def found(place: Path) -> tuple[dict[str, Path], Dataset | None]:
    """The image behind each key at a place, and, where they are DICOM series, the data set that reads them.

    Raises:
        FormatError: there is no image, or two would have one key.
    """
    if suffix_of(place) and place.is_file():
        return {safe_key(place.name[: -len(suffix_of(place))]): place}, None
    if place.is_dir():
        folder = next((folder for folder in subfolders(place, IMAGE_FOLDERS) if volumes_below(folder)), place)
        volumes = {safe_key(stem): path for stem, path in volumes_below(folder).items()}
        if volumes:
            return volumes, None
    if dicom.matches(place):
        data = dicom.read(place)
        return dict.fromkeys(data.keys, place), data
    return image_files(place), None


def check_writable(out: Path) -> None:
    """Make a folder, and try to write to it.

    Raises:
        OutputError: that fails.
    """
    probe = out / f".{uuid4().hex}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}); choose another folder with out") from error


def decoded(jobs: Sequence[Job]) -> Iterator[tuple[Job, Future[Sample]]]:
    """Each job with its image, or the error that reading it raised; the next images are read meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        reading: deque[Future[Sample]] = deque()
        for number, job in enumerate(jobs):
            while len(reading) <= AHEAD and number + len(reading) < len(jobs):
                reading.append(reader.submit(jobs[number + len(reading)].read))
            yield job, reading.popleft()


def write(job: Job, sample: Sample, class_map: np.ndarray, predictor: Predictor, *, palette: bool) -> None:
    """Write the results of one image and its class map (*S)."""
    classes = predictor.classes
    place = tiff.geo_tags(job.image) if job.mask.suffix == ".tif" else None
    stored = class_map.astype(np.uint8 if len(classes) <= MAX_8_BIT_CLASSES else np.uint16)
    if job.series is not None:
        truth = Segmentation.semantic(class_map, classes)
        dicom.write_segmentation(job.mask, truth, job.series, key=job.key)
    elif suffix_of(job.mask):
        write_volume(job.mask, stored[None], sample.grid)
    elif place is not None:
        colors = np.zeros((256, 3), np.uint8)  # of all 8-bit numbers
        colors[: len(classes) * palette] = classes.palette[: len(classes) * palette]
        tiff.write_values(job.mask, stored[None], place, colors if palette else None)
    else:
        write_class_map(job.mask, class_map, classes, palette=palette)
    if job.overlay is not None:
        write_picture(job.overlay, laid_over(sample.image, class_map, classes.palette))


def some(reasons: list[str]) -> str:
    """Some reasons, one a line."""
    more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    return "\n  ".join(["", *reasons[:SHOWN], *more])

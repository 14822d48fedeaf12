"""Image files to mask files: the next image is decoded and the last mask written while the network works on this one.

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
from segwright.core.errors import OutputError, SegwrightError, UsageError
from segwright.core.picture import overlay as laid_over
from segwright.formats.mask_folder import image_files, is_mask_folder
from segwright.inference.engine import AutoEngine
from segwright.inference.load import load
from segwright.inference.predictor import Predictor

log = logging.getLogger(__name__)

AHEAD = 2  # images decoded before they are needed, and masks that wait to be written: enough to keep three threads busy
SHOWN = 10  # images named in a message; the log names all


@dataclass(frozen=True)
class Job:
    """One image file and the files that it becomes."""

    image: Path
    mask: Path
    overlay: Path | None

    @property
    def outputs(self) -> list[Path]:
        """The files to write."""
        return [self.mask] if self.overlay is None else [self.mask, self.overlay]


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

    `model` is a predictor or a run's folder. `images` are files, or folders with everything below them. A mask is called
    KEY.png, or KEY.tif for a TIFF: class numbers at the image's own size, with the classes' colours if `palette`. `overlay`
    adds pictures for people, KEY_overlay.jpg for a JPEG, else .png. `flips` replaces those of the model. Masks of an earlier
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
                class_map = predictor.class_map(image.result())
            except SegwrightError as error:
                failed[job.image] = str(error) if str(job.image) in str(error) else f"{job.image}: {error}"
                log.warning("%s", failed[job.image])
                continue
            waiting.append(writer.submit(write, job, image.result(), class_map, predictor, palette=palette))
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
    for place in map(Path, images):
        files = image_files(place)
        results = {key for key, image in files.items() if place.is_dir() and image.resolve().is_relative_to(out.resolve())}
        if place.is_dir() and (place.resolve() == out.resolve() or len(results) == len(files)):
            raise OutputError(f"masks in {out} would lie among the images there; choose another folder with out")
        if results:
            log.info("%d images below %s are taken for results of an earlier run, and left out", len(results), out)
        for key, image in files.items():
            if key not in results and keys.setdefault(key, image).resolve() != image.resolve():
                raise OutputError(f"the masks of {image} and {keys[key]} would both be called {key}; rename one of the images")
    jobs = []
    for key, image in keys.items():
        suffix = image.suffix.lower()
        picture = out / f"{key}_overlay{suffix if suffix in JPEG_SUFFIXES else '.png'}"
        jobs.append(Job(image, out / f"{key}{'.tif' if suffix in TIFF_SUFFIXES else '.png'}", picture if overlay else None))
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


def decoded(jobs: Sequence[Job]) -> Iterator[tuple[Job, Future[np.ndarray]]]:
    """Each job with its image (C, *S), or the error that reading it raised; the next images are read meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        reading: deque[Future[np.ndarray]] = deque()
        for number, job in enumerate(jobs):
            while len(reading) <= AHEAD and number + len(reading) < len(jobs):
                reading.append(reader.submit(read_image, jobs[number + len(reading)].image))
            yield job, reading.popleft()


def write(job: Job, image: np.ndarray, class_map: np.ndarray, predictor: Predictor, *, palette: bool) -> None:
    """Write the results of one image (C, *S) and its class map (*S)."""
    write_class_map(job.mask, class_map, predictor.classes, palette=palette)
    if job.overlay is not None:
        write_picture(job.overlay, laid_over(image, class_map, predictor.classes.palette))


def some(reasons: list[str]) -> str:
    """Some reasons, one a line."""
    more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    return "\n  ".join(["", *reasons[:SHOWN], *more])

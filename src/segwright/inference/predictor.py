"""A trained network with all that it needs to answer for an image of a file. Axes: C channels, *S spatial axes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import numpy as np
from torch import nn

from segwright.codecs.zarr_image import zarr_package
from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.core.missing import missing_pixels
from segwright.data.value_range import ValueRange, ends_of, full_scale
from segwright.decoding.expected_dice import Quality, QualityCalibration
from segwright.decoding.postprocess import Postprocess
from segwright.decoding.run import Engine, Run
from segwright.decoding.score_calibration import ScoreCalibration
from segwright.decoding.upsample_argmax import label_dtype
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import AutoEngine
from segwright.inference.probability_files import written_probabilities
from segwright.tasks import Task, TellsProbabilities, TellsUncertainty
from segwright.transforms.class_channels import with_class_channels
from segwright.transforms.prepare import PixelSource, Preprocess, View

log = logging.getLogger(__name__)

AT_ONCE = {"cpu": 1, "cuda": 8}  # tiles and mirror images in a batch: a CPU is as fast with one, and needs less memory
LARGE = 2**26  # values of an image from which it is normalised part by part: as float32 all of it would take 256 MB and more


class _Changed:
    """An image (C, *S) of which each part is changed when it is taken."""

    def __init__(self, pixels: PixelSource, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.pixels, self.change, self.shape = pixels, change, pixels.shape

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        return self.change(self.pixels[part])


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """Images of any size to segmentations of the same size.

    An image becomes a view by `preprocess`; the task makes a segmentation of what the network says to it. Beyond the spatial
    shape `tile` of a view (None for never) it is seen in overlapping tiles, as few as possible and at most that large. `flips`
    are axes, counted from the end, over whose mirror images outputs are averaged: (-1,) takes twice the time, (-2, -1) four
    times. `engine` runs the network; without one it is picked by timing when that pays (`AutoEngine`), and the network must not
    be trained any further. For a network in training give `TorchEngine(network)`.

    `trained_on` are the values of the training images (see `data/value_range.py`). Where the type of an image makes it certain
    that it is on another scale, it is brought to that of training; where it only seems so, a warning says it. `values` are the
    numbers in the images that stand for the darkest and the brightest of training: then nothing is guessed. What was said once
    is in `told`.

    `crf` redraws what a semantic model says by the colours of the image, RGB or grey, which count from 0 to 255: from `values`
    if there are any, else from 0 to what is full in the image's type, or from the lowest to the highest value.

    Objects with scores below `min_score` are left out. Evaluation, which ranks them, takes all. Where there is a `calibration`,
    scores are the probabilities that it makes of them, and so is `min_score`.

    Probabilities of pixels are those of logits divided by the `temperature`; `postprocess` is done with each segmentation;
    `quality` is what was learned about the Dice to expect of them.

    `first` finds what the network sees besides, as channels behind those of the image: the first network of a cascade. It gets
    samples as they are in their files.

    `classes` are those of the network, and `answers` those of the segmentations, which differ where a network for several tasks
    does another than it was trained for: the things alone, or a background besides.
    """

    network: nn.Module
    task: Task
    classes: Classes
    preprocess: Preprocess = Preprocess()
    tile: tuple[int, ...] | None = None
    flips: tuple[int, ...] = ()
    engine: Engine = field(default=None)  # type: ignore[assignment]  # never None once it is made
    trained_on: ValueRange | None = None
    values: tuple[float, float] | None = None
    crf: DenseCRF | None = None
    min_score: float = 0.0
    temperature: float = 1.0
    postprocess: Postprocess = Postprocess()
    calibration: ScoreCalibration = ScoreCalibration()
    quality: QualityCalibration = QualityCalibration()
    first: Callable[[Sample], Segmentation] | None = None
    told: set[str] = field(default_factory=set)
    answers: Classes = field(default=None)  # type: ignore[assignment]  # never None once it is made

    def __post_init__(self) -> None:
        if self.answers is None:
            object.__setattr__(self, "answers", self.classes)
        if isinstance(self.first, Predictor) and self.values is not None and self.first.preprocess.normalise.mean is not None:
            object.__setattr__(self, "first", replace(self.first, values=self.values))  # both see the same image
        self._check_values()
        self._check_crf(len(self.tile or (0, 0)), self.preprocess.channels)
        if self.engine is None:
            object.__setattr__(self, "engine", AutoEngine(self.network, self.task.agreement))
        self.run(len(self.tile or (0, 0)))  # flips that cannot be are told now

    def run(self, axes: int) -> Run:
        """How the network is asked about images of so many spatial axes."""
        return Run(
            engine=self.engine,
            classes=self.classes,
            divisors=tuple(getattr(self.network, "divisors", (1,) * axes)),
            tile=self.tile,
            flip_axes=self.flips,
            at_once=AT_ONCE[getattr(self.engine, "device", "cpu")],
            output=getattr(self.network, "OUTPUT", ""),
            min_score=self.calibration.least_score(self.min_score),
            temperature=self.temperature,
        )

    def __call__(self, image: Sample | np.ndarray) -> Segmentation:
        """The segmentation (*S) of a sample, or of an image (C, *S) in the values of its file.

        It is void where the image lacks values (NaN).

        Raises:
            ShapeError: the image has channels or axes that the network is not made for.
            SegwrightError: the network gives NaN.
        """
        sample, view = self._seen(image)
        found = (
            self.task.decode(self.run(len(view.source.shape)), view)
            if self.crf is None
            else self._redrawn(self.crf, view, sample.image)
        )
        missing, found = missing_pixels(sample.image), self.calibration(self.postprocess(found), self.min_score)
        return found if missing is None else found.with_void(missing)

    def with_uncertainty(self, image: Sample | np.ndarray) -> tuple[Segmentation, dict[str, np.ndarray], Quality]:
        """The segmentation (*S) of an image, maps float32 (*S) by name of how unsure the network is, 0 to 1, and its quality.

        They are NaN where the image lacks values.

        "uncertainty" is the entropy of the classes of a pixel as a share of the highest. Of several networks, such as those of
        folds, "disagreement" is the part of it by which they say different things, which more training data would lessen. The
        quality is the Dice to expect, with intervals where the run had enough validation images (`decoding/expected_dice.py`).

        Raises:
            SettingError: the task knows of no uncertainty, or a CRF redraws what the network says.
            ShapeError, SegwrightError: as in a call.
        """
        self.check_uncertainty()
        sample, view = self._seen(image)
        missing = missing_pixels(sample.image)
        found, maps, sums = self.task.with_uncertainty(  # type: ignore[attr-defined]  # checked
            self.run(len(view.source.shape)), view, missing
        )
        found = self.postprocess(found)
        quality = self.quality(sums, np.isin(np.arange(len(sums.whole)), found.class_ids))
        if missing is None:
            return found, dict(maps), quality
        gaps = {name: np.where(missing, np.float32(np.nan), each) for name, each in maps.items()}
        return found.with_void(missing), gaps, quality

    def probabilities(self, image: Sample | np.ndarray) -> np.ndarray:
        """The probability of each class of a semantic model at each pixel of an image, float32 (K, *S), before any rule.

        Raises:
            SettingError: the task gives no class probabilities.
            ShapeError, SegwrightError: as in a call.
        """
        if not hasattr(self.task, "probabilities"):
            raise SettingError(
                f"{type(self.task).__name__} finds objects, which have scores and no probabilities of classes at pixels; take "
                "the scores of what a call of the predictor finds"
            )
        _, view = self._seen(image)
        return self.task.probabilities(self.run(len(view.source.shape)), view)

    def with_probabilities(self, image: Sample | np.ndarray, path: Path) -> Segmentation:
        """The segmentation (*S) of an image; the probabilities of classes that it follows from become an OME-Zarr at `path`.

        They are written as they come, and never held as a whole.

        Raises:
            SettingError: the task gives no class probabilities, or a CRF redraws them.
            OutputError: the place is not writable.
            MissingExtraError: zarr is not installed.
            ShapeError, SegwrightError: as in a call.
        """
        self.check_probabilities()
        sample, view = self._seen(image)
        rows = self.task.probability_rows(  # type: ignore[attr-defined]  # checked
            self.run(len(view.source.shape)), view
        )
        written = written_probabilities(rows, sample.image, sample.grid, self.answers, path)
        found = self.task.decided((probs for _, probs in written), self.answers)  # type: ignore[attr-defined]
        missing, answer = missing_pixels(sample.image), self.postprocess(found)
        return answer if missing is None else answer.with_void(missing)

    def check_probabilities(self) -> None:
        """Refuse to write probabilities where there are none of classes at pixels.

        Raises:
            SettingError: the task gives none, or a CRF redraws them.
            MissingExtraError: zarr is not installed.
        """
        if not isinstance(self.task, TellsProbabilities):
            raise SettingError(
                f"{type(self.task).__name__} gives no probabilities of classes at pixels, as Segwright's models for semantic "
                "segmentation and regions do; leave out --probabilities: objects have scores, which are in the data set that "
                "is written of them"
            )
        if self.crf is not None:
            raise SettingError("the CRF redraws what the network says; ask for --probabilities without --crf")
        zarr_package()

    def check_uncertainty(self) -> None:
        """Refuse to say how unsure a network is where that is not known.

        Raises:
            SettingError: the task knows of no uncertainty, or a CRF redraws what the network says.
        """
        if not isinstance(self.task, TellsUncertainty):
            raise SettingError(
                "how unsure a model is of each pixel is known of Segwright's models for semantic segmentation and regions "
                f"alone, and the task of this one is {type(self.task).__name__}; leave out --uncertainty"
            )
        if self.crf is not None:
            raise SettingError("the CRF redraws what the network was unsure of; ask for --uncertainty without --crf")

    def _seen(self, image: Sample | np.ndarray) -> tuple[Sample, View]:
        """A sample, or one of an image (C, *S), and the view that the network gets of it.

        Raises:
            ShapeError: the image has channels or axes that the network is not made for.
        """
        sample = image if isinstance(image, Sample) else Sample.of("", self.checked(image))
        axes = len(sample.grid.shape)
        if len(self.tile or sample.grid.shape) != axes:
            raise ShapeError(
                f"the image has {axes} spatial axes, but tile is {self.tile}; give an image with as many axes as the tile"
            )
        self._check_crf(axes, len(sample.image))
        if self.first is not None:
            seen = with_class_channels(replace(self.on_scale(sample), truth=None), self.first(sample))
            view = self.preprocess(seen)
        elif sample.image.size >= LARGE and self._sees_tiles(sample):
            view = self.view_in_parts(sample.image, sample.grid, sample.key, self.scale_of(sample.image, sample.key))
        else:
            view = self.preprocess(replace(self.on_scale(sample), truth=None))
        return sample, view

    def on_scale(self, sample: Sample) -> Sample:
        """The sample with its image on the scale of the training images as far as that is known; what is done is logged."""
        change = self.scale_of(sample.image, sample.key)
        return sample if change is None else replace(sample, image=change(sample.image))

    def scale_of(self, image: np.ndarray, key: str) -> Callable[[np.ndarray], np.ndarray] | None:
        """What brings an image, or any part of it, to the scale of the training images as far as that is known, and is logged.

        None where it stays as it is. Where each image is normalised by its own numbers, no scale matters.
        """
        trained = self.trained_on
        if trained is None or self.preprocess.normalise.mean is None:
            return None
        if self.values is not None:
            (low, high), (first, last) = self.values, trained.ends
            return lambda part: (part.astype(np.float32) - np.float32(low)) * ((last - first) / (high - low)) + first
        factor = trained.factor(image)
        if factor != 1:
            text = f"multiplied by {factor:.6g}" if factor > 1 else f"divided by {1 / factor:.6g}"
            full = f"{image.dtype} images full at {full_scale(image):g}"
            self._tell(logging.INFO, f"{full} are {text}, as the model was trained on {trained.text}")
            return lambda part: part.astype(np.float32) * np.float32(factor)
        if trained.is_unlike(image):
            low, high = ends_of(image)
            self._tell(
                logging.WARNING,
                f"{image.dtype} images seem to be on another scale than in training, so that their masks are likely wrong",
                f": {key or 'one'} holds {low:.6g} to {high:.6g}, and the model was trained on {trained.text}; give "
                "these images alone, with --values LOW HIGH (in Python values=(LOW, HIGH)), the numbers that stand for "
                f"{trained.ends[0]:.6g} and {trained.ends[1]:.6g} there",
            )
        return None

    def in_parts(self, axes: int) -> bool:
        """Whether images of so many spatial axes may be seen in parts: labels come row by row and stay as they are."""
        has_tiles = self.tile is not None and len(self.tile) == axes
        is_final = self.crf is None and self.postprocess == Postprocess() and self.first is None
        return has_tiles and is_final and hasattr(self.task, "label_rows") and self.run(axes).output != "queries"

    def _sees_tiles(self, sample: Sample) -> bool:
        """Whether the network sees a sample in tiles alone, so that no more than one of them need be normalised."""
        if self.tile is None or self.crf is not None:
            return False
        return any(side > part for side, part in zip(self.preprocess.shape_of(sample.grid, sample.key), self.tile, strict=True))

    def view_in_parts(
        self, pixels: PixelSource, grid: Grid, key: str, change: Callable[[np.ndarray], np.ndarray] | None
    ) -> View:
        """The view of an image (C, *S) in the values of its file, of which parts are read and changed when they are needed.

        Raises:
            SettingError: the pixel size is not known where it is needed, or the settings are for other axes.
        """
        return self.preprocess.in_parts(pixels if change is None else _Changed(pixels, change), grid, key)

    def _redrawn(self, crf: DenseCRF, view: View, image: np.ndarray) -> Segmentation:
        """The segmentation of a view after a CRF over its image (C, H, W) in the values of the file."""
        full = full_scale(image)
        low, high = self.values or (ends_of(image) if full is None else (0.0, full))
        if image.dtype != np.uint8 or (low, high) != (0.0, 255.0):
            image = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low or 1))
        probs = crf(image, self.task.probabilities(self.run(2), view))  # type: ignore[attr-defined]  # checked
        return Segmentation.semantic(probs.argmax(axis=0).astype(label_dtype(len(probs))), self.answers)

    def _check_crf(self, axes: int, channels: int) -> None:
        """Refuse a CRF where there are no class probabilities, or no colours, of a plane.

        Raises:
            SettingError: there are none.
        """
        if self.crf is None:
            return
        is_semantic = hasattr(self.task, "label_rows")
        if is_semantic and axes == 2 and channels in (1, 3):
            return
        what = (
            f"a task {type(self.task).__name__!r}" if not is_semantic else "a volume" if axes == 3 else f"{channels} channels"
        )
        raise SettingError(
            f"a dense CRF redraws what semantic models say of RGB and grey images, and this is {what}; predict without it "
            "(leave out --crf; in Python crf=None)"
        )

    def _tell(self, level: int, text: str, details: str = "") -> None:
        """Log a text, unless it was logged before, if with other details."""
        if text not in self.told:
            self.told.add(text)
            log.log(level, "%s%s", text, details)

    def _check_values(self) -> None:
        """Refuse values, and a least score of objects, that say nothing.

        Raises:
            SettingError: the values are equal, or their scale does not matter or is not known; or no score can be so.
        """
        if not 0 <= self.min_score <= 1:
            raise SettingError(f"min_score is {self.min_score:g}; scores lie between 0 and 1: give a number there, such as 0.5")
        if self.values is None:
            return
        low, high = self.values
        if not (isfinite(low) and isfinite(high) and low != high):
            raise SettingError(f"values are {low:g} and {high:g}; give two different numbers, such as 0 and 4095 for 12 bits")
        if self.preprocess.normalise.mean is None:
            raise SettingError(
                f"values are {low:g} and {high:g}, and this model measures each image by itself, so that its scale does not "
                "matter; leave them out"
            )
        if self.trained_on is None:
            raise SettingError(
                f"values are {low:g} and {high:g}, and the model file, of an earlier version, does not say what the model was "
                "trained on; leave them out, and give images on the scale of its training images"
            )

    def checked(self, image: np.ndarray) -> np.ndarray:
        """The image, if it is (C, *S).

        Raises:
            ShapeError: it is something else.
        """
        channels = self.preprocess.channels
        if image.ndim not in (3, 4) or 0 in image.shape:
            raise ShapeError(
                f"the image is {image.shape}; (C, H, W) or (C, D, H, W) is needed, without empty axes: "
                "give a grey image as image[None]"
            )
        if len(image) != channels and len(image) > 4 >= image.shape[-1]:  # 4: RGBA
            raise ShapeError(f"the image is {image.shape}, channels come first: give np.moveaxis(image, -1, 0)")
        return image

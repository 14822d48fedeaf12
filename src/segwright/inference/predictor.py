"""A trained network with all that it needs to answer for an image of a file. Axes: C channels, *S spatial axes."""

import logging
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
from torch import nn

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.core.missing import missing_pixels
from segwright.data.value_range import ValueRange, ends_of, full_scale
from segwright.decoding.run import Engine, Run
from segwright.decoding.upsample_argmax import label_dtype
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import AutoEngine
from segwright.tasks import Task
from segwright.transforms.prepare import Preprocess, View

log = logging.getLogger(__name__)

AT_ONCE = {"cpu": 1, "cuda": 8}  # tiles and mirror images in a batch: a CPU is as fast with one, and needs less memory


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

    Objects with scores below `min_score` are left out. Evaluation, which ranks them, takes all.
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
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
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
            min_score=self.min_score,
        )

    def __call__(self, image: Sample | np.ndarray) -> Segmentation:
        """The segmentation (*S) of a sample, or of an image (C, *S) in the values of its file.

        It is void where the image lacks values (NaN).

        Raises:
            ShapeError: the image has channels or axes that the network is not made for.
            SegwrightError: the network gives NaN.
        """
        sample = image if isinstance(image, Sample) else Sample.of("", self.checked(image))
        axes = len(sample.grid.shape)
        if len(self.tile or sample.grid.shape) != axes:
            raise ShapeError(
                f"the image has {axes} spatial axes, but tile is {self.tile}; give an image with as many axes as the tile"
            )
        self._check_crf(axes, len(sample.image))
        view = self.preprocess(replace(self.on_scale(sample), truth=None))
        found = self.task.decode(self.run(axes), view) if self.crf is None else self._redrawn(self.crf, view, sample.image)
        missing = missing_pixels(sample.image)
        return found if missing is None else found.with_void(missing)

    def on_scale(self, sample: Sample) -> Sample:
        """The sample with its image on the scale of the training images as far as that is known; what is done is logged.

        Where each image is normalised by its own numbers, no scale matters.
        """
        trained, image = self.trained_on, sample.image
        if trained is None or self.preprocess.normalise.mean is None:
            return sample
        if self.values is not None:
            (low, high), (first, last) = self.values, trained.ends
            return replace(sample, image=(image.astype(np.float32) - np.float32(low)) * ((last - first) / (high - low)) + first)
        factor = trained.factor(image)
        if factor != 1:
            text = f"multiplied by {factor:.6g}" if factor > 1 else f"divided by {1 / factor:.6g}"
            full = f"{image.dtype} images full at {full_scale(image):g}"
            self._tell(logging.INFO, f"{full} are {text}, as the model was trained on {trained.text}")
            return replace(sample, image=image.astype(np.float32) * np.float32(factor))
        if trained.is_unlike(image):
            low, high = ends_of(image)
            self._tell(
                logging.WARNING,
                f"{image.dtype} images seem to be on another scale than in training, so that their masks are likely wrong",
                f": {sample.key or 'one'} holds {low:.6g} to {high:.6g}, and the model was trained on {trained.text}; give "
                "these images alone, with --values LOW HIGH (in Python values=(LOW, HIGH)), the numbers that stand for "
                f"{trained.ends[0]:.6g} and {trained.ends[1]:.6g} there",
            )
        return sample

    def _redrawn(self, crf: DenseCRF, view: View, image: np.ndarray) -> Segmentation:
        """The segmentation of a view after a CRF over its image (C, H, W) in the values of the file."""
        full = full_scale(image)
        low, high = self.values or (ends_of(image) if full is None else (0.0, full))
        if image.dtype != np.uint8 or (low, high) != (0.0, 255.0):
            image = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low or 1))
        probs = crf(image, self.task.probabilities(self.run(2), view))  # type: ignore[attr-defined]  # checked
        return Segmentation.semantic(probs.argmax(axis=0).astype(label_dtype(len(probs))), self.classes)

    def _check_crf(self, axes: int, channels: int) -> None:
        """Refuse a CRF where there are no class probabilities, or no colours, of a plane.

        Raises:
            SettingError: there are none.
        """
        if self.crf is None:
            return
        is_semantic = hasattr(self.task, "probabilities")
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
        """Refuse values that say nothing.

        Raises:
            SettingError: they are equal, or their scale does not matter or is not known.
        """
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

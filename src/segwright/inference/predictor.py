"""A trained network with all that it needs to answer for an image of a file. Axes: C channels, *S spatial axes."""

from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import ShapeError
from segwright.core.missing import missing_pixels
from segwright.decoding.run import Engine, Run
from segwright.inference.engine import AutoEngine
from segwright.tasks import Task
from segwright.transforms.prepare import Preprocess

AT_ONCE = {"cpu": 1, "cuda": 8}  # tiles and mirror images in a batch: a CPU is as fast with one, and needs less memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """Images of any size to segmentations of the same size.

    An image becomes a view by `preprocess`; the task makes a segmentation of what the network says to it. Beyond the spatial
    shape `tile` of a view (None for never) it is seen in overlapping tiles, as few as possible and at most that large. `flips`
    are axes, counted from the end, over whose mirror images outputs are averaged: (-1,) takes twice the time, (-2, -1) four
    times. `engine` runs the network; without one it is picked by timing when that pays (`AutoEngine`), and the network must not
    be trained any further. For a network in training give `TorchEngine(network)`.
    """

    network: nn.Module
    task: Task
    classes: Classes
    preprocess: Preprocess = Preprocess()
    tile: tuple[int, ...] | None = None
    flips: tuple[int, ...] = ()
    engine: Engine = field(default=None)  # type: ignore[assignment]  # never None once it is made

    def __post_init__(self) -> None:
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
        found = self.task.decode(self.run(axes), self.preprocess(replace(sample, truth=None)))
        missing = missing_pixels(sample.image)
        return found if missing is None else found.with_void(missing)

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

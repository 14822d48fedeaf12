"""A trained network with all that it needs to answer for an image as it comes from a file.

Axes: C channels, K classes, *S spatial axes of the image, *M after the zoom, *P with padding.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import SegwrightError, SettingError, ShapeError
from segwright.inference.engine import AutoEngine, Engine
from segwright.inference.flips import mirrored
from segwright.inference.tiling import smallest_tile, tiled_labels
from segwright.transforms.channels import match_channels
from segwright.transforms.normalise import Normalise
from segwright.transforms.pad import pad
from segwright.transforms.resize import resize

SIZES_PER_TILE = 8  # images below a tile are padded to 8 sizes per axis, so that engines are built for few shapes


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """Images of any size to segmentations of the same size.

    An image is brought to `channels`, resized by `zoom`, normalised and padded; beyond the spatial shape `tile` (after the
    zoom; None for never) it is seen in overlapping tiles, as few as possible and at most that large. `flips` are axes, counted
    from the end, over whose mirror images the logits are averaged: (-1,) takes twice the time, (-2, -1) four times. `engine`
    runs the network; without one it is picked by timing when that pays (`AutoEngine`), and the network must not be trained
    any further. For a network in training give `TorchEngine(network)`.
    """

    network: nn.Module
    classes: Classes
    channels: int
    normalise: Normalise = Normalise()
    zoom: float = 1.0
    tile: tuple[int, ...] | None = None
    flips: tuple[int, ...] = ()
    engine: Engine = field(default=None)  # type: ignore[assignment]  # never None once it is made

    def __post_init__(self) -> None:
        if len({*self.flips}) != len(self.flips) or any(axis not in (-1, -2, -3) for axis in self.flips):
            raise SettingError(f"flips is {self.flips}; count axes from the end, each once: -1 columns, -2 rows, -3 slices")
        if self.engine is None:
            object.__setattr__(self, "engine", AutoEngine(self.network))

    def __call__(self, image: Sample | np.ndarray) -> Segmentation:
        """The segmentation (*S) of a sample, or of an image (C, *S) in the values of its file.

        Raises:
            ShapeError: the image has channels or axes that the network is not made for.
            SegwrightError: the network gives NaN.
        """
        return Segmentation.semantic(self.class_map(image), self.classes)

    def class_map(self, image: Sample | np.ndarray) -> np.ndarray:
        """The class of each pixel, uint8 or uint16 (*S), of a sample or an image (C, *S). Raises what calling raises."""
        sample = image if isinstance(image, Sample) else Sample.of("", self.checked(image))
        shape = sample.grid.shape
        if any(-axis > len(shape) for axis in self.flips) or len(self.tile or shape) != len(shape):
            raise ShapeError(
                f"the image has {len(shape)} spatial axes, but tile is {self.tile} and flips {self.flips}; "
                "give an image with as many axes as the tile, and flip only axes that it has"
            )
        values = match_channels(sample.image, self.channels)
        if self.zoom != 1:
            values = resize(Sample("", values, sample.grid), self.zoom).image
        covered = values.shape[1:]
        values = self.normalise(values)
        tile, padded = self.sizes(covered)
        return tiled_labels(pad(values, 1, padded), mirrored(self.logits, self.flips), tile, shape, covered)

    def checked(self, image: np.ndarray) -> np.ndarray:
        """The image, if it is (C, *S).

        Raises:
            ShapeError: it is something else.
        """
        if image.ndim not in (3, 4) or 0 in image.shape:
            raise ShapeError(
                f"the image is {image.shape}; (C, H, W) or (C, D, H, W) is needed, without empty axes: "
                "give a grey image as image[None]"
            )
        if len(image) != self.channels and len(image) > 4 >= image.shape[-1]:  # 4: RGBA
            raise ShapeError(f"the image is {image.shape}, channels come first: give np.moveaxis(image, -1, 0)")
        return image

    def sizes(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of the tiles, and that of the padded image, for an image of some shape after the zoom."""
        divisor = int(getattr(self.network, "divisor", 1))
        tile, padded = [], []
        for side, most in zip(shape, self.tile or shape, strict=True):
            most = max(most // divisor, 1) * divisor if self.tile else up(side, divisor)
            step = max(most // divisor // SIZES_PER_TILE, 1) * divisor if self.tile else divisor
            if side <= most:
                padded.append(min(up(side, step), most))
                tile.append(padded[-1])
            else:
                padded.append(up(side, divisor))
                tile.append(min(up(smallest_tile(side, most), step), most))
        if divisor > 1 and set(padded) == {divisor}:  # one pixel at the deepest stage, which instance norm cannot work on
            tile[-1] = padded[-1] = 2 * divisor
        return tuple(tile), tuple(padded)

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Logits float32 (K, *s) of one normalised image or tile float32 (C, *P).

        Raises:
            SegwrightError: they are NaN, or the network has another number of classes than it should.
        """
        logits = self.engine(image[None])[0]
        if len(logits) != len(self.classes):
            raise ShapeError(
                f"the network gives {len(logits)} classes, but there are names for {len(self.classes)}; "
                "build it with num_classes equal to the number of classes"
            )
        if np.isnan(logits.max()):
            raise SegwrightError("the network answers NaN; its weights hold NaN or values that overflow: take an earlier model")
        return logits


def up(side: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-side // step) * step

"""A model folder of nnU-Net as a predictor: images prepared, seen in windows and brought back as nnU-Net does it.

An image is cropped to its content, its values are brought to one scale, and it is resampled to the spacing of the plan. The
network sees it in windows that overlap by half, with a bell of weights on each, and mirrored; folds are averaged. Logits are
resampled to the crop brick by brick, and never exist at its size for all classes at once, which nnU-Net needs most memory for.
What lies outside of the crop is number 0. Where nnU-Net sums windows in half precision, this does in single.

Axes: C channels, K maps of logits, *S spatial axes of the file, (d, h, w) those of the network, which begin with the thickest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import ndimage
from torch import Tensor, nn

from segwright.checkpoints.nnunet_folder import ChannelScheme, NnunetFolder
from segwright.core import Sample, Segmentation
from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.core.lookup import find
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import Axis, PlacedLogits, bricks, labels_at, located
from segwright.decoding.tta import mirrored
from segwright.decoding.upsample_argmax import label_dtype, places
from segwright.decoding.upsample_probs import interpolated
from segwright.inference.predictor import Predictor
from segwright.models import tasks_of
from segwright.plans.kinds import class_of
from segwright.tasks import Task
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import View
from segwright.transforms.resize import scaled
from segwright.transforms.spline_resample import nearest_slices, spline_resample, thick_axis

FLAT = 1e-8  # of a standard deviation: what nnU-Net divides by at least
FAR = 999.0  # times the pixel size: the spacing that nnU-Net gives the one slice of an image


def nnunet_predictor(folder: Path) -> Predictor:
    """The predictor of a model folder of nnU-Net, of all of its folds.

    Raises:
        FormatError: a file is missing or damaged, or the model is of a kind that is not known here.
    """
    model = NnunetFolder.read(folder)
    networks = []
    for weights in model.folds:
        network = model.network.build()
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise FormatError(
                f"{folder}: the weights do not fit the network of plans.json ({error}); copy both again from where they were "
                "trained"
            ) from error
        networks.append(network.eval())
    return Predictor(
        network=_Folds(networks),
        task=_NnunetTask(model, class_of(find("segwright.tasks", tasks_of(model.network)[0]))()),  # type: ignore[arg-type]  # it predicts alone
        classes=model.meaning.classes,
        preprocess=_NnunetPreprocess(model),  # type: ignore[arg-type]  # it is asked for views alone
        flips=model.mirrored,
    )


class _Folds(nn.Module):
    """The mean of the logits (B, K, *P) of networks of one kind."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.divisors = networks[0].divisors

    def forward(self, image: Tensor) -> Tensor:
        first, *others = [network(image) for network in self.networks]
        return sum(others, first) / len(self.networks)


@dataclass(frozen=True, eq=False)
class _NnunetView(View):
    """A view (C, d, h, w) of the content of an image, which lies from `corner` on in the axes of the network.

    `cropped` is its shape before it was resampled, and `thick` the axis along which slices are brought back each by itself.
    """

    corner: tuple[int, ...]
    cropped: tuple[int, ...]
    thick: int | None


@dataclass(frozen=True)
class _NnunetPreprocess:
    """How an image becomes a view."""

    model: NnunetFolder
    normalise: ClassVar[Normalise] = Normalise()  # by which a predictor knows that no scale is given from outside

    @property
    def channels(self) -> int:
        """How many the network takes."""
        return len(self.model.channels)

    def __call__(self, sample: Sample) -> _NnunetView:
        """The view of a sample.

        Raises:
            ShapeError: the image has other channels or axes.
            SettingError: a volume does not know the size of its voxels.
        """
        image, order = sample.image.astype(np.float32), self.model.axis_order
        if len(image) != self.channels:
            raise ShapeError(
                f"sample {sample.key!r} has {len(image)} channels, and the model was trained on {self.channels}; give all of "
                "them, in the order of dataset.json"
            )
        image = image[:, None] if image.ndim == 3 else image
        if self.model.network.axes == 3 and image.shape[1] == 1 and len(sample.grid.shape) == 2:
            raise ShapeError(f"sample {sample.key!r} is an image of two axes, and the model is for volumes; give volumes")
        spacing = self._spacing_of(sample)
        image, spacing = image.transpose(0, *(1 + axis for axis in order)), tuple(spacing[axis] for axis in order)
        np.nan_to_num(image, copy=False, nan=0.0)
        mask = ndimage.binary_fill_holes((image != 0).any(axis=0))
        box = ndimage.find_objects(mask.astype(np.int8))[0] if mask.any() else tuple(slice(0, side) for side in mask.shape)
        image, mask = image[:, *box].copy(), mask[box]
        for channel, scheme in zip(image, self.model.channels, strict=True):
            bring_to_scale(channel, scheme, mask)
        wanted = (*spacing[: 3 - self.model.network.axes], *self.model.spacing_mm)
        shape = scaled(mask.shape, tuple(has / wants for has, wants in zip(spacing, wanted, strict=True)))
        seen = spline_resample(image, shape, thick_axis(spacing, wanted))
        corner = tuple(part.start for part in box)
        return _NnunetView(seen, shape, sample.grid, corner, mask.shape, thick_axis(wanted, spacing))

    def _spacing_of(self, sample: Sample) -> tuple[float, ...]:
        """The spacing along three axes of the file.

        Raises:
            SettingError: it is not known.
        """
        known = sample.grid.spacing_mm
        if len(sample.grid.shape) == 2:
            known = (1.0, 1.0) if known is None or self.model.is_photograph else known
            return FAR * max(known) if not self.model.is_photograph else FAR, *known
        if known is None:
            raise SettingError(
                f"sample {sample.key!r} does not know the size of its voxels, and the model is for {self.model.spacing_mm} mm; "
                "give files that hold it, such as NIfTI"
            )
        return known


def bring_to_scale(channel: np.ndarray, scheme: ChannelScheme, mask: np.ndarray) -> None:
    """Change the values of a channel float32 (d, h, w) in place, by nnU-Net's scheme."""
    facts = scheme.statistics
    if scheme.name == "CTNormalization":
        np.clip(channel, facts["percentile_00_5"], facts["percentile_99_5"], out=channel)
        channel -= facts["mean"]
        channel /= max(facts["std"], FLAT)
    elif scheme.name == "ZScoreNormalization":
        where = mask if scheme.in_mask else np.ones((), bool)
        known = channel[where]
        np.subtract(channel, known.mean(), out=channel, where=where)
        np.divide(channel, max(known.std(), FLAT), out=channel, where=where)
    elif scheme.name == "RescaleTo01Normalization":
        channel -= channel.min()
        channel /= max(channel.max(), FLAT)
    elif scheme.name == "RGBTo01Normalization":
        channel /= 255.0  # of 8 bits


@dataclass(frozen=True)
class _NnunetTask:
    """What logits say of a view; scores are those of the task that such a network is for."""

    model: NnunetFolder
    scored: Task

    @property
    def score(self) -> str:
        """The name of the score that counts most."""
        return self.scored.score

    @property
    def metrics(self) -> Sequence[str]:
        """What is reported."""
        return self.scored.metrics

    def decode(self, run: Run, view: _NnunetView) -> Segmentation:
        """The segmentation (*S) on the grid of the file."""
        model, source = self.model, view.source.shape
        highest = max(model.region_numbers or (model.network.num_classes - 1,))
        inside = np.zeros(view.cropped, label_dtype(highest + 1))
        if model.network.axes == 2:
            for seen, labels in zip(view.image.swapaxes(0, 1), inside, strict=True):
                self._fill(run, seen, None, labels)
        else:
            self._fill(run, view.image, view.thick, inside)
        deep = (1, *source) if len(source) == 2 else source
        numbers = np.zeros([deep[axis] for axis in model.axis_order], inside.dtype)
        numbers[tuple(slice(at, at + side) for at, side in zip(view.corner, inside.shape, strict=True))] = inside
        back = np.argsort(model.axis_order)
        return model.meaning.truth(numbers.transpose(back).reshape(source), Path("the prediction"))

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """The part of the pixels of the images that get the same class, or are in the same regions."""
        if self.model.region_numbers is None:
            return self.scored.agreement(outputs, reference, shape)
        return float(np.mean((outputs[0] > 0) == (reference[0] > 0)))

    def _fill(self, run: Run, image: np.ndarray, thick: int | None, out: np.ndarray) -> None:
        """Write the numbers of the pixels of a crop into `out`, of an image (C, *s) that shows all of it at another spacing."""
        sides, patch = image.shape[1:], self.model.patch
        room = [max(most - side, 0) for side, most in zip(sides, patch, strict=True)]
        before = [each // 2 for each in room]
        padded = np.pad(image, [(0, 0), *((first, each - first) for first, each in zip(before, room, strict=True))])  # with 0
        where = []
        for axis, (size, side, first) in enumerate(zip(out.shape, sides, before, strict=True)):
            is_thick = axis == thick
            at = nearest_slices(side, size).astype(float) if is_thick else places(size, side, (0.0, float(side)))
            where.append(at + first)
        ask = mirrored(lambda images: run(images)[0], run.flip_axes, run.at_once)
        for part in located(bricks(padded, ask, patch, run.at_once, Axis.gaussian), lambda _: where):
            self._decide(part, out)

    def _decide(self, part: PlacedLogits, out: np.ndarray) -> None:
        """Write the numbers of the pixels that a part decides into `out`."""
        if self.model.region_numbers is None:
            out[part.place] = labels_at(part.logits, part.where)
            return
        for number, region in zip(self.model.region_numbers, interpolated(part.logits, part.where), strict=True):
            out[part.place][region > 0] = number  # a probability of one half

"""What the first run of a cascade finds in samples: each is predicted once, by a run that was not trained with it.

Such predictions are as good as those of new images, so that the second network learns how far to trust them (nnU-Net, Isensee
et al. 2021, doi 10.1038/s41592-020-01008-z). Where all runs were trained with a sample, all of them predict it, too well.

Axes: C channels, K classes of the first run with a channel, *S spatial axes.
"""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np

from segwright.checkpoints.first_folder import first_of
from segwright.checkpoints.folds_folder import FoldsFolder, is_folds_folder
from segwright.checkpoints.model_file import model_file_of
from segwright.checkpoints.nnunet_folder import is_nnunet_folder
from segwright.core import Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, SettingError, UsageError
from segwright.evaluation.pairs import a_few
from segwright.inference.engine import TorchEngine
from segwright.inference.load import load
from segwright.inference.predictor import Predictor
from segwright.plans.plan import Plan
from segwright.training.resume import data_of
from segwright.transforms.class_channels import shown_classes, with_class_channels


@dataclass(frozen=True, eq=False)
class FirstStage:
    """The `first` run of a cascade, or the runs of folds in it, asked on a `device`; many threads may ask.

    `trained` are, for each of its `runs`, folders or one model file, the keys of the data that it learnt from.
    """

    first: Path
    runs: Sequence[Path]
    trained: Sequence[frozenset[str]]
    device: str
    own_modules: bool = False
    opened: dict[Path, Predictor] = field(default_factory=dict)
    kept: dict[tuple[str, int], tuple[bytes, Segmentation]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, first: str, datasets: Sequence[Dataset], *, device: str, own_modules: bool = False) -> "FirstStage":
        """The first stage for the samples of these data sets, of which it looks up which its runs have learnt from.

        Raises:
            UsageError: there is no such run, or it is a model of nnU-Net.
            FormatError: it is not finished.
        """
        path = Path(first)
        if not first or not path.exists():
            raise UsageError(
                f"the first run of the cascade, {first!r}, does not exist seen from {Path.cwd()}; train it, or give its folder "
                "by --set cascade.first=RUN"
            )
        if is_nnunet_folder(path):
            raise UsageError(f"{path} is a model of nnU-Net, of which no run is known; train the first network: segwright fit")
        is_folds = is_folds_folder(path)
        files = FoldsFolder.read(path, own_modules=own_modules).model_files() if is_folds else [model_file_of(path)]
        runs = [file.parent for file in files]
        asked = runs if is_folds else [path]  # a file may have any name, and others lie beside it
        return cls(path, asked, [_learnt(run, datasets) for run in runs], device, own_modules)

    @property
    def channels(self) -> int:
        """How many channels K it adds."""
        return len(shown_classes(self._predictor(self.runs[0]).answers))

    def check(self, plan: Plan) -> None:
        """See that the network of a plan is made for what this run finds.

        Raises:
            SettingError: it finds another number of classes, or is for images of other axes.
        """
        tile, axes = self._predictor(self.runs[0]).tile, len(plan.training.crop)
        if tile is not None and len(tile) != axes:
            raise SettingError(
                f"{self.first} is for images of {len(tile)} axes, and these have {axes}; name a first run that was trained on "
                "such images: --set cascade.first=RUN"
            )
        made_for = plan.data.preprocess.class_channels
        if made_for != self.channels:
            raise SettingError(
                f"{self.first} finds {self.channels} classes beside the background, and the plan is made for {made_for}; make "
                f"a new one: segwright plan DATA --set cascade.first={self.first}"
            )

    def __call__(self, sample: Sample) -> Segmentation:
        """What is found in a sample, on its grid.

        Raises:
            ShapeError, SegwrightError: as a call of a predictor.
        """
        place = (sample.key, zlib.crc32(sample.image.tobytes()))
        with self.lock:
            if place not in self.kept:
                found = self._predictor(self._honest(sample.key) or self.first)(sample)
                small = replace(found, planes=found.planes[:, :0])
                self.kept[place] = zlib.compress(found.planes.tobytes(), 1), small
            packed, rest = self.kept[place]
        planes = np.frombuffer(zlib.decompress(packed), np.int32).reshape(-1, *sample.grid.shape)
        return replace(rest, planes=planes)

    def added(self, data: Dataset) -> Dataset:
        """The data set with what is found as channels behind those of images, (C + K, *S)."""
        return replace(data, load=_WithFirst(data, self))

    def told(self, datasets: Sequence[Dataset]) -> str:
        """How far its predictions of these samples can be trusted, in words."""
        keys = [key for data in datasets for key in data.keys]
        learnt = [key for key in keys if self._honest(key) is None]
        found, ours = self._predictor(self.runs[0]).answers.names, datasets[0].classes.names
        given = f"it finds {a_few(list(found))}, and the data have {a_few(list(ours))}: see that it is the run that is meant; "
        start = "" if found == ours else given
        if not learnt:
            return f"{start}each of {len(keys)} samples is predicted by a run that was not trained with it"
        return (
            f"{start}{len(learnt)} of {len(keys)} samples were trained with in {self.first}, which finds more in them than in "
            "new ones, so that the second network will trust it too far; a first run of folds (segwright fit DATA --folds 5) "
            "predicts each by the run that held it out"
        )

    def _honest(self, key: str) -> Path | None:
        """A run that has not learnt from a sample, or None; all together where none has learnt from it."""
        unseen = [run for run, learnt in zip(self.runs, self.trained, strict=True) if key not in learnt]
        return self.first if len(unseen) == len(self.runs) else unseen[0] if unseen else None

    def _predictor(self, run: Path) -> Predictor:
        """That of a run, which answers the same in every process, whatever else the machine does."""
        if run not in self.opened:
            opened = load(run, own_modules=self.own_modules)
            self.opened[run] = replace(opened, engine=TorchEngine(opened.network, self.device))
        return self.opened[run]


def first_stage(
    plan: Plan, datasets: Sequence[Dataset], run: Path | None = None, *, own_modules: bool = False
) -> FirstStage | None:
    """The first stage that a plan names, of a `run` that was begun the copy that it has; None where the plan names none.

    Raises:
        UsageError, FormatError: as `FirstStage.of`.
        SettingError: the plan is made for another number of classes.
    """
    if plan.cascade.first is None:
        return None
    first = plan.cascade.first if run is None else str(first_of(run))
    found = FirstStage.of(first, datasets, device=plan.training.device, own_modules=own_modules)
    found.check(plan)
    return found


def _learnt(run: Path, datasets: Sequence[Dataset]) -> frozenset[str]:
    """The keys of the samples that a run was trained with; all where that is not known."""
    with suppress(FormatError):  # a state that is gone or damaged says nothing
        if (before := data_of(run)) is not None:
            return frozenset(key for data in datasets for key in before.trained_with(data))
    return frozenset(key for data in datasets for key in data.keys)


@dataclass(frozen=True, eq=False)
class _WithFirst:
    """Loads samples with channels of what the first stage finds."""

    data: Dataset
    first: FirstStage

    def __call__(self, key: str) -> Sample:
        sample = self.data.load(key)
        return with_class_channels(sample, self.first(sample))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return self.data.without_images().load(key)

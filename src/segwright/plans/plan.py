"""Everything about one run as one frozen tree, read from and written to TOML with the reason of each choice beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tomlkit

from segwright.core import Sample
from segwright.core.errors import FormatError, SettingError
from segwright.core.lookup import Kind
from segwright.data.samplers import Sampler
from segwright.data.samplers.uniform import Uniform
from segwright.decoding.expected_dice import QualityCalibration
from segwright.decoding.postprocess import Postprocess
from segwright.decoding.score_calibration import ScoreCalibration
from segwright.optimisers import Optimiser, adamw
from segwright.plans.commands import command
from segwright.plans.kinds import assign, build, kinds_of, table_of
from segwright.plans.migrations import VERSION, migrated
from segwright.schedules import Schedule
from segwright.schedules.cosine import Cosine
from segwright.tasks import Task
from segwright.tasks.semantic import Semantic
from segwright.transforms.class_channels import with_errors
from segwright.transforms.copy_paste import CopyPaste
from segwright.transforms.gaussian_blur import GaussianBlur
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.jpeg import Jpeg
from segwright.transforms.low_resolution import LowResolution
from segwright.transforms.prepare import Preprocess
from segwright.transforms.shadow import Shadow

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
SCALE, SPACING_MM = "data.preprocess.scale", "data.preprocess.spacing_mm"
BATCHES_KEPT = 100  # of crops that come again, at the least: fewer are soon known by heart
MAX_SEED = 2**32 - 1  # of numpy's older generators; torch's 64 bits leave room for the step that is added


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples lie (`train`, `val`, `fold` and `skip` are what `open_splits` takes), and how they become views."""

    train: str
    val: str | None = None
    fold: tuple[int, int] | None = None
    skip: tuple[str, ...] = ()
    preprocess: Preprocess = Preprocess()


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How crops are changed without changing what they mean: their place by `geometric`, their values by all others."""

    geometric: Geometric = Geometric()
    copy_paste: CopyPaste = CopyPaste()
    intensity: Intensity = Intensity()
    shadow: Shadow = Shadow()
    blur: GaussianBlur = GaussianBlur()
    low_resolution: LowResolution = LowResolution()
    jpeg: Jpeg = Jpeg()

    def change_values(self, crop: Sample, generator: np.random.Generator, class_channels: int = 0) -> Sample:
        """The crop with other values and the same truth, as if taken in another light, by another camera, into another file.

        The changes come in the order in which they do in the world: light, lens, pixels, exposure with its noise, file. Each
        but `intensity` draws from a generator of its own, so that turning one on or off leaves what the others draw. The last
        `class_channels` of the image get the errors of `with_errors`, and no other change.
        """
        if class_channels:
            image, classes = crop.image[:-class_channels], crop.image[-class_channels:]
            changed = self.change_values(replace(crop, image=image), generator)
            errors = with_errors(classes, generator.spawn(1)[0])
            return replace(changed, image=np.concatenate([changed.image, errors], dtype=np.float32))
        shadow, blur, low_resolution, jpeg = generator.spawn(4)
        crop = self.shadow(crop, shadow)
        crop = self.blur(crop, blur)
        crop = self.low_resolution(crop, low_resolution)
        crop = self.intensity(crop, generator)
        return self.jpeg(crop, jpeg)


@dataclass(frozen=True, kw_only=True)
class Training:
    """How long is learnt, on what machine.

    A step looks at `batch_size` crops of the spatial shape `crop`, over all processes, `accumulate` times one part of them
    after the other, which takes less memory. `ema` is the share of the run that the average of the weights looks back over,
    0 for the last weights alone; gradients longer than `clip_norm` are shortened to it.

    `frozen` are parts of the network that stay as they are, such as "encoder" or "encoder.layer1", or all its "batch_norms".
    With `num_crops` no more than so many crops differ: they are kept in memory and come again, and so is what a frozen encoder
    says of them, which makes steps several times shorter.

    With `low_rank` factors of that rank learn beside linear layers of what is frozen: all of them, or those that
    `low_rank_layers` names, such as "query_key_value" or "encoder.blocks.11". The encoder then runs in each step.
    """

    steps: int
    batch_size: int
    crop: tuple[int, ...]
    accumulate: int = 1
    frozen: tuple[str, ...] = ()
    num_crops: int | None = None
    low_rank: int | None = None
    low_rank_layers: tuple[str, ...] = ()
    clip_norm: float = 1.0  # one odd batch must not undo a run
    ema: float = 0.02  # long enough to smooth single batches, short enough to follow the decay
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "32-true"
    channels_last: bool = False
    validations: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "validations"):
            if getattr(self, name) < 1:
                raise SettingError(f"training.{name} is {getattr(self, name)}; give at least 1")
        if self.batch_size % self.accumulate:
            raise SettingError(
                f"training.accumulate is {self.accumulate}, which does not divide a batch of {self.batch_size}; "
                "give a number that does, such as 1"
            )
        if self.num_crops is not None and self.num_crops < 1:
            raise SettingError(f"training.num_crops is {self.num_crops}; give at least a batch, or leave it out")
        if self.num_crops is not None and self.num_crops < self.batch_size:
            raise SettingError(
                f"training.batch_size is {self.batch_size}, more than the {self.num_crops} crops that differ "
                f"(training.num_crops); set training.batch_size={self.num_crops}, or more crops, if memory holds them: "
                f"training.num_crops={BATCHES_KEPT * self.batch_size}"
            )
        self._check_low_rank()
        if len(self.crop) not in (2, 3) or min(self.crop) < 1:
            raise SettingError(f"training.crop is {list(self.crop)}; give one side per axis, such as [192, 256]")
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingError(f"training.seed is {self.seed}; give a number from 0 to {MAX_SEED}")
        if not self.clip_norm > 0:
            raise SettingError(f"training.clip_norm is {self.clip_norm}; give a positive number, for example 1.0")
        if not 0 <= self.ema <= 1:
            raise SettingError(f"training.ema is {self.ema}; give a share of the run from 0 to 1, for example 0.02")

    def _check_low_rank(self) -> None:
        """See that factors have a rank, and something frozen to stand beside.

        Raises:
            SettingError: they have not.
        """
        if self.low_rank is None and self.low_rank_layers:
            raise SettingError(
                f"training.low_rank_layers is {list(self.low_rank_layers)}, and the rank is missing; add --set "
                "training.low_rank=4, or leave the layers out"
            )
        if self.low_rank is not None and self.low_rank < 1:
            raise SettingError(f"training.low_rank is {self.low_rank}; give 1 or more, such as 4, or leave it out")
        if self.low_rank is not None and not self.frozen:
            raise SettingError(
                f"training.low_rank is {self.low_rank}, which adds to what is frozen, and nothing is; add --set "
                "'training.frozen=[\"encoder\"]', or leave it out to train all of the network"
            )


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a trained network looks at a view: in tiles of at most `tile`, or whole; mirrored over `flip_axes` too.

    Probabilities are those of its logits divided by the `temperature`, which is fitted on validation images; `postprocess` are
    rules about pieces of classes that have helped there, `calibration` makes probabilities of the scores of objects, and
    `quality` tells the Dice to expect of a segmentation.
    """

    tile: tuple[int, ...] | None = None
    flip_axes: tuple[int, ...] = ()
    temperature: float = 1.0
    postprocess: Postprocess = Postprocess()
    calibration: ScoreCalibration = ScoreCalibration()
    quality: QualityCalibration = QualityCalibration()

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise SettingError(f"inference.temperature is {self.temperature}; give a positive number, 1 for logits as they are")


@dataclass(frozen=True, kw_only=True)
class Init:
    """What training starts from: an earlier run (its folder or model file), a file of others, or published weights by name.

    Names are those that `segwright models` lists, hf:OWNER/NAME on the Hugging Face hub, and "timm", what timm publishes for
    the network's encoder. All tensors have to fit. With `new_head` those that the number of classes decides stay random: the
    weights may then be for other classes.
    """

    weights: str | None = None
    new_head: bool = False


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """What sees an image before the network does: a `first` run, a folder, whose classes become channels of each image.

    A folder of folds predicts each sample by the run that held it out.
    """

    first: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. `reasons` says why a setting has its value, by dotted path, and is written beside it as a comment."""

    version: int = VERSION
    task: Annotated[Task, Kind("tasks")] = Semantic()
    data: Data
    cascade: Cascade = Cascade()
    sampler: Annotated[Sampler, Kind("data.samplers")] = Uniform()
    augmentation: Augmentation = Augmentation()
    model: Annotated[Any, Kind("models")]
    optimiser: Annotated[Optimiser, Kind("optimisers")] = adamw.Config()
    schedule: Annotated[Schedule, Kind("schedules")] = Cosine()
    training: Training
    inference: Inference = Inference()
    init: Init = Init()
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        axes, tile = len(self.training.crop), self.inference.tile
        first, channels = self.cascade.first, self.data.preprocess.class_channels
        if (first is None) != (channels == 0):
            setting = f"cascade.first={first or 'RUN'}"
            raise SettingError(
                f"cascade.first is {first!r} and data.preprocess.class_channels is {channels}; a network is built for what a "
                f"first run finds: make a plan with {command('plan', self.data.train, '--set', setting)}"
            )
        if tile is not None and (len(tile) != axes or min(tile) < 1):
            raise SettingError(f"inference.tile is {list(tile)}; give one side for each of the {axes} axes of the crop")
        flips = {"augmentation.geometric": self.augmentation.geometric.flip_axes, "inference": self.inference.flip_axes}
        for name, flip_axes in flips.items():
            if not set(flip_axes) <= set(range(-axes, 0)):
                raise SettingError(
                    f"{name}.flip_axes is {list(flip_axes)}, the crop has {axes} axes; "
                    "count them from the end: -1 columns, -2 rows"
                )

    def to_toml(self) -> str:
        """The plan as TOML text, with its reasons as comments; `Plan.from_toml` reads it back equal."""
        document, kinds = tomlkit.document(), kinds_of(Plan)
        document["version"] = self.version
        for part in fields(self):
            if part.name not in ("version", "reasons"):
                document[part.name] = table_of(getattr(self, part.name), part.name, self.reasons, kinds.get(part.name))
        return tomlkit.dumps(document)

    @classmethod
    def from_toml(cls, text: str, *, source: str = "the plan", own_modules: bool = False) -> "Plan":
        """The plan that a TOML text describes; one of an older version is brought up to date.

        A dotted kind, a module of the user's own, is imported only with `own_modules`: a file may come from anywhere.

        Raises:
            FormatError: the text is not TOML, or of a version to come.
            SettingError: a setting is unknown, missing or of the wrong type.
        """
        try:
            table = tomlkit.parse(text).unwrap()
        except tomlkit.exceptions.TOMLKitError as error:
            raise FormatError(f"{source} is not valid TOML: {error}; correct that line") from error
        return build(cls, migrated(table, source), "", own_modules=own_modules)

    @classmethod
    def read(cls, path: Path, *, own_modules: bool = False) -> "Plan":
        """The plan in a TOML file, or in the folder of a run; as `from_toml`.

        Raises:
            FormatError: there is no such file, or it is no text.
        """
        path = path / "plan.toml" if path.is_dir() else path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(
                f"cannot read the plan {path} ({error}); make one with: segwright plan DATA --out plan.toml"
            ) from error
        return cls.from_toml(text, source=str(path), own_modules=own_modules)

    def with_settings(self, assignments: Sequence[str]) -> "Plan":
        """The plan with settings such as `training.steps=100` replaced; values are written as in TOML, quotes optional.

        A new `kind` starts from the defaults of that kind. Dotted kinds are allowed: these words come from a person.

        Raises:
            SettingError: an assignment has no `=`, or names a setting that does not exist.
        """
        table = tomlkit.parse(self.to_toml()).unwrap()
        for assignment in assignments:
            assign(table, assignment)
            path = assignment.partition("=")[0].strip()
            if path in (
                SCALE,
                SPACING_MM,
            ):  # of which the one that a person sets replaces the other
                table["data"]["preprocess"].pop((SPACING_MM if path == SCALE else SCALE).rpartition(".")[2], None)
        changed = build(Plan, table, "", own_modules=True)
        kept = {path: reason for path, reason in self.reasons.items() if not any(a.startswith(path) for a in assignments)}
        return replace(changed, reasons=kept | {a.partition("=")[0].strip(): "set by hand" for a in assignments})

"""Everything about one run as one frozen tree, read from and written to TOML with the reason of each choice beside it.

A table with a `kind` stands for a class that is found by that name: in `[model]` the file of `models/`, and so on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_type_hints

import tomlkit
from pydantic import TypeAdapter, ValidationError

from segwright.core.errors import FormatError, SettingError
from segwright.core.find import find, nearest
from segwright.losses import Loss
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.normalise import Normalise

FOLDER_OF = {"model": "models", "encoder": "encoders", "loss": "losses", "terms": "losses"}  # where a setting's kind is found
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
MAX_SEED = 2**32 - 1  # of numpy's older generators; torch's 64 bits leave room for the step that is added


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples lie and how an image becomes the network's input.

    `train` and `val` are what `open_splits` takes; `zoom` is the factor by which images are resized before the network.
    """

    train: str
    val: str | None = None
    channels: int = 3
    zoom: float = 1.0
    normalise: Normalise = Normalise()

    def __post_init__(self) -> None:
        if not 0 < self.zoom <= 16:  # 16: beyond that an image is all interpolation
            raise SettingError(
                f"data.zoom is {self.zoom}; give a factor above 0 and up to 16, for example 0.5 to halve the sides"
            )


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the weights are found. A step looks at `batch_size` crops of the spatial shape `crop`, over all processes."""

    steps: int
    batch_size: int
    crop: tuple[int, ...]
    learning_rate: float = 1e-3
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "32-true"
    channels_last: bool = False
    validations: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validations"):
            if getattr(self, name) < 1:
                raise SettingError(f"training.{name} is {getattr(self, name)}; give at least 1")
        if len(self.crop) not in (2, 3) or min(self.crop) < 1:
            raise SettingError(f"training.crop is {list(self.crop)}; give one side per axis, such as [192, 256]")
        if not 0 <= self.seed <= MAX_SEED:
            raise SettingError(f"training.seed is {self.seed}; give a number from 0 to {MAX_SEED}")
        if not self.learning_rate > 0:
            raise SettingError(f"training.learning_rate is {self.learning_rate}; give a positive number, for example 0.001")


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How a trained network looks at an image: in tiles of at most `tile` after the zoom, mirrored over `flip_axes` too."""

    tile: tuple[int, ...]
    flip_axes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run. `reasons` says why a setting has its value, by dotted path, and is written beside it as a comment."""

    data: Data
    model: Any
    loss: Loss
    geometric: Geometric
    intensity: Intensity
    training: Training
    inference: Inference
    reasons: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        axes, tile = len(self.training.crop), self.inference.tile
        if len(tile) != axes or min(tile) < 1:
            raise SettingError(f"inference.tile is {list(tile)}; give one side for each of the {axes} axes of the crop")
        for name, flips in (("geometric", self.geometric.flip_axes), ("inference", self.inference.flip_axes)):
            if not set(flips) <= set(range(-axes, 0)):
                raise SettingError(
                    f"{name}.flip_axes is {list(flips)}, the crop has {axes} axes; count them from the end: -1 columns, -2 rows"
                )

    def to_toml(self) -> str:
        """The plan as TOML text, with its reasons as comments; `Plan.from_toml` reads it back equal."""
        document = tomlkit.document()
        for part in fields(self):
            if part.name != "reasons":
                document[part.name] = table_of(getattr(self, part.name), part.name, self.reasons)
        return tomlkit.dumps(document)

    @classmethod
    def from_toml(cls, text: str, *, source: str = "the plan", own_modules: bool = False) -> "Plan":
        """The plan that a TOML text describes.

        A dotted kind, a module of the user's own, is imported only with `own_modules`: a file may come from anywhere.

        Raises:
            FormatError: the text is not TOML.
            SettingError: a setting is unknown, missing or of the wrong type.
        """
        try:
            table = tomlkit.parse(text).unwrap()
        except tomlkit.exceptions.TOMLKitError as error:
            raise FormatError(f"{source} is not valid TOML: {error}; correct that line") from error
        return build(cls, table, "", own_modules=own_modules)

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan in a TOML file, or in the folder of a run.

        Raises:
            FormatError: there is no such file, or it is no text.
        """
        path = path / "plan.toml" if path.is_dir() else path
        try:
            return cls.from_toml(path.read_text(encoding="utf-8"), source=str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(
                f"cannot read the plan {path} ({error}); make one with: segwright plan DATA --out plan.toml"
            ) from error

    def with_settings(self, assignments: Sequence[str]) -> "Plan":
        """The plan with settings such as `training.steps=100` replaced; values are written as in TOML, quotes optional.

        A new `kind` starts from the defaults of that kind. Dotted kinds are allowed: these words come from a person.

        Raises:
            SettingError: an assignment has no `=`, or names a setting that does not exist.
        """
        table = tomlkit.parse(self.to_toml()).unwrap()
        for assignment in assignments:
            assign(table, assignment)
        changed = build(Plan, table, "", own_modules=True)
        kept = {path: reason for path, reason in self.reasons.items() if not any(a.startswith(path) for a in assignments)}
        return replace(changed, reasons=kept | {a.partition("=")[0].strip(): "set by hand" for a in assignments})


def table_of(value: Any, path: str, reasons: Mapping[str, str]) -> tomlkit.items.Table:
    """A dataclass as a TOML table; settings that are None are left out, as their absence means None."""
    table = tomlkit.table()
    if path.split(".")[-1].rstrip("0123456789[]") in FOLDER_OF:
        table["kind"] = kind_of(value)
        if path in reasons:
            table["kind"].comment(reasons[path])
    elif path in reasons:
        table.comment(reasons[path])
    for setting in fields(value):
        content, where = getattr(value, setting.name), f"{path}.{setting.name}"
        if content is None:
            continue
        if is_dataclass(content):
            table[setting.name] = table_of(content, where, reasons)
        elif setting.name in FOLDER_OF:
            table[setting.name] = tomlkit.aot()
            for index, one in enumerate(content):
                table[setting.name].append(table_of(one, f"{where}[{index}]", reasons))
        else:
            table[setting.name] = list(content) if isinstance(content, tuple) else content
            if where in reasons:
                table[setting.name].comment(reasons[where])
    return table


def kind_of(value: object) -> str:
    """The name under which a class is found: its file's name, or the dotted name of a user's own module."""
    module = type(value).__module__
    return module.rsplit(".", maxsplit=1)[-1] if module.startswith("segwright.") else module


def class_of(module: ModuleType) -> type:
    """The class that a module offers by its name: `Config`, or the file name in camel case.

    Raises:
        SettingError: it offers none.
    """
    name = "".join(word.capitalize() for word in module.__name__.rsplit(".", maxsplit=1)[-1].split("_"))
    found = getattr(module, "Config", None) or getattr(module, name, None)
    if not is_dataclass(found) or not isinstance(found, type):
        raise SettingError(f"module '{module.__name__}' has no dataclass Config or {name}; add one, or choose another kind")
    return found


def build(cls: type, table: dict[str, Any], path: str, *, own_modules: bool) -> Any:
    """An instance of a dataclass from a table, each setting checked against its type.

    Raises:
        SettingError: with the dotted path of the setting that is unknown, missing or wrong.
    """
    types = get_type_hints(cls)
    known = [setting.name for setting in fields(cls) if setting.name != "reasons"]
    values = {}
    for name, content in table.items():
        where = f"{path}.{name}".lstrip(".")
        if name not in known:
            raise SettingError(f"there is no setting '{where}'{nearest(name, known)}; known are {', '.join(known)}")
        if isinstance(content, dict) and name in FOLDER_OF:
            values[name] = build_kind(content, where, FOLDER_OF[name], own_modules=own_modules)
        elif isinstance(content, list) and name in FOLDER_OF:
            values[name] = tuple(
                build_kind(one, f"{where}[{i}]", FOLDER_OF[name], own_modules=own_modules) for i, one in enumerate(content)
            )
        elif name in FOLDER_OF:
            raise SettingError(f"'{where}' is {content!r}, a group of settings is needed; choose one by '{where}.kind'")
        elif isinstance(content, dict) and is_dataclass(types[name]):
            values[name] = build(types[name], content, where, own_modules=own_modules)
        else:
            values[name] = checked(content, types[name], where)
    for setting in fields(cls):
        if setting.name not in values and setting.default is MISSING and setting.default_factory is MISSING:
            raise SettingError(f"setting '{path}.{setting.name}' is missing".replace("'.", "'") + "; add it to the plan")
    return cls(**values)


def build_kind(table: dict[str, Any], path: str, folder: str, *, own_modules: bool) -> Any:
    """An instance of the class that the table's `kind` names in a folder of this package, or in a user's own module."""
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise SettingError(f"'{path}' has no kind; add for example kind = \"...\" with the name of a file in {folder}/")
    if "." in kind and not own_modules:
        raise SettingError(f"'{path}.kind' is '{kind}', a module outside segwright; a file may not name one: pass it by --set")
    rest = {name: content for name, content in table.items() if name != "kind"}
    return build(class_of(find(f"segwright.{folder}", kind)), rest, path, own_modules=own_modules)


def checked(content: Any, expected: Any, path: str) -> Any:
    """A value converted to the type of its setting.

    Raises:
        SettingError: it does not fit.
    """
    if is_dataclass(expected):
        raise SettingError(f"'{path}' is {content!r}, a group of settings is needed; replace one of them: '{path}.NAME'")
    try:
        return TypeAdapter(expected, config={"allow_inf_nan": False}).validate_python(content)
    except ValidationError as error:
        raise SettingError(f"setting '{path}' is {content!r}: {error.errors()[0]['msg']}; correct it in the plan") from error


def assign(table: dict[str, Any], assignment: str) -> None:
    """Put one `path=value` into a nested table."""
    path, equals, text = assignment.partition("=")
    *parents, name = path.strip().split(".")
    if not equals or not name:
        raise SettingError(f"'{assignment}' is no assignment; write path=value, for example training.steps=100")
    for parent in parents:
        table = table.setdefault(parent, {}) if isinstance(table, dict) else table
        if not isinstance(table, dict):
            raise SettingError(f"'{path.strip()}' does not exist: '{parent}' is a value, not a group of settings")
    if name == "kind":
        table.clear()
    table[name] = parsed(text.strip())


def parsed(text: str) -> Any:
    """A value written as in TOML; what is no TOML value is text."""
    try:
        return tomlkit.value(text).unwrap()
    except tomlkit.exceptions.TOMLKitError:
        return text

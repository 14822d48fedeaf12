"""Dataclasses to TOML tables and back, each setting checked against its type.

A table with a `kind` stands for a class that is found by that name. Which folder it is found in says the annotation of the
setting: `Annotated[Loss, Kind("losses")]`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tomlkit
from pydantic import TypeAdapter, ValidationError

from segwright.core.errors import SettingError
from segwright.core.lookup import Kind, class_name, did_you_mean, find


def table_of(value: Any, path: str, reasons: Mapping[str, str], kind: Kind | None = None) -> tomlkit.items.Table:
    """A dataclass as a TOML table; settings that are None are left out, as their absence means None."""
    table = tomlkit.table()
    if kind is not None:
        table["kind"] = kind_of(value)
        if path in reasons:
            table["kind"].comment(reasons[path])
    elif path in reasons:
        table.comment(reasons[path])
    kinds = kinds_of(type(value))
    for name in _settings_of(type(value)):
        content, where = getattr(value, name), f"{path}.{name}"
        if content is None:
            continue
        if is_dataclass(content):
            table[name] = table_of(content, where, reasons, kinds.get(name))
        elif name in kinds:
            table[name] = tomlkit.aot()
            for index, one in enumerate(content):
                table[name].append(table_of(one, f"{where}[{index}]", reasons, kinds[name]))
        else:
            item = tomlkit.item(list(content) if isinstance(content, tuple) else content)
            table[name] = item.comment(reasons[where]) if where in reasons else item
    return table


def build(cls: type, table: dict[str, Any], path: str, *, own_modules: bool) -> Any:
    """An instance of a dataclass from a table, each setting checked against its type.

    Raises:
        SettingError: with the dotted path of the setting that is unknown, missing or wrong.
    """
    types, kinds, known = get_type_hints(cls), kinds_of(cls), list(_settings_of(cls))
    values = {}
    for name, content in table.items():
        where = f"{path}.{name}".lstrip(".")
        if name not in known:
            others = f"known are {', '.join(known)}" if known else f"the {path} {cls.__module__.rpartition('.')[2]} has none"
            raise SettingError(f"there is no setting '{where}'{did_you_mean(name, known)}; {others}")
        if name in kinds and isinstance(content, dict):
            values[name] = _build_kind(content, where, kinds[name], own_modules=own_modules)
        elif name in kinds and isinstance(content, list):
            values[name] = tuple(
                _build_kind(one, f"{where}[{index}]", kinds[name], own_modules=own_modules) for index, one in enumerate(content)
            )
        elif name in kinds:
            raise SettingError(f"'{where}' is {content!r}, a group of settings is needed; choose one by '{where}.kind'")
        elif isinstance(content, dict) and is_dataclass(types[name]):
            values[name] = build(types[name], content, where, own_modules=own_modules)
        else:
            values[name] = _checked(content, types[name], where)
    for setting in fields(cls):
        if setting.name not in values and setting.default is MISSING and setting.default_factory is MISSING:
            raise SettingError(f"setting '{f'{path}.{setting.name}'.lstrip('.')}' is missing; add it to the plan")
    return cls(**values)


def _build_kind(table: Any, path: str, kind: Kind, *, own_modules: bool) -> Any:
    """An instance of the class that the table's `kind` names in a folder of this package, or in a user's own module."""
    name = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(name, str):
        raise SettingError(f"'{path}' has no kind; add for example kind = \"...\" with the name of a file in {kind.folder}/")
    if "." in name and not own_modules:
        raise SettingError(
            f"'{path}.kind' is '{name}', a module outside segwright, which a file alone may not have imported; "
            "if you trust it, add --own-modules, or own_modules=True in Python"
        )
    rest = {setting: content for setting, content in table.items() if setting != "kind"}
    return build(class_of(find(f"segwright.{kind.folder}", name)), rest, path, own_modules=own_modules)


def _settings_of(cls: type) -> Iterator[str]:
    """The names of the settings of a dataclass; the reasons of a plan are none."""
    return (setting.name for setting in fields(cls) if setting.name != "reasons")


def kinds_of(cls: type) -> dict[str, Kind]:
    """The settings of a dataclass that hold classes found by name, or tuples of them, and where these are found."""
    hints = get_type_hints(cls, include_extras=True).items()
    marks = [(name, mark) for name, hint in hints if get_origin(hint) is Annotated for mark in get_args(hint)[1:]]
    return {name: mark for name, mark in marks if isinstance(mark, Kind)}


def kind_of(value: object) -> str:
    """The name under which a class is found: its file's name, or the dotted name of a user's own module."""
    module = type(value).__module__
    return module.rsplit(".", maxsplit=1)[-1] if module.startswith("segwright.") else module


def class_of(module: ModuleType) -> type:
    """The class that a module offers by its name: `Config`, or the file name in camel case.

    Raises:
        SettingError: it offers none.
    """
    name = class_name(module.__name__)
    found = getattr(module, "Config", None) or getattr(module, name, None)
    if not is_dataclass(found) or not isinstance(found, type):
        raise SettingError(f"module '{module.__name__}' has no dataclass Config or {name}; add one, or choose another kind")
    return found


def _checked(content: Any, expected: Any, path: str) -> Any:
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
    """Put one `path=value` into a nested table; a number in the path counts what a list holds, from 0.

    Raises:
        SettingError: it is no assignment, or its path leads through a value.
    """
    path, equals, text = assignment.partition("=")
    *parents, name = path.strip().split(".")
    if not equals or not name:
        raise SettingError(f"'{assignment}' is no assignment; write path=value, for example training.steps=100")
    for parent, child in pairwise([*parents, name]):
        held: Any = table.setdefault(parent, {}) if isinstance(table, dict) else table[int(parent)]
        if isinstance(held, list) and held and isinstance(held[0], dict):
            if child not in map(str, range(len(held))):
                count = f"{len(held)} groups of settings, counted from 0"
                raise SettingError(f"'{path.strip()}' does not exist: '{parent}' holds {count}")
        elif not isinstance(held, dict):
            raise SettingError(f"'{path.strip()}' does not exist: '{parent}' is a value, not a group of settings")
        table = held
    if isinstance(table, list):
        raise SettingError(f"'{path.strip()}' is a group of settings; replace one of them: '{path.strip()}.NAME'")
    if name == "kind":
        table.clear()
    table[name] = _parsed(text.strip())


def _parsed(text: str) -> Any:
    """A value written as in TOML; what is no TOML value is text."""
    try:
        return tomlkit.value(text).unwrap()
    except tomlkit.exceptions.TOMLKitError:
        return text

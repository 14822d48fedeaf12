"""Name to module. The name is the file name, so a new file in a folder is all that it takes to add a model or a loss."""

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from segwright.core.errors import UnknownNameError


@dataclass(frozen=True)
class Kind:
    """Marks a setting whose class is found by name: `Annotated[Loss, Kind("losses")]` is a file of `segwright.losses`."""

    folder: str


def names(folder: str) -> list[str]:
    """Sorted names that a folder such as `segwright.models` offers; no module is imported but the folder itself.

    A file whose name begins with an underscore is what the others share, and is not offered. A folder is read once.
    """
    return [*_offered(folder)]


@cache
def _offered(folder: str) -> tuple[str, ...]:
    found = (module.name for module in iter_modules(import_module(folder).__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def find(folder: str, name: str) -> ModuleType:
    """The module that a name stands for in a folder. A dotted name, such as `mypackage.mynet`, is a user's own module.

    Raises:
        UnknownNameError: there is no such name; the message offers the nearest and lists the rest.
    """
    if "." in name and not name.startswith("."):
        if "" not in sys.path:
            sys.path.append("")  # a command, unlike `python`, does not look into the folder that it was called from
        try:
            return import_module(name)
        except ModuleNotFoundError as error:
            raise UnknownNameError(
                f"'{name}' cannot be imported ({error}); install the package that holds it, or call from the folder it lies in"
            ) from error
    known = names(folder)
    if name in known:
        return import_module(f"{folder}.{name}")
    what = folder.rsplit(".", maxsplit=1)[-1].removesuffix("s").replace("losse", "loss")
    raise UnknownNameError(f"there is no {what} '{name}'{did_you_mean(name, known)}; known are {', '.join(known)}")


def class_name(name: str) -> str:
    """The class that a module is called after: "WeightedSum" for "weighted_sum" and for "segwright.losses.weighted_sum"."""
    return "".join(word.capitalize() for word in name.rsplit(".", maxsplit=1)[-1].split("_"))


def did_you_mean(name: str, known: list[str]) -> str:
    """ ", did you mean 'X'?" for the known name closest to a misspelt one, or an empty text when none is close."""
    close = get_close_matches(name, known, n=1)
    return f", did you mean '{close[0]}'?" if close else ""

"""From what a person names, a file, a run or published weights, to tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from segwright.checkpoints.foreign_weights import read_state_dict, reader_of
from segwright.checkpoints.model_file import LAYOUT, ModelFile, model_file_of, read_facts
from segwright.checkpoints.published_files import HUB_NAME, hub_file, published_file
from segwright.core import Classes
from segwright.core.errors import UnknownNameError
from segwright.core.lookup import did_you_mean
from segwright.core.weights import Weights
from segwright.models import published

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl", ".ckpt")  # of files; names of networks have dots too


@dataclass(frozen=True, eq=False)
class NamedWeights:
    """Tensors under the names of their file; `source` says to people where they come from.

    `facts` are known of published weights, `classes` of those that a run saved.
    """

    tensors: Mapping[str, Tensor]
    source: str
    facts: Weights | None = None
    classes: Classes | None = None


def named_weights(name: str, *, online: bool = False, own_modules: bool = False) -> NamedWeights:
    """The weights of a run's folder, of a file of anybody's, of a name that `published()` holds, or of hf:OWNER/NAME.

    Nobody is asked for a file that is not on this machine, unless `online`. `own_modules` lets the plan of a run name modules
    outside segwright.

    Raises:
        UnknownNameError: there are no weights of that name, and no file.
        UsageError: they are not on this machine.
        FormatError: the file is no file of weights.
    """
    if Path(name).exists():
        return _from_file(Path(name), own_modules=own_modules)
    if name.startswith(HUB_NAME):
        return NamedWeights(read_state_dict(hub_file(name, online=online)), name)
    known = published()
    if name in known:
        path = published_file(name, known[name], online=online)
        return NamedWeights(read_state_dict(path), name, facts=known[name])
    of_preset = [key for key, weights in known.items() if weights.preset == name]
    if of_preset:
        raise UnknownNameError(f"'{name}' is a network, and its weights are {' or '.join(of_preset)}; give one of these names")
    if Path(name).suffix.lower() in SUFFIXES or len(Path(name).parts) > 1:
        reader_of(Path(name))  # raises, as there is no such file
    raise UnknownNameError(
        f"there are no weights '{name}'{did_you_mean(name, list(known))}; give a run's folder, a file, hf:OWNER/NAME, or a "
        "name that is listed by: segwright models"
    )


def _from_file(path: Path, *, own_modules: bool) -> NamedWeights:
    """The weights of a file, or of a run's folder."""
    given, path = path, model_file_of(path)
    if reader_of(path) is load_file and read_facts(path).get("layout") == LAYOUT:
        content = ModelFile.read(path, own_modules=own_modules)
        return NamedWeights(content.weights, str(given), classes=content.classes)
    return NamedWeights(read_state_dict(path), str(given))

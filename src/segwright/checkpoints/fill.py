"""Trained weights into a network, strictly: all tensors or none, and whatever is not as in the file is told by name."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from segwright.checkpoints.recognise import COUNTER, recognised, shapes
from segwright.core.errors import FormatError, SettingError

SHOWN = 3  # tensors named in an error: enough to see the pattern
WHOLE = ""  # what the names of the tensors begin with that a file of the whole network fills

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Fit:
    """The tensors of a file under names of the network, which begin with `part`; `missing` and `unexpected` are left over."""

    part: str
    given: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]

    @property
    def is_exact(self) -> bool:
        return not self.missing and not self.unexpected

    @property
    def common(self) -> int:
        """How many names both have."""
        return len(self.given) - len(self.unexpected)


def fill(network: nn.Module, tensors: Tensors, *, source: str, new_head: bool = False) -> list[str]:
    """Put the tensors of a file into a network; what is not as in the file, as sentences without a full stop.

    The file has the network's own names or a layout that its model file knows (`rename`), and is of the whole network or of
    its encoder alone. The tensors whose shapes the number of classes decides are the head: with `new_head` they stay random. A
    first layer for other channels is adapted. Nothing is changed where anything is wrong.

    Raises:
        FormatError: a tensor is missing, has no place or another shape.
        SettingError: the file has another number of classes, and no new head was asked for.
    """
    own = network.state_dict()
    fit = _best_fit(network, own, tensors, source)
    head, first = by_classes(network), by_channels(network)
    taken, said, wrong, others = dict[str, Tensor](), list[str](), list[str](), list[str]()
    for name, tensor in fit.given.items():
        wanted = own[name].shape
        if name in head and (new_head or tensor.shape != wanted):
            others.append(name)
        elif tensor.shape == wanted:
            taken[name] = tensor
        elif name in first and _differs_in_channels(tensor.shape, wanted):
            taken[name] = adapted(tensor, wanted[1])
            said.append(f"adapted: {name} ({tensor.shape[1]} -> {wanted[1]} channels)")
        else:
            wrong.append(_both_shapes(name, tensor.shape, wanted))
    if wrong:
        raise FormatError(
            f"{source} does not fit this network: {_listed(wrong)}. {_likeness(tensors)}; choose the network that it is of, or "
            "other weights"
        )
    others = [name for name in own if name in others]  # in the order of the network
    if others and not new_head:
        raise _other_classes(source, others, fit, own)
    said += _started_anew(others, fit, own)
    if fit.part != WHOLE:
        said.append(f"the encoder alone is in the file; random: {_listed([n for n in own if not n.startswith(fit.part)])}")
    with torch.no_grad():
        for name, tensor in taken.items():
            own[name].copy_(tensor)
    return said


def by_classes(network: nn.Module) -> dict[str, int]:
    """The tensors whose shapes the number of classes decides, and the axis along which it does.

    Where the config of a network names the classes that are `things`, their number counts too: their heads are others.
    """
    found = _decided_by(network, num_classes=1)
    if hasattr(getattr(network, "config", None), "things"):
        config: Any = network.config
        found |= _decided_by(network, num_classes=1, things=(config.num_classes,))
    return found


def classes_in(network: nn.Module, tensors: Tensors, source: str) -> int:
    """How many classes a file tells apart that is of a network of this kind.

    Raises:
        FormatError: as `fill`.
    """
    fit, head = _best_fit(network, network.state_dict(), tensors, source), by_classes(network)
    config: Any = network.config
    twin = shapes(replace(config, num_classes=config.num_classes + 1))
    for name, axis in head.items():
        if name in fit.given and fit.given[name].ndim > axis:
            here = network.state_dict()[name].shape[axis]
            each = twin[name][axis] - here  # what one more class adds; to heads of things alone, nothing
            if not each:
                continue
            return config.num_classes + (fit.given[name].shape[axis] - here) // each
    return config.num_classes


def adapted(weight: Tensor, channels: int) -> Tensor:
    """The weight (O, channels, ...) of a first convolution from that for other images (O, C, ...).

    One channel gets the sum over all, as a grey image in each of them would; more get them in turn, scaled so that the sum
    stays the same.
    """
    given = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    turns = -(-channels // given)
    return torch.cat([weight] * turns, dim=1)[:, :channels] * (given / channels)


def by_channels(network: nn.Module) -> dict[str, int]:
    """The tensors whose shapes the number of channels of the image decides."""
    return _decided_by(network, in_channels=1)


def _decided_by(network: nn.Module, **more: Any) -> dict[str, int]:
    """The tensors whose shapes settings decide, and the first axis along which they do.

    A second network is built for it, with so much added to the settings; without these, there are none.
    """
    config: Any = getattr(network, "config", None)
    if not all(hasattr(config, setting) for setting in more):
        return {}
    twin = shapes(replace(config, **{setting: getattr(config, setting) + value for setting, value in more.items()}))
    found = {}
    for name, tensor in network.state_dict().items():
        other = twin.get(name, torch.Size())
        if len(other) == tensor.ndim and other != tensor.shape:
            found[name] = next(axis for axis in range(tensor.ndim) if other[axis] != tensor.shape[axis])
    return found


def _best_fit(network: nn.Module, own: Tensors, tensors: Tensors, source: str) -> _Fit:
    """The way in which the names of a file are those of the network, or of its encoder, all of them.

    Raises:
        FormatError: there is none; the message says what is left over in the closest, and what the file looks like.
    """
    fits, complaints = [], list[str]()
    for part, renamed in _layouts(network):
        try:
            given = {f"{part}{name}": tensor for name, tensor in renamed(tensors).items()}
        except FormatError as error:
            complaints.append(str(error))
            continue
        wanted = [name for name in own if name.startswith(part)]
        missing = [name for name in wanted if name not in given and not name.endswith(COUNTER)]
        fit = _Fit(part, given, missing, [name for name in given if name not in own or not name.startswith(part)])
        if fit.is_exact:
            return fit
        fits.append(fit)
    best = max(fits, key=lambda fit: fit.common - len(fit.unexpected) - len(fit.missing), default=None)
    if best is None or not best.common:
        first = complaints[0] if complaints else f"none of its names, such as {next(iter(tensors))!r}, is the network's"
        raise FormatError(f"{source} is not of this network: {first}. {_likeness(tensors)}")
    of = "the encoder" if best.part else "the network"
    left = [f"{len(best.missing)} tensors of {of} are missing: {_listed(best.missing)}"] if best.missing else []
    left += [f"{len(best.unexpected)} have no place in it: {_listed(best.unexpected)}"] if best.unexpected else []
    raise FormatError(
        f"{source} does not fit this network: {'; '.join(left)}. {_likeness(tensors)}; choose the network that it is of, or "
        "other weights"
    )


def _layouts(network: nn.Module) -> list[tuple[str, Callable[[Tensors], Tensors]]]:
    """The part of the network that a file may fill, and what gives its tensors their names in that part."""
    config: Any = getattr(network, "config", None)
    layouts: list[tuple[str, Callable[[Tensors], Tensors]]] = [(WHOLE, dict)]
    layouts += [(WHOLE, renames) for renames in _renames(config)]
    encoder, part = getattr(config, "encoder", None), encoder_part(network)
    if encoder is not None and part is not None:
        layouts += [(part, dict), *((part, renames) for renames in _renames(encoder))]
    return layouts


def encoder_part(network: nn.Module) -> str | None:
    """What the names of the tensors of a network's encoder begin with, such as "encoder."; None where it has no encoder."""
    encoder = getattr(network, "encoder", None)
    return next((f"{name}." for name, module in network.named_modules() if module is encoder), None)


def _renames(config: Any) -> list[Callable[[Tensors], Tensors]]:
    """The `rename` of the file that a config is defined in, if it has one."""
    found = getattr(sys.modules.get(type(config).__module__), "rename", None)
    return [] if found is None else [lambda tensors: found(dict(tensors))]


def _differs_in_channels(given: torch.Size, wanted: torch.Size) -> bool:
    """Whether two shapes of a convolution's weight differ in nothing but the channels that go in."""
    return len(given) == len(wanted) > 2 and given[0] == wanted[0] and given[2:] == wanted[2:]


def _started_anew(names: list[str], fit: _Fit, own: Tensors) -> list[str]:
    """What is said of a head that stays random."""
    if not names:
        return []
    return [f"started anew: {', '.join(_classes_of(name, fit, own) for name in names)}"]


def _classes_of(name: str, fit: _Fit, own: Tensors) -> str:
    """A tensor of a head with its numbers of classes: "head.weight (150 -> 11 classes)"."""
    there, here = fit.given[name].shape, own[name].shape
    if len(there) != len(here) or there[1:] != here[1:]:
        return f"{name} ({_shown(there)} -> {_shown(here)})"
    return f"{name} ({there[0]} -> {here[0]} classes)"


def _other_classes(source: str, names: list[str], fit: _Fit, own: Tensors) -> SettingError:
    return SettingError(
        f"{source} is for other classes than this network: {_listed([_classes_of(name, fit, own) for name in names])}. Start "
        "with a new head (--new-head, or init.new_head = true in the plan), or take weights for the same classes"
    )


def _likeness(tensors: Tensors) -> str:
    """What a file looks like, as a sentence without a full stop."""
    found = recognised(tensors)
    if found is not None:
        return f"It looks like the weights of {found}"
    first = ", ".join(f"{name} {_shown(tensor.shape)}" for name, tensor in list(tensors.items())[:SHOWN])
    return f"It begins with {first}" if first else "It holds no tensor"


def _both_shapes(name: str, there: torch.Size, here: torch.Size) -> str:
    return f"{name} is {_shown(there)} there and {_shown(here)} here"


def _shown(shape: torch.Size) -> str:
    """A shape as people write it: 64 x 3 x 7 x 7; "one number" for ()."""
    return " x ".join(map(str, shape)) or "one number"


def _listed(items: list[str]) -> str:
    """Some items, and how many more there are."""
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more

"""Which linear layers of what is frozen get factors that learn, by the names that a plan gives.

All of them unless some are named: with factors beside all linear layers language models came up to those that were trained
whole, and with those of attention alone they did not (Dettmers et al. 2023, arXiv 2305.14314, section 4).
"""

from collections.abc import Sequence

from torch import nn

from segwright.core.errors import SettingError
from segwright.core.lookup import did_you_mean
from segwright.layers.low_rank import add_low_rank
from segwright.plans.plan import Training
from segwright.training.frozen import ENCODER


def adapt(network: nn.Module, training: Training) -> list[str]:
    """Put factors of a plan's rank, if it has one, beside linear layers of a network whose parts are frozen; their names.

    Raises:
        SettingError: no layer is frozen, or none has a name that is wanted, or one has fewer channels than the rank.
    """
    if training.low_rank is None:
        return []
    layers = {
        name: layer.weight.shape
        for name, layer in network.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Linear) and name and not layer.weight.requires_grad
    }
    if not layers:
        raise SettingError(_without_layers(network, training))
    _check_names(list(layers), training.low_rank_layers)
    wanted = [name for name in layers if not training.low_rank_layers or _is_named(name, training.low_rank_layers)]
    narrowest = min(wanted, key=lambda name: min(layers[name]))
    most = min(layers[narrowest])
    if training.low_rank > most:
        sides = " x ".join(map(str, layers[narrowest]))
        raise SettingError(
            f"training.low_rank is {training.low_rank}, and the weight of {narrowest} is {sides}; give at most the smaller: "
            f"--set training.low_rank={most}, or name wider layers alone in training.low_rank_layers"
        )
    add_low_rank(network, wanted, training.low_rank)
    return wanted


def _is_named(layer: str, names: Sequence[str]) -> bool:
    """Whether a layer has one of these names, in full or the last part of it, or lies in a part that has."""
    return any(f"{layer}.".startswith(f"{name}.") or f".{layer}".endswith(f".{name}") for name in names)


def _check_names(layers: Sequence[str], wanted: Sequence[str]) -> None:
    """See that each name is that of a layer or of a part with layers.

    Raises:
        SettingError: one is not.
    """
    for name in wanted:
        if not any(_is_named(layer, [name]) for layer in layers):
            known = sorted({layer.rpartition(".")[2] for layer in layers})
            raise SettingError(
                f"training.low_rank_layers names '{name}', and no linear layer of what is frozen is called so or lies in such "
                f"a part{did_you_mean(name, known)}; these layers are called {', '.join(known)}, the first in full {layers[0]}"
            )


def _without_layers(network: nn.Module, training: Training) -> str:
    """That nothing that is frozen can have factors, and what to do."""
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    way = "leave training.low_rank out, or choose a network whose encoder is a transformer (segwright models lists them)"
    if ENCODER not in training.frozen and any(name.startswith(f"{ENCODER}.") for name in linear):
        way = f"""freeze a part that has: --set 'training.frozen=["{ENCODER}"]'"""
    return (
        f"training.low_rank is {training.low_rank}, and what is frozen ({', '.join(training.frozen)}) has no linear layer for "
        f"it; {way}"
    )

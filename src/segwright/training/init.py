"""What training starts from, if not from random weights."""

from torch import nn

from segwright.checkpoints.fill import by_channels, encoder_part, fill
from segwright.checkpoints.named_weights import named_weights
from segwright.core.errors import UsageError
from segwright.encoders import timm
from segwright.plans.plan import Init

TIMM = "timm"  # of [init] weights: those that are published for the network's encoder
RGB = 3  # channels that these are trained with


def initialise(network: nn.Module, init: Init, *, own_modules: bool = False, online: bool = False) -> list[str]:
    """Put the weights that a plan starts from into a network; what is not as it was there, as sentences without a full stop.

    Nobody is asked for weights that are not on this machine, unless `online`.

    Raises:
        UsageError: they are not there, or do not fit; the network is as it was.
    """
    if init.weights is None:
        return []
    if init.weights == TIMM:
        return _from_timm(network, online=online)
    given = named_weights(init.weights, online=online, own_modules=own_modules)
    return fill(network, given.tensors, source=given.source, new_head=init.new_head)


def _from_timm(network: nn.Module, *, online: bool) -> list[str]:
    """As `initialise`, with what is published for the encoder.

    Raises:
        UsageError: its encoder is none of timm's.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, timm.TimmEncoder):
        raise UsageError(
            'init.weights is "timm", and the encoder of this network is none of timm\'s; '
            "choose one, such as --set model.encoder.kind=timm, or leave init.weights out"
        )
    said = fill(network, timm.fetch(encoder, online=online), source=f"timm's {encoder.name}")
    if encoder.in_channels != RGB:
        first = [name for name in by_channels(network) if name.startswith(str(encoder_part(network)))]
        said.insert(0, f"adapted: {', '.join(first)} ({RGB} -> {encoder.in_channels} channels)")
    return said

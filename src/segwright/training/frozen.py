"""Parts of a network that training leaves as they are, and what a frozen encoder has said of images that come again.

Axes: B batch, C channels, *S spatial axes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segwright.core.errors import SettingError
from segwright.core.lookup import did_you_mean
from segwright.plans.plan import Training

ENCODER = "encoder"  # the part that is asked once for each image
BATCH_NORMS = "batch_norms"  # in place of a part: all of them, wherever they stand
MOST_BYTES = 4 << 30  # of what encoders have said; what comes after is not kept

Maps = Tensor | list[Tensor]  # (B, ...) each


def freeze(network: nn.Module, names: Sequence[str]) -> None:
    """Let no gradient reach parts of a network, such as "encoder" or "encoder.layer1", or all its "batch_norms".

    Raises:
        SettingError: the network has no such part, or none is left that could learn.
    """
    for part in _parts(network, names):
        part.requires_grad_(False)
    if names and not any(weight.requires_grad for weight in network.parameters()):
        raise SettingError(
            f"training.frozen is {list(names)}, which leaves nothing to learn; leave out one of them, or measure the network "
            "as it is with: segwright evaluate"
        )


def hold(network: nn.Module, names: Sequence[str]) -> None:
    """Let frozen parts of a network that trains answer as they do in use: no dropout, and batch norms keep their statistics."""
    for part in _parts(network, names):
        part.eval()


def is_asked_once(training: Training) -> bool:
    """Whether the encoder of a run is asked once for each crop, as it is frozen, without factors, and crops come again."""
    return training.num_crops is not None and ENCODER in training.frozen and training.low_rank is None


def remember(encoder: nn.Module) -> None:
    """Let a frozen encoder answer from memory where an image comes again, with the same values to the bit."""
    name = _answering(encoder)
    setattr(encoder, name, _Remembering(getattr(encoder, name)))


def forget_answers(encoder: nn.Module) -> int:
    """Let an encoder that remembers begin anew; how many bytes it had kept."""
    memory: _Remembering = getattr(encoder, _answering(encoder))
    kept = memory.kept_bytes
    memory.known.clear()
    memory.kept_bytes = 0
    return kept


def _answering(encoder: nn.Module) -> str:
    """The method of an encoder that gives its answers, of which those of its others are made."""
    return "last_map" if hasattr(encoder, "last_map") else "forward"


@dataclass(eq=False)
class _Remembering:
    """Images (B, C, *S) to what `ask` makes of them, which is asked for those images alone that are not `known` yet."""

    ask: Callable[[Tensor], Maps]
    known: dict[bytes, list[Tensor]] = field(default_factory=dict)  # maps (C, ...) of an image
    is_one: bool = False  # a map and no list of them
    kept_bytes: int = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Maps:
        keys = [_digest(image) for image in images]
        said = {key: self.known[key] for key in keys if key in self.known}
        places = {key: place for place, key in enumerate(keys) if key not in said}
        if places:
            maps = self.ask(images[[*places.values()]])
            self.is_one = isinstance(maps, Tensor)
            levels = [maps] if isinstance(maps, Tensor) else maps
            new = {key: [level[number].clone() for level in levels] for number, key in enumerate(places)}
            self._keep(new)
            said |= new
        stacked = [torch.stack(level) for level in zip(*(said[key] for key in keys), strict=True)]
        return stacked[0] if self.is_one else stacked

    def _keep(self, new: dict[bytes, list[Tensor]]) -> None:
        """Know what was said from now on, as far as there is room."""
        for key, maps in new.items():
            size = sum(level.nbytes for level in maps)
            if self.kept_bytes + size <= MOST_BYTES:
                self.known[key] = maps
                self.kept_bytes += size


def _digest(image: Tensor) -> bytes:
    """16 bytes that change with the values of an image (C, *S)."""
    return blake2b(image.detach().cpu().contiguous().view(torch.uint8).numpy().data, digest_size=16).digest()


def _parts(network: nn.Module, names: Sequence[str]) -> Iterator[nn.Module]:
    """The parts of a network by their names.

    Raises:
        SettingError: there is none of a name.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for name in names:
        if name == BATCH_NORMS and norms:
            yield from norms
            continue
        try:
            yield network.get_submodule(name or "no name")
        except AttributeError as error:
            known = [part for part, _ in network.named_children()] + [BATCH_NORMS] * bool(norms)
            raise SettingError(
                f"training.frozen names '{name}', which this network does not have{did_you_mean(name, known)}; its parts are "
                f"{', '.join(known)}, and parts of these, such as {known[0]}.NAME"
            ) from error

"""What a network holds at most while it answers, before it is asked: it is run on tensors that have shapes and no numbers.

Counted are the tensors that live at the same time, of which PyTorch frees each after its last use. What kernels take for
themselves, such as copies in the layout that a CPU likes, is not known to it. Axes: B images, C channels, *S spatial axes.
"""

import logging
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

log = logging.getLogger(__name__)


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors made in its context that live at the same time; `most` of them so far."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.alive = {key: each for key, each in self.alive.items() if not each[0].expired()}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.alive[reference.cdata] = (reference, storage.nbytes())
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return out


def living_bytes(network: nn.Module, shape: tuple[int, ...]) -> int | None:
    """The bytes that a network and its images float32 (B, C, *S), of this shape, take at most, beside its weights.

    None for a network that cannot be run without numbers.
    """
    living, in_training = _Living(), [module for module in network.modules() if module.training]
    network.eval()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), living, torch.no_grad():
            network(torch.empty(shape))
    except Exception as error:  # any network of a user's own may look at values
        log.debug("what %s takes is not known before it runs: %s", type(network).__module__, error)
        return None
    finally:
        for module in in_training:
            module.training = True
    return living.most

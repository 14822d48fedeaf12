"""Several networks of one kind, such as those of folds, as one: a deep ensemble. They are run one after the other.

Source: Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
arXiv 1612.01474, whose prediction is the mean of the probabilities.

Axes: B batch, C channels, K classes, N networks, Q queries, *S spatial axes of the image, *s of what networks give.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Ensemble(nn.Module):
    """Images (B, C, *S) to logits (B, K, *s) whose softmax is the mean of those of all networks, and to a map (B, 1, *s).

    The logits of each network are first divided by the `temperature`. Those of all are the logarithms of the mean. The map is
    the mean of the entropies of the networks, in nats: where it is less than the entropy of the mean, networks are sure of
    different classes. Beside what one network takes, two maps (B, K, *s) are held, however many networks there are.
    """

    def __init__(self, networks: Sequence[nn.Module], *, temperature: float = 1.0) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.temperature = temperature
        if hasattr(networks[0], "divisors"):
            self.divisors = networks[0].divisors

    def extra_repr(self) -> str:
        """The temperature, by which two ensembles of the same networks differ."""
        return f"temperature={self.temperature:g}"

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of the mean probabilities, and the mean entropy."""
        first, *others = self.networks
        total = (first(image).float() / self.temperature).log_softmax(dim=1)
        entropy = _entropy(total)
        for network in others:
            logs = (network(image).float() / self.temperature).log_softmax(dim=1)
            entropy = entropy + _entropy(logs)
            highest = torch.maximum(total, logs)  # apart from which differences are exact, and no exponential overflows
            total = highest + ((total - highest).exp() + (logs - highest).exp()).log()
        return total - math.log(len(self.networks)), entropy / len(self.networks)


class RegionEnsemble(Ensemble):
    """Images (B, C, *S) to logits (B, K, *s) whose sigmoid is the mean of those of all networks, and to a map (B, 1, *s).

    All else is as in `Ensemble`; the entropy of a pixel is the mean of those of its classes, each of which is there or not.
    """

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The log-odds of the mean probabilities, and the mean entropy."""
        first, *others = self.networks
        logits = first(image).float() / self.temperature
        inside, outside, entropy = F.logsigmoid(logits), F.logsigmoid(-logits), _binary_entropy(logits)
        for network in others:
            logits = network(image).float() / self.temperature
            inside, outside = torch.logaddexp(inside, F.logsigmoid(logits)), torch.logaddexp(outside, F.logsigmoid(-logits))
            entropy = entropy + _binary_entropy(logits)
        return inside - outside, entropy / len(self.networks)


def _binary_entropy(logits: Tensor) -> Tensor:
    """The mean entropy (B, 1, *s), in nats, of classes that are there or not, of logits (B, K, *s)."""
    inside = logits.sigmoid()
    return -(inside * F.logsigmoid(logits) + (1 - inside) * F.logsigmoid(-logits)).mean(dim=1, keepdim=True)


def _entropy(logs: Tensor) -> Tensor:
    """The entropy (B, 1, *s), in nats, of logarithms of probabilities (B, K, *s)."""
    return -(logs.exp() * logs).sum(dim=1, keepdim=True)


class QueryEnsemble(nn.Module):
    """Images (B, C, H, W) to the class logits (B, N Q, K + 1) and mask logits (B, N Q, h, w) of the queries of all networks.

    The last class is that of no segment. Each other class has 1/N of its probability, so that the sum over all queries of
    class times mask probability is the mean of those sums of each network.
    """

    OUTPUT = "queries"

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.divisors = networks[0].divisors

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The queries of one network after those of the other."""
        count = len(self.networks)
        classes, masks = [], []
        for network in self.networks:
            class_logits, mask_logits = network(image)
            logs = class_logits.float().log_softmax(dim=-1)
            none = (logs[..., -1:].exp() + (count - 1)) / count
            classes.append(torch.cat([logs[..., :-1] - math.log(count), none.log()], dim=-1))
            masks.append(mask_logits)
        return torch.cat(classes, dim=1), torch.cat(masks, dim=1)


class MapEnsemble(nn.Module):
    """Images (B, C, *S) to the mean of the maps (B, C', *s) of all networks, such as of flow fields."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.divisors = networks[0].divisors
        self.OUTPUT = networks[0].OUTPUT

    def forward(self, image: Tensor) -> Tensor:
        """The mean of the maps."""
        first, *others = [network(image) for network in self.networks]
        return sum(others, first) / len(self.networks)

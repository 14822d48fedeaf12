"""The small network of PointRend that looks at single points (Kirillov et al. 2019, arXiv 1912.08193, section 3.3).

Axes: N objects or images, C channels of the fine map, K classes, P points.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS = 3  # hidden, in all published networks


class PointHead(nn.Module):
    """Fine features (N, C, P) and coarse logits (N, K, P) of points to better logits (N, K, P); points share the weights.

    With `coarse_each_layer`, each layer sees the coarse logits again, and not the first alone.
    """

    def __init__(self, channels: int, width: int, num_classes: int, *, coarse_each_layer: bool) -> None:
        super().__init__()
        self.coarse_each_layer = coarse_each_layer
        again = num_classes if coarse_each_layer else 0
        before = [channels + num_classes] + [width + again] * (LAYERS - 1)
        self.hidden = nn.ModuleList(nn.Conv1d(count, width, 1) for count in before)
        self.classify = nn.Conv1d(width + again, num_classes, 1)
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.get_parameter("weight"), mode="fan_out", nonlinearity="relu")  # as detectron2
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.normal_(self.classify.weight, std=0.001)  # as detectron2: nothing is certain before it is learnt
        nn.init.zeros_(self.classify.get_parameter("bias"))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Logits (N, K, P)."""
        x, again = self._hidden(fine, coarse)
        return _applied(
            self.classify.weight[..., 0].expand(len(x), -1, -1), self.classify.get_parameter("bias")[:, None], x, again
        )

    def of_classes(self, fine: Tensor, coarse: Tensor, class_ids: Tensor) -> Tensor:
        """Logits (N, P) of one class for each object, int64 (N,): what `forward` gives, without those of all others."""
        x, again = self._hidden(fine, coarse)
        own = self.classify.weight[class_ids, :, 0][:, None]  # (N, 1, width), the row of its class for each object
        return _applied(own, self.classify.get_parameter("bias")[class_ids][:, None, None], x, again)[:, 0]

    def _hidden(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the last layer sees: (N, width, P), and the coarse logits, if each layer sees them."""
        x, again = fine, coarse if self.coarse_each_layer else None
        for number, layer in enumerate(self.hidden):
            weights = layer.get_parameter("weight")[..., 0].expand(len(x), -1, -1)
            x = F.relu(_applied(weights, layer.get_parameter("bias")[:, None], x, again if number else coarse), inplace=True)
        return x, again


def _applied(weights: Tensor, bias: Tensor, x: Tensor, coarse: Tensor | None) -> Tensor:
    """Weights (N, after, before + K) times x (N, before, P) and coarse logits (N, K, P), if there are any: (N, after, P).

    It equals a convolution of both, put one behind the other, in half the time: nothing is copied.
    """
    before = x.shape[1]
    result = torch.baddbmm(bias, weights[:, :, :before], x)
    return result if coarse is None else torch.baddbmm(result, weights[:, :, before:], coarse)

"""What a region holds and where: Fast R-CNN (Girshick 2015, arXiv 1504.08083), with the heads of the pyramid networks.

Two linear layers (Lin et al. 2016, arXiv 1612.03144), or convolutions and one (Wu and He 2018, arXiv 1803.08494, section 4.2).

Axes: R regions, E channels of the pyramid, K classes, s sides of what is cut out.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.norms import HeadNorm, head_norm

SIDE = 7  # of what is cut out, in all published forms


class BoxHead(nn.Module):
    """Features of regions (R, E, 7, 7) to class logits (R, K + 1), the last for none, and deltas (R, K, 4).

    Without `has_class_boxes`, one box stands for all classes: deltas (R, 1, 4).
    """

    def __init__(
        self,
        before: int,
        width: int,
        num_classes: int,
        *,
        convolutions: int,
        linears: int,
        norm: HeadNorm,
        has_class_boxes: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(convolutions):
            convolution = nn.Conv2d(before, before, 3, padding=1, bias=norm == "none")
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [nn.Sequential(convolution, head_norm(norm, before), nn.ReLU(inplace=True))]
        self.convolutions = nn.Sequential(*layers)
        features = before * SIDE**2
        sizes = [features, *[width] * linears]
        self.linears = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))
        for linear in self.linears:
            nn.init.kaiming_uniform_(linear.get_parameter("weight"), a=1)  # as Caffe2's and detectron2's
            nn.init.zeros_(linear.get_parameter("bias"))
        self.classify = nn.Linear(width, num_classes + 1)
        self.deltas = nn.Linear(width, 4 * num_classes if has_class_boxes else 4)
        for last, spread in ((self.classify, 0.01), (self.deltas, 0.001)):  # as the paper: all classes and places start level
            nn.init.normal_(last.weight, std=spread)
            nn.init.zeros_(last.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(regions).flatten(1)
        for linear in self.linears:
            x = F.relu(linear(x))
        logits, deltas = self.classify(x), self.deltas(x).unflatten(1, (-1, 4))
        if logits.dtype.itemsize < 4:  # boxes of 1000 pixels need more than 8 bits
            return logits.float(), deltas.float()
        return logits, deltas

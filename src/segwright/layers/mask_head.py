"""The mask of an object in its region: Mask R-CNN (He et al. 2017, arXiv 1703.06870, figure 4, right).

Masks of classes do not compete: a region is asked for the mask of its own class alone, in training of the true one. So no other
is computed.

Axes: R regions, E channels of the pyramid, F channels of the head, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.norms import HeadNorm, head_norm

SIDE = 14  # of what is cut out; masks have twice as many pixels, in all published forms


class MaskHead(nn.Module):
    """Features of regions (R, E, 14, 14) and their classes, int64 (R,), to the logits of their masks (R, 28, 28)."""

    def __init__(self, before: int, width: int, num_classes: int, *, depth: int, norm: HeadNorm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            convolution = nn.Conv2d(width if number else before, width, 3, padding=1, bias=norm == "none")
            layers += [nn.Sequential(convolution, head_norm(norm, width), nn.ReLU(inplace=True))]
        self.convolutions = nn.Sequential(*layers)
        self.enlarge = nn.ConvTranspose2d(width if depth else before, width, 2, stride=2)
        self.classes = nn.Conv2d(width, num_classes, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.classes.weight, std=0.001)  # as detectron2: masks start undecided

    def hidden(self, regions: Tensor) -> Tensor:
        """What all classes share (R, F, 28, 28)."""
        return F.relu(self.enlarge(self.convolutions(regions)))

    def forward(self, regions: Tensor, class_ids: Tensor) -> Tensor:
        hidden = self.hidden(regions)
        weight, bias = self.classes.weight.flatten(1), self.classes.get_parameter("bias")
        own = weight[class_ids][:, None]  # (R, 1, F), the row of its class for each region
        logits = torch.baddbmm(bias[class_ids][:, None, None], own, hidden.flatten(2))
        return logits.unflatten(2, hidden.shape[2:]).squeeze(1)

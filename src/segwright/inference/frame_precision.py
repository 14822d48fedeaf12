"""In which precision SAM 2 follows objects: bfloat16 on CPUs that know it, once a frame's masks are those of float32.

The authors run their network in bfloat16 throughout, on graphics cards. On such a CPU frames take about half the time.

Axes: B batch, C channels, E channels of an embedding, P objects, H, W sides of an image or of masks, h, w of an embedding.
"""

from typing import Any

import torch
from torch import Tensor

from segwright.inference.embedding_engine import LEAST_IOU
from segwright.inference.quiet_openvino import cpu_knows_bfloat16
from segwright.models.sam2 import Memory, ObjectAnswers


class FramePrecision:
    """How frames of one video are encoded and answered: in float32 until an object is seen, then as half shows it."""

    def __init__(self, network: Any) -> None:
        self.network, self._image = network, torch.empty(0)
        on_cpu = next(network.parameters()).device.type == "cpu"
        self.takes_half = None if on_cpu and cpu_knows_bfloat16() else False

    def encode(self, image: Tensor) -> Tensor:
        """The embedding (1, E, h, w) of a frame (1, C, H, W), float32."""
        if self.takes_half is None:
            self._image = image
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(self.takes_half), cache_enabled=False):
            return self.network.encode(image).float()

    def answer(self, embedding: Tensor, memory: Memory) -> ObjectAnswers:
        """What is said of the P objects of the frame that was encoded last, float32, by its embedding and by memory."""
        if self.takes_half:
            return self._in_half(embedding, memory)
        answers = self.network.answer(embedding, memory=memory)
        if self.takes_half is None and (answers.mask_logits > 0).any():
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                seen = self.network.encode(self._image).float()
            self.takes_half = least_overlap(self._in_half(seen, memory), answers) >= LEAST_IOU
            self._image = torch.empty(0)
        return answers

    def _in_half(self, embedding: Tensor, memory: Memory) -> ObjectAnswers:
        """The answers that bfloat16 gives, as float32."""
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return ObjectAnswers(*(part.float() for part in self.network.answer(embedding, memory=memory)))


def least_overlap(found: ObjectAnswers, wanted: ObjectAnswers) -> float:
    """The overlap (IoU) of masks (P, H, W), of the object where it is least, from 0 to 1; 1 where neither has a pixel."""
    ours, theirs = (each.mask_logits.flatten(1) > 0 for each in (found, wanted))
    both, either = (part.sum(dim=1) for part in (ours & theirs, ours | theirs))
    return float(torch.where(either > 0, both / either.clamp(min=1), 1.0).min())

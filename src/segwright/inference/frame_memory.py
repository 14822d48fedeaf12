"""What a tracker knows of an object in frames, kept in a temporary file, so that memory does not grow with a video.

Each frame takes one place of a fixed length; the place of a frame that is dropped is used again.

Axes: N pixels of a frame's map, R channels of memory, E of a pointer, h, w sides of masks.
"""

import tempfile
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segwright.core.errors import OutputError

MEMORY_DTYPE = torch.bfloat16  # of maps, as the authors and Hugging Face keep them: half a megabyte a frame and object


class Known(NamedTuple):
    """What is known of an object in a frame.

    `memory` (N, R) is what is remembered, `pointer` (E,) stands for the object, `mask_logits` (h, w) is its mask, `score` and
    `presence` () say how well that is expected to fit, and above 0 that the object is seen.
    """

    memory: Tensor
    pointer: Tensor
    mask_logits: Tensor
    score: Tensor
    presence: Tensor


class FrameMemory:
    """Frames by their number; `with` closes it and removes its file."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._places: dict[int, int] = {}
        self._free: list[int] = []
        self._like: Known | None = None

    def __enter__(self) -> "FrameMemory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, frame: int) -> bool:
        return frame in self._places

    def close(self) -> None:
        """Forget all frames, and remove the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._places, self._free = None, {}, []

    def frames(self) -> list[int]:
        """The frames that are known, in order."""
        return sorted(self._places)

    def keep(self, frame: int, known: Known) -> None:
        """Keep what is known of a frame, in place of what was; every frame's tensors are of the same shapes.

        Raises:
            OutputError: there is no place for the file.
        """
        self._like = Known(*(torch.empty_like(part, device="meta") for part in known))
        data = b"".join(_bytes(part) for part in known)
        place = self._places.get(frame)
        if place is None:
            place = self._free.pop() if self._free else len(self._places)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, closed by `close`
            self._file.seek(place * len(data))
            written = self._file.write(data)
        except OSError as error:
            raise OutputError(
                f"frame {frame}, {len(data) / 1e6:.1f} MB, cannot be kept in {tempfile.gettempdir()} ({error}); "
                "free space there, or name another folder by TMPDIR"
            ) from error
        if written != len(data):
            raise OutputError(f"{tempfile.gettempdir()} is full; free space there, or name another folder by TMPDIR")
        self._places[frame] = place

    def find(self, frame: int) -> Known | None:
        """What is known of a frame, or None."""
        place = self._places.get(frame)
        if place is None or self._file is None or self._like is None:
            return None
        sizes = [part.numel() * part.element_size() for part in self._like]
        self._file.seek(place * sum(sizes))
        data = bytearray(self._file.read(sum(sizes)))
        starts = np.cumsum([0, *sizes]).tolist()
        return Known(*(_tensor(data, start, like) for start, like in zip(starts, self._like, strict=False)))

    def drop(self, frames: Sequence[int]) -> None:
        """Forget frames, known or not; others take their places."""
        for frame in frames:
            place = self._places.pop(frame, None)
            if place is not None:
                self._free.append(place)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


def _tensor(data: bytearray, start: int, like: Tensor) -> Tensor:
    """The tensor of the shape and dtype of another whose bytes begin at `start`."""
    return torch.frombuffer(data, dtype=like.dtype, count=like.numel(), offset=start).view(like.shape)

"""What is known of frames, kept in a file. Axes: N, R, E, h, w."""

import pytest
import torch

from segwright.core.errors import OutputError
from segwright.inference.frame_memory import FrameMemory, Known


def known(number: int) -> Known:
    draw = torch.Generator().manual_seed(number)
    memory, pointer, logits, score, presence = (torch.randn(shape, generator=draw) for shape in ((16, 4), (8,), (5, 6), (), ()))
    return Known(memory.bfloat16(), pointer, logits, score, presence)


def test_what_is_kept_is_found_again_bit_by_bit():
    with FrameMemory() as memory:
        for frame in (7, 3, 1000):
            memory.keep(frame, known(frame))
        memory.keep(3, known(33))
        assert memory.frames() == [3, 7, 1000] and 7 in memory and 8 not in memory and memory.find(8) is None
        for frame, number in ((7, 7), (3, 33), (1000, 1000)):
            assert all(map(torch.equal, memory.find(frame), known(number)))
            assert memory.find(frame).memory.dtype == torch.bfloat16


def test_places_of_dropped_frames_are_used_again():
    with FrameMemory() as memory:
        for frame in range(100):
            memory.keep(frame, known(frame))
            memory.drop([frame - 4])
        size = sum(part.numel() * part.element_size() for part in known(0))
        assert memory._file.seek(0, 2) == 5 * size
        assert memory.frames() == [96, 97, 98, 99] and all(map(torch.equal, memory.find(97), known(97)))


def test_nothing_is_left_once_it_is_closed():
    memory = FrameMemory()
    memory.keep(0, known(0))
    file = memory._file
    memory.close()
    assert file.closed and memory.frames() == [] and memory.find(0) is None
    memory.keep(1, known(1))
    assert all(map(torch.equal, memory.find(1), known(1)))
    memory.close()


def test_a_full_disk_is_told_with_a_remedy(monkeypatch):
    def refuse(**_):
        raise OSError("No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with FrameMemory() as memory, pytest.raises(OutputError, match=r"frame 5, .* MB, cannot be kept in .*; free space there"):
        memory.keep(5, known(5))

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from segwright.inference.prompting import Prompter
from segwright.layers.prompts import PromptedMasks


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No test reads what another one remembered, nor writes to the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "segwright"


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Tiny networks gain nothing from threads, and lose much where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class _Squares(nn.Module):
    """Sees bright squares on black, and answers a point with the square that it lies on, sharp, and with two poor masks."""

    divisors = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sides: list[tuple[int, int]] = []

    def encode(self, image: Tensor) -> Tensor:
        self.sides.append((image.shape[2], image.shape[3]))
        bright = nn.functional.avg_pool2d(image[:, :1], 4)[0, 0] > 0  # (h, w)
        self.regions = torch.from_numpy(ndimage.label(bright.numpy())[0])
        return torch.zeros(1, 1, image.shape[2] // 16, image.shape[3] // 16)

    def decode(self, embedding, prompts, *, multimask):
        assert multimask
        logits, scores = [], []
        for x, y in prompts.points_xy[0, :, 0].tolist():
            row, column = (min(int(at / 4), side - 1) for at, side in zip((y, x), self.regions.shape, strict=True))
            region = (self.regions == self.regions[row, column]) & (self.regions > 0)
            sharp, blurred = torch.where(region, 200.0, -200.0), torch.where(region, 0.5, -0.5)
            logits.append(torch.stack([blurred, sharp, sharp]))
            scores.append(torch.tensor([0.99, 0.5, 0.95 if region.any() else 0.1]))
        return PromptedMasks(torch.stack(logits)[None], torch.stack(scores)[None])


@pytest.fixture
def squares() -> np.ndarray:
    """Two bright squares on black (3, 64, 64)."""
    image = np.zeros((3, 64, 64), np.uint8)
    image[:, 4:20, 8:24] = 255
    image[:, 32:60, 32:44] = 255
    return image


@pytest.fixture
def squares_prompter() -> Prompter:
    """A promptable network that finds bright squares."""
    return Prompter(network=_Squares(), side=64)

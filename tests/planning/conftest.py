"""Data and steps whose cost is known, for what plans."""

import numpy as np
import pytest

from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.formats import volume
from segwright.planning import trial
from segwright.planning.budget import Cost
from segwright.plans.plan import Plan


@pytest.fixture
def data(tiny_plan) -> str:
    return tiny_plan.data.train


@pytest.fixture
def costs(monkeypatch):
    """Steps that cost what a formula says, so that choices can be foreseen; the plans that were measured."""
    seen: list[Plan] = []

    def measure(candidate: Plan, parts) -> Cost:
        seen.append(candidate)
        encoder = getattr(candidate.model, "encoder", None)
        unit = {"regnetx_002": 1e-6, "regnetx_004": 2e-6, "regnetx_008": 4e-6, "regnetx_016": 8e-6}.get(
            getattr(encoder, "name", ""), 1e-6
        )
        pixels = candidate.training.batch_size * np.prod(candidate.training.crop)
        assert sum(part.image[:, 0].numel() for part in parts) == pixels  # real crops
        slow = 1.0 if candidate.training.precision == "bf16-mixed" and candidate.training.channels_last else 2.0
        return Cost(seconds=float(unit * pixels * slow), memory_bytes=int(pixels) // candidate.training.accumulate * 1000)

    monkeypatch.setattr(trial, "step_cost", measure)
    monkeypatch.setattr(trial, "within", lambda plan, memory: plan)
    return seen


@pytest.fixture(scope="module")
def thick(tmp_path_factory) -> str:
    """Volumes of a block in 12 slices of 48 x 64 voxels, 4 mm thick; every third has 24 of 2 mm."""
    samples, generator = [], np.random.default_rng(0)
    for number in range(6):
        depth, thickness_mm = (24, 2.0) if number % 3 == 0 else (12, 4.0)
        class_map = np.zeros((depth, 48, 64), np.int64)
        class_map[depth // 4 : -(depth // 4), 16:32, 16:48] = 1
        image = (100 * class_map + generator.normal(100, 10, class_map.shape)).astype(np.int16)[None]
        grid = Grid(class_map.shape, spacing_mm=(thickness_mm, 1.0, 1.0))
        truth = Segmentation.semantic(class_map, Classes.of(["background", "block"]))
        samples.append(Sample(f"v{number}", image, grid, truth))
    folder = tmp_path_factory.mktemp("volumes") / "thick"
    volume.write(folder, samples)
    return str(folder)

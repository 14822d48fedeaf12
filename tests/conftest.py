"""What several tests share: the real data where they lie beside the checkout, and a plan that trains in seconds."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip("needs the real data in ../shared, which are not part of the repository")
    return folder


@pytest.fixture
def tiny_plan(tmp_path):
    from segwright.formats import mask_folder, synthetic
    from segwright.losses.cross_entropy import CrossEntropy
    from segwright.models import unet
    from segwright.plans import Data, Inference, Plan, Training
    from segwright.transforms.geometric import Geometric
    from segwright.transforms.intensity import Intensity

    data = tmp_path.parent / f"{tmp_path.name}-data"
    mask_folder.write(data / "train", synthetic.cells(6, shape=(48, 64), seed=1))
    mask_folder.write(data / "val", synthetic.cells(2, shape=(48, 64), seed=2))
    return Plan(
        data=Data(train=str(data), channels=1),
        model=unet.Config(in_channels=1, num_classes=2, width=4, depth=3),
        loss=CrossEntropy(),
        geometric=Geometric(scale=(0.8, 1.2), rotate_deg=10.0),
        intensity=Intensity(saturation=0.0),
        training=Training(steps=8, batch_size=2, crop=(32, 48), validations=2),
        inference=Inference(tile=(48, 64)),
    )

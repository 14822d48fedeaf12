"""What several rooms test with: real data, a plan that trains in seconds, a reader of pages, and data with known answers."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from segwright.core import Classes, Dataset, Sample, Segmentation

TESTS = Path(__file__).parent
LONG = (TESTS, *(TESTS / folder for folder in ("contracts", "cli", "planning", "training", "workflow")))
settings.register_profile("unhurried", deadline=None)  # a busy machine, or a kernel that is compiled first, is no fault
settings.load_profile("unhurried")
VOID_TAGS = {"meta", "img", "br", "hr", "link", "input"}  # have no end


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, those of contracts, of the whole and of what trains, so that no process waits for
    one at the end.

    All processes of pytest-xdist have to come to the same order; files stay whole, and tests in their order.
    """
    items.sort(key=lambda item: item.path.parent not in LONG)


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
    from segwright.plans.plan import Augmentation, Data, Inference, Plan, Training
    from segwright.tasks.semantic import Semantic
    from segwright.transforms.geometric import Geometric
    from segwright.transforms.intensity import Intensity
    from segwright.transforms.prepare import Preprocess

    data = tmp_path.parent / f"{tmp_path.name}-data"
    mask_folder.write(data / "train", synthetic.cells(6, shape=(48, 64), seed=1))
    mask_folder.write(data / "val", synthetic.cells(2, shape=(48, 64), seed=2))
    return Plan(
        task=Semantic(criterion=CrossEntropy()),
        data=Data(train=str(data), preprocess=Preprocess(channels=1)),
        augmentation=Augmentation(geometric=Geometric(scale=(0.8, 1.2), rotate_deg=10.0), intensity=Intensity(saturation=0.0)),
        model=unet.Config(in_channels=1, num_classes=2, width=4, depth=3),
        training=Training(steps=8, batch_size=2, crop=(32, 48), validations=2),
        inference=Inference(tile=(48, 64)),
    )


class Tags(HTMLParser):
    """Opens and closes tags like a strict reader; keeps the tags, the attributes and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.attributes += attributes
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def read_html() -> Callable[[str], Tags]:
    """Parse HTML: every tag closed, no script, no handler, nothing fetched from anywhere."""

    def read(html: str) -> Tags:
        tags = Tags()
        tags.feed(html)
        tags.close()
        assert not tags.open, f"never closed: {tags.open}"
        assert "script" not in tags.seen and "link" not in tags.seen and "iframe" not in tags.seen
        for name, value in tags.attributes:
            assert not name.startswith("on"), f"{name} would run code"
            if name in ("src", "href", "xlink:href", "srcset"):
                assert value and value.startswith("data:image/"), f"{name}={value[:50] if value else value}"
        assert "http:" not in html and "https:" not in html and "url(" not in html and "@import" not in html
        return tags

    return read


@pytest.fixture
def classes() -> Classes:
    return Classes.of(["sky", "road", "car"])


@pytest.fixture
def truths(classes) -> Dataset:
    """Six images 12 x 16 in noise, each with its truth; the class car is missing in the first."""

    def load(key: str) -> Sample:
        rng = np.random.default_rng(int(key[1:]))
        class_map = np.zeros((12, 16), np.int64)
        class_map[7:] = 1
        if key != "s0":
            class_map[5:9, 2 : 4 + int(key[1:])] = 2
        class_map[:2, :2] = -1
        return Sample.of(key, rng.integers(0, 255, (3, 12, 16), np.uint8), Segmentation.semantic(class_map, classes))

    return Dataset("memory", classes, tuple(f"s{i}" for i in range(6)), load)


@pytest.fixture
def guess(classes) -> Callable[[Sample], Segmentation]:
    """A predictor that is right but for some random pixels, always the same ones."""

    def predict(sample: Sample) -> Segmentation:
        rng = np.random.default_rng(100 + int(sample.key[1:]))
        class_map = np.maximum(sample.truth.class_map(), 0)
        wrong = rng.random(class_map.shape) < 0.05 * (1 + int(sample.key[1:]))
        return Segmentation.semantic(np.where(wrong, rng.integers(0, 3, class_map.shape), class_map), classes)

    return predict

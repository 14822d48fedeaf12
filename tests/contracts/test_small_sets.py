"""Small, thin and mixed sets get a model that measures and predicts, or one clear line.

Planning takes its ways through real crops, but each step costs the same; two steps of a small network are real.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.core.errors import UsageError
from segwright.data.splits import open_splits
from segwright.evaluation.evaluate import evaluate
from segwright.inference.engine import TorchEngine
from segwright.inference.load import load
from segwright.inference.predict_files import predict
from segwright.models import unet
from segwright.planning import trial
from segwright.planning.budget import Budget, Cost
from segwright.planning.planner import planned
from segwright.planning.start import Wish
from segwright.training.loop import train

NOTHING_ELSE = {"val": None, "fold": None, "task": None, "model": None, "wish": Wish(weights="scratch"), "settings": ()}
Pair = tuple[np.ndarray, np.ndarray]  # an image (H, W, C) or (H, W), and its mask (H, W)


@pytest.fixture(autouse=True)
def foreseen(monkeypatch):
    monkeypatch.setattr(trial, "step_cost", lambda plan, parts: Cost(seconds=0.1, memory_bytes=1000))


def pair(height: int, width: int, seed: int) -> Pair:
    """A bright block on a dark ground, in RGB."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 :, width // 3 : 2 * width // 3 + 1] = 1
    image = (60 + 90 * mask[..., None] + rng.normal(0, 10, (height, width, 3))).clip(0, 255).astype(np.uint8)
    return image, mask


def alike(count: int) -> Iterator[Pair]:
    yield from (pair(40, 48, seed) for seed in range(count))


def with_core(count: int) -> Iterator[Pair]:
    """Blocks, 1, whose middle is a core, 2."""
    for image, mask in alike(count):
        mask[16:26, 18:28] *= 2
        yield image, mask


def mixed() -> Iterator[Pair]:
    """RGB, RGBA that is opaque or has holes, grey and 16-bit grey."""
    for number, (image, mask) in enumerate(alike(10)):
        alpha = np.full((*mask.shape, 1), 255, np.uint8)
        alpha[:5] -= np.uint8(200 * (number == 6))
        grey = image.mean(axis=2)
        yield (
            (image, np.concatenate([image, alpha], axis=2), grey.astype(np.uint8), grey.astype(np.uint16) * 257)[number % 4],
            mask,
        )


def odd_sizes() -> Iterator[Pair]:
    for number, size in enumerate([(40, 48), (1, 1), (3, 500), (40, 48), (500, 3), (40, 48), (1, 40), (1, 1)]):
        yield pair(*size, number)


def class_in_one(number: int) -> Iterator[Pair]:
    for place, (image, mask) in enumerate(alike(8)):
        mask[:4] = 2 * (place == number)
        yield image, mask


def write(root: Path, pairs: Iterable[Pair], classes: list[str]) -> None:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, (image, mask) in enumerate(pairs):
        Image.fromarray(image).save(root / "images" / f"t{number:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"t{number:02}.png")
    (root / "classes.json").write_text(json.dumps(classes))


def write_volumes(root: Path, depths: list[int], thicknesses_mm: tuple[float, ...] = (5.0,)) -> None:
    """Volumes of so many slices, whose thicknesses take turns."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, depth in enumerate(depths):
        image, mask = pair(24, 32, number)
        for folder, plane in (("images", image[..., 0].astype(np.int16)), ("masks", mask)):
            volume = np.repeat(plane[..., None], depth, axis=2)
            affine = np.diag([0.8, 0.8, thicknesses_mm[number % len(thicknesses_mm)], 1])
            nib.save(nib.Nifti1Image(volume, affine), root / folder / f"v{number:02}.nii.gz")
    (root / "classes.json").write_text(json.dumps(["ground", "block"]))


def write_five_channels(root: Path) -> None:
    """16-bit TIFF images of five channels."""
    write(root, alike(6), ["ground", "block"])
    for path in sorted((root / "images").iterdir()):
        image = np.asarray(Image.open(path)).astype(np.uint16) * 257  # (H, W, 3)
        channels = np.moveaxis(image[..., [0, 1, 2, 0, 1]], -1, 0)
        tifffile.imwrite(path.with_suffix(".tif"), channels, photometric="minisblack", metadata={"axes": "CYX"})
        path.unlink()


def write_numbers_with_gaps(root: Path) -> None:
    """Masks with the numbers 0, 7 and 200, each of which has a name."""
    values = [0, 7, 200]
    write(root, ((image, np.array(values, np.uint8)[mask]) for image, mask in with_core(6)), [])
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "block", "core"], "values": values}))


def write_unknown_pixels(root: Path) -> None:
    """Masks with pixels of 255, which nobody knows."""
    write(root, ((image, np.where(mask == 2, 255, mask).astype(np.uint8)) for image, mask in with_core(6)), [])
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "block"], "ignore_index": 255}))


def write_nested_regions(root: Path) -> None:
    """A data set of nnU-Net whose regions overlap: the core is part of the block."""
    write(root, with_core(6), [])
    for folder, ours, ending in (("imagesTr", "images", "_0000.png"), ("labelsTr", "masks", ".png")):
        (root / ours).rename(root / folder)
        for path in sorted((root / folder).iterdir()):
            path.rename(path.with_name(f"{path.stem}{ending}"))
    (root / "classes.json").unlink()
    labels = {"background": 0, "block": [1, 2], "core": [2]}
    channels = {str(number): name for number, name in enumerate("RGB")}
    content = {"channel_names": channels, "labels": labels, "regions_class_order": [1, 2], "file_ending": ".png"}
    (root / "dataset.json").write_text(json.dumps(content))


SETS = {
    "three images": lambda root: write(root, alike(3), ["ground", "block"]),
    "two images": lambda root: write(root, alike(2), ["ground", "block"]),
    "grey, RGB and RGBA": lambda root: write(root, mixed(), ["ground", "block"]),
    "1 x 1 and 3 x 500": lambda root: write(root, odd_sizes(), ["ground", "block"]),
    "a class in one image": lambda root: write(root, class_in_one(3), ["ground", "block", "bar"]),
    "a class in the image held out": lambda root: write(root, class_in_one(7), ["ground", "block", "bar"]),
    "volumes of 1 to 7 slices": lambda root: write_volumes(root, [1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 1]),
    "volumes of a slice": lambda root: write_volumes(root, [1, 1, 1]),
    "volumes of several thicknesses": lambda root: write_volumes(root, [4, 8, 8, 4, 8], (4.0, 2.0, 2.0)),
    "16-bit images of five channels": write_five_channels,
    "numbers with gaps": write_numbers_with_gaps,
    "pixels that nobody knows": write_unknown_pixels,
    "nested regions": write_nested_regions,
}
SIDES = {  # channels and classes of the network that learns from it
    "16-bit images of five channels": (5, 2),
    "numbers with gaps": (3, 3),
    "pixels that nobody knows": (3, 2),
    "nested regions": (3, 2),
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_becomes_a_model_that_measures_and_predicts(name, tmp_path):
    SETS[name](tmp_path / "data")
    made = planned(str(tmp_path / "data"), budget=Budget(minutes=0.05, device="cpu"), **NOTHING_ELSE)
    assert made.plan.training.steps >= 1
    if len(made.plan.training.crop) == 3:  # whose network and crop follow from their slices
        network = replace(made.plan.model, features=(4,) * len(made.plan.model.features))
        assert (made.plan.data.preprocess.spacing_mm is not None) == (name == "volumes of several thicknesses")
    else:
        sides = {"in_channels": made.plan.data.preprocess.channels, "num_classes": made.plan.model.num_classes}
        network = unet.Config(**sides, axes=2, width=4, depth=2, norm="instance")
    assert SIDES.get(name, (network.in_channels, network.num_classes)) == (network.in_channels, network.num_classes)
    plan = replace(made.plan, model=network, training=replace(made.plan.training, steps=2, validations=1))
    train(plan, tmp_path / "run", splits=made.splits, values=made.values)
    model = load(tmp_path / "run")
    model = replace(model, engine=TorchEngine(model.network))
    scores = evaluate(model, open_splits(tmp_path / "data").val)
    assert scores.count >= 1 and 0 <= scores.values["mIoU"] <= 1
    images = next((tmp_path / "data").glob("images*"))
    assert len(predict(model, images, tmp_path / "masks")) == len(sorted(images.iterdir()))


def one_image(root: Path) -> None:
    write(root, alike(1), ["ground", "block"])


def nothing_but_ground(root: Path) -> None:
    write(root, ((image, 0 * mask) for image, mask in alike(4)), ["ground", "block"])


def void_alone(root: Path) -> None:
    write(root, ((image, 0 * mask + 255) for image, mask in alike(4)), ["ground", "block"])
    (root / "classes.json").write_text('{"classes": ["ground", "block"], "ignore_index": 255}')


def images_and_volumes(root: Path) -> None:
    write(root / "train", alike(2), ["ground", "block"])
    write_volumes(root / "val", [3, 4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            images_and_volumes,
            "sample 'val__v00': it is a volume, and those to train with are 2D; one kind is needed: put images",
        ),
        (one_image, "holds 1 sample, two are needed to train and to validate; add more"),
        (nothing_but_ground, "hold only the class 'ground'; two classes are needed"),
        (void_alone, "hold void alone; two classes are needed"),
    ],
)
def test_what_teaches_nothing_is_one_clear_line(make, message, tmp_path):
    make(tmp_path / "data")
    with pytest.raises(UsageError, match=message):
        planned(str(tmp_path / "data"), budget=Budget(minutes=0.05, device="cpu"), **NOTHING_ELSE)

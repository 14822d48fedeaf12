"""Image files to mask files at 512 x 512: `segwright.predict` against three libraries on two cores, with the same weights.

    python benchmarks/predict.py

SegFormer-B0 (150 classes) against transformers, DeepLabV3 on ResNet-50 against torchvision and U-Net on ResNet-34 against
segmentation_models.pytorch (21 classes each). Both sides read the same files and write one PNG of class numbers per file, in
turns of a few images. The libraries are used as their documentation says, but lean: eager float32, no gradients, and the
images, which have the right size, are only normalised. torchvision's network has its auxiliary head, as with all published
weights; its forward pass runs it. Segwright picks its engine before the turns begin, as it does once per model and machine;
that time is printed too.

The images are frames of CamVid and photographs from ../shared/data, brought to 512 x 512, or drawn streets where that folder
is absent. The networks learn the frames for a minute or two each, by Segwright's step, all layers from random weights, and
their weights then go to the other side through `rename`. They learn what they are shown by heart: what is compared is not how
well they segment but whether both sides say the same, and where a network has learned nothing all its answers are nearly ties,
which no arithmetic but the reference's own settles alike. The photographs it has never seen.
"""

import argparse
import logging
import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

THREADS = 2  # cores at most: the machine that the figures are for
SIDE = 512  # pixels
TURNS, IMAGES = 3, 6
SHARED = Path(__file__).parents[2] / "shared" / "data"
LEARNING_RATE = 2e-3
BATCH = 4
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, in bytes, as all three libraries normalise


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network by our name, whose it is on the other side, and how many times faster it shall be here."""

    preset: str
    library: str
    classes: int
    crop: int  # pixels of a side of what is learned at a time
    minutes: float  # of learning
    target: str


CASES = {
    "segformer": Case(preset="segformer_b0", library="transformers", classes=150, crop=256, minutes=1.5, target=""),
    "deeplab": Case(preset="deeplab_v3_resnet50", library="torchvision", classes=21, crop=128, minutes=2, target="2.7"),
    "unet": Case(preset="unet_resnet34", library="segmentation_models.pytorch", classes=21, crop=256, minutes=1, target=""),
}


def main() -> None:
    """Print a row for each network and turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", choices=[[], *CASES], metavar="NETWORK", help=f"of {', '.join(CASES)}; all without any"
    )
    parser.add_argument("--minutes", type=float, help="of learning by each network, instead of one or two")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    logging.basicConfig(format="%(message)s")
    logging.getLogger("segwright.inference").setLevel(logging.INFO)
    print("| network | against | turn | theirs, ms an image | segwright, ms an image | ratio | labels that agree |")
    print("|---|---|--:|--:|--:|--:|--:|", flush=True)
    summaries = []
    for name in arguments.cases or list(CASES):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # what this machine remembers from earlier does not count
            summaries.append(compare(CASES[name], Path(folder), arguments.minutes or CASES[name].minutes))
    print("\n" + "\n".join(summaries))


def compare(case: Case, folder: Path, minutes: float) -> str:
    """Both sides in turns; what they come to in a line."""
    import numpy as np
    import torch

    from segwright.codecs.image_file import read_image
    from segwright.inference.predict_files import predict

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS)
    scenes = pictures()
    files = write_images(folder / "images", scenes)
    predictor, accuracy = trained(case, scenes, minutes)
    network = reference(case, predictor.network)
    start = time.perf_counter()
    predict(predictor, [file for turn in files for file in turn], folder / "first")
    first = time.perf_counter() - start
    theirs(network, files[0][:1], folder / "theirs")  # warm

    ratios, agreements = [], []
    for turn, names in enumerate(files, start=1):
        start = time.perf_counter()
        theirs(network, names, folder / "theirs")
        middle = time.perf_counter()
        predict(predictor, names, folder / "ours")
        end = time.perf_counter()
        pairs = [[read_image(folder / side / f"{file.stem}.png") for file in names] for side in ("ours", "theirs")]
        slow, fast = (1000 * seconds / len(names) for seconds in (middle - start, end - middle))
        ratios.append(slow / fast)
        agreements.append(np.mean(np.array(pairs[0]) == np.array(pairs[1])))
        print(
            f"| {case.preset} | {case.library} | {turn} | {slow:.0f} | {fast:.0f} | {ratios[-1]:.2f} "
            f"| {100 * agreements[-1]:.3f} % |",
            flush=True,
        )
    wanted = f" (target {case.target})" if case.target else ""
    return (
        f"{case.preset}: ratio {np.median(ratios):.2f} in the median, {min(ratios):.2f} to {max(ratios):.2f}{wanted}; "
        f"{100 * np.mean(agreements):.3f} % of the labels agree; the first {TURNS * IMAGES} images, with picking the engine: "
        f"{first:.1f} s; {100 * accuracy:.1f} % of the pixels learned"
    )


def pictures() -> list[Any]:
    """Samples of SIDE x SIDE: real ones, or drawn ones; those without truth last."""
    import cv2
    import numpy as np

    from segwright import Sample, Segmentation, open_dataset
    from segwright.codecs.image_file import read_image
    from segwright.core.grid import Grid
    from segwright.formats import synthetic

    count = TURNS * IMAGES
    if not (SHARED / "camvid").is_dir():
        return list(synthetic.streets(count, shape=(SIDE, SIDE), seed=0))

    def fitted(sample: Any) -> Any:
        """The sample at SIDE x SIDE."""
        image = np.moveaxis(cv2.resize(np.moveaxis(sample.image, 0, -1), (SIDE, SIDE), interpolation=cv2.INTER_AREA), -1, 0)
        truth = None
        if sample.truth is not None:
            class_map = cv2.resize(sample.truth.class_map().astype(np.int16), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
            truth = Segmentation.semantic(class_map, sample.truth.classes)
        return replace(sample, image=image, grid=Grid((SIDE, SIDE)), truth=truth)

    photos = []
    for path in sorted((SHARED / "photos").glob("*.jpg")):
        image = read_image(path)
        photos.append(Sample(key=path.stem, image=image, grid=Grid(image.shape[1:])))
    frames = open_dataset(SHARED / "camvid" / "train")
    keys = frames.keys[:: len(frames) // (count - len(photos))][: count - len(photos)]
    return [fitted(sample) for sample in (*(frames.load(key) for key in keys), *photos)]


def write_images(folder: Path, scenes: list[Any]) -> list[list[Path]]:
    """JPEG files of the scenes, for each turn its own."""
    import numpy as np

    from segwright.codecs.image_writer import write_picture

    paths = [folder / f"{number}.jpg" for number in range(len(scenes))]
    for path, sample in zip(paths, scenes, strict=True):
        write_picture(path, np.moveaxis(sample.image, 0, -1))
    return [paths[turn::TURNS] for turn in range(TURNS)]


def trained(case: Case, scenes: list[Any], minutes: float) -> tuple[Any, float]:
    """A predictor that has learned the scenes for some minutes, and the share of the last batches' pixels that it had right."""
    import numpy as np
    import torch

    from segwright import Classes
    from segwright.inference.predictor import Predictor
    from segwright.losses.cross_entropy import CrossEntropy
    from segwright.models import preset
    from segwright.plans.plan import Data, Plan, Training
    from segwright.tasks import Batch
    from segwright.tasks.semantic import Semantic
    from segwright.training.learner import Learner, launch
    from segwright.training.loop import step
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess

    config, side = replace(preset(case.preset), num_classes=case.classes), case.crop
    if case.library == "transformers":
        config = replace(config, encoder=replace(config.encoder, norm_eps=1e-5))  # what transformers runs
    known = [scene for scene in scenes if scene.truth is not None]
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (MEAN, STD))
    images = torch.from_numpy(np.stack([(scene.image - mean) / std for scene in known]).astype(np.float32))
    targets = torch.from_numpy(np.stack([scene.truth.class_map() for scene in known]).astype(np.int64))
    training = Training(steps=1000, batch_size=BATCH, crop=(side, side), precision="bf16-mixed", channels_last=True)
    plan = Plan(task=Semantic(criterion=CrossEntropy()), data=Data(train="frames"), model=config, training=training)
    plan = replace(plan, optimiser=replace(plan.optimiser, learning_rate=LEARNING_RATE))
    learner, generator = Learner.new(plan, launch(training)), torch.Generator().manual_seed(0)
    start, number, done = time.perf_counter(), 0, 0.0
    while done < 1:
        chosen = torch.randint(len(images), (BATCH,), generator=generator).tolist()
        corners = torch.randint(SIDE - side + 1, (BATCH, 2), generator=generator).tolist()
        places = [(k, slice(y, y + side), slice(x, x + side)) for k, (y, x) in zip(chosen, corners, strict=True)]
        image, target = (torch.stack([stack[k, ..., y, x] for k, y, x in places]) for stack in (images, targets))
        step(learner, [Batch([str(k) for k in chosen], image, target)], number, 0.5 * (1 + math.cos(math.pi * done)))
        number, done = number + 1, (time.perf_counter() - start) / (60 * minutes)
    network = learner.network.eval().to(memory_format=torch.contiguous_format)
    predictor = Predictor(
        network=network,
        task=plan.task,
        classes=Classes.of([f"class {k}" for k in range(case.classes)]),
        preprocess=Preprocess(normalise=Normalise(mean=MEAN, std=STD)),
        tile=(SIDE, SIDE),
    )
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(network(images[:4]), size=(SIDE, SIDE), mode="bilinear")
    return predictor, (logits.argmax(dim=1) == targets[:4])[targets[:4] >= 0].float().mean().item()


def reference(case: Case, network: Any) -> Callable[[Any], Any]:
    """The library's network with the weights of ours: image (1, 3, H, W) to logits (1, K, H, W)."""
    if case.library == "transformers":
        return transformers_segformer(case, network)
    if case.library == "torchvision":
        from torchvision.models.segmentation import deeplabv3_resnet50

        from segwright.models.deeplab_v3 import rename

        other = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=case.classes, aux_loss=True).eval()
        other.load_state_dict(filled(other.state_dict(), rename, network.state_dict()))
        return lambda image: other(image)["out"]
    import segmentation_models_pytorch as smp

    from segwright.models.encoder_unet import rename

    other = smp.Unet("resnet34", encoder_weights=None, classes=case.classes).eval()
    other.load_state_dict(filled(other.state_dict(), rename, network.state_dict()))
    return other


def filled(tensors: dict[str, Any], rename: Callable[[dict[str, Any]], dict[str, Any]], weights: dict[str, Any]) -> Any:
    """The tensors of another library with the values that become our `weights` under `rename`.

    Numbered elements tell which of theirs becomes which of ours.
    """
    import torch

    values = torch.cat([tensor.flatten().double() for tensor in tensors.values()])
    numbers = torch.arange(len(values)).split([tensor.numel() for tensor in tensors.values()])
    shaped = {name: part.reshape(tensors[name].shape) for name, part in zip(tensors, numbers, strict=True)}
    for name, places in rename(shaped).items():
        values[places.flatten()] = weights[name].flatten().double()
    return {name: values[places].to(tensors[name].dtype) for name, places in shaped.items()}


def transformers_segformer(case: Case, network: Any) -> Callable[[Any], Any]:
    """transformers' network, filled through the names that its files have; they differ from those in memory."""
    from safetensors.torch import load_file, save_file
    from torch.nn.functional import interpolate
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from segwright.models.segformer import rename

    with tempfile.TemporaryDirectory() as folder:
        SegformerForSemanticSegmentation(SegformerConfig(num_labels=case.classes)).save_pretrained(folder)
        file = f"{folder}/model.safetensors"
        save_file(filled(load_file(file), rename, network.state_dict()), file, metadata={"format": "pt"})
        other = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    return lambda image: interpolate(
        other(pixel_values=image).logits, size=image.shape[2:], mode="bilinear", align_corners=False
    )


def theirs(network: Callable[[Any], Any], files: list[Path], out: Path) -> None:
    """What users of these libraries write."""
    import numpy as np
    import torch
    from PIL import Image

    out.mkdir(exist_ok=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    for file in files:
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
        with torch.no_grad():
            class_map = network(((image.float() - mean) / std)[None]).argmax(dim=1)[0]
        Image.fromarray(class_map.byte().numpy()).save(out / f"{file.stem}.png")


if __name__ == "__main__":
    main()

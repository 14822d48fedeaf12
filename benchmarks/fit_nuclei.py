"""Objects after minutes: `segwright fit` on nuclei, a U-Net with a watershed, and torchvision's Mask R-CNN, on two cores.

    python benchmarks/fit_nuclei.py --minutes 20

The data are the nuclei of ../shared/data (Data Science Bowl 2018): all training images, and of the validation images those 27
that do not touch a training image in the same slide. Each side runs alone in a fresh process; all are scored by the same code.

* NAME (such as planned, mask_rcnn_small, solov2_small): `segwright fit`, with the network that the planner chooses or with that
  preset. Its minutes hold all that the command does: planning, validations, scoring and the report too.
* watershed: `segwright fit --task semantic` in the same minutes, which chooses a U-Net; what it takes for nuclei is then split
  as biologists do, by a watershed from the peaks of the smoothed distance to the background (scikit-image). An object's score
  is its mean probability.
* torchvision: Mask R-CNN on ResNet-50 from random weights by the recipe of torchvision's references: SGD of momentum 0.9, a
  learning rate of 0.02 for 16 images, linear warm-up, steps down at 8/13 and 11/13 of the run, weight decay 1e-4, mirrored at
  random, two images at a time, at the network's own 800 pixels. It is the second version, whose pyramid and heads have norms:
  without them the mask loss of fresh heads began at 27 and went to NaN in so few steps. All norms are trained. Starting Python,
  reading the images and the final scoring come on top of its minutes, in its favour, and it may find 300 objects an image.
* torchvision_trained: the same on EfficientNet-Lite0 with ImageNet's weights (the extra [weights]) and a pyramid: the only
  trained weights that can be installed. `planned` starts from the same where the planner takes them.

Axes: B batch, C channels, N objects, H, W.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = 2  # the machine that the figures are for
DATA = Path(__file__).parents[2] / "shared" / "data" / "nuclei"
SCORES = ("AP", "AP50", "AP75", "object F1@0.5", "object accuracy")
PLAIN = ("watershed", "torchvision", "torchvision_trained")
SMOOTH, APART = 1.0, 3  # pixels: of the Gaussian on the distances, and between peaks; both as tutorials have them
BATCH = 2
LEARNING_RATE, IMAGES_OF_RATE = 0.02, 16
WARM_UP, WARM_UP_SHARE = 1000, 0.1  # steps, as there, or a tenth of the run where that is shorter
MILESTONES = (8 / 13, 11 / 13)  # of a run of 13 epochs
MOST_OBJECTS = 300  # of an image; the default of 100 would lose some
LITE = "tf_efficientnet_lite0"


def main() -> None:
    """Print a table with one row per side, as they finish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", nargs="*", default=["planned", *PLAIN], metavar="SIDE", help="of those above; all but presets")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, help="a file to which each row is appended")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(scored(arguments.sides[0], arguments.child, arguments.minutes)))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    print(f"| side | minutes | wall s | {' | '.join(SCORES)} | 95 % interval of AP |")
    print(f"|---|--:|--:|{'--:|' * len(SCORES)}---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        lay_out(arguments.data, Path(folder))
        for side in arguments.sides:
            command = [sys.executable, __file__, side, "--minutes", str(arguments.minutes), "--child", folder]
            start = time.perf_counter()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            result = json.loads(done.stdout.splitlines()[-1]) | {"side": side, "wall_s": time.perf_counter() - start}
            low, high = result["interval"]
            numbers = " | ".join(f"{result['values'][name]:.3f}" for name in SCORES)
            wall = f"{arguments.minutes:g} | {result['wall_s']:.0f}"
            print(f"| {side} | {wall} | {numbers} | {low:.3f} to {high:.3f} |", flush=True)
            if arguments.json:
                with arguments.json.open("a") as file:
                    file.write(json.dumps(result) + "\n")


def lay_out(data: Path, folder: Path) -> None:
    """Links to the training images, and to those validation images that touch none of them."""
    trained = {path.stem for path in (data / "train" / "images").iterdir()}
    groups = json.loads((data / "tile_groups.json").read_text())
    touching = {key for group in groups if not trained.isdisjoint(group) for key in group}
    for part in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
            for path in sorted((data / part / kind).iterdir()):
                if part == "train" or path.stem not in touching:
                    (folder / part / kind / path.name).symlink_to(path.resolve())


def scored(side: str, folder: Path, minutes: float) -> dict[str, Any]:
    """The scores of a side, in a fresh process."""
    import torch

    from segwright.evaluation.evaluate import evaluate
    from segwright.formats import open_dataset
    from segwright.tasks.instance import Instance

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS)
    val_set = Instance().dataset(open_dataset(folder / "val"))
    if side == "watershed":
        predict = watershed_of(folder, minutes)
    elif side in PLAIN:
        predict = torchvision_of(folder, minutes, is_trained=side == "torchvision_trained")
    else:
        from segwright.inference.load import load
        from segwright.planning.budget import Budget
        from segwright.workflow import fit

        model = None if side == "planned" else side
        run = folder / f"run_{side}"
        fit(folder / "train", val=folder / "val", budget=Budget(minutes=minutes), task="instance", model=model, out=run)
        predict = load(run)
    scores = evaluate(predict, val_set, metrics=SCORES)
    return {"values": scores.values, "interval": scores.intervals["AP"]}


def watershed_of(folder: Path, minutes: float) -> Any:
    """A predictor of objects: what a semantic network takes for nuclei, split by a watershed."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.feature import peak_local_max
    from skimage.measure import label
    from skimage.segmentation import watershed

    from segwright import Segmentation
    from segwright.inference.load import load
    from segwright.planning.budget import Budget
    from segwright.workflow import fit

    run = folder / "run_watershed"
    fit(folder / "train", val=folder / "val", budget=Budget(minutes=minutes), task="semantic", out=run)
    predictor = load(run)

    def predict(sample: Any) -> Any:
        view = predictor.preprocess(predictor.on_scale(sample))
        prob = predictor.task.probabilities(predictor.run(2), view)[1]
        is_nucleus = prob >= 0.5
        distance = gaussian_filter(distance_transform_edt(is_nucleus), SMOOTH)
        peaks = np.zeros(is_nucleus.shape, np.int32)
        places = peak_local_max(distance, min_distance=APART, labels=label(is_nucleus), exclude_border=False)
        peaks[tuple(places.T)] = np.arange(1, len(places) + 1)
        numbers = watershed(-distance, peaks, mask=is_nucleus).astype(np.int32)
        count = int(numbers.max(initial=0))
        areas = np.maximum(np.bincount(numbers.ravel(), minlength=count + 1), 1)
        means = (np.bincount(numbers.ravel(), prob.ravel(), minlength=count + 1) / areas)[1:]
        classes = sample.truth.classes
        return Segmentation.panoptic(numbers, np.zeros(count, np.int32), np.arange(1, count + 1), scores=means, classes=classes)

    return predict


def torchvision_of(folder: Path, minutes: float, *, is_trained: bool) -> Any:
    """A predictor: torchvision's Mask R-CNN after its recipe for so many minutes."""
    import numpy as np
    import torch

    from segwright import Segmentation
    from segwright.formats import open_dataset
    from segwright.tasks.instance import Instance
    from segwright.transforms.channels import match_channels

    torch.manual_seed(0)
    network = detector(is_trained=is_trained).train()
    samples = [*Instance().dataset(open_dataset(folder / "train"))]
    pairs = [pair for sample in samples if len((pair := as_torchvision(sample))[1]["boxes"])]
    learn(network, pairs, minutes)
    network.eval()

    def predict(sample: Any) -> Any:
        image = torch.from_numpy(match_channels(sample.image, 3).astype(np.float32) / 255)
        with torch.inference_mode():
            found = network([image])[0]
        masks = (found["masks"][:, 0] >= 0.5).numpy()
        scores = found["scores"].numpy()
        return Segmentation.instances(masks, np.zeros(len(masks), np.int32), scores=scores, classes=sample.truth.classes)

    return predict


def detector(*, is_trained: bool) -> Any:
    """torchvision's Mask R-CNN for one class."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    network = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=2, box_detections_per_img=MOST_OBJECTS)
    if not is_trained:
        return network
    import timm
    import torch

    from segwright.encoders import timm as encoders

    encoder = encoders.Config(name=LITE).build(3)
    encoder.load_state_dict(encoders.fetch(encoder))
    body = timm.create_model(LITE, features_only=True, out_indices=(1, 2, 3, 4))
    weights = {name.removeprefix("network."): tensor for name, tensor in encoder.state_dict().items()}
    body.load_state_dict(weights, strict=False)

    class Pyramid(BackboneWithFPN):
        """The encoder's maps at strides 4 to 32 through torchvision's pyramid."""

        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

            self.body, self.out_channels = body, 256
            self.fpn = FeaturePyramidNetwork(
                body.feature_info.channels(), 256, LastLevelMaxPool(), norm_layer=torch.nn.BatchNorm2d
            )

        def forward(self, image: Any) -> Any:
            return self.fpn({str(number): level for number, level in enumerate(self.body(image))})

    network.backbone = Pyramid()
    network.transform.image_mean, network.transform.image_std = [127 / 255] * 3, [128 / 255] * 3
    return network


def as_torchvision(sample: Any) -> tuple[Any, dict[str, Any]]:
    """An image float32 (3, H, W) up to 1, and its objects, as torchvision wants them."""
    import numpy as np
    import torch

    from segwright.transforms.channels import match_channels

    image = torch.from_numpy(match_channels(sample.image, 3).astype(np.float32) / 255)
    is_there = sample.truth.areas() > 0
    masks = torch.from_numpy(sample.truth.masks()[is_there].astype(np.uint8))
    boxes = torch.from_numpy(sample.truth.boxes_xyxy()[is_there])
    return image, {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64), "masks": masks}


def learn(network: Any, pairs: list[Any], minutes: float) -> None:
    """The recipe of torchvision's references, its schedule by the share of the time."""
    import torch

    peak = LEARNING_RATE * BATCH / IMAGES_OF_RATE
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=peak, momentum=0.9, weight_decay=1e-4)
    start, step, seconds, queue = time.perf_counter(), 0, 60 * minutes, list[int]()
    while (progress := (time.perf_counter() - start) / seconds) < 1:
        warm_up = min(1.0, max((step + 1) / WARM_UP, progress / WARM_UP_SHARE))
        rate = peak * warm_up * 0.1 ** sum(progress >= milestone for milestone in MILESTONES)
        for group in optimiser.param_groups:
            group["lr"] = rate
        if len(queue) < BATCH:
            queue += torch.randperm(len(pairs)).tolist()
        images, targets = zip(*(mirrored(*pairs[index]) for index in queue[:BATCH]), strict=True)
        del queue[:BATCH]
        loss = sum(network(list(images), list(targets)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
    print(f"last loss {float(loss):.3f} after {step} steps of {BATCH} images", file=sys.stderr)


def mirrored(image: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Image and objects, mirrored in one of two cases."""
    import torch

    if torch.rand(()) < 0.5:
        return image, target
    width, boxes = image.shape[2], target["boxes"].clone()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return image.flip(-1), target | {"boxes": boxes, "masks": target["masks"].flip(-1)}


if __name__ == "__main__":
    main()

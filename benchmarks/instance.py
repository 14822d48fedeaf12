"""Mask R-CNN on ResNet-50 beside torchvision's, with the same weights and images of 800 x 1333 pixels, on two cores.

    python benchmarks/instance.py

* inference: from an image float32 in memory to its masks at full size, 100 objects: `segwright.inference.Predictor`, whose
  engine was picked before, against torchvision's network. Weights are random, and those of the classes are enlarged until 100
  objects are found; with random weights nothing agrees in bfloat16, so that the engines are those of float32.
* training: a step of the loop that `segwright fit` runs (`segwright.training.loop.step`), on two images of 20 objects each, as
  planned (bfloat16, channels-last) and at equal precision; torchvision's in float32 with SGD, as its references do it.
* paste: 100 masks of 28 x 28 into 800 x 1333, one thread: ours end as a `Segmentation`, torchvision's as (100, 1, H, W).

Sides take turns in one process. Memory is the peak of a process of its own over what it held once the network was built.
Axes: B batch, N objects, H, W.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from process_memory import peak_of

THREADS = 2  # the machine that the figures are for
TURNS = 5
SHAPE = (800, 1333)
PADDED = (800, 1344)  # to multiples of 32, as both networks see it
CLASSES = 90
OBJECTS = 20  # of an image to learn from
LOUDER = 5.0  # times the weights of the classes at their start: 100 are then sure, and their scores still differ
KINDS = {
    "inference": ("torchvision", "segwright"),
    "training": ("torchvision", "segwright", "segwright equal precision"),
    "paste": ("torchvision", "segwright"),
}
TARGETS = {"inference": 1.3, "training": 1.1, "paste": 5.0}


def main() -> None:
    """Print a row for each kind of work and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kinds", nargs="*", choices=[[], *KINDS], metavar="KIND", help=f"of {', '.join(KINDS)}; all without any"
    )
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    if arguments.child:
        print(peak_of(prepared(arguments.kinds[0], arguments.child)))
        return
    print("| work | side | ms | times as fast | peak MB |\n|---|---|--:|--:|--:|", flush=True)
    for kind in arguments.kinds or KINDS:
        measure(kind, arguments.turns)


def measure(kind: str, turns: int) -> None:
    """The rows of one kind of work."""
    sides = {side: prepared(kind, side) for side in KINDS[kind]}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns + 1):
        for side, work in sides.items():
            start = time.perf_counter()
            work()
            if turn:  # the first one warms up, and picks the engine
                times[side].append(time.perf_counter() - start)
    theirs = times["torchvision"]
    for side, ours in times.items():
        ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if side != "torchvision" else ""
        command = [sys.executable, __file__, kind, "--child", side]
        memory = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
        target = f", wanted {TARGETS[kind]}" if side == "segwright" else ""
        print(f"| {kind} | {side} | {1000 * statistics.median(ours):.0f} | {ratio}{target} | {memory} |", flush=True)


def prepared(kind: str, side: str) -> Callable[[], Any]:
    """The work of a side, ready to be done again and again."""
    import torch

    torch.set_num_threads(
        1 if kind == "paste" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS
    )
    torch.manual_seed(0)
    return {"inference": inference, "training": training, "paste": pasting}[kind](side)


def torchvisions() -> Any:
    """torchvision's network, all of whose layers learn but for its norms."""
    import torch
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.misc import FrozenBatchNorm2d

    torch.manual_seed(0)
    body = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5)
    network = MaskRCNN(body, CLASSES + 1)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0  # as with its published weights
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(LOUDER)
    return network


def ours() -> tuple[Any, Any]:
    """Our network with the weights of torchvision's, and its config."""
    from segwright.models import preset
    from segwright.models.mask_rcnn import rename

    config = replace(preset("maskrcnn_resnet50_fpn"), num_classes=CLASSES)
    network = config.build()
    network.load_state_dict(rename(torchvisions().state_dict()))
    return network, config


def image() -> Any:
    """An image float32 (3, H, W) of blobs, from 0 to 1."""
    import torch
    from torch.nn.functional import interpolate

    blobs = torch.rand(1, 3, 50, 84, generator=torch.Generator().manual_seed(1))
    return interpolate(blobs, size=SHAPE, mode="bilinear")[0]


def inference(side: str) -> Callable[[], Any]:
    """Look at one image."""
    import torch

    if side == "torchvision":
        network = torchvisions().eval()
        picture = image()

        def theirs() -> Any:
            with torch.inference_mode():
                return network([picture])[0]["masks"] >= 0.5

        return theirs
    from segwright import Classes
    from segwright.inference.predictor import Predictor
    from segwright.tasks.instance import Instance
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess

    network, _ = ours()
    normalise = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    predictor = Predictor(
        network=network.eval(),
        task=Instance(),
        classes=Classes.of([f"class {k}" for k in range(CLASSES)]),
        preprocess=Preprocess(normalise=normalise),
    )
    picture = image().numpy()
    return lambda: predictor(picture)


def truths() -> list[tuple[Any, Any, Any]]:
    """Boxes (N, 4), class ids from 1 (N,) and masks uint8 (N, H, W) of two images: ellipses that fill their boxes."""
    import torch

    generator = torch.Generator().manual_seed(2)
    found = []
    rows, columns = torch.meshgrid(torch.arange(SHAPE[0]) + 0.5, torch.arange(SHAPE[1]) + 0.5, indexing="ij")
    for _ in range(2):
        size = (30 + 250 * torch.rand(OBJECTS, 2, generator=generator)).round()
        corner = (torch.rand(OBJECTS, 2, generator=generator) * (torch.tensor(SHAPE[::-1]) - size)).floor()
        boxes = torch.cat([corner, corner + size], dim=1)
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, size / 2
        across = (columns - middle[:, 0, None, None]) / half[:, 0, None, None]
        down = (rows - middle[:, 1, None, None]) / half[:, 1, None, None]
        found.append((boxes, torch.randint(1, CLASSES + 1, (OBJECTS,), generator=generator), (across**2 + down**2 < 1).byte()))
    return found


def training(side: str) -> Callable[[], Any]:
    """Take one step on two images."""
    import torch

    if side == "torchvision":
        network = torchvisions().train()
        optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
        targets = [dict(zip(("boxes", "labels", "masks"), each, strict=True)) for each in truths()]
        pictures = [image(), image()]

        def theirs() -> None:
            loss = sum(network(pictures, targets).values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return theirs
    from torch.nn.functional import pad

    from segwright import Segmentation
    from segwright.layers.object_truth import ObjectTruth
    from segwright.optimisers import sgd
    from segwright.plans.plan import Data, Plan, Training
    from segwright.tasks import Batch
    from segwright.tasks.instance import Instance
    from segwright.training.learner import Learner, launch
    from segwright.training.loop import step

    is_half = side == "segwright"
    settings = Training(
        steps=1, batch_size=2, crop=PADDED, precision="bf16-mixed" if is_half else "32-true", channels_last=is_half
    )
    network, config = ours()
    plan = Plan(
        task=Instance(), data=Data(train="images"), model=config, training=settings, optimiser=sgd.Config(learning_rate=1e-4)
    )
    learner = Learner.new(plan, launch(settings))
    learner.network.load_state_dict(network.state_dict())
    objects = [
        ObjectTruth(boxes, labels - 1, torch.from_numpy(Segmentation.instances(masks.bool().numpy(), labels - 1).planes))
        for boxes, labels, masks in truths()
    ]
    picture = pad((image() - 0.45) / 0.22, (0, PADDED[1] - SHAPE[1]))
    batch = Batch(["a", "b"], torch.stack([picture, picture]), objects)
    return lambda: step(learner, [batch], 0, 1.0)


def pasting(side: str) -> Callable[[], Any]:
    """Paste 100 masks."""
    import torch

    generator = torch.Generator().manual_seed(3)
    size = 20 + 300 * torch.rand(100, 2, generator=generator)
    corner = torch.rand(100, 2, generator=generator) * (torch.tensor(SHAPE[::-1]) - size)
    boxes, masks = torch.cat([corner, corner + size], dim=1), torch.rand(100, 28, 28, generator=generator)
    if side == "torchvision":
        from torchvision.models.detection.roi_heads import paste_masks_in_image

        return lambda: paste_masks_in_image(masks[:, None], boxes, SHAPE) >= 0.5
    from segwright import Classes
    from segwright.core import Sample
    from segwright.decoding.detections import decode_detections
    from segwright.decoding.run import Run
    from segwright.layers.detections import Detections
    from segwright.transforms.prepare import Preprocess

    arrays = [each.numpy()[None] for each in (boxes, torch.linspace(1, 0.1, 100), torch.zeros(100).long(), masks, boxes)]
    run = Run(engine=lambda images: tuple(Detections(*arrays)), classes=Classes.of(["object"]), divisors=(1, 1))
    view = Preprocess()(Sample.of("a", image().numpy()))
    return lambda: decode_detections(run, view)


if __name__ == "__main__":
    main()

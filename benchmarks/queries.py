"""Mask2Former on Swin-T beside transformers', with the same weights and the same images of street scenes, on two cores.

    python benchmarks/queries.py --side 512

* inference: from an image float32 in memory to its panoptic segmentation at full size: `segwright.inference.Predictor`, whose
  engine was picked before, against transformers' network and its `post_process_panoptic_segmentation`, with the authors'
  thresholds on both sides. Weights are random, and those of the classes are enlarged until queries are surer than these.
* network: the network alone, in torch on both sides, in float32: what the engine does not explain.
* training: a step of the loop that `segwright fit` runs (`segwright.training.loop.step`), on two images, as planned (bfloat16,
  channels-last) and at equal precision; transformers' in float32, whose masks (N, H, W) are made before. AdamW on both sides.
* attention: multi-scale deformable attention alone, of all pixels at strides 8 to 32 of one image: forward, and forward and
  backward of two images.

Sides take turns in one process. Memory is the peak of a process of its own over what it held once the network was built.
Axes: B batch, E channels, S pixels of the levels, N segments, H, W.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from process_memory import peak_of

THREADS = 2  # the machine that the figures are for
TURNS = 5
SIDE = 512  # pixels of the square images
IMAGES = 2  # of a training step
CLASSES = 133  # as of COCO panoptic
QUERIES, POINTS = 100, 12544  # the authors'
SURE, OVERLAP = 0.8, 0.8  # score of a query and share of its mask left to it, which segments need: the authors'
LOUDER = 60.0  # times the weights of the classes at their start: some queries are then surer than SURE
RATE = 1e-5  # of learning: the weights hardly move, so that each step has as much to do
THEIRS = "transformers"
KINDS = {
    "inference": (THEIRS, "segwright"),
    "network": (THEIRS, "segwright"),
    "training": (THEIRS, "segwright", "segwright equal precision"),
    "attention": (THEIRS, "segwright"),
    "attention-training": (THEIRS, "segwright"),
}
WANTED = 1.5  # times as fast, in each kind


def main() -> None:
    """Print a row for each kind of work and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "kinds", nargs="*", choices=[[], *KINDS], metavar="KIND", help=f"of {', '.join(KINDS)}; all without any"
    )
    parser.add_argument("--side", type=int, default=SIDE, help="pixels, a multiple of 32")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    bench = Bench(arguments.side)
    if arguments.child:
        print(peak_of(bench.prepared(arguments.kinds[0], arguments.child)))
        return
    print(f"The largest difference between logits of the two networks is {bench.difference():.1e}.\n")
    print("| work | side | ms | times as fast | peak MB |\n|---|---|--:|--:|--:|", flush=True)
    for kind in arguments.kinds or KINDS:
        measure(bench, kind, arguments.turns)


def measure(bench: "Bench", kind: str, turns: int) -> None:
    """The rows of one kind of work."""
    sides = {side: bench.prepared(kind, side) for side in KINDS[kind]}
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns + 1):
        for side, work in sides.items():
            start = time.perf_counter()
            work()
            if turn:  # the first one warms up, and picks the engine
                times[side].append(time.perf_counter() - start)
    for side, ours in times.items():
        ratios = [slow / fast for slow, fast in zip(times[THEIRS], ours, strict=True)]
        ratio = "" if side == THEIRS else f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        target = f", wanted {WANTED}" if side == "segwright" else ""
        command = [sys.executable, __file__, kind, "--side", str(bench.side), "--child", side]
        memory = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
        print(f"| {kind} | {side} | {1000 * statistics.median(ours):.0f} | {ratio}{target} | {memory} |", flush=True)


@dataclass(frozen=True)
class Bench:
    """The work of both sides on images of `side` x `side` pixels."""

    side: int

    def prepared(self, kind: str, side: str) -> Callable[[], Any]:
        """The work of a side, ready to be done again and again."""
        import torch

        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else THREADS)
        torch.manual_seed(0)
        if kind.startswith("attention"):
            return self.attention(side, is_training=kind.endswith("training"))
        return {"inference": self.inference, "network": self.network, "training": self.training}[kind](side)

    def difference(self) -> float:
        """How far the logits of both networks are apart at most, beside the largest of theirs."""
        import torch

        image = self.scenes()[0][None]
        with torch.inference_mode():
            theirs, own = transformers_network().eval()(image), segwright_network()[0].eval()(image)
        return max(
            float((a - b).abs().max() / a.abs().max())
            for a, b in ((theirs.class_queries_logits, own.class_logits), (theirs.masks_queries_logits, own.mask_logits))
        )

    @cache  # noqa: B019  # one bench lives as long as the program
    def samples(self) -> list[Any]:
        """Street scenes."""
        from segwright.formats import synthetic

        return [*synthetic.streets(IMAGES, shape=(self.side, self.side))]

    def scenes(self) -> Any:
        """Their images as networks see them, float32 (B, 3, H, W)."""
        import numpy as np
        import torch

        from segwright.transforms.normalise import Normalise

        normalise = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        images = [normalise(sample.image.astype(np.float32) / 255) for sample in self.samples()]
        return torch.from_numpy(np.stack(images).astype(np.float32))

    def inference(self, side: str) -> Callable[[], Any]:
        """Segment one image."""
        import numpy as np
        import torch

        from segwright import Classes
        from segwright.transforms.normalise import Normalise

        picture = self.samples()[0].image.astype(np.float32) / 255
        normalise = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        things = 80  # of COCO's classes; the others are stuff
        if side == THEIRS:
            from transformers import Mask2FormerImageProcessor

            network, processor = transformers_network().eval(), Mask2FormerImageProcessor()
            stuff = {*range(things, CLASSES)}

            def theirs() -> Any:
                with torch.inference_mode():
                    outputs = network(torch.from_numpy(normalise(picture))[None])
                    return processor.post_process_panoptic_segmentation(
                        outputs, SURE, 0.5, OVERLAP, stuff, target_sizes=[picture.shape[1:]]
                    )[0]

            return theirs
        from segwright.inference.predictor import Predictor
        from segwright.tasks.panoptic import Panoptic
        from segwright.transforms.prepare import Preprocess

        predictor = Predictor(
            network=segwright_network()[0].eval(),
            task=Panoptic(),
            classes=Classes.of([f"class {k}" for k in range(CLASSES)], is_thing=[k < things for k in range(CLASSES)]),
            preprocess=Preprocess(normalise=normalise),
        )
        return lambda: predictor(picture)

    def network(self, side: str) -> Callable[[], Any]:
        """Run the network alone on one image."""
        import torch

        network = (transformers_network() if side == THEIRS else segwright_network()[0]).eval()
        image = self.scenes()[:1]

        def work() -> Any:
            with torch.inference_mode():
                return network(image)

        return work

    def training(self, side: str) -> Callable[[], Any]:
        """Take one step on two images."""
        import torch

        from segwright.tasks.panoptic import Panoptic

        truths = [Panoptic().target(sample) for sample in self.samples()]
        if side == THEIRS:
            network = transformers_network().train()
            optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
            numbers = [torch.arange(1, len(truth.class_ids) + 1) for truth in truths]
            masks = [
                (torch.from_numpy(truth.planes)[0] == count[:, None, None]).float()
                for truth, count in zip(truths, numbers, strict=True)
            ]
            classes, pictures = [torch.from_numpy(truth.class_ids) for truth in truths], self.scenes()

            def theirs() -> None:
                loss = network(pictures, mask_labels=masks, class_labels=classes).loss
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

            return theirs
        from segwright.optimisers import adamw
        from segwright.plans.plan import Data, Plan, Training
        from segwright.training.learner import Learner, launch
        from segwright.training.loop import step

        is_half = side == "segwright"
        settings = Training(
            steps=1,
            batch_size=IMAGES,
            crop=(self.side,) * 2,
            precision="bf16-mixed" if is_half else "32-true",
            channels_last=is_half,
        )
        network, config = segwright_network()
        plan = Plan(
            task=Panoptic(),
            data=Data(train="images"),
            model=config,
            training=settings,
            optimiser=adamw.Config(learning_rate=RATE),
        )
        learner = Learner.new(plan, launch(settings))
        learner.network.load_state_dict(network.state_dict())
        crops = [(sample.key, image.numpy(), t) for sample, image, t in zip(self.samples(), self.scenes(), truths, strict=True)]
        batch = Panoptic().collate(crops)
        return lambda: step(learner, [batch], 0, 1.0)

    def attention(self, side: str, *, is_training: bool) -> Callable[[], Any]:
        """Let all pixels of three levels look at each other, once."""
        import torch

        sides = [(self.side // stride,) * 2 for stride in (32, 16, 8)]
        count = sum(height * width for height, width in sides)
        generator = torch.Generator().manual_seed(1)
        images = IMAGES if is_training else 1
        value, place = (torch.randn(images, count, 256, generator=generator) for _ in range(2))
        if side == THEIRS:
            decoder = transformers_network().model.pixel_level_module.decoder.encoder
            layer = decoder.layers[0].self_attn
            shares = decoder.get_reference_points(sides, torch.ones(images, len(sides), 2), value.device)

            def attend() -> Any:
                options = {"reference_points": shares, "spatial_shapes_list": sides}
                return layer(value, encoder_hidden_states=value, position_embeddings=place, **options)[0]
        else:
            from segwright.layers.deformable_attention import pixel_centres

            layer = segwright_network()[0].pixels.layers[0].attention
            centres = pixel_centres(sides, value)

            def attend() -> Any:
                return layer(value + place, value, sides, centres)

        if not is_training:
            return torch.inference_mode()(attend)
        value.requires_grad_()

        def learn() -> None:
            layer.zero_grad()
            value.grad = None
            attend().square().mean().backward()

        return learn


def transformers_network() -> Any:
    """transformers' Mask2Former on Swin-T, whose classes are louder than at a start."""
    import torch
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    names = [f"stage{number}" for number in (1, 2, 3, 4)]
    body = SwinConfig(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], drop_path_rate=0.0, out_features=names)
    config = Mask2FormerConfig(backbone_config=body, num_labels=CLASSES, num_queries=QUERIES, train_num_points=POINTS)
    network = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        network.class_predictor.weight.mul_(LOUDER)
    return network


def segwright_network() -> tuple[Any, Any]:
    """Our network with the weights of transformers', and its config."""
    from safetensors.torch import load_file

    from segwright.models import preset
    from segwright.models.mask2former import rename

    config = preset("mask2former_swin_tiny")
    config = replace(
        config, num_classes=CLASSES, num_queries=QUERIES, points=POINTS, encoder=replace(config.encoder, drop_path=0.0)
    )
    network = config.build()
    with tempfile.TemporaryDirectory() as folder:  # files have the hub's names, which the network itself has no more
        transformers_network().save_pretrained(folder)
        network.load_state_dict(rename(load_file(Path(folder) / "model.safetensors")))
    return network, config


if __name__ == "__main__":
    main()

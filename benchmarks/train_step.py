"""A step of training, from a batch in memory to the new weights: Segwright's own loop against three libraries, on two cores.

    python benchmarks/train_step.py

Both sides train the same network on the same batch of noise with the same loss and AdamW, in turns within one process:
reference, ours by default, ours at equal precision, and so on, so that whatever else the machine does meets all of them.

* defaults: what `segwright fit` runs, by its own `step`: bfloat16 autocast (with channels-last) and fused AdamW. Clipping of
  gradients and the moving average of the weights, which the reference does without, are in its time.
* equal precision: the same step in float32 with channels as they come.
* reference: float32, as the library's own example trains it, with AdamW as torch gives it without further words.

Memory is the peak of a process of its own over what it held before the network was built; on a GPU, what torch held at most.
On a GPU the steps run there, TF32 as torch has it by default on both sides, and the times wait for it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from process_memory import STATUS, resident

THREADS = 2  # the machine that the figures are for
TURNS = 7  # each takes all sides once, after one turn that does not count
MEMORY_STEPS = 2  # the moments of the optimiser come with the first
SIDES = ("reference", "defaults", "equal precision")
LEARNING_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network by our name, its batch, and how many times faster than the reference the defaults shall be."""

    preset: str
    library: str
    batch: int
    side: int  # pixels
    classes: int
    target: float


CASES = {
    "unet": Case(preset="unet_resnet34", library="segmentation_models.pytorch", batch=4, side=256, classes=21, target=1.8),
    "deeplab": Case(preset="deeplab_v3_resnet50", library="torchvision", batch=2, side=256, classes=21, target=1.9),
    "segformer": Case(preset="segformer_b0", library="transformers", batch=2, side=512, classes=19, target=1.7),
    # 150 classes: most of the time goes into logits of the size of the image
    "segformer_ade": Case(preset="segformer_b0", library="transformers", batch=1, side=512, classes=150, target=1.7),
}


def main() -> None:
    """Print a row for each network and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", choices=[[], *CASES], metavar="NETWORK", help=f"of {', '.join(CASES)}; all without any"
    )
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU where there is one, else the CPU")
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)  # how this script calls itself
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    import torch

    torch.set_num_threads(arguments.threads)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    chosen = arguments.cases or list(CASES)
    if arguments.memory_of:
        print(peak_mb(CASES[chosen[0]], arguments.memory_of, device))
        return
    print("| network | against | batch | side | s a step | images/s | MB | ratio, median (min to max) | target |", flush=True)
    print("|---|---|---|---|--:|--:|--:|--:|--:|", flush=True)
    for name in chosen:
        compare(name, arguments.turns, device)


def compare(name: str, turns: int, device: str) -> None:
    """The rows of one network."""
    case = CASES[name]
    steps = {side: prepared(case, side, device) for side in SIDES}
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(turns + 1):
        for side, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                times[side].append(time.perf_counter() - start)
    del steps
    for side, taken in times.items():
        seconds = statistics.median(taken)
        ratios = [slow / fast for slow, fast in zip(times["reference"], taken, strict=True)]
        told, target = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", case.target
        told, wanted = ("", "") if side == "reference" else (told, f"{target if side == 'defaults' else 1.0:.1f}")
        print(
            f"| {case.preset} | {case.library} | {case.batch} x {case.side} x {case.side}, {case.classes} classes | {side} "
            f"| {seconds:.3f} | {case.batch / seconds:.2f} | {measured_mb(name, side, device)} | {told} | {wanted} |",
            flush=True,
        )


def prepared(case: Case, side: str, device: str) -> Callable[[], None]:
    """One full step of a side, which returns when its weights are new."""
    import torch

    torch.manual_seed(0)
    image = torch.randn(case.batch, 3, case.side, case.side)
    target = torch.randint(case.classes, (case.batch, case.side, case.side))
    step = theirs(case, image, target, device) if side == "reference" else ours(case, image, target, device, side)

    def finished() -> None:
        step()
        if device == "cuda":
            torch.cuda.synchronize()

    return finished


def ours(case: Case, image: Any, target: Any, device: str, side: str) -> Callable[[], Any]:
    """The step of Segwright's loop, with the loss of the reference."""
    from segwright.losses.cross_entropy import CrossEntropy
    from segwright.models import preset
    from segwright.optimisers import adamw
    from segwright.plans.plan import Data, Plan, Training
    from segwright.tasks import Batch
    from segwright.tasks.semantic import Semantic
    from segwright.training.learner import Learner, launch
    from segwright.training.loop import step

    is_default = side == "defaults"
    plan = Plan(
        task=Semantic(criterion=CrossEntropy()),
        data=Data(train="noise"),
        model=replace(preset(case.preset), num_classes=case.classes),
        optimiser=adamw.Config(learning_rate=LEARNING_RATE),
        training=Training(
            steps=1000,  # as long a run as many: it sets how far the moving average looks back, and nothing else here
            batch_size=case.batch,
            crop=tuple(image.shape[2:]),
            device=device,
            precision="bf16-mixed" if is_default else "32-true",
            channels_last=is_default,
        ),
    )
    learner = Learner.new(plan, launch(plan.training))
    batch = Batch([str(number) for number in range(case.batch)], image, target)
    return lambda: step(learner, [batch], 0, 1.0)


def theirs(case: Case, image: Any, target: Any, device: str) -> Callable[[], None]:
    """The step as the documentation of the library writes it."""
    import torch

    network = reference(case).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        loss = reference_loss(case.library, network, image.to(device), target.to(device))
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def reference(case: Case) -> Any:
    """The network of the library, its weights random."""
    if case.library == "transformers":
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        return SegformerForSemanticSegmentation(SegformerConfig(num_labels=case.classes))
    if case.library == "torchvision":
        from torchvision.models.segmentation import deeplabv3_resnet50

        return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=case.classes, aux_loss=True)
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet34", encoder_weights=None, classes=case.classes)


def reference_loss(library: str, network: Any, image: Any, target: Any) -> Any:
    """Cross-entropy, as each library's users or references compute it."""
    from torch.nn.functional import cross_entropy

    if library == "transformers":  # upsamples its logits and takes the loss itself
        return network(pixel_values=image, labels=target).loss
    if library == "torchvision":
        found = network(image)
        return cross_entropy(found["out"], target) + 0.5 * cross_entropy(found["aux"], target)  # 0.5: references/segmentation
    return cross_entropy(network(image), target)


def measured_mb(name: str, side: str, device: str) -> str:
    """The peak of a fresh process, in MB; "-" where the system does not tell."""
    command = [sys.executable, __file__, name, "--memory-of", side, "--device", device]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]


def peak_mb(case: Case, side: str, device: str) -> str:
    """What some steps took at most over what the process held before."""
    import torch

    if device == "cpu" and not STATUS.exists():
        return "-"
    for warm in (side, "reference"):  # importing what the side needs is no matter of training
        prepared(replace(case, batch=2, side=64), warm, "cpu")
    before = 0 if device == "cuda" else resident("VmRSS")
    step = prepared(case, side, device)
    for _ in range(MEMORY_STEPS):
        step()
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resident("VmHWM")
    return f"{peak - before:.0f}"


if __name__ == "__main__":
    main()

"""Logits to labels: the fused kernel against interpolation and argmax of PyTorch, interleaved, on two cores.

    python benchmarks/labels.py

Smooth logits look like a network's: objects of about 16 logits, a little noise; noise is the worst case for the kernel.
Axes: K classes, h, w of the logits, H, W of the labels.
"""

import os
import time

THREADS = 2  # the machine that the figures are for
REPEATS = 7
OBJECT = 16  # logits between independent values of the smooth logits
CASES = [  # classes, logits, labels
    (19, (256, 512), (1024, 2048)),  # Cityscapes at stride 4
    (150, (128, 128), (512, 512)),  # ADE20K at stride 4
    (19, (512, 512), (512, 512)),  # a U-Net's, at full size already
    (3, (64, 64, 64), (128, 128, 128)),  # a volume
]


def main() -> None:
    """Print a row per case; agreement is counted against PyTorch in float32, whose ties fall otherwise here and there."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    import numpy as np
    import torch
    import torch.nn.functional as F

    from segwright.decoding.upsample_argmax import upsample_argmax

    torch.set_num_threads(THREADS)
    print("| logits | labels | content | fused ms | PyTorch ms | ratio, median (min to max) | agreement |")
    print("|---|---|---|--:|--:|--:|--:|")
    generator = torch.Generator().manual_seed(0)
    for classes, size, shape in CASES:
        mode = "bilinear" if len(size) == 2 else "trilinear"
        noise = torch.randn(1, classes, *size, generator=generator)
        coarse = torch.randn(1, classes, *(side // OBJECT for side in size), generator=generator)
        smooth = 3 * F.interpolate(coarse, size=size, mode=mode) + 0.02 * noise
        for content, logits in (("smooth", smooth), ("noise", noise)):
            values, ours, theirs = logits[0].numpy(), [], []
            upsample_argmax(values, shape)  # the kernel is compiled
            for _ in range(REPEATS):
                start = time.perf_counter()
                found = upsample_argmax(values, shape)
                ours.append(time.perf_counter() - start)
                start = time.perf_counter()
                with torch.inference_mode():
                    wanted = F.interpolate(logits, size=shape, mode=mode, align_corners=False).argmax(dim=1)[0]
                theirs.append(time.perf_counter() - start)
            ratio = np.array(theirs) / np.array(ours)
            print(
                f"| {classes} x {' x '.join(map(str, size))} | {' x '.join(map(str, shape))} | {content} "
                f"| {1000 * np.median(ours):.1f} | {1000 * np.median(theirs):.0f} "
                f"| {np.median(ratio):.0f} ({ratio.min():.0f} to {ratio.max():.0f}) "
                f"| {100 * (found == wanted.numpy()).mean():.4f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()

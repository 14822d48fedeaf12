"""Masks onto the pixels of an image: ours against torchvision's, interleaved, on one thread.

    python benchmarks/paste.py

Both get the same boxes and masks of 28 x 28 probabilities. Ours draws them into planes, as a segmentation holds them;
torchvision gives an array of probabilities for each object, which still have to be compared with a half; both do that here.
Times are those of the processor, which other programs on it do not prolong.
Axes: N objects, H, W sides of the image.
"""

import argparse
import os
import time

REPEATS = 7
SHAPE = (800, 1333)  # to which Mask R-CNN's images are resized
MASK = 28
CASES = [(100, 20, 400), (100, 20, 100)]  # objects, and the least and the longest side of their boxes


def main() -> None:
    """Print a row per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    repeats = parser.parse_args().repeats
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    import numpy as np
    import torch
    import torch.nn.functional as F
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from segwright.decoding.paste import on_whole_pixels, paste_masks

    torch.set_num_threads(1)
    print("| objects | sides of boxes | planes | ours ms | torchvision ms | ratio, median (min to max) | equal pixels |")
    print("|--:|---|--:|--:|--:|--:|--:|")
    random = np.random.default_rng(0)
    for count, least, most in CASES:
        sides = np.exp(random.uniform(np.log(least), np.log(most), (count, 2)))
        low = random.uniform(0, np.array(SHAPE[::-1]) - 5, (count, 2))
        boxes = np.concatenate([low, np.minimum(low + sides, SHAPE[::-1])], axis=1).astype(np.float32)
        coarse = torch.from_numpy(random.standard_normal((1, count, 5, 5), np.float32))
        masks = F.interpolate(3 * coarse + 1, size=(MASK, MASK), mode="bicubic").sigmoid()[0]
        ours, theirs = [], []
        for turn in range(repeats + 1):  # the first warms up
            start = time.process_time()
            wide, regions = on_whole_pixels(boxes, MASK)
            planes = paste_masks(wide, masks.numpy(), regions, np.zeros(count, bool), SHAPE).planes(SHAPE)
            middle = time.process_time()
            pasted = paste_masks_in_image(masks[:, None], torch.from_numpy(boxes), SHAPE)[:, 0] >= 0.5
            if turn:
                ours.append(middle - start)
                theirs.append(time.process_time() - middle)
        found = torch.from_numpy(planes)
        equal = [float(((found == n + 1).any(dim=0) == mask).double().mean()) for n, mask in enumerate(pasted[:100])]
        ratio = np.array(theirs) / np.array(ours)
        print(
            f"| {count} | {least} to {most} | {len(planes)} | {1000 * np.median(ours):.1f} | {1000 * np.median(theirs):.0f} "
            f"| {np.median(ratio):.0f} ({ratio.min():.0f} to {ratio.max():.0f}) | {100 * np.mean(equal):.4f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()

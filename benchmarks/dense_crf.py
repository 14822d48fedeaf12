"""A dense CRF over class probabilities: Segwright's and pydensecrf's (pydensecrf2), the same image, kernels and iterations.

    python benchmarks/dense_crf.py

Both sides take turns on one image of 500 x 375 with 21 classes, from probabilities to labels, on two threads (pydensecrf knows
one). The image is a drawn street, or the photograph of --image FILE; the probabilities are patches with much noise. Then
Segwright alone takes 4 megapixels, in a process of its own, whose peak memory is told. Processor seconds stand beside those of
the clock: where others use the machine, both sides wait.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

THREADS = 2  # the machine that the figures are for
HEIGHT, WIDTH, CLASSES = 375, 500, 21
LARGE = (2000, 2000)
TURNS = 7
KERNELS = {"gaussian_sxy": 3, "gaussian_compat": 3, "bilateral_sxy": 80, "bilateral_srgb": 13, "bilateral_compat": 10}


def main() -> None:
    """Print what each side takes, and how far they agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path)
    parser.add_argument("--large", action="store_true", help="the run at 4 megapixels alone, as the benchmark calls itself")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), str(THREADS))
    if arguments.large:
        large(arguments.image)
        return
    compare(arguments.image)
    command = [sys.executable, __file__, "--large", *(["--image", str(arguments.image)] if arguments.image else [])]
    subprocess.run(command, check=True)


def compare(file: Path | None) -> None:
    """Both sides in turns."""
    import numpy as np

    from segwright.inference.dense_crf import DenseCRF

    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        print("pydensecrf is not installed, so that there is nothing to compare with: pip install pydensecrf2")
        return
    image, probs = scene(file, HEIGHT, WIDTH)
    print("| iterations | segwright s | pydensecrf s | ratio, median (min to max) | processor s | agreement |")
    print("|--:|--:|--:|--:|--:|--:|")
    for iterations in (5, 10):
        crf = DenseCRF(iterations=iterations, **KERNELS)
        crf(image, probs)  # compiles what is not compiled yet
        times = []
        for _ in range(TURNS):
            seconds, mine = timed(lambda: crf(image, probs))  # noqa: B023
            reference, theirs = timed(lambda: pydensecrf_labels(image, probs, iterations))  # noqa: B023
            times.append((seconds[0], reference[0], reference[0] / seconds[0], seconds[1], reference[1]))
        ours, other, ratio, our_cpu, their_cpu = np.median(times, axis=0)
        ratios = [each[2] for each in times]
        agreement = np.mean(mine.argmax(axis=0) == theirs)
        print(
            f"| {iterations} | {ours:.2f} | {other:.2f} | {ratio:.1f} ({min(ratios):.1f} to {max(ratios):.1f}) | "
            f"{our_cpu:.2f} and {their_cpu:.2f} | {100 * agreement:.2f} % |",
            flush=True,
        )


def large(file: Path | None) -> None:
    """Segwright alone on a large image."""
    import psutil

    from segwright.inference.dense_crf import DenseCRF

    DenseCRF(iterations=1)(*scene(None, 80, 80))  # compiles
    image, probs = scene(file, *LARGE)
    before = psutil.Process().memory_info().rss
    seconds, _ = timed(lambda: DenseCRF(**KERNELS)(image, probs))
    status = Path("/proc/self/status")  # of Linux
    most = 1024 * int(status.read_text().split("VmHWM:")[1].split()[0]) if status.exists() else 0
    peak = f"{(most - before) / 2**30:.1f} GB" if most else "what this system does not tell"
    print(
        f"{LARGE[0]} x {LARGE[1]} with {CLASSES} classes, 10 iterations: {seconds[0]:.1f} s ({seconds[1]:.1f} processor s), "
        f"and {peak} on top of the image and the probabilities"
    )


def timed(run: Any) -> tuple[tuple[float, float], Any]:
    """Seconds, and processor seconds of all threads, that a call took, and its result."""
    start, begun = time.perf_counter(), time.process_time()
    result = run()
    return (time.perf_counter() - start, time.process_time() - begun), result


def scene(file: Path | None, height: int, width: int) -> tuple[Any, Any]:
    """An image (3, H, W) and probabilities (CLASSES, H, W) that follow its colours by patches, with much noise."""
    import numpy as np

    from segwright.codecs.image_file import read_image
    from segwright.core import Sample
    from segwright.formats import synthetic
    from segwright.transforms.resize import resize

    if file is None:
        sample = next(iter(synthetic.streets(1, shape=(height, width), seed=0)))
    else:
        sample = resize(Sample.of("image", np.moveaxis(read_image(file)[..., :3], -1, 0)), (height, width))
    image = np.clip(np.asarray(sample.image, np.float32), 0, 255).astype(np.uint8)
    generator = np.random.default_rng(0)
    classes = generator.integers(0, CLASSES, (-(-height // 32), -(-width // 32)))
    patches = np.kron(classes, np.ones((32, 32), np.int64))[:height, :width]
    logits = generator.standard_normal((CLASSES, height, width), dtype=np.float32)
    np.put_along_axis(logits, patches[None], np.take_along_axis(logits, patches[None], axis=0) + 3, axis=0)
    probs = np.exp(logits, out=logits)
    probs /= probs.sum(axis=0)
    return np.ascontiguousarray(image), probs


def pydensecrf_labels(image: Any, probs: Any, iterations: int) -> Any:
    """What users of pydensecrf write."""
    import numpy as np
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_softmax

    classes, height, width = probs.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(unary_from_softmax(probs))
    crf.addPairwiseGaussian(sxy=KERNELS["gaussian_sxy"], compat=KERNELS["gaussian_compat"])
    crf.addPairwiseBilateral(
        sxy=KERNELS["bilateral_sxy"],
        srgb=KERNELS["bilateral_srgb"],
        rgbim=np.ascontiguousarray(np.moveaxis(image, 0, -1)),
        compat=KERNELS["bilateral_compat"],
    )
    return np.argmax(crf.inference(iterations), axis=0).reshape(height, width)


if __name__ == "__main__":
    main()

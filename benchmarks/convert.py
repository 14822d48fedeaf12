"""Memory and speed of `segwright convert` from COCO to COCO panoptic, at 250, 500 and 1000 images.

    python benchmarks/convert.py

Each conversion is a process of its own; its peak memory is what the system counts (VmHWM). Flat means that four times the
images take the same memory.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from segwright.core import Classes, Sample, Segmentation
from segwright.formats import coco

COUNTS = (250, 500, 1000)
SHAPE, OBJECTS = (240, 320), 10
CLASSES = Classes.of([f"class_{k}" for k in range(80)], is_thing=[True] * 80)
CHILD = """
import sys
from segwright.conversion import convert
report = convert(sys.argv[1], sys.argv[2], "coco_panoptic")
assert report.count == int(sys.argv[3])
print(open("/proc/self/status").read())
"""


def samples(count: int) -> Iterator[Sample]:
    """Images with ten smooth objects each, apart from each other."""
    for index in range(count):
        generator = np.random.default_rng(index)
        noise = np.stack([gaussian_filter(generator.standard_normal(SHAPE), 12) for _ in range(OBJECTS)])
        winner = noise.argmax(axis=0)
        masks = np.stack([(winner == number) & (noise[number] > 0.01) for number in range(OBJECTS)])
        image = np.repeat(np.uint8(127 + 1000 * noise[:3]), 1, axis=0)
        yield Sample.of(
            f"{index:06d}", image, Segmentation.instances(masks, generator.integers(0, 80, OBJECTS), classes=CLASSES)
        )


def main() -> None:
    """Print a row per size."""
    with tempfile.TemporaryDirectory() as folder:
        coco.write(Path(folder) / "all", samples(max(COUNTS)))
        print(f"{'images':>6}  {'seconds':>7}  {'images/s':>8}  {'peak MB':>7}  annotations MB")
        for count in COUNTS:
            source = Path(folder) / f"coco-{count}"
            coco.write(source, coco.read(Path(folder) / "all").subset(coco.read(Path(folder) / "all").keys[:count]))
            size = sum(path.stat().st_size for path in source.rglob("*.json")) / 1e6
            started = time.perf_counter()
            command = [sys.executable, "-c", CHILD, source, Path(folder) / f"panoptic-{count}", str(count)]
            status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds = time.perf_counter() - started
            peak = int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) / 1e3
            print(f"{count:6d}  {seconds:7.1f}  {count / seconds:8.1f}  {peak:7.0f}  {size:.1f}")


if __name__ == "__main__":
    main()

"""A crop from a volume that memory does not hold: decoded anew for each crop, and read from the store on disk.

    python benchmarks/store.py                         # a volume of 256 x 512 x 512, crops of 64 x 128 x 128
    python benchmarks/store.py --shape 128 256 256     # a smaller one

The volume is a made-up CT, int16 in a .nii.gz with labels of three classes, resampled to 0.8 of its slices' sides; crops are
turned, scaled and mirrored, and half of them lie on foreground. Each side runs in a process of its own. "first" is the first
crop, which fills the store; "each" is the median of those that follow. Seconds are of the processor, and by the clock behind
them. MiB is the most that the process holds beyond what it held before, at the first crop and at those that follow.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from process_memory import forget_peak, resident

CROP = (64, 128, 128)
SIDES = {"anew": 2, "disk": 9}  # crops of each


def write(folder: Path, shape: tuple[int, ...]) -> None:
    """A volume of soft shapes under noise, air beside them, and its labels."""
    from scipy.ndimage import zoom

    from segwright.codecs.volume_file import write_volume
    from segwright.core import Grid

    generator = np.random.default_rng(0)
    coarse = zoom(generator.normal(size=(8, 8, 8)).astype(np.float32), [side / 32 for side in shape], order=1)
    coarse = coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    noise = generator.integers(-40, 40, shape, np.int8)
    values = np.where(coarse > -0.5, 400 * coarse + noise, -1000).astype(np.int16)
    grid = Grid(shape, (1.0, 0.8, 0.8))
    write_volume(folder / "image.nii.gz", values[None], grid)
    write_volume(folder / "mask.nii.gz", np.digitize(coarse, [0.5, 1.5]).astype(np.uint8)[None], grid)


def crops_of(folder: Path, side: str):  # noqa: ANN201
    """A function that makes the next crop of the volume, under a memory that holds nothing."""
    from segwright.codecs.volume_file import read_volume
    from segwright.core import Classes, Dataset, Sample, Segmentation
    from segwright.data import store
    from segwright.data.disk_samples import DiskSamples
    from segwright.data.samplers.foreground_patches import ForegroundPatches
    from segwright.transforms.geometric import Geometric
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess

    classes = Classes.of(["background", "organ", "tumour"])

    def load(key: str) -> Sample:
        values, grid = read_volume(folder / "image.nii.gz")
        labels, _ = read_volume(folder / "mask.nii.gz")
        return Sample(key, values, grid, Segmentation.semantic(labels[0], classes))

    store.CACHE_BYTES = 0
    preprocess = Preprocess(channels=1, spacing_mm=(1.0, 1.0, 1.0), normalise=Normalise(mean=(0.0,), std=(300.0,)))
    disk = DiskSamples(CROP, folder / "samples") if side == "disk" else None
    kept = store.Store(Dataset("memory", classes, ("a",), load), preprocess, disk)
    geometric, sampler = Geometric(scale=(0.7, 1.4), rotate_deg=30.0), ForegroundPatches(share=0.5)

    def crop(seed: int) -> np.ndarray:
        generator, item = np.random.default_rng(seed), kept.read("a")
        return item.crop(geometric, CROP, generator, lambda draws: sampler.pixel(item, None, draws)).image

    return crop


def measure_side(folder: Path, side: str) -> dict[str, float]:
    """Seconds and MiB of the first crop, and of those that follow, with their sum, which tells whether both sides see alike."""
    warm = folder / "warm"
    if not warm.is_dir():
        warm.mkdir()
        write(warm, (40, 40, 40))
    crops_of(warm, side)(0)  # libraries and kernels are there
    crop, found, before = crops_of(folder, side), {}, resident("VmRSS")
    for name, seeds in (("first", range(1)), ("each", range(1, SIDES[side]))):
        forget_peak()
        seconds = []
        for seed in seeds:
            started = time.process_time(), time.perf_counter()
            values = crop(seed)
            seconds.append((time.process_time() - started[0], time.perf_counter() - started[1]))
            found[f"sum {seed}"] = float(values.sum(dtype=np.float64))
        found[f"{name} s"], found[f"{name} clock s"] = np.median(seconds, axis=0).tolist()
        found[f"{name} MiB"] = resident("VmHWM") - before
    if side == "disk":
        files = [file.stat().st_size for file in (folder / "samples").rglob("*") if file.is_file()]
        found["disk MiB"] = sum(files) / 2**20
    return found


def main() -> None:
    """Both sides, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 512, 512], help="multiples of 4")
    parser.add_argument("--folder", type=Path, help="where the volume lies, or will; else a temporary folder")
    parser.add_argument("--side", choices=SIDES, help="measure this side alone, in this process")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure_side(options.folder, options.side)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "image.nii.gz").exists():
            write(folder, tuple(options.shape))
        shutil.rmtree(folder / "samples", ignore_errors=True)  # of an earlier call
        print("| side | first s | by the clock | MiB | each s | by the clock | MiB | on disk MiB |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|")
        results = []
        for side in SIDES:
            command = [sys.executable, __file__, "--folder", str(folder), "--side", side]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            results.append({name: value for name, value in found.items() if name.startswith("sum")})
            cells = [f"{found[f'{name} {unit}']:.3g}" for name in ("first", "each") for unit in ("s", "clock s", "MiB")]
            print(f"| {side} | {' | '.join(cells)} | {found.get('disk MiB', 0):.0f} |", flush=True)
        common = results[0].keys() & results[1].keys()
        print(f"crops alike: {all(results[0][name] == results[1][name] for name in common)} ({len(common)} compared)")


if __name__ == "__main__":
    main()

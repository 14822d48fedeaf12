"""What `segwright predict` says that it will take, against what it takes: three networks, on an image and on a volume.

    python benchmarks/prediction_memory.py                                 # in minutes
    python benchmarks/prediction_memory.py --side 8192 --volume-side 512   # as large as those that are told to people

Each case runs in a process of its own, with PyTorch in float32 and random weights, in tiles, as large images are predicted: a
small image first, so that libraries and kernels are there, then the one that counts. "told" is what is logged before its first
tile, "peak" the most that the process held (Linux's VmHWM), both in MiB; "beyond" compares what they have beyond the memory
before. K classes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from process_memory import forget_peak, resident

MIB = 2**20
CLASSES = 12
NETWORKS = ("unet", "wide unet", "nnunet")


def network_of(name: str, axes: int):  # noqa: ANN201
    """One of the networks for grey images of so many axes."""
    import torch

    from segwright.models import nnunet, unet

    torch.manual_seed(0)
    if name == "nnunet":
        step = (2,) * axes
        config = nnunet.Config(axes=axes, features=(16, 32, 64, 128), strides=(step,) * 3, in_channels=1, num_classes=CLASSES)
        return config.build().eval()
    width = 8 if name == "unet" else 24
    return unet.Config(axes=axes, in_channels=1, num_classes=CLASSES, width=width, depth=4).build().eval()


def predictor_of(name: str, axes: int, tile: int):  # noqa: ANN201
    """A predictor that sees grey images in tiles."""
    from segwright.core import Classes
    from segwright.inference.engine import TorchEngine
    from segwright.inference.predictor import Predictor
    from segwright.tasks.semantic import Semantic
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess

    network = network_of(name, axes)
    return Predictor(
        network=network,
        engine=TorchEngine(network, "cpu"),
        task=Semantic(),
        classes=Classes.of([f"class {k}" for k in range(CLASSES)]),
        preprocess=Preprocess(channels=1, normalise=Normalise(mean=(100.0,), std=(50.0,))),
        tile=(tile,) * axes,
    )


def write(path: Path, shape: tuple[int, ...]) -> None:
    """An image or a volume of noise."""
    import tifffile

    from segwright.codecs.volume_file import write_volume
    from segwright.core import Grid

    values = np.random.default_rng(0).integers(0, 200, shape, np.uint8)
    if len(shape) == 2:
        tifffile.imwrite(path, values, photometric="minisblack", tile=(256, 256), metadata=None)
    else:
        write_volume(path, values[None], Grid(shape, (1.0,) * 3))


def measured(name: str, axes: int, side: int, tile: int) -> dict[str, float]:
    """What was told, what was there before, and the peak, in MiB."""
    from segwright.inference import large_image
    from segwright.inference.predict_files import predict

    told: list[int] = []
    large_image.LARGE, expected = 0, large_image.expected_bytes
    large_image.expected_bytes = lambda *given, **more: told.append(expected(*given, **more)) or told[-1]
    predictor, suffix = predictor_of(name, axes, tile), ".tif" if axes == 2 else ".nii"
    with tempfile.TemporaryDirectory() as folder:
        small, large = (Path(folder) / f"{each}{suffix}" for each in ("small", "large"))
        write(small, (tile + 16,) * axes)
        write(large, (side,) * axes)
        predict(predictor, small, Path(folder) / "out")
        forget_peak()
        before = resident("VmRSS")
        predict(predictor, large, Path(folder) / "out")
    return {"told": told[-1] / MIB, "before": before, "peak": resident("VmHWM")}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="pixels of a side of the image")
    parser.add_argument("--volume-side", type=int, default=96, help="voxels of a side of the volume")
    parser.add_argument("--one", nargs=4, metavar=("NETWORK", "AXES", "SIDE", "TILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, *numbers = given.one
        print(json.dumps(measured(name, *map(int, numbers))))
        return
    print("| network | of | told MiB | peak MiB | told / peak | before MiB | beyond: told / peak |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for name in NETWORKS:
        for axes, side, tile in ((2, given.side, min(512, given.side // 2)), (3, given.volume_side, given.volume_side // 2)):
            case = ["--one", name, str(axes), str(side), str(tile)]
            found = subprocess.run([sys.executable, __file__, *case], check=True, capture_output=True, text=True)
            row = json.loads(found.stdout.splitlines()[-1])
            told, peak, before = row["told"], row["peak"], row["before"]
            what = f"{side}²" if axes == 2 else f"{side}³"
            share, beyond = told / peak, (told - before) / (peak - before)
            print(f"| {name} | {what} | {told:.0f} | {peak:.0f} | {share:.2f} | {before:.0f} | {beyond:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Volumes and images larger than what a network sees at once: time and memory of tiles, their blending and the labels.

    python benchmarks/sliding_window.py            # a volume of 160 x 192 x 160, windows of 64, against MONAI and nnU-Net
    python benchmarks/sliding_window.py --large    # a CT of 512 x 512 x 900 and an image of 60 000 x 60 000 in 3 GiB

The first compares what goes from an image to labels of 15 classes in windows that overlap by half, weighed by a Gaussian, with
the same network on plain PyTorch in float32 on all sides: MONAI's `sliding_window_inference` and the argmax of what it returns,
nnU-Net's `predict_sliding_window_return_logits` and `convert_logits_to_segmentation` of its LabelManager, and ours. One row
has our usual overlap, a quarter of a window. "engine picked" is the network run by what `predict` picks for it, of all engines
whose labels agree with PyTorch's on 99.9 %. "none" is no network, but the same logits for each window: what all else costs.
Each row runs in a process of its own; a first turn does not count, and of the others the fastest does, by the clock and in
seconds of the processor. MiB is the most that the process then holds beyond what it held before these turns, image and network
included there, so that it is what a run takes in a process that has run before. MONAI and nnU-Net (pip install monai nnunetv2)
are left out where they are not installed.

The second goes from file to file through `segwright.predict`, in a process that may take 3 GiB of memory (RLIMIT_DATA, which is
ulimit -d: with ulimit -v, the libraries that PyTorch maps would count, 2.5 GiB that take no memory), libraries included. The
network is a convolution of one pixel, which sees nothing beyond, so that its labels of the untiled image are known: they are
found slab by slab, and where ours differ, the logits of both classes have to lie within 1e-4. Axes: C channels, K classes, *S.
"""

import argparse
import ctypes
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from process_memory import forget_peak, resident

SHAPE, WINDOW, CLASSES = (160, 192, 160), 64, 15
NETWORKS = ("none", "light", "heavy")
MODULES = {"MONAI": "monai", "nnU-Net": "nnunetv2"}
TOOLS = ("MONAI", "nnU-Net", "Segwright", "Segwright, engine picked", "Segwright, a quarter")
MIB, GIB = 2**20, 2**30
CLOSE = 1e-4  # of the logits of two classes between which an answer may differ
SLAB = 2**24  # pixels whose untiled labels are found at once


def network_of(name: str):  # noqa: ANN201
    """A network from images (B, 1, *S) to logits (B, 15, *S)."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if name == "light":  # a few convolutions
        return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, CLASSES, 1)).eval()
    if name == "heavy":
        from segwright.models.unet import Config

        return Config(axes=3, in_channels=1, num_classes=CLASSES, depth=4, width=16, norm="instance").build().eval()

    class Constant(nn.Module):
        """The same logits for each window."""

        def __init__(self) -> None:
            super().__init__()
            self.logits = torch.randn(1, CLASSES, *(WINDOW,) * 3)

        def forward(self, image):  # noqa: ANN001, ANN202
            return self.logits.clone()

    return Constant().eval()


def monai_labels(network, image: np.ndarray) -> np.ndarray:  # noqa: ANN001
    """Labels (*S) by MONAI."""
    import torch
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(image)[None], (WINDOW,) * 3, 1, network, overlap=0.5, mode="gaussian"
        )
        return logits.argmax(dim=1)[0].numpy()


def nnunet_labels(network, image: np.ndarray) -> np.ndarray:  # noqa: ANN001
    """Labels (*S) by nnU-Net."""
    from types import SimpleNamespace

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.gettempdir())
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    names = {"background": 0, **{f"class {k}": k for k in range(1, CLASSES)}}
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.network, predictor.label_manager = network, LabelManager(names, None)
    predictor.configuration_manager = SimpleNamespace(patch_size=(WINDOW,) * 3)
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image))
    return np.asarray(predictor.label_manager.convert_logits_to_segmentation(logits))


def our_labels(engine, image: np.ndarray, *, quarter: bool) -> np.ndarray:  # noqa: ANN001
    """Labels (*S) by us."""
    from segwright.decoding.sliding_window import Axis, bricks, labels_at, located, tiled_labels
    from segwright.decoding.upsample_argmax import places

    tile, shape = (WINDOW,) * 3, image.shape[1:]
    if quarter:
        return tiled_labels(image, lambda images: engine(images)[0], tile, shape, shape)
    out = np.empty(shape, np.uint8)
    found = bricks(image, lambda images: engine(images)[0], tile, 1, Axis.gaussian)
    for part in located(found, lambda total: [places(side, side, (0.0, float(side))) for side in total]):
        out[part.place] = labels_at(part.logits, part.where)
    return out


def picked(network):  # noqa: ANN001, ANN201
    """The engine that `predict` takes for windows, picked afresh."""
    from segwright.inference.engine import pick_engine
    from segwright.inference.engine_cache import EngineCache
    from segwright.tasks.semantic import Semantic

    example = np.random.default_rng(1).standard_normal((1, 1, *(WINDOW,) * 3), dtype=np.float32)
    return pick_engine(network, Semantic().agreement, example, EngineCache(None))


def labels_by(tool: str, network) -> Callable[[np.ndarray], np.ndarray]:  # noqa: ANN001
    """What makes labels of an image."""
    from segwright.inference.engine import TorchEngine

    if tool in ("MONAI", "nnU-Net"):
        return partial(monai_labels if tool == "MONAI" else nnunet_labels, network)
    engine = picked(network) if tool == "Segwright, engine picked" else TorchEngine(network, "cpu")
    return partial(our_labels, engine, quarter=tool == "Segwright, a quarter")


def compare(options: argparse.Namespace) -> None:
    """Print the row of one network and one tool, and keep its labels for the next rows."""
    import torch

    torch.set_num_threads(options.threads)
    labels = labels_by(options.tool, network_of(options.network))
    image = np.random.default_rng(0).standard_normal((1, *SHAPE), dtype=np.float32)
    found = labels(image)  # kernels are loaded, and the allocator has found its places
    seconds, busy = [], []
    ctypes.CDLL(None).malloc_trim(0)  # what it keeps for later is given back
    forget_peak()
    before, files = resident("VmRSS"), resident("RssFile")
    for _ in range(options.turns):
        start, begin = time.perf_counter(), time.process_time()
        found = labels(image)
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - begin)
    most = resident("VmHWM") - before - (resident("RssFile") - files)  # pages of libraries come and go as the system likes
    path = Path(options.folder) / f"{options.network}.npy"
    if not path.exists():
        np.save(path, found)
    agree = (np.load(path) == found).mean()
    times = f"{min(seconds):.2f} | {min(busy):.2f}"
    print(f"| {options.network} | {options.tool} | {times} | {most:.0f} | {100 * agree:.2f} % |", flush=True)


def pixelwise(axes: int, classes: int):  # noqa: ANN201
    """A network that sees one pixel at a time, from images (B, 1, *S) to logits (B, K, *S)."""
    import torch
    from torch import nn

    layer = nn.Conv3d if axes == 3 else nn.Conv2d
    network = layer(1, classes, 1).eval()
    slopes = torch.linspace(-3, 3, classes)
    network.weight.data.copy_(slopes.reshape(network.weight.shape))
    network.bias.data.copy_(-(slopes**2) / 4)  # lines that touch a parabola: each class is the highest somewhere
    return network


def predictor_for(axes: int, classes: int):  # noqa: ANN201
    """A predictor of the network that sees one pixel at a time, on plain PyTorch."""
    from segwright.core import Classes
    from segwright.inference.engine import TorchEngine
    from segwright.inference.predictor import Predictor
    from segwright.tasks.semantic import Semantic
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess

    network = pixelwise(axes, classes)
    network.divisors = (1,) * axes
    return Predictor(
        network=network,
        task=Semantic(),
        classes=Classes.of([f"class {k}" for k in range(classes)]),
        preprocess=Preprocess(channels=1, normalise=Normalise(mean=(100.0,), std=(60.0,))),
        tile=(64, 64, 64) if axes == 3 else (512, 512),
        engine=TorchEngine(network, "cpu"),
    )


def predict_capped(options: argparse.Namespace) -> None:
    """Predict a file with no more memory than is allowed, and print time and memory."""
    import torch

    from segwright.inference.predict_files import predict

    torch.set_num_threads(options.threads)
    limit = int(options.gib * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    path = Path(options.folder)
    predictor = predictor_for(2 if path.suffix == ".tif" else 3, options.classes)
    forget_peak()
    start, begin = time.perf_counter(), time.process_time()
    predict(predictor, path, path.parent / "masks")
    times = f"{time.perf_counter() - start:.0f} | {time.process_time() - begin:.0f}"
    print(f"{times} | {resident('VmHWM'):.0f} MiB", flush=True)


def draw_volume(path: Path, shape: tuple[int, ...]) -> None:
    """Write a volume int16 that looks smooth and noisy like a CT, not packed."""
    from segwright.codecs.volume_file import write_volume
    from segwright.core import Grid

    values = np.empty((1, *shape), np.int16)
    y, x = np.ogrid[: shape[1], : shape[2]]
    noise = np.random.default_rng(0).integers(-20, 20, shape[1:], dtype=np.int16)
    for z, plane in enumerate(values[0]):
        plane[:] = 100 + 120 * np.sin(y / 40 + z / 30) * np.cos(x / 50 - z / 70) + np.roll(noise, z, 1)
    write_volume(path, values, Grid(shape, (1.0, 1.0, 1.0)))


def draw_image(path: Path, side: int, rows: int) -> None:
    """Write a TIFF uint8 of many tiles, some of them alike, so that the file is small."""
    import tifffile

    y, x = np.ogrid[:512, :512]
    noise = np.random.default_rng(0).integers(-20, 20, (512, 512))
    count = -(-side // 512) * -(-rows // 512)

    def tiles() -> Iterator[np.ndarray]:
        for number in range(count):
            wave = 60 * np.sin(2 * np.pi * (y * (1 + number % 3) + x * (1 + number % 5)) / 512)
            yield (100 + wave + np.roll(noise, number, 0)).astype(np.uint8)

    tifffile.imwrite(path, tiles(), shape=(rows, side), dtype=np.uint8, tile=(512, 512), compression="zlib", bigtiff=True)


def differing(path: Path, mask: Path, classes: int) -> tuple[int, int]:
    """Pixels whose label is not that of the untiled image, and those of them where the logits differ by more than rounding."""
    import torch

    if path.suffix == ".tif":
        from segwright.codecs.tiff_parts import TiffParts

        image, found = TiffParts.opened(path), TiffParts.opened(mask)
    else:
        from segwright.codecs.volume_file import read_volume

        image, found = read_volume(path)[0], read_volume(mask)[0]
    shape, network = image.shape[1:], pixelwise(len(image.shape) - 1, classes)
    step, others, wrong = max(1, SLAB // int(np.prod(shape[1:]))), 0, 0
    whole = tuple(slice(0, side) for side in shape[1:])
    for first in range(0, shape[0], step):
        rows = slice(first, min(first + step, shape[0]))
        values = (image[:, rows, *whole].astype(np.float32) - 100) / 60
        labels = found[:, rows, *whole].astype(np.int64)
        with torch.inference_mode():
            logits = network(torch.from_numpy(values)[None])[0]
            top = logits.max(dim=0).values - logits.gather(0, torch.from_numpy(labels))[0]
        others, wrong = others + int((top > 0).sum()), wrong + int((top > CLOSE).sum())
    return others, wrong


def large(options: argparse.Namespace) -> None:
    """Print a row for the volume, and one for the image."""
    print("| what | classes | cap | s | of the processor | most memory | other labels | by more than 1e-4 |", flush=True)
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, classes in (("volume.nii", 30), ("image.tif", 8)):
            if options.only and options.only not in name:
                continue
            path = Path(folder) / name
            if name == "image.tif":
                draw_image(path, options.side, options.rows or options.side)
            else:
                draw_volume(path, (options.depth, 512, 512))
            command = [sys.executable, __file__, "--child", "capped", "--folder", str(path), "--classes", str(classes)]
            command += ["--gib", str(options.gib), "--threads", str(options.threads)]
            took = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            others, wrong = differing(path, path.parent / "masks" / name, classes)
            what = f"{options.rows or options.side} x {options.side}" if name == "image.tif" else f"512 x 512 x {options.depth}"
            print(f"| {what} | {classes} | {options.gib:g} GiB | {took} | {others} | {wrong} |", flush=True)


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="the CT and the image, in 3 GiB")
    parser.add_argument("--only", choices=("volume", "image"), help="one of the two")
    parser.add_argument("--gib", type=float, default=3, help="memory that --large may take")
    parser.add_argument("--depth", type=int, default=900, help="slices of the CT")
    parser.add_argument("--side", type=int, default=60_000, help="pixels of a side of the image")
    parser.add_argument("--rows", type=int, help="pixels of its height, if it shall not be square: what is held is the same")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="where large files may lie for a while")
    for hidden in ("--child", "--network", "--tool"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--classes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        (compare if options.child == "compare" else predict_capped)(options)
    elif options.large:
        large(options)
    else:
        print("| network | tool | s | of the processor | MiB | agrees with the first |\n|---|---|--:|--:|--:|--:|", flush=True)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(options.threads))
        with tempfile.TemporaryDirectory() as folder:
            for network in options.networks:
                for tool in options.tools:
                    if importlib.util.find_spec(MODULES.get(tool, "segwright")) is None:
                        continue
                    if (network, tool) == ("none", "Segwright, engine picked"):  # which engines know before they are asked
                        continue
                    command = [sys.executable, __file__, "--child", "compare", "--network", network, "--tool", tool]
                    command += ["--folder", folder, "--threads", str(options.threads), "--turns", str(options.turns)]
                    subprocess.run(command, check=True, env=os.environ | threads)


if __name__ == "__main__":
    main()

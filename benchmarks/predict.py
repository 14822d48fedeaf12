"""JPEG files to mask files with SegFormer-B0 (150 classes) at 512 x 512: `segwright.predict` and transformers on two cores.

    python benchmarks/predict.py [FOLDER OF PHOTOS]

Both sides hold the same random weights, read the same files and write one PNG of class numbers per file, in turns of a few
images. transformers is used as its documentation says, but lean: eager float32, no gradients, and the images, which have the
right size, are only normalised, where its image processor would also resize them. Segwright picks its engine before the turns
begin, as it does once per model and machine; that time is printed too. Without a folder the images are drawn.
"""

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = 2  # the machine that the figures are for
SIDE = 512  # pixels
TURNS, IMAGES = 5, 8  # forty images: under a minute on two cores
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, in 8-bit values
SPREAD = 0.1  # standard deviation of the random weights: at the 0.02 of transformers all pixels look alike to the network


def main() -> None:
    """Print the time of each turn, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, help="folder of pictures to cut images from")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    logging.basicConfig(format="%(message)s")
    logging.getLogger("segwright").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # what this machine remembers from earlier does not count
        compare(Path(folder), arguments.photos)


def compare(folder: Path, photos: Path | None) -> None:
    """Both sides in turns."""
    import numpy as np
    import torch

    from segwright.formats.image_file import read_image
    from segwright.inference.files import predict

    torch.set_num_threads(THREADS)
    files = write_images(folder / "images", photos)
    network = reference()
    predictor = ours(network)
    start = time.perf_counter()
    predict(predictor, [file for turn in files for file in turn], folder / "first")
    print(f"the first {TURNS * IMAGES} images, with picking the engine: {time.perf_counter() - start:.1f} s", flush=True)
    theirs(network, files[0][:1], folder / "theirs")  # warm

    print("| turn | transformers ms an image | segwright ms an image | ratio | labels that agree |")
    print("|--:|--:|--:|--:|--:|")
    ratios = []
    for turn, names in enumerate(files):
        start = time.perf_counter()
        theirs(network, names, folder / "theirs")
        middle = time.perf_counter()
        predict(predictor, names, folder / "ours")
        end = time.perf_counter()
        pairs = [[read_image(folder / side / f"{file.stem}.png") for file in names] for side in ("ours", "theirs")]
        slow, fast = (middle - start) / len(names), (end - middle) / len(names)
        ratios.append(slow / fast)
        agreement = np.mean(np.array(pairs[0]) == np.array(pairs[1]))
        print(
            f"| {turn + 1} | {1000 * slow:.0f} | {1000 * fast:.0f} | {ratios[-1]:.2f} | {100 * agreement:.3f} % |", flush=True
        )
    print(f"ratio: median {np.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")


def write_images(folder: Path, photos: Path | None) -> list[list[Path]]:
    """JPEG files of SIDE x SIDE, for each turn its own: pieces of photos, or drawn streets."""
    import numpy as np

    from segwright.formats import synthetic
    from segwright.formats.image_file import SUFFIXES, read_image, write_picture

    count = TURNS * IMAGES
    if photos is None:
        pictures = [sample.image for sample in synthetic.streets(count, shape=(SIDE, SIDE), seed=0)]
    else:
        generator = np.random.default_rng(0)
        sources = [read_image(path) for path in sorted(photos.iterdir()) if path.suffix.lower() in SUFFIXES]
        pictures = []
        for number in range(count):
            source = sources[number % len(sources)][:3]
            top, left = (int(generator.integers(0, side - SIDE + 1)) for side in source.shape[1:])
            pictures.append(source[:, top : top + SIDE, left : left + SIDE])
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path, picture in zip(paths, pictures, strict=True):
        write_picture(path, np.moveaxis(picture, 0, -1))
    return [paths[turn::TURNS] for turn in range(TURNS)]


def reference() -> Any:
    """transformers' SegFormer-B0 with random weights."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=150, initializer_range=SPREAD)).eval()


def ours(network: Any) -> Any:
    """A predictor with the weights of transformers' network."""
    from dataclasses import replace

    from safetensors.torch import load_file

    from segwright.core import Classes
    from segwright.inference.predictor import Predictor
    from segwright.models import segformer
    from segwright.transforms.normalise import Normalise

    b0 = segformer.PRESETS["segformer_b0"]
    config = replace(b0, encoder=replace(b0.encoder, norm_eps=1e-5))  # 1e-5: what transformers runs
    built = config.build().eval()
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)  # under the names of the hub
        built.load_state_dict(segformer.rename(load_file(f"{folder}/model.safetensors")))
    classes = Classes.of([f"class {k}" for k in range(150)])
    return Predictor(network=built, classes=classes, channels=3, normalise=Normalise(mean=MEAN, std=STD), tile=(SIDE, SIDE))


def theirs(network: Any, files: list[Path], out: Path) -> None:
    """What users of transformers write."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from PIL import Image

    out.mkdir(exist_ok=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
    for file in files:
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
        with torch.no_grad():
            logits = network(pixel_values=((image.float() - mean) / std)[None]).logits
            logits = F.interpolate(logits, size=image.shape[1:], mode="bilinear", align_corners=False)
            class_map = logits.argmax(dim=1)[0]
        Image.fromarray(class_map.byte().numpy()).save(out / f"{file.stem}.png")


if __name__ == "__main__":
    main()

"""JPEG files to mask files with SegFormer-B0 (150 classes) at 512 x 512: `segwright.predict` and transformers on two cores.

    python benchmarks/predict.py

Both sides hold the same weights, read the same files and write one PNG of class numbers per file, in turns of a few images.
transformers is used as its documentation says, but lean: eager float32, no gradients, and the images, which have the right
size, are only normalised, where its image processor would also resize them. Segwright picks its engine before the turns begin,
as it does once per model and machine; that time is printed too. The weights are trained for some minutes on drawn streets:
where a network has learned nothing all its answers are nearly ties, and no engine in bfloat16 gives float32's labels.
"""

import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = 2  # the machine that the figures are for
SIDE = 512  # pixels
TURNS, IMAGES = 5, 8  # forty images: under a minute on two cores
MINUTES, SCENES = 4, 24  # of training, and drawn scenes for it: what is learned must be no near tie
CLASSES = 150  # as many as ADE20K has, nine of which the streets hold


def main() -> None:
    """Print the time of each turn, and the ratio."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    logging.basicConfig(format="%(message)s")
    logging.getLogger("segwright").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # what this machine remembers from earlier does not count
        compare(Path(folder))


def compare(folder: Path) -> None:
    """Both sides in turns."""
    import numpy as np
    import torch

    from segwright.codecs.image_file import read_image
    from segwright.inference.predict_files import predict

    torch.set_num_threads(THREADS)
    files = write_images(folder / "images")
    predictor = trained(folder)
    network = reference(predictor.network)
    start = time.perf_counter()
    predict(predictor, [file for turn in files for file in turn], folder / "first")
    print(f"the first {TURNS * IMAGES} images, with picking the engine: {time.perf_counter() - start:.1f} s", flush=True)
    theirs(network, predictor.preprocess.normalise, files[0][:1], folder / "theirs")  # warm

    print("| turn | transformers ms an image | segwright ms an image | ratio | labels that agree |")
    print("|--:|--:|--:|--:|--:|")
    ratios = []
    for turn, names in enumerate(files):
        start = time.perf_counter()
        theirs(network, predictor.preprocess.normalise, names, folder / "theirs")
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


def write_images(folder: Path) -> list[list[Path]]:
    """JPEG files of SIDE x SIDE, for each turn its own."""
    import numpy as np

    from segwright.codecs.image_writer import write_picture
    from segwright.formats import synthetic

    paths = [folder / f"{number}.jpg" for number in range(TURNS * IMAGES)]
    for path, sample in zip(paths, synthetic.streets(len(paths), shape=(SIDE, SIDE), seed=0), strict=True):
        write_picture(path, np.moveaxis(sample.image, 0, -1))
    return [paths[turn::TURNS] for turn in range(TURNS)]


def trained(folder: Path) -> Any:
    """Segwright's SegFormer-B0 after some minutes of streets."""
    from dataclasses import replace

    import segwright
    from segwright.formats import mask_folder, synthetic

    classes = segwright.Classes.of([f"class {k}" for k in range(CLASSES)])
    scenes = [
        replace(scene, truth=segwright.Segmentation.semantic(scene.truth.class_map(), classes))
        for scene in synthetic.streets(SCENES, shape=(SIDE, SIDE), seed=1)
    ]
    mask_folder.write(folder / "data", scenes)
    budget = segwright.Budget(minutes=MINUTES, device="cpu")
    settings = ["data.preprocess.scale=[1,1]", f"training.crop=[{SIDE // 2},{SIDE // 2}]", f"inference.tile=[{SIDE},{SIDE}]"]
    settings.append("model.encoder.norm_eps=1e-5")  # what transformers runs
    scores = segwright.fit(folder / "data", out=folder / "run", model="segformer_b0", budget=budget, settings=settings)
    print(f"trained for {MINUTES} minutes: pixel accuracy {scores.values['pixel accuracy']:.3f}", flush=True)
    return segwright.load(folder / "run")


def reference(network: Any) -> Any:
    """transformers' SegFormer-B0 with the weights of Segwright's."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from segwright.models import segformer

    with tempfile.TemporaryDirectory() as folder:
        SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).save_pretrained(folder)
        tensors = load_file(f"{folder}/model.safetensors")
        values = torch.cat([tensor.flatten().double() for tensor in tensors.values()])
        numbers = torch.arange(len(values)).split([tensor.numel() for tensor in tensors.values()])
        shaped = {name: part.reshape(tensors[name].shape) for name, part in zip(tensors, numbers, strict=True)}
        weights = network.state_dict()
        for name, places in segformer.rename(shaped).items():  # numbered elements tell which of theirs becomes which of ours
            values[places.flatten()] = weights[name].flatten().double()
        filled = {name: values[places].to(tensors[name].dtype) for name, places in shaped.items()}
        save_file(filled, f"{folder}/model.safetensors", metadata={"format": "pt"})
        return SegformerForSemanticSegmentation.from_pretrained(folder).eval()


def theirs(network: Any, normalise: Any, files: list[Path], out: Path) -> None:
    """What users of transformers write."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from PIL import Image

    out.mkdir(exist_ok=True)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (normalise.mean, normalise.std))
    for file in files:
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)
        with torch.no_grad():
            logits = network(pixel_values=((image.float() - mean) / std)[None]).logits
            logits = F.interpolate(logits, size=image.shape[1:], mode="bilinear", align_corners=False)
            class_map = logits.argmax(dim=1)[0]
        Image.fromarray(class_map.byte().numpy()).save(out / f"{file.stem}.png")


if __name__ == "__main__":
    main()

"""Crops and their augmentation against the libraries that people use: samples a second on one core, in turns.

    python benchmarks/augment.py [--turns N] [--only PATTERN]

2D: an image of 640 x 640 in three channels of 8 bits with a mask of 19 classes becomes a crop of 512 x 512, by scale 0.7 to
1.5, rotation up to 30 degrees, mirroring, elastic deformation, crop; brightness, contrast, gamma or saturation, whichever
a library has for colours; blur and noise. 3D: a volume of 80 x 80 x 80 in one channel of float32 with a mask of three
classes becomes 64 x 64 x 64, by the same without colours. Each change is made each time. Where a library crops while it
deforms, it does so here, and what can work on the crop does; where it has a faster way to the same, that is taken.

A side is one process's one thread. In each turn each side makes samples for about a second; the figures are medians over the
turns, and the ratio is ours to theirs in the same turn. Libraries that are not installed are said and left out.
"""

import argparse
import os
import re
import time
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import torch

from segwright.core import Grid, Sample, Segmentation
from segwright.plans.plan import Augmentation
from segwright.transforms.gaussian_blur import GaussianBlur
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity

SCALE, ROTATE_DEG, ELASTIC_PX, SIGMA_PX = (0.7, 1.5), 30.0, 4.0, (0.5, 1.0)
SHAPES = {2: ((640, 640), (512, 512)), 3: ((80, 80, 80), (64, 64, 64))}
CLASSES = {2: 19, 3: 3}
NEEDED = {2: 2.0, 3: 3.0}  # ratios to the fastest peer, and to batchgeneratorsv2
SECONDS = 1.0  # of a side's turn
WARM = 1 << 25  # bytes

Work = Callable[[], object]


def main() -> None:
    """Print a table for images and one for volumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", metavar="PATTERN", help="sides whose name it occurs in, such as '3D'")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    np.empty(WARM, np.uint8).fill(1)  # freed at once: from then on memory is kept for the next array, as a run's batches see to
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks the network for a newer version
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for axes in SHAPES:
        image, mask = picture(axes)
        sides: dict[str, Work] = {}
        for name, make in PEERS[axes].items():
            if not re.search(options.only, f"{axes}D {name}"):
                continue
            try:
                sides[name] = make(image, mask)
            except ImportError as error:
                print(f"{axes}D: {name} is left out: {error.name} is not installed")
        if sides:
            table(axes, sides, options.turns)


def picture(axes: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (C, *S) and a mask int64 (*S), of smooth shapes with some noise."""
    generator = np.random.default_rng(0)
    shape = SHAPES[axes][0]
    places = np.stack(np.meshgrid(*(np.linspace(0, 9, side) for side in shape), indexing="ij"))
    field = np.sin(places[0]) * np.cos(places[1]) + np.sin(places[-1] + 2)
    mask = ((field - field.min()) / np.ptp(field) * (CLASSES[axes] - 1)).round().astype(np.int64)
    channels = 3 if axes == 2 else 1
    image = 128 + 50 * np.stack([np.roll(field, 20 * c, axis=-1) for c in range(channels)]) + generator.normal(0, 8, shape)
    return np.clip(image, 0, 255).astype(np.uint8 if axes == 2 else np.float32), mask


def table(axes: int, sides: dict[str, Work], turns: int) -> None:
    """Measure the sides in turns, and print a row for each."""
    for work in sides.values():
        work()  # compiles, and fills caches
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, work in sides.items():
            rates[name].append(rate(work))
    sizes = " to ".join(" x ".join(map(str, shape)) for shape in SHAPES[axes])
    print(f"\n| {axes}D, {sizes} | samples/s | ours / theirs, median (min to max) | needed |\n|---|--:|--:|--:|")
    ours = rates.get("segwright", [float("nan")] * turns)
    for name, own in sorted(rates.items(), key=lambda item: -float(np.median(item[1]))):
        ratios = np.divide(ours, own)
        ratio = f"{np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"
        print(
            f"| {name} | {np.median(own):.1f} | {'' if name == 'segwright' else ratio} | {needed(axes, name, rates)} |",
            flush=True,
        )


def needed(axes: int, name: str, rates: dict[str, list[float]]) -> str:
    """The ratio that the row of a peer has to reach, if any."""
    peers = {peer: float(np.median(own)) for peer, own in rates.items() if peer != "segwright"}
    judged = "batchgeneratorsv2" if axes == 3 else max(peers, key=lambda peer: peers[peer], default="")
    return f"{NEEDED[axes]:g}" if name == judged else ""


def rate(work: Work) -> float:
    """Samples a second of the processor's time, which on a shared machine tells more than the clock."""
    start, count = time.process_time(), 0
    while time.process_time() - start < SECONDS or count < 2:
        work()
        count += 1
    return count / (time.process_time() - start)


def segwright(image: np.ndarray, mask: np.ndarray) -> Work:
    """Ours: one resampling, then a blur, then one pass over the values."""
    shape = SHAPES[mask.ndim][1]
    augmentation = Augmentation(
        geometric=Geometric(
            scale=SCALE,
            rotate_deg=ROTATE_DEG,
            flip_axes=tuple(range(-mask.ndim, 0)),
            elastic_px=ELASTIC_PX if mask.ndim == 2 else ELASTIC_PX / 4,  # as folds allow: crops are an eighth as wide
        ),
        intensity=Intensity(saturation=0.3 if len(image) == 3 else 0.0),
        blur=GaussianBlur(probability=1.0, sigma_px=SIGMA_PX),
    )
    sample = Sample("a", image, Grid(mask.shape), Segmentation.semantic(mask))
    generator = np.random.default_rng(0)
    return lambda: augmentation.change_values(augmentation.geometric(sample, shape, generator), generator)


def albumentations_of(approximate: bool) -> Callable[[np.ndarray, np.ndarray], Work]:
    """albumentations, its elastic deformation smoothed exactly or, faster, by a window of fixed size."""

    def make(image: np.ndarray, mask: np.ndarray) -> Work:
        import albumentations as A

        change = A.Compose(
            [
                A.Affine(scale=SCALE, rotate=(-ROTATE_DEG, ROTATE_DEG), p=1),
                A.RandomCrop(*SHAPES[2][1], p=1),
                A.ElasticTransform(alpha=300, sigma=30, approximate=approximate, p=1),  # some 4 pixels
                A.HorizontalFlip(p=0.5),
                A.VerticalFlip(p=0.5),
                A.ColorJitter(0.3, 0.3, 0.3, 0, p=1),
                A.RandomGamma((70, 130), p=1),
                A.GaussianBlur(blur_limit=0, sigma_limit=SIGMA_PX, p=1),
                A.GaussNoise(std_range=(0.0, 0.05), p=1),
            ]
        )
        columns, labels = np.ascontiguousarray(np.moveaxis(image, 0, -1)), mask.astype(np.uint8)
        return lambda: change(image=columns, mask=labels)

    return make


def batchgenerators(image: np.ndarray, mask: np.ndarray) -> Work:
    """batchgeneratorsv2, the augmentation of nnU-Net, which crops while it deforms."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform as Brightness
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform as Contrast
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform as Gamma
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform as Noise
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform as Blur
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform as Mirror
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform as Spatial

    angle = np.deg2rad(ROTATE_DEG)
    steps = [
        Spatial(
            SHAPES[mask.ndim][1],
            0,
            random_crop=True,
            p_elastic_deform=1,
            p_rotation=1,
            rotation=(-angle, angle),
            p_scaling=1,
            scaling=SCALE,
            p_synchronize_scaling_across_axes=1,
        ),
        Mirror(tuple(range(mask.ndim))),
        Brightness((0.7, 1.3), synchronize_channels=True),
        Contrast((0.7, 1.3), preserve_range=True, synchronize_channels=True),
        Gamma((0.7, 1.3), p_invert_image=0, synchronize_channels=True, p_per_channel=1, p_retain_stats=0),
        Blur(SIGMA_PX, synchronize_channels=True, synchronize_axes=True, p_per_channel=1),
        Noise((0, 0.05), p_per_channel=1, synchronize_channels=True),
    ]
    values, labels = torch.from_numpy(image).float(), torch.from_numpy(mask)[None]

    def work() -> object:
        sample = {"image": values.clone(), "segmentation": labels.clone()}
        for step in steps:
            sample = step(**sample)
        return sample

    return work


def monai(image: np.ndarray, mask: np.ndarray) -> Work:
    """MONAI, which crops while it deforms."""
    from monai import transforms as M

    keys, angle, axes = ["image", "mask"], np.deg2rad(ROTATE_DEG), mask.ndim
    place = {
        "keys": keys,
        "prob": 1,
        "rotate_range": (angle,) * (1 if axes == 2 else 3),
        "scale_range": ((SCALE[0] - 1, SCALE[1] - 1),) * axes,
        "spatial_size": SHAPES[axes][1],
        "mode": ("bilinear", "nearest"),
    }
    deform = (
        M.Rand2DElasticd(spacing=(100, 100), magnitude_range=(0, 2 * ELASTIC_PX), **place)
        if axes == 2
        else M.Rand3DElasticd(sigma_range=(5, 8), magnitude_range=(0, 100), **place)
    )
    sigma = dict(zip(("sigma_x", "sigma_y", "sigma_z"), [SIGMA_PX] * axes, strict=False))
    change = M.Compose(
        [
            deform,
            *(M.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(axes)),
            M.RandShiftIntensityd("image", 20.0, prob=1),
            M.RandScaleIntensityd("image", 0.3, prob=1),
            M.RandAdjustContrastd("image", prob=1, gamma=(0.7, 1.3)),
            M.RandGaussianSmoothd("image", prob=1, **sigma),
            M.RandGaussianNoised("image", prob=1, std=2.0),
        ]
    )
    values, labels = torch.from_numpy(image).float(), torch.from_numpy(mask)[None].float()
    return lambda: change({"image": values, "mask": labels})


def kornia(image: np.ndarray, mask: np.ndarray) -> Work:
    """kornia, on a batch of one."""
    from kornia import augmentation as K

    change = K.AugmentationSequential(
        K.RandomAffine(ROTATE_DEG, scale=SCALE, p=1),
        K.RandomCrop(SHAPES[2][1], p=1),
        K.RandomElasticTransform(kernel_size=(63, 63), sigma=(32.0, 32.0), alpha=(1.0, 1.0), p=1),
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        K.ColorJitter(0.3, 0.3, 0.3, 0.0, p=1),
        K.RandomGamma((0.7, 1.3), p=1),
        K.RandomGaussianBlur((7, 7), SIGMA_PX, p=1),
        K.RandomGaussianNoise(std=0.03, p=1),
        data_keys=["input", "mask"],
    )
    values, labels = torch.from_numpy(image)[None].float() / 255, torch.from_numpy(mask)[None, None].float()
    return lambda: change(values, labels)


def torchvision(image: np.ndarray, mask: np.ndarray) -> Work:
    """torchvision's second version of transforms."""
    from torchvision import tv_tensors as tensors
    from torchvision.transforms import v2

    change = v2.Compose(
        [
            v2.RandomAffine(ROTATE_DEG, scale=SCALE),
            v2.RandomCrop(SHAPES[2][1]),
            v2.ElasticTransform(),  # as it comes: its time grows with the square of sigma
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.ColorJitter(0.3, 0.3, 0.3),
            v2.GaussianBlur(7, SIGMA_PX),
            v2.ToDtype({tensors.Image: torch.float32, "others": None}, scale=True),
            v2.GaussianNoise(sigma=0.03),
        ]
    )
    values, labels = tensors.Image(torch.from_numpy(image)), tensors.Mask(torch.from_numpy(mask))
    return lambda: change(values, labels)


def torchio(image: np.ndarray, mask: np.ndarray) -> Work:
    """TorchIO, whose crop comes before what costs most."""
    import torchio as tio

    change = tio.Compose(
        [
            tio.RandomAffine(scales=SCALE, degrees=ROTATE_DEG, isotropic=True),
            tio.CropOrPad(SHAPES[3][1]),
            tio.RandomElasticDeformation(max_displacement=3),
            tio.RandomFlip(axes=(0, 1, 2)),
            tio.RandomGamma(log_gamma=0.3),
            tio.RandomBlur(std=SIGMA_PX),
            tio.RandomNoise(std=(0, 5)),
        ]
    )
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=torch.from_numpy(image)), mask=tio.LabelMap(tensor=torch.from_numpy(mask)[None])
    )
    return lambda: change(subject)


PEERS: dict[int, dict[str, Callable[[np.ndarray, np.ndarray], Work]]] = {
    2: {
        "segwright": segwright,
        "albumentations": albumentations_of(approximate=False),
        "albumentations, approximate": albumentations_of(approximate=True),
        "batchgeneratorsv2": batchgenerators,
        "MONAI": monai,
        "kornia": kornia,
        "torchvision v2": torchvision,
    },
    3: {"segwright": segwright, "batchgeneratorsv2": batchgenerators, "MONAI": monai, "TorchIO": torchio},
}


if __name__ == "__main__":
    main()

"""Makes docs/upsampling.md and its pictures: what pattern each way of doubling a map leaves in the logits of a network.

python docs/make_upsampling.py             about a minute on one core

The same small network is trained with each way on the same cells, and nothing else differs. Axes: B batch, C channels, H, W.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.codecs.image_writer import write_picture
from segwright.core.visualise import as_rgb, paint
from segwright.formats import synthetic
from segwright.layers.upsample import SubpixelConvolution, UpsamplingWay, upsampling

OUT = Path(__file__).with_name("upsampling.md")
LOGITS, SPECTRA = (Path(__file__).with_name(f"upsampling_{what}.png") for what in ("logits", "spectra"))
SIDE = 64  # pixels of the images
TRAINING, VALIDATION = 64, 32  # images
STEPS, BATCH, SEEDS = 150, 8, (0, 1, 2)
WIDTH = 16  # channels at full size; twice as many below
NEAR = 1 / 16  # cycles a pixel around a frequency that count as it: a pattern that comes and goes is not one sharp line
CORNERS = ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5))  # cycles a pixel of what repeats every second row, column, or both
BORDER = 8  # pixels at which zero padding shows most, left out of spectra
REACH = 20  # pixels past which it cannot reach
GAP, SCALE = 4, 2  # of the pictures


def overlapping(before: int, after: int) -> nn.Module:
    """A 3x3 transposed convolution of stride 2, whose kernels overlap at every second pixel."""
    return initialised(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1))


def doubling(way: UpsamplingWay, *, equal: bool = True) -> Callable[[int, int], nn.Module]:
    """What doubles a map in one of the house's ways; a pixel shuffle starts with `equal` pixels."""

    def make(before: int, after: int) -> nn.Module:
        layer = initialised(upsampling(way, before, after, (2, 2)))
        if isinstance(layer, SubpixelConvolution) and equal:
            layer.make_pixels_equal()
        return layer

    return make


def initialised(layer: nn.Module) -> nn.Module:
    """He's normal weights by what reaches one new pixel, for the ReLU that follows; biases start at 0."""
    for module in layer.modules():
        if isinstance(module, nn.ConvTranspose2d):
            places = prod(module.kernel_size) / prod(module.stride)  # of the kernel per new pixel, on average
            nn.init.normal_(module.weight, std=(2 / (module.in_channels * places)) ** 0.5)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(module.bias)
    return layer


WAYS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed 3x3": overlapping,
    "transposed 2x2": doubling("transposed"),
    "pixel shuffle without ICNR": doubling("pixel_shuffle", equal=False),
    "pixel shuffle": doubling("pixel_shuffle"),
    "nearest": doubling("nearest"),
    "bilinear": doubling("bilinear"),
}


def network(way: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """Image (B, 1, H, W) to logits (B, 2, H, W): halved twice, doubled twice; after that, no pixel sees another."""

    def convolution(before: int, after: int) -> list[nn.Module]:
        return [initialised(nn.Conv2d(before, after, 3, padding=1)), nn.ReLU()]

    down = [*convolution(1, WIDTH), nn.MaxPool2d(2), *convolution(WIDTH, 2 * WIDTH), nn.MaxPool2d(2)]
    deep = [*convolution(2 * WIDTH, 2 * WIDTH), *convolution(2 * WIDTH, 2 * WIDTH)]
    up = [way(2 * WIDTH, WIDTH), nn.ReLU(), way(WIDTH, WIDTH), nn.ReLU()]
    return nn.Sequential(*down, *deep, *up, nn.Conv2d(WIDTH, 2, 1))


@cache
def cells(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images float32 (B, 1, H, W) around 0 and class maps int64 (B, H, W) of drawn cells."""
    samples = list(synthetic.cells(count, shape=(SIDE, SIDE), seed=seed))
    images = torch.stack([torch.from_numpy(sample.image.astype(np.float32)) for sample in samples])
    truth = torch.stack([torch.from_numpy(sample.truth.class_map().astype(np.int64)) for sample in samples])
    return images / 64 - 1, truth


def margin(net: nn.Module, images: Tensor) -> Tensor:
    """By how much the logit of a cell lies above that of the background (B, H, W)."""
    with torch.no_grad():
        logits = net(images)
    return logits[:, 1] - logits[:, 0]


def spectrum(maps: Tensor) -> np.ndarray:
    """Mean power (H, W) of maps (B, H, W) at each frequency, without their means; a window keeps their borders out of it."""
    inner = maps.numpy()[:, BORDER:-BORDER, BORDER:-BORDER]
    window = np.hanning(inner.shape[1] + 2)[1:-1]
    inner = (inner - inner.mean(axis=(1, 2), keepdims=True)) * window[:, None] * window
    return (abs(np.fft.fft2(inner)) ** 2).mean(axis=0)


def checkerboard(maps: Tensor) -> float:
    """The share of the power of maps (B, H, W) that lies near the three frequencies of what repeats every second pixel."""
    power = spectrum(maps)
    frequencies = abs(np.fft.fftfreq(len(power)))
    near = np.zeros_like(power, dtype=bool)
    for down, across in CORNERS:
        near |= np.hypot(frequencies[:, None] - down, frequencies - across) <= NEAR
    return float(power[near].sum() / power.sum())


def ripple(net: nn.Module, images: Tensor) -> float:
    """The spread of the margin over a flat image of mean grey, where no border is felt, as a part of that over real images."""
    flat = margin(net, torch.full_like(images[:1], float(images.mean())))[:, REACH:-REACH, REACH:-REACH]
    return float(flat.std() / margin(net, images).std())


def mean_iou(margins: Tensor, truth: Tensor) -> float:
    """Mean IoU of background and cells, over all pixels of all images."""
    ious = []
    for ours, theirs in (((margins > 0), truth == 1), ((margins <= 0), truth == 0)):
        ious.append(float((ours & theirs).sum() / (ours | theirs).sum()))
    return float(np.mean(ious))


@dataclass(frozen=True)
class Result:
    """What was measured of one way with one seed."""

    before: float
    after: float
    ripple_before: float
    ripple_after: float
    score: float
    maps: tuple[Tensor, Tensor]


def measured(way: Callable[[int, int], nn.Module], seed: int) -> Result:
    """Train a network and measure it before and after."""
    torch.manual_seed(seed)
    images, truth = cells(TRAINING, seed=1)
    unseen, unseen_truth = cells(VALIDATION, seed=2)
    net = network(way)
    first, first_ripple = margin(net, unseen), ripple(net, unseen)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    draw = torch.Generator().manual_seed(seed)  # the same images in the same order for every way
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (BATCH,), generator=draw)
        optimiser.zero_grad()
        F.cross_entropy(net(images[chosen]), truth[chosen]).backward()
        optimiser.step()
        schedule.step()
    last = margin(net, unseen)
    scores = checkerboard(first), checkerboard(last), first_ripple, ripple(net, unseen), mean_iou(last, unseen_truth)
    return Result(*scores, (first, last))


def tile(values: np.ndarray) -> np.ndarray:
    """A grey RGB picture of values (H, W) between their 1st and 99th percentile, enlarged and with a white margin."""
    low, high = np.percentile(values, (1, 99))
    return framed(np.repeat((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2))


def framed(picture: np.ndarray) -> np.ndarray:
    """An RGB picture, enlarged and with a white margin."""
    picture = picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def draw_pictures(results: dict[str, Result]) -> None:
    """The margins of one image, and the spectra of all, of each way: before training above, after it below."""
    image = as_rgb(next(iter(synthetic.cells(VALIDATION, shape=(SIDE, SIDE), seed=2))).image)
    truth = next(iter(synthetic.cells(VALIDATION, shape=(SIDE, SIDE), seed=2))).truth
    columns = [np.concatenate([framed(image), framed(paint(truth.class_map(), truth.classes.palette))])]
    columns += [np.concatenate([tile(maps[0].numpy()) for maps in result.maps]) for result in results.values()]
    write_picture(LOGITS, np.concatenate(columns, axis=1))
    columns = []
    for result in results.values():
        powers = [np.log10(np.fft.fftshift(spectrum(maps)) + 1e-12) for maps in result.maps]
        columns.append(np.concatenate([tile(power) for power in powers]))
    write_picture(SPECTRA, np.concatenate(columns, axis=1))


def percent(value: float) -> str:
    """A share as people write it: three digits that count."""
    return f"{100 * value:.3g} %"


TEXT = f"""# What doubling a map leaves behind

*Made by `python docs/make_upsampling.py`, whose numbers these are.*

A network that ends at the size of its image has to double small maps. Odena et al. 2016 (Deconvolution and Checkerboard
Artifacts, Distill, doi 10.23915/distill.00003) showed how transposed convolutions draw a checkerboard on what they make: new
pixels that come from different weights, or from a different number of them, differ where the picture does not.
`segwright.layers.upsample` offers four ways, which U-Net's setting `upsampling` names; this page measures how much of a
checkerboard each leaves in the logits.

One small network (halved twice, doubled twice, {WIDTH} channels at full size, no skips, a 1x1 convolution last) learns to tell
drawn cells (`synthetic:cells`, {SIDE} x {SIDE} pixels) from background in {STEPS} steps of {BATCH} images; only the doubling differs.
Means over {len(SEEDS)} seeds, on {VALIDATION} images that training has not seen. Two of the six are there to compare with: the 3x3
transposed convolution, whose kernels overlap at every second pixel, and the pixel shuffle whose four pixels start with weights
of their own, not with equal ones (ICNR, arXiv 1707.02937).

* **checkerboard**: the share of the power of the logits' difference that lies within 1/{1 / NEAR:.0f} cycles a pixel of the three
  frequencies of what repeats every second row, column or both. The truth itself has TRUTH.
* **ripple**: how much the difference varies over a flat grey image, where nothing should, as a part of how much it varies
  over real ones.

| way | checkerboard, untrained | trained | ripple, untrained | trained | mean IoU (lowest to highest) |
|---|---|---|---|---|---|
ROWS

SUMMARY

The logits' difference for one image, untrained above and trained below; from the left: image and truth, then the ways in the
order of the table.

![Difference of the logits of one image for each way, untrained and trained]({LOGITS.name})

The logarithm of the mean power at each frequency, the lowest in the middle, the highest at the rim, in the same order. A
checkerboard is the light at the middle of the sides and in the corners.

![Spectra of the logits for each way, untrained and trained]({SPECTRA.name})
"""  # noqa: E501 as the numbers are shorter than their names


def page(results: dict[str, list[Result]]) -> str:
    """The text, with what was measured."""

    def mean(name: str, field: str) -> float:
        return float(np.mean([getattr(run, field) for run in results[name]]))

    rows = []
    for name, runs in results.items():
        shares = [percent(mean(name, field)) for field in ("before", "after", "ripple_before", "ripple_after")]
        scores = [run.score for run in runs]
        rows.append(f"| {' | '.join([name, *shares])} | {mean(name, 'score'):.3f} ({min(scores):.3f} to {max(scores):.3f}) |")
    left = {name: mean(name, "after") for name in results}
    means = [mean(name, "score") for name in results]
    spread = max(max(run.score for run in runs) - min(run.score for run in runs) for runs in results.values())
    summary = (
        f"Trained, {min(left, key=left.__getitem__)} leaves the least of a checkerboard and {max(left, key=left.__getitem__)} "
        f"the most. The mean scores lie within {max(means) - min(means):.3f} of each other, those of one way's seeds within up "
        f"to {spread:.3f}."
    )
    share = percent(checkerboard(cells(VALIDATION, seed=2)[1].float()))
    return TEXT.replace("TRUTH", share).replace("ROWS", "\n".join(rows)).replace("SUMMARY", summary)


def main() -> None:
    """Write the page and its pictures."""
    torch.use_deterministic_algorithms(True)
    results = {name: [measured(way, seed) for seed in SEEDS] for name, way in WAYS.items()}
    draw_pictures({name: runs[0] for name, runs in results.items()})
    OUT.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Cells of a large image, which a network sees in tiles: memory, time, and how many of those that a tile cuts come out whole.

    python benchmarks/large_image.py                      # an oracle in place of a network: what decoding costs and does
    python benchmarks/large_image.py --model runs/nuclei  # a trained network

The oracle is given the numbers of the cells as its image. In each tile it says what a good network would: a box and a mask of
28 x 28 probabilities for what the tile shows of each cell, both off by some percent, and less sure of parts than of wholes.

A cell that the border of a tile cuts is whole if one object has most of its own pixels there, no other has, and both share half
of the pixels that either has. How many of the other cells are whole tells what of the rest is the network's own fault. Memory
is the most that the process holds while it predicts, beyond what it held before (network, libraries, truth), and the image.
Seconds are those of the processor, on all its threads together. Each size runs in a process of its own. Axes: H, W of the
image, h, w of a tile, N cells.
"""

import argparse
import subprocess
import sys
import time

import numpy as np
from process_memory import forget_peak, resident

SCENE = 1024  # pixels of a side; many small scenes side by side are drawn in a time that grows with the area
ENLARGED = 1.5  # times, so that 8192 x 8192 pixels hold about 20 000 cells, of 17 pixels radius
MASK = 28  # values along a side, as Mask R-CNN's
SOFT = 4.0  # values over which the probabilities of the oracle fall from one to zero
JITTER = 0.03  # standard deviation of the edges of a box, in its sides
SMALLEST = 6  # pixels of a part that is still seen
OVERLOOKED = 0.03  # of the parts of cells
MIB = 2**20


class Objects:
    """As much of the task of finding objects as a predictor asks for."""

    def decode(self, run, view):  # noqa: ANN001, ANN201
        """The objects on the original grid."""
        from segwright.decoding.detections import decode_detections

        return decode_detections(run, view)


class Oracle:
    """A network that knows: from tiles (B, 1, h, w) of cell numbers to the fields of `Detections`, with room for some objects.

    `areas` (N + 1,) are the pixels of the cells by number. Cells have one class.
    """

    divisors = (32, 32)

    def __init__(self, areas: np.ndarray, places: int, seed: int = 0) -> None:
        self.areas, self.places, self.seed, self.seconds, self.calls = areas, places, seed, 0.0, 0

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Boxes, scores, class ids, masks and regions."""
        start = time.process_time()
        answers = [self.answer(np.rint(image[0]).astype(np.int32)) for image in images]
        self.seconds += time.process_time() - start
        self.calls += len(images)
        return tuple(np.stack(part) for part in zip(*answers, strict=True))

    def answer(self, numbers: np.ndarray) -> tuple[np.ndarray, ...]:
        """What is found in one tile of cell numbers (h, w); the same tile gets the same answer."""
        from scipy.ndimage import find_objects

        random = np.random.default_rng([self.seed, int(numbers.sum(dtype=np.int64))])
        present = np.unique(numbers)
        present = present[present > 0]
        index = np.zeros(int(numbers.max()) + 1, np.int32)
        index[present] = np.arange(1, len(present) + 1)
        local = index[numbers]
        found = []
        for number, (cell, place) in enumerate(zip(present.tolist(), find_objects(local), strict=True), start=1):
            shows = local[place] == number
            share = shows.sum() / self.areas[cell]
            is_seen = share == 1 or (shows.sum() >= SMALLEST and random.random() > OVERLOOKED)
            if is_seen:
                score = 0.99 - 0.2 * random.random() - 0.25 * (1 - share)
                found.append((score, *self.drawn(shows, place, numbers.shape, random)))
        if len(found) > self.places:
            raise ValueError(f"a tile shows {len(found)} cells, and there are {self.places} places; give more with --places")
        found.sort(key=lambda one: -one[0])
        scores, boxes = np.zeros(self.places, np.float32), np.zeros((self.places, 4), np.float32)
        masks = np.zeros((self.places, MASK, MASK), np.float32)
        for place, (score, box, mask) in enumerate(found):
            scores[place], boxes[place], masks[place] = score, box, mask
        return boxes, scores, np.zeros(self.places, np.int64), masks, boxes.copy()

    def drawn(
        self, shows: np.ndarray, place: tuple[slice, slice], shape: tuple[int, ...], random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A box float32 (4,) about the pixels bool (h', w') that lie at a place of the tile, and their mask in it."""
        import cv2

        (rows, columns), (height, width) = place, shows.shape
        edges = np.array([columns.start, rows.start, columns.stop, rows.stop], float)
        edges += JITTER * random.standard_normal(4) * [width, height, width, height]
        edges = np.clip(edges, 0, [shape[1], shape[0], shape[1], shape[0]])
        edges[2:] = np.maximum(edges[2:], edges[:2] + 0.5)
        steps = (edges[2:] - edges[:2]) / MASK
        to_crop = np.array([[steps[0], 0, edges[0] - columns.start], [0, steps[1], edges[1] - rows.start]])
        to_crop[:, 2] += steps / 2 - 0.5  # centres of values and of pixels
        crop = cv2.copyMakeBorder(shows.astype(np.float32), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        to_crop[:, 2] += 1
        mask = cv2.warpAffine(crop, to_crop, (MASK, MASK), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        soft = cv2.GaussianBlur(mask, (0, 0), SOFT / 4, borderType=cv2.BORDER_REPLICATE)
        noise = cv2.GaussianBlur(random.standard_normal((MASK, MASK)).astype(np.float32), (0, 0), 2)
        return edges.astype(np.float32), np.clip(soft + 0.3 * noise + 0.1 * random.standard_normal(), 0, 1)


def draw(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The image uint8 (H, W) of many cells, and their numbers int32 (H, W), 1, 2, ... without gaps, 0 for none."""
    from segwright.formats.synthetic.cells_scene import cell_sample

    image, numbers, first = np.empty((size, size), np.uint8), np.empty((size, size), np.int32), 0
    generator = np.random.default_rng(seed)
    side = int(np.ceil(SCENE / ENLARGED))
    for top in range(0, size, SCENE):
        for left in range(0, size, SCENE):
            sample = cell_sample("", (side, side), generator)
            rows, columns = (np.arange(min(SCENE, size - start)) * side // SCENE for start in (top, left))
            cells = sample.truth.instance_ids[sample.truth.planes[0] - 1][np.ix_(rows, columns)]
            present = np.unique(cells)
            number = np.zeros(int(cells.max()) + 1, np.int32)
            number[present[present > 0]] = first + np.arange(1, (present > 0).sum() + 1)
            first = int(number.max(initial=first))
            place = slice(top, top + len(rows)), slice(left, left + len(columns))
            image[place], numbers[place] = sample.image[0][np.ix_(rows, columns)], number[cells]
    return image, numbers


def cut_cells(numbers: np.ndarray, starts: list[np.ndarray], tile: tuple[int, ...]) -> np.ndarray:
    """The numbers of the cells that have pixels on both sides of the border of a tile inside the image."""
    found = []
    for axis in range(2):
        lines = np.moveaxis(numbers, axis, 0)
        borders = [*starts[axis][1:], *(starts[axis][:-1] + tile[axis])]
        found += [lines[at][(lines[at] == lines[at - 1]) & (lines[at] > 0)] for at in borders]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int32)


def whole_cells(planes: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many objects have most of their pixels on each cell, int64 (N + 1,), and whether one of them is it, bool (N + 1,)."""
    areas = np.bincount(numbers.ravel())
    pairs, shared = [], []
    sizes = np.zeros(int(planes.max(initial=0)) + 1, np.int64)
    for plane in planes:
        is_object = plane > 0
        objects, cells = plane[is_object].astype(np.int64), numbers[is_object]
        sizes += np.bincount(objects, minlength=len(sizes))
        keys, counts = np.unique(objects * len(areas) + cells, return_counts=True)
        pairs.append(keys)
        shared.append(counts)
    keys, counts = np.concatenate(pairs), np.concatenate(shared)
    objects, cells = keys // len(areas), keys % len(areas)
    is_match = (cells > 0) & (2 * counts > sizes[objects])
    is_alike = is_match & (3 * counts >= sizes[objects] + areas[cells])  # shared / (one + other - shared) >= 1/2
    return np.bincount(cells[is_match], minlength=len(areas)), np.bincount(cells[is_alike], minlength=len(areas)) > 0


def measure(size: int, options: argparse.Namespace) -> None:
    """Print the row of one size."""
    from dataclasses import replace

    from segwright.core import Classes, Sample
    from segwright.decoding.sliding_window import Axis
    from segwright.inference.load import load
    from segwright.inference.predictor import Predictor
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess

    image, numbers = draw(size, options.seed)
    areas = np.bincount(numbers.ravel())
    oracle = Oracle(areas, options.places)
    if options.model is None:
        preprocess = Preprocess(channels=1, normalise=Normalise(mean=(0.0,), std=(1.0,)))
        predictor = Predictor(
            network=oracle,  # type: ignore[arg-type]  # no network is asked
            task=Objects(),  # type: ignore[arg-type]  # what else a task does is not asked for
            classes=Classes.of(["cell"], is_thing=[True]),
            preprocess=preprocess,
            tile=(options.tile,) * 2,
            engine=oracle,
        )
        image = numbers.astype(np.uint16)
    else:
        predictor = load(options.model)
    predictor = replace(predictor, flips=tuple(options.flips) or predictor.flips, min_score=options.min_score)
    sample = Sample.of("cells", np.repeat(image[None], options.channels, axis=0))
    predictor(Sample.of("small", sample.image[:, :64, : 2 * options.tile]))  # kernels are loaded, those for tiles too
    oracle.seconds, oracle.calls = 0.0, 0
    forget_peak()
    before, start = resident("VmRSS"), time.process_time()
    found = predictor(sample)
    seconds, most = time.process_time() - start, resident("VmHWM") - before + sample.image.nbytes / MIB
    tile, padded = predictor.run(2).sizes(predictor.preprocess.shape_of(sample.grid, ""))
    starts = [Axis.over(side, part).starts for side, part in zip(padded, tile, strict=True)]
    ratio = size / predictor.preprocess.shape_of(sample.grid, "")[0]
    cut = cut_cells(
        numbers, [np.rint(start * ratio).astype(int) for start in starts], tuple(round(side * ratio) for side in tile)
    )
    count, is_alike = whole_cells(found.planes, numbers)
    whole = (count == 1) & is_alike
    others = np.setdiff1d(np.arange(1, len(areas)), cut)
    megapixels = size**2 / 1e6
    print(
        f"| {size} x {size} | {len(areas) - 1} | {len(found)} | {len(starts[0])} x {len(starts[1])} | {len(cut)} "
        f"| {100 * whole[cut].mean():.2f} % | {100 * whole[others].mean():.2f} % "
        f"| {(count[cut] == 0).sum()} | {(count[cut] > 1).sum()} | {most:.0f} "
        f"| {len(found.planes)} | {seconds / megapixels:.3f} | {(seconds - oracle.seconds) / megapixels:.3f} |",
        flush=True,
    )


def main() -> None:
    """Print a row per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 8192], help="sides of the images")
    parser.add_argument("--model", help="folder of a run; an oracle otherwise")
    parser.add_argument("--tile", type=int, default=512, help="side of the oracle's tiles")
    parser.add_argument("--places", type=int, default=300, help="objects that the oracle may find in a tile")
    parser.add_argument("--channels", type=int, default=1, help="channels of the image, which are all alike")
    parser.add_argument("--flips", type=int, nargs="*", default=[], help="axes to mirror, such as -2 -1")
    parser.add_argument("--min-score", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        measure(options.sizes[0], options)
        return
    columns = "image | cells | found | tiles | cut cells | whole | others whole | lost | more than once | MiB | planes | s/Mpx"
    print(f"| {columns} | of decoding |")
    print("|---|" + "--:|" * (columns.count("|") + 1), flush=True)
    for size in options.sizes:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--alone", "--sizes", str(size)], check=True)


if __name__ == "__main__":
    main()

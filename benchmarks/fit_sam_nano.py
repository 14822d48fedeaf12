"""A click network from nothing but ImageNet's encoder: `sam_nano` trained on drawn shapes, scenes and nuclei, then measured.

    python benchmarks/fit_sam_nano.py train --frozen --out runs/decoder
    python benchmarks/fit_sam_nano.py train --init runs/decoder --out runs/sam_nano
    python benchmarks/fit_sam_nano.py pack --run runs/sam_nano --out src/segwright/models/sam_nano.safetensors
    python benchmarks/fit_sam_nano.py measure --json clicks.jsonl
    python benchmarks/fit_sam_nano.py time
    python benchmarks/fit_sam_nano.py adapt --minutes 5

* train: textured shapes and tissues (drawn_objects.py), the synthetic streets and cells, and the training nuclei of
  ../shared/data (CC0). The best weights are chosen on other shapes and scenes, so that all that is measured is new to them.
  With --frozen the encoder stays as ImageNet left it and is asked once for each of some thousand crops, which makes a step
  cost the decoder alone. From such a run all learns but the first layers and the batch norms: so few images, and drawn ones,
  would only spoil their statistics. A run that was stopped goes on with --resume. It takes so many steps, whatever else the
  machine does; with --minutes the clock ends it.
* measure: objects of CamVid, cells of membranes, COCO's two panoptic images and the validation nuclei of which no neighbour in
  the slide was trained with, clicked at centres of errors and at random places about them, beside two baselines. grabcut is
  OpenCV's, begun with a disc about the first click; grow takes what is connected to a click and about as bright. Differences
  from the network are paired by image. --all also counts clicks to an IoU of 0.85 and 0.90, which takes four times as long.
* time: an image of 512 x 512 to encode, and one click on one object to answer.
* adapt: 20 images of CamVid, from these weights; the encoder is frozen, and asked once for each of 16 crops of an image. IoU
  before and after on other images, and a paired test.
* pack: the weights in half precision, in the file that comes with Segwright.

What is measured, timed and adapted is what comes with Segwright, unless --run says otherwise.

Axes: B batch, N objects, H, W.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from drawn_objects import drawn_objects

from segwright.core import Dataset, Prompt, Sample, Segmentation
from segwright.data.clickable_objects import OBJECT, clickable_objects
from segwright.data.splits import Splits
from segwright.evaluation.interactive import METRIC, SimulatedUser, clicks_for, counted_clicks, counter_of_clicks
from segwright.evaluation.scores import interval_text
from segwright.evaluation.significance import differences
from segwright.formats import open_dataset, synthetic
from segwright.metrics.number_of_clicks import NumberOfClicks

DATA = Path(__file__).parents[2] / "shared" / "data"
SHAPES, STREETS, CELLS = 1500, 300, 100  # images to train with, beside 486 of nuclei
STEPS = 6000
STEPS_A_MINUTE = 150  # about, from which the average of the weights knows how far to look back
CROPS = 3000  # that differ: each takes 0.8 MB, and 0.7 MB for what the encoder says of it; the process had 9 GB
FIRST = ("batch_norms", "encoder.network.conv_stem", "encoder.network.blocks.0")  # as ImageNet left them, in both rounds
CROP = 224  # pixels, a multiple of 32: steps are short, and objects seldom larger
SCALES = (0.75, 2.0)  # images have 256 pixels: smaller ones would leave half of a crop without a truth
LEARNING_RATE = 1e-3
TUNING_RATE = 3e-4  # of weights that are good already
FEW = ("IoU@1", "IoU@3", "IoU@5")
ALL = (*FEW, "NoC@85", "NoC@90", "failures@90")
ADAPTED = 20  # images of one domain
VARIANTS = 16  # crops of each
MINUTES = 5.0  # for them
EVERY = 8  # of CamVid's validation frames, which follow each other in a video
NETWORK = "sam_nano"
SHIPPED = "sam_nano_drawn"  # its weights that come with Segwright
TIMM = "timm"
SIDE, DISC_RADIUS = 512, 80  # pixels of an image to time, and of its object
TURNS = 5
RESAMPLES = 1000
GRABCUT_ROUNDS = 3
DISC = 0.08  # of the longer side: the radius about the first click that GrabCut takes for likely the object
SURE_DISC = 3  # pixels about each click that are what it says
TOLERANCE = 14  # grey levels, for growing


def main() -> None:
    """Do one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"train": train_it, "measure": measure_it, "time": time_it, "adapt": adapt_it, "pack": pack_it}
    parser.add_argument("part", choices=parts)
    parser.add_argument("--steps", type=int, help=f"of training; {STEPS} without it")
    parser.add_argument(
        "--minutes", type=float, help=f"after which the clock ends training; {MINUTES:g} for adapt without --steps"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/sam_nano"), help="the run that train makes, or the file of pack")
    parser.add_argument("--frozen", action="store_true", help="train what comes after the encoder alone")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is in --out")
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=VALUE", help="replaces settings of the plan")
    parser.add_argument("--run", default=NETWORK, help="the run to measure, to time, to adapt or to pack")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for training")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--init", default=TIMM, help="what train starts from: ImageNet's encoder, or an earlier run")
    parser.add_argument("--on", nargs="*", help="the data sets to measure on; all without it")
    parser.add_argument("--most", type=int, default=24, help="images of a data set to measure on, evenly spread")
    parser.add_argument("--sides", nargs="*", default=[NETWORK, "grabcut", "grow"], help="what to measure")
    parser.add_argument("--all", action="store_true", help="also count clicks")
    parser.add_argument("--json", type=Path, help="a file to which each row is appended")
    arguments = parser.parse_args()
    parts[arguments.part](arguments)


def train_it(arguments: argparse.Namespace) -> None:
    """A run on all that is free."""
    from segwright.plans.plan import Plan
    from segwright.training.loop import train

    val = mixed([drawn_objects(8, seed=1), synthetic.streets(4, seed=1), synthetic.cells(2, seed=1)])
    parts = [drawn_objects(SHAPES), synthetic.streets(STREETS), synthetic.cells(CELLS)]
    nuclei = arguments.data / "nuclei" / "train"
    parts += [open_dataset(nuclei)] if nuclei.exists() else []
    plan = Plan.read(arguments.out) if arguments.resume else planned_by_hand(arguments)
    model = train(
        plan,
        arguments.out,
        splits=Splits(mixed(parts), val),
        resume=arguments.resume,
        minutes=arguments.minutes,
        watchers=[told],
    )
    print(model)


def planned_by_hand(arguments: argparse.Namespace) -> Any:
    """The plan of a new run."""
    from segwright.models import preset
    from segwright.optimisers import adamw
    from segwright.plans.plan import Augmentation, Data, Inference, Init, Plan, Training
    from segwright.tasks.promptable import Promptable
    from segwright.transforms.gaussian_blur import GaussianBlur
    from segwright.transforms.geometric import Geometric
    from segwright.transforms.intensity import Intensity
    from segwright.transforms.jpeg import Jpeg
    from segwright.transforms.low_resolution import LowResolution
    from segwright.transforms.normalise import Normalise
    from segwright.transforms.prepare import Preprocess
    from segwright.transforms.shadow import Shadow

    normalise = Normalise(mean=(127.0,) * 3, std=(128.0,) * 3)  # as the encoder's weights know images
    steps = steps_of(arguments, STEPS)
    plan = Plan(
        task=Promptable(),
        data=Data(train="benchmarks/fit_sam_nano.py", preprocess=Preprocess(channels=3, normalise=normalise)),
        augmentation=Augmentation(
            geometric=Geometric(scale=SCALES, rotate_deg=20.0, flip_axes=(-1,)),
            intensity=Intensity(),
            shadow=Shadow(probability=0.2),
            blur=GaussianBlur(probability=0.2),
            low_resolution=LowResolution(probability=0.2),
            jpeg=Jpeg(probability=0.2),
        ),
        model=preset(NETWORK),
        optimiser=adamw.Config(learning_rate=LEARNING_RATE if arguments.init == TIMM else TUNING_RATE),
        training=Training(
            steps=steps,
            batch_size=arguments.batch,
            crop=(CROP, CROP),
            frozen=("encoder",) if arguments.frozen else FIRST,
            num_crops=CROPS,
            device=arguments.device,
            precision="bf16-mixed",
            channels_last=True,
            validations=max(1, min(10, steps // (2 * STEPS_A_MINUTE))),
        ),
        inference=Inference(tile=(SIDE, SIDE)),
        init=Init(weights=arguments.init),
    )
    return plan.with_settings(arguments.set) if arguments.set else plan


def steps_of(arguments: argparse.Namespace, otherwise: int) -> int:
    """The steps of a run: as many as were asked for, or as may fit into the minutes, which then end it."""
    if arguments.minutes is not None:
        return max(1, round(STEPS_A_MINUTE * arguments.minutes))
    return otherwise if arguments.steps is None else arguments.steps


def told(record: dict[str, Any]) -> None:
    """Print what a run says of itself from time to time."""
    if "score" in record:
        print(f"step {record['step']}, {record['seconds']:.0f} s: {record['metric']} {record['score']:.3f}", flush=True)


def mixed(parts: Sequence[Dataset]) -> Dataset:
    """Several data sets as one, of which everything that can be clicked on is an object."""
    homes = {f"{number}_{key}": (clickable_objects(part), key) for number, part in enumerate(parts) for key in part.keys}

    def load(name: str) -> Sample:
        data, key = homes[name]
        return replace(data.load(key), key=name)

    return Dataset("several", OBJECT, tuple(homes), load)


def measured_sets(folder: Path, most: int) -> dict[str, Dataset]:
    """The data sets that are here, none of which was trained with, some images of each."""
    found: dict[str, Dataset] = {}
    if (folder / "camvid").exists():
        data = open_dataset(folder / "camvid" / "val")
        found["camvid"] = data.subset(data.keys[::EVERY])
    if (folder / "membrane").exists():
        found["membrane"] = open_dataset(folder / "membrane")
    if (folder / "coco_panoptic").exists():
        found["coco_panoptic"] = open_dataset(folder / "coco_panoptic" / "panoptic_examples.json")
    if (folder / "nuclei").exists():
        trained = {path.stem for path in (folder / "nuclei" / "train" / "images").iterdir()}
        groups = json.loads((folder / "nuclei" / "tile_groups.json").read_text())
        touching = {key for group in groups if not trained.isdisjoint(group) for key in group}
        data = open_dataset(folder / "nuclei" / "val")
        found["nuclei"] = data.subset([key for key in data.keys if key not in touching])
    return {name: data.subset(data.keys[:: -(-len(data) // most)]) for name, data in found.items()}


def measure_it(arguments: argparse.Namespace) -> None:
    """Print a row per data set and side, as they finish, and how far each baseline is from the network."""
    scores = ALL if arguments.all else FEW
    print("| data | side | clicks | images |", " | ".join(scores), "| s a click |")
    print("|---|---|---|--:|" + "--:|" * (len(scores) + 1), flush=True)
    for name, data in measured_sets(arguments.data, arguments.most).items():
        if arguments.on is not None and name not in arguments.on:
            continue
        for is_centred in (True, False):
            where, tables = "centre" if is_centred else "jittered", dict[str, dict[str, Any]]()
            for side in arguments.sides:
                tables[side], seconds = clicked(opener(side, arguments.run), data, scores, is_centred=is_centred)
                first, *others = tables[side].values()
                values = NumberOfClicks().score(sum(others, first))
                numbers = " | ".join(f"{values[score]:.3f}" for score in scores)
                print(f"| {name} | {side} | {where} | {len(tables[side])} | {numbers} | {seconds:.4f} |", flush=True)
                if arguments.json:
                    row = {"data": name, "side": side, "clicks": where, "s a click": seconds}
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(row | {score: float(values[score]) for score in scores}) + "\n")
            for side in [side for side in arguments.sides if side != NETWORK and NETWORK in tables]:
                tell_difference(f"{name}, {where}, {side} -> {NETWORK}", tables[side], tables[NETWORK])


def clicked(
    opened: Callable[[Sample], Any], data: Dataset, scores: Sequence[str], *, is_centred: bool = True
) -> tuple[dict[str, Any], float]:
    """What the clicks on the objects of each image came to, by its key, and the median seconds of one."""
    counter = counter_of_clicks(scores, data.classes)
    user = SimulatedUser(opened, clicks_for(counter), is_centred=is_centred)
    counts = {counted.key: counted.states[METRIC] for counted, _, _ in counted_clicks(user, data, counter) if counted.states}
    return counts, median(user.clicked)


def tell_difference(what: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Print how the second side of the same images differs from the first, and whether chance explains it."""
    tables = [*first.values()], [second[key] for key in first]
    for each in differences(NumberOfClicks(), *tables, RESAMPLES, np.random.default_rng(0), scores=FEW):
        between = interval_text(each.interval, "{:+.3f}".format) or "unknown"
        print(f"{what}: {each.score} {each.first:.3f} -> {each.second:.3f} ({between}, p {each.p:.3g})", flush=True)


def time_it(arguments: argparse.Namespace) -> None:
    """Print what an image takes to open, and a click on its one object to answer, at the median."""
    mask = cv2.circle(np.zeros((SIDE, SIDE), np.uint8), (SIDE // 2, SIDE // 2), DISC_RADIUS, 1, -1) > 0
    image = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    truth, opened = Segmentation.instances(mask[None], [0], classes=OBJECT), opener(NETWORK, arguments.run)
    SimulatedUser(opened)(Sample.of("", image), truth)  # compiles what is not compiled yet
    user = SimulatedUser(opened)
    for _ in range(TURNS):
        user(Sample.of("", image), truth)
    image_ms, click_ms = (1000 * median(seconds) for seconds in (user.opened, user.clicked))
    print(f"{SIDE} x {SIDE}: {image_ms:.1f} ms to open, {click_ms:.1f} ms a click ({len(user.clicked)} clicks)")


def opener(side: str, run: str | Path) -> Callable[[Sample], Any]:
    """What opens images for a side."""
    if side == "grabcut":
        return lambda sample: GrabCut(pixels_of(sample))
    if side == "grow":
        return lambda sample: Grow(pixels_of(sample))
    from segwright.inference.prompting import open_prompter

    return replace(open_prompter(run), cache=None).open_sample


def pixels_of(sample: Sample) -> np.ndarray:
    """An image of 8 bits as OpenCV takes it, uint8 (H, W, 3)."""
    image = np.repeat(sample.image, 3, axis=0) if len(sample.image) == 1 else sample.image
    return np.ascontiguousarray(image.transpose(1, 2, 0).astype(np.uint8))


@dataclass(frozen=True)
class GrabCut:
    """OpenCV's GrabCut, told by clicks."""

    image: np.ndarray

    def segment(self, *prompts: Prompt) -> Segmentation:
        """The objects; what GrabCut cannot tell apart is the disc about the first click."""
        return objects_of([self.mask(prompt) for prompt in prompts])

    def mask(self, prompt: Prompt) -> np.ndarray:
        """One object, bool (H, W)."""
        height, width = self.image.shape[:2]
        labels = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
        clicks = clicks_of(prompt)
        cv2.circle(labels, clicks[0][0], max(SURE_DISC + 1, round(DISC * max(height, width))), cv2.GC_PR_FGD, -1)
        for centre, is_foreground in clicks:
            cv2.circle(labels, centre, SURE_DISC, cv2.GC_FGD if is_foreground else cv2.GC_BGD, -1)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)  # its clusters begin at random
        with suppress(cv2.error):  # all pixels of one kind
            cv2.grabCut(self.image, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
        return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


@dataclass(frozen=True)
class Grow:
    """What is connected to clicks and about as bright, less what grows from clicks beside the object."""

    image: np.ndarray

    def segment(self, *prompts: Prompt) -> Segmentation:
        """The objects."""
        smooth = cv2.bilateralFilter(self.image, 5, 20, 5)
        return objects_of([grown(smooth, prompt) for prompt in prompts])


def grown(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """One object of an image uint8 (H, W, 3), bool (H, W)."""
    masks = [np.zeros(image.shape[:2], bool) for _ in range(2)]
    for centre, is_foreground in clicks_of(prompt):
        mask = np.zeros([side + 2 for side in image.shape[:2]], np.uint8)
        flags = 8 | (1 << 8) | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE
        cv2.floodFill(image, mask, centre, 0, (TOLERANCE,) * 3, (TOLERANCE,) * 3, flags)
        masks[is_foreground] |= mask[1:-1, 1:-1] > 0
    return masks[True] & ~masks[False]


def clicks_of(prompt: Prompt) -> list[tuple[tuple[int, int], bool]]:
    """The pixels (column, row) of clicks, and whether they lie on the object."""
    places = [(int(x), int(y)) for x, y in prompt.points_xy]
    return list(zip(places, prompt.is_foreground.tolist(), strict=True))


def objects_of(masks: Sequence[np.ndarray]) -> Segmentation:
    """Masks bool (H, W) as an answer."""
    return Segmentation.instances(np.stack(masks), [0] * len(masks), classes=OBJECT)


def adapt_it(arguments: argparse.Namespace) -> None:
    """Print the scores before and after, and whether chance explains the difference."""
    from segwright.training.loop import train

    some, held_out = open_dataset(arguments.data / "camvid" / "train"), measured_sets(arguments.data, arguments.most)["camvid"]
    keys = some.keys[:: len(some) // ADAPTED][:ADAPTED]
    if arguments.minutes is None and arguments.steps is None:
        arguments.minutes = MINUTES
    arguments.init, arguments.frozen = SHIPPED if arguments.run == NETWORK else arguments.run, True
    plan = planned_by_hand(arguments)
    training = replace(plan.training, validations=1, num_crops=VARIANTS * len(keys))
    plan = replace(plan, data=replace(plan.data, train=some.source), training=training)
    out = arguments.out.with_name(f"{arguments.out.name}_adapted")
    splits = Splits(some.subset(keys), held_out.subset(held_out.keys[:2]))
    train(plan, out, splits=splits, minutes=arguments.minutes, watchers=[told])
    before, after = (clicked(opener(NETWORK, run), held_out, FEW)[0] for run in (arguments.run, out))
    tell_difference(f"{len(keys)} images, on {len(after)} others", before, after)


def pack_it(arguments: argparse.Namespace) -> None:
    """Write the weights of a run with half the bytes, and print how many, and the digest by which the package knows them."""
    from safetensors.torch import save_file

    from segwright.checkpoints.model_file import ModelFile, model_file_of

    given = ModelFile.read(model_file_of(Path(arguments.run))).weights
    weights = {name: value.half() if value.is_floating_point() else value for name, value in given.items()}
    about = {"network": NETWORK, "licence": "Apache-2.0", "trained by": f"benchmarks/{Path(__file__).name}"}
    save_file(weights, arguments.out, about)
    digest = hashlib.sha256(arguments.out.read_bytes()).hexdigest()
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


if __name__ == "__main__":
    main()

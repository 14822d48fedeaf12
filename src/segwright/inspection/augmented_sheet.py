"""What a network will see of a data set: crops as the planner would have them made, each with its truth over it.

Axes: C channels, K classes, *S spatial axes, H, W; pictures are RGB uint8 (H, W, 3).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from segwright.codecs.image_writer import write_picture
from segwright.core import VOID, Classes, Dataset
from segwright.core.classes import background_of
from segwright.core.visualise import overlay
from segwright.data.fingerprint import Fingerprint, fingerprint
from segwright.data.splits import open_splits, remembered
from segwright.inspection.contact_sheet import Color, PictureRow, contact_sheet, hatched
from segwright.inspection.finding import plural
from segwright.planning.budget import Budget
from segwright.planning.planner import drafted
from segwright.planning.rules import crop_for, on_grid
from segwright.planning.trial import divisors_of
from segwright.plans.plan import Augmentation, Data, Plan
from segwright.reports.html.pictures import DARK, drawable
from segwright.tasks.semantic import Semantic
from segwright.training.dataloader import CropDataset
from segwright.transforms.normalise import Normalise
from segwright.transforms.resize import resize_image, resize_labels

ROWS, DRAWS = 6, 5  # images, and crops of each: what fits a screen and still shows what chance does
CELL = 264  # pixels: the longer side of a picture
STRENGTH = 0.35  # of class colours over the image: what is under them matters here
MAX_LEGEND = 40  # names; of more classes, only those in the pictures are named
SHOWN = (0.5, 99.5)  # percentiles of values that become black and white, where they are no bright 8-bit ones
VALUES = ("brightness", "contrast", "gamma", "saturation", "noise")
MIRRORED = {-1: "left to right", -2: "top to bottom", -3: "front to back"}
CHANCES = {"shadow": "a shadow", "blur": "blur", "low_resolution": "low resolution", "jpeg": "JPEG"}


def write_augmented_sheet(path: Path | str, data: str, format: str | None = None, settings: Sequence[str] = ()) -> None:
    """Write a picture of crops of some training images, made as the planner would before it times anything.

    Each row is an image: as it is, and several draws of a crop and its augmentation, with the truth in the colours of the
    legend. Of volumes the middle slices are shown. Values are shown in the range of the image as it is, so that brightness
    and contrast can be compared; what is void, as beyond the image, is hatched. `settings` such as
    "augmentation.jpeg.probability=0.5" replace what the planner chose.

    Raises:
        UsageError: the data cannot be learned from, or a setting does not exist.
        OutputError: the place cannot be written, or its name ends neither in .png nor in .jpg.
    """
    train_set = Semantic().dataset(remembered(open_splits(data, format=format)).train)
    classes, found = train_set.classes, fingerprint(train_set)
    plan = _plan_of(data, found, train_set, settings)
    seen: set[int] = set()
    rows = []
    for number, index in enumerate(np.unique(np.linspace(0, len(train_set) - 1, ROWS).round().astype(int))):
        rows.append(_row(train_set, plan, train_set.keys[index], number * DRAWS, seen))
    named = range(len(classes)) if len(classes) <= MAX_LEGEND else sorted(seen - {VOID})
    ground = background_of(classes)
    legend: list[tuple[str, Color | None]] = [(classes.names[k], classes.colors[k]) for k in named if k != ground]
    legend += [("void, teaches nothing", None)] if VOID in seen else []
    title = f"What a network will see of {'/'.join(Path(data).parts[-2:]) or data}"
    what = plural(len(train_set), "volume" if found.axes == 3 else "image")
    text = f"{what} to train with, crops of {_sides(plan.training.crop)}. {_in_words(plan.augmentation)}"
    columns = ["as it is", *(f"draw {n + 1}" for n in range(DRAWS))]
    write_picture(path, contact_sheet(title, text, legend, columns, rows))


def _plan_of(data: str, found: Fingerprint, train_set: Dataset, settings: Sequence[str]) -> Plan:
    """The plan that the planner starts from, with the crop for its first network, in the values of the files."""
    draft = drafted(Data(train=data), Semantic, found, train_set, Budget())
    channels = draft.data.preprocess.channels
    as_stored = Normalise(mean=(0.0,) * channels, std=(1.0,) * channels)  # all changes are relative to an image's own values
    crop = crop_for(on_grid(found, draft.data.preprocess), 1.0, divisors_of(draft.model, found.axes))
    plan = replace(
        draft,
        data=replace(draft.data, preprocess=replace(draft.data.preprocess, normalise=as_stored)),
        training=replace(draft.training, crop=crop),
    )
    return plan.with_settings(settings) if settings else plan


def _row(train_set: Dataset, plan: Plan, key: str, position: int, seen: set[int]) -> PictureRow:
    """The pictures of an image, whose crops begin at a position of the run; the classes in them are added to `seen`."""
    crops = CropDataset.of(train_set.subset([key]), plan)
    sample = crops.store.read(key).whole()
    views = [(plan.data.preprocess.values(sample.image), plan.task.target(sample))]
    views += [crops[place][1:] for place in range(position, position + DRAWS)]
    low, high = _range_of(sample.image)
    pictures = []
    for values, class_map in views:
        levels = np.clip((values - low) / (high - low), 0, 1) * 255
        pictures.append(_picture(np.rint(levels).astype(np.uint8), class_map, train_set.classes))
        seen |= set(np.unique(class_map).tolist())
    return PictureRow(f"{key}, {_sides(sample.grid.shape)}", pictures)


def _range_of(image: np.ndarray) -> tuple[float, float]:
    """The values that are shown as black and as white: 0 and 255 of bright 8-bit images, else percentiles."""
    known = image[np.isfinite(image)]
    low, high = (float(value) for value in np.percentile(known, SHOWN)) if known.size else (0.0, 1.0)
    if image.dtype == np.uint8 and high >= DARK:
        return 0.0, 255.0
    return low, max(high, low + 1e-6)  # 1e-6: an image of one value


def _picture(image: np.ndarray, class_map: np.ndarray, classes: Classes) -> np.ndarray:
    """An image uint8 (C, *S) with its class map (*S) over it, whose longer side has CELL pixels; void is hatched.

    Background has a border but no colour, since it would cover most of what there is to be seen.
    """
    image, class_map = drawable(image, class_map)
    scale = CELL / max(class_map.shape)
    shape = tuple(max(1, round(side * scale)) for side in class_map.shape)
    image, class_map = resize_image(image, shape), resize_labels(class_map[None], shape)[0]
    ground = background_of(classes)
    picture = overlay(image, class_map, classes.palette, STRENGTH)
    if ground is not None:
        colorless = overlay(image, class_map, classes.palette, 0.0)
        picture = np.where((class_map == ground)[..., None], colorless, picture)
    return hatched(picture, class_map == VOID)


def _sides(shape: tuple[int, ...]) -> str:
    """A spatial shape in letters that every font has, height first."""
    return " x ".join(map(str, shape))


def _in_words(augmentation: Augmentation) -> str:
    """What is changed, as a sentence."""
    place, values = augmentation.geometric, augmentation.intensity
    scale, turn, bend = (_often(getattr(place, f"{name}_probability")) for name in ("scale", "rotate", "elastic"))
    words = [f"scaled by {place.scale[0]:g} to {place.scale[1]:g}{scale}"]
    words += [f"turned by up to {place.rotate_deg:g} degrees{turn}"]
    words += [f"mirrored {', '.join(MIRRORED[axis] for axis in place.flip_axes)}"] if place.flip_axes else []
    words += [f"bent by {place.elastic_px:g} pixels{bend}"] if place.elastic_px else []
    others = [f"{name}{_often(getattr(values, f'{name}_probability'))}" for name in VALUES if getattr(values, name)]
    words += [f"other {', '.join(others)}"]
    changes = [(words_of, getattr(augmentation, name).probability) for name, words_of in CHANCES.items()]
    words += [f"{name} in {share:.0%}" for name, share in changes if share]
    return f"Each crop is {'; '.join(words)}."


def _often(probability: float) -> str:
    """How many crops a change is made to, where that is not each."""
    return "" if probability == 1 else f" in {probability:.0%}"

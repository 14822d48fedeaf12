"""How time and memory grow: ours alone, at three sizes each. Axes: N images, *S spatial axes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from metric_cases import average_precision, confusion, panoptic, surface
from metric_cases.case import Case, Side, kept
from metric_cases.scenes import many_classes, regions, wobbled

PANOPTIC = "100 images of 480 x 640, 133 classes"


def cases() -> Iterator[Case]:
    """More images, then larger ones."""
    for images in (125, 250, 500):
        yield alone("AP from RLE", f"{images} images", images, "images", partial(objects, images), our_objects)
    for images in (25, 50, 100):
        yield alone("PQ", f"{images} images", images, "images", partial(segments, images), panoptic.ours)
    for side in (512, 1024, 2048):
        pixels = side * side / 1e6
        yield alone("confusion matrix", f"{side} x {side}", pixels, "Mpx", partial(maps, side), confusion.ours, cores=1)
        yield alone("PQ", f"one image of {side} x {side}", pixels, "Mpx", partial(scene, side), panoptic.ours, cores=1)
    for side in (256, 512, 1024):
        make = partial(masks, (side, side))
        yield alone("HD95", f"{side} x {side}", side * side / 1e6, "Mpx", make, partial(surface.ours, "Surface"))
    for side in (64, 128, 256):
        make = partial(masks, (side, side, side))
        yield alone("HD95", f"{side} x {side} x {side}", side**3 / 1e6, "Mpx", make, partial(surface.ours, "Surface"))


def alone(what: str, size: str, amount: float, units: str, make: Any, run: Any, cores: int = 2) -> Case:
    """A case of one side."""
    sides = {"segwright": Side(run=run)}
    return Case(group="growth", name=f"{what}, {size}", make=make, sides=sides, amount=amount, units=units, cores=cores)


def objects(images: int, is_small: bool) -> dict:
    """COCO's lists of the first images of a set."""
    data = average_precision.lists(many_classes, 500, is_small)
    known = {image["id"] for image in data["truth"]["images"][:images]}
    truth = {**data["truth"], "images": data["truth"]["images"][:images]}
    truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] in known]
    return {"truth": truth, "results": [each for each in data["results"] if each["image_id"] in known]}


def our_objects(data: dict) -> dict[str, float]:
    """AP from lists, which are not written into."""
    return average_precision.ours(average_precision.COCO, data)


def segments(images: int, is_small: bool) -> Any:
    """The first images of a set."""
    return panoptic.as_segmentations(panoptic.make(PANOPTIC, panoptic.SETS[PANOPTIC], 2 if is_small else images))


def scene(side: int, is_small: bool) -> Any:
    """One image with objects whose number does not depend on its size."""
    side = 256 if is_small else side
    return panoptic.as_segmentations(panoptic.make(f"scene {side}", (1, (side, side), 80, 53, 40), 1))


def maps(side: int, is_small: bool) -> list:
    """A pair of class maps."""
    side = 256 if is_small else side

    def pair() -> list:
        truth = regions(np.random.default_rng(0), (side, side), confusion.K)
        return [(wobbled(np.random.default_rng(1), truth, 6.0), truth)]

    return kept(f"maps {side}", pair)


def masks(shape: tuple[int, ...], is_small: bool) -> list:
    """A pair of masks with a structure that grows with the image."""
    shape = (64,) * len(shape) if is_small else shape
    return surface.as_segmentations(kept(f"masks {shape}", lambda: surface.masks(1, shape)))

"""Data sets of which the objects alone are learned. Axes: P planes, *S spatial axes."""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError


def objects_alone(data: Dataset) -> Dataset:
    """The data set with its things as the only classes, and with segments of stuff left out, whose pixels are then nothing.

    A piece of a thing that no number tells from its neighbours, as semantic masks have, is void: it may be several objects.

    Raises:
        UsageError: no class is a thing.
    """
    things = [k for k, is_thing in enumerate(data.classes.is_thing) if is_thing]
    if not things:
        raise UsageError(
            f"{data.source} has no class of things, so that there are no objects to learn (its classes are "
            f"{', '.join(data.classes.names)}); learn the class of each pixel with --task semantic, or, where the masks do "
            'number objects, say so in its classes.json: {"masks": "instances"}'
        )
    classes = things_of(data.classes)
    return replace(data, classes=classes, load=_ObjectsAlone(data, classes, tuple(things)))


def things_of(classes: Classes) -> Classes:
    """The things among some classes; all of them where none is one."""
    things = [k for k, is_thing in enumerate(classes.is_thing) if is_thing]
    if len(things) in (0, len(classes)):
        return classes
    return Classes(tuple(classes.names[k] for k in things), tuple(classes.colors[k] for k in things), (True,) * len(things))


@dataclass(frozen=True, eq=False)
class _ObjectsAlone:
    """Loads samples whose truth holds the objects of some classes, the `things`, alone."""

    data: Dataset
    classes: Classes
    things: tuple[int, ...]

    def __call__(self, key: str) -> Sample:
        return self._kept(self.data.load(key))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return self._kept(self.data.without_images().load(key))

    def _kept(self, sample: Sample) -> Sample:
        if sample.truth is None:
            return sample
        truth = sample.truth
        class_of = np.full(len(truth.classes), -1)
        class_of[list(self.things)] = np.arange(len(self.things))
        is_thing = class_of[truth.class_ids] >= 0
        is_object = is_thing & (truth.instance_ids > 0)
        number = np.where(is_thing, VOID, 0)
        number[is_object] = np.arange(1, int(is_object.sum()) + 1)
        number = np.concatenate([[VOID, 0], number]).astype(np.int32)  # of void, nothing, the segments
        kept = Segmentation(
            number[truth.planes + 1],
            class_of[truth.class_ids[is_object]].astype(np.int32),
            truth.instance_ids[is_object],
            truth.scores[is_object],
            self.classes,
        )
        return replace(sample, truth=kept)

"""What training will see of each class, and how much of the loss it is. Axes: B batch, K classes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segwright.core import Sample
from segwright.tasks import WeighsClasses
from segwright.training.dataloader import CropDataset

CROPS = 48  # looked at: a class that is in half of the crops is then told to within 7 points
SECONDS = 1.5  # that looking may take, of large images; a few crops are looked at anyway
FEWEST_CROPS = 8
CHARGED_BATCHES = 3  # of which the loss is asked; more change its shares little
SHOWN = 12  # classes, the rarest ones; a longer table is not read


@dataclass(frozen=True, eq=False)
class ClassBalance:
    """How classes fare in the first crops of a run, by its sampler and its loss.

    `pixels` (K,) are shares of the known pixels of these crops, `crops` (K,) shares of the crops that hold a class, `loss` (K,)
    the shares of what the loss charges where one class after the other is missed; None where the task tells no charges.
    """

    names: tuple[str, ...]
    count: int
    batch_size: int
    pixels: np.ndarray
    crops: np.ndarray
    loss: np.ndarray | None

    @classmethod
    def of(cls, crops: CropDataset) -> "ClassBalance":
        """The balance of the first crops of a run, of which no image is made."""
        plan, classes = crops.plan, crops.store.dataset.classes
        seen, started = list[Sample](), time.monotonic()
        while len(seen) < CROPS and (len(seen) < FEWEST_CROPS or time.monotonic() - started < SECONDS):
            seen.append(crops.truth(len(seen)))
        counts = np.stack([_pixels(crop, len(classes)) for crop in seen])  # (crops, K)
        batch_size = plan.training.batch_size
        loss = None
        if isinstance(plan.task, WeighsClasses) and len(classes) > 1:
            starts = range(0, min(len(seen), CHARGED_BATCHES * batch_size), batch_size)
            charges = sum(plan.task.charges(seen[start : start + batch_size], len(classes)) for start in starts)
            loss = np.maximum(charges, 0) / max(
                float(np.maximum(charges, 0).sum()), 1e-12
            )  # 1e-12: a loss that charges nothing
        return cls(
            classes.names,
            len(seen),
            batch_size,
            counts.sum(axis=0) / max(float(counts.sum()), 1.0),
            (counts > 0).mean(axis=0),
            loss,
        )

    def told(self) -> str:
        """The balance in a sentence and a table, of the rarest classes where there are many."""
        header = ["class", "pixels", f"crops of {self.batch_size}", *(["loss"] if self.loss is not None else [])]
        rows = [
            [
                self.names[k],
                f"{self.pixels[k]:.2%}",
                f"{self.batch_size * self.crops[k]:.1f}",
                *([f"{self.loss[k]:.0%}"] if self.loss is not None else []),
            ]
            for k in (range(len(self.names)) if len(self.names) <= SHOWN else np.argsort(self.pixels, kind="stable")[:SHOWN])
        ]
        more = f"; the {SHOWN} rarest of {len(self.names)} classes" if len(self.names) > SHOWN else ""
        what = " and, by class, what the loss charges for missing it" if self.loss is not None else ""
        title = f"what training will see, in {self.count} crops: pixels, crops of a batch that hold a class{what}{more}"
        return "\n".join([title, *_aligned([header, *rows])])


def _pixels(crop: Sample, num_classes: int) -> np.ndarray:
    """The pixels of each class in a crop, int64 (K,)."""
    counts = np.zeros(num_classes, np.int64)
    if crop.truth is not None:
        np.add.at(counts, crop.truth.class_ids, crop.truth.areas())
    return counts


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]

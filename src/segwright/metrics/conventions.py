"""What libraries do where a definition leaves room: how images are averaged, what an absent class counts, what void means.

A score is only comparable with one of the same convention. The table `CONVENTIONS` holds those of well-known libraries, each
with the call whose number it reproduces.
"""

from dataclasses import dataclass, fields
from typing import Literal

from segwright.core import Classes
from segwright.core.classes import background_of
from segwright.core.errors import UnknownNameError
from segwright.core.lookup import did_you_mean

Images = Literal["added up", "averaged", "averaged by class", "averaged with classes"]
AbsentFrom = Literal["truth and prediction", "truth"]
Background = Literal["a class", "not averaged", "void"]
Void = Literal["left out", "no class"]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The choices behind scores of pixels by class.

    `images`: the pixels of all images are "added up" before anything is divided; or each image has scores of its own, and
    "averaged" means over its classes, then over images; "averaged by class" over images, then over classes; "averaged with
    classes" over all classes of all images at once.
    `absent_score`: what a class counts where it is absent, None where it is left out of means.
    `absent_from`: a class is absent if neither the truth nor the prediction holds it, or as soon as the truth does not.
    `background`: the class of that name is "a class" like others; "not averaged" in means over classes; or "void", pixels whose
    truth it is count as nobody's. Without a class of that name, this says nothing.
    `void`: pixels void in the truth are "left out", or have "no class", so that whatever is predicted there is wrong.
    """

    images: Images = "added up"
    absent_score: float | None = None
    absent_from: AbsentFrom = "truth and prediction"
    background: Background = "a class"
    void: Void = "left out"

    def sentence(self, classes: Classes) -> str:
        """The convention in words, for scores of these classes."""
        return f"{' '.join(part[0].upper() + part[1:] + '.' for part in self.words(classes).values())} {NO_CLASS}"

    def words(self, classes: Classes) -> dict[str, str]:
        """What each field means, by its name, for scores of these classes."""
        has_background = background_of(classes) is not None
        return {
            "images": IMAGES[self.images],
            "absent_score": f"an absent class {OUT if self.absent_score is None else f'counts {self.absent_score:g}'}",
            "absent_from": ABSENT[self.absent_from],
            "background": BACKGROUND[self.background] if has_background else "no class is called background: all are averaged",
            "void": VOID[self.void],
        }

    def differences(self, other: "Convention") -> tuple[str, ...]:
        """The names of the fields in which two conventions differ."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name))


IMAGES = {
    "added up": "pixels of all images are added up before anything is divided",
    "averaged": "each image is scored, a mean over its classes, and images are averaged",
    "averaged by class": "each image is scored, classes are averaged over images and then over classes",
    "averaged with classes": "each image is scored, and means are over all classes of all images at once",
}
OUT = "is NaN and left out of means"
ABSENT = {
    "truth and prediction": "a class is absent where neither the truth nor the prediction holds it",
    "truth": "a class is absent where the truth does not hold it, whatever is predicted",
}
BACKGROUND = {
    "a class": "background is a class like others",
    "not averaged": "background is left out of means over classes",
    "void": "pixels whose truth is background are left out, and so is background of means",
}
VOID = {
    "left out": "pixels void in the truth are left out",
    "no class": "pixels void in the truth have no class, so that any class predicted there is wrong",
}
NO_CLASS = "A pixel given no class counts as wrong."


@dataclass(frozen=True)
class _Named:
    """A convention and the call whose numbers it reproduces."""

    convention: Convention
    reproduces: str


SEGWRIGHT = Convention()
CONVENTIONS = {
    "segwright": _Named(SEGWRIGHT, "what this program does unless told otherwise"),
    "cityscapes": _Named(Convention(), "cityscapesScripts, evalPixelLevelSemanticLabeling: averageScoreClasses"),
    "mmsegmentation": _Named(Convention(), "mmseg IoUMetric: aAcc, mIoU, mAcc, mDice, mPrecision, mRecall"),
    "mmsegmentation_zero_label": _Named(
        Convention(background="void"), "mmseg IoUMetric on labels read with reduce_zero_label=True, as of ADE20K"
    ),
    "detectron2": _Named(Convention(absent_from="truth"), "detectron2 SemSegEvaluator: mIoU, fwIoU, mACC, pACC"),
    "torchmetrics": _Named(
        Convention(images="averaged with classes", void="no class"), "torchmetrics.segmentation.MeanIoU() since 1.7.1"
    ),
    "torchmetrics_1_7_0": _Named(
        Convention(images="averaged", absent_score=0.0, void="no class"),
        "torchmetrics.segmentation.MeanIoU() from 1.5 to 1.7.0, in batches of one size",
    ),
    "torchmetrics_dice": _Named(
        Convention(images="averaged", void="no class"), "torchmetrics.segmentation.DiceScore(average='macro')"
    ),
    "torchmetrics_jaccard": _Named(
        Convention(background="void"), "torchmetrics MulticlassJaccardIndex(ignore_index=the background)"
    ),
    "monai": _Named(
        Convention(images="averaged", absent_from="truth", void="no class"), "monai.metrics.DiceMetric() and MeanIoU()"
    ),
    "monai_by_class": _Named(
        Convention(images="averaged by class", absent_from="truth", background="not averaged", void="no class"),
        "the mean of monai.metrics.DiceMetric(include_background=False, reduction='mean_batch')",
    ),
    "monai_with_empty": _Named(
        Convention(images="averaged", absent_score=1.0, void="no class"), "monai.metrics.DiceMetric(ignore_empty=False)"
    ),
    "nnunet": _Named(
        Convention(images="averaged by class", background="not averaged"), "nnU-Net v2 summary.json: foreground_mean"
    ),
    "smp": _Named(Convention(absent_score=1.0), "smp.metrics.iou_score(*get_stats(..., ignore_index=VOID), reduction='macro')"),
    "smp_imagewise": _Named(
        Convention(images="averaged with classes", absent_score=1.0),
        "smp.metrics.iou_score(*get_stats(..., ignore_index=VOID), reduction='macro-imagewise')",
    ),
}


def convention_named(name: str) -> Convention:
    """The convention of a name in the table.

    Raises:
        UnknownNameError: there is none; the message offers the nearest.
    """
    if name not in CONVENTIONS:
        known = list(CONVENTIONS)
        raise UnknownNameError(f"there is no convention '{name}'{did_you_mean(name, known)}; known are {', '.join(known)}")
    return CONVENTIONS[name].convention

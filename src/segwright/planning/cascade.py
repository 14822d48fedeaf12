"""When a crop sees so little of a volume that a network at a larger spacing should look at all of it first, as in nnU-Net.

The rule is nnU-Net's (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z), for the crop that the planner has chosen: a crop of
so many voxels, which memory and time decide, sees the more of a volume the coarser that is.

Axes: n spatial axes.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from segwright.core import Classes, Dataset
from segwright.data.fingerprint import Fingerprint
from segwright.planning.nnunet_topology import LOW_RESOLUTION, coarser_spacing
from segwright.planning.rules import view_factors
from segwright.planning.start import FIRST
from segwright.plans.commands import command
from segwright.plans.plan import SCALE, SPACING_MM, Cascade, Plan
from segwright.training.first_stage import FirstStage

FOLDS = 5  # of the first run, as in nnU-Net
FIRST_RUN = "FIRST"  # stands for its folder in a command

log = logging.getLogger(__name__)


def first_named(settings: Sequence[str], datasets: Sequence[Dataset], *, device: str, own_modules: bool) -> FirstStage | None:
    """The first stage that settings such as "cascade.first=RUN" name; None where they name none.

    Raises:
        UsageError, FormatError: as `FirstStage.of`.
    """
    words = [setting.partition("=") for setting in settings]
    given = [value.strip().strip("'\"") for path, _, value in words if path.strip() == FIRST]
    return FirstStage.of(given[-1], datasets, device=device, own_modules=own_modules) if given else None


def after_first(draft: Plan, first: FirstStage | None, classes: Classes) -> Plan:
    """A draft whose network sees besides what a first run finds; as it is without one.

    Raises:
        SettingError: the run is for images of other axes.
    """
    if first is None:
        return draft
    preprocess = replace(draft.data.preprocess, class_channels=first.channels)
    network = draft.task.fitted(draft.model, preprocess.all_channels, classes)
    data, cascade = replace(draft.data, preprocess=preprocess), Cascade(first=str(first.first))
    made = replace(draft, data=data, cascade=cascade, model=network)
    first.check(made)
    return made


def with_cascade_reason(plan: Plan, found: Fingerprint, first: FirstStage | None, datasets: Sequence[Dataset]) -> Plan:
    """The plan with what is to be known of its first run, or of one that it should have, which is logged too."""
    why = _missed(plan, found) if first is None else {FIRST: first.told(datasets)}
    for text in why.values():
        log.info(text)
    return replace(plan, reasons=plan.reasons | why)


def _missed(plan: Plan, found: Fingerprint) -> dict[str, str]:
    """What a plan for volumes should tell where a crop sees little of them, with the commands that train both networks.

    Nothing where crops see enough.
    """
    factors = view_factors(plan.data.preprocess, found)
    if found.axes != 3 or len(factors) != found.axes:
        return {}
    usual = [side * factor for side, factor in zip(found.size_median, factors, strict=True)]
    steps = found.spacing_mm or (1.0,) * found.axes
    fine = [step / factor for step, factor in zip(steps, factors, strict=True)]
    coarse = low_resolution(fine, usual, plan.training.crop)
    if coarse is None:
        return {}
    seen = math.prod(plan.training.crop) / math.prod(usual)
    name, numbers = (SPACING_MM, coarse) if found.spacing_mm else (SCALE, [1 / step for step in coarse])
    setting = f"{name}=[{','.join(f'{number:.4g}' for number in numbers)}]"
    first = command("fit", plan.data.train, "--set", setting, "--folds", str(FOLDS), "--out", FIRST_RUN)
    second = command("fit", plan.data.train, "--set", f"{FIRST}={FIRST_RUN}")
    return {
        "cascade": f"a crop sees {seen:.1%} of the usual volume, and {LOW_RESOLUTION:.0%} are enough to know where it is; a "
        f"first network that sees so much comes from: {first}; this one, which sees what that one found, then from: {second}"
    }


def low_resolution(fine: Sequence[float], usual: Sequence[float], crop: Sequence[int]) -> list[float] | None:
    """The spacing (n,) at which a crop (n,) sees enough of the usual volume, of shape (n,) at the spacing `fine` (n,).

    None where it does there, or where the volume would have hardly fewer voxels.
    """

    def inside(_: Sequence[float], shape: Sequence[int]) -> list[int]:
        return [min(side, most) for side, most in zip(crop, shape, strict=True)]

    return coarser_spacing(fine, usual, inside(fine, [round(side) for side in usual]), inside)

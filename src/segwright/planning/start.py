"""The trained weights that a run starts from where nobody names any: those of its encoder, if they lie on this machine.

Nobody is asked for them. Images then reach the network as they did when the weights were trained.
"""

from dataclasses import replace
from statistics import fmean
from typing import Any

from segwright.core.weights import Intake
from segwright.data.fingerprint import Fingerprint
from segwright.encoders import timm
from segwright.plans.plan import Init, Plan
from segwright.training.init import TIMM
from segwright.transforms.normalise import Normalise

SCRATCH = "scratch"  # what a person says who wants random weights
RGB = 3


def with_start(plan: Plan, found: Fingerprint) -> Plan:
    """The plan with the trained weights of its encoder, and with their intake; as it is where there are none."""
    encoder: Any = getattr(plan.model, "encoder", None)
    source = timm.source(encoder.name) if isinstance(encoder, timm.Config) else None
    if source is None:
        return plan
    channels = plan.data.preprocess.channels
    layer = (
        "" if channels == RGB else f"; its first layer takes {channels} channel{'s' * (channels > 1)} for red, green and blue"
    )
    reasons = {"init.weights": f"the encoder was trained on ImageNet, and its weights lie in {source}{layer}"}
    preprocess, intake = plan.data.preprocess, timm.intake(encoder.name)
    if set(found.dtypes) == {"uint8"} and channels in (1, RGB):
        preprocess = replace(preprocess, normalise=_normalise(intake, channels))
        reasons["data.preprocess.normalise"] = "8-bit images, as the weights of the encoder know them"
    return replace(
        plan,
        init=Init(weights=TIMM),
        data=replace(plan.data, preprocess=preprocess),
        reasons=plan.reasons | reasons,
    )


def _normalise(intake: Intake, channels: int) -> Normalise:
    """The normalisation of 8-bit images that weights were trained with; a grey image stands for three equal channels."""
    if channels == RGB:
        return Normalise(mean=intake.mean, std=intake.std)
    return Normalise(mean=(fmean(intake.mean),), std=(fmean(intake.std),))

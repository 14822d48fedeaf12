"""What a run starts from: weights that a person names, or trained ones that lie on this machine; nobody is asked for them.

Images then reach the network as they did when the weights were trained.
"""

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from segwright.checkpoints.model_file import ModelFile, model_file_of
from segwright.checkpoints.named_weights import named_weights
from segwright.checkpoints.published_files import published_file
from segwright.checkpoints.recognise import recognised, shapes
from segwright.core.errors import FormatError, UsageError
from segwright.core.run_files import FIRST_FOLDER
from segwright.core.weights import Intake, Weights, is_permissive
from segwright.data.fingerprint import Fingerprint
from segwright.encoders import timm
from segwright.models import preset, published, published_encoders
from segwright.plans.plan import Init, Plan
from segwright.training.init import TIMM, initialise
from segwright.transforms.normalise import Normalise

FIRST = "cascade.first"  # the setting that names the first run
SCRATCH = "scratch"  # what a person says who wants random weights
RGB = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person says of the start: `weights` as `Init` knows them, "scratch", or None for whatever lies here."""

    weights: str | None = None
    new_head: bool = False
    online: bool = False
    own_modules: bool = False

    @property
    def is_scratch(self) -> bool:
        """Whether random weights are wanted."""
        return self.weights == SCRATCH


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights, the images that they know (None: unknown), why they were taken, and the network that they are of, if of one.

    Those of an earlier run know objects at the `scale` of its views, in pixels for each of an image, and, of a cascade, so many
    `class_channels` of what its first run finds; `preset` is the name of a network that others have published.
    """

    init: Init
    normalise: Normalise | Intake | None
    why: str
    network: Any = None
    scale: float | None = None
    preset: str | None = None
    class_channels: int = 0

    def check(self, network: Any, wish: Wish, class_channels: int) -> None:
        """See now that the weights fit a network, which else would be told once all is planned.

        It sees so many `class_channels`: with others, what the weights know of a first run would count as part of the image.

        Raises:
            UsageError: they do not.
        """
        if self.class_channels not in (0, class_channels):
            run = Path(str(self.init.weights))
            first = (run if run.is_dir() else run.parent) / FIRST_FOLDER
            raise UsageError(
                f"{run} is the second run of a cascade, whose network sees {self.class_channels} classes of the first beside "
                f"the image, and here it would see {class_channels}; give that run too: --set {FIRST}={first}"
            )
        initialise(network.build(), self.init, own_modules=wish.own_modules, online=wish.online)


def named_start(wish: Wish) -> Start | None:
    """What a person names; None where nothing is named, or random weights are wanted.

    Raises:
        UsageError: there are no such weights, or none are named whose head could be left out.
    """
    if wish.weights in (None, SCRATCH):
        if wish.new_head:
            raise UsageError(
                "new_head leaves the head of given weights out, and none are given; name them with init (--init in a command), "
                "or leave new_head (--new-head) out"
            )
        return None
    name = str(wish.weights)
    init = Init(weights=name, new_head=wish.new_head)
    if name == TIMM:
        return Start(init=init, normalise=None, why="set by hand")
    given = named_weights(name, online=wish.online, own_modules=wish.own_modules)
    if given.classes is not None:  # of an earlier run
        plan = ModelFile.read(model_file_of(Path(name)), own_modules=wish.own_modules).plan
        preprocess = plan.data.preprocess
        scale = None if preprocess.spacing_mm is not None else max(preprocess.scale or (1.0,))
        return Start(
            init=init,
            normalise=preprocess.normalise,
            why="set by hand",
            network=plan.model,
            scale=scale,
            class_channels=preprocess.class_channels,
        )
    intake = given.facts.intake if given.facts is not None else Intake()
    why = "set by hand" if given.facts is not None else "set by hand; of images that reach it as ImageNet's do, as most files"
    known = given.facts.preset if given.facts is not None else recognised(given.tensors)
    return Start(init=init, normalise=intake, why=why, network=_network_of(known), preset=known)


def _network_of(name: str | None) -> Any:
    """The network of a published name; None where that is of an encoder, or of a network that cannot be told."""
    try:
        return preset(name) if name is not None else None
    except UsageError:  # an encoder, or a kind of network without a published size
        return None


def found_start(network: Any) -> Start | None:
    """Trained weights of a network, or else of its encoder, that lie on this machine; None where there are none.

    Those whose licence is not known to let everybody use them for everything are left to who names them.
    """
    encoders = published_encoders()
    encoder: Any = getattr(network, "encoder", None)
    for name, weights in published().items():
        is_encoder = name in encoders
        part = encoder if is_encoder else network
        home = sys.modules[type(part).__module__]  # files are looked for first: networks of all sizes take seconds to build
        if weights.preset not in getattr(home, "PRESETS", {}) or not _is_here(name, weights):
            continue
        if not _is_of(weights, part, home.PRESETS[weights.preset], is_encoder=is_encoder):
            continue
        if not weights.is_permissive:
            log.info("the weights %s lie here, under the licence: %s; --init %s starts from them", name, weights.licence, name)
            continue
        what = "its encoder" if is_encoder else "it"
        why = f"{what} was trained on {weights.trained_on}; the weights ({weights.licence}) lie on this machine"
        has_head = not is_encoder and hasattr(network, "num_classes")
        return Start(init=Init(weights=name, new_head=has_head), normalise=weights.intake, why=why)
    source = timm.source(encoder.name) if isinstance(encoder, timm.Config) else None
    if source is None:
        return None
    licence = timm.licence(encoder.name)
    if not is_permissive(licence):
        log.info(
            "the weights of timm's %s lie here, under the licence: %s; --init timm starts from them", encoder.name, licence
        )
        return None
    why = f"the encoder was trained on ImageNet; its weights ({licence}) lie in {source}"
    return Start(init=Init(weights=TIMM), normalise=None, why=why)  # the intake is the encoder's, whoever names it


def _is_of(weights: Weights, part: Any, published_for: Any, *, is_encoder: bool) -> bool:
    """Whether published weights fill a network but for its head and for other channels of images, or fill an encoder."""
    alike = {} if is_encoder else {"in_channels": RGB, "num_classes": max(weights.num_classes, 1)}
    alike = {name: value for name, value in alike.items() if hasattr(part, name)}  # what answers prompts knows no classes
    return shapes(replace(part, **alike)) == shapes(replace(published_for, **alike))


def _is_here(name: str, weights: Weights) -> bool:
    """Whether the file of published weights lies on this machine; one that is damaged is told, and does not count."""
    try:
        published_file(name, weights, online=False)
    except FormatError as error:
        log.warning("the weights %s are not taken: %s", name, error)
        return False
    except UsageError:
        return False
    return True


def with_start(plan: Plan, found: Fingerprint, start: Start | None) -> Plan:
    """The plan with the weights of a start, and with the images that they know; as it is without one."""
    if start is None:
        return plan
    channels, preprocess = plan.data.preprocess.channels, plan.data.preprocess
    layer = (
        "" if channels == RGB else f"; its first layer takes {channels} channel{'s' * (channels > 1)} for red, green and blue"
    )
    reasons = {"init.weights": f"{start.why}{layer}"}
    known = timm.intake(plan.model.encoder.name) if start.init.weights == TIMM else start.normalise
    if isinstance(known, Intake):
        known = _normalise(known, channels) if set(found.dtypes) == {"uint8"} and channels in (1, RGB) else None
    if known is not None and len(known.mean or ()) in (0, channels):
        preprocess = replace(preprocess, normalise=known)
        reasons["data.preprocess.normalise"] = "as the weights that training starts from know images"
    return replace(plan, init=start.init, data=replace(plan.data, preprocess=preprocess), reasons=plan.reasons | reasons)


def _normalise(intake: Intake, channels: int) -> Normalise:
    """The normalisation of 8-bit images that weights were trained with; a grey image stands for three equal channels."""
    if channels == RGB:
        return Normalise(mean=intake.mean, std=intake.std)
    return Normalise(mean=(fmean(intake.mean),), std=(fmean(intake.std),))

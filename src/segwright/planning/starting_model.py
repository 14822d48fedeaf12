"""The model that a run is tuned from, asked as the run asks its own, so that it can be scored on the same images.

An earlier run prepares images in its own way, and looks at them in the tiles, in the mirror images and with the rules of the
run that is tuned from it: what differs then is what was learnt. A published network that answers prompts sees images as its
authors trained it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from segwright.core import Dataset
from segwright.core.errors import SegwrightError, SettingError
from segwright.data.missing import void_where_missing
from segwright.evaluation.evaluate import Tally, count_predictions, tally_of_clicks
from segwright.evaluation.interactive import SimulatedUser, clicks_for, counter_of_clicks
from segwright.evaluation.pairs import a_few
from segwright.inference.load import load
from segwright.inference.predictor import Predictor
from segwright.inference.prompting import TASK, Prompter, open_prompter
from segwright.models import tasks_of
from segwright.planning.start import Start, Wish, named_start
from segwright.plans.kinds import kind_of
from segwright.plans.plan import Plan
from segwright.training.init import TIMM

Count = Callable[..., Tally]  # as `count_predictions`, of a predictor that is known


@dataclass(frozen=True, eq=False)
class StartingModel:
    """What a run is tuned from, by the `name` that its plan gives it, on a data set.

    Where it cannot be scored there, `ask` is None, and `why_not` says why. `is_alike` tells that images take it as long as they
    take the network of the run.
    """

    name: str
    data: Dataset
    ask: Count | None = None
    why_not: str = ""
    is_alike: bool = False

    def count(self, metrics: Sequence[str], keys: Sequence[str] | None = None) -> Tally | None:
        """What metrics count on the data, or on these keys of them; None where it cannot be scored.

        Raises:
            UsageError: an image cannot be predicted.
        """
        return None if self.ask is None else self.ask(self.data, metrics=metrics, keys=keys)


def starting_model(plan: Plan, data: Dataset, *, own_modules: bool = False) -> StartingModel | None:
    """The model that a plan starts from, on a data set; None where it starts from random weights, or from an encoder alone."""
    name = plan.init.weights
    if name is None or name == TIMM:
        return None
    found = StartingModel(name, data)
    try:
        start = named_start(Wish(weights=name, new_head=plan.init.new_head, own_modules=own_modules))
        if start is None or start.network is None:
            return None
        if start.preset is None:
            return _earlier_run(found, plan, own_modules=own_modules)
        return _published(found, plan, start)
    except SegwrightError as error:
        return replace(found, why_not=f"it cannot be opened ({error})")


def _earlier_run(found: StartingModel, plan: Plan, *, own_modules: bool) -> StartingModel:
    """As `starting_model`, of a run of this package."""
    predictor = load(found.name, own_modules=own_modules)
    if type(predictor.task) is not type(plan.task):
        try:
            predictor = load(found.name, task=kind_of(plan.task), own_modules=own_modules)
        except SettingError:
            return replace(found, why_not=f"it was trained for {kind_of(predictor.task)} segmentation")
    before, now = predictor.preprocess, plan.data.preprocess
    return _asked(found, predictor, plan, is_alike=(before.scale, before.spacing_mm) == (now.scale, now.spacing_mm))


def _published(found: StartingModel, plan: Plan, start: Start) -> StartingModel:
    """As `starting_model`, of weights that others have published, or a file of them."""
    name = str(start.preset)
    if TASK in tasks_of(start.network):
        return replace(found, ask=partial(_count_clicks, open_prompter(name, weights=found.name)))
    if start.init.new_head:
        return replace(found, why_not="its head, which is for other classes, was left out")
    return _asked(found, load(name, weights=found.name, task=kind_of(plan.task)), plan)


def _asked(found: StartingModel, predictor: Predictor, plan: Plan, *, is_alike: bool = False) -> StartingModel:
    """A predictor that looks at images as a plan says; none where it knows other classes than the data."""
    theirs, ours = predictor.answers.names, predictor.task.dataset(found.data).classes.names
    if theirs != ours:
        given, needed = a_few(list(theirs)), a_few(list(ours))
        return replace(found, why_not=f"its classes are {given}, and those of the data {needed}")
    inference = plan.inference
    predictor = replace(
        predictor,
        tile=inference.tile,
        flips=inference.flip_axes,
        temperature=inference.temperature,
        postprocess=inference.postprocess,
        calibration=inference.calibration,
    )
    return replace(found, ask=partial(count_predictions, predictor), is_alike=is_alike)


def _count_clicks(prompter: Prompter, dataset: Dataset, *, metrics: Sequence[str], keys: Sequence[str] | None = None) -> Tally:
    """As `count_predictions`, of a published network that answers prompts."""
    counter = counter_of_clicks(metrics, dataset.classes)
    user = SimulatedUser(prompter.open_sample, clicks_for(counter))
    return tally_of_clicks(user, void_where_missing(dataset if keys is None else dataset.subset(keys)), counter)

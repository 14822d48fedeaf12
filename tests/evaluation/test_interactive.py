"""A simulated person who clicks until objects are right: curves, scores and what is refused. Axes: N objects, H, W."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from segwright.core import VOID, Classes, Dataset, Prompt, Sample, Segmentation
from segwright.core.errors import UnknownNameError, UsageError
from segwright.encoders import resnet
from segwright.evaluation.evaluate import evaluate_clicks
from segwright.evaluation.interactive import (
    MOST_OBJECTS,
    SimulatedUser,
    clicks_for,
    counted_clicks,
    counter_of_clicks,
)
from segwright.inference.prompting import Prompter
from segwright.metrics.number_of_clicks import MAX_CLICKS, NumberOfClicks
from segwright.models import sam_nano

CLASSES = Classes.of(["background", "cell"], is_thing=[False, True])
SHAPE = (20, 40)


@dataclass
class Brush:
    """Paints a square of 10 pixels about each click on the object, and wipes one about each beside it."""

    asked: list[Prompt] = field(default_factory=list)
    together: list[int] = field(default_factory=list)

    def segment(self, *prompts: Prompt) -> Segmentation:
        self.asked += prompts
        self.together.append(len(prompts))
        masks = np.zeros((len(prompts), *SHAPE), bool)
        for mask, prompt in zip(masks, prompts, strict=True):
            for (x, y), is_foreground in zip(prompt.points_xy, prompt.is_foreground, strict=True):
                rows, columns = (slice(max(0, int(at) - 4), int(at) + 6) for at in (y, x))
                mask[rows, columns] = is_foreground
        return Segmentation.instances(masks, [0] * len(masks))


def truth_of(*columns: slice) -> Segmentation:
    masks = np.zeros((len(columns), *SHAPE), bool)
    for mask, part in zip(masks, columns, strict=True):
        mask[5:15, part] = True
    return Segmentation.instances(masks, [1] * len(masks), classes=CLASSES)


def dataset(**truths: Segmentation | None) -> Dataset:
    return Dataset("here", CLASSES, tuple(truths), lambda key: Sample.of(key, np.zeros((3, *SHAPE), np.uint8), truths[key]))


def test_by_hand_a_square_takes_one_click_and_a_bar_two():
    brush = Brush()
    user = SimulatedUser(lambda sample: brush)
    curves, first = user(Sample.of("a", np.zeros((3, *SHAPE), np.uint8)), truth_of(slice(0, 10), slice(20, 40)))
    assert curves == [[1.0], [0.5, 1.0]] and len(first) == 2
    assert brush.asked[0].mask is None and len(brush.asked[0].points_xy) == 1
    assert (first.mask(1) == brush.asked[2].mask).all() and brush.asked[2].is_foreground.tolist() == [True, True]
    assert user.note.startswith("Clicks are simulated, at the centre") and len(user.clicked) == sum(map(len, curves))


def test_all_objects_are_clicked_at_once_each_as_if_it_were_alone():
    truth, brush = truth_of(slice(0, 10), slice(12, 40), slice(20, 40)), Brush()
    curves, _ = SimulatedUser(lambda sample: brush, is_centred=False)(Sample.of("a", np.zeros((3, *SHAPE), np.uint8)), truth)
    lengths = [len(curve) for curve in curves]
    assert brush.together[0] == 3 and sum(brush.together) == sum(lengths) and len(brush.together) == max(lengths)
    numbers = {prompt.object_id for prompt in brush.asked}
    assert numbers == {1, 2, 3}  # by which a session knows what it said of an object before
    for number in numbers:
        first, *others = (prompt for prompt in brush.asked if prompt.object_id == number)
        assert first.mask is None and [len(prompt.points_xy) for prompt in others] == [*range(2, 2 + len(others))]
        answers = [Brush().segment(prompt).mask(0) for prompt in (first, *others)]
        assert all((prompt.mask == before).all() for prompt, before in zip(others, answers, strict=False))


def test_a_network_answers_objects_together_as_it_answers_each_alone():
    torch.manual_seed(0)
    small = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16)
    prompter = Prompter(network=sam_nano.Config(encoder=small).build().eval(), side=64)
    image = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    sample, truth = Sample.of("a", image), truth_of(slice(0, 10), slice(12, 40))
    curves, first = SimulatedUser(prompter.open, 4)(sample, truth)
    for index in range(2):
        alone = Segmentation.instances(truth.mask(index)[None], [1], classes=CLASSES)
        (curve,), answer = SimulatedUser(prompter.open, 4)(sample, alone)
        assert curve == pytest.approx(curves[index]) and len(curve) == 4 and (answer.mask(0) == first.mask(index)).all()


def test_clicks_end_where_nothing_is_wrong():
    class Right:
        def segment(self, *prompts: Prompt) -> Segmentation:
            return truth_of(slice(0, 10))

    user = SimulatedUser(lambda sample: Right())
    assert user(Sample.of("a", np.zeros((3, *SHAPE), np.uint8)), truth_of(slice(0, 10)))[0] == [[1.0]]


def test_pixels_that_nobody_knows_do_not_count():
    truth = truth_of(slice(0, 10))
    planes = truth.planes.copy()
    planes[:, :, 10:] = VOID
    known = Segmentation(planes, truth.class_ids, truth.instance_ids, truth.scores, truth.classes)

    class Everything:
        def segment(self, *prompts: Prompt) -> Segmentation:
            mask = np.zeros((1, *SHAPE), bool)
            mask[0, 5:15] = True
            return Segmentation.instances(mask, [0])

    user = SimulatedUser(lambda sample: Everything())
    assert user(Sample.of("a", np.zeros((3, *SHAPE), np.uint8)), known)[0] == [[1.0]]


def test_scores_are_those_of_the_curves_and_clicks_as_many_as_they_need():
    data = dataset(a=truth_of(slice(0, 10), slice(20, 40)), b=truth_of(slice(5, 35)), empty=truth_of())
    scores = evaluate_clicks(lambda sample: Brush(), data, resamples=50)
    assert set(scores.values) == set(NumberOfClicks.SCORES) and scores.count == 2 and set(scores.per_image) == {"a", "b"}
    curves = [SimulatedUser(lambda sample: Brush())(data[n], data[n].truth)[0] for n in (0, 1)]
    metric = NumberOfClicks()
    first, *others = [metric.count(curve) for each in curves for curve in each]
    wanted = metric.score(sum(others, first))
    assert scores.values == {name: pytest.approx(float(value)) for name, value in wanted.items()}
    assert clicks_for(counter_of_clicks(("IoU@1", "iou@3"), CLASSES)) == 3
    assert clicks_for(counter_of_clicks(("NoC@85",), CLASSES)) == clicks_for(counter_of_clicks((), CLASSES)) == MAX_CLICKS
    some = evaluate_clicks(lambda sample: Brush(), data, metrics=["IoU@1"], resamples=0)
    assert some.values == {"IoU@1": pytest.approx(scores.values["IoU@1"])}


def test_clicks_beside_the_centre_are_others_and_the_same_each_time():
    data = dataset(a=truth_of(slice(0, 20), slice(22, 40)))
    runs = [evaluate_clicks(lambda sample: Brush(), data, is_centred=each, resamples=0) for each in (True, False, False)]
    assert runs[0].values["IoU@1"] > runs[1].values["IoU@1"] and runs[1].values == runs[2].values
    assert "a random place about the deepest error" in runs[1].notes[-1]


def test_of_many_objects_some_are_clicked_the_largest_and_the_smallest_among_them():
    masks = np.zeros((12, 20, 40), bool)
    for number in range(12):
        masks[number, number, : 16 + 2 * number] = True
    data = dataset(a=Segmentation.instances(masks, [1] * 12, classes=CLASSES))
    counter = counter_of_clicks(("IoU@1",), CLASSES)
    ((counted, sample, first),) = counted_clicks(SimulatedUser(lambda sample: Brush(), 1), data, counter)
    assert len(sample.truth) == len(first) == MOST_OBJECTS == counted.states["number_of_clicks"].values[0]
    assert {16, 38} <= {*sample.truth.areas().tolist()}


def test_pictures_get_what_was_clicked_and_the_first_answer():
    seen = []
    data = dataset(a=truth_of(slice(0, 10)))
    evaluate_clicks(lambda sample: Brush(), data, resamples=0, on_image=lambda *parts: seen.append(parts))
    ((sample, first, scores),) = seen
    assert len(sample.truth) == len(first) == 1 and scores["IoU@1"] == 1


def test_what_cannot_be_clicked_is_told():
    with pytest.raises(UsageError, match="'a' has no truth to click on"):
        evaluate_clicks(lambda sample: Brush(), dataset(a=None))
    with pytest.raises(UsageError, match="none of 1 images holds anything that number_of_clicks counts"):
        evaluate_clicks(lambda sample: Brush(), dataset(a=truth_of()))
    with pytest.raises(UnknownNameError, match="no score 'IoU@2' of clicks.*known are NoC@85"):
        evaluate_clicks(lambda sample: Brush(), dataset(a=truth_of()), metrics=["IoU@2"])
    assert evaluate_clicks(lambda sample: Brush(), dataset(a=truth_of(slice(0, 9))), metrics=["number_of_clicks"]).count == 1

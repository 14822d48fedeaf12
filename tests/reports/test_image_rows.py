import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.evaluation.scores import Scores
from segwright.evaluation.tide_errors import MATCHED
from segwright.reports.image_rows import RowView, has_stuff, image_rows

THINGS = Classes.of(["cell"], is_thing=[True])
BOTH = Classes.of(["sky", "car"], is_thing=[False, True])


def scores_of(classes, per_image):
    return Scores(
        count=len(per_image), classes=classes, values={}, intervals={}, per_image=per_image, matrix=(), conventions={}
    )


def cell(first, end, shape=(8, 10), classes=THINGS):
    mask = np.zeros((1, *shape), bool)
    mask[..., first:end] = True
    return Segmentation.instances(mask, [len(classes) - 1], classes=classes)


def captions(html, read_html):
    return [word for word in read_html(html).text if word.startswith(("Image", "Tru", "Pred", "Dis"))]


def test_objects_alone_by_hand(read_html):
    sample = Sample.of("a", np.zeros((1, 8, 10), np.uint8), cell(0, 5))
    html = image_rows(scores_of(THINGS, {"a": {"AP": 1.0}}), [(sample, cell(0, 6), {"AP": 1.0})], with_objects=True)
    assert captions(html, read_html) == ["Image", "True objects", "Predicted objects", "Disagreement"]
    text = "".join(read_html(html).text)
    assert "matched" in text and "missed" not in text and "AP 100.0\u00a0%" in text and "rank 1 of 1" in text


def test_panoptic_shows_classes_and_objects(read_html):
    truth = Segmentation.panoptic(np.array([[1, 1, 2, 2]] * 4), [0, 1], [0, 1], classes=BOTH)
    sample = Sample.of("a", np.zeros((1, 4, 4), np.uint8), truth)
    html = image_rows(scores_of(BOTH, {"a": {"PQ": 1.0}}), [(sample, truth, {"PQ": 1.0})], with_objects=True)
    assert captions(html, read_html) == ["Image", "Truth", "Prediction", "True objects", "Predicted objects", "Disagreement"]
    html = image_rows(scores_of(BOTH, {"a": {"PQ": 1.0}}), [(sample, truth, {"PQ": 1.0})], with_objects=False)
    assert captions(html, read_html) == ["Image", "Truth", "Prediction", "Disagreement"]


def test_hardest_first_and_distances_the_other_way_round(read_html):
    for name, order in (("PQ", "abc"), ("HD95", "cba")):
        per_image = {key: {name: value} for key, value in (("b", 0.5), ("a", 0.2), ("c", 0.9))}
        sample = Sample.of("x", np.zeros((1, 8, 10), np.uint8), cell(0, 5))
        examples = [(Sample.of(key, sample.image, sample.truth), cell(0, 5), own) for key, own in per_image.items()]
        text = "".join(read_html(image_rows(scores_of(THINGS, per_image), examples, with_objects=True)).text)
        assert sorted(order, key=lambda key: text.index(f"{key}{name}")) == list(order)
        assert text.index("rank 3 of 3") < text.index("rank 2 of 3") < text.index("rank 1 of 3")


def test_volumes_show_the_slice_with_the_most_wrong_pixels():
    truth, guess = np.zeros((5, 6, 7), int), np.zeros((5, 6, 7), int)
    guess[1, 0, 0] = guess[3, :2] = 1
    sample = Sample.of("v", np.arange(210).reshape(1, 5, 6, 7), Segmentation.semantic(truth, BOTH))
    view = RowView.of(sample, Segmentation.semantic(guess, BOTH), with_objects=False)
    assert view.place == ", slice 3 of 5" and (view.image == sample.image[:, 3]).all() and view.answer[:2].all()


def test_fates_are_those_of_the_whole_volume():
    truth, guess = (np.zeros((1, 3, 4, 10), bool) for _ in range(2))
    truth[..., :5] = guess[:, :2, :, :5] = guess[:, 2, :, :1] = True
    sample = Sample.of("v", np.zeros((1, 3, 4, 10)), Segmentation.instances(truth, [0], classes=THINGS))
    view = RowView.of(sample, Segmentation.instances(guess, [0], classes=THINGS), with_objects=True)
    assert view.place == ", slice 2 of 3" and view.shown_fates() == {MATCHED}


def test_without_a_truth_nothing_is_compared():
    sample = Sample.of("a", np.zeros((1, 8, 10), np.uint8))
    view = RowView.of(sample, Segmentation.semantic(np.zeros((8, 10), int), BOTH), with_objects=False)
    assert (view.actual == -1).all() and len(view.figures(BOTH)) == 4


@pytest.mark.parametrize(("name", "expected"), [("Background", False), ("sky", True)])
def test_background_is_no_stuff_to_show(name, expected):
    classes = Classes.of([name, "cell"], is_thing=[False, True])
    assert has_stuff(Segmentation.panoptic(np.array([[1, 2]]), [0, 1], [0, 5], classes=classes)) is expected
    assert image_rows(scores_of(classes, {}), [], with_objects=True) == ""

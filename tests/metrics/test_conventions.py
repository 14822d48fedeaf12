"""Each named convention gives the number of its library, live where the library is installed and by a slow twin elsewhere."""

from functools import reduce
from itertools import pairwise
from operator import add
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from segwright.core import VOID, Classes, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import UnknownNameError
from segwright.metrics.accumulators import Sums
from segwright.metrics.confusion import Confusion
from segwright.metrics.conventions import CONVENTIONS, Convention, convention_named

CLASSES = Classes.of(["background", "road", "car", "tram", "ship"])  # tram is in no truth but predicted; ship is nowhere
K = len(CLASSES)
FLOAT32 = 3e-7  # what a library that counts in float32 leaves of a number


def images(count=5, *, void=True, seed=0):
    """Pairs of class maps (H, W), prediction and truth: some images lack a class, in the truth or altogether."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        shape = (9 + index, 12)  # images of different sizes weigh differently where pixels are added up
        truth = generator.integers(0, 2 if index % 2 else 3, shape)
        prediction = np.where(generator.random(shape) < 0.6, truth, generator.integers(0, 4 if index > 2 else 3, shape))
        if void:
            truth[generator.random(shape) < 0.1] = VOID
        yield prediction, truth


def ours(name, pairs, classes=CLASSES):
    metric = Confusion(classes, rules=convention_named(name))
    states = [metric.count(Segmentation.semantic(p, classes), Segmentation.semantic(t, classes)) for p, t in pairs]
    return {score: float(value) for score, value in metric.score(reduce(add, states)).items()}


def one_hot(class_map):
    """(1, K, H, W); a void pixel is of no class."""
    return (np.arange(K)[:, None, None] == class_map)[None].astype(np.int64)


# By hand


TWO = [(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])), (np.array([[0, 0]]), np.array([[0, 0]]))]  # IoU 1/2 2/3, then 1


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, (3 / 4 + 2 / 3) / 2),
        ({"images": "averaged"}, ((1 / 2 + 2 / 3) / 2 + 1) / 2),
        ({"images": "averaged by class"}, ((1 / 2 + 1) / 2 + 2 / 3) / 2),
        ({"images": "averaged with classes"}, (1 / 2 + 2 / 3 + 1) / 3),
        ({"images": "averaged", "absent_score": 1.0}, ((1 / 2 + 2 / 3) / 2 + 1) / 2),
        ({"images": "averaged", "absent_score": 0.0}, ((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2),
        ({"background": "not averaged"}, 2 / 3),
        ({"background": "void"}, 2 / 3),
    ],
)
def test_two_images_by_hand(rules, expected):
    classes = Classes.of(["background", "road"])
    metric = Confusion(classes, rules=Convention(**rules))
    states = [metric.count(Segmentation.semantic(p, classes), Segmentation.semantic(t, classes)) for p, t in TWO]
    assert metric.score(states[0] + states[1])["mIoU"] == pytest.approx(expected)


def test_absent_from_the_truth_by_hand():
    classes = Classes.of(["a", "b"])
    prediction, truth = (Segmentation.semantic(np.array([each]), classes) for each in ([0, 1], [0, 0]))
    for rules, expected in (({}, 1 / 4), ({"absent_from": "truth"}, 1 / 2)):
        metric = Confusion(classes, rules=Convention(**rules))
        assert metric.score(metric.count(prediction, truth))["mIoU"] == expected


def test_void_of_no_class_makes_a_prediction_there_wrong():
    classes = Classes.of(["a"])
    prediction, truth = (Segmentation.semantic(np.array([each]), classes) for each in ([0, 0, 0], [0, 0, VOID]))
    for rules, expected in (({}, 1), ({"void": "no class"}, 2 / 3)):
        metric = Confusion(classes, rules=Convention(**rules))
        scores = metric.score(metric.count(prediction, truth))
        assert scores["IoU/a"] == scores["pixel accuracy"] == expected


def test_background_as_void_leaves_its_pixels_out():
    classes = Classes.of(["Background", "b"])
    prediction, truth = (Segmentation.semantic(np.array([each]), classes) for each in ([1, 1, 1, 0], [0, 0, 1, 1]))
    metric = Confusion(classes, rules=Convention(background="void"))
    scores = metric.score(metric.count(prediction, truth))
    assert scores["IoU/b"] == scores["mIoU"] == scores["pixel accuracy"] == 1 / 2  # predicting background is still a miss


@pytest.mark.parametrize("name", ["Background", "_background_", "background"])
def test_background_is_found_by_its_name(name):
    assert background_of(Classes.of(["a", name])) == 1
    assert background_of(Classes.of(["a", "backgrounds"])) is None


# By a slow twin: libraries that are no Python packages to install for a test


def test_mmsegmentation():
    """As IoUMetric defines it: histograms of the pixels that are not ignored, added up, then divided."""
    areas = np.zeros((4, K))
    for prediction, truth in images():
        keep = truth != VOID
        p, t = prediction[keep], truth[keep]
        inter, guessed, true = (np.bincount(each, minlength=K) for each in (t[p == t], p, t))
        areas += np.stack([inter, guessed + true - inter, guessed, true])
    inter, union, guessed, true = areas
    scores = ours("mmsegmentation", images())
    with np.errstate(invalid="ignore"):
        expected = {
            "pixel accuracy": inter.sum() / true.sum(),
            "mIoU": np.nanmean(inter / union),
            "mean accuracy": np.nanmean(inter / true),
            "Dice": np.nanmean(2 * inter / (guessed + true)),
            "precision": np.nanmean(inter / guessed),
            "recall": np.nanmean(inter / true),
        }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_mmsegmentation_zero_label():
    """reduce_zero_label makes label 0 of the truth ignored and numbers the rest from 0; the network knows K - 1 classes."""
    areas = np.zeros((2, K - 1))
    pairs = [(np.maximum(p, 1), t) for p, t in images()]
    for prediction, truth in pairs:
        keep = truth >= 1
        p, t = prediction[keep] - 1, truth[keep] - 1
        inter = np.bincount(t[p == t], minlength=K - 1)
        areas += np.stack([inter, np.bincount(p, minlength=K - 1) + np.bincount(t, minlength=K - 1) - inter])
    with np.errstate(invalid="ignore"):
        expected = np.nanmean(areas[0] / areas[1])
    assert ours("mmsegmentation_zero_label", pairs)["mIoU"] == pytest.approx(expected, abs=1e-12)


def test_detectron2():
    """As SemSegEvaluator defines it: only classes that the truth holds are averaged."""
    matrix = np.zeros((K + 1, K + 1))  # predicted, true; the last is ignored
    for prediction, truth in images():
        np.add.at(matrix, (prediction, np.where(truth == VOID, K, truth)), 1)
    hits, true, guessed = np.diag(matrix)[:-1], matrix[:-1, :-1].sum(axis=0), matrix[:-1, :-1].sum(axis=1)
    held = true > 0
    iou = hits[held] / (true + guessed - hits)[held]
    scores = ours("detectron2", images())
    assert scores["mIoU"] == pytest.approx(iou.mean(), abs=1e-12)
    assert scores["frequency-weighted IoU"] == pytest.approx((iou * true[held] / true.sum()).sum(), abs=1e-12)
    assert scores["mean accuracy"] == pytest.approx((hits[held] / true[held]).mean(), abs=1e-12)
    assert scores["pixel accuracy"] == pytest.approx(hits.sum() / true.sum(), abs=1e-12)
    assert ours("segwright", images())["mIoU"] < scores["mIoU"]  # there, a class that is only predicted counts 0


def test_nnunet():
    """As nnU-Net v2 defines it: Dice of each case and class, averaged over cases without NaN, then over the foreground."""
    classes = Classes.of(CLASSES.names[:4])  # with a class that is nowhere, foreground_mean is NaN there
    cases = []
    with np.errstate(invalid="ignore"):
        for prediction, truth in images():
            use = truth != VOID
            hits, extra, missed = np.array(
                [
                    [((truth == k) & (prediction == k) & use).sum() for k in range(4)],
                    [((truth != k) & (prediction == k) & use).sum() for k in range(4)],
                    [((truth == k) & (prediction != k) & use).sum() for k in range(4)],
                ]
            )
            cases.append((2 * hits / (2 * hits + extra + missed), hits / (hits + extra + missed)))
    dice, iou = np.nanmean(np.array(cases), axis=0)
    scores = ours("nnunet", images(), classes)
    assert scores["Dice"] == pytest.approx(np.mean(dice[1:]), abs=1e-12)
    assert scores["mIoU"] == pytest.approx(np.mean(iou[1:]), abs=1e-12)
    assert_allclose([scores[f"Dice/{name}"] for name in classes.names], dice, rtol=0, atol=1e-12)


def test_torchmetrics_1_7_0():
    """As MeanIoU was until its issue 2866 was mended: an absent class counts 0 in each image that lacks it."""
    values = []
    for prediction, truth in images():
        p, t = one_hot(prediction)[0].astype(bool), one_hot(truth)[0].astype(bool)
        inter, union = (p & t).sum(axis=(1, 2)), (p | t).sum(axis=(1, 2))
        values.append(np.mean(inter / np.maximum(union, 1)))
    assert ours("torchmetrics_1_7_0", images())["mIoU"] == pytest.approx(np.mean(values), abs=1e-12)


# Live


def test_cityscapes():
    evaluation = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    known = [label for label in labels if label.id >= 0 and not label.ignoreInEval]
    classes = Classes.of([label.name for label in known])
    matrix = evaluation.generateMatrix(SimpleNamespace())
    evaluation.args.evalLabels = [label.id for label in labels if label.id >= 0]
    pairs = [(p, t) for p, t in images()]
    number = np.array([label.id for label in known] + [0])  # void, at index -1, is label 0 (unlabeled)
    for prediction, truth in pairs:
        np.add.at(matrix, (number[truth], number[prediction]), np.ulonglong(1))
    by_name = {label.name: evaluation.getIouScoreForLabel(label.id, matrix, evaluation.args) for label in known}
    scores = ours("cityscapes", pairs, classes)
    assert scores["mIoU"] == pytest.approx(evaluation.getScoreAverage(by_name, evaluation.args), abs=1e-12)
    assert_allclose([scores[f"IoU/{name}"] for name in by_name], list(by_name.values()), rtol=0, atol=1e-12)


def test_torchmetrics():
    torch, segmentation = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.segmentation")
    iou, by_class = segmentation.MeanIoU(num_classes=K), segmentation.MeanIoU(num_classes=K, per_class=True)
    dice = segmentation.DiceScore(num_classes=K, average="macro")
    for prediction, truth in images():
        for metric in (iou, by_class, dice):
            metric.update(torch.from_numpy(one_hot(prediction)), torch.from_numpy(one_hot(truth)))
    scores = ours("torchmetrics", images())
    assert scores["mIoU"] == pytest.approx(iou.compute().item(), abs=FLOAT32)
    own = np.nan_to_num([scores[f"IoU/{name}"] for name in CLASSES.names], nan=-1)  # an absent class is -1 there
    assert_allclose(own, by_class.compute().numpy(), rtol=0, atol=FLOAT32)
    assert ours("torchmetrics_dice", images())["Dice"] == pytest.approx(dice.compute().item(), abs=FLOAT32)


def test_torchmetrics_jaccard():
    torch, classification = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.classification")
    pairs = list(images(void=False))
    metric = classification.MulticlassJaccardIndex(num_classes=K, ignore_index=0)
    kappa = classification.MulticlassCohenKappa(num_classes=K)
    for prediction, truth in pairs:
        metric.update(torch.from_numpy(prediction), torch.from_numpy(truth))
        kappa.update(torch.from_numpy(prediction), torch.from_numpy(truth))
    assert ours("torchmetrics_jaccard", pairs)["mIoU"] == pytest.approx(metric.compute().item(), abs=FLOAT32)
    assert ours("segwright", pairs)["kappa"] == pytest.approx(kappa.compute().item(), abs=FLOAT32)


@pytest.mark.parametrize(
    ("name", "settings", "by_class"),
    [
        ("monai", {}, False),
        ("monai_with_empty", {"ignore_empty": False}, False),
        ("monai_by_class", {"include_background": False}, True),
    ],
)
def test_monai(name, settings, by_class):
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    for score, kind in (("Dice", metrics.DiceMetric), ("mIoU", metrics.MeanIoU)):
        metric = kind(**settings)
        for prediction, truth in images():
            metric(torch.from_numpy(one_hot(prediction)), torch.from_numpy(one_hot(truth)))
        if by_class:
            values = metric.get_buffer().numpy().astype(float)  # (N, K); aggregate("mean_batch") gives 0 where all are NaN
            expected = np.nanmean(values[:, ~np.isnan(values).all(axis=0)], axis=0).mean()
        else:
            expected = metric.aggregate().item()
        assert ours(name, images())[score] == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize(("name", "reduction"), [("smp", "macro"), ("smp_imagewise", "macro-imagewise")])
def test_segmentation_models_pytorch(name, reduction):
    torch, smp = pytest.importorskip("torch"), pytest.importorskip("segmentation_models_pytorch.metrics")
    stats = [
        smp.get_stats(torch.from_numpy(p)[None], torch.from_numpy(t)[None], "multiclass", ignore_index=VOID, num_classes=K)
        for p, t in images()
    ]
    counts = [torch.cat(each) for each in zip(*stats, strict=True)]
    scores = ours(name, images())
    for score, function in (
        ("mIoU", smp.iou_score),
        ("Dice", smp.f1_score),
        ("recall", smp.recall),
        ("precision", smp.precision),
    ):
        assert scores[score] == pytest.approx(function(*counts, reduction=reduction).item(), abs=FLOAT32), score


# Where torchmetrics surprises


def test_torchmetrics_reads_index_maps_as_one_hot_unless_told():
    """Each row of a map is taken for a class and labels are multiplied or and-ed; Dice exceeds 1 and no error tells."""
    torch, segmentation = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.segmentation")
    truth = torch.from_numpy(np.array([[[0, 1, 2], [2, 2, 1], [0, 0, 0]]]))
    other = torch.from_numpy(np.array([[[2, 1, 0], [1, 2, 2], [0, 0, 0]]]))
    assert segmentation.DiceScore(num_classes=3)(truth, truth).item() > 1.5
    found = segmentation.MeanIoU(num_classes=3)(other, truth).item()
    told = segmentation.MeanIoU(num_classes=3, input_format="index")(other, truth).item()
    assert abs(found - told) > 0.1
    pairs = [(other[0].numpy(), truth[0].numpy())]
    assert ours("torchmetrics", pairs, Classes.of(["a", "b", "c"]))["mIoU"] == pytest.approx(told, abs=FLOAT32)


def test_torchmetrics_scores_mean_iou_and_its_classes_differently():
    """MeanIoU() is over all classes of all images at once: it is not the mean of MeanIoU(per_class=True)."""
    torch, segmentation = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.segmentation")
    pairs = list(images(void=False))
    once, by_class = (segmentation.MeanIoU(num_classes=4, per_class=each, input_format="index") for each in (False, True))
    for prediction, truth in pairs:
        for metric in (once, by_class):
            metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
    assert abs(once.compute() - by_class.compute().mean()) > 0.02
    classes = Classes.of(CLASSES.names[:4])
    metric = Confusion(classes, rules=Convention(images="averaged by class"))
    states = [metric.count(Segmentation.semantic(p, classes), Segmentation.semantic(t, classes)) for p, t in pairs]
    assert metric.score(reduce(add, states))["mIoU"] == pytest.approx(by_class.compute().mean().item(), abs=FLOAT32)


def test_torchmetrics_counts_an_absent_class_as_0_or_as_minus_1_by_class():
    """A mean over what it returns by class is wrong: MulticlassJaccardIndex says 0 of a class that is nowhere, MeanIoU -1."""
    torch, classification = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.classification")
    same = torch.from_numpy(np.array([0, 1, 1]))
    assert classification.MulticlassJaccardIndex(num_classes=3, average=None)(same, same).tolist() == [1, 1, 0]
    assert classification.MulticlassJaccardIndex(num_classes=3, average="macro")(same, same).item() == 1
    segmentation = pytest.importorskip("torchmetrics.segmentation")
    by_class = segmentation.MeanIoU(num_classes=3, per_class=True, input_format="index")(same[None, None], same[None, None])
    assert by_class.tolist() == [1, 1, -1]


def test_torchmetrics_counts_an_absent_class_as_0_in_generalized_dice():
    """As MeanIoU did before 1.7.1 (issue 2866): a perfect prediction of two of three classes has a Dice of 0 for the third."""
    torch, segmentation = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.segmentation")
    same = torch.from_numpy(np.array([[[0, 0], [1, 1]]]))
    metric = segmentation.GeneralizedDiceScore(num_classes=3, per_class=True, input_format="index")
    assert metric(same, same).tolist() == [1, 1, 0]
    assert np.isnan(ours("segwright", [(same[0].numpy(), same[0].numpy())])["Dice/tram"])


def test_torchmetrics_scores_an_image_that_is_rightly_empty_as_0():
    torch, functional = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.classification")
    empty = torch.zeros(2, 2, dtype=torch.long)
    assert functional.binary_jaccard_index(empty, empty).item() == functional.binary_f1_score(empty, empty).item() == 0
    assert np.isnan(ours("segwright", [(empty.numpy(), empty.numpy())])["IoU/road"])


def test_torchmetrics_forgives_what_is_predicted_on_an_ignored_background():
    """With ignore_index=0, labelling all background as an object costs nothing; leaving background out of the mean does."""
    torch, classification = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.classification")
    truth, everywhere = np.array([[0, 0, 0, 1]]), np.array([[1, 1, 1, 1]])
    metric = classification.MulticlassJaccardIndex(num_classes=2, ignore_index=0)
    assert metric(torch.from_numpy(everywhere), torch.from_numpy(truth)).item() == 1
    classes = Classes.of(["background", "road"])
    assert ours("torchmetrics_jaccard", [(everywhere, truth)], classes)["mIoU"] == 1
    assert ours("nnunet", [(everywhere, truth)], classes)["mIoU"] == 1 / 4


def test_torchmetrics_has_no_void_in_segmentation():
    torch, segmentation = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.segmentation")
    metric = segmentation.MeanIoU(num_classes=2, input_format="index")
    with pytest.raises(RuntimeError, match="Class values must be"):
        metric.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 255]]]))


# By a law


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_perfect_prediction_is_perfect_in_each_convention(name):
    """Where no class is absent; and where void counts as no class, without void."""
    pairs = [(truth, truth) for truth in (np.array([[0, 1, 2, 3, 4]]), np.array([[4, 3, 2, 1, 0]]))]
    scores = ours(name, pairs)
    assert all(value == 1 for score, value in scores.items() if np.isfinite(value)), scores


@pytest.mark.parametrize("name", CONVENTIONS)
def test_weighted_sums_are_those_of_repeated_images(name):
    """So that intervals come from resampling images, whatever the convention."""
    metric = Confusion(CLASSES, rules=convention_named(name))
    states = [metric.count(Segmentation.semantic(p, CLASSES), Segmentation.semantic(t, CLASSES)) for p, t in images()]
    many = metric.score(Sums.weighted(states, np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2]])))
    alone = metric.score(reduce(add, [states[0], states[0], states[2], states[4], states[4]]))
    assert set(many) == set(metric.names)
    for score, values in many.items():
        assert values.shape == (2,) and values[1] == pytest.approx(float(alone[score]), nan_ok=True)


def test_one_image_with_all_classes_scores_alike_however_images_are_averaged():
    prediction, truth = np.array([[0, 0, 1, 2, 2]]), np.array([[0, 1, 1, 2, 0]])
    classes = Classes.of(["a", "b", "c"])
    values = []
    for images in ("added up", "averaged", "averaged by class", "averaged with classes"):
        metric = Confusion(classes, rules=Convention(images=images))
        scores = metric.score(metric.count(*(Segmentation.semantic(each, classes) for each in (prediction, truth))))
        values.append({name: float(value) for name, value in scores.items()})
    for one, other in pairwise(values):
        assert one == pytest.approx(other)


# In words


def test_a_convention_is_told_in_words():
    assert Confusion(CLASSES).convention == (
        "Pixels of all images are added up before anything is divided. An absent class is NaN and left out of means. "
        "A class is absent where neither the truth nor the prediction holds it. Background is a class like others. "
        "Pixels void in the truth are left out. A pixel given no class counts as wrong."
    )
    monai = Confusion(Classes.of(["a"]), rules=convention_named("monai")).convention
    assert "a mean over its classes, and images are averaged" in monai and "where the truth does not hold it, whatever" in monai
    assert "No class is called background: all are averaged." in monai and "any class predicted there is wrong" in monai
    assert "counts 1." in Confusion(CLASSES, rules=convention_named("smp")).convention


def test_differences_are_named():
    assert convention_named("cityscapes").differences(convention_named("mmsegmentation")) == ()
    assert convention_named("segwright").differences(convention_named("monai")) == ("images", "absent_from", "void")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"no convention 'torchmetric', did you mean 'torchmetrics'\?; known are segwright, "
    ):
        convention_named("torchmetric")
